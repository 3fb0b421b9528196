"""Nearest neighbours by FAISS: exact inner product over all vectors. Derived from the shards, rebuilt at will."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt, MissingExtra
from semsearch.store.files import write_atomically
from semsearch.types import FloatArray, IntArray, Neighbors

__all__ = ["FlatIndex"]


class FlatIndex:
    """An exact index (`IndexFlatIP` under an id map). Searching is safe from several threads."""

    kind = "flat"

    def __init__(self, dim: int) -> None:
        faiss = _faiss()
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))

    @classmethod
    def load(cls, path: Path, dim: int) -> FlatIndex:
        """Read a saved index.

        Raises:
            IndexCorrupt: it is damaged or of another dimension.
            FileNotFoundError: there is none.
        """
        index = cls(dim)
        data = np.fromfile(path, dtype=np.uint8)
        try:
            index._index = _faiss().deserialize_index(data)
        except RuntimeError as error:
            raise IndexCorrupt(f"{path} is damaged. Rebuild the index: semsearch index --rebuild") from error
        if index._index.d != dim:
            raise IndexCorrupt(
                f"{path} has {index._index.d} dimensions, not {dim}. Rebuild it: semsearch index --rebuild"
            )
        return index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def ids(self) -> IntArray:
        """The int64 ids it holds, in no order."""
        return np.array(_faiss().vector_to_array(self._index.id_map), dtype=np.int64)

    def remove(self, ids: IntArray) -> None:
        """Take vectors out by int64 (n,) ids."""
        if len(ids):
            self._index.remove_ids(np.ascontiguousarray(ids, dtype=np.int64))

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Add float32 (n, dim) unit rows under int64 (n,) ids that are not in it yet."""
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def search(self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None) -> Neighbors:
        """The k best of float32 (q, dim) queries, ties to the smaller id, among `allowed_ids` when given."""
        faiss = _faiss()
        found = min(k, len(self))
        if found < 1:
            missing = np.full((len(queries), k), -1, dtype=np.int64)
            return Neighbors(missing, np.full(missing.shape, -np.inf, dtype=np.float32))
        parameters = None
        if allowed_ids is not None:
            selector = faiss.IDSelectorBatch(np.ascontiguousarray(allowed_ids, dtype=np.int64))
            parameters = faiss.SearchParameters(sel=selector)
        scores, ids = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), found, params=parameters)
        scores[ids < 0] = -np.inf
        order = np.lexsort((ids, -scores), axis=1)
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        padding = ((0, 0), (0, k - found))
        return Neighbors(np.pad(ids, padding, constant_values=-1), np.pad(scores, padding, constant_values=-np.inf))

    def save(self, path: Path) -> None:
        """Write it durably."""
        data = _faiss().serialize_index(self._index)
        write_atomically(path, data.tofile)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss", "cpu") from error
    return faiss
