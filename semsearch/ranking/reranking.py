"""The order that a reranker gives to the first candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semsearch.ranking.candidates import Candidates, ScoreArray

__all__ = ["reranked"]


def reranked(candidates: Candidates, scores: ScoreArray, joined: ScoreArray) -> Candidates:
    """The first candidates in a new order, the others after them in theirs.

    Args:
        candidates: best first.
        scores: (m,) what a reranker answered for the first m.
        joined: (m,) what they are to be ranked by; larger is better, ties to the smaller id.

    Returns:
        All candidates; the relevance of those that were not read is what they had, but not more than the least of
        those before them.
    """
    n_read = len(scores)
    order = np.lexsort((candidates.ids[:n_read], -joined))
    moved = candidates.take([*order.tolist(), *range(n_read, len(candidates))])
    rerank, relevance = np.full(len(candidates), np.nan), candidates.relevance.copy()
    rerank[:n_read], relevance[:n_read] = scores[order], joined[order]
    if n_read:
        relevance[n_read:] = np.minimum(relevance[n_read:], relevance[n_read - 1])
    return replace(moved, rerank=rerank, relevance=relevance)
