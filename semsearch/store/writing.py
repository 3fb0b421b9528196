"""Writing an index: vectors as they are made, documents out of sight, then all of it visible in one commit."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.derived import Derived, add_shard
from semsearch.store.files import DATABASE, writer_lock
from semsearch.store.metadata import MAX_VARIABLES, FileState, connect, read_meta, unpack_document
from semsearch.store.schema import migrate
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
                f"{path / DATABASE} is not a readable database ({error}). Delete {path} and index your documents again"
            ) from error
        self.db = Database(connection)
        self.meta = read_meta(connection)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[StoreWriter]:
        """Open under the writer's lock; a folder made here keeps itself out of version control and of indexing.

        Raises:
            IndexLocked: another process is writing.
            IndexIncompatible: a newer semsearch wrote it.
            IndexCorrupt: its database cannot be read.
        """
        path.mkdir(parents=True, exist_ok=True)
        with writer_lock(path):
            ignore = path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
            writer = cls(path)
            try:
                yield writer
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
        """Note that a file was looked at and has the content it had."""
        self.db.table("files").upsert(_as_record(state), pk="path")

    def drop_staged(self, keep_paths: Iterable[str] = ()) -> None:
        """Forget what a run that was cut off had staged, but for these whole files; its vectors stay."""
        with self.db.atomic():
            self.db.execute("CREATE TEMP TABLE IF NOT EXISTS kept (path TEXT PRIMARY KEY)")
            self.db.execute("DELETE FROM kept")
            self.db.conn.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((p,) for p in keep_paths))
            self.db.execute("DELETE FROM pending_files WHERE path NOT IN (SELECT path FROM kept)")
            self.db.execute(
                "DELETE FROM documents WHERE visible = 0 AND (path IS NULL OR path NOT IN (SELECT path FROM kept))"
            )

    def drop_staged_of(self, path: str) -> None:
        """Forget what is staged of one file."""
        self.db.execute("DELETE FROM documents WHERE path = ? AND visible = 0", [path])

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
        meta: Mapping[str, Any] | None = None,
    ) -> int:
        """Show all that is staged, set meta values, drop what is replaced and these files, documents and roots.

        All in one commit. Gives the number of documents that were dropped or replaced.
        """
        values = dict(meta or {})
        model = values.get("model") or self.meta.get("model")
        derived = Derived(self.path, self.db)
        with derived.lexical() as lexical:
            lexical.commit()
            with self.db.atomic():
                n_dropped = self._swap(drop_paths, drop_keys)
                ann = derived.save_ann(model, self.meta) if model else None
                self.db.conn.executemany("DELETE FROM roots WHERE path = ?", [(r,) for r in drop_roots])
                self.set_meta(generation=self.meta.get("generation", 0) + 1, ann=ann, **values)
            lexical.delete(row[0] for row in self.rows("SELECT chunk_id FROM lexical_leftovers"))
            lexical.commit()
            self.db.execute("DELETE FROM lexical_leftovers")
        if model:
            derived.compact_shards(model["fingerprint"])
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


def _as_record(state: FileState) -> Mapping[str, Any]:
    return dict(zip(_FILE_COLUMNS.split(", "), astuple(state), strict=True))
