"""PDF: text page by page, running heads dropped, bookmarks to the outline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from semsearch.errors import LoadError
from semsearch.loaders import limits
from semsearch.loaders.base import TextBuilder, clean_text, one_line
from semsearch.loaders.pdfium import RawPdf, read_pdf
from semsearch.loaders.text import numbered_outline
from semsearch.types import Document, Heading

__all__ = ["load_pdf", "to_document"]

_MARGIN_LINES = 2
_MIN_REPEATING_PAGES = 4
_REPEATING_SHARE = 0.4
_MIN_RUNNING_HEADS = 3
_MAX_FOLIO_CHARS = 16
_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_PAGE_NUMBER = re.compile(r"^\d+\s+|\s+\d+$")
_CHAPTER = re.compile(r"(?:chapter|appendix|section|part)\s+[\dA-Z]+[.:]", re.IGNORECASE)
_HYPHENATED = re.compile(r"(\w*[a-zà-ÿ])(?:[-\u00ad]\n|[\ufffe\x02]\n?)([a-zà-ÿ]\w*)")
_HYPHEN_MARK = re.compile("[\ufffe\x02]\n?")
_DOT_LEADERS = re.compile(r"(?:[ \xa0]?\.){5,}[ \xa0]*")
_WORD = re.compile(r"\w+(?:-\w+)*")
_HAN = "\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uff60"
_HAN_GAP = re.compile(f"(?<=[{_HAN}])[ \t]+(?=[{_HAN}])")


def load_pdf(path: Path) -> Document:
    """A PDF; pages are separated by a blank line and counted in `page_starts`.

    Raises:
        LoadError: encrypted, damaged, or scanned without text. Errors of PDFium pass through.
    """
    if path.stat().st_size == 0:
        raise LoadError("empty file", skipped=True)
    if path.stat().st_size > limits.MAX_FILE_BYTES:
        raise LoadError(f"larger than the {limits.readable_bytes(limits.MAX_FILE_BYTES)} limit")
    return to_document(path, read_pdf(path))


def to_document(path: Path, raw: RawPdf) -> Document:
    """Clean the pages and put them together.

    Raises:
        LoadError: no page holds text.
    """
    pages = [clean_text(page).replace("\xa0", " ") for page in raw.pages]
    if not any(page.strip() for page in pages):
        raise LoadError(f"scanned: {len(pages)} page{'s' * (len(pages) != 1)} without text; run OCR first")
    builder = TextBuilder()
    for page in _join_hyphens(_without_margins(pages)):
        builder.page()
        builder.add(page)
    text = builder.text()
    builder.page_starts = [min(start, len(text)) for start in builder.page_starts]
    found = sorted(_outline(raw, text, builder.page_starts), key=lambda heading: heading.start)
    builder.outline = found or numbered_outline(text)
    return builder.document(path, title=raw.title, metadata=raw.metadata)


def _without_margins(pages: Sequence[str]) -> list[str]:
    """Drop page numbers and running heads among the first and last lines of pages.

    A line that repeats on many pages but for its numbers goes everywhere; one that repeats on a few, as a chapter's
    running head does, stays where it first occurs.
    """
    split = [[line.strip() for line in page.split("\n") if line.strip()] for page in pages]
    if len(split) < _MIN_REPEATING_PAGES:
        return ["\n".join(lines) for lines in split]
    everywhere: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for lines in split:
        edges = [*lines[:_MARGIN_LINES], *lines[-_MARGIN_LINES:]]
        everywhere.update({_margin_key(line) for line in edges})
        running.update({_running_key(line) for line in edges})
    floor = max(3, _REPEATING_SHARE * sum(bool(lines) for lines in split))
    seen: set[str] = set()

    def is_margin(line: str) -> bool:
        if everywhere[_margin_key(line)] >= floor:
            return True
        key = _running_key(line)
        is_repeated = running[key] >= _MIN_RUNNING_HEADS and key in seen
        seen.add(key)
        return is_repeated

    kept = []
    for lines in split:
        start, end = 0, len(lines)
        while start < min(_MARGIN_LINES, end) and is_margin(lines[start]):
            start += 1
        while end > max(start, len(lines) - _MARGIN_LINES) and is_margin(lines[end - 1]):
            end -= 1
        kept.append("\n".join(lines[start:end]))
    return kept if any(kept) else ["\n".join(lines) for lines in split]


def _margin_key(line: str) -> str:
    """What margins share on all pages: short ones all but their numbers (`Page 3 of 9`), others all but the page's."""
    folio = _DIGITS.sub("#", line)
    return folio if len(folio) <= _MAX_FOLIO_CHARS else _PAGE_NUMBER.sub("", line)


def _running_key(line: str) -> str:
    """What running heads of one chapter share: all but the page number, or `CHAPTER 6.` alone."""
    key = _PAGE_NUMBER.sub("", line)
    match = _CHAPTER.match(key)
    return match.group() if match else key


def _join_hyphens(pages: Sequence[str]) -> list[str]:
    """Join words parted at line ends, and Chinese characters set apart; shorten the dots of tables of contents."""
    words = Counter(word.lower() for page in pages for word in _WORD.findall(page))

    def join(match: re.Match[str]) -> str:
        first, second = match.groups()
        keeps_hyphen = words[f"{first}-{second}".lower()] > words[f"{first}{second}".lower()]
        return f"{first}-{second}" if keeps_hyphen else f"{first}{second}"

    joined = (_HYPHEN_MARK.sub("-", _HYPHENATED.sub(join, page)) for page in pages)
    return [_DOT_LEADERS.sub(" … ", _HAN_GAP.sub("", page)) for page in joined]


def _outline(raw: RawPdf, text: str, page_starts: Sequence[int]) -> Iterator[Heading]:
    """Bookmarks as headings: at their words when the page shows them, else at the page's start."""
    search_from: dict[int, int] = {}
    for level, bookmark, page in raw.bookmarks:
        title = clean_text(one_line(bookmark))
        if not title or not 0 <= page < len(page_starts) or page_starts[page] >= len(text):
            continue
        page_end = page_starts[page + 1] if page + 1 < len(page_starts) else len(text)
        words = r"\s*".join(re.escape(char) for char in title if not char.isspace())
        match = re.compile(words).search(text, search_from.get(page, page_starts[page]), page_end)
        if match:
            search_from[page] = match.end()
            line_start = max(text.rfind("\n", 0, match.start()) + 1, page_starts[page])
            yield Heading(line_start, level, title)
        else:
            yield Heading(search_from.get(page, page_starts[page]), level, title)
