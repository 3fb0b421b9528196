"""Nearest neighbours by FAISS, exactly: the inner product with every vector. Derived from the shards, rebuilt at will.

The vectors in it are f16, which halves what a search has to read, and all its time goes into reading. Scores are right
to some 1e-4; who needs them exact takes the vectors of what was found from the shards.

With faiss-gpu a large index is searched on the first GPU, from a copy of what lies in main memory. That one is what is
saved, changed, and searched where the GPU cannot: among some ids only, or for very many neighbours.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt, MissingExtra
from semsearch.store.files import write_atomically
from semsearch.types import FloatArray, IntArray, Neighbors

__all__ = ["FlatIndex", "among", "faiss_library", "read_faiss", "sorted_neighbors", "threads_for", "write_faiss"]

GPU_MAX_K = 2_048  # neighbours; what FAISS can select on a GPU
GPU_MIN_VECTORS = 100_000  # fewer take a CPU some 3 ms a query
GPU_MIN_COMPARED = 50_000_000  # vectors; they take a CPU one to two seconds, about what CUDA needs to start and to copy


class FlatIndex:
    """All vectors in f16 under an id map, compared one by one. Searching is safe from several threads.

    A process that asks little never starts the GPU, and one whose GPU has no room stays on the CPU without a word: the
    results are the same, up to the last bits of a score.
    """

    kind = "flat-f16"
    n_dead = 0  # what is removed takes no room

    def __init__(self, dim: int) -> None:
        faiss = faiss_library()
        vectors = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._index: Any = faiss.IndexIDMap(vectors)
        self._gpu = _GpuCopy()

    @classmethod
    def load(cls, path: Path, dim: int, *, to_change: bool = False) -> FlatIndex:
        """Read a saved index: mapped into memory, or a copy that may be changed.

        Raises:
            IndexCorrupt: it is damaged or of another dimension.
            FileNotFoundError: there is none.
        """
        index = cls(dim)
        index._index = read_faiss(path, dim, 0 if to_change else faiss_library().IO_FLAG_MMAP_IFC)
        return index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def ids(self) -> IntArray:
        """The int64 ids it holds, in no order."""
        return np.array(faiss_library().vector_to_array(self._index.id_map), dtype=np.int64)

    def remove(self, ids: IntArray) -> None:
        """Take vectors out by int64 (n,) ids."""
        if len(ids):
            self._gpu = _GpuCopy()
            self._index.remove_ids(np.ascontiguousarray(ids, dtype=np.int64))

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Add float32 (n, dim) unit rows under int64 (n,) ids that are not in it yet."""
        if len(ids):
            self._gpu = _GpuCopy()
            self._index.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids)

    def search(self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None) -> Neighbors:
        """The k best of float32 (q, dim) queries, ties to the smaller id, among `allowed_ids` when given."""
        n = min(k, len(self))
        if n < 1:
            return sorted_neighbors(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64), k)
        scores, ids = self._nearest(np.ascontiguousarray(queries, dtype=np.float32), n, allowed_ids)
        return sorted_neighbors(scores, ids, k)

    def save(self, path: Path) -> None:
        """Write it durably."""
        write_faiss(self._index, path)

    def _nearest(self, queries: FloatArray, k: int, allowed_ids: IntArray | None) -> tuple[FloatArray, IntArray]:
        """(scores, ids), each (q, k), best first; where fewer are allowed the rest has id -1."""
        faiss, parameters = faiss_library(), None
        if allowed_ids is not None:
            parameters = faiss.SearchParameters(sel=among(allowed_ids))
        elif k <= GPU_MAX_K and len(self) >= GPU_MIN_VECTORS and _has_gpu():
            found = self._gpu.search(self._index, queries, k)
            if found is not None:
                return found
        with threads_for(len(queries)):
            scores, ids = self._index.search(queries, k, params=parameters)
        return scores, ids


