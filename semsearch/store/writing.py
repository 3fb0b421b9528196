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

from semsearch.errors import IndexCorrupt, IndexUnwritable, InvalidInput
from semsearch.store.checksums import checksum_record, checksum_rows
from semsearch.store.derived import LEXICAL, Changes, Derived, add_shard, record_checksums
from semsearch.store.fields import enter_fields
from semsearch.store.files import DATABASE, LOCK, command, open_private, writer_lock
from semsearch.store.metadata import (
    DATABASE_DAMAGE,
    MAX_VARIABLES,
    FileState,
    check_files,
    connect,
    is_unwritable,
    read_meta,
    read_meta_rows,
    unpack_document,
)
from semsearch.store.nearest import SearchKind
from semsearch.store.schema import (
    CHUNK_COLUMNS,
    COUNT,
    DOCUMENT_COLUMNS,
    FORMAT_VERSION,
    check_format,
    check_tables,
    check_values,
    migrate,
)
from semsearch.store.sealing import SEAL, MetaRows, Seal, break_seal, broken_files, read_seal, restore_seal, seal
from semsearch.store.tokens import TokenWriter
from semsearch.store.vectors import shard_files, unreadable_shards, write_sums
from semsearch.types import Chunk, Document, FloatArray

__all__ = ["IGNORE", "IGNORE_EVERYTHING", "StoreWriter", "unwritable", "write_ignore"]

IGNORE, IGNORE_EVERYTHING = ".gitignore", b"*\n"
_UPSERT_META = "INSERT OR REPLACE INTO meta (key, value, checksum) VALUES (?, ?, ?)"
_FILE_COLUMNS = "path, size, mtime_ns, content_hash, status, reason, checked_ns"


