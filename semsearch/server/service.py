"""What the service does with one index: questions to plain data. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsearch import __version__
from semsearch.answers import facets_json, hit_json, query_answer, relevant
from semsearch.store.info import inspect_index
from semsearch.types import Hit

if TYPE_CHECKING:
    from semsearch.search_options import SearchOptions
    from semsearch.searching import Searcher

__all__ = ["Service"]


class Service:
    """Answers from one index. Safe to use from several threads; errors are those of `Searcher`."""

    def __init__(self, searcher: Searcher, *, writable: bool = False) -> None:
        self._searcher = searcher
        self.writable = writable

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._searcher.path

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
        by_meaning = mode != "lexical"
        matches = [searcher.explain(text, hit) if by_meaning else [] for hit in hits] if explain else None
        answer = query_answer(text, searcher.path, mode, elapsed_ms, hits, best, matches)
        if highlight:
            for hit, marks in zip(answer["hits"], searcher.highlight(text, hits), strict=True):
                start_of, end_of = marks.sentence
                hit["highlight"] = {"start": start_of, "end": end_of, "words": marks.words}
        if facets:
            answer["facets"] = self._counts(facets, options.get("where"))
        return answer

    def similar(self, chunk_id: int, *, k: int, per_document: int, where: str | None) -> dict[str, Any]:
        """Hits like a passage."""
        start = time.perf_counter()
        hits: list[Hit] = self._searcher.similar(chunk_id, k=k, per_document=per_document, where=where)
        elapsed_ms = round(1000 * (time.perf_counter() - start), 3)
        index = str(self._searcher.path)
        return {"chunk_id": chunk_id, "index": index, "elapsed_ms": elapsed_ms, "hits": [hit_json(h) for h in hits]}

    def passage(self, chunk_id: int, *, context: int) -> dict[str, Any]:
        """A passage with lines of its document around it."""
        (own, _), (chunk, document) = (self._searcher.passage(chunk_id, context=n) for n in (0, context))
        path = document.source or document.id
        return {
            "chunk_id": chunk.id,
            "document_id": document.id,
            "path": path,
            "title": document.title or Path(path).stem,
            "heading": chunk.heading,
            "page": chunk.page,
            "line_start": chunk.line_start,
            "line_end": chunk.line_end,
            "start": chunk.start,
            "end": chunk.end,
            "text": chunk.text,
            "passage": (own.start - chunk.start, own.end - chunk.start),
            "document_chars": len(document.text),
            "metadata": document.metadata,
        }

    def facets(self, keys: Sequence[str], where: str | None) -> dict[str, Any]:
        """How many documents and passages have each value of some fields."""
        return {"index": str(self._searcher.path), "where": where, "facets": self._counts(keys, where)}

    def status(self) -> dict[str, Any]:
        """What the index holds."""
        facts = inspect_index(self._searcher.path)
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
            "writable": self.writable,
            "writing": False,
            "reranker": self._searcher.reranker_name(),
            "fields": self._searcher.fields(),
            "version": __version__,
        }

    def _counts(self, keys: Sequence[str], where: str | Mapping[str, Any] | None) -> dict[str, Any]:
        return facets_json({key: self._searcher.facets(key, where) for key in keys})