class _GpuCopy:
    """A copy of an index on the first GPU, made once enough was asked for it to pay. It does not follow changes."""

    def __init__(self) -> None:
        self._n_compared = 0
        self._resources: Any = None  # kept as long as the copy that lives on them
        self._copy: Any = None
        self._has_room = True
        self._lock = threading.Lock()  # the resources are not safe to use from several threads

    def search(self, index: Any, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray] | None:
        """(scores, ids), each (q, k), or None when it does not pay yet, or the GPU has no room."""
        faiss = faiss_library()
        with self._lock:
            self._n_compared += len(queries) * int(index.ntotal)
            if self._n_compared < GPU_MIN_COMPARED or not self._has_room:
                return None
            try:
                if self._copy is None:
                    self._resources = faiss.StandardGpuResources()
                    self._copy = faiss.index_cpu_to_gpu(self._resources, 0, _as_floats(index))
                scores, ids = self._copy.search(queries, k)
            except RuntimeError:
                self._copy = self._resources = None
                self._has_room = False
                return None
            return scores, ids


def _as_floats(index: Any) -> Any:
    """The same vectors as float32, the only kind that a GPU searches one by one."""
    faiss = faiss_library()
    copy = faiss.IndexIDMap(faiss.IndexFlatIP(index.d))
    copy.add_with_ids(index.index.reconstruct_n(0, index.ntotal), faiss.vector_to_array(index.id_map))
    return copy


def sorted_neighbors(scores: FloatArray, ids: IntArray, k: int) -> Neighbors:
    """The k best of each row of float32 and int64 (q, n), ties to the smaller id; id -1 stands for nothing."""
    scores = np.where(ids < 0, np.float32(-np.inf), scores)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    rows = np.arange(len(ids))[:, np.newaxis]
    ids, scores = ids[rows, order], scores[rows, order]
    if ids.shape[1] == k:
        return Neighbors(ids, scores)
    padding = ((0, 0), (0, k - ids.shape[1]))
    return Neighbors(np.pad(ids, padding, constant_values=-1), np.pad(scores, padding, constant_values=-np.inf))


def read_faiss(path: Path, dim: int, flags: int) -> Any:
    """An id map and what is under it, from a file.

    Raises:
        IndexCorrupt: it is damaged, of another dimension, or something else.
        FileNotFoundError: there is none.
    """
    faiss = faiss_library()
    path.stat()  # FAISS does not tell a missing file from a damaged one
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise IndexCorrupt(f"{path} is damaged. Rebuild the index: semsearch index --rebuild") from error
    if index.d != dim:
        raise IndexCorrupt(f"{path} has {index.d} dimensions, not {dim}. Rebuild it: semsearch index --rebuild")
    if type(index) is not faiss.IndexIDMap or not index.ntotal == index.index.ntotal == index.id_map.size():
        raise IndexCorrupt(f"{path} holds no index of ours. Rebuild the index: semsearch index --rebuild")
    return index


def among(allowed_ids: IntArray) -> Any:
    """FAISS's selector of int64 (n,) ids, asked in constant time."""
    allowed = np.zeros(int(allowed_ids.max(initial=0)) + 1, dtype=np.bool_)
    allowed[allowed_ids] = True
    return faiss_library().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def write_faiss(index: Any, path: Path) -> None:
    """Write an index durably, piece by piece."""
    faiss = faiss_library()
    write_atomically(path, lambda stream: faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write)))


@contextlib.contextmanager
def threads_for(n_queries: int) -> Iterator[None]:
    """Let FAISS search one query on one thread, in the caller's thread.

    To divide 50,000 vectors among two threads gains nothing on an idle machine, and where others work too, waiting for
    the second makes 20 ms of 2.
    """
    faiss = faiss_library()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if n_queries == 1 else before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _has_gpu() -> bool:
    """Whether this is faiss-gpu, which alone has this class, with a GPU to use."""
    faiss = faiss_library()
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def faiss_library() -> Any:
    """The module, imported when it is first needed.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss", "cpu") from error
    return faiss
