"""Inner products of few vectors on one thread.

OpenBLAS, behind numpy's `@`, divides products of this size among all cores, and its threads then wait for more without
sleeping: a search kept every core busy, and of four processes on two cores each took three times as long as now.
"""

from __future__ import annotations

import numpy as np

from semsearch.types import FloatArray

__all__ = ["each_with", "each_with_each"]


def each_with(rows: FloatArray, vector: FloatArray) -> FloatArray:
    """Inner products of float32 (n, dim) rows and one (dim,) vector: float32 (n,)."""
    return np.asarray(np.einsum("ij,j->i", rows, vector), dtype=np.float32)


def each_with_each(rows: FloatArray, others: FloatArray) -> FloatArray:
    """Inner products of float32 (n, dim) rows and (m, dim) others: float32 (n, m)."""
    return np.asarray(np.einsum("ij,kj->ik", rows, others), dtype=np.float32)
