"""Where ids stand in an ascending array, many of them at once."""

from __future__ import annotations

import numpy as np

from semsearch.types import IntArray

__all__ = ["Found", "Positions", "find"]

# A table of all ids from the first to the last has at most so many entries, of 4 bytes, for each that is there. By it
# 10,000 of a million are found in .1 ms, by bisection, which misses the cache at each step, in 2.
MAX_ENTRIES = 4

# Positions, int64 (m,), and which of the ids are there; the position of one that is not is any.
Found = tuple[IntArray, np.typing.NDArray[np.bool_]]


def find(among: IntArray, ids: IntArray) -> Found:
    """Find ids, int64 (m,), among distinct ascending ones, int64 (n,), that are looked at once."""
    if not len(among):
        return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.bool_)
    at = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return at, among[at] == ids


class Positions:
    """The same among ids that are looked at again and again. Threads may share it."""

    def __init__(self, among: IntArray) -> None:
        self._among = among
        self._first = int(among[0]) if len(among) else 0
        n_entries = int(among[-1]) - self._first + 1 if len(among) else 0
        self._has_gaps = len(among) < n_entries
        self._table: np.typing.NDArray[np.int32] | None = None
        if self._has_gaps and n_entries <= MAX_ENTRIES * len(among):
            self._table = np.zeros(n_entries, dtype=np.int32)  # an id that is not there leads to the first that is
            self._table[among - self._first] = np.arange(len(among), dtype=np.int32)

    def find(self, ids: IntArray) -> Found:
        """As the function `find`."""
        if self._table is not None:
            at = self._table.take(ids - self._first, mode="clip").astype(np.int64)
        elif self._has_gaps or not len(self._among):
            return find(self._among, ids)
        else:
            at = np.clip(ids - self._first, 0, len(self._among) - 1)
        return at, self._among[at] == ids
