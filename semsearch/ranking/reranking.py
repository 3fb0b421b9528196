"""The order that a reranker gives to the first candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from semsearch.products import each_with_each
from semsearch.ranking.candidates import Candidates, ScoreArray
from semsearch.types import FloatArray

__all__ = ["late_parts", "reranked", "smoothed"]

N_NEIGHBOURS = 3
# Chosen on eight sets of training and development queries, where it adds 0.3 points of nDCG@10 on average to the first
# 20 passages read and 0.4 to the first 30, and takes 0.3 at most from one of them; 0.1 and 0.3 add 0.2.
NEIGHBOURS_SHARE = 0.2


def late_parts(
    candidates: Candidates, scores: ScoreArray, share: float, *, scale: float = 1.0
) -> Mapping[str, ScoreArray]:
    """What candidates read by late interaction are ranked by, as summands.

    The mean of the first stage and late interaction, which are cosines or like them, so neither is scaled; and what the
    passages nearest to each add to it.

    Args:
        candidates: those that were read, best first.
        scores: (n,) what late interaction answered for each.
        share: of late interaction in the mean, in [0, 1].
        scale: divides the scores of a first stage that have no range of their own.
    """
    parts = {name: (1.0 - share) / scale * part for name, part in candidates.parts.items()}
    parts["reranker"] = share * scores
    mean = np.sum(list(parts.values()), axis=0)
    return {**parts, "neighbours": smoothed(mean, candidates.vectors) - mean}


def smoothed(scores: ScoreArray, vectors: FloatArray) -> ScoreArray:
    """Each score moved by a fifth of the way to the mean of the three nearest passages', weighted by their cosines.

    Passages that resemble each other answer the same queries: one whose neighbours rank high was rather missed than is
    irrelevant, and one whose neighbours do not was rather hit by chance.

    Args:
        scores: (n,), larger is better.
        vectors: float32 (n, dim) unit rows of the passages.

    Returns:
        (n,); the scores themselves where there are not more than three.

    Source: the cluster hypothesis; as a correction of scores, Diaz, "Regularizing Ad Hoc Retrieval Scores", CIKM 2005,
        doi:10.1145/1099554.1099722.
    """
    if len(scores) <= N_NEIGHBOURS:
        return scores
    cosines = each_with_each(vectors, vectors).astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :N_NEIGHBOURS]
    weights = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0.0)
    total = weights.sum(axis=1)
    means = np.where(total > 0, (weights * scores[nearest]).sum(axis=1) / np.where(total > 0, total, 1.0), scores)
    return np.asarray((1.0 - NEIGHBOURS_SHARE) * scores + NEIGHBOURS_SHARE * means)


def reranked(candidates: Candidates, scores: ScoreArray, parts: Mapping[str, ScoreArray]) -> Candidates:
    """The first candidates in a new order, the others after them in theirs.

    Args:
        candidates: best first.
        scores: (m,) what a reranker answered for the first m.
        parts: by name (m,) what the scores they are to be ranked by are the sum of; ties go to the smaller id.

    Returns:
        All candidates; the relevance of those that were not read is what they had, but not more than the least of
        those before them.
    """
    n_read = len(scores)
    if not n_read:
        return candidates
    joined = np.sum(list(parts.values()), axis=0)
    order = np.lexsort((candidates.ids[:n_read], -joined))
    moved = candidates.take([*order.tolist(), *range(n_read, len(candidates))])
    rerank, relevance = np.full(len(candidates), np.nan), moved.relevance.copy()
    rerank[:n_read], relevance[:n_read] = scores[order], joined[order]
    relevance[n_read:] = np.minimum(relevance[n_read:], relevance[n_read - 1])
    return replace(moved, rerank=rerank, relevance=relevance, parts=_joined(moved, relevance, parts, order))


def _joined(
    moved: Candidates, relevance: ScoreArray, parts: Mapping[str, ScoreArray], order: np.typing.NDArray[np.intp]
) -> dict[str, ScoreArray]:
    """The parts of those read, in their new order, above those of the others, with what keeps these below."""
    n_read = len(order)
    joined = {name: np.zeros(len(moved)) for name in (*moved.parts, *parts)}
    for name, part in parts.items():
        joined[name][:n_read] = part[order]
    for name, part in moved.parts.items():
        joined[name][n_read:] = part[n_read:]
    limit = np.zeros(len(moved))
    limit[n_read:] = relevance[n_read:] - moved.relevance[n_read:]
    return {**joined, "limit": limit} if limit.any() else joined
