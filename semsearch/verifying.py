"""Whether an index is what was written, and what mends it where it is not."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt, IndexIncompatible, IndexNotFound, InvalidInput, SemsearchError
from semsearch.indexing import load_built_embedder
from semsearch.mending import mend_codes, mend_vectors
from semsearch.reports import Check, Damage, SourceCounts, VerifyReport
from semsearch.roots import covers, file_state, has_same_stat, look, remembered_roots
from semsearch.store.derived import LEXICAL
from semsearch.store.files import DATABASE, command, index_path, writer_lock
from semsearch.store.inspecting import (
    BadRows,
    bad_rows,
    damaged_files,
    folder_damage,
    integrity_problems,
    leftover_files,
    n_lost,
    seal_state,
)
from semsearch.store.lexical import LexicalIndex
from semsearch.store.metadata import DATABASE_DAMAGE, FileState, Store, connect
from semsearch.store.nearest import open_nearest
from semsearch.store.recall import exact_neighbors
from semsearch.store.repairing import Repairs, rewrite_database
from semsearch.store.sealing import SEAL
from semsearch.store.tokens import TOKENS, TokenReader
from semsearch.store.vectors import ShardReader, shard_files
from semsearch.store.writing import IGNORE, StoreWriter, unwritable
from semsearch.types import Embedder, IntArray, VectorIndex

__all__ = ["verify"]

N_QUERIES = 100  # with which recall is measured
K = 10
SCORE_SLACK = 1e-3  # vectors nearer to each other than FAISS's rounding are as good as each other
MIN_RECALL = 0.8  # below this no kind of FAISS index was built as it should be
N_ENCODED = 64  # passages that `deep` encodes again
MIN_COSINE = 0.99  # of a passage's vector made twice; precisions that may share an index differ by less
BATCH = 500  # passages whose codes are held together
MAX_NAMED = 10  # documents of which each is named

Report = Callable[[str, int, int], None]


def verify(
    index: str | Path = "default",
    *,
    deep: bool = False,
    repair: bool = False,
    embedder: Embedder | None = None,
    device: str = "auto",
    progress: Report | None = None,
) -> VerifyReport:
    """Compare all parts of an index with what was written and with each other; changes nothing unless asked to.

    Args:
        index: its name, or the path of its folder.
        deep: encode a sample of the passages again and compare.
        repair: make what is damaged anew from what is not. Only vectors that are gone are encoded. Documents that are
            damaged themselves are taken out and named in `to_index`.
        embedder: in place of the model that the index names, which is loaded only if something has to be encoded.
        device: where that runs.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        IndexNotFound: there is no index, or one that was never finished.
        IndexIncompatible: another version of semsearch wrote it.
        IndexLocked: another process is writing to it.
        IndexUnwritable: there is no room for a repair.
        ModelError: the encoder is needed and cannot be found or run.
    """
    path, started = index_path(index), time.monotonic()
    if not (path / DATABASE).is_file() and not (path / SEAL).is_file():
        raise IndexNotFound(f"there is no index in {path}. Make one with: {command('index FOLDER', path)}")
    options = _Options(path, deep, embedder, device, progress or (lambda *_: None))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(path))
        except OSError as error:  # what may not be written to is only looked at
            if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                with unwritable(path):
                    raise
            if repair:
                raise InvalidInput(
                    f"the index folder {path} may not be written to; copy it and mend the copy"
                ) from error
        found = _Inspection(options).run()
        mended: tuple[Damage, ...] = ()
        gone = Gone()
        if repair and found.damages:
            before = found.damages
            gone = _repair(options, found)
            found = _Inspection(options, is_repaired=True).run()
            left = {(damage.part, damage.what) for damage in found.damages}
            mended = tuple(damage for damage in before if (damage.part, damage.what) not in left)
    elapsed_s = time.monotonic() - started
    return VerifyReport(
        path, tuple(found.checks), mended, gone.to_index, gone.n_unnamed, found.recall, found.sources, elapsed_s
    )


@dataclass(frozen=True, slots=True)
class _Options:
    path: Path
    deep: bool
    embedder: Embedder | None
    device: str
    tell: Report

    def load(self, built: dict[str, Any]) -> Embedder:
        """The encoder of an index, from its `meta.model`."""
        return self.embedder or load_built_embedder(self.path, built, self.device)


@dataclass(slots=True)
class _Inspection:
    """One pass over all parts of an index under its writer's lock.

    Attributes:
        is_repaired: whether a repair was tried before, so that another would not help.
        is_proven: whether the database is, byte by byte, what the last writer left.
        is_database_broken: whether its bytes, its structure or what it says are damaged.
        rows: what is wrong with documents and passages.
        n_lost: visible documents that were counted and are not there any more.
        vectors: files of shards, by path in the index, that are not what was written.
    """

    options: _Options
    is_repaired: bool = False
    checks: list[Check] = field(default_factory=list)
    recall: float | None = None
    sources: SourceCounts | None = None
    is_proven: bool = False
    is_database_broken: bool = False
    rows: BadRows = field(default_factory=BadRows)
    n_lost: int = 0
    vectors: list[str] = field(default_factory=list)

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What is wrong with any part."""
        return tuple(damage for check in self.checks for damage in check.damages)

    def damaged(self, part: str) -> bool:
        """Whether anything is wrong with a part."""
        return any(damage.part == part for damage in self.damages)

    def run(self) -> _Inspection:
        """Look at everything."""
        store = self._database()
        if store is not None:
            with contextlib.closing(store), store.snapshot() as meta:
                try:
                    self._passages(store, meta)
                    reader = self._vectors(store, meta)
                    self._neighbours(store, meta, reader)
                    self._words(store, meta)
                    self._tokens(store, meta)
                    if self.options.deep and reader is not None:
                        self._encoder(store, meta, reader)
                    self.sources = _compare_sources(store, meta)
                except Exception as error:
                    if not _may_be_damage(error, is_proven=self.is_proven and not self.is_repaired):
                        raise
                    self.is_database_broken = True
                    self._add("database", "reading of all tables", [f"{DATABASE} cannot be read: {error}"])
        self._folder(store)
        return self

    def _add(self, part: str, compared: str, problems: Sequence[str], *, notes: Sequence[str] = ()) -> None:
        fix = command("verify --repair", self.options.path)
        if self.is_repaired:
            fix = _start_anew(self.options.path)
        damages = tuple(Damage(part, problem, fix) for problem in problems)
        self.checks.append(Check(part, compared, damages, tuple(notes)))

    def _database(self) -> Store | None:
        path, tell = self.options.path, self.options.tell
        tell("checking the database", 0, 0)
        problems, notes = seal_state(path)
        self.is_proven = not problems and not notes
        self.is_database_broken = any(SEAL not in problem for problem in problems)
        store = None
        try:
            store = Store(path)
        except (IndexNotFound, IndexIncompatible, IndexCorrupt) as error:
            if not self.is_database_broken and not isinstance(error, IndexCorrupt):
                raise
            said = error.__cause__ or error
            problems.append(f"{DATABASE} cannot be opened: {said}" if (path / DATABASE).exists() else str(error))
            self.is_database_broken = True
        if store is not None:
            with contextlib.closing(connect(path, read_only=True)) as connection:
                found = integrity_problems(connection, with_values=not self.is_proven)
            problems += [f"{DATABASE}: {problem}" for problem in found]
            self.is_database_broken |= bool(found)
        self._add("database", f"{DATABASE} with its seal, SQLite's integrity and foreign keys", problems, notes=notes)
        return store

    def _passages(self, store: Store, meta: dict[str, Any]) -> None:
        path, tell = self.options.path, self.options.tell
        fingerprint = meta["model"]["fingerprint"]
        self.rows = bad_rows(path, fingerprint, lambda done, n: tell("checking documents and passages", done, n))
        names = list(self.rows.documents.values())
        problems = [f"the document {name} is not what was written" for name in names[:MAX_NAMED]]
        if len(names) > MAX_NAMED:
            problems.append(f"{len(names) - MAX_NAMED:,} more documents are not what was written")
        if self.rows.hashes:
            problems.append(f"{len(self.rows.hashes):,} vectors are kept under a hash that is not their text's")
        self.n_lost = n_lost(store, self.rows)
        if self.n_lost:
            problems.append(f"documents that are gone: {self.n_lost:,}")
            self.is_database_broken = True
        counts = f"{self.rows.n_documents:,} documents and {self.rows.n_chunks:,} passages"
        compared = f"{counts} with checksums, places, hashes"
        self._add("passages", compared, problems)

    def _vectors(self, store: Store, meta: dict[str, Any]) -> ShardReader | None:
        path, model = self.options.path, meta["model"]
        self.options.tell("checking vectors", 0, 0)
        shards = store.query("SELECT name, n_rows, fingerprint FROM shards ORDER BY name")
        known = store.checksums("vectors")
        files = [f"vectors/{file}" for name, _, _ in shards for file in shard_files(name)]
        wrong = damaged_files(path, {file: known[file] for file in files if file in known})
        wrong.update({file: f"nothing is known of {file}" for file in files if file not in known})
        problems, reader, n_vectors = list(wrong.values()), None, 0
        if not wrong:
            try:
                reader = ShardReader(path / "vectors", store.shard_names(model["fingerprint"]), model["dim"])
                n_vectors = len(reader)
                n_gone = len(np.setdiff1d(_visible_vectors(store), reader.ids))
                problems += [f"{n_gone:,} passages have no vector"] if n_gone else []
                if n_vectors != sum(n for _, n, fingerprint in shards if fingerprint == model["fingerprint"]):
                    problems.append("the shards hold another number of vectors than the database says")
                    self.is_database_broken = True
                reader = None if n_gone else reader
            except (IndexCorrupt, FileNotFoundError) as error:
                problems.append(str(error))
        self.vectors = list(wrong)
        self._add("vectors", f"{len(files):,} files with checksums, {n_vectors:,} vectors with passages", problems)
        return reader

    def _neighbours(self, store: Store, meta: dict[str, Any], reader: ShardReader | None) -> None:
        path, file = self.options.path, str(meta["ann"]["file"])
        self.options.tell("checking nearest neighbours", 0, 0)
        known = store.checksums(file)
        wrong = damaged_files(path, known) if known else {file: f"nothing is known of {file}"}
        problems, compared = list(wrong.values()), f"{file} with its checksum"
        if not wrong and reader is not None:
            try:
                index = open_nearest(path, meta["ann"], reader)
                n_gone = len(np.setdiff1d(_visible_vectors(store), index.ids))
                compared += f", {len(index):,} vectors with passages"
                problems += [f"{n_gone:,} passages cannot be found by meaning"] if n_gone else []
                if len(index):
                    self.recall = _recall(index, reader)
                    compared += f", recall@{K} {self.recall:.3f} against exact search"
                    if self.recall < MIN_RECALL:
                        problems.append(f"recall@{K} is {self.recall:.3f}, below {MIN_RECALL}")
            except IndexCorrupt as error:
                problems.append(str(error))
        self._add("nearest neighbours", compared, problems)

    def _words(self, store: Store, meta: dict[str, Any]) -> None:
        path, folder = self.options.path, str(meta.get("lexical", LEXICAL))
        self.options.tell("checking the lexical index", 0, 0)
        known = store.checksums(folder)
        problems = list(damaged_files(path, known).values()) if known else [f"nothing is known of {folder}"]
        compared = f"{len(known):,} files with checksums"
        if not problems:
            try:
                ids = LexicalIndex(path / folder).ids
                sql = "SELECT c.id FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
                visible = np.array(store.query(sql), dtype=np.int64).ravel()
                n_gone = len(np.setdiff1d(visible, ids))
                compared += f", {len(ids):,} entries with passages"
                problems += [f"{n_gone:,} passages cannot be found by words"] if n_gone else []
                problems += ["passages are in it twice"] if len(np.unique(ids)) < len(ids) else []
            except (IndexCorrupt, FileNotFoundError) as error:
                problems.append(str(error))
        self._add("words", compared, problems)

    def _tokens(self, store: Store, meta: dict[str, Any]) -> None:
        if not meta.get("token_vectors"):
            return
        self.options.tell("checking vectors of tokens", 0, 0)
        visible = set(_visible_vectors(store).tolist())
        hashes = [known for i, known in store.query("SELECT id, text_hash FROM vectors") if i in visible]
        with contextlib.closing(TokenReader(self.options.path)) as reader:
            n_sound = sum(len(reader.get(hashes[i : i + BATCH])) for i in range(0, len(hashes), BATCH))
            n_left = 0 if meta.get("tokens_whole", True) else len(hashes) - reader.count(hashes)  # by a run cut off
        n_gone = len(hashes) - n_sound - n_left
        problems = [f"{n_gone:,} passages have no vectors of their tokens, or damaged ones"] if n_gone else []
        notes = [f"{n_left:,} passages have no vectors of their tokens yet; the next run makes them"] if n_left else []
        compared = f"{TOKENS}, checksums of the vectors of tokens of {len(hashes):,} passages"
        self._add("tokens", compared, problems, notes=notes)

    def _encoder(self, store: Store, meta: dict[str, Any], reader: ShardReader) -> None:
        self.options.tell("encoding passages again", 0, 0)
        embedder = self.options.load(meta["model"])
        sql = "SELECT text, vector_id FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
        rows = store.query(f"{sql} ORDER BY random() LIMIT ?", [N_ENCODED])
        problems = []
        if embedder.fingerprint != meta["model"]["fingerprint"]:
            problems.append(f"{embedder.name} is not the model that encoded the index")
        elif rows:
            vectors = reader.get(np.array([vector_id for _, vector_id in rows], dtype=np.int64))
            again = embedder.embed_documents([text for text, _ in rows])
            # A text without any known word may have no direction: it is the same if both are nothing.
            cosines = np.where(np.any(vectors, axis=1) | np.any(again, axis=1), np.sum(vectors * again, axis=1), 1.0)
            n_other = int(np.count_nonzero(cosines < MIN_COSINE))
            problems += [f"{n_other} of {len(rows)} passages have another vector when encoded again"] if n_other else []
        self._add("encoder", f"{len(rows)} passages encoded again with {embedder.name}", problems)

    def _folder(self, store: Store | None) -> None:
        path = self.options.path
        notes: list[str] = []
        if store is not None and not self.is_database_broken:
            with contextlib.closing(Store(path)) as again:
                known = dict.fromkeys(row[0] for row in again.query("SELECT path FROM checksums"))
                shards = [row[0] for row in again.query("SELECT name FROM shards")]
            left = list(leftover_files(path, known, shards))
            if left:
                notes = [f"nothing names {', '.join(left)}; the next run removes what one that was cut off left"]
        self._add("folder", "files that nothing else covers", folder_damage(path), notes=notes)


