"""The write line: paths or documents to a searchable index, touching only what changed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from semsearch.encoders import DEFAULT_MODEL, comparable, load_embedder
from semsearch.errors import IndexIncompatible, IndexNotFound, InvalidInput, LoadError
from semsearch.loaders.pool import LoaderPool
from semsearch.mending import mend_codes, mend_vectors
from semsearch.reports import ChunkCounts, FileCounts, IndexReport, Problem, Progress, RemoveReport
from semsearch.roots import (
    Root,
    choose_roots,
    covers,
    file_state,
    gone_reason,
    has_same_stat,
    look,
    remembered_roots,
)
from semsearch.staging import Stager, clean, document_digest, encode_stretches
from semsearch.store.files import DATABASE, absolute_path, index_path
from semsearch.store.metadata import FileState
from semsearch.store.nearest import KINDS
from semsearch.store.repairing import Repairs
from semsearch.store.writing import StoreWriter
from semsearch.token_keeping import check_gives_codes
from semsearch.types import Document, Embedder

__all__ = ["build_index", "load_built_embedder", "load_index_embedder", "remove"]


def build_index(
    source: str | Path | Iterable[str | Path] | Iterable[Document] | None = None,
    *,
    index: str | Path = "default",
    model: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    embedder: Embedder | None = None,
    globs: Sequence[str] | None = None,
    excludes: Sequence[str] | None = None,
    text_column: str | None = None,
    kind: str | None = None,
    recall: float | None = None,
    token_vectors: bool | None = None,
    rebuild: bool = False,
    wait_s: float = 0.0,
    progress: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Make an index, or bring one up to date with the files under some roots, or add documents to it.

    Files that did not change cost a look; of changed ones only new passages are encoded; those that vanished from under
    the roots disappear from the index. Documents replace those with the same id. All of it becomes visible at once, at
    the end; a run that is cut off is taken up by the next one where it stopped.

    Args:
        source: a folder or file, several of them, or documents; None means every root that the index remembers.
        index: the name of the index, or the path of its folder.
        model: hub name, `name@revision` or folder of the encoder; by default the index's own, or all-MiniLM-L6-v2.
        device: where the model runs: `auto`, `cpu`, `cuda`, ...
        precision: of the encoder, as for `load_embedder`; `auto` is the index's own.
        embedder: an encoder in place of `model`, `device` and `precision`.
        globs: keep only files whose path matches one of these (`*.md`, `guides/**`); by default as last time.
        excludes: leave out files whose path matches one of these; by default as last time.
        text_column: the column of tables that holds the text, where it is not found by itself.
        kind: how vectors are searched: `flat` compares all, `hnsw`, `ivf` and `ivfpq` find most of the nearest in less
            time (`ivfpq` in least memory), `auto` compares all while that is quick; by default as last time, or `auto`.
        recall: share of the ten nearest passages that has to be found, in (0, 1]; by default as last time, or 0.98.
        token_vectors: whether vectors of the passages' tokens are kept, so that reranking need not read passages again;
            they take 100 bytes a token with the default model. By default as last time, or not. Where they are
            missing, passages are encoded once more.
        rebuild: read and encode everything anew, as another model requires.
        wait_s: seconds to wait for another process that is writing to the index.
        progress: called after each file and each batch of chunks.

    Raises:
        InvalidInput: a path does not exist, a document is not usable, `kind` or `recall` is none there is, or the model
            gives no vectors of tokens that are to be kept.
        ModelError: the model cannot be found or run.
        IndexIncompatible: the index was built with another model and `rebuild` is not set.
        IndexLocked: another process is writing to the index.
        IndexUnwritable: its files cannot be written, as on a full disk.
        IndexCorrupt: the index's files cannot be read.
    """
    path = index_path(index)
    named, documents = _sort_source(source)
    search_kind = _search_kind(kind, recall)
    is_new = not (path / DATABASE).is_file()
    if source is None and is_new:
        raise IndexNotFound(f"there is no index in {path} whose folders could be brought up to date; name a folder")
    if is_new and embedder is None:  # before anything is made: without a model there is no index
        embedder = load_embedder(model or DEFAULT_MODEL, device=device, precision=precision)
    with StoreWriter.open(path, wait_s=wait_s) as store:
        built = store.meta.get("model", {})
        encoder = embedder or load_index_embedder(path, built, model, device, precision, rebuild=rebuild)
        _check_embedder(store, encoder, rebuild=rebuild)
        keeps = bool(store.meta.get("token_vectors")) if token_vectors is None else token_vectors
        if keeps:
            check_gives_codes(encoder)
        with Stager(store, encoder, keeps_tokens=keeps) as stager:
            run = _Run(store, encoder, stager, progress, search_kind=search_kind, keeps_tokens=keeps, rebuild=rebuild)
            options = {"globs": globs, "excludes": excludes, "text_column": text_column}
            everything = source is None or run.is_full
            roots = choose_roots(store, named, everything=everything, **options)  # type: ignore[arg-type]
            run.sync(roots)
            if run.is_full:
                run.add_documents(store.documents_without_file())
            if documents is not None:
                run.add_documents(documents)
            return run.finish()


