"""Reading `store.db`, the truth of an index: what it was built with, its chunks and its documents."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from semsearch.errors import IndexCorrupt, IndexIncompatible, IndexNotFound, InvalidInput, SemsearchError
from semsearch.store.checksums import checksum_record
from semsearch.store.files import DATABASE, PART, command, open_private
from semsearch.store.recent import RecentDocuments
from semsearch.store.schema import (
    CHUNK_COLUMNS,
    DOCUMENT_COLUMNS,
    FORMAT_VERSION,
    check_format,
    check_kinds,
    check_tables,
    check_values,
)
from semsearch.store.sealing import broken_files, read_seal
from semsearch.types import Chunk, Document, Duplicate, Heading

__all__ = [
    "DATABASE_DAMAGE",
    "NEEDED_META",
    "Counts",
    "FileState",
    "Store",
    "check_files",
    "connect",
    "is_unwritable",
    "parse_meta",
    "read_meta",
    "read_meta_rows",
    "unpack_document",
]

# What reading a damaged database raises; the second where SQLite's own message holds its bytes.
DATABASE_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
UNWRITABLE_DATABASE = ("disk", "readonly", "locked", "unable to open")  # words of SQLite's messages; the rest is damage
NEEDED_META = {"model", "generation", "ann", "roots", "counts"}

BUSY_TIMEOUT_S = 30.0
METADATA = DOCUMENT_COLUMNS.split(", ").index("metadata")
MAX_ID = 2**63 - 1  # no row has a larger one, and SQLite takes none
MAX_VARIABLES = 900  # of one SQL statement; SQLite allows 999 at least
MAX_IDS = 1_000  # whose rows are read at a time


@dataclass(frozen=True, slots=True)
class FileState:
    """What was seen of a file, to tell next time whether it changed.

    Attributes:
        path: absolute.
        size: bytes.
        mtime_ns: of the file, nanoseconds since the epoch.
        content_hash: of its bytes; None forces it to be read again.
        status: `indexed`, `skipped` or `failed`.
        reason: why it was not indexed, "" if it was.
        checked_ns: when this was seen, nanoseconds since the epoch.
    """

    path: str
    size: int
    mtime_ns: int
    content_hash: bytes | None
    status: str
    reason: str
    checked_ns: int


class Counts(NamedTuple):
    """How much of what is visible in an index, in the order of `schema.COUNT`; `vectors` are distinct."""

    chunks: int
    vectors: int
    with_chunks: int
    documents: int


def _is_at_rest(path: Path, database: str = DATABASE) -> bool:
    """Whether the folder of an index may not be written to, and nobody has a database of it open who may.

    SQLite cannot make the file beside a database there by which readers and a writer know of each other.

    Raises:
        InvalidInput: its log is not empty, so that SQLite would have to write to it first.
    """
    if os.access(path, os.W_OK) or (path / f"{database}-shm").exists():
        return False
    log = path / f"{database}-wal"
    if log.exists() and log.stat().st_size:
        raise InvalidInput(
            f"the last run on the index in {path} was cut off, and its folder may not be written to; use a copy of it"
        )
    return True


def connect(path: Path, *, read_only: bool, database: str = DATABASE) -> sqlite3.Connection:
    """Open a database of an index; transactions are begun by hand. If it `_is_at_rest`, changes of others do not show.

    Raises:
        IndexCorrupt: it cannot be opened.
        InvalidInput: it cannot without writing to its folder, which may not be written to.
    """
    mode = "rw" if not read_only else "ro&immutable=1" if _is_at_rest(path, database) else "ro"
    try:
        if not read_only:
            open_private(path / database, "ab").close()  # SQLite would let others read it
        connection = sqlite3.connect(
            f"{(path / database).absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")  # what stands in the file is data, not for execution
        connection.execute("PRAGMA cell_size_check = ON")
    except (sqlite3.OperationalError, OSError) as error:
        raise IndexCorrupt(f"{path / database} cannot be opened: {error}") from error
    return connection


def is_unwritable(error: Exception) -> bool:
    """Whether the place is to blame and not what lies there."""
    if isinstance(error, OSError):
        return error.errno in UNWRITABLE
    return isinstance(error, sqlite3.OperationalError) and any(said in str(error) for said in UNWRITABLE_DATABASE)


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """All of the `meta` table.

    Raises:
        sqlite3.DatabaseError: it cannot be read, or is not what was written.
    """
    return parse_meta(read_meta_rows(connection))


def read_meta_rows(connection: sqlite3.Connection) -> list[tuple[str, str, bytes]]:
    """Key, value and checksum of all rows of the `meta` table."""
    return connection.execute("SELECT key, value, checksum FROM meta").fetchall()


def check_files(connection: sqlite3.Connection) -> None:
    """Make sure that a database of the current format names no file but those of an index; `parse_meta` does the rest.

    Raises:
        sqlite3.DatabaseError: it names another, or says of one what cannot be.
    """
    check_kinds(connection, ("checksums", "shards"))
    names = [name for (name,) in connection.execute("SELECT path FROM checksums")]
    names += [f"vectors/{name}.npy" for (name,) in connection.execute("SELECT name FROM shards")]
    _check_names(names)


def _check_names(names: Iterable[Any]) -> None:
    wrong = next((name for name in names if not isinstance(name, str) or not PART.fullmatch(name)), None)
    if wrong is not None:
        raise sqlite3.DatabaseError(f"it names {wrong!r}, which is no file of an index")


def parse_meta(rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Values by key of rows of the `meta` table; errors as for `read_meta`."""
    meta = {}
    for key, value, checksum in rows:
        if checksum_record((key, value)) != checksum:
            raise sqlite3.DatabaseError(f"{key!r} is not what was written")
        meta[key] = json.loads(value)
    ann = meta.get("ann")
    _check_names([f"{meta['lexical']}/meta.json"] if "lexical" in meta else [])
    _check_names([ann.get("file") if isinstance(ann, dict) else ann] if ann else [])
    return meta


