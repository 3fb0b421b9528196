"""The command that asks: one query for a person or a program, or many of them from a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

import click

from semsearch.cli import facets, options
from semsearch.cli.door import FOUND, NONE_FOUND
from semsearch.cli.options import device_option, examples, index_option
from semsearch.cli.output import clean, echo_json

if TYPE_CHECKING:
    from semsearch.cli.asking import Answered, Question
    from semsearch.search_options import SearchOptions
    from semsearch.types import Hit

__all__ = ["query"]

FORMATS = ("table", "plain", "json", "jsonl", "csv", "markdown", "paths")
EXPLAINED, COUNTED, BATCHED = ("table", "json", "jsonl"), ("table", "json"), ("json", "jsonl")


@click.command(
    epilog=examples(
        'semsearch query "how do I undo a commit"',
        'semsearch query "opening hours" -k 3 --context 5',
        'semsearch query "ERR_4711" --mode lexical --json',
        'semsearch query "refunds" --where \'lang = "en" and year >= 2020\'',
        'semsearch query "old licence header" -0 | xargs -0 sed -n 1p',
        "semsearch query --batch queries.txt > answers.jsonl",
    ),
    context_settings={"show_default": True},
)
@click.argument("words", metavar="[TEXT]...", nargs=-1)
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
    type=click.IntRange(0),
    metavar="N",
    help="At most N passages of one document; 0 for no limit. [default: its first 3 before those of other documents, "
    "its others behind them]",
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
    type=options.Number(0, 1),
    metavar="P",
    help="Leave out passages less probably relevant than P. [default: all, or none where even the best is not]",
)
@click.option("--explain", is_flag=True, help="Show where each score came from, and which words were matched.")
@click.option("--context", "-C", default=0, type=click.IntRange(0), metavar="N", help="Show N more lines on each side.")
@click.option(
    "--service/--no-service", default=True, help="Ask the semsearch serve that has this index open, if there is one."
)
@device_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="plain: PATH:LINE: passage, a line each. json: one object. jsonl: an object a hit. [default: table]",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--null", "-0", is_flag=True, help="Only paths, with NUL after each, for xargs -0.")
@click.option("--open", "open_rank", type=click.IntRange(1), metavar="N", help="Open hit N in $VISUAL or $EDITOR.")
@click.option(
    "--batch",
    type=click.File("rb"),
    metavar="FILE",
    help="Answer each line of FILE, or of stdin for -, with one JSON object a line, in order.",
)
def query(
    words: tuple[str, ...],
    index: str,
    k: int,
    mode: str,
    reranker: str | None,
    rerank: bool | None,
    rerank_depth: int,
    budget_ms: float,
    per_document: int | None,
    fold: bool,
    mmr: float | None,
    where: str | None,
    facet_keys: tuple[str, ...],
    min_probability: float | None,
    explain: bool,
    context: int,
    service: bool,
    device: str,
    form: str | None,
    as_json: bool,
    null: bool,
    open_rank: int | None,
    batch: BinaryIO | None,
) -> None:
    """Find the passages nearest in meaning to TEXT.

    Ask in your own words; a question works as well as keywords. With - as TEXT, the query is read from stdin.

    Exit status: 0 when a passage was found, 1 when none was, 2 on errors.
    """
    form = _format(form, as_json=as_json, null=null, is_batch=batch is not None)
    _check_usage(form, words, explain=explain, facet_keys=facet_keys, open_rank=open_rank, is_batch=batch is not None)
    text = _query_text(words) if batch is None else ""
    if not text and batch is None:
        raise click.UsageError('the query is empty; ask something, as in: semsearch query "how do I undo a commit"')
    from semsearch.cli import asking, batches, progress, render

    asked: SearchOptions = {
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
    question = asking.Question(text, index, asked, min_probability, explain, facet_keys)
    wanted = None if rerank is False else reranker
    by_service = service and device == "auto" and reranker is None
    if batch is not None:
        is_found = batches.answer_lines(question, batch, by_service=by_service, device=device, reranker=wanted)
        click.get_current_context().exit(FOUND if is_found else NONE_FOUND)
    with ExitStack() as opened:
        with progress.waiting("Searching"):
            answer = None
            if by_service:
                marks = form == "table" and render.open_console().is_terminal
                answer = asking.ask_service(question, highlight=marks)
            answer = answer or asking.ask_index(question, device=device, reranker=wanted, opened=opened)
        is_found = _show(answer, question, form, null=null, open_rank=open_rank)
    click.get_current_context().exit(FOUND if is_found else NONE_FOUND)


def _show(answer: Answered, question: Question, form: str, *, null: bool, open_rank: int | None) -> bool:
    """Show the answer to one query, or open a hit; whether there is any."""
    hits, best, asked = answer.hits, answer.best, question.min_probability
    if asked and hits and best is None:
        click.echo("semsearch: these passages have no probabilities, so none is left out for them", err=True)
    if open_rank is not None and hits:
        return _open(hits, open_rank)
    if form == "json":
        echo_json(answer.data)
        return bool(hits)
    if form == "table" and hits:
        from semsearch.cli.hits import show_hits

        show_hits(hits, answer.highlight, whole=question.options.get("context", 0) > 0, matches=answer.matches)
    elif form != "table":
        from semsearch.cli.formats import echo_hits

        echo_hits(form, hits, answer.data["hits"], null=null)
    if not hits:
        click.echo(f"semsearch: {_why_nothing(answer, question)}", err=True)
    facets.echo_counts(answer.counts)
    return bool(hits)


def _open(hits: Sequence[Hit], rank: int) -> bool:
    from semsearch.cli.editors import open_in_editor

    hit = next((hit for hit in hits if hit.rank == rank), None)
    if hit is None:
        click.echo(f"semsearch: there is no hit {rank}; the last is {hits[-1].rank}", err=True)
        return False
    status = open_in_editor(hit)
    if status:
        raise click.ClickException(f"the editor ended with status {status}")
    return True


def _why_nothing(answer: Answered, question: Question) -> str:
    best, asked = answer.best, question.min_probability
    if best is not None and asked:
        return f"no passage is {asked:.0%} probable (best {best:.0%})"
    if best is not None:
        return f"nothing relevant found (best {best:.0%}); --min-probability 0 shows it"
    among = " among documents that match --where" if question.options.get("where") is not None else ""
    return f"no passage found in {clean(str(answer.path))}{among}"


def _format(form: str | None, *, as_json: bool, null: bool, is_batch: bool) -> str:
    """The one format that all these ask for."""
    asked = {form} - {None} | ({"json"} if as_json else set()) | ({"paths"} if null else set())
    if len(asked) > 1:
        names = " and ".join(sorted(map(str, asked)))
        raise click.UsageError(f"{names} are two formats; --json is short for --format json, -0 for paths")
    return str(next(iter(asked), "jsonl" if is_batch else "table"))


def _check_usage(
    form: str,
    words: Sequence[str],
    *,
    explain: bool,
    facet_keys: Sequence[str],
    open_rank: int | None,
    is_batch: bool,
) -> None:
    """Raise UsageError where options do not go together."""
    if explain and form not in EXPLAINED:
        raise click.UsageError(f"--explain is shown by --format {', '.join(EXPLAINED)}, not {form}")
    if facet_keys and (is_batch or form not in COUNTED):
        raise click.UsageError(f"--facet is shown for one query by --format {', '.join(COUNTED)}; or: semsearch facets")
    if open_rank is not None and (is_batch or form != "table" or explain or facet_keys):
        raise click.UsageError("--open N opens the hit and shows nothing: leave the other options out")
    if is_batch and words:
        raise click.UsageError("give either TEXT or --batch")
    if is_batch and form not in BATCHED:
        raise click.UsageError(f"--batch prints one JSON object a query; leave out --format {form}")


def _query_text(words: tuple[str, ...]) -> str:
    """The query from the arguments, or from stdin for `-`."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace") if words == ("-",) else " ".join(words)
    return text.encode("utf-8", errors="replace").decode().strip()
