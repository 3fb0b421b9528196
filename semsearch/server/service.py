"""What the service does with one index: questions to plain data. Knows nothing of HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsearch import __version__
from semsearch.answers import (
    explained,
    facets_json,
    hit_json,
    metadata_json,
    passage_json,
    query_answer,
    relevant,
)
from semsearch.searching import Searcher
from semsearch.server.batching import BatchingEmbedder, batching
from semsearch.server.writing import Writer
from semsearch.store.info import inspect_index
from semsearch.types import Embedder, Hit

if TYPE_CHECKING:
    from semsearch.search_options import SearchOptions

__all__ = ["Service"]


class Service:
    """Answers from one index. Safe to use from several threads; errors are those of `Searcher`."""

    def __init__(
        self,
        index: str | Path,
        *,
        device: str = "auto",
        embedder: Embedder | None = None,
        reranker: str | None = None,
        writable: bool = False,
    ) -> None:
        """Open an index.

        Args:
            index: its name, or the path of its folder.
            device: where models run: `auto`, `cpu`, `cuda`, ...
            embedder: in place of the model that the index names.
            reranker: a cross-encoder, by its name or folder, in place of the index's own model.
            writable: whether the index may be changed.

        Raises:
            IndexNotFound, IndexIncompatible, IndexCorrupt, ModelError: as for `Searcher.open`.
        """
        self._device, self._embedder, self._reranker = device, embedder, reranker
        self._lock = threading.Lock()
        self._counted = (0, 0)
        self._encoder, self._opened = self._open(index)
        self.path = self._opened.path
        self.writer = Writer(self.path, device=device, embedder=embedder) if writable else None

    def _open(self, index: str | Path) -> tuple[BatchingEmbedder, Searcher]:
        with Searcher.open(index, device=self._device, embedder=self._embedder) as first:
            encoder = batching(first.embedder)
        return encoder, Searcher.open(index, device=self._device, embedder=encoder, reranker=self._reranker)

    @property
    def _searcher(self) -> Searcher:
        """The index as it is at its path: opened again where it was replaced, or has another model."""
        opened = self._opened
        if opened.is_current():
            return opened
        with self._lock:
            if self._opened is opened:
                before = self._encoder
                self._encoder, self._opened = self._open(self.path)
                self._counted = (self._counted[0] + before.n_batches, self._counted[1] + before.n_queries)
            return self._opened

    def close(self) -> None:
        """Let go of the index."""
        self._opened.close()

    def end(self) -> None:
        """Let a change that is being made stop soon."""
        if self.writer is not None:
            self.writer.end()

    def counters(self) -> dict[str, tuple[str, float]]:
        """What was counted: name to (help, value)."""
        n_batches, n_queries = self._counted
        return {
            "semsearch_encoder_batches_total": (
                "Runs of the encoder for queries.",
                n_batches + self._encoder.n_batches,
            ),
            "semsearch_encoder_queries_total": ("Queries encoded in them.", n_queries + self._encoder.n_queries),
        }

    def expecting(self, texts: Sequence[str]) -> AbstractContextManager[None]:
        """Encode queries, which `search` will be asked within the context, together with others that wait."""
        return self._encoder.expecting(texts)

    def warm_up(self) -> None:
        """Load and measure what the first request would otherwise wait for."""
        self._searcher.search("what is this about", k=1)

    def search(
        self,
        text: str,
        options: SearchOptions,
        *,
        min_probability: float | None = None,
        explain: bool = False,
        highlight: bool = False,
        facets: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The object that `query --json` prints, with `highlight` in each hit where it is asked for."""
        searcher, mode = self._searcher, options.get("mode", "hybrid")
        start = time.perf_counter()
        found = searcher.search(text, **options)
        elapsed_ms = 1000 * (time.perf_counter() - start)
        hits, best = relevant(found, min_probability)
        matches = explained(searcher.explain, text, hits, mode) if explain else None
        answer = query_answer(text, searcher.path, mode, elapsed_ms, hits, best, matches)
        if highlight:
            for hit, marks in zip(answer["hits"], searcher.highlight(text, hits), strict=True):
                start_of, end_of = marks.sentence
                hit["highlight"] = {"start": start_of, "end": end_of, "words": marks.words}
        if facets:
            where = options.get("where")
            answer["facets"] = facets_json({key: searcher.facets(key, where) for key in facets})
        return answer

    def similar(self, chunk_id: int, *, k: int, per_document: int, where: str | None) -> dict[str, Any]:
        """Hits like a passage."""
        start = time.perf_counter()
        hits: list[Hit] = self._searcher.similar(chunk_id, k=k, per_document=per_document, where=where)
        elapsed_ms = round(1000 * (time.perf_counter() - start), 3)
        index = str(self.path)
        return {"chunk_id": chunk_id, "index": index, "elapsed_ms": elapsed_ms, "hits": [hit_json(h) for h in hits]}

    def passage(self, chunk_id: int, *, context: int) -> dict[str, Any]:
        """A passage with lines of its document around it."""
        searcher = self._searcher
        (own, _), (chunk, document) = (searcher.passage(chunk_id, context=n) for n in (0, context))
        return {
            **passage_json(chunk, document),
            "passage": (own.start - chunk.start, own.end - chunk.start),
            "document_chars": len(document.text),
            "metadata": metadata_json(document),
        }

    def facets(self, keys: Sequence[str], where: str | None, limit: int | None = None) -> dict[str, Any]:
        """How many documents and passages have each value of some fields; at most `limit` values of each."""
        searcher = self._searcher
        counts = facets_json({key: searcher.facets(key, where)[:limit] for key in keys})
        return {"index": str(self.path), "where": where, "facets": counts}

    def status(self) -> dict[str, Any]:
        """What the index holds."""
        searcher, facts = self._searcher, inspect_index(self.path)
        return {
            "name": facts.path.name,
            "documents": facts.documents,
            "chunks": facts.chunks,
            "files": facts.files,
            "vectors": facts.vectors,
            "bytes": facts.size_bytes,
            "model": facts.model,
            "dim": facts.dim,
            "kind": facts.ann_kind,
            "created": facts.created,
            "updated": facts.updated,
            "writable": self.writer is not None,
            "writing": self.writer is not None and self.writer.is_writing,
            "reranker": searcher.reranker_name(),
            "fields": searcher.fields(),
            "version": __version__,
        }