def remove(
    items: Sequence[str | Path], *, ids: Sequence[str] = (), index: str | Path = "default", wait_s: float = 0.0
) -> RemoveReport:
    """Take files, whole folders or documents (by id) out of an index, and forget the roots among them.

    Nothing is deleted but from the index. A file removed from under a root that stays comes back with the next sync,
    and so does a document, such as a row, that came from one.
    Another process that is writing to the index is waited for, up to `wait_s` seconds.

    Args:
        items: paths of files and folders, or ids of documents.
        ids: of documents, and never taken for paths.
        index: the name of the index, or the path of its folder.
        wait_s: seconds to wait for another process that is writing to the index.

    Raises:
        IndexNotFound: there is no such index.
        IndexLocked: another process is writing to it.
    """
    path = index_path(index)
    if not (path / DATABASE).is_file():
        raise IndexNotFound(f"there is no index in {path}, so there is nothing to remove")
    with StoreWriter.open(path, wait_s=wait_s) as store:
        paths: set[str] = set()
        missing = [key for key in ids if not _has_document(store, key)]
        keys = set(ids) - set(missing)
        known_roots = set(remembered_roots(store.meta))
        gone_roots = set()
        for item in map(str, items):
            place = absolute_path(item)
            below = set(store.file_states(place))
            roots = {root for root in known_roots if covers(place, root)}
            documents = {item} if _has_document(store, item) else set()
            if not (below or roots or documents):
                missing.append(item)
            paths |= below
            keys |= documents
            gone_roots |= roots
        if not (paths or keys or gone_roots):
            return RemoveReport(path, 0, 0, (), tuple(missing))
        store.begin([], keep=(), settings=store.meta.get("pending_settings") or {})
        n_before = store.count_chunks()
        n_dropped = store.publish(drop_paths=paths, drop_keys=keys, drop_roots=gone_roots)
        n_chunks = n_before - store.count_chunks()
        return RemoveReport(path, n_dropped, n_chunks, tuple(sorted(gone_roots)), tuple(missing))


def _has_document(store: StoreWriter, key: str) -> bool:
    return bool(store.rows("SELECT 1 FROM documents WHERE key = ? AND visible = 1", [key]))


