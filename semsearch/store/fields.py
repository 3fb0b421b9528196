"""What filters compare: a row in `field_values` for each distinct value of a document's fields, found by value.

They are made in the transaction that stages the document and go with it, so they cannot tell of another one. Fields of
the metadata begin with a dot (`.year`, `.author.name`), those that semsearch gives itself do not.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from semsearch.filters import BUILT_IN, parse_date

__all__ = [
    "BOOLEAN", "DATE", "NUMBER", "NUMBER_IN_TEXT", "SEVERAL", "TEXT", "comparable_number", "comparable_text",
    "enter_fields", "enter_fields_of_all", "enter_several", "stored_name",
]  # fmt: skip

# Kinds; one text can have rows of several: as it is, and as what it can be read as.
TEXT, NUMBER, DATE, BOOLEAN, NUMBER_IN_TEXT = range(5)
SEVERAL = 5  # says that a document has several numbers or dates in a field; the value is which, NUMBER or DATE

MAX_TEXT_CHARS = 1_000  # of a value; paths are kept whole
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_MAX_NUMBER_CHARS = 64  # of a text that is read as a number

_RANGED = {NUMBER: NUMBER, NUMBER_IN_TEXT: NUMBER, DATE: DATE}

Entry = tuple[str, int, str | int | float]  # field, kind, value


def stored_name(field: str) -> str:
    """What a filter's field is called in `field_values`."""
    if field in BUILT_IN:
        return field
    return f".{field.removeprefix('metadata.')}"


def comparable_text(field: str, text: str) -> str:
    """A text as it is kept and looked for."""
    text = text.replace("\x00", "\ufffd")  # SQLite's functions take it for the end
    if field in ("type", "lang"):
        text = text.strip().lower()
        return text.removeprefix(".") if field == "type" else text.replace("_", "-")
    return text if field == "path" else text[:MAX_TEXT_CHARS]


def comparable_number(number: int | float) -> int | float | None:
    """A number as SQLite can hold it; None where it is past all floats."""
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        try:
            return float(number)
        except OverflowError:
            return None
    return number if math.isfinite(number) else None


def enter_fields(
    connection: sqlite3.Connection, row_id: int, key: str, title: str, source: str, metadata: Mapping[str, Any]
) -> None:
    """Keep the values of a document's fields, in the transaction under way."""
    entries = set(_entries(key, title, source, metadata))
    met = Counter((name, _RANGED[kind]) for name, kind, _ in entries if kind in _RANGED)
    entries |= {(name, SEVERAL, kind) for (name, kind), n in met.items() if n > 1}
    connection.executemany("INSERT INTO field_values VALUES (?, ?, ?, ?)", ((row_id, *entry) for entry in entries))


def enter_fields_of_all(connection: sqlite3.Connection) -> None:
    """Keep them for all documents of an index that was made without."""
    for row_id, key, title, source, metadata in connection.execute(
        "SELECT id, key, title, source, metadata FROM documents"
    ):
        enter_fields(connection, row_id, key, title, source, json.loads(metadata))


def enter_several(connection: sqlite3.Connection) -> None:
    """Mark the documents of an index that was made without `SEVERAL`."""
    for kind in set(_RANGED.values()):
        kinds = ", ".join(str(k) for k, ranged in _RANGED.items() if ranged == kind)
        connection.execute(
            f"INSERT INTO field_values SELECT document_id, field, {SEVERAL}, {kind} FROM field_values "
            f"WHERE kind IN ({kinds}) GROUP BY document_id, field HAVING count(*) > 1"
        )


def _entries(key: str, title: str, source: str, metadata: Mapping[str, Any]) -> Iterator[Entry]:
    yield "path", TEXT, comparable_text("path", source or key)
    if title:
        yield "title", TEXT, comparable_text("title", title)
    if suffix := comparable_text("type", PurePosixPath(source).suffix):
        yield "type", TEXT, suffix
    for name in ("lang", "language"):
        yield from _languages(metadata.get(name))
    waiting: list[tuple[str, Any]] = [("", metadata)]
    while waiting:  # not by recursion: nobody bounds how deep metadata given from Python is
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend((f"{name}.{inner}", part) for inner, part in value.items() if not inner.startswith("__"))
        elif isinstance(value, list | tuple):
            waiting.extend((name, part) for part in value)
        else:
            yield from ((name, kind, v) for kind, v in _readings(name, value))


def _languages(value: Any) -> Iterator[Entry]:
    """A language tag, and what it narrows: "en-gb" and "en" (basic filtering, RFC 4647)."""
    for tag in value if isinstance(value, list) else [value]:
        if isinstance(tag, str) and (tag := comparable_text("lang", tag)):
            parts = tag.split("-")
            for n in range(1, min(len(parts), 8) + 1):
                yield "lang", TEXT, "-".join(parts[:n])


def _readings(name: str, value: Any) -> Iterable[tuple[int, str | int | float]]:
    """A value as itself, and as what it can be read as."""
    if isinstance(value, bool):
        return [(BOOLEAN, int(value))]
    if isinstance(value, int | float):
        number = comparable_number(value)
        return [] if number is None else [(NUMBER, number)]
    if not isinstance(value, str):
        return []
    readings: list[tuple[int, str | int | float]] = [(TEXT, comparable_text(name, value))]
    if len(value) <= _MAX_NUMBER_CHARS and _NUMBER.fullmatch(value):
        text = value.strip()
        number = comparable_number(int(text) if text.lstrip("+-").isdigit() else float(text))
        if number is not None:
            readings.append((NUMBER_IN_TEXT, number))
    elif found := parse_date(value.strip()):
        readings.append((DATE, found.start))
    return readings
