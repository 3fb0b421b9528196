"""The documents of the last searches, unpacked: reading them again is a third of what a search of long ones takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Set
from dataclasses import replace

from semsearch.types import Document

__all__ = ["RecentDocuments"]

MOST_BYTES = 32_000_000
MOST_SHARE = 1 / 8  # of them, for one document
BYTES_BESIDE = 1_000  # of a document, beside what is counted
BYTES_OF_HEADING = 200
BYTES_OF_PAGE = 40


class RecentDocuments:
    """Documents of one generation of an index, by row. For one thread at a time."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._generation = -1
        self._kept: dict[int, tuple[Document, str]] = {}  # and its metadata as JSON; what was wanted last stands last

    def of(self, generation: int, rows: Set[int]) -> dict[int, Document]:
        """Those in these rows that are kept, each with metadata of its own; none of an earlier generation is."""
        if generation != self._generation:
            self._generation, self._kept, self._n_bytes = generation, {}, 0
        found = {row: self._kept.pop(row) for row in rows & self._kept.keys()}
        self._kept.update(found)
        return {row: replace(document, metadata=json.loads(metadata)) for row, (document, metadata) in found.items()}

    def add(self, documents: Mapping[int, tuple[Document, str]]) -> None:
        """Keep documents that were not, with their metadata as JSON, in place of those unwanted for longest."""
        for row, (document, metadata) in documents.items():
            kept = replace(document, metadata={}), metadata
            if _n_bytes(*kept) <= MOST_SHARE * self._most_bytes:
                self._kept[row] = kept
                self._n_bytes += _n_bytes(*kept)
        while self._n_bytes > self._most_bytes:
            self._n_bytes -= _n_bytes(*self._kept.pop(next(iter(self._kept))))


def _n_bytes(document: Document, metadata: str) -> int:
    """About what a document takes of memory, its metadata being kept as JSON."""
    texts = sum(map(sys.getsizeof, (document.text, document.title, document.source, document.id, metadata)))
    return texts + BYTES_OF_HEADING * len(document.outline) + BYTES_OF_PAGE * len(document.page_starts) + BYTES_BESIDE