class _Run:
    """One run of the write line over one index."""

    def __init__(
        self,
        store: StoreWriter,
        embedder: Embedder,
        stager: Stager,
        progress: Callable[[Progress], None] | None,
        *,
        search_kind: Mapping[str, Any],
        keeps_tokens: bool,
        rebuild: bool,
    ) -> None:
        self._started = time.monotonic()
        self._store = store
        self._embedder = embedder
        self._progress = progress
        self._stager = stager
        stager.on_encoded = lambda: self._tell("")
        self._counts = dict.fromkeys(("indexed", "unchanged", "skipped", "failed"), 0)
        self._problems: list[Problem] = []
        self._n_total = 0
        self._vanished: list[str] = []
        self._drop_keys: list[str] = []
        self._roots: list[Root] = []
        if store.meta.get("model", {}).get("fingerprint") == embedder.fingerprint:
            stager.n_encoded += mend_vectors(Repairs(store), lambda: embedder, store.unreadable_shards())
        self._is_current = store.meta.get("settings") == self._stager.settings and not rebuild
        self._search_kind = {**(store.meta.get("search_kind") or {}), **search_kind}
        is_as_wanted = self._search_kind == (store.meta.get("search_kind") or {})
        self._keeps_tokens = keeps_tokens
        if keeps_tokens and not store.meta.get("token_vectors"):  # also if this run is cut off
            store.set_meta(token_vectors=True, tokens_whole=False)
        is_as_wanted &= keeps_tokens == bool(store.meta.get("token_vectors"))
        self._has_changes = not self._is_current or not store.has_sound_derived_files() or not is_as_wanted

    @property
    def is_full(self) -> bool:
        """Whether all that the index holds has to be gone through again."""
        return "model" in self._store.meta and not self._is_current

    def add_documents(self, documents: Iterable[Document]) -> None:
        """Stage documents given as such, replacing those with the same id; of several in one run the last wins."""
        seen: set[str] = set()
        for given in documents:
            document = clean(given)
            self._n_total += 1
            if document.id in seen:
                self._stager.flush()
                self._store.drop_staged_key(document.id)
            seen.add(document.id)
            if self._is_current and self._store.document_digest(document.id) == document_digest(document):
                self._counts["unchanged"] += 1
            elif document.text.strip():
                self._stager.add(document, None)
                self._has_changes = True
                self._counts["indexed"] += 1
            else:
                self._drop_keys.append(document.id)
                self._has_changes = True
                self._report(Problem(document.id, "empty text", failed=False))
            self._tell(document.id)
        self._stager.flush()

    def sync(self, roots: Sequence[Root]) -> None:
        """Stage what is new or changed under these roots, and note what vanished."""
        store, seen = self._store, look(roots)
        known: dict[str, FileState] = {}
        pending: dict[str, FileState] = {}
        for root in roots:
            known.update(store.file_states(root.path))
            pending.update(store.file_states(root.path, pending=True))
        resumable = store.meta.get("pending_settings") == self._stager.settings
        adopted = {p for p in seen.found if resumable and p in pending and has_same_stat(p, pending[p])}
        store.begin([root.path for root in roots], keep=adopted, settings=self._stager.settings)
        self._roots = list(roots)
        self._n_total += len(seen.found) + len(seen.left_out)
        for path in sorted(adopted):
            self._adopt(pending[path])
        for path, reason in seen.left_out.items():
            self._leave_out(path, reason, known.get(path))
        for root in seen.gone:
            self._report(Problem(root.path, gone_reason(root, store.path), failed=True))
        to_read = [
            p for p, root in seen.found.items() if p not in adopted and not self._unchanged(p, root, known.get(p))
        ]
        for root in roots:
            self._read([p for p in to_read if seen.found[p] is root], root.text_column)
        elsewhere = [path for path in remembered_roots(store.meta) if path not in {root.path for root in roots}]
        kept = [*seen.left_out, *(root.path for root in seen.gone)]
        for path in sorted(known.keys() - seen.found.keys() - seen.left_out.keys()):
            is_others = any(covers(other, path) for other in elsewhere) and os.path.lexists(path)
            if not is_others and not any(covers(folder, path) for folder in kept):
                self._vanished.append(path)

    def _adopt(self, state: FileState) -> None:
        """Count a file that a run which was cut off had already dealt with."""
        self._has_changes = True
        self._stager.n_reused += self._store.count_staged_chunks(state.path)
        self._outcome(state)

    def _leave_out(self, path: str, reason: str, before: FileState | None) -> None:
        """Report a file that is not to be read."""
        state = FileState(path, -1, -1, None, "skipped", reason, time.time_ns())
        if before is None or (before.status, before.reason) != (state.status, reason):
            self._stager.add_file(state)
            self._has_changes = True
        self._outcome(state)

    def _unchanged(self, path: str, root: Root, before: FileState | None) -> bool:
        """Whether a file is as it was, by its stat or, in doubt, by its bytes; counts it if so."""
        if before is None or before.content_hash is None or not self._is_current or root.is_changed:
            return False
        if not has_same_stat(path, before):
            now = file_state(path)
            if now.content_hash != before.content_hash:
                return False
            self._store.touch(replace(now, status=before.status, reason=before.reason))
        self._outcome(before, unchanged=True)
        return True

    def _read(self, paths: Sequence[str], text_column: str | None) -> None:
        states: dict[str, FileState] = {}

        def looked_at() -> Iterator[Path]:
            for path in paths:  # hashed before it is read: a change in between shows next time
                states[path] = file_state(path)
                yield Path(path)

        if paths:
            self._has_changes = True
            with LoaderPool(text_column=text_column) as pool:
                for path, documents in pool.load_all(looked_at()):
                    self._take(states.pop(str(path)), documents)
        self._stager.flush()

    def _take(self, state: FileState, documents: Iterable[Document]) -> None:
        """Stage the documents of one file, all or none."""
        try:
            n_documents = 0
            for document in documents:
                self._stager.add(clean(document), state.path)
                n_documents += 1
            if not n_documents:
                state = replace(state, status="skipped", reason="no text in it")
        except LoadError as error:
            self._stager.take_back(state.path)
            status = "skipped" if error.skipped else "failed"
            digest = None if error.retry else state.content_hash
            state = replace(state, status=status, reason=error.reason, content_hash=digest)
        self._stager.add_file(state)
        self._outcome(state)

    def _outcome(self, state: FileState, *, unchanged: bool = False) -> None:
        if state.status == "indexed":
            self._counts["unchanged" if unchanged else "indexed"] += 1
        else:
            self._report(Problem(state.path, state.reason, failed=state.status == "failed"))
        self._tell(state.path)

    def _report(self, problem: Problem) -> None:
        self._problems.append(problem)
        self._counts["failed" if problem.failed else "skipped"] += 1

    def _tell(self, path: str) -> None:
        if self._progress is not None:
            n_chunks = self._stager.n_encoded + self._stager.n_reused
            elapsed_s = time.monotonic() - self._started
            self._progress(Progress(sum(self._counts.values()), self._n_total, n_chunks, elapsed_s, path))

    def _roots_to_remember(self) -> dict[str, dict[str, Any]]:
        """How roots are read that are new, or read otherwise than before, by path."""
        known = remembered_roots(self._store.meta)
        return {r.path: r.how for r in self._roots if replace(r, is_changed=False) != known.get(r.path)}

    def finish(self) -> IndexReport:
        """Make everything visible, unless nothing is different."""
        store = self._store
        if self._has_changes or self._vanished or self._roots_to_remember():
            model, plan = store.meta.get("model", {}), store.meta.get("plan")
            if model.get("fingerprint") != self._embedder.fingerprint:
                is_same = bool(model) and comparable(model["fingerprint"], self._embedder.fingerprint)
                model, plan = _describe(self._embedder), plan if is_same else None  # which was tuned for the other
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            store.publish(
                drop_paths=self._vanished,
                drop_keys=self._drop_keys,
                roots=self._roots_to_remember(),
                meta={
                    "model": model,
                    "settings": self._stager.settings,
                    "plan": plan,
                    "search_kind": self._search_kind,
                    "token_vectors": self._keeps_tokens,
                    "tokens_whole": not self._keeps_tokens,
                    "created": store.meta.get("created", now),
                    "updated": now,
                },
                encode_sample=partial(encode_stretches, self._embedder),
            )
        else:
            store.remove_leftover_files()
        if self._keeps_tokens:
            self._stager.n_encoded += mend_codes(Repairs(store), lambda: self._embedder, lambda *_: self._tell(""))
            store.set_meta(tokens_whole=True)
        else:
            store.tokens.remove()
        files = FileCounts(seen=sum(self._counts.values()), removed=len(self._vanished), **self._counts)
        chunks = ChunkCounts(self._stager.n_encoded, self._stager.n_reused, store.count_chunks())
        problems = tuple(sorted(self._problems, key=lambda p: p.path))
        elapsed_s = time.monotonic() - self._started
        ann = {name: value for name, value in (store.meta.get("ann") or {}).items() if name != "file"}
        return IndexReport(store.path, self._embedder.name, files, chunks, elapsed_s, problems, ann)


