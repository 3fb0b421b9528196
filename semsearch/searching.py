"""The read line: a query to ranked hits."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.chunking import split_sentences
from semsearch.encoders import comparable, load_embedder, load_reranker
from semsearch.errors import IndexCorrupt, IndexIncompatible, InvalidInput
from semsearch.ranking.fusion import dense_weight, fuse, limit_per_document, ranked
from semsearch.store.ann import FlatIndex
from semsearch.store.files import index_path
from semsearch.store.lexical import LexicalIndex
from semsearch.store.metadata import Store
from semsearch.store.vectors import ShardReader
from semsearch.types import Chunk, Document, Embedder, FloatArray, Hit, Reranker, Scores, VectorIndex, storable

__all__ = ["MODES", "Highlight", "Searcher"]

MODES = ("hybrid", "dense", "lexical")
MAX_K = 10_000
PER_DOCUMENT = 3  # hits of one document unless asked otherwise
CANDIDATES = 100  # chunks taken from each leg, at least
RERANK_DEPTH = 30  # hits the cross-encoder reads, at least
OPEN_ATTEMPTS = 5  # a file named by a state of the index may be gone when a writer has just replaced it


@dataclass(frozen=True, slots=True)
class Highlight:
    """What to point at in a passage, as (start, end) offsets into `hit.chunk.text`."""

    sentence: tuple[int, int]
    words: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The files that belong to one state of an index."""

    generation: int
    lexical: LexicalIndex
    vectors: ShardReader
    ann: VectorIndex
    n_chunks: int
    n_documents: int
    n_spare: int  # vectors or lexical entries that no visible chunk answers for: fetched on top


