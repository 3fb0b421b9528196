"""Tables: CSV, TSV, JSON Lines and JSON lists of objects; each row is a document, and rows are streamed."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from semsearch.errors import LoadError
from semsearch.loaders import limits
from semsearch.loaders.base import clean_metadata, clean_text, one_line, read_text, text_document
from semsearch.loaders.decoding import detect_encoding
from semsearch.types import Document

__all__ = ["load_csv", "load_json", "load_jsonl", "load_tsv"]

Row = Mapping[str, Any]

_TEXT_COLUMNS = (
    "text", "content", "contents", "body", "passage", "paragraph", "abstract", "answer", "description", "summary",
    "document", "message", "comment", "review", "question",
)  # fmt: skip
_TITLE_COLUMNS = ("title", "name", "subject", "headline", "heading", "question")
_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 100
_SAMPLE_CHARS = 256 * 1024
_BLOCK_BYTES = 1 << 18
_MAX_HEADER_CHARS = 64
_NUMBERED = re.compile(r"column \d+")
_QUOTED_FIELD = re.compile(r'(?:^|\t)"[^\t"]*"(?:\t|\r?\n|\Z)', re.MULTILINE)


def load_csv(path: Path, text_column: str | None = None) -> Iterator[Document]:
    """Yield a document for each row of a CSV file; the delimiter is one of `,` `;` tab `|`.

    Args:
        path: the file.
        text_column: column that holds the text; None takes the likeliest.

    Raises:
        LoadError: empty, binary, too large, without the named column or without any text.
    """
    yield from _load_delimited(path, text_column, "")


def load_tsv(path: Path, text_column: str | None = None) -> Iterator[Document]:
    """Yield a document for each row of a tab-separated file; otherwise as `load_csv`."""
    yield from _load_delimited(path, text_column, "\t")


def _load_delimited(path: Path, text_column: str | None, delimiter: str) -> Iterator[Document]:
    csv.field_size_limit(limits.MAX_ROW_BYTES)
    encoding = _stream_encoding(path)
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        sample = file.read(_SAMPLE_CHARS)
        file.seek(0)
        delimiter = delimiter or _guess_delimiter(sample)
        lines = (line.replace("\x00", "\ufffd") for line in file)
        if delimiter == "\t" and not _QUOTED_FIELD.search(sample):  # a lone quotation mark is then just a character
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(lines, delimiter=delimiter)
        try:
            rows = (row for row in reader if any(cell.strip() for cell in row))
            head = list(islice(rows, _SAMPLE_ROWS))
            if not head:
                raise LoadError("no text in it", skipped=True)
            columns = _header(head, text_column)
            body = chain(head[1:], rows) if columns else chain(head, rows)
            names = columns or _unique([""] * len(head[0]))
            yield from _documents(path, (_named(names, row) for row in body), text_column)
        except csv.Error as error:
            raise LoadError(f"line {reader.line_num}: not valid CSV ({error})") from error


def _named(names: Sequence[str], row: Sequence[str]) -> Row:
    """Cells by column name, but for empty ones without any; those beyond the last column have a name of their own."""
    named = {name: cell for name, cell in zip(names, row, strict=False) if cell or not _NUMBERED.fullmatch(name)}
    if len(row) > len(names):
        named["further cells"] = " | ".join(row[len(names) :])
    return named


def _guess_delimiter(sample: str) -> str:
    """The delimiter that parts the first lines into the same number of fields, more than one."""

    def quality(delimiter: str) -> tuple[float, int]:
        try:
            widths = Counter(
                len(row) for row in islice(csv.reader(io.StringIO(sample), delimiter=delimiter), 50) if row
            )
        except csv.Error:
            return 0.0, 0
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        return (count / sum(widths.values()), width) if width > 1 else (0.0, 0)

    best = max(_DELIMITERS, key=quality)
    return best if quality(best)[1] > 1 else ","


def _header(head: Sequence[Sequence[str]], text_column: str | None) -> list[str]:
    """The column names when the first row holds them, else an empty list."""
    names = [one_line(cell) for cell in head[0]]
    lowered = [name.lower() for name in names]
    if text_column is not None and text_column.lower() in lowered:
        return _unique(names)
    if any(len(name) > _MAX_HEADER_CHARS or _is_number(name) for name in names):
        return []
    if set(lowered) & {*_TEXT_COLUMNS, *_TITLE_COLUMNS, "id"}:
        return _unique(names)
    below = [row for row in head[1:] if len(row) == len(names)]
    has_numbers = any(below and all(_is_number(row[k]) for row in below) for k in range(len(names)))
    is_shorter = below and max(map(len, names)) * 2 < max(
        sum(len(row[k]) for row in below) / len(below) for k in range(len(names))
    )
    is_distinct = all(names) and len(set(lowered)) == len(names)
    return _unique(names) if is_distinct and (has_numbers or is_shorter) else []


def _unique(names: Sequence[str]) -> list[str]:
    """The names, a number in place of one that is empty and behind one that was there before."""
    n_times = Counter[str]()
    found: dict[str, None] = {}
    for k, name in enumerate(names, start=1):
        given = unique = name or f"column {k}"
        while unique in found:
            n_times[given] += 1
            unique = f"{given}_{n_times[given] + 1}"
        found[unique] = None
    return list(found)


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().rstrip("%").replace(",", "."))
        return True
    except ValueError:
        return False


def load_jsonl(path: Path, text_column: str | None = None) -> Iterator[Document]:
    """Yield a document for each line of a JSON Lines file: an object, or a plain string.

    Rows before a bad line have been yielded when the error comes.

    Args:
        path: the file.
        text_column: key that holds the text; None takes the likeliest.

    Raises:
        LoadError: empty, binary or too large, a line that is not JSON (its number is named), no text.
    """
    encoding = _stream_encoding(path)
    with path.open("rb") as file:
        if encoding.startswith(("utf-16", "utf-32")):
            lines: Iterable[bytes] = clean_text(file.read().decode(encoding, "replace")).encode().splitlines(True)
            encoding = "utf-8"
        else:
            lines = _bounded_lines(file)
        yield from _documents(path, _json_rows(lines, encoding), text_column)


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := file.readline(limits.MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > limits.MAX_ROW_BYTES:
            raise LoadError(f"line {number}: longer than the {limits.readable_bytes(limits.MAX_ROW_BYTES)} limit")
        yield line


def _json_rows(lines: Iterable[bytes], encoding: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        text = line.decode(encoding, "replace").strip("\ufeff \t\r\n")
        if not text:
            continue
        try:
            value = json.loads(text)
        except ValueError as error:
            raise LoadError(f"line {number}: not valid JSON ({error})") from error
        except RecursionError as error:
            raise LoadError(f"line {number}: nested too deeply") from error
        if isinstance(value, str):
            yield {"text": value}
        elif isinstance(value, dict):
            yield value
        else:
            raise LoadError(f"line {number}: neither an object nor a string")


def load_json(path: Path, text_column: str | None = None) -> Iterator[Document]:
    """Yield a document for each object of a JSON list that holds texts; any other JSON is one plain text."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    are_rows = isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    if are_rows and (text_column is not None or _text_column(value[:_SAMPLE_ROWS])):
        yield from _documents(path, iter(value), text_column)
    else:
        yield text_document(path, text)


