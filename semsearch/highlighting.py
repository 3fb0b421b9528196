"""What to show of a hit: the sentence nearest to the query, the query's words, and the lines around the passage."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from semsearch.chunking import split_sentences
from semsearch.ranking.fusion import fuse, ranked
from semsearch.store.lexical import Analyzer
from semsearch.types import Chunk, Document, FloatArray, Hit

__all__ = ["Highlight", "highlights", "widen"]


@dataclass(frozen=True, slots=True)
class Highlight:
    """What to point at in a passage, as (start, end) offsets into `hit.chunk.text`."""

    sentence: tuple[int, int]
    words: tuple[tuple[int, int], ...]


def highlights(
    text: str,
    hits: Sequence[Hit],
    *,
    analyzer: Analyzer,
    cosines: Callable[[Sequence[str]], FloatArray],
    weight: Callable[[], float],
    reads: Callable[[Sequence[str]], FloatArray] | None = None,
    known: Callable[[Sequence[str], Sequence[list[tuple[int, int]]]], list[FloatArray | None]] | None = None,
) -> list[Highlight]:
    """One highlight a hit.

    Args:
        text: the query.
        hits: what it found.
        analyzer: knows which words match.
        cosines: of the query and each of some texts, (n,); asked only for hits found by meaning.
        weight: of meaning beside words, in [0, 1]; asked only then.
        reads: scores of some texts, (n,), by the cross-encoder that read the hits again; it chooses the sentence of
            those that it read.
        known: scores of the sentences, (n,), of some passages, by what the index keeps of their tokens; it chooses the
            sentence of hits found by meaning of which it keeps them (None where it does not).
    """
    terms = analyzer.query_terms(text)
    sentences = [split_sentences(hit.chunk.text) or [(0, len(hit.chunk.text))] for hit in hits]
    is_read = [reads is not None and hit.scores.rerank is not None for hit in hits]
    is_near = [hit.scores.dense is not None and not read for hit, read in zip(hits, is_read, strict=True)]
    said = _scores(hits, sentences, is_read, reads) if reads else [{} for _ in hits]
    asked = [i for i, spans in enumerate(sentences) if is_near[i] and len(spans) > 1] if known else []
    if known and asked:
        told = known([hits[i].chunk.text for i in asked], [sentences[i] for i in asked])
        for i, scores in zip(asked, told, strict=True):
            if scores is not None:
                said[i], is_near[i] = dict(enumerate(scores.tolist())), False
    near = _scores(hits, sentences, is_near, cosines)
    found = []
    for hit, spans, read, dense in zip(hits, sentences, said, near, strict=True):
        words = analyzer.matches(hit.chunk.text, terms)
        counts = [sum(start <= word[0] < end for word in words) for start, end in spans]
        lexical = {i: float(n) for i, n in enumerate(counts) if n}
        best = ranked(read) or fuse(dense, lexical, weight=weight() if dense else 0.0)
        found.append(Highlight(spans[best[0][0]] if best else spans[0], tuple(words)))
    return found


def _scores(
    hits: Sequence[Hit],
    sentences: Sequence[list[tuple[int, int]]],
    is_asked: Sequence[bool],
    scorer: Callable[[Sequence[str]], FloatArray],
) -> list[dict[int, float]]:
    """Scores of the sentences of those hits that are asked about, hit by hit; none where there is no choice."""
    asked = [i for i in range(len(hits)) if is_asked[i] and len(sentences[i]) > 1]
    found: list[dict[int, float]] = [{} for _ in hits]
    if asked:
        texts = [hits[i].chunk.text[start:end] for i in asked for start, end in sentences[i]]
        scores = iter(scorer(texts).tolist())
        for i in asked:
            found[i] = dict(enumerate(itertools.islice(scores, len(sentences[i]))))
    return found


def widen(chunk: Chunk, document: Document, n_lines: int) -> Chunk:
    """The chunk with `n_lines` more lines of its document on each side."""
    text = document.text
    start, end = text.rfind("\n", 0, chunk.start) + 1, text.find("\n", chunk.end)
    line_start, line_end = chunk.line_start, chunk.line_end
    for _ in range(n_lines):
        if start == 0:
            break
        start, line_start = text.rfind("\n", 0, start - 1) + 1, line_start - 1
    for _ in range(n_lines):
        if end < 0:
            break
        end, line_end = text.find("\n", end + 1), line_end + 1
    end = len(text) if end < 0 else end
    page = bisect.bisect_right(document.page_starts, start) if document.page_starts else chunk.page
    return replace(
        chunk, text=text[start:end], start=start, end=end, line_start=line_start, line_end=line_end, page=page
    )
