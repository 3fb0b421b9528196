"""Vectors of the texts that were read last: who asks a little differently, or about the same again, need not wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from semsearch.types import FloatArray

__all__ = ["RecentVectors"]

BYTES_BESIDE = 300  # of an array, beside its numbers and its text


class RecentVectors:
    """Arrays of numbers by text, in place of those unwanted for longest. Safe to use from several threads."""

    def __init__(self, most_bytes: int, dtype: type[np.floating]) -> None:
        """Keep as many as take so many bytes of memory, with their numbers rounded to a type."""
        self._most_bytes = most_bytes
        self._dtype = dtype
        self._lock = threading.Lock()
        self._kept: dict[str, FloatArray] = {}  # what was wanted last stands last
        self._n_bytes = 0

    def of(self, texts: Sequence[str], read: Callable[[list[str]], Iterable[FloatArray]]) -> list[FloatArray]:
        """An array for each text, in their order, float32 but rounded, whether it was kept or not.

        Args:
            texts: may come twice.
            read: gives an array for each of some texts; asked once, for those that are not kept.
        """
        wanted = dict.fromkeys(texts)
        with self._lock:
            found = {text: self._kept.pop(text) for text in wanted if text in self._kept}
            self._kept.update(found)
        missing = [text for text in wanted if text not in found]
        if missing:
            new = {text: rows.astype(self._dtype) for text, rows in zip(missing, read(missing), strict=True)}
            found.update(new)
            self._keep(new)
        return [found[text].astype(np.float32) for text in texts]

    def length(self, text: str) -> int | None:
        """Rows of a text's array, if it is kept."""
        rows = self._kept.get(text)
        return None if rows is None else len(rows)

    def _keep(self, new: dict[str, FloatArray]) -> None:
        with self._lock:
            for text, rows in new.items():
                if text not in self._kept:  # as by another thread meanwhile
                    self._kept[text] = rows
                    self._n_bytes += _n_bytes(text, rows)
            while self._n_bytes > self._most_bytes:
                text = next(iter(self._kept))
                self._n_bytes -= _n_bytes(text, self._kept.pop(text))


def _n_bytes(text: str, rows: FloatArray) -> int:
    return rows.nbytes + sys.getsizeof(text) + BYTES_BESIDE
