"""What every loader uses: reading bytes within limits, cleaning text, and building it piece by piece."""

from __future__ import annotations

import importlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from semsearch.errors import LoadError, MissingExtra
from semsearch.loaders import limits
from semsearch.loaders.decoding import decode
from semsearch.types import Document, Heading

__all__ = [
    "TextBuilder",
    "clean_metadata",
    "clean_text",
    "import_extra",
    "lines_with_offsets",
    "one_line",
    "read_bytes",
    "read_text",
    "text_document",
]

_UNWANTED = re.compile("[\x00\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")


def import_extra(module: str, library: str) -> Any:
    """Import a library of the `docs` extra.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(library, "docs") from error


def read_bytes(path: Path, *, limit_bytes: int = limits.MAX_FILE_BYTES) -> bytes:
    """Read a whole file.

    Raises:
        LoadError: it is empty, or larger than `limit_bytes`.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if not data:
        raise LoadError("empty file", skipped=True)
    if len(data) > limit_bytes:
        raise LoadError(f"larger than the {limits.readable_bytes(limit_bytes)} limit")
    return data


def read_text(path: Path) -> str:
    r"""Read and decode a whole text file; line ends are "\n".

    Raises:
        LoadError: it is empty, blank, binary or too large.
    """
    return clean_text(decode(read_bytes(path)))


def clean_text(text: str) -> str:
    r"""Make line ends "\n"; put U+FFFD for NULs and lone surrogates, which SQLite and UTF-8 cannot hold."""
    if "\r" in text:
        text = _LINE_END.sub("\n", text)
    return _UNWANTED.sub("\ufffd", text)


def clean_metadata(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Copy values into what JSON can hold: dates become text, keys strings, NaN and infinities None.

    Raises:
        LoadError: there are more than `MAX_METADATA_VALUES` values, or they are nested past `MAX_METADATA_DEPTH`.
    """
    budget = itertools.count()

    def clean(value: Any, depth: int = 1) -> Any:
        if depth > limits.MAX_METADATA_DEPTH:
            raise LoadError(f"its metadata is nested more than {limits.MAX_METADATA_DEPTH} deep")
        if next(budget) > limits.MAX_METADATA_VALUES:
            raise LoadError(f"its metadata holds more than {limits.MAX_METADATA_VALUES} values")
        if isinstance(value, str):
            return clean_text(value)
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {clean_text(str(key)): clean(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [clean(item, depth + 1) for item in value]
        if hasattr(value, "isoformat"):
            return str(value.isoformat())
        return clean_text(str(value))

    return {clean_text(str(key)): clean(value) for key, value in values.items()}


def one_line(text: str) -> str:
    """Collapse all white space, line ends too, to single blanks; zero-width marks go."""
    return " ".join(text.replace("\u200b", "").replace("\ufeff", "").replace("\xad", "").split())


def lines_with_offsets(text: str) -> Iterator[tuple[int, str]]:
    """Yield (character offset, line without its end) for each line of `text`."""
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def text_document(
    path: Path,
    text: str,
    *,
    title: str = "",
    outline: Iterable[Heading] = (),
    page_starts: Iterable[int] = (),
    metadata: Mapping[Any, Any] | None = None,
) -> Document:
    """Make the one document of a file out of clean text.

    Raises:
        LoadError: the text is blank or longer than `MAX_TEXT_CHARS`.
    """
    if not text or text.isspace():
        raise LoadError("no text in it", skipped=True)
    if len(text) > limits.MAX_TEXT_CHARS:
        raise LoadError(f"its text is longer than {limits.MAX_TEXT_CHARS:,} characters")
    return Document(
        id=str(path),
        text=text,
        title=clean_text(one_line(title)),
        source=str(path),
        metadata=clean_metadata(metadata or {}),
        outline=tuple(outline),
        page_starts=tuple(page_starts),
    )


class TextBuilder:
    """Joins blocks of text and keeps the offsets of headings and pages exact.

    Attributes:
        outline: the headings so far.
        page_starts: offsets of the pages so far.
        length: characters so far.
    """

    def __init__(self) -> None:
        self.outline: list[Heading] = []
        self.page_starts: list[int] = []
        self.length = 0
        self._parts: list[str] = []

    def _append(self, text: str) -> None:
        if self.length + len(text) > limits.MAX_TEXT_CHARS:
            raise LoadError(f"its text is longer than {limits.MAX_TEXT_CHARS:,} characters")
        self._parts.append(text)
        self.length += len(text)

    def add(self, text: str, *, gap: int = 2) -> int:
        """Add a block, `gap` line ends after the one before it; answer its offset. A blank block adds nothing."""
        text = clean_text(text).rstrip().strip("\n")
        if not text:
            return self.length
        if self._parts:
            self._append("\n" * gap)
        start = self.length
        self._append(text)
        return start

    def heading(self, title: str, level: int) -> None:
        """Add a heading as a line of its own; a blank title adds nothing."""
        title = clean_text(one_line(title.replace("¶", "")))
        if title:
            self.outline.append(Heading(self.add(title), max(level, 1), title))

    def page(self) -> None:
        """Begin a page at the next block."""
        self.page_starts.append(self.length + 2 if self._parts else 0)

    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def document(self, path: Path, *, title: str = "", metadata: Mapping[Any, Any] | None = None) -> Document:
        """Make the file's document.

        Raises:
            LoadError: nothing but blanks was added.
        """
        text = self.text()
        return text_document(
            path,
            text,
            title=title,
            outline=self.outline,
            page_starts=[min(start, len(text)) for start in self.page_starts],
            metadata=metadata,
        )