def _may_be_damage(error: Exception, *, is_proven: bool) -> bool:
    """Whether damage to the database may be behind an error; code that relies on what it holds may raise any."""
    is_other = isinstance(error, SemsearchError | OSError | MemoryError)
    return isinstance(error, DATABASE_DAMAGE) or not (is_proven or is_other)


def _visible_vectors(store: Store) -> IntArray:
    sql = "SELECT DISTINCT vector_id FROM chunks c JOIN documents d ON d.id = document_id WHERE visible = 1"
    return np.array(store.query(sql), dtype=np.int64).ravel()


def _recall(index: VectorIndex, reader: ShardReader) -> float:
    """Mean share of the `K` vectors nearest to one of the index, itself among them, that the FAISS index finds.

    A vector that is as near as the last of them, up to `SCORE_SLACK`, counts as one of them.
    """
    ids = index.ids[np.isin(index.ids, reader.ids)]
    random = np.random.default_rng(0)
    queries = reader.get(random.choice(ids, N_QUERIES))
    k, ids = min(K, len(ids)), np.sort(ids)
    nearest, found = exact_neighbors(queries, ids, reader, k), index.search(queries, k).ids
    last = np.einsum("qd,qd->q", queries, reader.get(nearest[:, -1]))
    vectors = reader.get(np.where(found < 0, ids[0], found).ravel()).reshape(N_QUERIES, k, reader.dim)
    scores = np.where(found < 0, -np.inf, np.einsum("qd,qkd->qk", queries, vectors))
    return float(np.mean(scores >= last[:, np.newaxis] - SCORE_SLACK))


