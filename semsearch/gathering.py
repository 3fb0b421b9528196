"""The first stage: the candidates of a query from both legs, fused, without those that repeat what is there."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from semsearch.opening import IndexState
from semsearch.products import each_with
from semsearch.ranking.candidates import Candidates
from semsearch.ranking.diversity import choose
from semsearch.ranking.feedback import rank_hybrid
from semsearch.search_options import PER_DOCUMENT
from semsearch.store.selection import Selection
from semsearch.types import FloatArray, IntArray, Neighbors

__all__ = ["Query", "gather"]

# Of the mean over a passage and the two beside it. BM25 of articles of 600 words (time) gains 1.8 points of nDCG@10,
# that of abstracts (nfcorpus train, dev) loses 0.5 and gains 0.6.
CONTEXT_SHARE = 1 / 3
# Selected vectors that are compared one by one, from the shards. At 200,000 passages of 384 dimensions this is quicker
# than FAISS with a selector up to 3 % of them; for approximate indexes it is also what keeps the recall.
MAX_COMPARED = 16_384
# Chunks from which both legs are asked at once, in two threads: of a million a search then takes 0.9 of the time, of
# 100,000 as long as before.
MIN_BESIDE = 500_000
# Chunks taken from each leg: so many, or 2, 4, 8, ... times as many, until they are twice as many as are walked through
# for the hits that are wanted: a leg ranks what the ranking of both puts first somewhat lower, and feedback reorders.
# Three times as many by words alone, where what stands beside a passage may bring it up.
# In steps, so that few hits are the first of a few more. On nine sets of training and development queries 30 to 100
# give the same nDCG@10, to .0003 of it.
CANDIDATES = 50
# How many times as many chunks are taken at most to find other documents than those whose passages come first: a search
# of 12,000 passages of three books takes up to 20 ms more, and 60 where no more than three of each are allowed.
FAR = 16
# Weight of meaning from which half as many are taken by words. With 0.85 five of 1,200 hits are not the best there are,
# three with as many; with 0.5 21 of 800, seven with as many.
DENSE_LEADS = 0.8
# Vectors, of whose cosines the last says how much being near tells. They are the nearest of all, with a selection too,
# or the same hit would be more or less probable with each filter.
N_NEAR = 100


@dataclass(frozen=True, slots=True)
class Query:
    """A query as the legs understand it.

    Attributes:
        text: what was asked; not blank.
        mode: `hybrid`, `dense` or `lexical`.
        vector: unit vector (dim,); None for `lexical`.
        weight: of the dense leg in a `hybrid` ranking, in [0, 1].
        feedback: whether a `hybrid` ranking moves the query towards the first passages.
    """

    text: str
    mode: str
    vector: FloatArray | None
    weight: float
    feedback: bool = True


def gather(
    state: IndexState,
    query: Query,
    depth: int,
    *,
    per_document: int | None,
    fold: bool,
    selection: Selection | None = None,
) -> tuple[Candidates, Candidates]:
    """The first candidates by the fused score that may stand beside each other, and the copies folded into them.

    Args:
        state: held by the caller.
        query: what is looked for.
        depth: how many; fewer only where the index holds no more.
        per_document: most of one document; 0 for no limit. None for PER_DOCUMENT as far as others are found, behind
            which the rest comes.
        fold: whether candidates that say the same take one place.
        selection: the passages that are looked at; None for all.

    Raises:
        IndexCorrupt: a passage has no vector, or is found by an index and is not there.
    """
    spare = 3 if query.mode == "lexical" else 2
    n = _n_taken(spare * depth)
    n_documents, n_chunks = state.n_documents, state.n_chunks
    if selection is not None and len(selection.chunks) == n_chunks:
        selection = None
    if selection is not None:
        n_documents, n_chunks = len(selection.documents), len(selection.chunks)
    fills = per_document is None
    limit = PER_DOCUMENT if per_document is None else per_document
    n_possible = min(depth, n_documents * limit) if limit and not fills else depth
    texts = state.store.texts_of_chunks if fold else None
    far = FAR * n
    while True:
        fused = _fused(_legs(state, query, n, selection), query)
        fused = _in_context(state, query, fused) if query.mode == "lexical" else fused
        candidates, copies = choose(fused, depth, per_document=limit, texts=texts)
        if fills and len(candidates) < depth and (n >= min(far, n_chunks) or len(candidates) == n_documents * limit):
            candidates, copies = choose(fused, depth, per_document=limit, fill=True, texts=texts)
        if len(candidates) < n_possible:
            wanted = 4 * n  # a document with many good chunks, or copies, used the candidates up
        elif query.mode == "dense":
            wanted = n  # the one leg's own ranking, of which nothing before the last can be missing
        else:
            wanted = _n_taken(_n_needed(fused, candidates, copies, spare))
        if wanted <= n or n >= n_chunks:
            return candidates, copies
        n = wanted


def _n_taken(n_needed: int) -> int:
    """How many chunks of each leg are taken where so many are needed."""
    n = CANDIDATES
    while n < n_needed:
        n *= 2
    return n


def _n_needed(fused: Candidates, chosen: Candidates, copies: Candidates, spare: int) -> int:
    """So many times as many as were walked through to the last one chosen; copies, which legs rank alike, once less."""
    if not len(chosen):
        return 0
    walked = fused.ids[: np.flatnonzero(np.isin(fused.ids, chosen.ids))[-1] + 1]
    return spare * len(walked) - int(np.isin(walked, copies.ids).sum())


def _legs(state: IndexState, query: Query, n: int, selection: Selection | None) -> Candidates:
    """What each leg finds first, n vectors or chunks, by chunk id; each with the scores of all legs that were asked."""
    places: set[tuple[int, int, int]] = set()
    bm25: dict[int, float] = {}
    beside = _beside(state, query, n, selection)
    of_all: Neighbors | None = None
    if query.vector is not None:
        if selection is None:
            of_all = state.ann.search(query.vector[np.newaxis], max(n, N_NEAR))
            near = of_all.ids[0, :n]
            found = state.store.chunks_of_vectors(near[near >= 0].tolist())
        else:
            near = _nearest(state, query.vector, n, selection.vectors)
            found = selection.with_vectors(near[near >= 0])
        state.store.check_none_missing(near[near >= 0].tolist(), {vector_id for _, _, vector_id in found})
        places.update(found)
    if query.mode != "dense":
        near_chunks = {chunk_id for chunk_id, _, _ in places}
        bm25 = state.lexical.score(query.text, sorted(near_chunks))  # while the other thread still looks
    words, of_all_beside = beside()
    if query.mode != "dense":
        bm25.update(words)
        others = bm25.keys() - near_chunks
        if selection is None:
            places.update(state.store.places_of_chunks(others))
        else:
            places.update(selection.with_chunks(np.fromiter(others, dtype=np.int64)))
        state.store.check_none_missing(bm25, {chunk_id for chunk_id, _, _ in places})
    ordered = sorted(places)
    vectors = state.vectors.get(np.array([vector_id for _, _, vector_id in ordered], dtype=np.int64))
    dense = (
        np.full(len(ordered), np.nan) if query.vector is None else each_with(vectors, query.vector).astype(np.float64)
    )
    lexical = np.array([bm25.get(chunk_id, np.nan) for chunk_id, _, _ in ordered], dtype=np.float64)
    hundredth = _hundredth(of_all or of_all_beside)
    return replace(Candidates.of(ordered, vectors, dense, lexical), hundredth=hundredth)


def _beside(
    state: IndexState, query: Query, n: int, selection: Selection | None
) -> Callable[[], tuple[list[tuple[int, float]], Neighbors | None]]:
    """What gives the best chunks by BM25 and, with a selection, the vectors that are nearest of all.

    They are looked for in another thread meanwhile, where both legs take long.
    """
    n = n // 2 if query.mode == "hybrid" and query.weight >= DENSE_LEADS else n

    def find() -> tuple[list[tuple[int, float]], Neighbors | None]:
        words, of_all = list[tuple[int, float]](), None
        if query.mode != "dense" and selection is None:
            words = state.lexical.search(query.text, n)
        elif query.mode != "dense" and selection is not None:
            words = state.lexical.search_among(query.text, n, selection.chunks)
        if query.vector is not None and selection is not None:
            of_all = state.ann.search(query.vector[np.newaxis], N_NEAR)
        return words, of_all

    if query.mode != "hybrid" or state.n_chunks < MIN_BESIDE:
        return find
    beside = ThreadPoolExecutor(1)  # one that is kept would be gone, and waited for, in a process that forks
    found = beside.submit(find)
    beside.shutdown(wait=False)
    return found.result


def _nearest(state: IndexState, vector: FloatArray, n: int, allowed: IntArray) -> IntArray:
    """Ids of the n vectors nearest to one, among those allowed; -1 stands for none."""
    if len(allowed) > MAX_COMPARED:
        return np.asarray(state.ann.search(vector[np.newaxis], n, allowed).ids[0])
    scores = state.vectors.products(allowed, vector)
    if n < len(allowed):
        best = np.flatnonzero(scores >= np.partition(scores, -n)[-n])
        allowed, scores = allowed[best], scores[best]
    first: IntArray = allowed[np.lexsort((allowed, -scores))[:n]]
    return first


def _hundredth(of_all: Neighbors | None) -> float:
    """`Candidates.hundredth`, by the vectors nearest of all; 0 where they were not looked for."""
    if of_all is None:
        return 0.0
    n_near = np.count_nonzero(of_all.ids[0, :N_NEAR] >= 0)
    return max(float(of_all.scores[0, n_near - 1]), 0.0) * n_near / N_NEAR if n_near else 0.0


def _fused(candidates: Candidates, query: Query) -> Candidates:
    """Those for which a leg speaks, best first."""
    if query.mode == "hybrid" and query.vector is not None:
        return rank_hybrid(candidates, query.vector, query.weight, feedback=query.feedback)
    name, scores = ("meaning", candidates.dense) if query.vector is not None else ("words", candidates.lexical)
    candidates = candidates.ranked_by(scores)
    return replace(candidates, fused=candidates.relevance, parts={name: candidates.relevance})


def _in_context(state: IndexState, query: Query, candidates: Candidates) -> Candidates:
    """Candidates by BM25 with a share of it from the passages before and after: what an article says, it says twice.

    Where meaning counts as well, as in hybrid rankings, this adds nothing.
    """
    ids, documents, own = candidates.ids.tolist(), candidates.documents.tolist(), candidates.lexical
    document_of = dict(zip(ids, documents, strict=True))  # chunks of a document have ids that follow each other
    beside = {chunk_id + step for chunk_id in ids for step in (-1, 1)} - document_of.keys()
    document_of.update({i: document for i, document, _ in state.store.places_of_chunks(beside)})
    scores = dict(zip(ids, own.tolist(), strict=True))
    scores.update(state.lexical.score(query.text, sorted(beside & document_of.keys())))
    means = np.empty(len(ids))
    for row, chunk_id in enumerate(ids):
        near = (i for i in range(chunk_id - 1, chunk_id + 2) if document_of.get(i) == documents[row])
        said = [scores.get(i, 0.0) for i in near]
        means[row] = functools.reduce(operator.add, said) / len(said)  # `sum` rounds otherwise from Python 3.12 on
    added = CONTEXT_SHARE * (means - own)
    candidates = replace(candidates, parts={"words": own, "context": added}).ranked_by(own + added)
    return replace(candidates, fused=candidates.relevance)
