"""How much an approximate index finds, measured on a sample, and the narrowest search that finds enough.

recall@10 is the share of the ten nearest vectors, by exact comparison with all, that are among the ten an index gives.
"""

from __future__ import annotations

import numpy as np

from semsearch.store.ann import faiss_library, sorted_neighbors
from semsearch.store.approximate import ApproximateIndex, RescoredIndex
from semsearch.store.vectors import ShardReader
from semsearch.types import FloatArray, IntArray, Neighbors, VectorIndex

__all__ = ["DEPTH", "exact_neighbors", "narrow", "recall"]

DEPTH = 10
BLOCK = 65_536  # vectors compared at a time


def exact_neighbors(queries: FloatArray, ids: IntArray, vectors: ShardReader, k: int = DEPTH) -> IntArray:
    """int64 (q, k) ids of the k vectors nearest to float32 (q, dim) queries, best first; -1 where there are fewer."""
    faiss = faiss_library()
    best = Neighbors(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32))
    for first in range(0, len(ids), BLOCK):
        block = ids[first : first + BLOCK]
        scores, rows = faiss.knn(queries, vectors.get(block), min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        found = np.concatenate((best.ids, block[rows]), axis=1)
        best = sorted_neighbors(np.concatenate((best.scores, scores), axis=1), found, k)
    return best.ids


def recall(index: VectorIndex, queries: FloatArray, nearest: IntArray) -> float:
    """Mean share of the nearest, int64 (q, k), that the index finds among its first k."""
    found = index.search(queries, nearest.shape[1]).ids
    shares = [np.isin(row[row >= 0], ids).mean() for row, ids in zip(nearest, found, strict=True)]
    return float(np.mean(shares))


def narrow(
    index: ApproximateIndex, vectors: ShardReader, queries: FloatArray, nearest: IntArray, wanted: float
) -> float:
    """Set an index to the least value of its parameter with the recall that is wanted, or to the largest there is.

    Gives the recall at that value, after rescoring.
    """
    reached = 0.0
    rescored = RescoredIndex(index, vectors)
    for value in index.recipe.values:
        index.value = value
        reached = recall(rescored, queries, nearest)
        if reached >= wanted:
            break
    return reached
