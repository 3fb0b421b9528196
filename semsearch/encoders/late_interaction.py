"""Reranking by late interaction: every token of the query looks for the passage's token that is nearest to it.

It needs no model beside the bi-encoder. A passage vector is one mean over all that a passage says; its token vectors
still tell whether each part of the query is answered, and by which words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from semsearch.encoders import pacing
from semsearch.encoders.recent_vectors import RecentVectors
from semsearch.encoders.sample_texts import SAMPLE_QUERY
from semsearch.encoders.token_codes import best_cosines, cosines
from semsearch.errors import ModelError
from semsearch.products import each_with_each
from semsearch.types import Embedder, FloatArray, TokenEmbedder

__all__ = ["Kept", "LateInteraction", "TokenMatch"]

TEXTS_AT_ONCE = 64  # whose vectors of tokens are held together
# Of vectors that are kept: of some 1,000 passages of 160 tokens and 384 dimensions. A search whose passages are all
# there takes a tenth of the time.
RECENT_BYTES = 128_000_000
ROUNDED = np.float16  # which moves a score by some .00002
FIRST_CJK = 0x2E80  # from here on, scripts of East Asia


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A word of the query and the word of what was read that is nearest to it.

    Attributes:
        query: (start, end) of the query's word, in characters.
        query_text: that word.
        passage: (start, end) of the nearest word in the passage; None where it stands in title or headings around it.
        text: that nearest word.
        cosine: mean over the query word's tokens of the best cosine among all tokens that were read, in [-1, 1].
    """

    query: tuple[int, int]
    query_text: str
    passage: tuple[int, int] | None
    text: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a text that begins with a passage: so many characters of it, and the codes of their tokens."""

    n_chars: int
    codes: bytes


class LateInteraction:
    """A reranker made of a bi-encoder's own token vectors. Safe to use from several threads.

    Attributes:
        first_stage_weight: share of the first stage in what hits are ranked by, in [0, 1], as training found it for a
            model of its own; None for the index's model, whose share the index's plan states.

    Source: the sum over query tokens of the greatest similarity, of Khattab and Zaharia, "ColBERT", SIGIR 2020,
        doi:10.1145/3397271.3401075; here a mean, of cosines, mostly of a model that was not trained for it.
    """

    def __init__(self, embedder: TokenEmbedder, *, first_stage_weight: float | None = None) -> None:
        self._embedder = embedder
        self.first_stage_weight = first_stage_weight
        self._recent = RecentVectors(embedder, RECENT_BYTES, ROUNDED)
        self._speed: float | None = None

    @classmethod
    def of(cls, embedder: Embedder, *, first_stage_weight: float | None = None) -> LateInteraction:
        """A bi-encoder as a reranker.

        Raises:
            ModelError: it gives no vectors of tokens.
        """
        if not isinstance(embedder, TokenEmbedder):
            raise ModelError(f"{embedder.name} gives no vectors of tokens, which late interaction compares")
        return cls(embedder, first_stage_weight=first_stage_weight)

    @property
    def name(self) -> str:
        """The bi-encoder's name, and what is done with it."""
        return f"{self._embedder.name} (late interaction)"

    def score(self, query: str, texts: Sequence[str], kept: Sequence[Kept | None] = ()) -> FloatArray:
        """float32 (n,) mean over the query's tokens of the best cosine, in [-1, 1]; -1 for a text without tokens.

        Args:
            query: what was asked.
            texts: what is read.
            kept: what is known of each text, whose rest alone is read then; empty where nothing is known of any.
        """
        asked = self._embedder.token_vectors([query], queries=True)[0]
        rests = _rests(texts, kept)
        read = iter(self._recent.of([text for text in rests if text], self._embedder.token_vectors))
        best = [_best(asked, next(read)) if text else _nothing(asked) for text in rests]
        known = {i: part.codes for i, part in enumerate(kept) if part is not None}
        for i, found in zip(known, best_cosines(asked, list(known.values())), strict=True):
            best[i] = np.maximum(best[i], found)
        return np.array([_mean(row) for row in best], dtype=np.float32)

    def score_by_text(
        self, queries: Sequence[str], texts: Sequence[str], wanted: Sequence[Sequence[int]]
    ) -> Iterator[FloatArray]:
        """The scores of many queries, each text being encoded once: for each text float32 (n,) of its queries.

        Args:
            queries: all of them; their vectors are held meanwhile.
            texts: each once.
            wanted: for each text, positions of the queries that it is scored for.
        """
        asked = self._embedder.token_vectors(queries, queries=True)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            read = self._embedder.token_vectors(texts[start : start + TEXTS_AT_ONCE])
            found = [rows.astype(ROUNDED).astype(np.float32) for rows in read]
            for rows, positions in zip(found, wanted[start : start + TEXTS_AT_ONCE], strict=True):
                yield np.array([_mean(_best(asked[i], rows)) for i in positions], dtype=np.float32)

    def n_within(self, query: str, texts: Sequence[str], budget_s: float, kept: Sequence[Kept | None] = ()) -> int:
        """How many of the texts, from the first on, are scored in so many seconds; one at least.

        Of those of which something is `kept` the rest counts, and once where several have the same.
        """
        if self._speed is None:
            key = f"{self._embedder.fingerprint} {self._embedder.precision} {self._embedder.device} tokens"
            self._speed = pacing.tokens_per_s(key, self._read_sample, self._lengths)
        rests = _rests(texts, kept)
        n_tokens = dict(zip(rests, self._lengths(rests), strict=True))
        lengths = [n_tokens.pop(text, 0) for text in rests] if kept else self._lengths(rests)
        return pacing.n_within(lengths, budget_s, self._speed)

    def score_sentences(
        self, query: str, kept: Sequence[tuple[str, bytes]], sentences: Sequence[Sequence[tuple[int, int]]]
    ) -> list[FloatArray]:
        """Scores of the sentences of passages whose tokens are kept: for each passage float32 (n,), as of `score`.

        Args:
            query: what was asked.
            kept: each passage with the codes of its tokens.
            sentences: (start, end) of those of each passage, in characters.
        """
        asked = self._embedder.token_vectors([query], queries=True)[0]
        spans = self._embedder.token_spans([text for text, _ in kept])
        found = []
        for places, parts, rows in zip(spans, sentences, cosines(asked, [codes for _, codes in kept]), strict=True):
            starts = places[: len(rows), 0]
            bounds = np.searchsorted(starts, [start for start, _ in parts] + [parts[-1][1]])
            best = [
                rows[first:end].max(axis=0) if first < end else _nothing(asked)
                for first, end in pairwise(bounds.tolist())
            ]
            found.append(np.array([_mean(row) for row in best], dtype=np.float32))
        return found

    def matches(self, query: str, text: str, n_passage: int | None = None) -> list[TokenMatch]:
        """For each word of the query the word of a text nearest to it, in the query's order.

        Args:
            query: what was asked.
            text: what was read.
            n_passage: so many characters of it are the passage; None for all.
        """
        asked = self._embedder.token_vectors([query], queries=True)[0]
        rows = self._recent.of([text], self._embedder.token_vectors)[0]
        if not len(rows) or not len(asked):
            return []
        of_query, of_text = (spans.tolist() for spans in self._embedder.token_spans([query, text]))
        products = each_with_each(asked, rows)
        best = products.max(axis=1)
        found = []
        for tokens in _words(query, of_query[: len(asked)]):
            nearest = max(tokens, key=lambda i: best[i])
            start, end = of_query[tokens[0]][0], of_query[tokens[-1]][1]
            first, last = _whole_word(text, of_text, int(products[nearest].argmax()))
            passage = (first, last) if n_passage is None or first < n_passage else None
            cosine = float(best[tokens].mean())
            found.append(TokenMatch((start, end), query[start:end], passage, text[first:last], cosine))
        return found

    def _read_sample(self, texts: Sequence[str]) -> None:
        """Score texts as if for the first time."""
        asked = self._embedder.token_vectors([SAMPLE_QUERY], queries=True)[0]
        for rows in self._embedder.token_vectors(texts):
            _best(asked, rows)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        known = [self._recent.length(text) for text in texts]
        new = [text for text, n in zip(texts, known, strict=True) if n is None]
        counted = iter(self._embedder.token_spans(new) if new else ())
        return [min(len(next(counted)), self._embedder.max_tokens) if n is None else n for n in known]


