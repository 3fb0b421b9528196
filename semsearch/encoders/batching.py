"""Texts of like length together, so that little work goes into padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from semsearch.types import IntArray

__all__ = ["pad", "token_budget_batches"]


def token_budget_batches(lengths: Sequence[int], budget: int) -> Iterator[IntArray]:
    """Cut texts into batches by falling length, each of at most `budget` tokens with its padding.

    Args:
        lengths: tokens of each text.
        budget: tokens a batch; a longer text is a batch of its own.

    Yields:
        int64 (n,) positions in `lengths`; each position once, equal lengths in their order.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        n_texts = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + n_texts]
        start += n_texts


def pad(rows: Sequence[Sequence[int]], positions: IntArray) -> IntArray:
    """The rows at these positions as int64 (n, longest), filled up with 0."""
    padded = np.zeros((len(positions), max(len(rows[i]) for i in positions)), dtype=np.int64)
    for filled, position in zip(padded, positions, strict=True):
        filled[: len(rows[position])] = rows[position]
    return padded
