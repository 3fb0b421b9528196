"""A database of today's format made one of an older, as far as the tables and `meta` go."""

from __future__ import annotations

import json
import sqlite3

from semsearch.store.checksums import checksum_record

__all__ = ["make_older"]


def make_older(connection: sqlite3.Connection, version: int) -> None:
    """Take back what the formats after this one, 1, 2 or 3, have added."""
    connection.execute(
        "CREATE TABLE roots (path TEXT PRIMARY KEY, globs TEXT NOT NULL, excludes TEXT NOT NULL, text_column TEXT) "
        "WITHOUT ROWID"
    )
    (roots,) = connection.execute("SELECT value FROM meta WHERE key = 'roots'").fetchone()
    connection.executemany(
        "INSERT INTO roots VALUES (?, ?, ?, ?)",
        [
            (path, json.dumps(how["globs"]), json.dumps(how["excludes"]), how["text_column"])
            for path, how in json.loads(roots).items()
        ],
    )
    connection.execute("DELETE FROM meta WHERE key = 'roots'")
    connection.execute("ALTER TABLE documents DROP COLUMN n_chunks")
    columns = "id, key, path, title, source, metadata, layout, content_hash"
    sums = [(checksum_record(row), row[0]) for row in connection.execute(f"SELECT {columns} FROM documents")]
    connection.executemany("UPDATE documents SET checksum = ? WHERE id = ?", sums)
    for statement in (
        "DROP TABLE field_values",
        "DROP INDEX files_modified",
        "DROP INDEX chunks_document",
        "CREATE INDEX chunks_document ON chunks (document_id)",
        f"PRAGMA user_version = {version}",
    ):
        connection.execute(statement)
    if version < 3:
        connection.execute("DROP TABLE checksums")
        for table in ("documents", "chunks", "meta"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    if version == 1:
        connection.execute("DELETE FROM meta WHERE key = 'lexical'")
        connection.execute("CREATE TABLE lexical_leftovers (chunk_id INTEGER PRIMARY KEY)")
