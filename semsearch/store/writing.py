"""Writing an index: vectors as they are made, documents out of sight, then all of it visible in one commit."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt, InvalidInput
from semsearch.store.derived import Derived, add_shard
from semsearch.store.files import DATABASE, LOCK, writer_lock
from semsearch.store.metadata import COUNT, MAX_VARIABLES, FileState, connect, read_meta, unpack_document
from semsearch.store.nearest import SearchKind
from semsearch.store.schema import migrate
from semsearch.store.vectors import ShardReader, unreadable_shards
from semsearch.types import Chunk, Document, FloatArray

__all__ = ["StoreWriter"]

_UPSERT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_FILE_COLUMNS = "path, size, mtime_ns, content_hash, status, reason, checked_ns"


class StoreWriter:
    """The one writer of an index: `stage_*` work is invisible until `publish`. Not safe for several threads."""

    def __init__(self, path: Path) -> None:
        """Open an index for writing, or make an empty one. Use `StoreWriter.open`, which holds the lock."""
        from sqlite_utils import Database

        self.path = path
        connection = connect(path, read_only=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            migrate(connection)
        except sqlite3.DatabaseError as error:
            raise IndexCorrupt(
                f"{path / DATABASE} is not a readable database ({error}). Move {path} away and index again"
            ) from error
        self.db = Database(connection)
        self.meta = read_meta(connection)
        self._touched: list[FileState] = []
        self._run_roots: set[str] = set()

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[StoreWriter]:
        """Open under the writer's lock; a folder made here keeps itself out of version control and of indexing.

        Raises:
            IndexLocked: another process is writing.
            IndexIncompatible: a newer semsearch wrote it.
            IndexCorrupt: its database cannot be read.
        """
        _make_folder(path)
        with writer_lock(path):
            ignore = path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            writer = cls(path)
            try:
                yield writer
                writer._write_touched()
            finally:
                writer.db.conn.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        return list(self.db.execute(sql, parameters).fetchall())

    def set_meta(self, **values: Any) -> None:
        """Set values of the `meta` table, in the transaction under way if there is one."""
        self.db.conn.executemany(_UPSERT_META, [(key, json.dumps(value)) for key, value in values.items()])
        self.meta.update(values)

    # What was seen before

    def file_states(self, folder: str, *, pending: bool = False) -> dict[str, FileState]:
        """Files at or under a path, by path; `pending` ones belong to a run that was cut off."""
        table = "pending_files" if pending else "files"
        sql = f"SELECT {_FILE_COLUMNS} FROM {table} WHERE path = ? OR substr(path, 1, length(?)) = ?"
        prefix = folder.rstrip("/") + "/"
        return {row[0]: FileState(*row) for row in self.rows(sql, [folder, prefix, prefix])}

    def touch(self, state: FileState) -> None:
        """Note that a file was looked at and has the content it had; durable with the next commit."""
        self._touched.append(state)

    def begin(self, roots: Iterable[str], *, keep: Iterable[str], settings: Mapping[str, Any]) -> None:
        """Start a run over these roots: forget what earlier ones left staged, but for these whole files.

        Vectors stay. The roots are noted as unfinished until `publish`; as long as any is, vectors that no chunk has
        are kept for whoever takes that run up.
        """
        with self.db.atomic():
            self.db.execute("CREATE TEMP TABLE IF NOT EXISTS kept (path TEXT PRIMARY KEY)")
            self.db.execute("DELETE FROM kept")
            self.db.conn.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((p,) for p in keep))
            self.db.execute("DELETE FROM pending_files WHERE path NOT IN (SELECT path FROM kept)")
            self._drop_staged("path IS NULL OR path NOT IN (SELECT path FROM kept)")
            self._run_roots = set(roots)
            unfinished = sorted(self._run_roots.union(self.meta.get("unfinished", [])))
            self.set_meta(pending_settings=settings, unfinished=unfinished)

    def drop_staged_of(self, path: str) -> None:
        """Forget what is staged of one file."""
        with self.db.atomic():
            self._drop_staged("path = ?", path)

    def drop_staged_key(self, key: str) -> None:
        """Forget the staged document with this id."""
        with self.db.atomic():
            self._drop_staged("key = ?", key)

    def _drop_staged(self, condition: str, *parameters: str) -> None:
        """Delete staged documents; tantivy may hold their chunks if a run died after filling it."""
        ids = f"SELECT id FROM documents WHERE visible = 0 AND ({condition})"
        sql = f"INSERT OR IGNORE INTO lexical_leftovers SELECT id FROM chunks WHERE document_id IN ({ids})"
        self.db.execute(sql, parameters)
        self.db.execute(f"DELETE FROM documents WHERE id IN ({ids})", parameters)

    def forget_damaged_shards(self) -> bool:
        """Give up shards that cannot be read, so that their texts are encoded again; tells whether there were any."""
        model = self.meta.get("model")
        if model is None:
            return False
        named = [row[0] for row in self.rows("SELECT name FROM shards WHERE fingerprint = ?", [model["fingerprint"]])]
        damaged = unreadable_shards(self.path / "vectors", named, model["dim"])
        if damaged:
            with self.db.atomic():
                self.db.conn.executemany("DELETE FROM shards WHERE name = ?", [(name,) for name in damaged])
                kept = ShardReader(self.path / "vectors", sorted(set(named) - set(damaged)), model["dim"]).ids
                self.db.execute("CREATE TEMP TABLE IF NOT EXISTS safe (id INTEGER PRIMARY KEY)")
                self.db.execute("DELETE FROM safe")
                self.db.conn.executemany("INSERT INTO safe VALUES (?)", ((int(i),) for i in kept))
                # Chunks still name the lost vectors; a hash that no text has makes sure that nothing new will.
                self.db.execute("UPDATE vectors SET text_hash = randomblob(32) WHERE id NOT IN (SELECT id FROM safe)")
                self.set_meta(settings=None)
        return bool(damaged)

    def has_derived_files(self) -> bool:
        """Whether the FAISS and the lexical index are there."""
        ann = self.meta.get("ann") or {}
        return (self.path / str(ann.get("file"))).is_file() and (self.path / "lexical" / "meta.json").is_file()

    def count_staged_chunks(self, path: str) -> int:
        """Chunks that are staged of one file."""
        sql = "SELECT count(*) FROM chunks c JOIN documents d ON d.id = document_id WHERE path = ? AND visible = 0"
        return int(self.rows(sql, [path])[0][0])

    def count_chunks(self) -> int:
        """Chunks that are visible."""
        sql = "SELECT count(*) FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
        return int(self.rows(sql)[0][0])

    def document_digest(self, key: str) -> bytes | None:
        """Digest with which a visible document that came from no file was staged."""
        sql = "SELECT content_hash FROM documents WHERE key = ? AND visible = 1 AND path IS NULL"
        rows = self.rows(sql, [key])
        return rows[0][0] if rows else None

    def vector_ids(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Ids of the vectors that are there already, by text hash."""
        known: dict[bytes, int] = {}
        for first in range(0, len(hashes), MAX_VARIABLES):
            part = list(hashes[first : first + MAX_VARIABLES])
            sql = f"SELECT text_hash, id FROM vectors WHERE text_hash IN ({','.join('?' * len(part))})"
            known.update((row[0], row[1]) for row in self.rows(sql, part))
        return known

    # Staging

    def add_vectors(self, hashes: Sequence[bytes], rows: FloatArray, fingerprint: str) -> None:
        """Keep vectors for texts not known yet: float32 (n, dim), durable when this returns."""
        with self.db.atomic():
            self.db.conn.executemany("INSERT INTO vectors (text_hash) VALUES (?)", [(h,) for h in hashes])
            known = self.vector_ids(hashes)
            ids = np.array([known[h] for h in hashes], dtype=np.int64)
            order = np.argsort(ids)
            add_shard(self.path, self.db, ids[order], rows[order], fingerprint)

    def stage_document(
        self, document: Document, chunks: Sequence[Chunk], vector_ids: Sequence[int], *, path: str | None, digest: bytes
    ) -> None:
        """Add a document out of sight; `path` is the file it came from, `digest` tells whether it changed."""
        record = {
            "key": document.id,
            "path": path,
            "title": document.title,
            "source": document.source,
            "metadata": json.dumps(dict(document.metadata), ensure_ascii=False, allow_nan=False),
            "layout": json.dumps(
                {"outline": [astuple(h) for h in document.outline], "page_starts": document.page_starts}
            ),
            "content": zlib.compress(document.text.encode("utf-8"), 1),
            "content_hash": digest,
            "visible": 0,
        }
        with self.db.atomic():
            self.db.execute("DELETE FROM documents WHERE key = ? AND visible = 0", [document.id])
            row_id = self.db.table("documents").insert(record, pk="id").last_pk
            self.db.conn.executemany(
                "INSERT INTO chunks VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (row_id, c.ordinal, c.start, c.end, c.line_start, c.line_end, c.heading, c.page, c.text, vector_id)
                    for c, vector_id in zip(chunks, vector_ids, strict=True)
                ],
            )

    def _write_touched(self) -> None:
        with self.db.atomic():
            self.db.table("files").upsert_all(map(_as_record, self._touched), pk="path")
        self._touched = []

    def stage_file(self, state: FileState) -> None:
        """Note that a file has been dealt with whole."""
        self.db.table("pending_files").upsert(_as_record(state), pk="path")

    # Making it visible

    def publish(
        self,
        *,
        drop_paths: Iterable[str] = (),
        drop_keys: Iterable[str] = (),
        drop_roots: Iterable[str] = (),
        roots: Iterable[tuple[str, str, str, str | None]] = (),
        meta: Mapping[str, Any] | None = None,
        encode_sample: Callable[[list[str]], FloatArray] | None = None,
    ) -> int:
        """Show all that is staged, drop what it replaces and what is named, remember roots and meta values.

        All in one commit; `roots` are rows of path, globs, excludes and text column. `encode_sample` makes vectors of
        queries, float32 (n, dim), from passages; without it no other kind of vector index is chosen.
        Gives the number of documents that were dropped or replaced.
        """
        values = dict(meta or {})
        model = values.get("model") or self.meta.get("model")
        derived = Derived(self.path, self.db)
        with derived.lexical() as lexical:
            lexical.commit()
            with self.db.atomic():
                n_dropped = self._swap(drop_paths, drop_keys)
                wanted = SearchKind(**{**(self.meta.get("search_kind") or {}), **values.get("search_kind", {})})
                ann = derived.save_ann(model, self.meta, wanted, encode_sample) if model else None
                self.db.conn.executemany("DELETE FROM roots WHERE path = ?", [(r,) for r in drop_roots])
                self.db.conn.executemany("INSERT OR REPLACE INTO roots VALUES (?, ?, ?, ?)", roots)
                finished = self._run_roots.union(drop_roots)
                values["unfinished"] = [r for r in self.meta.get("unfinished", []) if r not in finished]
                generation = self.meta.get("generation", 0) + 1
                counts = [generation, *self.rows(COUNT)[0]]  # a second a million chunks, which no reader has to spend
                self.set_meta(generation=generation, ann=ann, counts=counts, **values)
            lexical.delete(row[0] for row in self.rows("SELECT chunk_id FROM lexical_leftovers"))
            lexical.commit()
            self.db.execute("DELETE FROM lexical_leftovers")
        if model:
            derived.compact_shards(model["fingerprint"], keep_dead=bool(self.meta.get("unfinished")))
        derived.remove_leftover_files(self.meta["ann"])
        return n_dropped

    def _swap(self, drop_paths: Iterable[str], drop_keys: Iterable[str]) -> int:
        """Replace visible documents by staged ones; gives how many disappeared."""
        execute, connection = self.db.execute, self.db.conn
        execute("CREATE TEMP TABLE IF NOT EXISTS dropped (path TEXT PRIMARY KEY)")
        execute("CREATE TEMP TABLE IF NOT EXISTS doomed (id INTEGER PRIMARY KEY)")
        execute("DELETE FROM dropped")
        execute("DELETE FROM doomed")
        connection.executemany("INSERT OR IGNORE INTO dropped VALUES (?)", ((p,) for p in drop_paths))
        execute("DELETE FROM files WHERE path IN (SELECT path FROM dropped)")
        execute("INSERT OR IGNORE INTO dropped SELECT path FROM pending_files")
        execute(
            "INSERT INTO doomed SELECT id FROM documents WHERE visible = 1 AND (path IN (SELECT path FROM dropped) "
            "OR key IN (SELECT key FROM documents WHERE visible = 0))"
        )
        connection.executemany(
            "INSERT OR IGNORE INTO doomed SELECT id FROM documents WHERE visible = 1 AND key = ?",
            ((k,) for k in drop_keys),
        )
        n_dropped = int(execute("SELECT count(*) FROM doomed").fetchone()[0])
        execute(
            "INSERT OR IGNORE INTO lexical_leftovers SELECT id FROM chunks WHERE document_id IN (SELECT id FROM doomed)"
        )
        execute("DELETE FROM documents WHERE id IN (SELECT id FROM doomed)")
        execute("UPDATE documents SET visible = 1 WHERE visible = 0")
        execute(f"INSERT OR REPLACE INTO files SELECT {_FILE_COLUMNS} FROM pending_files")
        execute("DELETE FROM pending_files")
        return n_dropped

    def documents_without_file(self) -> Iterator[Document]:
        """Visible documents that were given as such, not read from a file."""
        sql = (
            "SELECT id, key, content, title, source, metadata, layout FROM documents WHERE path IS NULL AND visible = 1"
        )
        for (row_id,) in self.rows("SELECT id FROM documents WHERE path IS NULL AND visible = 1"):
            yield unpack_document(self.rows(f"{sql} AND id = ?", [row_id])[0][1:])


def _make_folder(path: Path) -> None:
    """Make the folder of an index, or make sure that an existing one is an index or empty.

    Raises:
        InvalidInput: there is something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise InvalidInput(
            f"the index folder {path} cannot be made or read: {error.strerror}; name another with --index"
        ) from error
    if DATABASE not in names and names - {".gitignore", LOCK}:
        raise InvalidInput(f"{path} is not an index but holds other files; name a new folder with --index")
    if not os.access(path, os.W_OK):
        raise InvalidInput(f"the index folder {path} may not be written to; name another with --index")


def _as_record(state: FileState) -> Mapping[str, Any]:
    return dict(zip(_FILE_COLUMNS.split(", "), astuple(state), strict=True))