class Searcher:
    """Answers queries from one index, keeping up with what is written to it. Safe to use from several threads."""

    def __init__(self, store: Store, *, device: str, embedder: Embedder | None, reranker: Reranker | None) -> None:
        """Use `Searcher.open`."""
        self._store = store
        self._device = device
        self._embedder = embedder
        self._reranker = reranker
        self._model_lock = threading.Lock()
        self._parts_lock = threading.Lock()
        self._parts: _Parts | None = None

    @classmethod
    def open(
        cls,
        index: str | Path = "default",
        *,
        device: str = "auto",
        embedder: Embedder | None = None,
        reranker: str | Reranker | None = None,
    ) -> Searcher:
        """Open an index.

        Args:
            index: its name, or the path of its folder.
            device: where models run: `auto`, `cpu`, `cuda`, ...
            embedder: in place of the model the index names, which is otherwise loaded by the first query that needs it.
            reranker: a cross-encoder, or the name or folder of one; without it nothing is reranked.

        Raises:
            IndexNotFound: there is none; the text says how to make one.
            IndexIncompatible: `embedder` is not the one that encoded the index.
            IndexCorrupt: its files cannot be read.
            ModelError: the reranker cannot be found or run.
        """
        store = Store(index_path(index))
        try:
            if embedder is not None:
                with store.snapshot() as meta:
                    _check_model(meta["model"], embedder, store.path)
            loaded = load_reranker(reranker, device=device) if isinstance(reranker, str) else reranker
            return cls(store, device=device, embedder=embedder, reranker=loaded)
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index."""
        self._store.close()

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._store.path

    @property
    def has_reranker(self) -> bool:
        """Whether hits are reranked unless a search says otherwise."""
        return self._reranker is not None

    def search(
        self,
        text: str,
        *,
        k: int = 10,
        mode: str = "hybrid",
        rerank: bool | None = None,
        per_document: int = PER_DOCUMENT,
        context: int = 0,
    ) -> list[Hit]:
        """Find the k passages that answer a query best.

        Args:
            text: the query, a question or a few words.
            k: number of hits, 1 to 10,000.
            mode: `hybrid` fuses `dense` (meaning) and `lexical` (words, BM25).
            rerank: whether a cross-encoder rescores the first hits; by default when the searcher has one.
            per_document: most hits of one document; 0 for no limit.
            context: lines of the document to add to the passage on each side.

        Returns:
            At most k hits, best first; the same query on the same index gives the same hits.

        Raises:
            InvalidInput: an argument is out of range, or `rerank` is asked for without a reranker.
            ModelError: the index's model cannot be found or run.
            IndexCorrupt: files of the index cannot be read.
        """
        rerank = self._reranker is not None if rerank is None else rerank
        self._check(k, mode, rerank, per_document, context)
        if not isinstance(text, str):
            raise InvalidInput(f"the query is {text!r}; give a string")
        text = storable(text)
        if not text.strip():
            return []
        vector = None if mode == "lexical" else self._encode(text)
        weight = self._weight(text) if mode == "hybrid" else 0.0
        depth = max(k, RERANK_DEPTH) if rerank else k
        with self._state() as parts:
            n_first = max(CANDIDATES, depth)
            n_possible = min(depth, parts.n_documents * per_document) if per_document else depth
            while True:
                dense, lexical, document_of = self._score(parts, text, vector, mode, n_first)
                ranking = fuse(dense, lexical, weight=weight) if mode == "hybrid" else ranked(dense or lexical)
                ranking = limit_per_document(ranking, document_of, per_document)[:depth]
                if len(ranking) >= n_possible or n_first >= parts.n_chunks:
                    break
                n_first *= 4  # a document with many good chunks used the candidates up
            found = self._store.hydrate([chunk_id for chunk_id, _ in ranking])
        scores = {i: Scores(dense=dense.get(i), lexical=lexical.get(i), fused=fused) for i, fused in ranking}
        if rerank:
            ranking, scores = self._rerank(text, ranking, scores, found)
        hits = []
        for rank, (chunk_id, score) in enumerate(ranking[:k], start=1):
            chunk, document = found[chunk_id]
            chunk = _widen(chunk, document, context) if context else chunk
            hits.append(Hit(rank, score, None, chunk, document, scores[chunk_id]))
        return hits

    def search_many(
        self,
        texts: Sequence[str],
        *,
        k: int = 10,
        mode: str = "hybrid",
        rerank: bool | None = None,
        per_document: int = PER_DOCUMENT,
        context: int = 0,
    ) -> list[list[Hit]]:
        """`search` for each of several queries, in order."""
        return [
            self.search(text, k=k, mode=mode, rerank=rerank, per_document=per_document, context=context)
            for text in texts
        ]

    def highlight(self, text: str, hits: Sequence[Hit]) -> list[Highlight]:
        """Point at the sentence of each hit's passage that is nearest to the query, and at the query's words in it.

        Raises:
            ModelError: the index's model cannot be found or run.
        """
        with self._state() as parts:
            analyzer = parts.lexical.analyzer
        terms = analyzer.query_terms(text)
        sentences = [split_sentences(hit.chunk.text) or [(0, len(hit.chunk.text))] for hit in hits]
        cosines = self._sentence_cosines(text, hits, sentences)
        found = []
        for hit, spans, dense in zip(hits, sentences, cosines, strict=True):
            words = analyzer.matches(hit.chunk.text, terms)
            counts = [sum(start <= word[0] < end for word in words) for start, end in spans]
            lexical = {i: float(n) for i, n in enumerate(counts) if n}
            best = fuse(dense, lexical, weight=self._weight(text) if dense else 0.0)
            found.append(Highlight(spans[best[0][0]] if best else spans[0], tuple(words)))
        return found

    def _sentence_cosines(
        self, text: str, hits: Sequence[Hit], sentences: Sequence[list[tuple[int, int]]]
    ) -> list[dict[int, float]]:
        """Cosine of the query and each sentence, hit by hit; none where there is no choice, or no meaning was used."""
        asked = [i for i, hit in enumerate(hits) if hit.scores.dense is not None and len(sentences[i]) > 1]
        found: list[dict[int, float]] = [{} for _ in hits]
        if asked:
            texts = [hits[i].chunk.text[start:end] for i in asked for start, end in sentences[i]]
            scores = iter((self._model().embed_documents(texts) @ self._encode(text)).tolist())
            for i in asked:
                found[i] = dict(enumerate(itertools.islice(scores, len(sentences[i]))))
        return found

    def _check(self, k: int, mode: str, rerank: bool, per_document: int, context: int) -> None:
        if not 1 <= k <= MAX_K:
            raise InvalidInput(f"k = {k}: give a number of hits from 1 to {MAX_K}")
        if mode not in MODES:
            raise InvalidInput(f"mode = {mode!r}: give one of {', '.join(MODES)}")
        if per_document < 0 or context < 0:
            raise InvalidInput(f"per_document = {per_document}, context = {context}: neither may be negative")
        if rerank and self._reranker is None:
            raise InvalidInput(
                "reranking needs a cross-encoder and none is configured: name one with --reranker NAME_OR_FOLDER "
                "(in Python: Searcher.open(..., reranker=...))"
            )

    def _model(self) -> Embedder:
        if self._embedder is None:  # the store's lock is never taken under the model's
            with self._store.snapshot() as meta:
                model = meta["model"]
            with self._model_lock:
                if self._embedder is None:
                    embedder = load_embedder(model["name"], device=self._device, precision="full")
                    _check_model(model, embedder, self.path)
                    self._embedder = embedder
        return self._embedder

    def _encode(self, text: str) -> FloatArray:
        """Unit query vector (dim,); that of a long query is the mean of its pieces."""
        embedder = self._model()
        spans = embedder.token_spans([text])[0]
        n = embedder.max_tokens
        pieces = [text[int(spans[i, 0]) : int(spans[i : i + n][-1, 1])] for i in range(0, len(spans), n)] or [text]
        vector = embedder.embed_queries(pieces).mean(axis=0)
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)

    def _weight(self, text: str) -> float:
        """Weight of the dense leg in a hybrid ranking."""
        return dense_weight(self._model().unknown_share(text))

    @contextlib.contextmanager
    def _state(self) -> Iterator[_Parts]:
        """Hold one state of the index, its files opened once."""
        with contextlib.ExitStack() as stack:
            for attempt in range(1, OPEN_ATTEMPTS + 1):
                meta = stack.enter_context(self._store.snapshot())
                try:
                    parts = self._parts_of(meta)
                    break
                except FileNotFoundError as error:
                    stack.close()
                    if attempt == OPEN_ATTEMPTS:
                        raise IndexCorrupt(f"{error.filename} is missing. Mend it with: semsearch index") from error
            yield parts

    def _parts_of(self, meta: Mapping[str, Any]) -> _Parts:
        with self._parts_lock:
            if self._parts is None or self._parts.generation != meta["generation"]:
                self._parts = self._open_parts(meta)
            return self._parts

    def _open_parts(self, meta: Mapping[str, Any]) -> _Parts:
        model, ann = meta["model"], meta["ann"]
        shards = ShardReader(self.path / "vectors", self._store.shard_names(model["fingerprint"]), model["dim"])
        index = FlatIndex.load(self.path / ann["file"], model["dim"])
        lexical = LexicalIndex(self.path / "lexical")
        n_chunks, n_vectors, n_documents = self._store.count_chunks()
        n_spare = max(len(index) - n_vectors, len(lexical) - n_chunks, 0)
        return _Parts(meta["generation"], lexical, shards, index, n_chunks, n_documents, n_spare)

    def _score(
        self, parts: _Parts, text: str, vector: FloatArray | None, mode: str, n_first: int
    ) -> tuple[dict[int, float], dict[int, float], dict[int, int]]:
        """(cosines, BM25 scores, document rows) by chunk id, of every candidate of either leg."""
        places: set[tuple[int, int, int]] = set()
        if vector is not None:
            near = parts.ann.search(vector[np.newaxis], n_first + parts.n_spare).ids[0]
            places.update(self._store.chunks_of_vectors(near[near >= 0].tolist()))
        lexical: dict[int, float] = {}
        if mode != "dense":
            lexical = dict(parts.lexical.search(text, n_first + parts.n_spare))
            places.update(self._store.places_of_chunks(lexical))
            missing = sorted(chunk_id for chunk_id, _, _ in places if chunk_id not in lexical)
            lexical.update(parts.lexical.score(text, missing))
        document_of = {chunk_id: document for chunk_id, document, _ in places}
        lexical = {chunk_id: score for chunk_id, score in lexical.items() if chunk_id in document_of}
        dense: dict[int, float] = {}
        if vector is not None and places:
            ordered = sorted(places)
            rows = parts.vectors.get(np.array([vector_id for _, _, vector_id in ordered], dtype=np.int64))
            dense = {p[0]: score for p, score in zip(ordered, (rows @ vector).tolist(), strict=True)}
        return dense, lexical, document_of

    def _rerank(
        self,
        text: str,
        ranking: list[tuple[int, float]],
        scores: dict[int, Scores],
        found: Mapping[int, tuple[Chunk, Document]],
    ) -> tuple[list[tuple[int, float]], dict[int, Scores]]:
        """The ranking by the cross-encoder's scores, ties to the smaller id."""
        assert self._reranker is not None
        read = self._reranker.score(text, [found[i][0].text for i, _ in ranking]).tolist()
        rescored = {i: replace(scores[i], rerank=score) for (i, _), score in zip(ranking, read, strict=True)}
        return ranked({i: score for (i, _), score in zip(ranking, read, strict=True)}), rescored


