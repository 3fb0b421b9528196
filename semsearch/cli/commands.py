"""The commands. Libraries are imported inside them, so that `--help` stays instant."""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semsearch import __version__
from semsearch.cli import facets, options
from semsearch.cli.door import FOUND, NONE_FOUND, Door, prepare_process
from semsearch.cli.evaluate import evaluate
from semsearch.cli.options import device_option, examples, index_option, json_option, precision_option
from semsearch.cli.output import clean, echo_json
from semsearch.cli.serve import serve

if TYPE_CHECKING:
    from semsearch.cli.asking import Answered, Question
    from semsearch.search_options import SearchOptions

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line as a process of its own; never returns."""
    prepare_process()
    cli(prog_name="semsearch")


@click.group(
    name="semsearch",
    epilog=examples(
        "semsearch index ./docs                    read a folder of documents",
        'semsearch query "how do I undo a commit"  find the passages that answer',
        "semsearch index                           catch up with what changed since",
    ),
    cls=Door,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """Search your own documents by meaning. Everything stays on this machine.

    Exit status: 0 when something was found, 1 when nothing was, 2 on errors.
    """


@cli.command(
    epilog=examples(
        "semsearch index ./docs ~/notes",
        'semsearch index ./docs --index work --glob "*.md" --exclude "drafts/"',
        "semsearch index --index work              everything in it, again",
    ),
    context_settings={"show_default": True},
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@index_option
@click.option(
    "--model",
    metavar="NAME",
    show_default="the index's own, or all-MiniLM-L6-v2",
    help="Model for a new index: a hub name, NAME@REVISION, or a local folder.",
)
@device_option
@precision_option
@click.option(
    "--glob", "globs", metavar="PATTERN", multiple=True, help="Read only files like this; remembered. Repeatable."
)
@click.option(
    "--exclude", "excludes", metavar="PATTERN", multiple=True, help="Leave files like this out; remembered. Repeatable."
)
@click.option("--text-column", metavar="COLUMN", help="The column to search in CSV, TSV and JSONL. [default: found]")
@options.kind_options
@click.option("--rebuild", is_flag=True, help="Start the index anew, as after choosing another --model.")
@options.wait_option
@click.option("--quiet", "-q", is_flag=True, help="No progress, no summary: only files that failed, on stderr.")
@json_option
def index(
    paths: tuple[Path, ...],
    index: str,
    model: str | None,
    device: str,
    precision: str,
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    text_column: str | None,
    kind: str | None,
    recall: float | None,
    rebuild: bool,
    wait_s: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Read files and folders, or catch up with changes.

    Each PATH is a file or a folder. Indexing it again reads only what changed, and forgets files that are gone. Without
    PATH, everything the index remembers is brought up to date. It can be stopped at any time; the next run goes on from
    there.

    Files that cannot be read are named with the reason and do not stop the run: the exit status is 0.
    """
    from semsearch.cli import progress, render
    from semsearch.indexing import build_index

    with nullcontext() if quiet else progress.indexing() as show:
        report = build_index(
            list(paths) or None,
            index=index,
            model=model,
            device=device,
            precision=precision,
            globs=globs or None,
            excludes=excludes or None,
            text_column=text_column,
            kind=kind,
            recall=recall,
            rebuild=rebuild,
            wait_s=wait_s,
            progress=show,
        )
    if as_json:
        echo_json(report.as_dict())
    elif quiet:
        render.failures(report)
    else:
        render.index_report(report, index)


@cli.command(
    epilog=examples(
        'semsearch query "how do I undo a commit"',
        'semsearch query "opening hours" -k 3 --context 5',
        'semsearch query "ERR_4711" --mode lexical --json',
        'semsearch query "refunds" --where \'lang = "en" and year >= 2020\'',
    ),
    context_settings={"show_default": True},
)
@click.argument("words", metavar="TEXT", nargs=-1, required=True)
@index_option
@click.option("-k", default=10, type=click.IntRange(1, 1000), metavar="K", help="How many passages at most.")
@click.option(
    "--mode",
    default="hybrid",
    type=click.Choice(options.MODES),
    help="dense: by meaning. lexical: by words (BM25). hybrid: both together.",
)
@options.rerank_options
@click.option(
    "--per-document",
    default=3,
    type=click.IntRange(0),
    metavar="N",
    help="At most N passages of one document; 0 for no limit.",
)
@options.diversity_options
@options.where_option
@click.option(
    "--facet",
    "facet_keys",
    metavar="KEY",
    multiple=True,
    help="Also count values of KEY among all documents that may be searched. Repeatable.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Leave out passages less probably relevant than P. [default: all, or none where even the best is not]",
)
@click.option("--explain", is_flag=True, help="Show where each score came from, and which words were matched.")
@click.option("--context", "-C", default=0, type=click.IntRange(0), metavar="N", help="Show N more lines on each side.")
@click.option(
    "--service/--no-service", default=True, help="Ask the semsearch serve that has this index open, if there is one."
)
@device_option
@json_option
def query(
    words: tuple[str, ...],
    index: str,
    k: int,
    mode: str,
    reranker: str | None,
    rerank: bool | None,
    rerank_depth: int,
    budget_ms: float,
    per_document: int,
    fold: bool,
    mmr: float | None,
    where: str | None,
    facet_keys: tuple[str, ...],
    min_probability: float | None,
    explain: bool,
    context: int,
    service: bool,
    device: str,
    as_json: bool,
) -> None:
    """Find the passages nearest in meaning to TEXT.

    Ask in your own words; a question works as well as keywords. With - as TEXT, the query is read from stdin.

    Exit status: 0 when a passage was found, 1 when none was, 2 on errors.
    """
    text = _query_text(words)
    if not text:
        raise click.UsageError('the query is empty; ask something, as in: semsearch query "how do I undo a commit"')
    from semsearch.cli import asking, progress, render

    options: SearchOptions = {
        "k": k,
        "mode": mode,
        "rerank": rerank,
        "rerank_depth": rerank_depth,
        "budget_ms": budget_ms,
        "per_document": per_document,
        "context": context,
        "fold": fold,
        "mmr": mmr,
        "where": where,
    }
    question = asking.Question(text, index, options, min_probability, explain, facet_keys)
    wanted = None if rerank is False else reranker
    with ExitStack() as opened:
        with progress.waiting("Searching"):
            answer = None
            if service and device == "auto" and reranker is None:
                answer = asking.ask_service(question, highlight=not as_json and render.open_console().is_terminal)
            answer = answer or asking.ask_index(question, device=device, reranker=wanted, opened=opened)
        _show(answer, question, as_json=as_json)
    click.get_current_context().exit(FOUND if answer.hits else NONE_FOUND)


