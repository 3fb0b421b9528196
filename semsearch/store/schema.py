"""The tables of `store.db` and how an older index becomes a current one."""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from semsearch.errors import IndexIncompatible
from semsearch.store.checksums import checksum_record
from semsearch.store.fields import enter_fields_of_all, enter_several

__all__ = [
    "CHUNK_COLUMNS",
    "COUNT",
    "DOCUMENT_COLUMNS",
    "FORMAT_VERSION",
    "MAX_LAST_ID",
    "check_format",
    "check_kinds",
    "check_tables",
    "check_values",
    "kinds",
    "migrate",
]

# What the checksum of a row covers, in this order. `documents.content` has one of its own, zlib's.
CHUNK_COLUMNS = 'id, document_id, ordinal, start, "end", line_start, line_end, heading, page, text, vector_id'
DOCUMENT_COLUMNS = "id, key, path, title, source, metadata, layout, content_hash, n_chunks"

COUNT = (
    "SELECT count(*), count(DISTINCT vector_id), count(DISTINCT d.id), "
    "(SELECT count(*) FROM documents WHERE visible = 1) "
    "FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
)
"""Visible passages, the distinct vectors they have, the documents they belong to, and all documents."""

MAX_LAST_ID = 2**48  # of a row of any table; larger ones come of damage

