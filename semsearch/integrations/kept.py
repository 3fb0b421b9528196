"""An index as a framework's object holds it: read and written in small steps, model and files opened once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import DEFAULT_MODEL, load_embedder
from semsearch.errors import IndexIncompatible, IndexNotFound, InvalidInput
from semsearch.indexing import build_index, load_built_embedder, remove
from semsearch.reopening import CurrentSearcher
from semsearch.search_options import SearchOptions
from semsearch.searching import Searcher
from semsearch.store.files import DATABASE, index_path
from semsearch.store.info import inspect_index, list_documents
from semsearch.types import Document, Embedder, FloatArray, Hit, Reranker, storable

__all__ = ["WAIT_S", "KeptIndex", "check_options", "name_or_path", "searching"]

WAIT_S = 60.0  # that another writer is waited for


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InvalidInput where one is not an option of `Searcher.search`, or has an argument of its own here."""
    known = [name for name in SearchOptions.__annotations__ if name not in ("k", "where")]
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise InvalidInput(f"{unknown!r} is no option of a search here; those are {', '.join(known)}")


def name_or_path(index: str | Path) -> str:
    """An index as text that means the same: a path is told from a name by its separator."""
    return index if isinstance(index, str) else str(index_path(index))


def searching(
    index: str | Path | Searcher, *, device: str, reranker: str | Reranker | None
) -> Callable[[], AbstractContextManager[Searcher]]:
    """What gives, whenever it is called, the searcher of an index as it is then; one that is given stays as it is.

    Raises:
        IndexNotFound, IndexCorrupt, ModelError: as for `Searcher.open`.
    """
    if isinstance(index, Searcher):
        return lambda: nullcontext(index)
    path = index_path(index)
    current = CurrentSearcher(path, partial(Searcher.open, path, device=device, reranker=reranker))
    with current.use():  # so that a wrong name is told at once
        return current.use


