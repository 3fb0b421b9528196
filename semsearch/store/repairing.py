"""Repairs of an index that is open to be written: each leaves it whole, in one commit."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.derived import LEXICAL, MAX_SHARD_ROWS, Derived, add_shard
from semsearch.store.fields import enter_fields_of_all
from semsearch.store.files import DATABASE, PART, sync_folder
from semsearch.store.inspecting import integrity_problems
from semsearch.store.metadata import DATABASE_DAMAGE, MAX_VARIABLES, NEEDED_META, connect, is_unwritable, parse_meta
from semsearch.store.salvage import salvage
from semsearch.store.schema import MAX_LAST_ID, kinds, migrate
from semsearch.store.sealing import MetaRows, break_seal, read_seal
from semsearch.store.vectors import shard_files
from semsearch.store.writing import StoreWriter
from semsearch.types import FloatArray, IntArray

__all__ = ["Kept", "Repairs", "rewrite_database"]

LIKELY_LAST_ID = 2**18  # of a table, where a larger one is not known
MAX_FAILED = 1_000_000  # ranges of rows that are halved, in some ten seconds


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What is left of the vectors of an index's model.

    Attributes:
        dim: of a vector.
        names: all shards of the model, in order.
        parts: (int64 (n,) ascending ids, float32 (n, dim) rows) of each.
        foreign: int64 ids in the shards of other models.
        lost: shards of other models that cannot be read.
    """

    dim: int
    names: tuple[str, ...]
    parts: tuple[tuple[IntArray, FloatArray], ...]
    foreign: IntArray
    lost: tuple[str, ...]

    @property
    def ids(self) -> IntArray:
        """int64 ids of all rows that are left."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(ids for ids, _ in self.parts)])


class Repairs:
    """What can be repaired of an index, through its writer."""

    def __init__(self, store: StoreWriter) -> None:
        self.store = store
        self._derived = Derived(store.path, store.db)

    # Vectors

    def kept_vectors(self, damaged: Collection[str]) -> Kept:
        """What is left of the vectors when these files, by path in the index, are not what was written."""
        folder, model = self.store.path / "vectors", self.store.meta["model"]
        own, foreign, lost = [], [np.empty(0, dtype=np.int64)], []
        for name, fingerprint in self.store.rows("SELECT name, fingerprint FROM shards ORDER BY name"):
            files = {file for file in shard_files(name) if f"vectors/{file}" in damaged}
            if fingerprint == model["fingerprint"]:
                own.append((name, files))
            elif files:
                lost.append(name)
            else:
                foreign.append(np.load(folder / shard_files(name)[1], mmap_mode="r", allow_pickle=False))
        names = [name for name, _ in own]
        bounds = [None if shard_files(n)[1] in files else _bounds(folder, n) for n, files in own]
        parts = []
        for i, (name, files) in enumerate(own):
            low = max((b[1] for b in bounds[:i] if b), default=0)
            high = min((b[0] for b in bounds[i + 1 :] if b), default=2**63 - 1)
            sql = "SELECT id FROM vectors WHERE id > ? AND id < ? ORDER BY id"
            may_be = self.store.rows(sql, [low, high]) if bounds[i] is None else []
            candidates = np.array(may_be, dtype=np.int64).ravel()
            parts.append(salvage(folder, name, model["dim"], files, candidates))
        return Kept(model["dim"], tuple(names), tuple(parts), np.concatenate(foreign), tuple(lost))

    def visible_vector_ids(self) -> IntArray:
        """int64 ids, ascending, of the vectors that visible chunks have."""
        sql = "SELECT DISTINCT vector_id FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
        return np.sort(np.array(self.store.rows(sql), dtype=np.int64).ravel())

    def texts_of_vectors(self, ids: Sequence[int]) -> Iterator[tuple[int, str, bytes]]:
        """(vector id, the text it is of, the text's hash) of vectors that chunks have, by id."""
        for first in range(0, len(ids), MAX_VARIABLES):
            part = list(ids[first : first + MAX_VARIABLES])
            yield from self.store.rows(
                "SELECT v.id, min(c.text), v.text_hash FROM vectors v JOIN chunks c ON c.vector_id = v.id "
                f"WHERE v.id IN ({','.join('?' * len(part))}) GROUP BY v.id ORDER BY v.id",
                part,
            )

    def replace_shards(self, kept: Kept, ids: IntArray, rows: FloatArray) -> None:
        """Write anew what is left, with these int64 (n,) ascending ids and float32 (n, dim) rows added.

        What a run that was cut off had staged is forgotten, as its chunks may have lost their vectors.
        """
        store, fingerprint = self.store, self.store.meta["model"]["fingerprint"]
        all_ids = np.concatenate([kept.ids, ids])
        order = np.argsort(all_ids, kind="stable")
        ends = np.cumsum([0, *(len(part) for part, _ in kept.parts), len(ids)])
        sources = [*(part for _, part in kept.parts), rows]
        with store.db.atomic():
            store.forget_staged()
            for first in range(0, len(order), MAX_SHARD_ROWS):
                at = order[first : first + MAX_SHARD_ROWS]
                part = np.empty((len(at), kept.dim), dtype=np.float32)
                which = np.searchsorted(ends, at, side="right") - 1
                for source in np.unique(which):
                    part[which == source] = sources[source][at[which == source] - ends[source]]
                add_shard(store.path, store.db, all_ids[at], part, fingerprint)
            self._derived.drop_shards([*kept.names, *kept.lost])
            self._forget_vectors_but(np.concatenate([all_ids, kept.foreign]))
            store.begin_state()
        self._derived.remove_leftover_files(store.meta["ann"], str(store.meta.get("lexical", LEXICAL)))

    def _forget_vectors_but(self, ids: IntArray) -> None:
        """Delete the rows of all vectors but those with these ids, in the transaction under way."""
        execute = self.store.db.execute
        execute("CREATE TEMP TABLE IF NOT EXISTS safe (id INTEGER PRIMARY KEY)")
        execute("DELETE FROM safe")
        self.store.db.conn.executemany("INSERT OR IGNORE INTO safe VALUES (?)", ((i,) for i in ids.tolist()))
        execute("DELETE FROM vectors WHERE id NOT IN (SELECT id FROM safe)")

    # What follows from the vectors and the tables

    def take_out(self, documents: Mapping[int, str], n_unnamed: int) -> tuple[list[str], int]:
        """Delete documents, by row, and what was staged; the next run reads their files. `rebuild` has to follow.

        Gives the paths of the files, or the ids given with the rows where the index knows no such file, and how many
        are gone beside these: `n_unnamed`, and of both what a repair that was cut off had found. Until `finish` the
        index remembers them.
        """
        store, rows = self.store, [(i,) for i in documents]
        known, n_known = store.meta.get("gone") or ([], 0)
        if rows or n_unnamed:  # else nothing is lost, whatever cuts the repair off
            break_seal(store.path, by_repair=store.meta_rows())
        paths: dict[int, str] = {}
        with store.db.atomic():
            for row in rows:
                sql = "SELECT d.id, f.path FROM documents d JOIN files f ON f.path = d.path WHERE d.id = ?"
                paths.update(store.rows(sql, row))
            store.forget_staged()
            store.db.conn.executemany("DELETE FROM documents WHERE id = ?", rows)
            again = [(file,) for file in paths.values()]
            store.db.conn.executemany("UPDATE files SET content_hash = NULL WHERE path = ?", again)
            names = sorted({*known, *(paths.get(i, name) for i, name in documents.items())})
            if rows or n_unnamed:
                store.set_meta(gone=[names, n_known + n_unnamed])
                store.begin_state()
        return names, n_known + n_unnamed

    def finish(self) -> None:
        """Forget what was gone, as whoever asked for the repair is told now."""
        if self.store.meta.get("gone"):
            self.store.set_meta(gone=None)

    def rebuild(self, *, lexical: bool, ann: bool) -> None:
        """Bring the lexical index and the FAISS file to what is visible, or make them anew, without encoding."""
        store = self.store
        with store.db.atomic():
            if lexical:
                self._derived.forget_lexical()
            if ann:
                self._derived.record_ann(None)
            store.save_derived({}, staged=(), dropped=())
        store.remove_leftover_files()  # but not vectors of what is gone, which may be read again

    # The database

    def correct_hashes(self, hashes: Mapping[int, bytes]) -> None:
        """Note anew by which hash the text of a vector is known, by the vector's id."""
        with self.store.db.atomic():
            rows = [(text_hash, i) for i, text_hash in hashes.items()]
            execute = self.store.db.conn.executemany  # two may have each other's, and one of no passage that of another
            execute("UPDATE vectors SET text_hash = randomblob(16) WHERE text_hash = ? AND id != ?", rows)
            execute("UPDATE vectors SET text_hash = ? WHERE id = ?", rows)

    def renew_unproven(self) -> None:
        """Make anew what no checksum proves: fields are taken from the documents, and the next run reads all files.

        It encodes only what is new.
        """
        store, folder = self.store, self.store.path / "vectors"
        ids = {
            name: np.load(folder / shard_files(name)[1], mmap_mode="r", allow_pickle=False)
            for (name,) in store.rows("SELECT name FROM shards")
        }
        with store.db.atomic():
            store.forget_staged()
            enter_fields_of_all(store.db.conn)
            store.db.execute("DELETE FROM files WHERE path NOT IN (SELECT path FROM documents WHERE path NOT NULL)")
            store.db.execute(
                "INSERT OR IGNORE INTO files (path, status, reason, checked_ns) "
                "SELECT DISTINCT path, 'indexed', '', 0 FROM documents WHERE visible = 1 AND path NOT NULL"
            )
            self._forget_vectors_but(np.concatenate([np.empty(0, dtype=np.int64), *ids.values()]))
            rows = [(len(own), name) for name, own in ids.items()]
            store.db.conn.executemany("UPDATE shards SET n_rows = ? WHERE name = ?", rows)
            largest = max((int(own[-1]) for own in ids.values() if len(own)), default=0)
            (known,) = store.rows("SELECT max(seq) FROM sqlite_sequence WHERE name = 'vectors'")[0]
            store.db.execute("DELETE FROM sqlite_sequence WHERE name = 'vectors'")  # whose ids never come back
            store.db.execute("INSERT INTO sqlite_sequence VALUES ('vectors', ?)", [max(known or 0, largest)])


def rewrite_database(path: Path) -> bool:
    """Write all rows that SQLite can read into a new database, its indexes made anew, and put that in its place.

    Tells whether it could; else nothing is changed. Holds for the rows as they are read: what they say is not checked.
    One of another format is left alone: of an older one the documents do not say whether they are whole.

    Raises:
        sqlite3.OperationalError, OSError: there is no room.
    """
    new = path / f"{DATABASE}.tmp"
    new.unlink(missing_ok=True)
    try:
        with contextlib.closing(connect(path, read_only=True)) as connection:
            connection.execute("PRAGMA cell_size_check = OFF")
            connection.execute("PRAGMA writable_schema = ON")  # so that tables are read beside damaged ones
            _copy_rows(connection, new, _sealed_meta(path))
        with contextlib.closing(sqlite3.connect(new)) as connection:
            problems = integrity_problems(connection)
            connection.execute("PRAGMA journal_mode = WAL")
        if problems:
            return False
        new.chmod(0o600)
        for suffix in ("-wal", "-shm"):
            (path / f"{DATABASE}{suffix}").unlink(missing_ok=True)
        break_seal(path, by_repair=_sealed_meta(path))  # what is made anew afterwards is not there yet
        new.replace(path / DATABASE)
        sync_folder(path)
        return True
    except (*DATABASE_DAMAGE, IndexCorrupt) as error:
        if is_unwritable(error):
            raise
        return False
    finally:
        for leftover in path.glob(f"{new.name}*"):
            leftover.unlink(missing_ok=True)


# A limit, or SQLite would copy pages of table and indexes as they are; not indexed, or it would believe one.
_COPY = "INSERT OR IGNORE INTO fresh.{0} SELECT {1} FROM main.{0} NOT INDEXED WHERE {2} LIMIT -1"
_COPY_CHECKSUMS = _COPY.format("checksums", "*", f"{kinds('checksums')} AND is_part(CAST(path AS BLOB))")
_COPY_SHARDS = _COPY.format(
    "shards",
    "name, CASE typeof(n_rows) WHEN 'integer' THEN n_rows ELSE 0 END, fingerprint",
    "typeof(fingerprint) = 'text' AND is_part(CAST('vectors/' || name || '.npy' AS BLOB))",
)
_COPY_FILES = (
    "INSERT OR IGNORE INTO fresh.files "
    "SELECT d.path, NULL, CASE typeof(mtime_ns) WHEN 'integer' THEN mtime_ns END, NULL, 'indexed', '', 0 "
    "FROM (SELECT DISTINCT path FROM fresh.documents WHERE visible = 1) d JOIN main.files f ON f.path = d.path"
)


def _sealed_meta(path: Path) -> MetaRows:
    """The rows of `meta` when the last writer was done, where they are known."""
    with contextlib.suppress(FileNotFoundError, IndexCorrupt):
        known = read_seal(path)
        return known.meta if known is not None else ()
    return ()


def _copy_rows(connection: sqlite3.Connection, new: Path, sealed_meta: MetaRows) -> None:
    """Copy the rows of an index's tables into a new database, as far as they can be read.

    Left out are passages without their document, which `bad_rows` then finds incomplete, and what is made anew
    afterwards (`Repairs.renew_unproven`, `mend_vectors`): all of that, or rows that cannot be.
    """
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as fresh:
        migrate(fresh)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("ATTACH ? AS fresh", [str(new)])
    connection.create_function("is_part", 1, lambda name: bool(PART.fullmatch(name.decode("utf-8", "replace"))))
    for table in ("meta", "documents", "chunks"):
        n_columns = [len(connection.execute(f"PRAGMA {of}.table_info({table})").fetchall()) for of in ("main", "fresh")]
        if n_columns[0] not in (0, n_columns[1]):  # 0: it cannot be read
            raise sqlite3.DatabaseError("it is of another format")
    # Each statement is a transaction: in one that has met damage, all that follow it fail.
    _copied(connection, _COPY.format("meta", "*", "1"))
    needed = NEEDED_META.union(key for key, *_ in sealed_meta)
    try:
        is_whole = parse_meta(connection.execute("SELECT * FROM fresh.meta")).keys() >= needed
    except DATABASE_DAMAGE:
        is_whole = False
    if not is_whole:
        connection.execute("DELETE FROM fresh.meta")
        connection.executemany("INSERT INTO fresh.meta VALUES (?, ?, ?)", sealed_meta)
    if not is_whole and not sealed_meta:
        raise sqlite3.DatabaseError("its meta values are damaged")
    for table in ("vectors", "documents", "chunks"):
        _copy_by_id(connection, table)
    for statement in (_COPY_CHECKSUMS, _COPY_SHARDS, _COPY_FILES):
        _copied(connection, statement)
    # Vectors whose rows are gone: which texts they are of tell the passages.
    connection.execute(
        "INSERT OR IGNORE INTO fresh.vectors SELECT DISTINCT vector_id, randomblob(16) FROM fresh.chunks "
        f"WHERE typeof(vector_id) = 'integer' AND vector_id BETWEEN 0 AND {MAX_LAST_ID}"
    )
    for column, other in (("document_id", "documents"), ("vector_id", "vectors")):
        connection.execute(f"DELETE FROM fresh.chunks WHERE {column} NOT IN (SELECT id FROM fresh.{other})")


def _copy_by_id(connection: sqlite3.Connection, table: str) -> None:
    """Copy the rows of a table: where SQLite cannot read them all, those of ever smaller ranges of ids."""
    is_sound = kinds(table) if table == "vectors" else "1"  # the others show by their checksums
    copy = _COPY.format(table, "*", f"id BETWEEN ? AND ? AND {is_sound}")
    last = LIKELY_LAST_ID
    with contextlib.suppress(*DATABASE_DAMAGE, TypeError):
        ((seq,),) = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", [table]).fetchall()
        last = min(max(2 * seq, 1_000), MAX_LAST_ID)  # it may be damaged, too
    ranges, n_failed = [(last + 1, MAX_LAST_ID), (0, last)], 0
    while ranges:
        low, high = ranges.pop()
        if not _copied(connection, copy, low, high) and low < high <= last and n_failed < MAX_FAILED:
            n_failed, middle = n_failed + 1, (low + high) // 2
            ranges += [(middle + 1, high), (low, middle)]


def _copied(connection: sqlite3.Connection, statement: str, *parameters: int) -> bool:
    """Whether all rows could be copied that a statement reads; none were, if not."""
    try:
        connection.execute(statement, parameters)
    except DATABASE_DAMAGE as error:
        if is_unwritable(error):
            raise
        return False
    return True


def _bounds(folder: Path, name: str) -> tuple[int, int] | None:
    """The least and the largest id of a shard whose file of ids is sound."""
    ids = np.load(folder / shard_files(name)[1], mmap_mode="r", allow_pickle=False)
    return (int(ids[0]), int(ids[-1])) if len(ids) else None
