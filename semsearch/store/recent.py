"""The documents of the last searches, unpacked: reading them again is a third of what a search of long ones takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set
from dataclasses import replace

from semsearch.types import Document

__all__ = ["RecentDocuments"]

MOST_BYTES = 32_000_000
BYTES_BESIDE = 1_000  # of a document, beside its text and headings
BYTES_OF_HEADING = 150


class RecentDocuments:
    """Documents of one generation of an index, by row. For one thread at a time."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._generation = -1
        self._kept: dict[int, Document] = {}  # what was wanted last stands last

    def of(self, generation: int, rows: Set[int]) -> dict[int, Document]:
        """Those in these rows that are kept, each with metadata of its own; none of an earlier generation is."""
        if generation != self._generation:
            self._generation, self._kept, self._n_bytes = generation, {}, 0
        found = {row: self._kept.pop(row) for row in rows & self._kept.keys()}
        self._kept.update(found)
        return {row: _copied(document) for row, document in found.items()}

    def add(self, documents: Mapping[int, Document]) -> None:
        """Keep documents that were not, in place of those that nobody wanted for longest."""
        for row, document in documents.items():
            self._kept[row] = _copied(document)
            self._n_bytes += _n_bytes(document)
        while self._n_bytes > self._most_bytes:
            self._n_bytes -= _n_bytes(self._kept.pop(next(iter(self._kept))))


def _copied(document: Document) -> Document:
    """The same document; what is changed in its metadata, the one part that can be, does not show in the other."""
    return replace(document, metadata=copy.deepcopy(document.metadata))


def _n_bytes(document: Document) -> int:
    """About what it takes of memory."""
    width = 1 if document.text.isascii() else 2
    return width * len(document.text) + BYTES_OF_HEADING * len(document.outline) + BYTES_BESIDE