APPLICATION_ID = 0x53454D53  # "SEMS": tells our databases from others that happen to be called store.db


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables of format 1.

    `documents.visible` is 0 while a run gathers its work; one commit at its end makes it all 1. `vectors` has a row a
    distinct text and model, so that a text is encoded once however often and wherever it occurs.
    """
    statements = """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE roots (
            path TEXT PRIMARY KEY, globs TEXT NOT NULL, excludes TEXT NOT NULL, text_column TEXT
        ) WITHOUT ROWID;
        CREATE TABLE files (
            path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, content_hash BLOB,
            status TEXT NOT NULL, reason TEXT NOT NULL, checked_ns INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE pending_files (
            path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, content_hash BLOB,
            status TEXT NOT NULL, reason TEXT NOT NULL, checked_ns INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE documents (
            id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, path TEXT, title TEXT NOT NULL,
            source TEXT NOT NULL, metadata TEXT NOT NULL, layout TEXT NOT NULL, content BLOB NOT NULL,
            content_hash BLOB NOT NULL, visible INTEGER NOT NULL
        );
        CREATE UNIQUE INDEX documents_key ON documents (key, visible);
        CREATE INDEX documents_path ON documents (path);
        CREATE INDEX documents_hidden ON documents (id) WHERE visible = 0;
        CREATE TABLE vectors (id INTEGER PRIMARY KEY AUTOINCREMENT, text_hash BLOB NOT NULL UNIQUE);
        CREATE TABLE chunks (
            id INTEGER PRIMARY KEY AUTOINCREMENT, document_id INTEGER NOT NULL REFERENCES documents (id)
            ON DELETE CASCADE, ordinal INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
            line_start INTEGER NOT NULL, line_end INTEGER NOT NULL, heading TEXT NOT NULL, page INTEGER,
            text TEXT NOT NULL, vector_id INTEGER NOT NULL REFERENCES vectors (id)
        );
        CREATE INDEX chunks_document ON chunks (document_id);
        CREATE INDEX chunks_vector ON chunks (vector_id);
        CREATE TABLE shards (
            name TEXT PRIMARY KEY, n_rows INTEGER NOT NULL, fingerprint TEXT NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE lexical_leftovers (chunk_id INTEGER PRIMARY KEY);
    """
    for statement in statements.split(";"):
        connection.execute(statement)


def _drop_leftovers(connection: sqlite3.Connection) -> None:
    """Format 2: `meta.lexical` names the folder of the lexical index, which holds what is visible and nothing else.

    An index of format 1 has it in `lexical`, where chunks could be that SQLite had dropped.
    """
    connection.execute("DROP TABLE lexical_leftovers")


_DOCUMENT_COLUMNS_3 = "id, key, path, title, source, metadata, layout, content_hash"


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Format 3: checksums of what a hit is made of, and of the files beside the database.

    `checksums` has a row a file, by its path in the folder of the index.
    """
    for table, columns in (("documents", _DOCUMENT_COLUMNS_3), ("chunks", CHUNK_COLUMNS), ("meta", "key, value")):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum BLOB")
        key = columns.partition(",")[0]
        rows = connection.execute(f"SELECT {columns} FROM {table}")
        sums = ((checksum_record(row), row[0]) for row in rows.fetchall())
        connection.executemany(f"UPDATE {table} SET checksum = ? WHERE {key} = ?", sums)
    connection.execute(
        "CREATE TABLE checksums (path TEXT PRIMARY KEY, size INTEGER NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"
    )


def _add_field_values(connection: sqlite3.Connection) -> None:
    """Format 4: the values of documents' fields, for filters; the vectors of a document by an index alone."""
    statements = """
        CREATE TABLE field_values (
            document_id INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE, field TEXT NOT NULL,
            kind INTEGER NOT NULL, value NOT NULL, PRIMARY KEY (document_id, field, kind, value)
        ) WITHOUT ROWID;
        CREATE INDEX field_values_value ON field_values (field, kind, value);
        CREATE INDEX files_modified ON files (mtime_ns);
        DROP INDEX chunks_document;
        CREATE INDEX chunks_document ON chunks (document_id, vector_id);
    """
    for statement in statements.split(";"):
        connection.execute(statement)
    enter_fields_of_all(connection)


def _mark_several(connection: sqlite3.Connection) -> None:
    """Format 5: which documents have several numbers or dates in a field, so that ranges are one look-up for others."""
    connection.execute("DELETE FROM field_values WHERE kind = 5")
    enter_several(connection)


def _cover_roots_and_counts(connection: sqlite3.Connection) -> None:
    """Format 6: checksums cover the roots, which go into `meta`, and how many passages a document has.

    A document whose checksum was wrong, or of which words are in no passage, gets none that is right. Raises ValueError
    where roots cannot be what was written.
    """
    roots = {}
    for path, *patterns, column in connection.execute("SELECT * FROM roots ORDER BY path").fetchall():
        globs, excludes = map(json.loads, patterns)
        if not all(isinstance(p, list) and all(isinstance(q, str) for q in p) for p in (globs, excludes)):
            raise ValueError(f"the patterns of {path} are none")
        roots[path] = {"globs": globs, "excludes": excludes, "text_column": column}
    connection.execute("DROP TABLE roots")
    connection.execute("ALTER TABLE documents ADD COLUMN n_chunks INTEGER NOT NULL DEFAULT 0")
    renewed = []
    documents = f"SELECT {_DOCUMENT_COLUMNS_3}, checksum, content FROM documents"
    chunks = 'SELECT ordinal, start, "end" FROM chunks WHERE document_id = ? ORDER BY ordinal'
    for *row, checksum, content in connection.execute(documents):
        places = connection.execute(chunks, [row[0]]).fetchall()
        is_sound = checksum_record(row) == checksum and _covers(places, content)
        renewed.append((len(places), checksum_record((*row, len(places))) if is_sound else b"", row[0]))
    connection.executemany("UPDATE documents SET n_chunks = ?, checksum = ? WHERE id = ?", renewed)
    if connection.execute("SELECT count(*) FROM meta").fetchone()[0]:  # not in an index that is only being made
        values = {"roots": roots, "counts": connection.execute(COUNT).fetchone()}
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        upsert = "INSERT OR REPLACE INTO meta (key, value, checksum) VALUES (?, ?, ?)"
        connection.executemany(upsert, [(*row, checksum_record(row)) for row in rows])


def _covers(places: Sequence[tuple[int, int, int]], content: bytes) -> bool:
    """Whether passages, (ordinal, start, end) in order, are all that a text was cut into: between them is no word."""
    try:
        text, at = zlib.decompress(content).decode("utf-8"), 0
    except (zlib.error, UnicodeDecodeError, TypeError):
        return False
    for expected, (ordinal, start, end) in enumerate([*places, (len(places), len(text), len(text))]):
        if ordinal != expected or any(map(str.isalnum, text[at:start])):
            return False
        at = max(at, end)
    return True


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create,
    _drop_leftovers,
    _add_checksums,
    _add_field_values,
    _mark_several,
    _cover_roots_and_counts,
)
"""Entry i takes format i to format i + 1."""

FORMAT_VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database, empty or of an older format, to the current one in one transaction.

    Raises:
        IndexIncompatible: it was written by a newer semsearch.
        sqlite3.DatabaseError: it holds what was not written.
    """
    version = check_format(connection)
    if version == FORMAT_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in MIGRATIONS[version:]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:  # SQLite itself has taken it back where there is no room
            connection.execute("ROLLBACK")
        if isinstance(error, ValueError | TypeError | RecursionError):  # of a text that is no JSON
            raise sqlite3.DatabaseError(str(error)) from error
        raise


def check_format(connection: sqlite3.Connection) -> int:
    """The format of a database.

    Raises:
        IndexIncompatible: it was written by a newer semsearch, or by another program.
        sqlite3.DatabaseError: it says that it is of an older format than its tables. (A format that changes no table
            needs another sign than these; `tests/compat` would tell.)
    """
    # Asked in this order, since a writer that makes the tables just now sets all three at once.
    has_tables = bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if has_tables and owner != APPLICATION_ID:
        raise IndexIncompatible(
            "the store.db there is another application's database; name another folder with --index"
        )
    if version > FORMAT_VERSION:
        raise IndexIncompatible(
            f"the index has format {version}, and this semsearch reads up to {FORMAT_VERSION}. "
            "Upgrade it: pip install --upgrade semsearch"
        )
    if has_tables and version < FORMAT_VERSION and _tables_of(connection) == _expected().tables:
        raise sqlite3.DatabaseError(f"it says that it is of format {version}, and has the tables of {FORMAT_VERSION}")
    return version


def check_tables(connection: sqlite3.Connection) -> None:
    """Make sure that the tables of a database of the current format are those of an index.

    Raises:
        sqlite3.DatabaseError: they are others.
    """
    if _tables_of(connection) != _expected().tables:
        raise sqlite3.DatabaseError("its tables are not those of an index")


def check_values(connection: sqlite3.Connection) -> None:
    """Make sure that the tables of a database of the current format hold what they are for, and give no id twice.

    Raises:
        sqlite3.DatabaseError: one does not.
    """
    check_kinds(connection, _expected().kinds)
    for table in ("chunks", "documents", "vectors"):
        largest = f"(SELECT max(id) FROM {table})"
        is_known = f"typeof(seq) = 'integer' AND seq BETWEEN {largest} AND {MAX_LAST_ID}"
        sql = f"SELECT {largest} IS NULL OR (SELECT {is_known} FROM sqlite_sequence WHERE name = '{table}')"
        if not connection.execute(sql).fetchone()[0]:
            raise sqlite3.DatabaseError(f"the last id of {table} is not known")


def check_kinds(connection: sqlite3.Connection, tables: Iterable[str]) -> None:
    """Make sure that tables of a database of the current format hold values of the kinds that their columns are for.

    Raises:
        sqlite3.DatabaseError: one is of another.
    """
    for table in tables:
        if connection.execute(f"SELECT 1 FROM {table} WHERE NOT ({kinds(table)}) LIMIT 1").fetchone():
            raise sqlite3.DatabaseError(f"its table {table} holds values of other kinds than were written")


def kinds(table: str) -> str:
    """An SQL condition: that all values of a row are of the kinds the columns of its table are for."""
    return _expected().kinds[table]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a database of the current format has: its tables as `_tables_of` gives them, `kinds` by table."""

    tables: frozenset[tuple[str, ...]]
    kinds: Mapping[str, str]


@functools.cache
def _expected() -> _Expected:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        tables, conditions = _tables_of(connection), {}
        for table in sorted(name for kind, name, *_ in tables if kind == "table"):
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            conditions[table] = " AND ".join(
                f"""typeof("{name}") IN ('{kind.lower()}'{"" if must_be or is_key else ", 'null'"})"""
                for _, name, kind, must_be, _, is_key in columns
                if kind
            )
    return _Expected(tables, conditions)


def _tables_of(connection: sqlite3.Connection) -> frozenset[tuple[str, ...]]:
    """(kind, name, table, SQL) of all but SQLite's own."""
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    return frozenset(connection.execute(sql).fetchall())
