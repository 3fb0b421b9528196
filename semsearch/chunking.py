"""Documents to chunks: counted in the model's own tokens, cut where a reader would cut, nothing left out.

A document is first divided at its headings, sections too small to stand alone joined to what follows. A part longer
than a chunk may be is then cut, each time at the best kind of place in reach (paragraph, list item, sentence, line).
Among places of one kind it is the one that leaves the chunks most even, or, far from the end of a long part, one that
an edit elsewhere does not move. A stretch without any such place, such as a single enormous line, is cut at blanks or
between tokens; where that leaves a piece too long, semchunk cuts it finer.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.types import Chunk, Document, Heading, IntArray

__all__ = ["ChunkSettings", "TokenSpans", "split", "split_sentences"]

TokenSpans = Callable[[Sequence[str]], list[IntArray]]
"""Texts to the character spans (start, end) of their tokens, int64 (n_tokens, 2) each."""

MAX_TOKEN_CHARS = 20  # what is longer, as a word the model does not know or a run of blanks, counts as several tokens
PIECE_CHARS = 500_000  # the text is tokenised in pieces of about this size, so that memory stays bounded
EVEN_CHUNKS = 3  # as many at the end of a long part are made even
MARK_CHARS = 48
MIN_FILL = 0.5  # a chunk is cut no earlier than at this share of the length aimed at
RECOUNT_SHARE = 0.9  # chunks closer than this to the limit are counted again on their own

# Kinds of places to cut, best first.
SECTION, PARAGRAPH, ITEM, SENTENCE, LINE = range(5)

_FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})", re.MULTILINE)
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•·]|\(?\d{1,3}[.)]|[a-z][.)])[ \t]+\S")
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*(?=\s)|[。！？；｡]+[」』”’）》]*")
_CJK_CLAUSE_END = re.compile(r"[，、：]")


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """How long chunks are.

    Attributes:
        max_tokens: longest chunk, in tokens of the model, special tokens not counted.
        min_tokens: a section shorter than this is joined to the next one, if both fit.
    """

    max_tokens: int
    min_tokens: int

    def __post_init__(self) -> None:
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise InvalidInput(
                f"chunks of {self.min_tokens} to {self.max_tokens} tokens cannot be made; "
                "give a maximum of at least 1 and a minimum no larger than it"
            )


def split(document: Document, token_spans: TokenSpans, settings: ChunkSettings) -> list[Chunk]:
    """Cut a document into chunks that cover all of it but the white space between them.

    Args:
        document: what to cut; `outline` and `page_starts` are used where present.
        token_spans: the model's tokenizer.
        settings: lengths.

    Returns:
        Chunks in order, id 0, none longer than `max_tokens`, `document.text[start:end] == text` for each.
    """
    text = document.text
    counter = _TokenCounter(text, token_spans)
    line_starts = np.array([0, *(m.end() for m in re.finditer("\n", text))], dtype=np.int64)
    page_starts = np.array(document.page_starts, dtype=np.int64)
    chunks: list[Chunk] = []
    for part_start, part_end, heading in _parts(document, counter, settings):
        for start, end in _cut(text, part_start, part_end, counter, settings):
            chunks.append(
                Chunk(
                    id=0,
                    document_id=document.id,
                    ordinal=len(chunks),
                    text=text[start:end],
                    start=start,
                    end=end,
                    line_start=int(np.searchsorted(line_starts, start, side="right")),
                    line_end=int(np.searchsorted(line_starts, end - 1, side="right")),
                    heading=heading,
                    page=max(1, int(np.searchsorted(page_starts, start, side="right"))) if len(page_starts) else None,
                )
            )
    return chunks


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of the sentences of a passage, trimmed of white space; list items stand alone."""
    cuts = {0, len(text)}
    cuts.update(m.end() for m in _SENTENCE_END.finditer(text))
    cuts.update(m.end() for m in re.finditer(r"\n\s*\n|\n(?=[ \t]*(?:[-*+•·|]|\d{1,3}[.)])[ \t])", text))
    spans = (_trim(text, start, end) for start, end in pairwise(sorted(cuts)))
    return [span for span in spans if span[0] < span[1]]


