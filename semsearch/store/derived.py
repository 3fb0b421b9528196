"""What is kept beside SQLite and follows from it: vector shards, the FAISS index, the lexical index.

SQLite knows a checksum of each of these files, from the transaction that names them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsearch.store.checksums import checksum_file
from semsearch.store.files import sync_folder
from semsearch.store.lexical import LexicalEntry, LexicalWriter
from semsearch.store.nearest import SAMPLE_SIZE, SearchKind, bring_up_to_date
from semsearch.store.vectors import ShardReader, remove_unnamed, shard_files, write_shard
from semsearch.types import FloatArray, IntArray

if TYPE_CHECKING:
    from sqlite_utils import Database

__all__ = ["LEXICAL", "Changes", "Derived", "add_shard", "first_damage", "record_checksums"]

MAX_SHARD_ROWS = 65_536
MAX_SHARDS_TO_JOIN = 8  # more shards that are not full than this are written anew as full ones
MAX_DEAD_SHARE = 0.2  # more vectors than this without a chunk, and the shards are written anew without them
GONE = ".gone"  # end of the name of a folder that is being deleted
LEXICAL = "lexical"  # folder of the lexical index, followed by the generation that made it


def add_shard(path: Path, db: Database, ids: IntArray, rows: FloatArray, fingerprint: str) -> None:
    """Write a shard and name it in the transaction under way: int64 (n,) ascending ids, float32 (n, dim) rows."""
    last = db.execute("SELECT coalesce(max(name), '-1') FROM shards").fetchone()[0]
    name = f"{int(last) + 1:06d}"
    write_shard(path / "vectors", name, ids, np.ascontiguousarray(rows, dtype=np.float32))
    db.table("shards").insert({"name": name, "n_rows": len(ids), "fingerprint": fingerprint})
    record_checksums(path, db, [f"vectors/{file}" for file in shard_files(name)])


def record_checksums(path: Path, db: Database, files: Iterable[str]) -> None:
    """Note what these files, by paths in the index, are like now, in the transaction under way if there is one."""
    rows = [(file, *checksum_file(path / file)) for file in files]
    db.conn.executemany("INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)", rows)


def first_damage(path: Path, known: Mapping[str, tuple[int, bytes]]) -> str | None:
    """The first of these files, by paths in the index, that has not this size and checksum; None if all have.

    Raises:
        FileNotFoundError: one is not there.
    """
    for file, expected in known.items():
        if (path / file).stat().st_size != expected[0] or checksum_file(path / file) != expected:
            return file
    return None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new state has and the one before had not: documents that are `staged`; and chunks that are `dropped`."""

    staged: Sequence[int]
    dropped: Sequence[int]


