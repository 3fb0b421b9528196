"""The command that keeps an index in step with its folders."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semsearch.cli import options
from semsearch.cli.options import device_option, examples, index_option, precision_option
from semsearch.cli.output import clean, clean_line, echo_json, number, short_path

if TYPE_CHECKING:
    from semsearch.reports import IndexReport

__all__ = ["tell_error", "teller", "watch"]


@click.command(
    epilog=examples(
        "semsearch watch ./docs ~/notes",
        "semsearch watch                          all folders that the index remembers",
        "semsearch watch ./docs --index work --json | jq .files",
    ),
    context_settings={"show_default": True},
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@index_option
@options.model_option
@device_option
@precision_option
@options.pattern_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each time something was indexed.")
def watch(
    paths: tuple[Path, ...],
    index: str,
    model: str | None,
    device: str,
    precision: str,
    globs: tuple[str, ...],
    excludes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Index files and folders, then again whenever they change.

    It starts as `semsearch index` does, and goes on until Ctrl-C. Each time something was indexed, a line on stderr
    says what. Searches find what was there at the last of these lines.

    Exit status: 130 when it was interrupted, 2 when the first run failed. Later errors are told, and it is tried again.
    """
    from semsearch.cli import progress
    from semsearch.watching import Watch

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    tell = teller(as_json=as_json)
    with Watch(
        paths,
        index=index,
        model=model,
        device=device,
        precision=precision,
        globs=globs or None,
        excludes=excludes or None,
    ) as watcher:
        with progress.indexing() as show:
            first = watcher.sync(progress=show, on_error=tell_error)
        if first is not None:
            tell(first)
        names = ", ".join(clean_line(short_path(root)) for root in watcher.roots)
        click.echo(f"semsearch: watching {names}; Ctrl-C ends it", err=True)
        watcher.run(after=first, on_report=tell, on_error=tell_error)


def teller(*, as_json: bool = False) -> Callable[[IndexReport], None]:
    """What tells of each sync in a line, and of each problem once."""
    known: set[tuple[str, str]] = set()

    def tell(report: IndexReport) -> None:
        n, chunks = report.files, report.chunks
        counts = {"indexed": n.indexed, "removed": n.removed, "failed": n.failed}
        said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing new"
        passages = f"{number(chunks.encoded, 'passage')} encoded, {chunks.total:,} in the index"
        click.echo(f"{datetime.now():%H:%M:%S}  {said}; {passages} ({report.elapsed_s:.1f} s)", err=True)
        problems = {(problem.path, problem.reason) for problem in report.problems if problem.failed}
        for path, reason in sorted(problems - known):
            click.echo(f"          {clean_line(short_path(path))}: {clean_line(reason)}", err=True)
        known.clear()
        known.update(problems)
        if as_json:
            echo_json(report.as_dict())

    return tell


def tell_error(error: Exception) -> None:
    """Say why a sync failed, which is tried again."""
    from semsearch.errors import IndexLocked

    is_locked = isinstance(error, IndexLocked)
    told = "another process is writing to the index; waiting for it" if is_locked else f"error: {clean(str(error))}"
    click.echo(f"semsearch: {told}", err=True)
