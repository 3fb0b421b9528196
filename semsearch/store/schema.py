"""The tables of `store.db` and how an older index becomes a current one."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable

from semsearch.errors import IndexIncompatible
from semsearch.store.checksums import checksum_record
from semsearch.store.fields import enter_fields_of_all, enter_several

__all__ = [
    "CHUNK_COLUMNS",
    "DOCUMENT_COLUMNS",
    "FORMAT_VERSION",
    "check_format",
    "check_tables",
    "migrate",
    "table_names",
]

# What the checksum of a row covers, in this order. `documents.content` has one of its own, zlib's.
CHUNK_COLUMNS = 'id, document_id, ordinal, start, "end", line_start, line_end, heading, page, text, vector_id'
DOCUMENT_COLUMNS = "id, key, path, title, source, metadata, layout, content_hash"

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


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Format 3: checksums of what a hit is made of, and of the files beside the database.

    `checksums` has a row a file, by its path in the folder of the index.
    """
    for table, columns in (("documents", DOCUMENT_COLUMNS), ("chunks", CHUNK_COLUMNS), ("meta", "key, value")):
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


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create,
    _drop_leftovers,
    _add_checksums,
    _add_field_values,
    _mark_several,
)
"""Entry i takes format i to format i + 1."""

FORMAT_VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database, empty or of an older format, to the current one in one transaction.

    Raises:
        IndexIncompatible: it was written by a newer semsearch.
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
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def check_format(connection: sqlite3.Connection) -> int:
    """The format of a database.

    Raises:
        IndexIncompatible: it was written by a newer semsearch, or by another program.
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
    return version


def check_tables(connection: sqlite3.Connection) -> None:
    """Make sure that the tables of a database of the current format are those of an index.

    Raises:
        sqlite3.DatabaseError: they are others.
    """
    if _tables_of(connection) != _expected_tables():
        raise sqlite3.DatabaseError("its tables are not those of an index")


def table_names() -> list[str]:
    """The tables of the current format."""
    return sorted(name for kind, name, *_ in _expected_tables() if kind == "table")


@functools.cache
def _expected_tables() -> frozenset[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        return _tables_of(connection)


def _tables_of(connection: sqlite3.Connection) -> frozenset[tuple[str, ...]]:
    """(kind, name, table, SQL) of all but SQLite's own."""
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    return frozenset(connection.execute(sql).fetchall())