class Derived:
    """Brings the derived files of an index under its writer's lock up to what SQLite holds."""

    def __init__(self, path: Path, db: Database) -> None:
        self.path = path
        self.db = db

    def save_lexical(self, meta: Mapping[str, Any], changes: Changes, *, is_sound: bool) -> str:
        """Bring the lexical index to the chunks that are visible now, and say which folder it is.

        `meta` is that of the state before, whose lexical index is not used unless it `is_sound`.
        """
        staged, dropped = changes.staged, changes.dropped
        n_visible = int(self.db.execute("SELECT count(*) FROM chunks").fetchone()[0])
        n_staged = sum(n for _, n in self._chunks_of(staged))
        base = self.path / str(meta.get("lexical", LEXICAL))
        if is_sound and not n_staged and not dropped:
            return base.name
        folder = self.path / f"{LEXICAL}-{meta.get('generation', 0) + 1:06d}"
        writer = LexicalWriter(folder, base if is_sound else None)
        is_lost = writer.n_entries != n_visible - n_staged + len(dropped)  # or holds something else
        is_all_dropped = 0 < writer.n_entries == len(dropped)  # a deletion takes a kilobyte of memory until the commit
        if is_lost or is_all_dropped:
            writer.close()
            writer = LexicalWriter(folder)
            staged, dropped = [row[0] for row in self.db.execute("SELECT id FROM documents").fetchall()], []
        try:
            writer.delete(dropped)
            for document_id, _ in self._chunks_of(staged):
                writer.add(self._entries(document_id))
            writer.commit()
        finally:
            writer.close()
        sync_folder(self.path)
        return folder.name

    def _chunks_of(self, documents: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(document, number of its chunks) of those that have any."""
        for document_id in documents:
            n = self.db.execute("SELECT count(*) FROM chunks WHERE document_id = ?", [document_id]).fetchone()[0]
            if n:
                yield document_id, int(n)

    def _entries(self, document_id: int) -> Iterator[LexicalEntry]:
        sql = (
            "SELECT c.id, c.text, d.title, c.heading, d.key FROM documents d JOIN chunks c ON c.document_id = d.id "
            "WHERE d.id = ? ORDER BY c.id"
        )
        for chunk_id, text, title, heading, key in self.db.execute(sql, [document_id]):
            yield LexicalEntry(chunk_id, text, f"{title}\n{heading}\n{Path(key).name}")

    def is_sound(self, part: str) -> bool:
        """Whether a file of the index, or all files of a folder in it, are there and as they were written."""
        sql = "SELECT path, size, checksum FROM checksums WHERE path = ? OR path GLOB ?"
        rows = self.db.execute(sql, [part, f"{part}/*"]).fetchall()
        try:
            return bool(rows) and first_damage(self.path, {row[0]: (row[1], row[2]) for row in rows}) is None
        except FileNotFoundError:
            return False

    def renew(
        self,
        model: Mapping[str, Any] | None,
        meta: Mapping[str, Any],
        changes: Changes,
        wanted: SearchKind,
        encode: Callable[[list[str]], FloatArray] | None,
    ) -> tuple[str, dict[str, Any] | None]:
        """`save_lexical` and `save_ann`, with nothing taken over that is damaged, and their checksums."""
        words, ann = str(meta.get("lexical", LEXICAL)), (meta.get("ann") or {}).get("file")
        if ann and not self.is_sound(ann):
            (self.path / ann).unlink(missing_ok=True)  # one of its kind is made anew
        lexical = self.save_lexical(meta, changes, is_sound=self.is_sound(words))
        saved = self.save_ann(model, meta, wanted, encode) if model else None
        if lexical != words:
            self.record_lexical(lexical)
        if saved is None or saved["file"] != ann:
            self.record_ann(saved)
        return lexical, saved

    def record_lexical(self, name: str) -> None:
        """Note what the files of the lexical index are like."""
        files = list((self.path / name).iterdir())
        (self.path / name).chmod(0o700)
        for file in files:
            file.chmod(0o600)  # tantivy would let others read them
        self.forget_lexical()
        record_checksums(self.path, self.db, (f"{name}/{file.name}" for file in files if file.suffix != ".lock"))

    def forget_lexical(self) -> None:
        """Have it made anew."""
        self.db.execute("DELETE FROM checksums WHERE path GLOB ?", [f"{LEXICAL}*/*"])

    def record_ann(self, ann: Mapping[str, Any] | None) -> None:
        """Note what the FAISS file is like."""
        self.db.execute("DELETE FROM checksums WHERE path GLOB 'ann-*'")
        if ann:
            record_checksums(self.path, self.db, [ann["file"]])

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

    def compact_shards(self, fingerprint: str, *, keep_dead: bool) -> bool:
        """Drop vectors that no chunk has, unless they are to be kept, and join small shards, once it is worth it.

        Tells whether vectors were dropped.
        """
        with self.db.atomic():
            rows = self.db.execute("SELECT name, n_rows, fingerprint FROM shards ORDER BY name").fetchall()
            n_live = int(self.db.execute("SELECT count(DISTINCT vector_id) FROM chunks").fetchone()[0])
            n_all = sum(n for _, n, _ in rows)
            foreign = any(other != fingerprint for _, _, other in rows)
            drop_dead = not keep_dead and (foreign or n_all - n_live > MAX_DEAD_SHARE * n_all)
            small = [name for name, n, _ in rows if n < MAX_SHARD_ROWS]
            if not drop_dead and len(small) <= MAX_SHARDS_TO_JOIN:
                return False
            # Ids ascend from shard to shard, so all shards from the first small one on are written anew.
            chosen = [name for name, _, other in rows if other == fingerprint and (drop_dead or name >= small[0])]
            self._rewrite(chosen, fingerprint, drop_dead=drop_dead)
            if drop_dead:
                self.drop_shards([name for name, _, other in rows if other != fingerprint])
                self.db.execute("DELETE FROM vectors WHERE id NOT IN (SELECT vector_id FROM chunks)")
            return drop_dead

    def remove_leftover_files(self, ann: Mapping[str, Any] | None, lexical: str) -> None:
        """Delete files that nothing names any more."""
        remove_unnamed(self.path / "vectors", (row[0] for row in self.db.execute("SELECT name FROM shards").fetchall()))
        for path in self.path.glob("ann-*.faiss*"):
            if not ann or path.name != ann["file"]:
                path.unlink(missing_ok=True)
        for path in self.path.glob(f"{LEXICAL}*"):
            if path.name != lexical:  # whole or gone to a reader that is just opening it
                gone = path if path.suffix == GONE else path.with_name(f"{path.name}{GONE}")
                if path != gone:
                    shutil.rmtree(gone, ignore_errors=True)
                    path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

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
        self.drop_shards(names)

    def drop_shards(self, names: Sequence[str]) -> None:
        """Take shards out of the index, in the transaction under way; their files go when nobody names them."""
        self.db.conn.executemany("DELETE FROM shards WHERE name = ?", [(name,) for name in names])
        files = [(f"vectors/{file}",) for name in names for file in shard_files(name)]
        self.db.conn.executemany("DELETE FROM checksums WHERE path = ?", files)

    def _dim(self, names: list[str]) -> int | None:
        if not names:
            return None
        return int(np.load(self.path / "vectors" / f"{names[0]}.npy", mmap_mode="r", allow_pickle=False).shape[1])

    def _shards(self, fingerprint: str, dim: int) -> ShardReader:
        names = self.db.execute("SELECT name FROM shards WHERE fingerprint = ? ORDER BY name", [fingerprint]).fetchall()
        return ShardReader(self.path / "vectors", [row[0] for row in names], dim)
