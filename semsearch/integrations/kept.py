"""An index as a framework's object holds it: read and written in small steps, model and files opened once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import DEFAULT_MODEL, load_embedder
from semsearch.errors import IndexNotFound, InvalidInput
from semsearch.indexing import build_index, load_built_embedder, remove
from semsearch.search_options import SearchOptions
from semsearch.searching import Searcher
from semsearch.store.files import index_path
from semsearch.store.info import inspect_index, list_documents
from semsearch.types import Document, Embedder, FloatArray, Hit, Reranker, storable

__all__ = ["WAIT_S", "KeptIndex", "check_options", "name_or_path"]

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
        self._lock = threading.RLock()
        self._write_lock = threading.Lock()  # threads of this process need not ask the file system for their turn
        self._embedder: Embedder | None = embedder
        self._searcher: Searcher | None = None

    def write(self, documents: Sequence[Document], *, embedder: Embedder | None = None) -> None:
        """Add documents, or replace those with the same ids; `embedder` is in place of the index's for this once.

        Errors are those of `build_index`.
        """
        if not documents:
            return
        with self._write_lock:
            encoder = embedder or self.embedder()
            build_index(documents, index=self.path, embedder=encoder, wait_s=self._wait_s, kind=self._kind)

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
        with self._lock:
            if self._embedder is None:
                self._embedder = self._load()
            return self._embedder

    def _load(self) -> Embedder:
        try:
            info = inspect_index(self.path)
        except IndexNotFound:  # what is added in small steps gains little from int8
            return load_embedder(self._model or DEFAULT_MODEL, device=self._device, precision="full")
        if self._searcher is not None and self._model is None and info.precision != "int8":
            return self._searcher.embedder
        built = {"name": self._model or info.model, "precision": info.precision}
        return load_built_embedder(self.path, built, self._device)

    def searcher(self) -> Searcher | None:
        """What searches the index as it is at its path; None where there is none."""
        with self._lock:
            if self._searcher is not None and not self._searcher.is_current():
                self._searcher, self._embedder = None, self._given  # not closed: other threads may be asking it
            if self._searcher is None:
                try:
                    self._searcher = Searcher.open(
                        self.path,
                        device=self._device,
                        embedder=self._given or self._embedder,
                        reranker=self._reranker,
                    )
                except IndexNotFound:
                    return None
            return self._searcher

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
        searcher = self.searcher()
        if searcher is None:
            return []
        wanted: dict[str, Any] = {"per_document": 1, "fold": False, **options, "k": k, "where": where, "vector": vector}
        hits = searcher.search(text, **wanted)
        is_cut = bool(wanted.get("min_probability"))
        if len(hits) < k and wanted.get("mode", "hybrid") == "hybrid" and not is_cut:
            seen = {hit.document.id for hit in hits}
            wanted |= {"mode": "dense", "rerank": False, "mmr": None}
            rest = [hit for hit in searcher.search(text, **wanted) if hit.document.id not in seen]
            for rank, hit in enumerate(rest[: k - len(hits)], len(hits) + 1):
                hits.append(replace(hit, rank=rank, score=0.0, probability=None))
        return hits

    def nearest(self, vector: Sequence[float], k: int, *, where: str | Mapping[str, Any] | None = None) -> list[Hit]:
        """The k documents with a passage nearest to a vector, one hit each."""
        searcher = self.searcher()
        if searcher is None:
            return []
        given = np.asarray(vector, dtype=np.float32)
        return searcher.nearest(given, k=k, per_document=1, fold=False, where=where)

    def documents(
        self, ids: Sequence[str] | None = None, *, where: str | Mapping[str, Any] | None = None
    ) -> list[Document]:
        """As `Searcher.documents`; none where there is no index."""
        searcher = self.searcher()
        return searcher.documents(ids, where=where) if searcher is not None else []

    def count(self) -> int:
        """How many documents there are."""
        searcher = self.searcher()
        return searcher.n_documents if searcher is not None else 0

    def close(self) -> None:
        """Let go of the index; it is opened again when it is needed."""
        with self._lock:
            if self._searcher is not None:
                self._searcher.close()
            self._searcher = None
