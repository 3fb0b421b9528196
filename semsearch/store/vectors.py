"""Vector shards: append-only pairs of files, `000000.npy` (float32 rows) and `000000.ids.npy` (their int64 ids).

Ids ascend within a shard and from shard to shard, so that a row is found by bisection. A shard is part of the index
only once SQLite names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.files import write_atomically
from semsearch.types import FloatArray, IntArray

__all__ = ["ShardReader", "remove_unnamed", "unreadable_shards", "write_shard"]

_SHARD_FILE = re.compile(r"\d{6,}(\.ids)?\.npy(\.tmp)?")


def write_shard(folder: Path, name: str, ids: IntArray, vectors: FloatArray) -> None:
    """Write one shard durably: int64 (n,) ascending ids and float32 (n, dim) unit rows."""
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{name}.npy", lambda stream: np.save(stream, vectors, allow_pickle=False))
    write_atomically(folder / f"{name}.ids.npy", lambda stream: np.save(stream, ids, allow_pickle=False))


def remove_unnamed(folder: Path, names: Iterable[str]) -> None:
    """Delete the files of all other shards, as a run that was cut off leaves them; no file of another kind."""
    kept = {f"{name}{suffix}" for name in names for suffix in (".npy", ".ids.npy")}
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
        self._shards = [_open(folder, name, dim) for name in names]
        ids = [shard[0] for shard in self._shards]
        self.ids: IntArray = np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)
        if np.any(np.diff(self.ids) <= 0):
            raise IndexCorrupt(
                f"the vector ids in {folder} do not ascend. Rebuild the index: semsearch index --rebuild"
            )
        self._first = np.cumsum([0, *(len(i) for i in ids)])

    def __len__(self) -> int:
        return len(self.ids)

    def get(self, ids: IntArray) -> FloatArray:
        """float32 (n, dim) rows of int64 (n,) ids, in their order.

        Raises:
            IndexCorrupt: an id has no vector.
        """
        positions = np.searchsorted(self.ids, ids)
        found = positions < len(self.ids)
        found[found] = self.ids[positions[found]] == ids[found]
        if not found.all():
            missing = np.asarray(ids)[~found]
            raise IndexCorrupt(f"{len(missing)} chunks have no vector. Rebuild the index: semsearch index --rebuild")
        rows = np.empty((len(positions), self.dim), dtype=np.float32)
        which = np.searchsorted(self._first, positions, side="right") - 1
        for shard in np.unique(which):
            mask = which == shard
            rows[mask] = self._shards[shard][1][positions[mask] - self._first[shard]]
        return rows


def _open(folder: Path, name: str, dim: int) -> tuple[IntArray, FloatArray]:
    try:
        ids = np.load(folder / f"{name}.ids.npy", allow_pickle=False)
        rows = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise IndexCorrupt(
            f"the vector shard {folder / name}.npy cannot be read ({error}). Rebuild: semsearch index --rebuild"
        ) from error
    if ids.dtype != np.int64 or rows.dtype != np.float32 or rows.shape != (len(ids), dim):
        raise IndexCorrupt(
            f"the vector shard {folder / name}.npy holds {rows.dtype} {rows.shape}, not float32 ({len(ids)}, {dim}). "
            "Rebuild the index: semsearch index --rebuild"
        )
    return ids, rows
