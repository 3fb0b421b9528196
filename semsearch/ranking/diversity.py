"""Hits that differ: passages that say the same take one place, a document only some, and none repeats the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.products import each_with, each_with_each
from semsearch.ranking.candidates import Candidates, ScoreArray
from semsearch.search_options import PER_DOCUMENT
from semsearch.types import FloatArray

__all__ = ["Texts", "best_of_copies", "choose", "diversify", "maximal_marginal_relevance", "placed", "say_the_same"]

# Measured on 21,847 passages of documentation in several formats, editions and languages. 2,666 pairs of them have a
# cosine of 0.9 or more, and the rule takes 530: 375 word for word alike, and 155 that are, by the words in which they
# differ and the files they come from, one passage in two formats, translations or editions. The words decide: a cosine
# of 0.95 only loses 44 of these. Shingles (Jaccard of word triples >= 0.8) with equal numbers would take 736, among
# them how to receive a form and how to receive a file, which differ in four words.
SAME_COSINE = 0.9  # of two passages' vectors; below it their words are not compared
SAME_SHARE = 0.9  # of the longer passage's words that the shorter has to hold
BLOCK = 100  # candidates walked through at least

Texts = Callable[[Sequence[int]], Mapping[int, str]]  # chunk ids to the passages' texts

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_PUNCTUATION = (  # signs of currency, degree, fraction and power are words
    r"\s\x00-#&-/:-@\[-`{-\xa1\xa6-\xa9\xab-\xaf\xb4\xb6-\xb8\xbb\xbf"
    r"\u2000-\u206f\u2190-\u21ff\u2500-\u25ff\u3000-\u303f\uff01-\uff0f\uff1a-\uff20"
)
_WORD = re.compile(
    rf"(?<![\w.])[-−+](?=\d)|[<>!=]=|[<>≠≤≥]|ない|ません|[{_CJK}]|[^{_PUNCTUATION}{_CJK}]+",
)
# Words that turn a statement round, in the languages met most.
_NEGATIONS = """
    no not none never nor neither cannot without t only except unless nicht kein keine keinen keiner nie ohne nur
    ne n pas jamais sans aucun non mai sin nunca não sem niet geen не нет ни без только
    不 没 沒 無 无 未 非 否 别 勿 仅 只 ない ません 않 못 없 안