def _compare_sources(store: Store, meta: dict[str, Any]) -> SourceCounts:
    """Compare files under the index's folders with what it holds of them; no file is opened whose time tells enough."""
    columns = "path, size, mtime_ns, content_hash, status, reason, checked_ns"
    known = {row[0]: FileState(*row) for row in store.query(f"SELECT {columns} FROM files")}
    seen = look(remembered_roots(meta).values())
    counts = {"unchanged": 0, "changed": 0, "new": 0, "gone": 0}
    for path in seen.found:
        before = known.get(path)
        if before is None:
            counts["new"] += 1
        elif before.content_hash is not None and (
            has_same_stat(path, before) or file_state(path).content_hash == before.content_hash
        ):
            counts["unchanged"] += 1
        else:
            counts["changed"] += 1
    kept = [*seen.left_out, *(root.path for root in seen.gone)]
    for path in known.keys() - seen.found.keys() - seen.left_out.keys():
        counts["gone"] += not os.path.lexists(path) or not any(covers(folder, path) for folder in kept)
    return SourceCounts(**counts)


@dataclass(frozen=True, slots=True)
class Gone:
    """What a repair could not bring back: paths, or ids, of documents, and how many more nothing tells the name of."""

    to_index: tuple[str, ...] = ()
    n_unnamed: int = 0


