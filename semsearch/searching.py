"""The read line: a query to ranked hits."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsearch.encoders import comparable, load_embedder, load_reranker
from semsearch.encoders.late_interaction import LateInteraction, TokenMatch
from semsearch.encoders.recent_vectors import RecentVectors
from semsearch.errors import IndexIncompatible, InvalidInput, PassageNotFound
from semsearch.filters import Filter, parse
from semsearch.found import Found
from semsearch.gathering import Query, gather
from semsearch.highlighting import Highlight, highlights, widen
from semsearch.opening import IndexState, OpenIndex
from semsearch.products import each_with
from semsearch.ranking.calibration import CALIBRATIONS, Calibration
from semsearch.ranking.candidates import Candidates
from semsearch.ranking.diversity import placed
from semsearch.ranking.fusion import dense_weight
from semsearch.ranking.plan import DEFAULT_PLAN, RankingPlan
from semsearch.reading import read_passage
from semsearch.rescoring import rescore
from semsearch.search_options import (
    BUDGET_MS,
    MAX_K,
    MAX_QUERY_CHARS,
    MMR_DEPTH,
    RERANK_DEPTH,
    Asked,
    SearchOptions,
    check_counts,
)
from semsearch.store.files import index_path
from semsearch.store.metadata import Store
from semsearch.store.selection import FacetCount
from semsearch.types import (
    Chunk,
    Document,
    Embedder,
    FloatArray,
    Hit,
    Reranker,
    Scores,
    TokenEmbedder,
    storable,
)

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Searcher"]

SENTENCES_BYTES = 16_000_000  # of vectors of sentences that are kept, some 8,000
ENCODED_AT_ONCE = 32  # queries: one by one they take twice to four times as long, and more at once gain nothing


class Searcher:
    """Answers queries from one index, keeping up with what is written to it. Safe to use from several threads."""

    def __init__(self, index: OpenIndex, *, device: str, embedder: Embedder | None, reranker: Reranker | None) -> None:
        """Use `Searcher.open`."""
        self._index = index
        self._device = device
        self._embedder = embedder
        self._reranker = reranker
        self._own_reranker: LateInteraction | None = None
        self._sentences: RecentVectors | None = None
        self._model_lock = threading.Lock()

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
            reranker: one, or the name or folder of one; without it the index's own model rescores passages
                token by token, where it can.

        Raises:
            IndexNotFound: there is none; the text says how to make one.
            IndexIncompatible: `embedder` is not the one that encoded the index.
            IndexCorrupt: its files cannot be read.
            ModelError: the reranker cannot be found or run.
        """
        opened = OpenIndex(Store(index_path(index)))
        try:
            if embedder is not None:
                _check_model(opened.model(), embedder, opened.path)
            loaded = load_reranker(reranker, device=device) if isinstance(reranker, str) else reranker
            return cls(opened, device=device, embedder=embedder, reranker=loaded)
        except BaseException:
            opened.close()
            raise

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index."""
        self._index.close()

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._index.path

    def is_current(self) -> bool:
        """Whether its answers are those of the index: it was neither replaced nor built anew with another model.

        Changes to what the index holds are followed; where this is False, close and open it again.
        """
        if not self._index.is_in_place():
            return False
        embedder = self._embedder
        return embedder is None or comparable(self._index.model()["fingerprint"], embedder.fingerprint)

    @property
    def embedder(self) -> Embedder:
        """The model of the index, loaded if it is not yet.

        Raises:
            ModelError: it cannot be found or run.
        """
        return self._model()

    def search(
        self,
        text: str,
        *,
        k: int = 10,
        mode: str = "hybrid",
        rerank: bool | None = None,
        rerank_depth: int = RERANK_DEPTH,
        budget_ms: float = BUDGET_MS,
        per_document: int | None = None,
        context: int = 0,
        min_probability: float = 0.0,
        fold: bool = True,
        mmr: float | None = None,
        where: str | Mapping[str, Any] | None = None,
        vector: FloatArray | None = None,
    ) -> list[Hit]:
        """Find the k passages that answer a query best.

        Args:
            text: the query, a question or a few words.
            k: number of hits, 1 to 10,000.
            mode: `hybrid` fuses `dense` (meaning) and `lexical` (words, BM25).
            rerank: whether a reranker reads the first hits again; by default where there is one, but not in `lexical`
                mode without a named reranker, and not by the index's own model where tuning found it better without or
                the query's characters are not in its vocabulary.
            rerank_depth: passages it reads, at most.
            budget_ms: time that it may take on this machine, in milliseconds, which bounds that number too.
            per_document: most hits of one document; 0 for no limit. By default a document's fourth and later ones stand
                behind the first three of every other that is found, in places that are left.
            context: lines of the document to add to the passage on each side.
            min_probability: leave out hits that are relevant with less probability, in [0, 1]; without effect where
                hits have none, as in `lexical` mode, with models that were not calibrated and for queries that the
                model cannot read. The command line shows nothing where even the best is below
                `ranking.calibration.NOTHING_RELEVANT`.
            fold: whether passages that say the same take one place; the best carries the others as `duplicates`.
            mmr: lambda in [0, 1] of maximal marginal relevance: 1 ranks by relevance alone, less ranks passages lower
                the more they resemble better-placed ones. None is 1 without the work.
            where: which documents are looked at, such as `lang = "en" and year >= 2020`, or the same as a mapping;
                `semsearch.filters` says what can be written and what it means. None for all.
            vector: of the query, (dim,), where it is known already; its length does not matter.

        Returns:
            At most k hits, best first; the same query on the same index and machine gives the same hits.

        Raises:
            InvalidInput: the query has more than 100,000 characters, an argument is out of range, `rerank` is asked for
                without a reranker, or `where` cannot be read or has a field that no document has.
            ModelError: the index's model cannot be found or run.
            IndexCorrupt: files of the index cannot be read.
        """
        asked = Asked(
            k=k,
            mode=mode,
            rerank=rerank,
            rerank_depth=rerank_depth,
            budget_ms=budget_ms,
            per_document=per_document,
            context=context,
            min_probability=min_probability,
            fold=fold,
            mmr=mmr,
            where=where,
        )
        return self._answer_all([text], asked, vector)[0]

    def search_many(self, texts: Sequence[str], **options: Unpack[SearchOptions]) -> list[list[Hit]]:
        """`search` for each of several queries, in order, with the same options: the same hits in less time."""
        if isinstance(texts, str):
            raise InvalidInput(f"{texts!r} is one query; give a list of them, or use search")
        return self._answer_all(texts, Asked(**options))

    def _answer_all(self, texts: Sequence[str], asked: Asked, vector: FloatArray | None = None) -> list[list[Hit]]:
        """The hits of each query; `vector` is that of all of them, where it is known."""
        where = parse(asked.where) if asked.where is not None else None
        queries = [_query_text(text) for text in texts]
        answers: list[list[Hit]] = []
        for start in range(0, len(queries), ENCODED_AT_ONCE):
            block = queries[start : start + ENCODED_AT_ONCE]
            vectors = iter(self._vectors([text for text in block if text.strip()], asked.mode, vector))
            answers += [self._answer(text, next(vectors), asked, where) if text.strip() else [] for text in block]
        return answers

    def _vectors(self, texts: Sequence[str], mode: str, vector: FloatArray | None) -> Sequence[FloatArray | None]:
        """A vector (dim,) for each query, `vector` if it is given; None where words alone count."""
        if not texts or mode == "lexical":
            return [None] * len(texts)
        return list(self._encode(texts)) if vector is None else [self._unit(vector)] * len(texts)

    def _answer(self, text: str, vector: FloatArray | None, asked: Asked, where: Filter | None) -> list[Hit]:
        """The hits of one query, whose vector is given unless words alone count."""
        k, mode, mmr = asked.k, asked.mode, asked.mmr
        plan = self._plan(mode)
        unknown_share = 0.0 if mode == "lexical" else self._model().unknown_share(text)
        weight = dense_weight(unknown_share, plan.dense_weight) if mode == "hybrid" else 0.0
        is_read = _is_read(unknown_share)
        reranker = self._reranker_for(mode, asked.rerank, plan)
        if reranker is self._own_reranker and asked.rerank is None and not is_read:
            reranker = None
        query = Query(text, mode, vector, weight, plan.feedback)
        depth = max(k, asked.rerank_depth if reranker else MMR_DEPTH if mmr is not None else 0)
        place = partial(placed, k=k, mmr=mmr, per_document=asked.per_document)
        n_read = asked.rerank_depth if reranker else 0
        prefer = partial(reranker.score, text) if reranker else None
        found = self._gather(
            query,
            depth,
            per_document=asked.per_document,
            fold=asked.fold,
            asked=where,
            place=None if reranker else place,
            n_read=n_read,
            prefer=prefer,
            with_codes=reranker is not None and reranker is self._own_reranker,
        )
        if reranker:
            texts, budget_s = found.to_read(n_read), asked.budget_ms / 1e3
            candidates = rescore(
                reranker,
                query,
                found.candidates,
                texts,
                budget_s,
                plan.rerank_share,
                kept=found.kept(len(texts)),
                per_document=asked.per_document,
            )
            found = replace(found, candidates=place(candidates))
        is_judged = is_read and mode != "lexical"  # by cosines, which say nothing of what the model cannot read
        hits = found.hits(self._probabilities(text, found, reranker) if is_judged else None)
        if asked.context:
            hits = [replace(hit, chunk=widen(hit.chunk, hit.document, asked.context)) for hit in hits]
        return [hit for hit in hits if hit.probability is None or hit.probability >= asked.min_probability]

    def nearest(
        self,
        vector: FloatArray,
        *,
        k: int = 10,
        per_document: int | None = None,
        fold: bool = True,
        where: str | Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Find the k passages whose vectors are nearest to one; without reranking and probabilities.

        Args:
            vector: (dim,), of the index's model; its length does not matter.
            k: as for `search`, as are the others.
            per_document: most hits of one document; 0 for no limit; by default as for `search`.
            fold: whether passages that say the same take one place.
            where: which documents are looked at; None for all.

        Raises:
            InvalidInput: the vector has another dimension, is zero or not finite, or an argument is out of range.
            IndexCorrupt: files of the index cannot be read.
        """
        asked = parse(where) if where is not None else None
        check_counts(k=k, per_document=per_document)
        query = Query("", "dense", self._unit(vector), 1.0)
        found = self._gather(query, k, per_document=per_document, fold=fold, asked=asked)
        return replace(found, candidates=found.candidates.take_first(k)).hits()

    def similar(
        self,
        chunk_id: int,
        *,
        k: int = 10,
        per_document: int | None = None,
        where: str | Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Find the k passages nearest in meaning to one of the index, which is not among them, nor are its copies.

        Args:
            chunk_id: as `Chunk.id` of a hit.
            k: as for `search`, as are the others.
            per_document: most hits of one document; 0 for no limit; by default as for `search`.
            where: which documents are looked at; None for all.

        Raises:
            PassageNotFound: the index does not show such a passage.
            InvalidInput: an argument is out of range.
            IndexCorrupt: files of the index cannot be read.
        """
        check_counts(k=k, per_document=per_document)
        chunk_id = _chunk_id(chunk_id)
        with self._index.state() as state:
            place = state.store.places_of_chunks([chunk_id])
            vector = state.vectors.get(np.array([i for _, _, i in place], dtype=np.int64))
        if not place:
            raise self._no_passage(chunk_id)
        hits = self.nearest(vector[0], k=min(k + 1, MAX_K), per_document=per_document, where=where)
        others = [hit for hit in hits if chunk_id not in (hit.chunk.id, *(d.chunk_id for d in hit.duplicates))]
        return [replace(hit, rank=rank) for rank, hit in enumerate(others[:k], 1)]

    def passage(self, chunk_id: int, *, context: int = 0) -> tuple[Chunk, Document]:
        """A passage of the index with lines of its document around it, and that document.

        Args:
            chunk_id: as `Chunk.id` of a hit.
            context: lines of the document to add on each side.

        Raises:
            PassageNotFound: the index does not show such a passage.
            InvalidInput: `context` is negative.
            IndexCorrupt: files of the index cannot be read.
        """
        check_counts(context=context)
        chunk_id = _chunk_id(chunk_id)
        with self._index.state() as state:
            found = state.store.hydrate([chunk_id])
        if chunk_id not in found:
            raise self._no_passage(chunk_id)
        chunk, document = found[chunk_id]
        return widen(chunk, document, context) if context else chunk, document

    def documents(
        self, ids: Sequence[str] | None = None, *, where: str | Mapping[str, Any] | None = None
    ) -> list[Document]:
        """Documents of the index as they were written, oldest first, or in the order of `ids`.

        Args:
            ids: which; None for all. Those that the index does not hold are passed over.
            where: which of them, as for `search`.

        Raises:
            InvalidInput: `ids` is no list, or `where` cannot be read or has a field that no document has.
            IndexCorrupt: files of the index cannot be read.
        """
        asked = parse(where) if where is not None else None
        wanted = None if ids is None else _document_ids(ids)
        with self._index.state() as state:
            rows = state.store.document_rows(wanted)
            if asked is not None:
                allowed = set(state.selector.select(asked).documents.tolist())
                rows = {key: row for key, row in rows.items() if row in allowed}
            found = state.store.documents(rows.values())
        return [found[rows[key]] for key in (rows if wanted is None else wanted) if key in rows]

    def known_vectors(self, passages: Sequence[str]) -> dict[str, FloatArray]:
        """Vectors (dim,) that the index has for passages, by text; also of those that were deleted of late.

        Raises:
            IndexCorrupt: files of the index cannot be read.
        """
        return self._index.known_vectors(passages)

    @property
    def n_documents(self) -> int:
        """How many documents the index holds."""
        with self._index.state() as state:
            return state.n_documents

    def facets(self, key: str, where: str | Mapping[str, Any] | None = None) -> list[FacetCount]:
        """How many documents and passages have each value of a field, among those that a filter lets through.

        Args:
            key: a field as filters name it, such as `lang`, `type` or a key of the metadata.
            where: which documents are counted, as for `search`.

        Returns:
            Most documents first. A document with several values counts for each; one without any does not.

        Raises:
            InvalidInput: no document has the field, or `where` cannot be read.
            IndexCorrupt: files of the index cannot be read.
        """
        asked = parse(where) if where is not None else None
        with self._index.state() as state:
            return state.selector.facet(storable(key), asked)

    def fields(self) -> list[str]:
        """What filters and facets can name: the built-in fields, then the keys of the documents' metadata.

        Raises:
            IndexCorrupt: files of the index cannot be read.
        """
        with self._index.state() as state:
            return state.selector.fields()

    def highlight(self, text: str, hits: Sequence[Hit]) -> list[Highlight]:
        """Point at the sentence of each hit's passage that answers the query best, and at the query's words in it.

        A cross-encoder chooses the sentence of hits that it read, the index's model that of others.

        Raises:
            InvalidInput: the query has more than 100,000 characters.
            ModelError: the index's model cannot be found or run.
        """
        text, reranker = _query_text(text), self._reranker
        with self._index.state() as state:
            analyzer = state.lexical.analyzer
        return highlights(
            text,
            hits,
            analyzer=analyzer,
            cosines=lambda texts: each_with(np.stack(self._read_sentences(texts)), self._encode([text])[0]),
            weight=lambda: dense_weight(self._model().unknown_share(text), self._plan("hybrid").dense_weight),
            reads=None if reranker is None else lambda texts: reranker.score(text, texts),
            known=lambda passages, sentences: self._score_sentences(text, passages, sentences),
        )

    def _score_sentences(
        self, text: str, passages: Sequence[str], sentences: Sequence[Sequence[tuple[int, int]]]
    ) -> list[FloatArray | None]:
        """Scores of sentences of passages, (n,) each; None of those of whose tokens the index keeps nothing."""
        with self._index.state() as state:
            codes = state.codes_of(passages)
        own = self._late_interaction() if codes else None
        if own is None or not _is_read(self._model().unknown_share(text)):
            return [None] * len(passages)
        at = [i for i, passage in enumerate(passages) if passage in codes]
        scores = own.score_sentences(text, [(passages[i], codes[passages[i]]) for i in at], [sentences[i] for i in at])
        by_place = dict(zip(at, scores, strict=True))
        return [by_place.get(i) for i in range(len(passages))]

    def _read_sentences(self, texts: Sequence[str]) -> list[FloatArray]:
        """Vectors (dim,) of sentences."""
        model = self._model()
        with self._model_lock:
            if self._sentences is None:
                self._sentences = RecentVectors(model, SENTENCES_BYTES, np.float32)
        return self._sentences.of(texts, model.embed_documents)

    def reranker_name(self, mode: str = "hybrid", rerank: bool | None = None) -> str | None:
        """What rescores the hits of a search with these options; None where nothing does."""
        reranker = self._reranker_for(mode, rerank, self._plan(mode))
        return reranker.name if reranker is not None else None

    def explain(self, text: str, hit: Hit) -> list[TokenMatch]:
        """Which word of a hit's passage each word of the query is nearest to, in the query's order.

        The passage is the one that was found, without lines of context around it; offsets are into `hit.chunk.text`.
        Words of its title and headings, which are read with it, have none.
        Told by the reranker where that is late interaction, else by the index's model; empty where that gives no
        vectors of tokens, or cannot read the query.

        Raises:
            InvalidInput: the query has more than 100,000 characters.
            ModelError: the index's model cannot be found or run.
        """
        text = _query_text(text)
        own = self._reranker if isinstance(self._reranker, LateInteraction) else self._late_interaction()
        if own is None or (own is not self._reranker and not _is_read(self._model().unknown_share(text))):
            return []
        with self._index.state() as state:
            found = state.store.hydrate([hit.chunk.id])
        chunk, document = found.get(hit.chunk.id, (hit.chunk, hit.document))
        shift = chunk.start - hit.chunk.start
        matches = own.matches(text, read_passage(chunk, document), len(chunk.text))
        return [replace(m, passage=(m.passage[0] + shift, m.passage[1] + shift)) if m.passage else m for m in matches]

    def _unit(self, vector: FloatArray) -> FloatArray:
        """A vector that was given, as the index's are."""
        dim = self._index.model()["dim"]
        given = np.asarray(vector, dtype=np.float32)
        length = float(np.linalg.norm(given))
        if given.shape != (dim,) or not 0.0 < length < np.inf:
            raise InvalidInput(f"a vector of shape {given.shape} and length {length}: give {dim} numbers, not all 0")
        return np.asarray(given / np.float32(length))

    def _gather(
        self,
        query: Query,
        depth: int,
        *,
        per_document: int | None,
        fold: bool,
        asked: Filter | None,
        place: Callable[[Candidates], Candidates] | None = None,
        n_read: int = 0,
        prefer: Callable[[Sequence[str]], FloatArray] | None = None,
        with_codes: bool = False,
    ) -> Found:
        """The first stage in one state of the index; `place` says which of them are hits before documents are read.

        With `prefer`, as for `Found.with_copies`, those copies among the first `n_read` have rows of their own which a
        reranker would read in another context. `with_codes` of the tokens of those first, where the index keeps them.
        """
        with self._index.state() as state:
            selection = state.selector.select(asked) if asked is not None else None
            candidates, copies = gather(state, query, depth, per_document=per_document, fold=fold, selection=selection)
            candidates = place(candidates) if place is not None else candidates
            found = self._hydrated(state, candidates)
            if prefer is not None and len(copies):
                with_copies = found.with_copies(copies, n_read, prefer)
                found = self._hydrated(state, with_copies) if len(with_copies) > len(candidates) else found
            if with_codes:
                first = found.candidates.ids[:n_read].tolist()
                found = replace(found, codes=state.codes_of(found.passages[i][0].text for i in first))
            return found

    def _hydrated(self, state: IndexState, candidates: Candidates) -> Found:
        """Candidates with what the state that found them says of them."""
        passages = state.store.hydrate(candidates.ids.tolist(), candidates.vector_ids.tolist())
        elsewhere = state.store.duplicates({i for folded in candidates.duplicates for i in folded})
        return Found(candidates, passages, elsewhere, state.lexical)

    def _no_passage(self, chunk_id: int) -> PassageNotFound:
        return PassageNotFound(
            f"the index {self.path.name} has no passage {chunk_id}; search again for its present ones"
        )

    def _probabilities(
        self, text: str, found: Found, reranker: Reranker | None
    ) -> Callable[[Sequence[Scores]], Sequence[float | None]] | None:
        """P(relevant) of the candidates by their scores; None where the model is not calibrated."""
        calibration = self._calibration(reranker)
        if calibration is None:
            return None
        coverage = found.lexical.coverage(text, found.candidates.ids.tolist())
        return lambda hits: calibration.probabilities(hits, coverage, found.candidates.hundredth)

    def _model(self) -> Embedder:
        if self._embedder is None:  # the store's lock is never taken under the model's
            model = self._index.model()
            with self._model_lock:
                if self._embedder is None:
                    embedder = load_embedder(model["name"], device=self._device, precision="full")
                    _check_model(model, embedder, self.path)
                    self._embedder = embedder
        return self._embedder

    def _encode(self, texts: Sequence[str]) -> FloatArray:
        """Unit query vectors (n, dim); that of a long query is the mean of its pieces."""
        embedder = self._model()
        n, pieces, first = embedder.max_tokens, list[str](), [0]
        for text in texts:
            pieces += [text] if text.isascii() and len(text) < n else self._cut(text, n)  # no letter is two tokens
            first.append(len(pieces))
        rows = embedder.embed_queries(pieces)
        vectors = np.stack([rows[start:end].mean(axis=0) for start, end in pairwise(first)])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _cut(self, text: str, n: int) -> list[str]:
        """A text in pieces of n tokens."""
        spans = self._model().token_spans([text])[0]
        return [text[int(spans[i, 0]) : int(spans[i : i + n][-1, 1])] for i in range(0, len(spans), n)] or [text]

    def _plan(self, mode: str) -> RankingPlan:
        """How to rank; an index is tuned for `hybrid` searches."""
        return self._index.plan() if mode == "hybrid" else DEFAULT_PLAN

    def _reranker_for(self, mode: str, asked: bool | None, plan: RankingPlan) -> Reranker | None:
        """What rescores the hits of a search, or None; the plan decides about the index's own model only."""
        is_wanted = self._reranker is not None or (plan.rerank and mode != "lexical")
        if asked is False or (asked is None and not is_wanted):
            return None
        reranker = self._reranker or self._late_interaction()
        if reranker is None and asked:
            raise InvalidInput(
                "the index's own model cannot rerank: name a cross-encoder with --reranker NAME_OR_FOLDER "
                "(in Python: Searcher.open(..., reranker=...))"
            )
        return reranker

    def _calibration(self, reranker: Reranker | None) -> Calibration | None:
        """What turns scores into probabilities; None for models that were not calibrated."""
        known = CALIBRATIONS.get(self._model().description.get("weights_sha256", ""))
        if known is None:
            return None
        with_late_interaction, without = known
        return without if reranker is None or reranker is not self._own_reranker else with_late_interaction

    def _late_interaction(self) -> LateInteraction | None:
        """The index's model as a reranker, where it gives vectors of tokens."""
        embedder = self._model()
        with self._model_lock:
            if self._own_reranker is None and isinstance(embedder, TokenEmbedder):
                self._own_reranker = LateInteraction(embedder)
            return self._own_reranker


def _is_read(unknown_share: float) -> bool:
    """Whether the model's vocabulary holds enough of a query, by the share that it does not, to tell what it means."""
    return dense_weight(unknown_share) > 0


def _query_text(text: Any) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"the query is {text!r}; give a string")
    if len(text) > MAX_QUERY_CHARS:
        raise InvalidInput(
            f"the query has {len(text):,} characters; give at most {MAX_QUERY_CHARS:,}, such as a document's beginning"
        )
    return storable(text)


def _document_ids(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidInput(f"ids = {given!r}: give a list of documents' ids")
    ids = list(given)
    for key in ids:
        if not isinstance(key, str):
            raise InvalidInput(f"id = {key!r}: give a document's id, a string")
    return [storable(key) for key in ids]


def _chunk_id(given: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise InvalidInput(f"chunk_id = {given!r}: give the id of a hit's chunk, a whole number") from None


def _check_model(built: Mapping[str, Any], embedder: Embedder, path: Path) -> None:
    if not comparable(built["fingerprint"], embedder.fingerprint):
        raise IndexIncompatible(
            f"{path} was built with {built['name']} (fingerprint {built['fingerprint'][:12]}), and {embedder.name} "
            f"(fingerprint {embedder.fingerprint[:12]}) is another model; their vectors cannot be compared. "
            f"Use the first, or rebuild: semsearch index --rebuild --model {embedder.name} --index {path}"
        )