def _sort_source(source: Any) -> tuple[list[str], Iterator[Document] | None]:
    """(absolute roots, None) of paths, or ([], documents) of documents; ([], None) of None."""
    if source is None:
        return [], None
    items = iter([source] if isinstance(source, str | Path | Document) else source)
    first = next(items, None)
    if first is None or isinstance(first, Document):
        return [], (_only_document(item) for item in itertools.chain([] if first is None else [first], items))
    roots = []
    for item in itertools.chain([first], items):
        if not isinstance(item, str | Path) or not str(item):
            raise InvalidInput(f"{item!r} is neither a path nor a Document")
        roots.append(absolute_path(item))
        if not os.path.lexists(roots[-1]):
            raise InvalidInput(f"{item} does not exist; give a folder or a file to index")
        if os.fsencode(roots[-1]).decode("utf-8", "replace") != roots[-1]:
            raise InvalidInput(f"{roots[-1]!r} is not UTF-8, as a path to index has to be; rename it")
    return roots, None


def _only_document(item: Any) -> Document:
    if not isinstance(item, Document):
        raise InvalidInput(f"{item!r} is not a Document, as what came before it; give paths and Documents in two calls")
    return item


def load_index_embedder(
    path: Path, built: Mapping[str, Any], model: str | None, device: str, precision: str, *, rebuild: bool = False
) -> Embedder:
    """The encoder that is asked for, what is not said being as the index has it.

    Args:
        path: of the index.
        built: its `meta.model`; empty for an index that is to be made.
        model: as for `build_index`, as are the others.
        device: where it runs.
        precision: `auto` is the index's own.
        rebuild: whether the index is made anew.

    Raises:
        IndexIncompatible, ModelError: as `load_built_embedder`.
    """
    name = model or built.get("name", DEFAULT_MODEL)
    if precision != "auto" or rebuild or "precision" not in built:
        return load_embedder(name, device=device, precision=precision)
    return load_built_embedder(path, {**built, "name": name}, device)