def _repair(options: _Options, found: _Inspection) -> Gone:
    """Mend what can be mended."""
    path, is_rewritten = options.path, found.is_database_broken
    if is_rewritten:
        options.tell("rewriting the database", 0, 0)
        with unwritable(path):
            is_written = rewrite_database(path)
        if not is_written:
            return Gone()
        found = _Inspection(replace(options, deep=False)).run()  # of what can be read now
    if found.damaged("folder"):
        (path / IGNORE).unlink(missing_ok=True)
    try:
        with unwritable(path), StoreWriter.open_locked(path, to_repair=True) as writer:
            return _repair_parts(options, found, writer, is_rewritten=is_rewritten)
    except Exception as error:
        is_proven = found.is_proven and not is_rewritten
        if not isinstance(error, IndexCorrupt) and not _may_be_damage(error, is_proven=is_proven):
            raise
        return Gone()  # what is wrong is found once more


def _repair_parts(options: _Options, found: _Inspection, writer: StoreWriter, *, is_rewritten: bool) -> Gone:
    repairs, rows, n_unnamed, tell = Repairs(writer), found.rows, found.n_lost, options.tell
    taken_out = dict(rows.documents)
    if len(rows.hidden) <= n_unnamed:  # they may be those that are lost, only no longer shown
        taken_out.update(rows.hidden)
        n_unnamed -= len(rows.hidden)
    names, n_unnamed = repairs.take_out(taken_out, n_unnamed)
    if rows.hashes:
        repairs.correct_hashes(rows.hashes)
    built = writer.meta["model"]
    mend_vectors(repairs, lambda: options.load(built), found.vectors, lambda done, n: tell("encoding", done, n))
    ann, words = (found.damaged(part) for part in ("nearest neighbours", "words"))
    if is_rewritten or taken_out or ann or words:
        tell("making FAISS and lexical index anew", 0, 0)
        repairs.rebuild(lexical=is_rewritten or bool(taken_out) or words, ann=ann)
    if found.damaged("tokens"):
        writer.tokens.drop_unsound()
        mend_codes(repairs, lambda: options.load(built), lambda done, n: tell("encoding", done, n))
        writer.set_meta(tokens_whole=True)
    if is_rewritten:
        repairs.renew_unproven()
    repairs.finish()
    return Gone(tuple(names), n_unnamed)


def _start_anew(path: Path) -> str:
    """What to do where nothing else helps."""
    roots, n_given = ["FOLDER"], 0
    with (
        contextlib.suppress(*DATABASE_DAMAGE, IndexCorrupt, TypeError),
        contextlib.closing(connect(path, read_only=True)) as connection,
    ):
        is_older = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'roots'").fetchone()[0]
        sql = (
            "SELECT path FROM roots"
            if is_older
            else "SELECT j.key FROM meta m, json_each(value) j WHERE m.key = 'roots'"
        )
        roots = [shlex.quote(row[0]) for row in connection.execute(sql)] or roots
        sql = "SELECT count(*) FROM documents WHERE path IS NULL AND visible = 1"
        n_given = connection.execute(sql).fetchone()[0]
    given = f"  # and give {n_given:,} documents again that came from no file" if n_given else ""
    away = shlex.quote(f"{path}.damaged")
    return f"mv {shlex.quote(str(path))} {away} && {command('index ' + ' '.join(roots), path)}{given}"
