"""Nearest neighbours by FAISS without comparing every vector: a graph, or lists around centres.

What is kept of a vector is 8 bits a component, or 4 bits for every 4 of them. That is enough to find candidates;
`RescoredIndex` takes their scores from the shards, so those are exact and only who is among them is not certain.

Neither kind can take a vector out. One that is removed loses its id, no search returns it, and it goes for good when
the index is built anew, as it is once a fifth of it is such.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.products import each_with
from semsearch.store.ann import among, faiss_library, read_faiss, sorted_neighbors, threads_for, write_faiss
from semsearch.store.vectors import ShardReader
from semsearch.types import FloatArray, IntArray, Neighbors

__all__ = ["RECIPES", "ApproximateIndex", "Recipe", "RescoredIndex"]

HNSW_LINKS = 22  # twice as many on the ground floor, 4 bytes each: 584 bytes a vector of 384 components, with its id
HNSW_CONSTRUCTION = 80  # neighbours looked at for each vector added
POINTS_PER_LIST = 40  # vectors that each centre is found from
CLUSTERING_ROUNDS = 10
LARGEST_ID = 2**62


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a kind is built and searched.

    Attributes:
        name: kept in `meta.ann.kind`; another recipe needs another name, so that what was built by the old one is
            built anew.
        codes: what FAISS keeps of each vector, in the words of its index factory; {} are the parts of a vector.
        parameter: how widely it searches: `efSearch`, or `nprobe` where it has lists.
        values: of the parameter, ascending, among which one is chosen by measurement.
        n_rescored: candidates whose exact scores are taken, at least.
    """

    name: str
    codes: str
    parameter: str
    values: tuple[int, ...]
    n_rescored: int

    @property
    def has_lists(self) -> bool:
        """Whether vectors lie in lists, whose centres have to be learnt from many of them."""
        return self.parameter == "nprobe"

    def n_lists(self, n_vectors: int) -> int:
        """Some 4 √n, a power of two."""
        return int(2 ** np.floor(np.log2(max(4 * np.sqrt(n_vectors), 1))))

    def n_training(self, n_vectors: int) -> int:
        """Vectors that training takes."""
        return min(n_vectors, POINTS_PER_LIST * self.n_lists(n_vectors) if self.has_lists else 65_536)

    def spec(self, dim: int, n_vectors: int) -> str:
        """For FAISS's index factory."""
        codes = self.codes.format(dim // next(width for width in (4, 3, 2, 1) if dim % width == 0))
        return f"IVF{self.n_lists(n_vectors)},{codes}" if self.has_lists else f"HNSW{HNSW_LINKS},{codes}"


EF_SEARCH = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
N_PROBE = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
RECIPES = {
    "hnsw": Recipe("hnsw-sq8", "SQ8", "efSearch", EF_SEARCH, 32),
    "ivf": Recipe("ivf-sq8", "SQ8", "nprobe", N_PROBE, 32),
    "ivfpq": Recipe("ivf-pq4", "PQ{}x4fs", "nprobe", N_PROBE, 300),
}
"""By the name that a user gives a kind."""


class ApproximateIndex:
    """Vectors of one kind under an id map. Searching is safe from several threads.

    Attributes:
        value: of the kind's parameter; larger finds more and takes longer.
    """

    def __init__(self, recipe: Recipe, index: Any, value: int | None = None) -> None:
        """Use `train` or `load`."""
        self.recipe = recipe
        self.value = recipe.values[-1] if value is None else value
        self._index = index
        self._n_dead = int(np.count_nonzero(self._stored_ids() < 0))

    @classmethod
    def train(cls, recipe: Recipe, rows: FloatArray, n_vectors: int) -> ApproximateIndex:
        """An empty index for about so many vectors, trained on float32 (n, dim) unit rows taken from among them."""
        faiss = faiss_library()
        inner = faiss.index_factory(rows.shape[1], recipe.spec(rows.shape[1], n_vectors), faiss.METRIC_INNER_PRODUCT)
        if recipe.has_lists:
            inner.cp.niter = CLUSTERING_ROUNDS
            inner.cp.min_points_per_centroid = 1
            inner.cp.max_points_per_centroid = POINTS_PER_LIST
        else:
            inner.hnsw.efConstruction = HNSW_CONSTRUCTION
        inner.train(np.ascontiguousarray(rows, dtype=np.float32))
        return cls(recipe, faiss.IndexIDMap(inner))

    @classmethod
    def load(
        cls, recipe: Recipe, path: Path, dim: int, value: int | None = None, *, to_change: bool = False
    ) -> ApproximateIndex:
        """Read a saved index: mapped into memory as far as FAISS can, or a copy that may be changed.

        Raises:
            IndexCorrupt: it is damaged, or of another kind or dimension.
            FileNotFoundError: there is none.
        """
        faiss = faiss_library()
        # Lists of whole codes are mapped by the one way, graphs and packed lists by the other.
        mapped = faiss.IO_FLAG_MMAP if recipe.name == "ivf-sq8" else faiss.IO_FLAG_MMAP_IFC
        index = read_faiss(path, dim, 0 if to_change else mapped)
        if not _is_sound(index.index, faiss.index_factory(dim, recipe.spec(dim, 1), faiss.METRIC_INNER_PRODUCT)):
            raise IndexCorrupt(f"{path} holds no {recipe.name} index. Rebuild the index: semsearch index --rebuild")
        return cls(recipe, index, value)

    @property
    def kind(self) -> str:
        """As kept in `meta.ann`."""
        return self.recipe.name

    @property
    def n_dead(self) -> int:
        """Vectors that were removed and still take room."""
        return self._n_dead

    def __len__(self) -> int:
        return int(self._index.ntotal) - self._n_dead

    @property
    def ids(self) -> IntArray:
        """The int64 ids it holds, in no order."""
        stored = self._stored_ids()
        return stored[stored >= 0].astype(np.int64)

    def remove(self, ids: IntArray) -> None:
        """Let no search find int64 (n,) ids any more."""
        faiss = faiss_library()
        stored = faiss.rev_swig_ptr(self._index.id_map.data(), int(self._index.ntotal))
        doomed = np.isin(stored, ids)
        stored[doomed] = -1
        self._n_dead += int(np.count_nonzero(doomed))

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Add float32 (n, dim) unit rows under int64 (n,) ids that are not in it yet."""
        if len(ids):
            rows = np.ascontiguousarray(vectors, dtype=np.float32)
            self._index.add_with_ids(rows, np.ascontiguousarray(ids, dtype=np.int64))

    def search(self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None) -> Neighbors:
        """Some k near float32 (q, dim) queries, best first by approximate scores, among `allowed_ids` when given."""
        return sorted_neighbors(*self.candidates(queries, k, allowed_ids), k)

    def candidates(
        self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None
    ) -> tuple[FloatArray, IntArray]:
        """As `search`, in no order: approximate scores and ids, each (q, n), where n is k or all; -1 for nothing."""
        n_allowed = len(self) if allowed_ids is None else len(allowed_ids)
        n = min(k, len(self), n_allowed)
        if n < 1:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        rows = np.ascontiguousarray(queries, dtype=np.float32)
        with threads_for(len(rows)):
            scores, ids = self._index.search(rows, n, params=self._parameters(n, allowed_ids))
        return scores, ids

    def save(self, path: Path) -> None:
        """Write it durably."""
        write_faiss(self._index, path)

    def _stored_ids(self) -> IntArray:
        """One a vector, -1 for those removed."""
        return np.asarray(faiss_library().vector_to_array(self._index.id_map), dtype=np.int64)

    def _parameters(self, n: int, allowed_ids: IntArray | None) -> Any:
        """For a search for n: as wide as was chosen, or as n needs, and wider as fewer of what is met are allowed."""
        faiss, options, wider = faiss_library(), {}, 1.0
        if allowed_ids is not None:
            options["sel"] = among(allowed_ids)
            wider = max(len(self) / len(allowed_ids), 1.0)
        elif self._n_dead:
            options["sel"] = faiss.IDSelectorRange(0, LARGEST_ID)
        if not self.recipe.has_lists:
            return faiss.SearchParametersHNSW(efSearch=math.ceil(wider * max(self.value, n)), **options)
        n_lists = faiss.downcast_index(self._index.index).nlist
        width = math.ceil(wider * max(self.value, 2 * n * n_lists / self._index.ntotal))
        return faiss.SearchParametersIVF(nprobe=min(width, n_lists), **options)


class RescoredIndex:
    """The vectors an index finds, with their exact scores and ranked by them. As safe to use as what it is made of."""

    def __init__(self, index: ApproximateIndex, vectors: ShardReader) -> None:
        """Take candidates from `index`, and their rows from `vectors`."""
        self._index = index
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._index)

    @property
    def ids(self) -> IntArray:
        """The int64 ids it holds, in no order."""
        return self._index.ids

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """As `VectorIndex.add`; the shards have to hold the rows too."""
        self._index.add(ids, vectors)

    def search(self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None) -> Neighbors:
        """The k best that were found for float32 (q, dim) queries, ties to the smaller id.

        Raises:
            IndexCorrupt: what was found has no vector.
        """
        _, ids = self._index.candidates(queries, max(k, self._index.recipe.n_rescored), allowed_ids)
        scores = np.full(ids.shape, -np.inf, dtype=np.float32)
        ids.sort()  # as they lie in the shards
        for row, query in enumerate(queries):
            found = ids[row] >= 0
            scores[row, found] = each_with(self._vectors.get(ids[row, found]), query)
        return sorted_neighbors(scores, ids, k)


def _is_sound(index: Any, like: Any) -> bool:
    """Whether an index read from a file is of the same kind as another, and its parts fit each other."""
    faiss = faiss_library()
    index = faiss.downcast_index(index)
    if type(index) is not type(like) or not index.is_trained or index.metric_type != like.metric_type:
        return False
    if hasattr(index, "storage"):
        codes, expected = faiss.downcast_index(index.storage), faiss.downcast_index(like.storage)
        graph, n = index.hnsw, index.ntotal
        fits = codes.ntotal == graph.levels.size() == graph.offsets.size() - 1 == n
        return fits and type(codes) is type(expected) and codes.code_size == expected.code_size
    lists = index.invlists
    fits = lists.nlist == index.nlist == index.quantizer.ntotal and lists.compute_ntotal() == index.ntotal
    return bool(fits and index.code_size == like.code_size)
