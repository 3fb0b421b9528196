"""What can still be had of a damaged shard: every row that its checksum proves."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsearch.store.checksums import checksum_rows
from semsearch.store.vectors import shard_files
from semsearch.types import FloatArray, IntArray

__all__ = ["salvage"]

NPY_HEADER_BYTES = 128  # of arrays with one or two axes, as numpy pads it


def salvage(folder: Path, name: str, dim: int, damaged: Set[str], candidates: IntArray) -> tuple[IntArray, FloatArray]:
    """(int64 (n,) ids, float32 (n, dim) rows) of a shard that are what was written.

    Args:
        folder: of the shards.
        name: of the shard.
        dim: of a vector.
        damaged: those of its files that are not what was written.
        candidates: int64 ascending ids that it may hold, which stand in for a damaged file of ids.
    """
    rows_file, ids_file, sums_file = shard_files(name)
    rows = _values(folder / rows_file, np.dtype(np.float32))
    rows = rows[: len(rows) // dim * dim].reshape(-1, dim)
    ids = _values(folder / ids_file, np.dtype(np.int64))
    if rows_file not in damaged and ids_file not in damaged:
        return ids, rows
    if ids_file in damaged and len(candidates) == len(rows):
        ids = candidates
    sums = _values(folder / sums_file, np.dtype(np.uint64))
    n = min(len(rows), len(ids), len(sums))
    proven = checksum_rows(ids[:n], rows[:n]) == sums[:n]
    return ids[:n][proven], rows[:n][proven]


def _values(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """All that is left of the values in an .npy file, whatever its header says."""
    if not path.exists() or path.stat().st_size < NPY_HEADER_BYTES + dtype.itemsize:
        return np.empty(0, dtype=dtype)
    n = (path.stat().st_size - NPY_HEADER_BYTES) // dtype.itemsize
    return np.memmap(path, dtype=dtype, mode="r", offset=NPY_HEADER_BYTES, shape=(n,))