"""
_TURNS = frozenset(_NEGATIONS.split())


def say_the_same(a: str, b: str) -> bool:
    """Whether two passages differ by nothing but a few words that one has on top.

    The words of the shorter must be those of the longer, in order, with at most a tenth left out: a word put in place
    of another is a difference. What is left out may be no number, sign or negation. Punctuation, markup, letter
    case and white space do not count.
    """
    return a == b or _same(_words(a), _words(b))


def choose(
    candidates: Candidates, n: int, *, per_document: int = 0, fill: bool = False, texts: Texts | None = None
) -> tuple[Candidates, Candidates]:
    """The first n candidates that may stand beside each other, in order, and those that were folded into them.

    Args:
        candidates: best first.
        n: places to fill.
        per_document: most places of one document; 0 for no limit.
        fill: whether those beyond the limit come behind all others, in places that are left.
        texts: reads passages; with it, a candidate that says the same as a better one is folded into it and takes no
            place, of its document's neither.

    Returns:
        At most n; `duplicates` names what was folded into each, of the candidates walked through: those until the
        places were filled, in whole blocks of 100. And these, in order; each one's names all that say the same.
    """
    chosen: list[int] = []
    folded: dict[int, list[int]] = {}  # rows, by the row chosen
    places: Counter[int] = Counter()
    passed: list[int] = []  # for their documents' sake
    twins = _Twins(candidates, texts) if texts is not None else None
    documents, ids = candidates.documents.tolist(), candidates.ids.tolist()
    for row in range(len(candidates)):
        if row % BLOCK == 0 and len(chosen) >= n:
            break
        first = twins.of(row, chosen) if twins is not None else None
        if first is not None:
            folded[first].append(row)
        elif per_document and places[documents[row]] >= per_document:
            passed.append(row)
        elif len(chosen) < n:
            chosen.append(row)
            folded[row] = []
            places[documents[row]] += 1
            if twins is not None:
                twins.choose(row)
    for row in passed if fill else ():
        if len(chosen) >= n:
            break
        first = twins.alike(row, chosen) if twins is not None else None
        if first is not None:
            folded[first].append(row)
        else:
            chosen.append(row)
            folded[row] = []
    fold_of: dict[int, tuple[int, ...]] = {}
    for first, others in folded.items():
        fold = tuple(ids[row] for row in (first, *others))  # one for all of its copies, which may be thousands
        fold_of.update(dict.fromkeys(others, fold))
        fold_of[first] = fold[1:]
    copies = sorted(fold_of.keys() - folded.keys())
    return (
        replace(candidates.take(chosen), duplicates=tuple(fold_of[row] for row in chosen)),
        replace(candidates.take(copies), duplicates=tuple(fold_of[row] for row in copies)),
    )


def best_of_copies(
    candidates: Candidates, scores: ScoreArray, *, per_document: int = 0, fill: bool = False
) -> tuple[Candidates, ScoreArray]:
    """Of candidates that name each other as `duplicates` the one that a reranker liked best, the others left out.

    Args:
        candidates: best first; a row may be named among its own duplicates.
        scores: (m,) what it answered for the first m; ties go to the smaller row, and what was read before the rest.
        per_document: most places of one document, else the next of the copies has its turn; 0 for no limit.
        fill: whether those beyond the limit stay if none of their copies has a place.

    Returns:
        Candidates in their order, and the scores of those of them that were read.
    """
    ids, documents, duplicates = candidates.ids.tolist(), candidates.documents.tolist(), list(candidates.duplicates)
    seen: set[int] = set()
    places: Counter[int] = Counter()
    kept: list[int] = []
    order = [*np.argsort(-scores, kind="stable").tolist(), *range(len(scores), len(ids))]
    for limit in (per_document, 0) if fill else (per_document,):
        for row in order:
            if ids[row] not in seen and not 0 < limit <= places[documents[row]]:
                kept.append(row)
                places[documents[row]] += 1
                seen.update((ids[row], *duplicates[row]))
                duplicates[row] = tuple(i for i in duplicates[row] if i != ids[row])
    kept.sort()
    found = replace(candidates.take(kept), duplicates=tuple(duplicates[row] for row in kept))
    return found, scores[[row for row in kept if row < len(scores)]]


def placed(candidates: Candidates, k: int, *, mmr: float | None, per_document: int | None) -> Candidates:
    """The k candidates that are shown, in their order.

    Args:
        candidates: best first; within the limit of a document, where there is one.
        k: places.
        mmr: lambda of maximal marginal relevance; None for relevance alone.
        per_document: None where the first PER_DOCUMENT of each document come before all others.
    """
    if mmr is not None:
        candidates = diversify(candidates, len(candidates) if per_document is None else k, mmr)
    if per_document is None:
        candidates = _first_of_each(candidates, PER_DOCUMENT)
    return candidates.take_first(k)


def _first_of_each(candidates: Candidates, n: int) -> Candidates:
    """All candidates, n of each document before the others."""
    places: Counter[int] = Counter()
    first: list[int] = []
    others: list[int] = []
    for row, document in enumerate(candidates.documents.tolist()):
        (first if places[document] < n else others).append(row)
        places[document] += 1
    return candidates.take([*first, *others])


def diversify(candidates: Candidates, k: int, trade_off: float) -> Candidates:
    """The k candidates that `maximal_marginal_relevance` picks, in its order; their relevance stays what it was."""
    return candidates.take(maximal_marginal_relevance(candidates.relevance, candidates.vectors, k, trade_off=trade_off))


def maximal_marginal_relevance(relevance: ScoreArray, vectors: FloatArray, k: int, *, trade_off: float) -> list[int]:
    """Pick rows one by one, each the best by `trade_off * relevance - (1 - trade_off) * nearest`.

    `nearest` is the largest cosine with a row picked before, or 0 where that is larger. Relevance is scaled to [0, 1]
    over the candidates, (x - min) / (max - min), so that both terms have one range whatever the score was.

    Args:
        relevance: (n,), larger is better.
        vectors: float32 (n, dim) unit rows.
        k: rows to pick.
        trade_off: lambda in [0, 1]; 1 is relevance alone, 0 is difference alone after the first.

    Returns:
        At most k rows in the order picked; ties to the smaller row.

    Raises:
        InvalidInput: trade_off outside [0, 1].

    Source: Carbonell and Goldstein, SIGIR 1998, doi:10.1145/290941.291025; the scaling as in Lee, SIGIR 1997,
        doi:10.1145/258525.258587.
    """
    if not 0.0 <= trade_off <= 1.0:
        raise InvalidInput(f"mmr = {trade_off}: give a number from 0 (different) to 1 (relevant)")
    if not len(relevance):
        return []
    low, high = float(relevance.min()), float(relevance.max())
    scaled = (relevance - low) / (high - low) if high > low else np.ones(len(relevance))
    nearest = np.zeros(len(relevance))
    picked: list[int] = []
    for _ in range(min(k, len(relevance))):
        value = trade_off * scaled - (1.0 - trade_off) * nearest
        value[picked] = -np.inf
        picked.append(int(np.argmax(value)))
        nearest = np.maximum(nearest, each_with(vectors, vectors[picked[-1]]))
    return picked


class _Twins:
    """Finds, for one candidate after the other, the chosen one that says the same."""

    def __init__(self, candidates: Candidates, texts: Texts) -> None:
        self._candidates = candidates
        self._texts = texts
        self._words: dict[int, list[str]] = {}  # by row
        self._near: dict[int, list[int]] = {}  # by row of a block, chosen rows of a like vector, best first

    def of(self, row: int, chosen: Sequence[int]) -> int | None:
        """The best of the chosen rows that says the same; to be asked for every row in turn, as they are chosen."""
        if row % BLOCK == 0:
            self._near = {}
            if chosen:
                self._compare(range(row, row + BLOCK), chosen)
        near = self._near.get(row)
        return next((other for other in near if self._same(other, row)), None) if near else None

    def alike(self, row: int, chosen: Sequence[int]) -> int | None:
        """The first of some rows that says the same as another, whatever was asked before."""
        vectors = self._candidates.vectors
        near = np.flatnonzero(each_with(vectors[list(chosen)], vectors[row]) >= SAME_COSINE).tolist()
        return next((chosen[i] for i in near if self._same(chosen[i], row)), None)

    def choose(self, row: int) -> None:
        """Compare a row that was chosen with those after it."""
        self._compare(range(row + 1, row - row % BLOCK + BLOCK), [row])

    def _compare(self, rows: range, chosen: Sequence[int]) -> None:
        """Find which rows of a block have a vector like that of a chosen one."""
        vectors = self._candidates.vectors
        products = each_with_each(vectors[rows.start : rows.stop], vectors[chosen])
        if products.size and products.max() >= SAME_COSINE:
            for row, other in np.argwhere(products >= SAME_COSINE).tolist():
                self._near.setdefault(rows.start + row, []).append(chosen[other])

    def _same(self, a: int, b: int) -> bool:
        ids = self._candidates.vector_ids
        return bool(ids[a] == ids[b]) or _same(self._words_of(a), self._words_of(b))

    def _words_of(self, row: int) -> list[str]:
        if row not in self._words:
            chunk_id = int(self._candidates.ids[row])
            self._words[row] = _words(self._texts([chunk_id])[chunk_id])
        return self._words[row]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _same(a: Sequence[str], b: Sequence[str]) -> bool:
    shorter, longer = (a, b) if len(a) <= len(b) else (b, a)
    if not shorter or len(shorter) < SAME_SHARE * len(longer):
        return False
    n_met = 0
    for word in longer:
        if n_met < len(shorter) and word == shorter[n_met]:
            n_met += 1
        elif word in _TURNS or not word.isalpha():
            return False
    return n_met == len(shorter)
