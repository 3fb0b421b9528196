"""Reading `store.db`, the truth of an index: what it was built with, its chunks and its documents."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsearch.errors import IndexCorrupt, IndexNotFound, InvalidInput
from semsearch.store.files import DATABASE, index_path
from semsearch.store.schema import FORMAT_VERSION, check_format
from semsearch.types import Chunk, Document, Duplicate, Heading

__all__ = ["COUNT", "FileState", "Store", "connect", "read_meta", "unpack_document"]

BUSY_TIMEOUT_S = 30.0
COUNT = (
    "SELECT count(*), count(DISTINCT vector_id), count(DISTINCT d.id) FROM chunks c "
    "JOIN documents d ON d.id = document_id WHERE visible = 1"
)
MAX_VARIABLES = 900  # of one SQL statement; SQLite allows 999 at least


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


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a `store.db`; transactions are begun by hand.

    Raises:
        IndexNotFound: there is none and `read_only`.
    """
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"{(path / DATABASE).absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.OperationalError as error:
        raise IndexCorrupt(f"{path / DATABASE} cannot be opened: {error}") from error
    return connection


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """All of the `meta` table."""
    return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta")}


def unpack_document(row: Sequence[Any]) -> Document:
    """A document from its columns key, content, title, source, metadata, layout."""
    key, content, title, source, metadata, layout = row
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
            raise IndexNotFound(f"there is no index in {path}. Make one with: {_make_command(path)}")
        self._lock = threading.RLock()
        self._connection = connect(path, read_only=True)
        try:
            version = check_format(self._connection)
            complete = version == FORMAT_VERSION and "model" in read_meta(self._connection)
        except sqlite3.DatabaseError as error:
            raise IndexCorrupt(
                f"{path / DATABASE} is not a readable database ({error}). Move {path} away and index again"
            ) from error
        if not complete:
            raise IndexNotFound(f"the index in {path} was never finished. Finish it with: {_make_command(path)}")

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[dict[str, Any]]:
        """Hold one state of the index, whatever a writer commits meanwhile; gives its meta values."""
        with self._lock:
            try:
                self._connection.execute("BEGIN")
            except sqlite3.ProgrammingError as error:
                raise InvalidInput(f"the index {self.path} has been closed; open it again") from error
            try:
                yield read_meta(self._connection)
            except sqlite3.DatabaseError as error:
                raise IndexCorrupt(f"{self.path / DATABASE} cannot be read: {error}") from error
            finally:
                self._connection.execute("ROLLBACK")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def shard_names(self, fingerprint: str) -> list[str]:
        """Shards of the model with this fingerprint, in order."""
        return [
            name for (name,) in self.query("SELECT name FROM shards WHERE fingerprint = ? ORDER BY name", [fingerprint])
        ]

    def count_chunks(self) -> tuple[int, int, int]:
        """Visible chunks, the distinct vectors they have, and the documents they belong to."""
        meta = dict(self.query("SELECT key, value FROM meta WHERE key IN ('generation', 'counts')"))
        generation, *counts = json.loads(meta.get("counts", "[0]"))
        if generation != json.loads(meta["generation"]):  # written by a version that did not count
            counts = self.query(COUNT)[0]
        n_chunks, n_vectors, n_documents = counts
        return int(n_chunks), int(n_vectors), int(n_documents)

    def chunks_of_vectors(self, vector_ids: Iterable[int]) -> list[tuple[int, int, int]]:
        """Visible (chunk id, document row, vector id) that have one of these vectors, by chunk id."""
        return self._places("vector_id", vector_ids)

    def places_of_chunks(self, chunk_ids: Iterable[int]) -> list[tuple[int, int, int]]:
        """(chunk id, document row, vector id) of those of these chunks that are visible, by chunk id."""
        return self._places("c.id", chunk_ids)

    def _places(self, column: str, ids: Iterable[int]) -> list[tuple[int, int, int]]:
        sql = (
            "SELECT c.id, c.document_id, c.vector_id FROM chunks c JOIN documents d ON d.id = c.document_id "
            f"WHERE d.visible = 1 AND {column} IN ({{}})"
        )
        return sorted(tuple(row) for row in self._in_parts(sql, ids))

    def hydrate(self, chunk_ids: Sequence[int]) -> dict[int, tuple[Chunk, Document]]:
        """The chunks with these ids and the documents around them; ids the index does not show are left out."""
        columns = (
            'c.id, c.document_id, c.ordinal, c.text, c.start, c."end", c.line_start, c.line_end, c.heading, c.page'
        )
        rows = list(self._in_parts(f"SELECT {columns} FROM chunks c WHERE c.id IN ({{}})", chunk_ids))
        sql = "SELECT id, key, content, title, source, metadata, layout FROM documents WHERE visible = 1 AND id IN ({})"
        documents = {d[0]: unpack_document(d[1:]) for d in self._in_parts(sql, {row[1] for row in rows})}
        return {
            row[0]: (Chunk(row[0], documents[row[1]].id, *row[2:]), documents[row[1]])
            for row in rows
            if row[1] in documents
        }

    def texts_of_chunks(self, chunk_ids: Iterable[int]) -> dict[int, str]:
        """The passages with these chunk ids, without their documents."""
        return dict(self._in_parts("SELECT id, text FROM chunks WHERE id IN ({})", chunk_ids))

    def duplicates(self, chunk_ids: Iterable[int]) -> dict[int, Duplicate]:
        """Where the passages with these chunk ids stand; ids the index does not show are left out."""
        sql = (
            "SELECT c.id, d.key, d.source, d.title, c.line_start, c.page FROM chunks c "
            "JOIN documents d ON d.id = c.document_id WHERE d.visible = 1 AND c.id IN ({})"
        )
        return {row[0]: Duplicate(*row) for row in self._in_parts(sql, chunk_ids)}

    def _in_parts(self, sql: str, ids: Iterable[int]) -> Iterator[Any]:
        wanted = [int(i) for i in ids]
        for first in range(0, len(wanted), MAX_VARIABLES):
            part = wanted[first : first + MAX_VARIABLES]
            yield from self.query(sql.format(",".join("?" * len(part))), part)


def _make_command(path: Path) -> str:
    """The command that makes this index, as short as it can be."""
    if path == index_path("default"):
        return "semsearch index FOLDER"
    named = path.parent == index_path("default").parent
    return f"semsearch index FOLDER --index {path.name if named else path}"
