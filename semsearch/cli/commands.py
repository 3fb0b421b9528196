"""The commands. Libraries are imported inside them, so that `--help` stays instant."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from semsearch import __version__
from semsearch.cli import facets, options
from semsearch.cli.door import FOUND, NONE_FOUND, Door, prepare_process
from semsearch.cli.evaluate import evaluate
from semsearch.cli.options import device_option, examples, index_option, json_option, precision_option
from semsearch.cli.output import clean, echo_json
from semsearch.cli.query import query
from semsearch.cli.serve import serve

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
@options.model_option
@device_option
@precision_option
@options.pattern_options
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
    token_vectors: bool | None,
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
            token_vectors=token_vectors,
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


cli.add_command(query)


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
    a folder that stays comes back when that folder is indexed again, unless it is excluded; so does a row of it.

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
