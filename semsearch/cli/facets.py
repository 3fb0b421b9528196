"""Counts of values among documents: a command of its own, and what `query --facet` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from semsearch.answers import facets_json
from semsearch.cli.door import FOUND, NONE_FOUND
from semsearch.cli.options import examples, index_option, json_option, where_option
from semsearch.cli.output import clean_line, echo_json

if TYPE_CHECKING:
    from semsearch.searching import Searcher
    from semsearch.store.selection import FacetCount

__all__ = ["count", "echo_counts", "facets"]

MAX_VALUES_SHOWN = 20

Counts = dict[str, "list[FacetCount]"]


@click.command(
    epilog=examples(
        "semsearch facets lang type",
        "semsearch facets author --where 'year >= 2020'",
    ),
    context_settings={"show_default": True},
)
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@where_option
@index_option
@json_option
def facets(keys: tuple[str, ...], where: str | None, index: str, as_json: bool) -> None:
    """Count documents and passages for each value of KEY.

    KEY is lang, type, title, path, modified (by month), or a key of the documents' metadata.

    Exit status: 0 when a value was found, 1 when none was, 2 on errors.
    """
    from semsearch.searching import Searcher

    with Searcher.open(index) as searcher:
        counts = count(searcher, keys, where)
        path = str(searcher.path)
    if as_json:
        echo_json({"index": path, "where": where, "facets": facets_json(counts)})
    else:
        echo_counts(counts)
    click.get_current_context().exit(FOUND if any(counts.values()) else NONE_FOUND)


def count(searcher: Searcher, keys: Sequence[str], where: str | Mapping[str, Any] | None) -> Counts:
    """The counts of each key, in order."""
    return {key: searcher.facets(key, where) for key in keys}


def echo_counts(counts: Counts) -> None:
    """Print documents, passages and value, a line each."""
    for key, found in counts.items():
        click.echo(f"{clean_line(key)}: documents, passages, value")
        for c in found[:MAX_VALUES_SHOWN]:
            value = str(c.value).lower() if isinstance(c.value, bool) else clean_line(str(c.value))
            click.echo(f"  {c.documents:>9,}  {c.passages:>9,}  {value}")
        if len(found) > MAX_VALUES_SHOWN:
            click.echo(f"  and {len(found) - MAX_VALUES_SHOWN:,} more values; --json shows all")