def _show(answer: Answered, question: Question, *, as_json: bool) -> None:
    """Print the answer to a query."""
    from semsearch.cli import render

    hits, best, asked = answer.hits, answer.best, question.min_probability
    if asked and hits and best is None:
        click.echo("semsearch: these passages have no probabilities, so none is left out for them", err=True)
    if as_json:
        echo_json(answer.data)
        return
    if hits:
        whole = question.options.get("context", 0) > 0
        render.hits(hits, answer.highlight, whole=whole, matches=answer.matches)
    elif best is not None and asked:
        click.echo(f"semsearch: no passage is {asked:.0%} probable (best {best:.0%})", err=True)
    elif best is not None:
        click.echo(f"semsearch: nothing relevant found (best {best:.0%}); --min-probability 0 shows it", err=True)
    else:
        among = " among documents that match --where" if question.options.get("where") is not None else ""
        click.echo(f"semsearch: no passage found in {clean(str(answer.path))}{among}", err=True)
    facets.echo_counts(answer.counts)


@cli.command(
    epilog=examples(
        "semsearch info",
        "semsearch info --index work --json",
    ),
    context_settings={"show_default": True},
)
@index_option
@json_option
@click.pass_context
def info(ctx: click.Context, index: str, as_json: bool) -> None:
    """Show what an index holds, other indexes, versions."""
    from semsearch.cli import render
    from semsearch.cli.environment import describe_installation
    from semsearch.errors import IndexNotFound
    from semsearch.store.files import find_indexes
    from semsearch.store.info import inspect_index

    try:
        facts = inspect_index(index)
    except IndexNotFound:
        if ctx.get_parameter_source("index") is not click.core.ParameterSource.DEFAULT:
            raise  # this index was asked for; without --index, none is an answer too
        facts = None
    others = [path for path in find_indexes() if facts is None or path.resolve() != facts.path.resolve()]
    installation = describe_installation()
    if as_json:
        about = {"index": facts.as_dict() if facts else None, "other_indexes": [str(path) for path in others]}
        echo_json({**about, "versions": installation.versions, "warnings": installation.warnings})
    else:
        render.info(facts, others, installation)


@cli.command(
    epilog=examples(
        "semsearch list",
        "semsearch list --index work | grep failed",
    ),
    name="list",
    context_settings={"show_default": True},
)
@index_option
@json_option
def list_(index: str, as_json: bool) -> None:
    """List the files of an index, and those left out.

    Each line holds the status, the number of passages, the path, and why a file was skipped or failed.
    """
    from semsearch.cli import render
    from semsearch.store.info import list_files

    entries = list_files(index)
    if as_json:
        echo_json({"files": [entry.as_dict() for entry in entries]})
    else:
        render.files(entries)


@cli.command(
    epilog=examples(
        "semsearch remove ./docs/old",
        "semsearch remove ~/notes --index work",
    ),
    context_settings={"show_default": True},
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@index_option
@options.wait_option
@json_option
def remove(paths: tuple[str, ...], index: str, wait_s: float, as_json: bool) -> None:
    """Take files or folders out of an index.

    The files themselves are not touched. A folder that is removed is no longer remembered. A file that is removed from
    a folder that stays comes back when that folder is indexed again, unless it is excluded.

    Exit status: 0 when all were removed, 1 when the index did not hold one of them, 2 on errors.
    """
    from semsearch.cli import render
    from semsearch.indexing import remove as remove_from_index

    report = remove_from_index(list(paths), index=index, wait_s=wait_s)
    if as_json:
        echo_json(report.as_dict())
    else:
        render.removal(report)
    for item in report.missing:
        click.echo(f"semsearch: {clean(item)} is not in {clean(str(report.index))}", err=True)
    click.get_current_context().exit(NONE_FOUND if report.missing else FOUND)


cli.add_command(facets.facets)
cli.add_command(evaluate)
cli.add_command(serve)


def _query_text(words: tuple[str, ...]) -> str:
    """The query from the arguments, or from stdin for `-`."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace") if words == ("-",) else " ".join(words)
    return text.encode("utf-8", errors="replace").decode().strip()