def _widen(chunk: Chunk, document: Document, n_lines: int) -> Chunk:
    """The chunk with `n_lines` more lines of its document on each side."""
    text = document.text
    start, end = text.rfind("\n", 0, chunk.start) + 1, text.find("\n", chunk.end)
    line_start, line_end = chunk.line_start, chunk.line_end
    for _ in range(n_lines):
        if start == 0:
            break
        start, line_start = text.rfind("\n", 0, start - 1) + 1, line_start - 1
    for _ in range(n_lines):
        if end < 0:
            break
        end, line_end = text.find("\n", end + 1), line_end + 1
    end = len(text) if end < 0 else end
    page = bisect.bisect_right(document.page_starts, start) if document.page_starts else chunk.page
    return replace(
        chunk, text=text[start:end], start=start, end=end, line_start=line_start, line_end=line_end, page=page
    )


def _check_model(built: Mapping[str, Any], embedder: Embedder, path: Path) -> None:
    if not comparable(built["fingerprint"], embedder.fingerprint):
        raise IndexIncompatible(
            f"{path} was built with {built['name']} (fingerprint {built['fingerprint'][:12]}), and {embedder.name} "
            f"(fingerprint {embedder.fingerprint[:12]}) is another model; their vectors cannot be compared. "
            f"Use the first, or rebuild: semsearch index --rebuild --model {embedder.name} --index {path}"
        )