class StoreWriter:
    """The one writer of an index: `stage_*` work is invisible until `publish`. Not safe for several threads.

    Attributes:
        meta: values of the `meta` table.
        tokens: what the index keeps of its passages' tokens.
    """

    def __init__(self, path: Path) -> None:
        """Open an index for writing, or make an empty one. Use `StoreWriter.open`, which holds the lock."""
        from sqlite_utils import Database

        self.path = path
        connection, before = connect(path, read_only=False), 0
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            before = check_format(connection)
            migrate(connection)
            self.meta = read_meta(connection)
            check_tables(connection)
            check_files(connection)
        except DATABASE_DAMAGE as error:
            connection.close()
            if is_unwritable(error):  # the file may be sound: see `unwritable`
                raise
            if 0 < before < FORMAT_VERSION:
                raise IndexCorrupt(
                    f"{path / DATABASE}, of format {before}, cannot be brought up to date ({error}). Move {path} away, "
                    f"and make it anew: {command('index FOLDER', path)}"
                ) from error
            raise _damaged(path, str(error)) from error
        self.db = Database(connection)
        self.tokens = TokenWriter(path)
        if before in (1, 2):
            self._add_checksums(before)
        self._touched: list[FileState] = []
        self._run_roots: set[str] = set()

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, wait_s: float = 0.0) -> Iterator[StoreWriter]:
        """Open under the writer's lock; a folder made here keeps itself out of version control and of indexing.

        `wait_s` is how many seconds another process that holds the lock is waited for.

        Raises:
            IndexLocked: another process is writing.
            IndexUnwritable: a file cannot be written; what the index showed before, it shows still.
            IndexIncompatible: a newer semsearch wrote it.
            IndexCorrupt: its database cannot be read, or is not what the last writer left.
        """
        with unwritable(path):
            _make_folder(path)
            with writer_lock(path, wait_s), cls.open_locked(path) as writer:
                yield writer

    @classmethod
    @contextlib.contextmanager
    def open_locked(cls, path: Path, *, to_repair: bool = False) -> Iterator[StoreWriter]:
        """As `open`, for who holds the lock; with `to_repair`, whatever the database's bytes are."""
        write_ignore(path)
        before, is_whole = None, False
        with contextlib.suppress(FileNotFoundError, IndexCorrupt):  # a lost seal is made anew
            before = read_seal(path)
        if before is not None and not to_repair:
            _check_seal(path, before)
        if before is None or not before.is_of_repair:
            break_seal(path)
        try:
            writer = cls(path)
        except BaseException:
            if before is not None:
                restore_seal(path, before)
            raise
        log = path / f"{DATABASE}-wal"
        try:
            if before is None and not to_repair:  # nothing is proven
                check_values(writer.db.conn)
            yield writer
            writer._write_touched()
            is_whole = True
        except DATABASE_DAMAGE as error:
            is_whole = not to_repair and (before is not None or is_unwritable(error))  # all that was committed
            if is_whole or to_repair:
                raise
            raise _damaged(path, str(error)) from error
        except BaseException:
            is_whole = not to_repair
            raise
        finally:
            is_same = before is not None and log.name not in before.sums and not _size(log) and not to_repair
            connection = writer.db.conn
            connection.execute("PRAGMA busy_timeout = 0")  # a reader may keep the log from being copied back
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            meta = []
            with contextlib.suppress(*DATABASE_DAMAGE):
                meta = read_meta_rows(connection)
            connection.close()
            writer.tokens.close()
            with contextlib.suppress(OSError):  # all that was committed is durable; the next run seals
                if before is not None and is_same:
                    restore_seal(path, before)
                elif is_whole:
                    seal(path, meta)

    def _add_checksums(self, before: int) -> None:
        """Take the files of an index of an older format, which had no checksums, as they are found.

        What cannot be read is mended as if it were damaged. So is the lexical index of format 1, which may name
        passages that SQLite has dropped.
        """
        dim, folder, derived = self.meta.get("model", {}).get("dim"), self.path / "vectors", Derived(self.path, self.db)
        with self.db.atomic():
            for (name,) in self.rows("SELECT name FROM shards"):
                with contextlib.suppress(OSError, ValueError):
                    rows, ids = (np.load(folder / file, allow_pickle=False) for file in shard_files(name)[:2])
                    write_sums(folder, name, checksum_rows(ids, rows.reshape(len(ids), dim or -1)))
                    record_checksums(self.path, self.db, [f"vectors/{file}" for file in shard_files(name)])
            with contextlib.suppress(FileNotFoundError):
                derived.record_ann(self.meta.get("ann"))
            if before > 1:
                with contextlib.suppress(FileNotFoundError):
                    derived.record_lexical(str(self.meta.get("lexical", LEXICAL)))

    def meta_rows(self) -> MetaRows:
        """Those of the `meta` table."""
        return read_meta_rows(self.db.conn)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        return list(self.db.execute(sql, parameters).fetchall())

    def set_meta(self, **values: Any) -> None:
        """Set values of the `meta` table, in the transaction under way if there is one."""
        rows = [
            (key, json.dumps(value)) for key, value in values.items() if key not in self.meta or self.meta[key] != value
        ]
        self.db.conn.executemany(_UPSERT_META, [(*row, checksum_record(row)) for row in rows])
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

    def forget_staged(self) -> None:
        """Forget all that a run which was cut off has staged, but for its vectors."""
        with self.db.atomic():
            self.db.execute("DELETE FROM pending_files")
            self._drop_staged("1")

    def drop_staged_of(self, path: str) -> None:
        """Forget what is staged of one file."""
        with self.db.atomic():
            self._drop_staged("path = ?", path)

    def drop_staged_key(self, key: str) -> None:
        """Forget the staged document with this id."""
        with self.db.atomic():
            self._drop_staged("key = ?", key)

    def _drop_staged(self, condition: str, *parameters: str) -> None:
        """Delete staged documents."""
        self.db.execute(f"DELETE FROM documents WHERE visible = 0 AND ({condition})", parameters)

    def unreadable_shards(self) -> list[str]:
        """Files, by path in the index, for which shards of the index's model cannot be opened."""
        model = self.meta["model"]
        named = [row[0] for row in self.rows("SELECT name FROM shards WHERE fingerprint = ?", [model["fingerprint"]])]
        damaged = unreadable_shards(self.path / "vectors", named, model["dim"])
        files = [f"vectors/{file}" for name in damaged for file in shard_files(name)]
        return [file for file in files if not Derived(self.path, self.db).is_sound(file)]

    def has_sound_derived_files(self) -> bool:
        """Whether the FAISS and the lexical index are there and as they were written."""
        ann, derived = self.meta.get("ann") or {}, Derived(self.path, self.db)
        lexical = str(self.meta.get("lexical", LEXICAL))
        return derived.is_sound(str(ann.get("file"))) and derived.is_sound(lexical)

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
            "n_chunks": len(chunks),
        }
        with self.db.atomic():
            self.db.execute("DELETE FROM documents WHERE key = ? AND visible = 0", [document.id])
            record["id"] = row_id = self._next_id("documents")
            record["checksum"] = checksum_record(record[name] for name in DOCUMENT_COLUMNS.split(", "))
            self.db.table("documents").insert(record)
            enter_fields(self.db.conn, row_id, document.id, document.title, document.source, document.metadata)
            rows = [
                (i, row_id, c.ordinal, c.start, c.end, c.line_start, c.line_end, c.heading, c.page, c.text, vector_id)
                for i, (c, vector_id) in enumerate(zip(chunks, vector_ids, strict=True), self._next_id("chunks"))
            ]
            self.db.conn.executemany(
                f"INSERT INTO chunks ({CHUNK_COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*row, checksum_record(row)) for row in rows],
            )

    def _next_id(self, table: str) -> int:
        """The id that AUTOINCREMENT would give, which its checksum has to cover."""
        rows = self.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", [table])
        return int(rows[0][0]) + 1 if rows else 1

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
        roots: Mapping[str, Mapping[str, Any]] | None = None,
        meta: Mapping[str, Any] | None = None,
        encode_sample: Callable[[list[str]], FloatArray] | None = None,
    ) -> int:
        """Show all that is staged, drop what it replaces and what is named, remember roots and meta values.

        All in one commit; `roots` says by path how each is read. `encode_sample` makes vectors of queries, float32
        (n, dim), from passages; without it no other kind of vector index is chosen.
        Gives the number of documents that were dropped or replaced.
        """
        values = dict(meta or {})
        with self.db.atomic():
            staged = [row[0] for row in self.rows("SELECT id FROM documents WHERE visible = 0 ORDER BY id")]
            n_dropped, dropped = self._swap(drop_paths, drop_keys)
            gone = set(drop_roots)
            remembered = {**self.meta.get("roots", {}), **(roots or {})}
            values["roots"] = {path: remembered[path] for path in sorted(remembered.keys() - gone)}
            finished = self._run_roots | gone
            values |= {"gone": None} if "gone" in self.meta else {}
            values["unfinished"] = [r for r in self.meta.get("unfinished", []) if r not in finished]
            self.save_derived(values, staged=staged, dropped=dropped, encode_sample=encode_sample)
        self.tidy()
        return n_dropped

    def save_derived(
        self,
        values: Mapping[str, Any],
        *,
        staged: Sequence[int],
        dropped: Sequence[int],
        encode_sample: Callable[[list[str]], FloatArray] | None = None,
    ) -> None:
        """Save the derived files of what is visible in the transaction under way, a new state with these meta values.

        `staged` are documents that were not visible before it, `dropped` chunks that were; `encode_sample` is as for
        `publish`.
        """
        model = values.get("model") or self.meta.get("model")
        wanted = SearchKind(**{**(self.meta.get("search_kind") or {}), **values.get("search_kind", {})})
        derived, changes = Derived(self.path, self.db), Changes(staged, dropped)
        lexical, ann = derived.renew(model, self.meta, changes, wanted, encode_sample)
        self.set_meta(ann=ann, lexical=lexical, **values)
        self.begin_state()

    def begin_state(self) -> None:
        """Say that what is visible is another state than before, and how much it is."""
        counts = list(self.rows(COUNT)[0])  # a second a million chunks, which no reader has to spend
        self.set_meta(generation=self.meta.get("generation", 0) + 1, counts=counts)

    def tidy(self) -> None:
        """Join shards and remove files, where it is worth it, after a new state is visible."""
        derived, model = Derived(self.path, self.db), self.meta.get("model")
        if model and derived.compact_shards(model["fingerprint"], keep_dead=bool(self.meta.get("unfinished"))):
            self.tokens.keep_only({row[0] for row in self.rows("SELECT text_hash FROM vectors")})
        self.remove_leftover_files()

    def remove_leftover_files(self) -> None:
        """Delete files that nothing names, as a run that was cut off leaves them."""
        if "ann" in self.meta:
            Derived(self.path, self.db).remove_leftover_files(self.meta["ann"], self.meta["lexical"])

    def _swap(self, drop_paths: Iterable[str], drop_keys: Iterable[str]) -> tuple[int, list[int]]:
        """Replace visible documents by staged ones; gives how many disappeared, and their chunks."""
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
        # A file whose documents go by their ids, not with it, is to be read again.
        of_files = "SELECT path FROM documents WHERE id IN (SELECT id FROM doomed)"
        execute(f"UPDATE files SET content_hash = NULL WHERE path IN ({of_files})")
        n_dropped = int(execute("SELECT count(*) FROM doomed").fetchone()[0])
        chunks = "SELECT id FROM chunks WHERE document_id IN (SELECT id FROM doomed) ORDER BY id"
        dropped = [row[0] for row in execute(chunks).fetchall()]
        execute("DELETE FROM documents WHERE id IN (SELECT id FROM doomed)")
        execute("UPDATE documents SET visible = 1 WHERE visible = 0")
        execute(f"INSERT OR REPLACE INTO files SELECT {_FILE_COLUMNS} FROM pending_files")
        execute("DELETE FROM pending_files")
        return n_dropped, dropped

    def documents_without_file(self) -> Iterator[Document]:
        """Visible documents that were given as such, not read from a file."""
        sql = f"SELECT {DOCUMENT_COLUMNS}, checksum, content FROM documents WHERE id = ?"
        for row in self.rows("SELECT id FROM documents WHERE path IS NULL AND visible = 1"):
            try:
                yield unpack_document(self.rows(sql, row)[0])
            except ValueError as error:
                raise _damaged(self.path, f"document {row[0]}: {error}") from error


