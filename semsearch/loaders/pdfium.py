"""What PDFium finds in a PDF, as it stands: text of the pages, bookmarks, properties."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsearch.errors import LoadError
from semsearch.loaders import limits
from semsearch.loaders.base import import_extra, one_line

__all__ = ["RawPdf", "read_pdf"]

_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_NO_LOG = logging.NullHandler()


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


def read_pdf(path: Path) -> RawPdf:
    """Read all pages; one that only its owner's password protects opens without it.

    Raises:
        LoadError: a password is needed, or the text is longer than `MAX_TEXT_CHARS`.
        pypdfium2.PdfiumError: no PDF, or a damaged one.
    """
    pdfium = import_extra("pypdfium2", "pypdfium2")
    logging.getLogger("pypdfium2").addHandler(_NO_LOG)  # else its warnings reach the user's terminal
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium.raw.FPDF_ERR_PASSWORD:
            raise LoadError("encrypted PDF: a password is needed") from error
        if error.err_code == pdfium.raw.FPDF_ERR_SECURITY:
            raise LoadError("encrypted PDF: its encryption is not supported") from error
        raise
    with document:
        pages = list(_pages(document))
        information: dict[str, str] = {}
        bookmarks: list[tuple[int, str, int]] = []
        # Broken properties are no reason to lose the text; titles that are no UTF-16 raise ValueError.
        with contextlib.suppress(pdfium.PdfiumError, ValueError):
            information = _information(document.get_metadata_dict())
        with contextlib.suppress(pdfium.PdfiumError, ValueError):
            bookmarks.extend(_bookmarks(document))
    return RawPdf(pages, bookmarks, information.pop("title", ""), information)


def _pages(document: Any) -> Iterator[str]:
    n_chars = 0
    for number in range(len(document)):
        page = document[number]
        text_page = page.get_textpage()
        text = str(text_page.get_text_range())
        text_page.close()
        page.close()
        n_chars += len(text)
        if n_chars > limits.MAX_TEXT_CHARS:
            raise LoadError(f"its text is longer than {limits.MAX_TEXT_CHARS:,} characters")
        yield text


def _bookmarks(document: Any) -> Iterator[tuple[int, str, int]]:
    for bookmark in document.get_toc():
        target = bookmark.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            yield bookmark.level + 1, bookmark.get_title(), page


def _information(raw: Mapping[str, str]) -> dict[str, str]:
    """Title, author, subject and date where the document gives them."""
    found = {name.lower(): one_line(raw.get(name) or "") for name in ("Title", "Author", "Subject")}
    match = _DATE.match(raw.get("CreationDate") or "")
    if match:
        found["date"] = "-".join(part for part in match.groups() if part)
    return {name: value for name, value in found.items() if value}
