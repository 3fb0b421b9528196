"""Comparing what is on disk with what was written: the database's bytes and rows, and the files beside it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsearch.errors import IndexCorrupt
from semsearch.store.checksums import checksum_file, checksum_record, hash_key, text_hash
from semsearch.store.files import DATABASE, LOCK
from semsearch.store.metadata import DATABASE_DAMAGE, Store, connect, unpack_document
from semsearch.store.schema import CHUNK_COLUMNS, DOCUMENT_COLUMNS, check_values, kinds
from semsearch.store.sealing import SEAL, broken_files, read_seal
from semsearch.store.tokens import TOKEN_FILES
from semsearch.store.vectors import shard_files
from semsearch.store.writing import IGNORE, IGNORE_EVERYTHING

__all__ = [
    "BadRows",
    "bad_rows",
    "damaged_files",
    "folder_damage",
    "integrity_problems",
    "leftover_files",
    "n_lost",
    "seal_state",
]

BATCH = 200  # documents


@dataclass(slots=True)
class BadRows:
    """What is wrong with documents and passages.

    Attributes:
        n_documents, n_chunks: how many were looked at.
        n_shown: visible documents.
        documents: by row, the ids of those of which something is not what was written, or that contradict themselves.
        hidden: by row, the ids of sound ones that are not visible.
        hashes: by vector id, the hash that its text should be known by and is not.
    """

    n_documents: int = 0
    n_chunks: int = 0
    n_shown: int = 0
    documents: dict[int, str] = field(default_factory=dict)
    hidden: dict[int, str] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)


def seal_state(path: Path) -> tuple[list[str], list[str]]:
    """(what is wrong, what is worth knowing) about the bytes of the database's files."""
    try:
        known = read_seal(path)
    except FileNotFoundError:
        return [f"{SEAL} is missing"], []
    except IndexCorrupt:
        return [f"{SEAL} is damaged"], []
    if known is None:
        return [], ["the last run was cut off: the database is judged by its rows, not by its bytes"]
    if known.is_of_repair:
        return ["the last repair was cut off"], []
    return [f"{name} is not what the last run left" for name in broken_files(path, known)], []


def integrity_problems(connection: sqlite3.Connection, *, with_values: bool = False) -> list[str]:
    """What SQLite finds wrong with a database: its pages, its indexes, references to rows that are not there.

    With `with_values` also values that its tables are not for.
    """
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)").fetchall()]
        if found != ["ok"]:
            return [line for text in found for line in text.splitlines()]
        orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(20)
        if with_values:
            check_values(connection)
    except DATABASE_DAMAGE as error:
        return [str(error)]
    said = (f"a row of {table} refers to one of {other} that is not there" for table, _, other, _ in orphans)
    return list(dict.fromkeys(said))


def bad_rows(path: Path, fingerprint: str, progress: Callable[[int, int], None]) -> BadRows:
    """Compare all documents and passages with their checksums, each other, and the hashes of their texts.

    Args:
        path: of the index.
        fingerprint: of its model.
        progress: called with the number of documents looked at so far and of all.

    Raises:
        sqlite3.DatabaseError, UnicodeDecodeError: the tables cannot be read.
    """
    bad, key, last = BadRows(), hash_key(fingerprint), 0
    with contextlib.closing(connect(path, read_only=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # bad bytes spoil one row
        n_all = connection.execute("SELECT count(*) FROM documents").fetchone()[0]
        while rows := connection.execute(_DOCUMENTS, [last, BATCH]).fetchall():
            texts = {row[0]: _sound_text(row) for row in rows}
            shown = {row[0] for row in rows if row[1]}
            ordinals: dict[int, list[int]] = {row_id: [] for row_id in texts}
            for known, is_of_kinds, *chunk, checksum in connection.execute(_CHUNKS, [rows[0][0], rows[-1][0]]):
                bad.n_chunks += 1
                _, row_id, ordinal, start, end, *_, text, vector_id = chunk
                whole = texts.get(row_id)
                if whole is None:
                    continue
                if not is_of_kinds or checksum_record(chunk) != checksum or whole[start:end] != text:
                    texts[row_id] = None
                    continue
                ordinals[row_id].append(ordinal)
                if row_id in shown and (expected := text_hash(text, key)) != known:
                    bad.hashes[vector_id] = expected
            for row_id, _, _, *record in rows:
                name, n_chunks = _as_text(record[1]), record[N_CHUNKS]
                if texts[row_id] is None or sorted(ordinals[row_id]) != list(range(n_chunks)):
                    bad.documents[row_id] = name
                elif row_id not in shown:
                    bad.hidden[row_id] = name
            bad.n_shown += len(shown)
            bad.n_documents += len(rows)
            progress(bad.n_documents, n_all)
            last = rows[-1][0]
    return bad


def n_lost(store: Store, rows: BadRows) -> int:
    """Visible documents that were counted when the state of a snapshot was written, and are not there any more."""
    return max(store.counts().documents - rows.n_shown, 0)


N_CHUNKS = DOCUMENT_COLUMNS.split(", ").index("n_chunks")
_DOCUMENTS = (
    f"SELECT id, visible, visible IN (0, 1) AND {kinds('documents')}, {DOCUMENT_COLUMNS}, checksum, content "
    "FROM documents WHERE id > ? ORDER BY id LIMIT ?"
)
_CHUNKS = (
    f"SELECT (SELECT text_hash FROM vectors v WHERE v.id = vector_id), {kinds('chunks')}, {CHUNK_COLUMNS}, checksum "
    "FROM chunks WHERE document_id BETWEEN ? AND ?"
)


def _as_text(key: object) -> str:
    """The id of a document, whatever damage has made of it."""
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def _sound_text(row: Sequence[Any]) -> str | None:
    """The text of a document, from a row of `_DOCUMENTS`, if that is as it was written."""
    _, _, is_of_kinds, *record = row
    try:
        return unpack_document(record).text if is_of_kinds else None
    except ValueError:
        return None


def damaged_files(path: Path, known: Mapping[str, tuple[int, bytes]]) -> dict[str, str]:
    """By path in the index, what is wrong with those of these files that are not of this size and checksum."""
    wrong = {}
    for name, expected in known.items():
        try:
            size = (path / name).stat().st_size
            if size != expected[0]:
                wrong[name] = f"{name} has {size:,} bytes instead of {expected[0]:,}"
            elif checksum_file(path / name) != expected:
                wrong[name] = f"{name} is not what was written"
        except FileNotFoundError:
            wrong[name] = f"{name} is missing"
    return wrong


def folder_damage(path: Path) -> list[str]:
    """What is wrong with what is neither the database nor derived from it."""
    ignore = path / IGNORE
    if not ignore.is_file():
        return [f"{IGNORE} is missing"]
    return [] if ignore.read_bytes() == IGNORE_EVERYTHING else [f"{IGNORE} is not what was written"]


def leftover_files(path: Path, known: Mapping[str, object], shards: list[str]) -> Iterator[str]:
    """Files in the index, by path in it, that nothing names: those of runs that were cut off, or of other programs."""
    named = {IGNORE, SEAL, LOCK, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *TOKEN_FILES, *known}
    named.update(f"vectors/{file}" for name in shards for file in shard_files(name))
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name not in named and file.suffix != ".lock":
            yield name
