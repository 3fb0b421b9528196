"""Comparing what is on disk with what was written: the database's bytes and rows, and the files beside it."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsearch.errors import IndexCorrupt
from semsearch.store.checksums import checksum_file, checksum_record, hash_key, text_hash
from semsearch.store.files import DATABASE, LOCK
from semsearch.store.metadata import DATABASE_DAMAGE, connect, unpack_document
from semsearch.store.schema import CHUNK_COLUMNS, DOCUMENT_COLUMNS
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
    "seal_state",
]

BATCH = 200  # documents


@dataclass(slots=True)
class BadRows:
    """What is wrong with documents and passages.

    Attributes:
        n_documents, n_chunks: how many were looked at.
        documents: by row, the ids of those of which something is not what was written, or that contradict themselves.
        hashes: by vector id, the hash that its text should be known by and is not.
    """

    n_documents: int = 0
    n_chunks: int = 0
    documents: dict[int, str] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)


def seal_state(path: Path) -> tuple[list[str], list[str]]:
    """(what is wrong, what is worth knowing) about the bytes of the database's files."""
    try:
        sums = read_seal(path)
    except FileNotFoundError:
        return [f"{SEAL} is missing"], []
    except IndexCorrupt:
        return [f"{SEAL} is damaged"], []
    if sums is None:
        return [], ["the last run was cut off: the database is judged by its rows, not by its bytes"]
    return [f"{name} is not what the last run left" for name in broken_files(path, sums)], []


def integrity_problems(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with a database: its pages, its indexes, references to rows that are not there."""
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)").fetchall()]
        if found != ["ok"]:
            return [line for text in found for line in text.splitlines()]
        orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(20)
    except DATABASE_DAMAGE as error:
        return [str(error)]
    return [f"row {row} of {table} refers to a row of {other} that is not there" for table, row, other, _ in orphans]


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
    documents = f"SELECT {DOCUMENT_COLUMNS}, checksum, visible, content FROM documents WHERE id > ? ORDER BY id LIMIT ?"
    with contextlib.closing(connect(path, read_only=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # bad bytes spoil one row
        n_all = connection.execute("SELECT count(*) FROM documents").fetchone()[0]
        while rows := connection.execute(documents, [last, BATCH]).fetchall():
            texts = {row[0]: _document_text(row) for row in rows}
            names = {row[0]: str(row[1]) for row in rows}
            shown = {row[0] for row in rows if row[-2]}
            bad.documents.update((i, names[i]) for i, text in texts.items() if text is None)
            places: dict[int, list[tuple[int, int, int]]] = {}
            for *chunk, checksum, known in connection.execute(_CHUNKS, [rows[0][0], rows[-1][0]]):
                bad.n_chunks += 1
                document_id, start, end, text, vector_id = chunk[1], chunk[3], chunk[4], chunk[9], chunk[10]
                whole = texts.get(document_id)
                if checksum_record(chunk) != checksum or (whole is not None and whole[start:end] != text):
                    bad.documents[document_id] = names.get(document_id, "?")
                    continue
                places.setdefault(document_id, []).append((chunk[2], start, end))
                if document_id in shown and (expected := text_hash(text, key)) != known:
                    bad.hashes[vector_id] = expected
            for document_id, whole in texts.items():
                if whole is not None and not _covers(sorted(places.get(document_id, [])), whole):
                    bad.documents[document_id] = names[document_id]
            bad.n_documents += len(rows)
            progress(bad.n_documents, n_all)
            last = rows[-1][0]
    return bad


_CHUNKS = (
    f"SELECT {CHUNK_COLUMNS}, checksum, (SELECT text_hash FROM vectors v WHERE v.id = vector_id) FROM chunks "
    "WHERE document_id BETWEEN ? AND ?"
)


def _covers(places: Sequence[tuple[int, int, int]], text: str) -> bool:
    """Whether passages, (ordinal, start, end) in order, are all that a text was cut into: between them is no word."""
    at = 0
    for expected, (ordinal, start, end) in enumerate(places):
        if ordinal != expected or _has_word(text, at, start):
            return False
        at = max(at, end)
    return not _has_word(text, at, len(text))


def _has_word(text: str, start: int, end: int) -> bool:
    return any(map(str.isalnum, text[start:end]))  # other signs may be nothing to a model, and in no passage


def _document_text(row: tuple[Any, ...]) -> str | None:
    """The text of a document whose row is as it was written, else None."""
    *record, checksum, _, content = row
    _, key, _, title, source, metadata, layout, _ = record
    if checksum_record(record) != checksum:
        return None
    try:
        return unpack_document((key, content, title, source, metadata, layout)).text
    except (zlib.error, ValueError, TypeError):
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
