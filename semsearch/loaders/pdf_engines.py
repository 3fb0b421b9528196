"""The two libraries that read PDF, brought to one shape."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsearch.errors import LoadError, MissingExtra
from semsearch.loaders.base import import_extra, one_line

__all__ = ["RawPdf", "read_with_pdfium", "read_with_pypdf"]

_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_NEEDS_PASSWORD = "encrypted PDF: a password is needed"
_WORD_GAP = -180.0  # thousandths of the font size; letters are kerned by less, words set apart by more
_BLANK_WIDTH = 250.0  # in the same unit; what pypdf takes for a blank in most fonts


@dataclass(frozen=True, slots=True)
class RawPdf:
    """What a PDF holds, before cleaning.

    Attributes:
        pages: text of each page.
        bookmarks: (level from 1, title, page from 0), in the order of the document's own outline.
        title: as its properties have it, or "".
        metadata: author, subject and date (ISO), those that are present.
    """

    pages: list[str]
    bookmarks: list[tuple[int, str, int]] = field(default_factory=list)
    title: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


def read_with_pdfium(path: Path) -> RawPdf:
    """Read with PDFium.

    Raises:
        LoadError: encrypted, no PDF, or damaged.
    """
    pdfium = import_extra("pypdfium2", "pypdfium2")
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise LoadError(_NEEDS_PASSWORD) from error
        raise
    try:
        pages = [_pdfium_page(document, number) for number in range(len(document))]
        information = _information(document.get_metadata_dict(), "")
        bookmarks = list(_pdfium_bookmarks(document))
    finally:
        document.close()
    return RawPdf(pages, bookmarks, information.pop("title", ""), information)


def _pdfium_page(document: Any, number: int) -> str:
    page = document[number]
    text_page = page.get_textpage()
    text = str(text_page.get_text_range())
    text_page.close()
    page.close()
    return text


def _pdfium_bookmarks(document: Any) -> Iterator[tuple[int, str, int]]:
    for bookmark in document.get_toc():
        target = bookmark.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            yield bookmark.level + 1, bookmark.get_title(), page


def read_with_pypdf(path: Path) -> RawPdf:
    """Read with pypdf.

    Raises:
        LoadError: encrypted.
        pypdf.errors.PyPdfError: no PDF, or damaged.
    """
    pypdf = import_extra("pypdf", "pypdf")
    logging.getLogger("pypdf").addHandler(logging.NullHandler())  # else its warnings reach the user's terminal
    with path.open("rb") as file:
        reader = pypdf.PdfReader(file)
        _unlock(reader)
        pages = [page.extract_text(visitor_operand_before=_widen_gaps) or "" for page in reader.pages]
        try:
            information = _information(dict(reader.metadata or {}), "/")
            bookmarks = list(_pypdf_bookmarks(reader, reader.outline))
        except Exception:  # broken properties are no reason to lose the text; pypdf raises many kinds
            information, bookmarks = {}, []
    return RawPdf(pages, bookmarks, information.pop("title", ""), information)


def _widen_gaps(operator: bytes, operands: list[Any], *_matrices: Any) -> None:
    """Put a blank into wide gaps: pypdf takes them for kerning in fonts that have no blank."""
    if operator != b"TJ" or not operands or not isinstance(operands[0], list):
        return
    pypdf = import_extra("pypdf", "pypdf")
    widened: list[Any] = []
    for operand in operands[0]:
        if isinstance(operand, (int, float)) and operand <= _WORD_GAP:
            # The blank's own width is taken off again, or the next piece of the line would seem to touch it.
            widened += [" ", pypdf.generic.FloatObject(float(operand) + _BLANK_WIDTH)]
        else:
            widened.append(operand)
    operands[0][:] = widened


def _unlock(reader: Any) -> None:
    """Open documents that only their owner's password protects."""
    if not reader.is_encrypted:
        return
    try:
        is_open = bool(reader.decrypt(""))
    except ImportError as error:
        raise MissingExtra("cryptography", "docs") from error
    except Exception as error:  # pypdf raises errors of many kinds over unknown ciphers
        if "cryptography" in str(error).lower():
            raise MissingExtra("cryptography", "docs") from error
        raise LoadError("encrypted PDF: its encryption is not supported") from error
    if not is_open:
        raise LoadError(_NEEDS_PASSWORD)


def _pypdf_bookmarks(reader: Any, items: Sequence[Any], level: int = 1) -> Iterator[tuple[int, str, int]]:
    for item in items:
        if isinstance(item, list):
            yield from _pypdf_bookmarks(reader, item, level + 1)
            continue
        page = reader.get_destination_page_number(item)
        if page is not None:
            yield level, str(item.title or ""), page


def _information(raw: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Title, author, subject and date where the document gives them."""
    found = {name.lower(): one_line(str(raw.get(prefix + name) or "")) for name in ("Title", "Author", "Subject")}
    match = _DATE.match(str(raw.get(f"{prefix}CreationDate") or ""))
    if match:
        found["date"] = "-".join(part for part in match.groups() if part)
    return {name: value for name, value in found.items() if value}
