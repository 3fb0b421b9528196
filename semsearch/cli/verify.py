"""The command that checks an index and mends it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from semsearch.cli.door import FOUND, NONE_FOUND
from semsearch.cli.options import device_option, examples, index_option, json_option
from semsearch.cli.output import clean_line, echo_json, short_path

if TYPE_CHECKING:
    from semsearch.reports import VerifyReport

__all__ = ["verify"]


@click.command(
    epilog=examples(
        "semsearch verify",
        "semsearch verify --deep --index work      encode a sample of the passages again and compare",
        "semsearch verify --repair",
    ),
    context_settings={"show_default": True},
)
@index_option
@click.option("--deep", is_flag=True, help="Encode a sample of the passages again, and compare.")
@click.option("--repair", is_flag=True, help="Make what is damaged anew; encode only vectors that are gone.")
@device_option
@json_option
def verify(index: str, deep: bool, repair: bool, device: str, as_json: bool) -> None:
    """Check that an index is what was written.

    Compares every file with its checksum, and the database, the vectors, the FAISS and the lexical index with each
    other, and says how many source files changed since. Nothing is changed without --repair.

    Exit status: 0 when all is sound (with --repair, after it), 1 when damage was found, 2 on errors.
    """
    from semsearch.cli import progress
    from semsearch.verifying import verify as verify_index

    with progress.stages() as show:
        report = verify_index(index, deep=deep, repair=repair, device=device, progress=show)
    if as_json:
        echo_json(report.as_dict())
    else:
        _show(report)
    click.get_current_context().exit(FOUND if report.is_sound else NONE_FOUND)


def _show(report: VerifyReport) -> None:
    from semsearch.store.files import command

    for check in report.checks:
        state = "DAMAGED" if check.damages else "ok"
        click.echo(f"{state:<8}{check.part}: {clean_line(check.compared)}")
        for damage in check.damages:
            click.echo(f"          {clean_line(damage.what)}")
        for note in check.notes:
            click.echo(f"          note: {clean_line(note)}")
    for part, damages in itertools.groupby(report.mended, lambda damage: damage.part):
        first, *others = damages
        more = f" (and {len(others):,} more)" if others else ""
        click.echo(f"mended  {part}: {clean_line(first.what)}{more}")
    for item in report.to_index:
        click.echo(f"gone    {clean_line(short_path(item))}: was damaged")
    if report.n_lost:
        click.echo(f"gone    documents of which no name is left: {report.n_lost:,}")
    counts = report.sources
    if counts is not None:
        said = f"{counts.changed:,} changed, {counts.new:,} new, {counts.gone:,} gone, {counts.unchanged:,} unchanged"
        click.echo(f"        source files since they were indexed: {said}")
    where = clean_line(short_path(report.index))
    if report.is_sound:
        click.echo(f"{where} is sound ({report.elapsed_s:.1f} s)")
        return
    click.echo(f"{where} is damaged ({report.elapsed_s:.1f} s)" if report.damages else f"{where} has lost documents")
    if report.to_index or report.n_lost:
        again = clean_line(command("index", report.index))
        click.echo(f"bring back what came from files with: {again}; give other documents again")
    for fix in dict.fromkeys(damage.fix for damage in report.damages):
        click.echo(f"mend it with: {clean_line(fix)}")
