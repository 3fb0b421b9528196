"""What is kept beside SQLite and follows from it: vector shards, the FAISS index, the lexical index."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsearch.store.lexical import LexicalEntry, LexicalWriter
from semsearch.store.nearest import SAMPLE_SIZE, SearchKind, bring_up_to_date
from semsearch.store.vectors import ShardReader, remove_unnamed, write_shard
from semsearch.types import FloatArray, IntArray

if TYPE_CHECKING:
    from sqlite_utils import Database

__all__ = ["Derived", "add_shard"]

MAX_SHARD_ROWS = 65_536
MAX_SHARDS_TO_JOIN = 8  # more shards that are not full than this are written anew as full ones
MAX_DEAD_SHARE = 0.2  # more vectors than this without a chunk, and the shards are written anew without them
LEXICAL_BATCH = 5_000  # entries read from SQLite at a time


def add_shard(path: Path, db: Database, ids: IntArray, rows: FloatArray, fingerprint: str) -> None:
    """Write a shard and name it in the transaction under way: int64 (n,) ascending ids, float32 (n, dim) rows."""
    last = db.execute("SELECT coalesce(max(name), '-1') FROM shards").fetchone()[0]
    name = f"{int(last) + 1:06d}"
    write_shard(path / "vectors", name, ids, np.ascontiguousarray(rows, dtype=np.float32))
    db.table("shards").insert({"name": name, "n_rows": len(ids), "fingerprint": fingerprint})


class Derived:
    """Brings the derived files of an index under its writer's lock up to what SQLite holds."""

    def __init__(self, path: Path, db: Database) -> None:
        self.path = path
        self.db = db

    @contextlib.contextmanager
    def lexical(self) -> Iterator[LexicalWriter]:
        """The lexical index with the staged chunks added, or all chunks where it was lost; not yet committed."""
        writer = LexicalWriter(self.path / "lexical")
        try:
            visible = "SELECT count(*) FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
            lost = writer.n_entries < self.db.execute(visible).fetchone()[0]
            sql = (
                "SELECT c.id, c.text, d.title, c.heading, d.key FROM documents d JOIN chunks c ON c.document_id = d.id "
                f"WHERE c.id > ? {'' if lost else 'AND d.visible = 0'} ORDER BY c.id LIMIT {LEXICAL_BATCH}"
            )
            last = 0
            while rows := self.db.execute(sql, [last]).fetchall():
                writer.add(
                    LexicalEntry(chunk_id, text, f"{title}\n{heading}\n{Path(key).name}")
                    for chunk_id, text, title, heading, key in rows
                )
                last = rows[-1][0]
            yield writer
        finally:
            writer.close()

    def save_ann(
        self,
        model: Mapping[str, Any],
        meta: Mapping[str, Any],
        wanted: SearchKind,
        encode: Callable[[list[str]], FloatArray] | None,
    ) -> dict[str, Any]:
        """Bring the FAISS index to the vectors that chunks have now, and say which file it is.

        `encode` makes vectors of queries, float32 (n, dim), from passages; on those recall is measured.
        """
        live = np.array(self.db.execute("SELECT DISTINCT vector_id FROM chunks").fetchall(), dtype=np.int64).ravel()
        live.sort()
        before: dict[str, Any] = meta.get("ann") or {}
        if before and meta["model"]["fingerprint"] != model["fingerprint"]:
            before = {}
        name = f"ann-{meta.get('generation', 0) + 1:06d}.faiss"
        vectors = self._shards(model["fingerprint"], model["dim"])
        sample = None if encode is None else lambda: encode(self._some_passages(live))
        return bring_up_to_date(self.path, name, live, vectors, before, wanted, sample)

    def _some_passages(self, live: IntArray) -> list[str]:
        """Texts of chunks with some of these vectors, drawn the same way every time."""
        chosen = np.random.default_rng(0).choice(live, min(SAMPLE_SIZE, len(live)), replace=False)
        sql = "SELECT text FROM chunks WHERE vector_id = ? LIMIT 1"
        return [self.db.execute(sql, [int(i)]).fetchone()[0] for i in chosen]

    def compact_shards(self, fingerprint: str, *, keep_dead: bool) -> None:
        """Drop vectors that no chunk has, unless they are to be kept, and join small shards, once it is worth it."""
        with self.db.atomic():
            rows = self.db.execute("SELECT name, n_rows, fingerprint FROM shards ORDER BY name").fetchall()
            n_live = int(self.db.execute("SELECT count(DISTINCT vector_id) FROM chunks").fetchone()[0])
            n_all = sum(n for _, n, _ in rows)
            foreign = any(other != fingerprint for _, _, other in rows)
            drop_dead = not keep_dead and (foreign or n_all - n_live > MAX_DEAD_SHARE * n_all)
            small = [name for name, n, _ in rows if n < MAX_SHARD_ROWS]
            if not drop_dead and len(small) <= MAX_SHARDS_TO_JOIN:
                return
            # Ids ascend from shard to shard, so all shards from the first small one on are written anew.
            chosen = [name for name, _, other in rows if other == fingerprint and (drop_dead or name >= small[0])]
            self._rewrite(chosen, fingerprint, drop_dead=drop_dead)
            if drop_dead:
                self.db.execute("DELETE FROM shards WHERE fingerprint != ?", [fingerprint])
                self.db.execute("DELETE FROM vectors WHERE id NOT IN (SELECT vector_id FROM chunks)")

    def remove_leftover_files(self, ann: Mapping[str, Any] | None) -> None:
        """Delete files that nothing names any more."""
        remove_unnamed(self.path / "vectors", (row[0] for row in self.db.execute("SELECT name FROM shards").fetchall()))
        for path in self.path.glob("ann-*.faiss*"):
            if not ann or path.name != ann["file"]:
                path.unlink(missing_ok=True)

    def _rewrite(self, names: list[str], fingerprint: str, *, drop_dead: bool) -> None:
        dim = self._dim(names)
        if dim is None:
            return
        reader = ShardReader(self.path / "vectors", names, dim)
        ids = reader.ids
        if drop_dead:
            live = np.array(self.db.execute("SELECT DISTINCT vector_id FROM chunks").fetchall(), dtype=np.int64)
            ids = ids[np.isin(ids, live.ravel())]
        for first in range(0, len(ids), MAX_SHARD_ROWS):
            part = ids[first : first + MAX_SHARD_ROWS]
            add_shard(self.path, self.db, part, reader.get(part), fingerprint)
        self.db.conn.executemany("DELETE FROM shards WHERE name = ?", [(name,) for name in names])

    def _dim(self, names: list[str]) -> int | None:
        if not names:
            return None
        return int(np.load(self.path / "vectors" / f"{names[0]}.npy", mmap_mode="r", allow_pickle=False).shape[1])

    def _shards(self, fingerprint: str, dim: int) -> ShardReader:
        names = self.db.execute("SELECT name FROM shards WHERE fingerprint = ? ORDER BY name", [fingerprint]).fetchall()
        return ShardReader(self.path / "vectors", [row[0] for row in names], dim)
