"""The commands that move an index from machine to machine."""

from __future__ import annotations

from pathlib import Path

import click

from semsearch.cli import options
from semsearch.cli.options import examples, index_option, json_option
from semsearch.cli.output import clean, echo_json, short_path

__all__ = ["export", "import_"]


@click.command(
    epilog=examples(
        "semsearch export handbook.tar --index handbook",
        "semsearch import handbook.tar --index handbook    on the other machine",
    )
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@index_option
@options.wait_option
@json_option
def export(file: Path, index: str, wait_s: float, as_json: bool) -> None:
    """Write an index to one file.

    It holds all that the index does: passages, vectors, and the texts of the documents. FILE is replaced if it exists.
    """
    from semsearch.store.archives import export_index

    written = export_index(index, file, wait_s=wait_s)
    size = written.stat().st_size
    if as_json:
        echo_json({"archive": str(written), "size_bytes": size})
    else:
        click.echo(f"{clean(short_path(written))}: {size / 1e6:,.1f} MB")


@click.command(
    name="import",
    epilog=examples("semsearch import handbook.tar --index handbook"),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@index_option
@json_option
def import_(file: Path, index: str, as_json: bool) -> None:
    """Make an index of a file that `semsearch export` wrote.

    It answers at once; the files it was made of are not needed. Indexing these documents here encodes only what is new.
    """
    from semsearch.store.archives import import_index

    path = import_index(file, index)
    if as_json:
        echo_json({"index": str(path)})
    else:
        click.echo(f"{clean(short_path(path))} is ready to be asked: semsearch query --index {clean(index)} ...")
