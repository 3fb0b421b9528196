"""What is kept of the tokens of passages, by the hash of passage and model, in a database beside `store.db`.

Nothing refers to it: what is missing or damaged here is read by the model when a search needs it, which takes time and
nothing else. Every row proves itself, so the file needs no seal.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from semsearch.errors import IndexCorrupt, InvalidInput
from semsearch.store.checksums import RECORD_BYTES
from semsearch.store.metadata import DATABASE_DAMAGE, MAX_VARIABLES, connect, is_unwritable

__all__ = ["TOKENS", "TOKEN_FILES", "TokenReader", "TokenWriter"]

T = TypeVar("T")
TOKENS = "tokens.db"
TOKEN_FILES = (TOKENS, f"{TOKENS}-wal", f"{TOKENS}-shm")
VERSION = 1  # raise it when the codes would mean other vectors: what has another is not read, and is made anew
UNREADABLE = (*DATABASE_DAMAGE, IndexCorrupt, InvalidInput, OSError)


class TokenReader:
    """The codes of an index's passages. Safe to use from several threads; what it cannot read, it does not have."""

    def __init__(self, path: Path) -> None:
        """Name the folder of an index, in which there need be none."""
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def get(self, hashes: Iterable[bytes]) -> dict[bytes, bytes]:
        """Codes by hash, of those of some passages that are there and are what was written."""
        with self._lock, contextlib.suppress(*UNREADABLE):
            self._follow()
            if self._connection is not None:
                rows = _rows(self._connection, list(hashes))
                return {key: codes for key, codes, checksum in rows if _checksum(key, codes) == checksum}
        return {}

    def count(self, hashes: Iterable[bytes]) -> int:
        """Of how many of some passages there is anything, be it what was written or not."""
        with self._lock, contextlib.suppress(*UNREADABLE):
            self._follow()
            if self._connection is not None:
                return sum(1 for _ in _rows(self._connection, list(hashes)))
        return 0

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._let_go()

    def _follow(self) -> None:
        """Open the database that lies there now, unless it is open."""
        try:
            facts = (self._path / TOKENS).stat()
        except FileNotFoundError:
            self._let_go()
            return
        file = (facts.st_dev, facts.st_ino)
        if self._connection is None or file != self._file:
            self._let_go()
            connection = connect(self._path, read_only=True, database=TOKENS)
            with contextlib.ExitStack() as stack:
                stack.callback(connection.close)
                if _version(connection) == VERSION:
                    self._connection, self._file = connection, file
                    stack.pop_all()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class TokenWriter:
    """The codes of an index, under its writer's lock. Not safe for several threads.

    A database that is damaged makes room for a new one, as if nothing had been kept.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder of an index; nothing is made or opened before it is needed."""
        self._path = path

    def add(self, codes: Mapping[bytes, bytes]) -> None:
        """Keep codes of passages, by hash, for good."""
        if codes:
            rows = [(key, value, _checksum(key, value)) for key, value in codes.items()]
            self._do(lambda: self._execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", rows))

    def missing(self, hashes: Collection[bytes]) -> list[bytes]:
        """Those of some passages of which nothing is kept."""
        known = self._do(self._known)
        return [key for key in hashes if key not in known]

    def keep_only(self, hashes: Collection[bytes]) -> None:
        """Drop what is of other passages."""
        if (self._path / TOKENS).exists():
            gone = [(key,) for key in self._do(self._known) if key not in hashes]
            self._do(lambda: self._execute("DELETE FROM tokens WHERE hash = ?", gone))

    def drop_unsound(self) -> None:
        """Drop rows that are not what was written."""

        def find() -> list[tuple[object]]:
            rows = self._connection.execute("SELECT rowid, hash, codes, checksum FROM tokens")
            return [(row[0],) for row in rows if _checksum(row[1], row[2]) != row[3]]

        bad = self._do(find)
        self._do(lambda: self._execute("DELETE FROM tokens WHERE rowid = ?", bad))

    def remove(self) -> None:
        """Keep nothing."""
        self.close()
        for name in (*TOKEN_FILES[1:], TOKENS):
            (self._path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the database, with all that was written in one file where no reader holds it open."""
        connection = self.__dict__.pop("_connection", None)
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

    def _do(self, work: Callable[[], T]) -> T:
        """Do some work, on a new database if the one that is there cannot be used."""
        try:
            return work()
        except DATABASE_DAMAGE as error:
            if is_unwritable(error):
                raise
        self.remove()
        return work()

    def _execute(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._connection:
            self._connection.executemany(sql, rows)

    def _known(self) -> set[bytes]:
        return {row[0] for row in self._connection.execute("SELECT hash FROM tokens")}

    @functools.cached_property
    def _connection(self) -> sqlite3.Connection:
        connection = connect(self._path, read_only=False, database=TOKENS)
        connection.isolation_level = "DEFERRED"
        try:
            if _version(connection) not in (0, VERSION):
                raise sqlite3.DatabaseError(f"{TOKENS} is of another version")
            connection.execute("PRAGMA auto_vacuum = FULL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # what a failing machine takes is made again
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS tokens "
                    "(hash BLOB PRIMARY KEY, codes BLOB NOT NULL, checksum BLOB NOT NULL)"
                )
                connection.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _rows(connection: sqlite3.Connection, hashes: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(hash, codes, checksum) of the rows with these hashes."""
    for first in range(0, len(hashes), MAX_VARIABLES):
        part = hashes[first : first + MAX_VARIABLES]
        sql = f"SELECT hash, codes, checksum FROM tokens WHERE hash IN ({','.join('?' * len(part))})"
        yield from connection.execute(sql, part)


def _checksum(key: bytes, codes: bytes) -> bytes:
    try:
        return hashlib.blake2b(codes, key=key, digest_size=RECORD_BYTES).digest()
    except (TypeError, ValueError):  # a damaged row may hold anything
        return b""