@contextlib.contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Turn what a full disk or a folder without permission raises into one error that says what to do."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        if not is_unwritable(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise IndexUnwritable(
            f"{path} cannot be written to ({reason}). What was in the index is still there, and what was encoded is "
            "kept: make room or allow writing, and run it again"
        ) from error


def _damaged(path: Path, what: str) -> IndexCorrupt:
    return IndexCorrupt(
        f"{path / DATABASE} is not a readable database ({what}). What can be done tells: {command('verify', path)}"
    )


def write_ignore(path: Path) -> None:
    """Keep an index out of version control and of indexing."""
    with contextlib.suppress(FileExistsError), open_private(path / IGNORE, "xb") as stream:
        stream.write(IGNORE_EVERYTHING)


def _check_seal(path: Path, known: Seal) -> None:
    """Make sure that the database is what the last writer left.

    Raises:
        IndexIncompatible: it is a newer semsearch's.
        IndexCorrupt: it is not.
    """
    if known.is_of_repair:
        raise IndexCorrupt(f"the last repair of {path} was cut off. Finish it: {command('verify --repair', path)}")
    broken = broken_files(path, known)
    if broken:
        connection = connect(path, read_only=True)
        with contextlib.closing(connection), contextlib.suppress(*DATABASE_DAMAGE):
            check_format(connection)
        raise IndexCorrupt(
            f"{' and '.join(broken)} in {path} is damaged, or was changed by another program. "
            f"Mend it with: {command('verify --repair', path)}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _make_folder(path: Path) -> None:
    """Make the folder of an index, or make sure that an existing one is an index or empty.

    Raises:
        InvalidInput: there is something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise InvalidInput(
            f"the index folder {path} cannot be made or read: {error.strerror}; name another with --index"
        ) from error
    is_index = DATABASE in names or (path / DATABASE).exists()  # which another writer may have made meanwhile
    if not is_index and names - {IGNORE, LOCK, SEAL}:
        raise InvalidInput(f"{path} is not an index but holds other files; name a new folder with --index")
    if not os.access(path, os.W_OK):
        raise InvalidInput(f"the index folder {path} may not be written to; change that, or name another with --index")


def _as_record(state: FileState) -> Mapping[str, Any]:
    return dict(zip(_FILE_COLUMNS.split(", "), astuple(state), strict=True))
