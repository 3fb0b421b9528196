"""Hits for other programs: lines, JSON lines, CSV, Markdown, paths. `cli.hits` shows them to people."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semsearch.answers import hit_path
from semsearch.cli.output import clean, clean_line, echo_json, short_path
from semsearch.cli.places import file_line, row_of

if TYPE_CHECKING:
    from semsearch.types import Hit

__all__ = ["echo_hits"]

CSV_FIELDS = ("rank", "score", "probability", "path", "page", "line_start", "line_end", "title", "heading", "text")


def echo_hits(form: str, hits: Sequence[Hit], data: Sequence[dict[str, Any]], *, null: bool = False) -> None:
    """Print one query's hits as `plain`, `jsonl`, `csv`, `markdown` or `paths`.

    Args:
        form: which of them.
        hits: best first.
        data: the same as data.
        null: end each path with NUL, not with a line feed.
    """
    if form == "paths":
        _echo_paths(hits, b"\0" if null else b"\n")
        return
    if form == "jsonl":
        for hit in data:
            echo_json(hit)
        return
    text = _csv(data) if form == "csv" else "".join(map(_LINES[form], hits))
    click.echo(text.encode("utf-8", errors="replace"), nl=False)


def _plain(hit: Hit) -> str:
    """As grep -n prints a line, so that editors can jump to it."""
    line = file_line(hit)
    place = "" if line is None else f":{line}"
    page = "" if hit.chunk.page is None else f" page {hit.chunk.page}:"
    return f"{clean_line(short_path(hit_path(hit)) + row_of(hit))}{place}:{page} {clean_line(hit.chunk.text)}\n"


def _csv(hits: Sequence[dict[str, Any]]) -> str:
    stream, is_shown = io.StringIO(), sys.stdout.isatty()  # what another program reads is left as it is
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for hit in hits:
        values = (hit[name] for name in CSV_FIELDS)
        writer.writerow([clean(value) if is_shown and isinstance(value, str) else value for value in values])
    return stream.getvalue()


def _markdown(hit: Hit) -> str:
    """An item of a numbered list: a link, the heading, and the passage as it is."""
    path, line = short_path(hit_path(hit)), file_line(hit)
    place = "" if line is None else f":{line}"
    place = place if hit.chunk.page is None else f", page {hit.chunk.page}"
    target = "".join(f"%{ord(c):02X}" if c in "<>\\%#?" or c < " " else c for c in clean(path))
    link = f"[{_escaped(path + row_of(hit))}{place}](<{target}{'' if line is None else f'#L{line}'}>)"
    heading = _escaped(hit.chunk.heading or hit.document.title)
    text = clean(hit.chunk.text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    passage = "\n".join(f"{'   ' if line else ''}{line}" for line in (f"{fence}text", *text.split("\n"), fence))
    return f"{hit.rank}. {link}{f' {heading}' if heading else ''}\n\n{passage}\n\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>&])", r"\\\1", clean_line(text))


def _echo_paths(hits: Sequence[Hit], end: bytes) -> None:
    """Each file once, in the order of its best hit."""
    paths = list(dict.fromkeys(hit.document.source for hit in hits if Path(hit.document.source).is_absolute()))
    for path in map(short_path, paths):
        named = f"./{path}" if path.startswith("-") else path  # which programs would take for an option
        shown = clean_line(named).encode("utf-8", "replace") if sys.stdout.isatty() else os.fsencode(named)
        click.echo(shown + end, nl=False)
    n_others = len({hit.document.id for hit in hits if hit.document.source not in paths})
    if n_others:
        click.echo(f"semsearch: {n_others} more documents came from no file", err=True)


_LINES: dict[str, Callable[[Hit], str]] = {"plain": _plain, "markdown": _markdown}
