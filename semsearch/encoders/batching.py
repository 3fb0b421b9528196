"""Texts of like length together, so that little work goes into padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from semsearch.types import FloatArray, IntArray

__all__ = ["model_inputs", "placed", "token_budget_batches"]


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


def model_inputs(
    ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None, positions: IntArray
) -> list[IntArray]:
    """What a BERT reads of the rows at these positions, each int64 (n, longest): ids, mask, and types if given."""
    padded = _pad(ids, positions)
    lengths = np.array([len(ids[i]) for i in positions])
    mask = (np.arange(padded.shape[1]) < lengths[:, np.newaxis]).astype(np.int64)
    return [padded, mask] if token_types is None else [padded, mask, _pad(token_types, positions)]


def placed(parts: Sequence[tuple[IntArray, FloatArray]], n_rows: int) -> FloatArray:
    """float32 (n_rows, width) from parts of it, each with the positions of its rows."""
    rows = np.empty((n_rows, parts[0][1].shape[1]), dtype=np.float32)
    for positions, part in parts:
        rows[positions] = part
    return rows


def _pad(rows: Sequence[Sequence[int]], positions: IntArray) -> IntArray:
    padded = np.zeros((len(positions), max(len(rows[i]) for i in positions)), dtype=np.int64)
    for filled, position in zip(padded, positions, strict=True):
        filled[: len(rows[position])] = rows[position]
    return padded
