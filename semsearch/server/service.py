"""What the service does with one index: questions to plain data. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
from semsearch.reopening import CurrentSearcher
from semsearch.searching import Searcher
from semsearch.server.batching import BatchingEmbedder, batching
from semsearch.server.changes import ChangesBeside, ChangesHere
from semsearch.server.settings import MAX_FIELD_CHARS
from semsearch.server.writing import Writer
from semsearch.store.files import index_path
from semsearch.store.info import inspect_index
from semsearch.types import Embedder, Hit

if TYPE_CHECKING:
    from semsearch.search_options import SearchOptions

__all__ = ["Service"]


class Service:
    """Answers from one index. Safe to use from several threads; errors are those of `Searcher`.

    Attributes:
        path: the folder of the index.
        searcher: of the index.
        writer: what changes it; None where it may only be read.
    """

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
            embedder: in place of the model that the index names; changes are then made in this process.
            reranker: one, by its name or folder, in place of the index's own model.
            writable: whether the index may be changed.

        Raises:
            IndexNotFound, IndexIncompatible, IndexCorrupt, ModelError: as for `Searcher.open`.
        """
        self._device, self._embedder, self._reranker = device, embedder, reranker
        self._counted = (0, 0)
        self._encoder: BatchingEmbedder | None = None
        self.path = index_path(index)
        self.searcher = CurrentSearcher(self.path, self._open)
        with self.searcher.use():  # so that what is wrong with it is told at once
            pass
        changes = (
            ChangesBeside(self.path, device=device)
            if embedder is None
            else ChangesHere(self.path, device=device, embedder=embedder)
        )
        self.writer = Writer(changes) if writable else None

    def _open(self) -> Searcher:
        """The index, with an encoder of its own whose counts those of the one before are kept for."""
        with Searcher.open(self.path, device=self._device, embedder=self._embedder) as first:
            encoder = batching(first.embedder)
        searcher = Searcher.open(self.path, device=self._device, embedder=encoder, reranker=self._reranker)
        self._counted, self._encoder = self._counts(), encoder
        return searcher

    def _counts(self) -> tuple[int, int]:
        """Batches and queries encoded so far."""
        n_batches, n_queries = self._counted
        encoder = self._encoder
        return (
            (n_batches, n_queries)
            if encoder is None
            else (n_batches + encoder.n_batches, n_queries + encoder.n_queries)
        )

    def close(self) -> None:
        """Let go of the index."""
        if self.writer is not None:
            self.writer.close()
        self.searcher.close()

    def end(self) -> None:
        """Let a change that is being made stop soon."""
        if self.writer is not None:
            self.writer.end()

    def counters(self) -> dict[str, tuple[str, float]]:
        """What was counted: name to (help, value)."""
        n_batches, n_queries = self._counts()
        return {
            "semsearch_encoder_batches_total": ("Runs of the encoder for queries.", n_batches),
            "semsearch_encoder_queries_total": ("Queries encoded in them.", n_queries),
        }

    def expecting(self, texts: Sequence[str]) -> AbstractContextManager[None]:
        """Encode queries, which `search` will be asked within the context, together with others that wait."""
        return self._encoder.expecting(texts) if self._encoder is not None else nullcontext()

    def warm_up(self) -> None:
        """Load and measure what the first request would otherwise wait for."""
        with self.searcher.use() as searcher:
            searcher.search("what is this about", k=1)

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
        mode = options.get("mode", "hybrid")
        with self.searcher.use() as searcher:
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

    def similar(self, chunk_id: int, *, k: int, per_document: int | None, where: str | None) -> dict[str, Any]:
        """Hits like a passage."""
        start = time.perf_counter()
        with self.searcher.use() as searcher:
            hits: list[Hit] = searcher.similar(chunk_id, k=k, per_document=per_document, where=where)
        elapsed_ms = round(1000 * (time.perf_counter() - start), 3)
        index = str(self.path)
        return {"chunk_id": chunk_id, "index": index, "elapsed_ms": elapsed_ms, "hits": [hit_json(h) for h in hits]}

    def passage(self, chunk_id: int, *, context: int) -> dict[str, Any]:
        """A passage with lines of its document around it."""
        with self.searcher.use() as searcher:
            (own, _), (chunk, document) = (searcher.passage(chunk_id, context=n) for n in (0, context))
        return {
            **passage_json(chunk, document),
            "passage": (own.start - chunk.start, own.end - chunk.start),
            "document_chars": len(document.text),
            "metadata": metadata_json(document),
        }

    def facets(self, keys: Sequence[str], where: str | None, limit: int | None = None) -> dict[str, Any]:
        """How many documents and passages have each value of some fields; at most `limit` values of each."""
        with self.searcher.use() as searcher:
            counts = facets_json({key: searcher.facets(key, where)[:limit] for key in keys})
        return {"index": str(self.path), "where": where, "facets": counts}

    def status(self) -> dict[str, Any]:
        """What the index holds, but for `writing`."""
        with self.searcher.use() as searcher:
            facts, reranker, fields = inspect_index(self.path), searcher.reranker_name(), searcher.fields()
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
            "reranker": reranker,
            "fields": [name for name in fields if len(name) <= MAX_FIELD_CHARS],
            "version": __version__,
        }