class KeptIndex:
    """Reads and writes one index, which need not be there yet. Safe to use from several threads."""

    def __init__(
        self,
        index: str | Path,
        *,
        embedder: Embedder | None = None,
        model: str | None = None,
        device: str = "auto",
        reranker: str | Reranker | None = None,
        wait_s: float = WAIT_S,
        kind: str | None = None,
    ) -> None:
        """Nothing is opened or loaded before it is needed.

        Args:
            index: its name, or the path of its folder.
            embedder: the encoder of the index, in place of `model`.
            model: hub name or folder of the encoder; by default the index's own, or all-MiniLM-L6-v2.
            device: where models run.
            reranker: as for `Searcher.open`.
            wait_s: seconds to wait for another writer.
            kind: of vector search, as for `build_index`.
        """
        self.path = index_path(index)
        self._given = embedder
        self._model = model
        self._device = device
        self._reranker = reranker
        self._wait_s = wait_s
        self._kind = kind
        self._loading = threading.Lock()
        self._write_lock = threading.Lock()  # threads of this process need not ask the file system for their turn
        self._embedder: Embedder | None = embedder
        self._current = CurrentSearcher(self.path, self._open, on_replaced=self._forget_model)

    def is_there(self) -> bool:
        """Whether the index has been made, and is not gone."""
        return (self.path / DATABASE).is_file()

    def write(self, documents: Sequence[Document], *, embedder: Embedder | None = None) -> None:
        """Add documents, or replace those with the same ids; `embedder` is in place of the index's for this once.

        Errors are those of `build_index`.
        """
        if not documents:
            return
        if embedder is None:
            with self.searcher():  # which finds out where the index was replaced by one of another model
                embedder = self.embedder()
        with self._write_lock:
            build_index(documents, index=self.path, embedder=embedder, wait_s=self._wait_s, kind=self._kind)

    def remove(self, ids: Sequence[str] | None) -> int:
        """Remove documents by id, or for None all that came from no file; gives how many there were."""
        with self._write_lock:
            try:
                if ids is None:
                    ids = [key for key, source in list_documents(self.path) if not source]
                gone = remove([], ids=[storable(i) for i in ids], index=self.path, wait_s=self._wait_s)
            except IndexNotFound:
                return 0
            return gone.documents

    def embedder(self) -> Embedder:
        """The encoder of the index, or of the one that will be; loaded once.

        Raises:
            ModelError: it cannot be found or run.
        """
        with self._loading:
            embedder = self._embedder
            if embedder is None:
                embedder = self._embedder = self._load()
            return embedder

    def _load(self) -> Embedder:
        try:
            info = inspect_index(self.path)
        except IndexNotFound:  # what is added in small steps gains little from int8
            return load_embedder(self._model or DEFAULT_MODEL, device=self._device, precision="full")
        if self._model is None and info.precision != "int8":
            with self._current.use_if_open() as searcher:
                if searcher is not None:
                    return searcher.embedder
        built = {"name": self._model or info.model, "precision": info.precision}
        return load_built_embedder(self.path, built, self._device)

    def _open(self) -> Searcher:
        try:
            return self._open_by(self._given or self._embedder)
        except IndexIncompatible:
            if self._given is not None:
                raise
            self._forget_model()
            return self._open_by(None)

    def _open_by(self, embedder: Embedder | None) -> Searcher:
        return Searcher.open(self.path, device=self._device, embedder=embedder, reranker=self._reranker)

    def _forget_model(self) -> None:
        """Load another where the index may have one; without a lock, as what holds one may wait for the index."""
        self._embedder = self._given

    @contextmanager
    def searcher(self) -> Iterator[Searcher | None]:
        """What searches the index as it is at its path, while the context lasts; None where there is none."""
        with ExitStack() as stack:
            try:
                found = stack.enter_context(self._current.use())
            except IndexNotFound:
                found = None
            yield found

    def search(
        self,
        text: str,
        k: int,
        options: Mapping[str, Any],
        *,
        where: str | Mapping[str, Any] | None = None,
        vector: FloatArray | None = None,
    ) -> list[Hit]:
        """The k documents that answer a query best, one hit each; fewer only where no more are allowed.

        A hybrid search leaves out what neither meaning nor words speak for. Whoever asks a store for k documents counts
        on k, so the nearest of those follow, with the score 0 that fusion gives them.
        """
        check_options(options)
        with self.searcher() as searcher:
            if searcher is None:
                return []
            asked = {"per_document": 1, "fold": False, **options, "k": k, "where": where, "vector": vector}
            return _fill_up(searcher, text, asked)

    def nearest(self, vector: Sequence[float], k: int, *, where: str | Mapping[str, Any] | None = None) -> list[Hit]:
        """The k documents with a passage nearest to a vector, one hit each."""
        given = np.asarray(vector, dtype=np.float32)
        with self.searcher() as searcher:
            return searcher.nearest(given, k=k, per_document=1, fold=False, where=where) if searcher else []

    def documents(
        self, ids: Sequence[str] | None = None, *, where: str | Mapping[str, Any] | None = None
    ) -> list[Document]:
        """As `Searcher.documents`; none where there is no index."""
        with self.searcher() as searcher:
            return searcher.documents(ids, where=where) if searcher else []

    def count(self) -> int:
        """How many documents there are."""
        with self.searcher() as searcher:
            return searcher.n_documents if searcher else 0

    def close(self) -> None:
        """Let go of the index; it is opened again when it is needed."""
        self._current.close()


def _fill_up(searcher: Searcher, text: str, asked: dict[str, Any]) -> list[Hit]:
    """The hits of a search, and after those of a hybrid one the nearest other documents, up to k."""
    k = asked["k"]
    hits = searcher.search(text, **asked)
    if len(hits) >= k or asked.get("mode", "hybrid") != "hybrid" or asked.get("min_probability"):
        return hits
    seen = {hit.document.id for hit in hits}
    nearest = searcher.search(text, **{**asked, "mode": "dense", "rerank": False, "mmr": None})
    rest = [hit for hit in nearest if hit.document.id not in seen][: k - len(hits)]
    return hits + [replace(hit, rank=rank, score=0.0, probability=None) for rank, hit in enumerate(rest, len(hits) + 1)]