def _rests(texts: Sequence[str], kept: Sequence[Kept | None]) -> list[str]:
    """What is still to be read of each text; "" for nothing."""
    if not kept:
        return list(texts)
    return [text if part is None else text[part.n_chars :].strip() for text, part in zip(texts, kept, strict=True)]


def _best(query: FloatArray, passage: FloatArray) -> FloatArray:
    """float32 (q,) the best cosine of each of a query's tokens among a passage's; -1 where that has none."""
    return np.asarray(each_with_each(passage, query).max(axis=0)) if len(passage) else _nothing(query)


def _nothing(query: FloatArray) -> FloatArray:
    """The best cosines of a query's tokens where there are none to compare them with."""
    return np.full(len(query), -1.0, dtype=np.float32)


def _mean(best: FloatArray) -> float:
    """Mean over a query's tokens; -1 where it has none."""
    return float(best.mean()) if len(best) else -1.0


def _words(text: str, spans: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of tokens, word by word: pieces of a word are letters or digits that follow each other without a gap.

    Signs are no words, and where words are not set apart, as in Chinese, every token is one.
    """
    words: list[list[int]] = []
    for i, (start, end) in enumerate(spans):
        if not any(c.isalnum() for c in text[start:end]):
            continue
        is_piece = bool(words) and words[-1][-1] == i - 1 and spans[i - 1][1] == start
        if is_piece and (text[start - 1] + text[start]).isalnum() and ord(text[start]) < FIRST_CJK:
            words[-1].append(i)
        else:
            words.append([i])
    return words


def _whole_word(text: str, spans: Sequence[Sequence[int]], i: int) -> tuple[int, int]:
    """(start, end) of the word around a token, or of the token where it is a sign."""
    word = next((tokens for tokens in _words(text, spans) if i in tokens), [i])
    return spans[word[0]][0], spans[word[-1]][1]
