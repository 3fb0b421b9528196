"""Vectors of the texts that were read last: who asks a little differently, or about the same again, need not wait.

They are kept where a model gives a text the same vectors whatever is read with it, so that nobody can tell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from semsearch.types import FloatArray

__all__ = ["RecentVectors"]

BYTES_BESIDE = 300  # of an array, beside its numbers and its text
BYTES_OF_CHARACTER = 8  # at most, as Python may keep a text in UTF-8, too


class RecentVectors:
    """Arrays of numbers by text, in place of those unwanted for longest. Safe to use from several threads."""

    def __init__(self, embedder: object, most_bytes: int, dtype: type[np.floating]) -> None:
        """Keep as many as take so many bytes of memory, with their numbers rounded to a type.

        Args:
            embedder: whose they are; none are kept unless it says that it `is_batch_invariant`.
            most_bytes: of all that are kept.
            dtype: float16 or float32.
        """
        self._most_bytes = most_bytes if getattr(embedder, "is_batch_invariant", False) else 0
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
                n_bytes = _n_bytes(text, rows)
                if text not in self._kept and n_bytes <= self._most_bytes:  # not by another thread meanwhile
                    self._kept[text] = rows
                    self._n_bytes += n_bytes
            while self._n_bytes > self._most_bytes:
                text = next(iter(self._kept))
                self._n_bytes -= _n_bytes(text, self._kept.pop(text))


def _n_bytes(text: str, rows: FloatArray) -> int:
    """The same for equal texts, whatever Python keeps beside one of them."""
    return rows.nbytes + BYTES_OF_CHARACTER * len(text) + BYTES_BESIDE