class _TokenCounter:
    """Counts the tokens of any stretch of one text after tokenising it once."""

    def __init__(self, text: str, token_spans: TokenSpans) -> None:
        self.token_spans = token_spans
        starts = [self._starts(text[start:end]) + start for start, end in _pieces(text)]
        self.starts: IntArray = np.concatenate(starts) if starts else np.empty(0, dtype=np.int64)

    def _starts(self, text: str) -> IntArray:
        """Where the tokens of a text begin, with as many more as keep them MAX_TOKEN_CHARS apart at most."""
        starts = self.token_spans([text])[0][:, 0]
        if not len(starts):
            return starts
        gaps = np.diff(np.append(starts, len(text)))
        n_each = np.maximum(1, -(-gaps // MAX_TOKEN_CHARS))
        firsts = np.cumsum(n_each) - n_each
        within = np.arange(int(n_each.sum())) - np.repeat(firsts, n_each)
        return np.asarray(np.repeat(starts, n_each) + within * MAX_TOKEN_CHARS, dtype=np.int64)

    def count(self, start: int, end: int) -> int:
        """Tokens that begin in text[start:end]."""
        first, last = np.searchsorted(self.starts, (start, end))
        return int(last - first)

    def furthest(self, start: int, n_tokens: int) -> int | None:
        """Offset of the token `n_tokens` after `start`, or None when fewer remain."""
        position = int(np.searchsorted(self.starts, start)) + n_tokens
        return int(self.starts[position]) if position < len(self.starts) else None

    def count_alone(self, text: str) -> int:
        """Tokens of a text on its own: cutting inside a word can add some."""
        return len(self._starts(text))


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Spans of about PIECE_CHARS that end at a line end, or at a space, where there is one."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            end = max(text.rfind("\n", start, end), text.rfind(" ", start, end) if "\n" not in text[start:end] else -1)
            end = end + 1 if end > start else start + PIECE_CHARS
        yield start, min(end, len(text))
        start = end


def _parts(document: Document, counter: _TokenCounter, settings: ChunkSettings) -> Iterator[tuple[int, int, str]]:
    """Sections as (start, end, heading path), small ones joined to the next while both fit into a chunk."""
    pending: tuple[int, int, tuple[str, ...]] | None = None
    for start, end, path in _sections(document):
        if pending is not None:
            joined = counter.count(pending[0], end)
            if joined <= settings.max_tokens and counter.count(pending[0], pending[1]) < settings.min_tokens:
                pending = (pending[0], end, _common_path(pending[2], path))
                continue
            yield pending[0], pending[1], " > ".join(pending[2])
        pending = (start, end, path)
    if pending is not None:
        yield pending[0], pending[1], " > ".join(pending[2])


def _sections(document: Document) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    end_of_text = len(document.text)
    headings = [h for h in document.outline if 0 <= h.start < end_of_text]
    first = headings[0].start if headings else end_of_text
    if first > 0:
        yield 0, first, ()
    above: list[Heading] = []
    for i, heading in enumerate(headings):
        above = [h for h in above if h.level < heading.level] + [heading]
        end = headings[i + 1].start if i + 1 < len(headings) else end_of_text
        yield heading.start, end, tuple(h.title for h in above if h.title)


def _common_path(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """The longer path when one continues the other, else what they share."""
    n_shared = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if n_shared is None:
        return max(first, second, key=len)
    return first[:n_shared]


def _cut(text: str, start: int, end: int, counter: _TokenCounter, settings: ChunkSettings) -> Iterator[tuple[int, int]]:
    """Spans of at most max_tokens, trimmed of white space, that cover text[start:end]."""
    limit = settings.max_tokens
    if counter.count(start, end) <= limit:
        yield from _checked(text, start, end, counter, limit)
        return
    places = _places(text, start, end)
    offsets = np.array([offset for offset, _ in places], dtype=np.int64)
    kinds = np.array([kind for _, kind in places], dtype=np.int64)
    while start < end:
        n_left = counter.count(start, end)
        if n_left <= limit:
            yield from _checked(text, start, end, counter, limit)
            return
        # Near the end the chunks are made even. Before that, which place is taken follows from the text at it alone, so
        # that after an edit the cuts soon fall where they fell before, and only chunks around it are encoded again.
        is_near_end = n_left <= EVEN_CHUNKS * limit
        n_aim = n_left / -(-n_left // limit) if is_near_end else limit
        reach = counter.furthest(start, limit) or end
        low, high = np.searchsorted(offsets, (start + 1, reach), side="left")
        high += int(high < len(offsets) and offsets[high] == reach)
        candidates = []
        for kind, offset in zip(kinds[low:high].tolist(), offsets[low:high].tolist(), strict=True):
            n_tokens = counter.count(start, offset)
            if n_tokens >= MIN_FILL * n_aim:
                candidates.append((kind, abs(n_tokens - n_aim) if is_near_end else _mark(text, offset), offset))
        if candidates:
            stop = min(candidates)[2]
        else:
            stop = _within_a_line(text, start, counter.furthest(start, int(RECOUNT_SHARE * limit) or 1) or end)
        yield from _checked(text, start, stop, counter, limit, is_rough=not candidates)
        start = stop


def _mark(text: str, offset: int) -> int:
    """A number that only the text at a place decides."""
    return zlib.crc32(text[offset : offset + MARK_CHARS].encode("utf-8", "surrogatepass"))


def _within_a_line(text: str, start: int, reach: int) -> int:
    """Where to cut a stretch that has no better place: after the last blank of its second half, else anywhere."""
    blank = text.rfind(" ", start + (reach - start) // 2, reach)
    return blank + 1 if blank >= 0 else reach


def _checked(
    text: str, start: int, end: int, counter: _TokenCounter, limit: int, *, is_rough: bool = False
) -> Iterator[tuple[int, int]]:
    """The trimmed span, cut once more if on its own it has more tokens than it had in its place."""
    start, end = _trim(text, start, end)
    n_tokens = counter.count(start, end)
    if n_tokens == 0:
        return
    if (is_rough or n_tokens > RECOUNT_SHARE * limit) and counter.count_alone(text[start:end]) > limit:
        yield from _cut_anywhere(text, start, end, counter, limit)
    else:
        yield start, end


def _cut_anywhere(text: str, start: int, end: int, counter: _TokenCounter, limit: int) -> Iterator[tuple[int, int]]:
    import semchunk

    _, spans = semchunk.chunk(
        text[start:end], chunk_size=limit, token_counter=counter.count_alone, memoize=False, offsets=True
    )
    for first, last in spans:
        left, right = _trim(text, start + first, start + last)
        if counter.count_alone(text[left:right]):
            yield left, right


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _places(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Where text[start:end] may be cut, as ascending (offset, kind); the best kind where several meet."""
    best: dict[int, int] = {}

    def mark(offset: int, kind: int) -> None:
        if start < offset < end:
            best[offset] = min(kind, best.get(offset, kind))

    fence = ""
    line_start = start
    after_blank = False
    while line_start < end:
        line_end = text.find("\n", line_start, end)
        line_end = end if line_end < 0 else line_end + 1
        line = text[line_start:line_end]
        marker = _FENCE.match(line)
        in_code = bool(fence)
        as_row = in_code or _is_row(line)
        if after_blank:
            mark(line_start, ITEM if in_code else PARAGRAPH)
        elif _LIST_ITEM.match(line) and not in_code:
            mark(line_start, ITEM)
        else:
            mark(line_start, SENTENCE if as_row else LINE)
        if not as_row:
            for match in _SENTENCE_END.finditer(line):
                mark(line_start + match.end(), SENTENCE)
            for match in _CJK_CLAUSE_END.finditer(line):
                mark(line_start + match.end(), LINE)
        if marker and not fence:
            fence = marker[1]
        elif marker and marker[1].startswith(fence):
            fence = ""
        after_blank = not line.strip()
        line_start = line_end
    return sorted(best.items())


def _is_row(line: str) -> bool:
    """Whether a line stands for itself, as one of a table or of indented code does."""
    return line.startswith(("    ", "\t", "|")) or " | " in line
