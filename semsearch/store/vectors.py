"""Vector shards: append-only, float32 rows in `000000.npy`, their int64 ids in `000000.ids.npy`.

`000000.sums.npy` holds a uint64 checksum of each row with its id.
Ids ascend within a shard and from shard to shard, so that a row is found by bisection. A shard is part of the index
only once SQLite names it. A row is compared with its checksum whenever it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.ann import faiss_library, threads_for
from semsearch.store.checksums import SumArray, checksum_rows
from semsearch.store.files import command, write_atomically
from semsearch.store.positions import Positions
from semsearch.types import FloatArray, IntArray

__all__ = ["ShardReader", "remove_unnamed", "shard_files", "unreadable_shards", "write_shard", "write_sums"]

BLOCK = 512  # rows that are compared with their checksums at a time, in the processor's cache
_SHARD_FILE = re.compile(r"\d{6,}(\.ids|\.sums)?\.npy(\.tmp)?")
_SUFFIXES = (".npy", ".ids.npy", ".sums.npy")


def shard_files(name: str) -> list[str]:
    """The names of a shard's files."""
    return [f"{name}{suffix}" for suffix in _SUFFIXES]


def write_shard(folder: Path, name: str, ids: IntArray, vectors: FloatArray) -> None:
    """Write one shard durably: int64 (n,) ascending ids and float32 (n, dim) unit rows."""
    folder.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder / f"{name}.npy", lambda stream: np.save(stream, vectors, allow_pickle=False))
    write_atomically(folder / f"{name}.ids.npy", lambda stream: np.save(stream, ids, allow_pickle=False))
    write_sums(folder, name, checksum_rows(ids, vectors))


def write_sums(folder: Path, name: str, sums: SumArray) -> None:
    """Write the checksums of a shard durably: uint64 (n,)."""
    write_atomically(folder / f"{name}.sums.npy", lambda stream: np.save(stream, sums, allow_pickle=False))


def remove_unnamed(folder: Path, names: Iterable[str]) -> None:
    """Delete the files of all other shards, as a run that was cut off leaves them; no file of another kind."""
    kept = {file for name in names for file in shard_files(name)}
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in kept and _SHARD_FILE.fullmatch(path.name):
                path.unlink(missing_ok=True)


def unreadable_shards(folder: Path, names: Iterable[str], dim: int) -> list[str]:
    """Those of these shards whose files are missing or do not hold what they should."""
    damaged = []
    for name in names:
        try:
            _open(folder, name, dim)
        except (IndexCorrupt, FileNotFoundError):
            damaged.append(name)
    return damaged


class ShardReader:
    """The vectors of some shards, memory-mapped. Safe to use from several threads."""

    def __init__(self, folder: Path, names: Sequence[str], dim: int) -> None:
        """Open shards in ascending order of their ids.

        Raises:
            IndexCorrupt: a shard is missing or does not hold what it should.
        """
        self.dim = dim
        self._folder = folder
        shards = [_open(folder, name, dim) for name in names]
        self._rows = [rows for _, rows, _ in shards]
        self._first = np.cumsum([0, *map(len, self._rows)])
        self.ids: IntArray = np.concatenate([np.empty(0, dtype=np.int64), *(ids for ids, _, _ in shards)])
        self._sums: SumArray = np.concatenate([np.empty(0, dtype=np.uint64), *(sums for _, _, sums in shards)])
        if np.any(np.diff(self.ids) <= 0):
            raise IndexCorrupt(f"the vector ids in {folder} do not ascend. Mend it with: {_mending(folder)}")
        self._places = Positions(self.ids)
        self._is_known = np.zeros(len(self.ids), dtype=np.bool_)  # which were compared with their checksums

    def __len__(self) -> int:
        return len(self.ids)

    def get(self, ids: IntArray) -> FloatArray:
        """float32 (n, dim) rows of int64 (n,) ids, in their order.

        Raises:
            IndexCorrupt: an id has no vector, or one that is not what was written.
        """
        positions = self._positions(ids)
        order = np.argsort(positions, kind="stable")
        positions = positions[order]
        rows = np.empty((len(positions), self.dim), dtype=np.float32)
        for vectors, at, part in self._parts(positions):
            vectors.take(at, 0, rows[part], "clip")  # other modes copy once more
        damaged = checksum_rows(self.ids[positions], rows) != self._sums[positions]
        if damaged.any():
            raise IndexCorrupt(
                f"{np.count_nonzero(damaged)} vectors in {self._folder} are damaged. Mend it with: "
                f"{_mending(self._folder)}"
            )
        if np.any(order[1:] < order[:-1]):
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            rows = rows[back]
        return rows

    def products(self, ids: IntArray, vector: FloatArray) -> FloatArray:
        """float32 (n,) inner products of the rows of int64 (n,) ascending ids and one (dim,) vector.

        A row is compared with its checksum when it is multiplied for the first time, and not again: what is shown of
        them has to be read by `get`. It is multiplied where it lies, in half the time of copying it first.

        Raises:
            IndexCorrupt: an id has no vector, or one that is not what was written.
        """
        positions = self._positions(ids)
        new = self.ids[positions[~self._is_known[positions]]]
        for first in range(0, len(new), BLOCK):
            self.get(new[first : first + BLOCK])
        self._is_known[positions] = True
        faiss, found = faiss_library(), np.empty(len(positions), dtype=np.float32)
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        with threads_for(1):
            for rows, at, part in self._parts(positions):
                given = (found[part], vector, np.ascontiguousarray(rows), at)
                faiss.fvec_inner_products_by_idx(*map(faiss.swig_ptr, given), self.dim, 1, len(at))
        found[np.isnan(found)] = np.inf  # damaged since: it comes first, and is read by `get`
        return found

    def _parts(self, positions: IntArray) -> Iterator[tuple[FloatArray, IntArray, slice]]:
        """Of ascending positions, by shard: its rows, places among these, and which of the positions they are."""
        bounds = np.searchsorted(positions, self._first).tolist()
        for rows, first, start, end in zip(self._rows, self._first.tolist(), bounds, bounds[1:], strict=False):
            if start < end:
                yield rows, positions[start:end] - first, slice(start, end)

    def _positions(self, ids: IntArray) -> IntArray:
        """Of the rows with these ids, among all; IndexCorrupt where one is missing."""
        positions, is_there = self._places.find(ids)
        if not is_there.all():
            missing = np.count_nonzero(~is_there)
            raise IndexCorrupt(f"{missing} chunks have no vector. Mend it with: {_mending(self._folder)}")
        return positions


def _open(folder: Path, name: str, dim: int) -> tuple[IntArray, FloatArray, SumArray]:
    try:  # mapped, so that a damaged header cannot ask for more memory than the file has bytes
        rows, ids, sums = (np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in shard_files(name))
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy's parser of headers lets errors of several kinds through
        raise IndexCorrupt(
            f"the vector shard {folder / name}.npy cannot be read ({error}). Mend it with: {_mending(folder)}"
        ) from error
    shapes = (ids.dtype, ids.ndim, rows.dtype, sums.dtype, sums.shape)
    if shapes != (np.int64, 1, np.float32, np.uint64, ids.shape) or rows.shape != (len(ids), dim):
        raise IndexCorrupt(
            f"the vector shard {folder / name}.npy holds {rows.dtype} {rows.shape}, not float32 ({len(ids)}, {dim}). "
            f"Mend it with: {_mending(folder)}"
        )
    return ids.view(np.ndarray), rows.view(np.ndarray), sums.view(np.ndarray)


def _mending(folder: Path) -> str:
    return command("verify --repair", folder.parent)