def unpack_document(record: Sequence[Any]) -> Document:
    """A document from DOCUMENT_COLUMNS, checksum and content of its row.

    Raises:
        ValueError: it is not what was written.
    """
    *row, checksum, content = record
    if checksum_record(row) != checksum:
        raise ValueError("it has another checksum")
    _, key, _, title, source, metadata, layout, *_ = row
    try:
        shape = json.loads(layout)
        return Document(
            id=key,
            text=zlib.decompress(content).decode("utf-8"),
            title=title,
            source=source,
            metadata=json.loads(metadata),
            outline=tuple(Heading(*h) for h in shape["outline"]),
            page_starts=tuple(shape["page_starts"]),
        )
    except (zlib.error, TypeError) as error:
        raise ValueError(f"it cannot be read: {error}") from error


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _size_and_time(path: Path) -> tuple[int, int]:
    """By what a change of a database shows."""
    facts = (path / DATABASE).stat()
    return facts.st_size, facts.st_mtime_ns


class Store:
    """The read side of an index. Safe to use from several threads; `snapshot` gives one of them a consistent view."""

    def __init__(self, path: Path) -> None:
        """Open an index.

        Raises:
            IndexNotFound: there is none at `path`.
            IndexIncompatible: it was written by a newer semsearch.
            IndexCorrupt: its database cannot be read.
        """
        self.path = path
        if not (path / DATABASE).is_file():
            raise IndexNotFound(f"there is no index in {path}. Make one with: {command('index FOLDER', path)}")
        self._lock = threading.RLock()
        self._at_rest = _size_and_time(path) if _is_at_rest(path) else None
        self._connection = connect(path, read_only=True)
        self._file = _identity(path / DATABASE)
        try:
            version = check_format(self._connection)
            is_current = version in (0, FORMAT_VERSION)
            complete = version == FORMAT_VERSION and read_meta(self._connection).keys() >= NEEDED_META
            if complete:
                check_tables(self._connection)
                check_files(self._connection)
        except DATABASE_DAMAGE as error:
            raise IndexCorrupt(
                f"{path / DATABASE} is not a readable database ({error}). What can be done tells: "
                f"{command('verify', path)}"
            ) from error
        if not is_current:
            raise IndexIncompatible(
                f"the index in {path} has format {version}, and this semsearch reads {FORMAT_VERSION}. "
                f"Bring it up to date: {command('index', path)}"
            )
        if not complete:
            known = None
            with contextlib.suppress(OSError, IndexCorrupt):
                known = read_seal(path)
            if known is not None and {key for key, *_ in known.meta} >= NEEDED_META:
                raise self._damaged("has lost values that it was sealed with")
            raise IndexNotFound(
                f"the index in {path} was never finished. Finish it with: {command('index FOLDER', path)}"
            )
        self._meta: tuple[list[Any], dict[str, Any]] = ([], {})
        self._recent = RecentDocuments()

    def is_in_place(self) -> bool:
        """Whether the database that was opened still lies at its path, and no other."""
        return self._file is not None and _identity(self.path / DATABASE) == self._file

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._at_rest = None
            self._connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[dict[str, Any]]:
        """Hold one state of the index, whatever a writer commits meanwhile; gives its meta values."""
        with self._lock:
            self._wake()
            try:
                self._connection.execute("BEGIN")
            except sqlite3.ProgrammingError as error:
                raise InvalidInput(f"the index {self.path} has been closed; open it again") from error
            try:
                yield self._read_meta()
            except DATABASE_DAMAGE as error:
                raise self._damaged(f"cannot be read: {error}") from error
            except SemsearchError:
                raise
            except Exception as error:  # what a value that was not written makes of code which relies on it
                if self._is_broken():
                    raise self._damaged("is not what was written") from error
                raise
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if self._has_changed():
                raise IndexCorrupt(f"{self.path / DATABASE} was changed while it was read; ask again")

    def _is_broken(self) -> bool:
        """Whether the bytes of the database are others than the last writer left, or values of other kinds."""
        known = None  # while a writer is at work, or after it was cut off
        with contextlib.suppress(OSError, IndexCorrupt):
            known = read_seal(self.path)
        if known is not None:
            return bool(broken_files(self.path, known))
        try:
            check_values(self._connection)
            return bool(self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok")
        except DATABASE_DAMAGE:
            return True

    def _has_changed(self) -> bool:
        """Whether the database was at rest when it was opened, and was written to since."""
        return self._at_rest is not None and self.is_in_place() and _size_and_time(self.path) != self._at_rest

    def _wake(self) -> None:
        """Open a database that was at rest anew where it changed, or somebody writes to it."""
        if self._at_rest is None or not self.is_in_place():
            return
        if self._has_changed() or not _is_at_rest(self.path):
            now, opened = _size_and_time(self.path), connect(self.path, read_only=True)
            self._connection.close()
            self._connection, self._at_rest = opened, now if _is_at_rest(self.path) else None

    def _read_meta(self) -> dict[str, Any]:
        """The values of `meta`, which seldom change between two states."""
        rows = read_meta_rows(self._connection)
        if rows != self._meta[0]:
            self._meta = (rows, parse_meta(rows))
            if not self._meta[1].keys() >= NEEDED_META:
                raise sqlite3.DatabaseError("values of meta are missing")
        return dict(self._meta[1])

    def _damaged(self, what: str) -> IndexCorrupt:
        return IndexCorrupt(f"{self.path / DATABASE} {what}. Mend it with: {command('verify --repair', self.path)}")

    def checksums(self, path: str) -> dict[str, tuple[int, bytes]]:
        """(size, checksum) of the file with this path in the index, or of those in the folder, where they are known."""
        sql = "SELECT path, size, checksum FROM checksums WHERE path = ? OR substr(path, 1, length(?)) = ?"
        return {row[0]: (row[1], row[2]) for row in self.query(sql, [path, f"{path}/", f"{path}/"])}

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def shard_names(self, fingerprint: str) -> list[str]:
        """Shards of the model with this fingerprint, in order."""
        return [
            name for (name,) in self.query("SELECT name FROM shards WHERE fingerprint = ? ORDER BY name", [fingerprint])
        ]

    def counts(self) -> Counts:
        """How much of what is visible."""
        ((value,),) = self.query("SELECT value FROM meta WHERE key = 'counts'")
        return Counts(*json.loads(value))

    def chunks_of_vectors(self, vector_ids: Iterable[int]) -> list[tuple[int, int, int]]:
        """Visible (chunk id, document row, vector id) that have one of these vectors, by chunk id."""
        return self._places("vector_id", vector_ids)

    def places_of_chunks(self, chunk_ids: Iterable[int]) -> list[tuple[int, int, int]]:
        """(chunk id, document row, vector id) of those of these chunks that are visible, by chunk id."""
        return self._places("id", chunk_ids)

    def _places(self, column: str, ids: Iterable[int]) -> list[tuple[int, int, int]]:
        sql = (  # `visible` stands behind the text of a document, and few documents are hidden, if any
            "SELECT id, document_id, vector_id FROM chunks WHERE {} IN ({{}}) AND NOT EXISTS (SELECT 1 FROM "
            "documents d INDEXED BY documents_hidden WHERE d.id = document_id AND d.visible = 0)"
        )
        return sorted(self._of_ids(sql.format(column), ids))

    def hydrate(
        self, chunk_ids: Sequence[int], vector_ids: Sequence[int] | None = None
    ) -> dict[int, tuple[Chunk, Document]]:
        """The chunks with these ids and the documents around them, in a `snapshot`; ids it does not show are left out.

        With `vector_ids`, the vectors by which they were found in the same state, none may be missing.

        Raises:
            IndexCorrupt: a chunk or its document is not what was written.
        """
        expected = dict(zip(chunk_ids, vector_ids, strict=True)) if vector_ids is not None else {}
        chunks = list(self._records("chunks", CHUNK_COLUMNS, chunk_ids))
        rows = {row[1] for row in chunks}
        documents = self._recent.of(self._meta[1]["generation"], rows)
        records = self._document_records(rows - documents.keys())
        unread = {record[0]: (self._document(record), record[METADATA]) for record in records}
        self._recent.add(unread)
        documents.update({row: document for row, (document, _) in unread.items()})
        found = {}
        for chunk_id, document_id, ordinal, start, end, line_start, line_end, heading, page, text, vector_id in chunks:
            if document_id in documents:
                document = documents[document_id]
                if document.text[start:end] != text or expected.get(chunk_id, vector_id) != vector_id:
                    raise self._damaged(f"has a passage ({chunk_id}) that is not where it should be")
                place = (start, end, line_start, line_end, heading, page)
                found[chunk_id] = (Chunk(chunk_id, document.id, ordinal, text, *place), document)
        self.check_none_missing(expected, found)
        return found

    def documents(self, rows: Iterable[int]) -> dict[int, Document]:
        """The documents in these rows, by row; those that the index does not show are left out.

        Raises:
            IndexCorrupt: one is not what was written.
        """
        return {row[0]: self._document(row) for row in self._document_records(rows)}

    def _document_records(self, rows: Iterable[int]) -> list[Any]:
        sql = f"SELECT {DOCUMENT_COLUMNS}, checksum, content FROM documents WHERE visible = 1 AND id IN ({{}})"
        return self._of_ids(sql, rows)

    def vector_ids(self, hashes: Iterable[bytes]) -> dict[bytes, int]:
        """Ids of the vectors that are kept, by text hash."""
        wanted, known = list(hashes), dict[bytes, int]()
        for first in range(0, len(wanted), MAX_VARIABLES):
            part = wanted[first : first + MAX_VARIABLES]
            marks = ",".join("?" * len(part))
            known.update(self.query(f"SELECT text_hash, id FROM vectors WHERE text_hash IN ({marks})", part))
        return known

    def document_rows(self, keys: Iterable[str] | None = None) -> dict[str, int]:
        """Rows of the visible documents with these ids, or of all, by id, oldest first."""
        sql, parameters = "SELECT key, id FROM documents WHERE visible = 1", []
        if keys is not None:
            sql, parameters = f"{sql} AND key IN (SELECT value FROM json_each(?))", [json.dumps(list(keys))]
        return dict(self.query(f"{sql} ORDER BY id", parameters))

    def check_none_missing(self, wanted: Iterable[int], found: Container[int]) -> None:
        """Make sure that all passages, or vectors, are found that an index named in the same state.

        Raises:
            IndexCorrupt: one is not.
        """
        missing = next((i for i in wanted if i not in found), None)
        if missing is not None:
            raise self._damaged(f"does not show what its indexes name ({missing})")

    def _records(self, table: str, columns: str, ids: Iterable[int]) -> Iterator[Any]:
        """Rows of a table by id, each compared with its checksum."""
        for *row, checksum in self._of_ids(f"SELECT {columns}, checksum FROM {table} WHERE id IN ({{}})", ids):
            if checksum_record(row) != checksum:
                raise self._damaged(f"has a damaged row ({row[0]} of {table})")
            yield row

    def _document(self, record: Sequence[Any]) -> Document:
        try:
            return unpack_document(record)
        except ValueError as error:
            raise self._damaged(f"has a damaged row ({record[0]} of documents: {error})") from error

    def texts_of_chunks(self, chunk_ids: Iterable[int]) -> dict[int, str]:
        """The passages with these chunk ids, without their documents."""
        return dict(self._of_ids("SELECT id, text FROM chunks WHERE id IN ({})", chunk_ids))

    def duplicates(self, chunk_ids: Iterable[int]) -> dict[int, Duplicate]:
        """Where the passages with these chunk ids stand, all found in the same state.

        Raises:
            IndexCorrupt: one is not there, or not what was written.
        """
        chunk_ids = list(chunk_ids)
        chunks = list(self._records("chunks", CHUNK_COLUMNS, chunk_ids))
        documents = {row[0]: row for row in self._records("documents", DOCUMENT_COLUMNS, {row[1] for row in chunks})}
        sql = "SELECT id FROM documents WHERE visible = 1 AND id IN ({})"
        shown = {row[0] for row in self._of_ids(sql, documents)}
        found = {}
        for chunk_id, document_id, _, _, _, line_start, _, heading, page, *_ in chunks:
            if document_id in shown:
                _, key, _, title, source, *_ = documents[document_id]
                found[chunk_id] = Duplicate(chunk_id, key, source, title, line_start, page, heading)
        self.check_none_missing(chunk_ids, found)
        return found

    def _of_ids(self, sql: str, ids: Iterable[int]) -> list[Any]:
        """Rows of a statement about some ids, which it names by `{}`. Its text is the same for any number of them."""
        sql, wanted = sql.format("SELECT value FROM json_each(?)"), [int(i) for i in ids if abs(i) <= MAX_ID]
        parts = (json.dumps(wanted[first : first + MAX_IDS]) for first in range(0, len(wanted), MAX_IDS))
        return [row for part in parts for row in self.query(sql, [part])]