def load_built_embedder(path: Path, built: Mapping[str, Any], device: str) -> Embedder:
    """The encoder of an index, from what its `meta.model` says, in the precision that its passages are in.

    Raises:
        IndexIncompatible: it cannot run in that precision here.
        ModelError: it cannot be found or run.
    """
    is_int8 = built.get("precision") == "int8"
    try:
        return load_embedder(built["name"], device=device, precision="int8" if is_int8 else "full")
    except InvalidInput as error:
        if not is_int8:
            raise
        raise IndexIncompatible(
            f"{path} was built in int8, which needs OpenVINO on a CPU ({error}). "
            f"Use --device cpu, or rebuild: semsearch index --rebuild --precision full --index {path}"
        ) from error


def _search_kind(kind: str | None, recall: float | None) -> dict[str, Any]:
    """What was asked of vector search, by the fields of `SearchKind`."""
    if kind is not None and kind not in KINDS:
        raise InvalidInput(f"kind = {kind!r} is none there is; choose one of {', '.join(KINDS)}")
    if recall is not None and not 0 < recall <= 1:
        raise InvalidInput(f"recall = {recall} is not above 0 and up to 1; 0.98 finds 98 of 100 nearest passages")
    return {name: value for name, value in (("kind", kind), ("recall", recall)) if value is not None}


def _check_embedder(store: StoreWriter, embedder: Embedder, *, rebuild: bool) -> None:
    built = store.meta.get("model")
    if built and not rebuild and built["fingerprint"] != embedder.fingerprint:
        asked = f" --precision {embedder.description['precision']}" if "precision" in embedder.description else ""
        raise IndexIncompatible(
            f"{store.path} was built with {_told(built['name'], built)} ({built['dim']} dims), not "
            f"{_told(embedder.name, embedder.description)}; their vectors cannot be compared. Drop --model and "
            f"--precision, or rebuild: semsearch index --rebuild --model {embedder.name}{asked} --index {store.path}"
        )


def _told(name: str, facts: Mapping[str, Any]) -> str:
    return f"{name} in {facts['precision']}" if "precision" in facts else name


def _describe(embedder: Embedder) -> dict[str, Any]:
    return {
        "name": embedder.name,
        "fingerprint": embedder.fingerprint,
        "dim": embedder.dim,
        "max_tokens": embedder.max_tokens,
        **embedder.description,
    }