def _documents(path: Path, rows: Iterator[Row], text_column: str | None) -> Iterator[Document]:
    """Yield a document for each row whose text is not blank; numbers count all rows, from 1."""
    head = list(islice(rows, _SAMPLE_ROWS))
    if not head:
        raise LoadError("no text in it", skipped=True)
    column = _text_column(head) if text_column is None else _named_column(head, text_column)
    if column is None:
        raise LoadError(f"no column of text in it (columns: {_names(head)})", skipped=True)
    title_column = _title_column(head, column)
    n_documents = 0
    for number, row in enumerate(chain(head, rows), start=1):
        text = _as_text(row.get(column))
        if not text.strip():
            continue
        n_documents += 1
        title = row.get(title_column) if title_column else None
        yield Document(
            id=f"{path}#row={number}",
            text=text,
            title=clean_text(one_line(title)) if isinstance(title, str) else "",
            source=str(path),
            metadata=clean_metadata({key: value for key, value in row.items() if key not in (column, title_column)}),
        )
    if not n_documents:
        raise LoadError("no text in it", skipped=True)


def _as_text(value: Any) -> str:
    """A cell's text; lists of strings become lines."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return clean_text("\n".join(value))
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _columns(head: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in head for key in row))


def _names(head: Sequence[Row]) -> str:
    names = _columns(head)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _named_column(head: Sequence[Row], text_column: str) -> str:
    """The column asked for; case matters only when two differ by nothing else.

    Raises:
        LoadError: there is none of that name.
    """
    columns = _columns(head)
    if text_column in columns:
        return text_column
    alike = [name for name in columns if name.lower() == text_column.lower()]
    if not alike:
        raise LoadError(f"has no column {text_column!r} (columns: {_names(head)})")
    return alike[0]


def _text_column(head: Sequence[Row]) -> str | None:
    """The column named like a text, else the string column of the greatest mean length; None without strings."""
    columns = _columns(head)
    texts = {name: [text for row in head if (text := _words(row.get(name)))] for name in columns}
    lowered = {name.lower(): name for name in reversed(columns) if texts[name]}
    for known in _TEXT_COLUMNS:
        if known in lowered:
            return lowered[known]
    lengths = {name: sum(map(len, found)) / len(head) for name, found in texts.items() if found}
    return max(lengths, key=lambda name: lengths[name]) if lengths else None


def _words(value: Any) -> str:
    """The text of a cell that holds words, not a number."""
    text = _as_text(value).strip() if isinstance(value, str | list) else ""
    return "" if _is_number(text) else text


def _title_column(head: Sequence[Row], text_column: str) -> str | None:
    lowered = {name.lower(): name for name in reversed(_columns(head))}
    for known in _TITLE_COLUMNS:
        name = lowered.get(known)
        if name is not None and name != text_column and any(_words(row.get(name)) for row in head):
            return name
    return None


def _stream_encoding(path: Path) -> str:
    """Find a table's encoding without holding it in memory: UTF-8 when all of it is, else by its first odd block.

    Raises:
        LoadError: empty, binary, or larger than `MAX_TABLE_BYTES`.
    """
    n_bytes = path.stat().st_size
    if n_bytes > limits.MAX_TABLE_BYTES:
        raise LoadError(f"larger than the {limits.readable_bytes(limits.MAX_TABLE_BYTES)} limit")
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        first = file.read(_BLOCK_BYTES)
        whole_lines = first[: first.rfind(b"\n") + 1] or first
        encoding = detect_encoding(whole_lines if len(first) == _BLOCK_BYTES else first)
        if encoding != "utf-8" or len(first) < _BLOCK_BYTES:
            return encoding
        block = first
        try:
            while block:
                decoder.decode(block)
                block = file.read(_BLOCK_BYTES)
        except UnicodeDecodeError:
            return detect_encoding(block)
    return encoding
