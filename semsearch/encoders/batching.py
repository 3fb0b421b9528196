"""Texts of like length together, so that little work goes into padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from semsearch.types import FloatArray, IntArray

__all__ = [
    "model_inputs",
    "packed_inputs",
    "packs",
    "padded_length",
    "placed",
    "placed_tokens",
    "token_budget_batches",
]

# Texts of a pack begin at even places: products in bf16 are summed in pairs, so a text then has the same vector beside
# any others, to the last bit; one that began at an odd place had others in its pairs' halves.
PACKED_STEP = 2


def token_budget_batches(lengths: Sequence[int], budget: int, *, step: int = 1) -> Iterator[IntArray]:
    """Cut texts into batches by falling length, each of at most `budget` tokens with its padding.

    Args:
        lengths: tokens of each text.
        budget: tokens a batch; a longer text is a batch of its own.
        step: batches are padded to a multiple of so many tokens a text.

    Yields:
        int64 (n,) positions in `lengths`; each position once, equal lengths in their order.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        n_texts = max(1, budget // padded_length(max(1, lengths[order[start]]), step))
        yield order[start : start + n_texts]
        start += n_texts


def packs(lengths: Sequence[int], budget: int) -> Iterator[tuple[range, IntArray]]:
    """Put texts one behind the other into rows of at most `budget` tokens.

    Args:
        lengths: tokens of each text.
        budget: tokens of a row; a longer text has one of its own.

    Yields:
        The texts of a row, in their order, and int64 (n,) where in it each begins.
    """
    first, starts, end = 0, list[int](), 0
    for i, length in enumerate(lengths):
        if starts and end + length > budget:
            yield range(first, i), np.array(starts, dtype=np.int64)
            first, starts, end = i, [], 0
        starts.append(end)
        end += padded_length(length, PACKED_STEP)
    if starts:
        yield range(first, len(lengths)), np.array(starts, dtype=np.int64)


def packed_inputs(rows: Sequence[Sequence[int]], starts: IntArray, *, step: int) -> list[IntArray]:
    """What a packed BERT reads, int64 (1, n) each: token ids, positions in their texts, and numbers of the texts.

    Args:
        rows: token ids of each text.
        starts: where each begins.
        step: n is a multiple of it; what is no text's has the number -1.
    """
    width = padded_length(int(starts[-1]) + len(rows[-1]), step)
    ids, positions, texts = (np.full((1, width), value, dtype=np.int64) for value in (0, 0, -1))
    for i, (row, start) in enumerate(zip(rows, starts.tolist(), strict=True)):
        place = slice(start, start + len(row))
        ids[0, place], positions[0, place], texts[0, place] = row, np.arange(len(row)), i
    return [ids, positions, texts]


def padded_length(n_tokens: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-n_tokens // step) * step


def model_inputs(
    ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None, positions: IntArray, *, step: int = 1
) -> list[IntArray]:
    """What a BERT reads of the rows at these positions, int64 (n, longest) each: ids, mask, and types if given."""
    lengths = np.array([len(ids[i]) for i in positions])
    width = padded_length(int(lengths.max()), step)
    mask = (np.arange(width) < lengths[:, np.newaxis]).astype(np.int64)
    inputs = [_pad(ids, positions, width), mask]
    return inputs if token_types is None else [*inputs, _pad(token_types, positions, width)]


def placed(parts: Sequence[tuple[IntArray, FloatArray]], n_rows: int) -> FloatArray:
    """float32 (n_rows, width) from parts of it, each with the positions of its rows."""
    rows = np.empty((n_rows, parts[0][1].shape[1]), dtype=np.float32)
    for positions, part in parts:
        rows[positions] = part
    return rows


def placed_tokens(parts: Sequence[tuple[IntArray, FloatArray]], spans: Sequence[tuple[int, int]]) -> list[FloatArray]:
    """float32 (n_tokens, width) a text, from parts (n, length, width) with the positions of their texts.

    Args:
        parts: what the model gave.
        spans: first and one past the last token to keep of each text.
    """
    rows: list[FloatArray] = [parts[0][1][0, :0]] * len(spans)
    for positions, part in parts:
        for position, text in zip(positions.tolist(), part, strict=True):
            start, end = spans[position]
            rows[position] = text[start:end]
    return rows


def _pad(rows: Sequence[Sequence[int]], positions: IntArray, width: int) -> IntArray:
    padded = np.zeros((len(positions), width), dtype=np.int64)
    for filled, position in zip(padded, positions, strict=True):
        filled[: len(rows[position])] = rows[position]
    return padded
