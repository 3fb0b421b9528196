"""Vector shards: append-only, float32 rows in `000000.npy`, their int64 ids in `000000.ids.npy`.

`000000.sums.npy` holds a uint64 checksum of each row with its id.
Ids ascend within a shard and from shard to shard, so that a row is found by bisection. A shard is part of the index
only once SQLite names it. A row is compared with its checksum whenever it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.products import each_with
from semsearch.store.checksums import SumArray, checksum_rows
from semsearch.store.files import command, write_atomically
from semsearch.types import FloatArray, IntArray

__all__ = ["ShardReader", "remove_unnamed", "shard_files", "unreadable_shards", "write_shard", "write_sums"]

BLOCK = 512  # rows that are multiplied at a time, from the processor's cache
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
        self._shards = [_open(folder, name, dim) for name in names]
        ids = [shard[0] for shard in self._shards]
        self.ids: IntArray = np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)
        if np.any(np.diff(self.ids) <= 0):
            raise IndexCorrupt(f"the vector ids in {folder} do not ascend. Mend it with: {_mending(folder)}")
        self._first = np.cumsum([0, *(len(i) for i in ids)])
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
        sums = np.empty(len(positions), dtype=np.uint64)
        bounds = np.searchsorted(positions, self._first).tolist()
        for first, start, end, (_, vectors, checksums) in zip(
            self._first.tolist(), bounds, bounds[1:], self._shards, strict=False
        ):
            if start < end:
                at = positions[start:end] - first
                np.take(vectors, at, axis=0, out=rows[start:end], mode="clip")  # other modes copy once more
                np.take(checksums, at, out=sums[start:end], mode="clip")
        self._compare(np.asarray(ids)[order], rows, sums)
        if np.any(order[1:] < order[:-1]):
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            rows = rows[back]
        return rows

    def products(self, ids: IntArray, vector: FloatArray) -> FloatArray:
        """float32 (n,) inner products of the rows of int64 (n,) ascending ids and one (dim,) vector.

        A row is compared with its checksum when it is multiplied for the first time, which takes twice as long as
        multiplying it, and not again: what is shown of them has to be read by `get`.

        Raises:
            IndexCorrupt: an id has no vector, or one that is not what was written.
        """
        positions = self._positions(ids)
        bounds = np.searchsorted(positions, self._first).tolist()
        found = np.empty(len(positions), dtype=np.float32)
        buffer = np.empty((min(len(positions), BLOCK), self.dim), dtype=np.float32)
        for first, start, end, (_, vectors, sums) in zip(
            self._first.tolist(), bounds, bounds[1:], self._shards, strict=False
        ):
            for at in range(start, end, BLOCK):
                part = positions[at : min(at + BLOCK, end)]
                rows = np.take(vectors, part - first, axis=0, out=buffer[: len(part)], mode="clip")
                new = ~self._is_known[part]
                if new.any():
                    self._compare(self.ids[part[new]], rows[new], sums[part[new] - first])
                    self._is_known[part] = True
                found[at : at + len(part)] = each_with(rows, vector)
        found[np.isnan(found)] = np.inf  # damaged since: it comes first, and is read by `get`
        return found

    def _compare(self, ids: IntArray, rows: FloatArray, sums: SumArray) -> None:
        """Raise IndexCorrupt where these rows are not what was written under these ids."""
        damaged = checksum_rows(ids, rows) != sums
        if damaged.any():
            raise IndexCorrupt(
                f"{np.count_nonzero(damaged)} vectors in {self._folder} are damaged. Mend it with: "
                f"{_mending(self._folder)}"
            )

    def _positions(self, ids: IntArray) -> IntArray:
        """Of the rows with these ids, among all; IndexCorrupt where one is missing."""
        n = len(self.ids)
        positions = np.clip(ids - self.ids[0], 0, n - 1) if n else ids  # its place, where no id was left out before it
        if not n or not np.array_equal(self.ids[positions], ids):
            positions = np.searchsorted(self.ids, ids)
        found = positions < len(self.ids)
        found[found] = self.ids[positions[found]] == ids[found]
        if not found.all():
            missing = np.asarray(ids)[~found]
            raise IndexCorrupt(f"{len(missing)} chunks have no vector. Mend it with: {_mending(self._folder)}")
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
    return np.array(ids), rows.view(np.ndarray), sums.view(np.ndarray)


def _mending(folder: Path) -> str:
    return command("verify --repair", folder.parent)
