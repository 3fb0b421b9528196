"""semsearch in LangChain: retriever, vector store, embeddings and a reranker. `pip install 'semsearch[langchain]'`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import DEFAULT_MODEL, load_embedder
from semsearch.errors import InvalidInput, MissingExtra
from semsearch.integrations.foreign import ForeignEmbedder
from semsearch.integrations.kept import WAIT_S, KeptIndex, check_options, searching
from semsearch.integrations.mongo_filters import translated
from semsearch.integrations.originals import is_whole, keep, passage_metadata, restore
from semsearch.integrations.rerankers import any_reranker
from semsearch.searching import Searcher
from semsearch.types import Document, Embedder, Hit, Reranker

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from pydantic import ConfigDict, Field, PrivateAttr
except ImportError as error:
    raise MissingExtra("langchain-core", "langchain") from error

__all__ = ["SemsearchEmbeddings", "SemsearchReranker", "SemsearchRetriever", "SemsearchVectorStore"]


class SemsearchEmbeddings(Embeddings):
    """A sentence encoder that runs on this machine, by default all-MiniLM-L6-v2."""

    def __init__(self, model: str = DEFAULT_MODEL, *, device: str = "auto", precision: str = "full") -> None:
        """As `semsearch.load_embedder`, whose errors it raises."""
        self.embedder: Embedder = load_embedder(model, device=device, precision=precision)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of passages; of a long one, of what the model reads."""
        return self.embedder.embed_documents(texts).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a query."""
        vector: list[float] = self.embedder.embed_queries([text])[0].tolist()
        return vector


class SemsearchRetriever(BaseRetriever):
    """The passages of an index that answer a query best.

    A document that was written through this module comes back whole, of others the passage, with metadata that say
    where it stands. `score` and, where there is one, `probability` are in the metadata.

    Attributes:
        index: a name, the path of a folder, or a `Searcher`.
        k: number of passages; an argument of `invoke` takes its place.
        where: which documents are looked at, as for `Searcher.search`; an argument of `invoke` takes its place.
        search_options: other options of `Searcher.search`: `mode`, `rerank`, `mmr`, `min_probability`, ...
        reranker: the name or folder of a cross-encoder.
        device: where models run.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: str | Path | Searcher = "default"
    k: int = 10
    where: str | Mapping[str, Any] | None = None
    search_options: dict[str, Any] = Field(default_factory=dict)
    reranker: str | None = None
    device: str = "auto"
    _searching: Callable[[], AbstractContextManager[Searcher]] | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Open the index, so that a wrong name is told at once."""
        super().model_post_init(context)
        check_options(self.search_options)
        self._searching = searching(self.index, device=self.device, reranker=self.reranker)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: str | Mapping[str, Any] | None = None,
    ) -> list[LangChainDocument]:
        if self._searching is None:
            raise InvalidInput("this retriever was made without being initialised; make it with SemsearchRetriever()")
        options = {**self.search_options, "k": self.k if k is None else k}
        options["where"] = self.where if where is None else where
        found = []
        with self._searching() as searcher:
            hits = searcher.search(query, **options)
        for hit in hits:
            document = _of_hit(hit)
            document.metadata["score"] = hit.score
            if hit.probability is not None:
                document.metadata["probability"] = hit.probability
            found.append(document)
        return found


class SemsearchVectorStore(VectorStore):
    """An index on disk as a vector store: hybrid search, reranked where that is possible, over whole documents.

    Searches take `filter`: metadata by name as in `{"lang": "en", "year": {"$gte": 2020}}`, with `$and`, `$or` and
    `$not`; or a filter of semsearch as a string. They also take the other options of `Searcher.search` by name, such
    as `mode="dense"` or `rerank=False`.
    """

    def __init__(
        self,
        embedding: Embeddings | None = None,
        index: str | Path = "default",
        *,
        device: str = "auto",
        reranker: str | Reranker | None = None,
        search_options: Mapping[str, Any] | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        """Nothing is opened before it is needed; an index that is not there is made by the first document.

        Args:
            embedding: what encodes; by default the index's own model, or all-MiniLM-L6-v2.
            index: its name, or the path of its folder.
            device: where models run.
            reranker: a cross-encoder, or the name or folder of one.
            search_options: of `Searcher.search` but `k` and `where`, for all searches that do not say otherwise.
            wait_s: seconds to wait for another writer.
        """
        embedder = _embedder_of(embedding) if embedding is not None else None
        self._embedding = embedding
        self._kept = KeptIndex(index, embedder=embedder, device=device, reranker=reranker, wait_s=wait_s)
        self._options = dict(search_options or {})
        check_options(self._options)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> SemsearchVectorStore:
        """A store with these texts in it; other arguments are those of the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings | None:
        """What was given as `embedding`."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those with the same ids, all at once; gives their ids, new ones where none are given.

        Raises:
            InvalidInput: a text is empty, metadata are not JSON, or there are not as many of each.
        """
        _check_no_more(kwargs)
        listed = list(texts)
        given = list(ids) if ids is not None else [None] * len(listed)
        described = metadatas if metadatas is not None else [{}] * len(listed)
        if not len(listed) == len(given) == len(described):
            raise InvalidInput(f"{len(listed)} texts, {len(described)} metadatas and {len(given)} ids; give one each")
        named = [i or str(uuid.uuid4()) for i in given]
        self._kept.write([keep(i, text, about) for i, text, about in zip(named, listed, described, strict=True)])
        return named

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id; all that came from no file without. Ids that are not there do nothing."""
        _check_no_more(kwargs)
        self._kept.remove(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """The documents with these ids, in their order; those that are not there are left out."""
        return [_whole(document) for document in self._kept.documents(ids)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """The k documents that answer a query best."""
        return [_of_hit(hit) for hit in self._search(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """With `Hit.score`, by which they are ranked; larger is better."""
        return [(_of_hit(hit), hit.score) for hit in self._search(query, k, **kwargs)]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Any = None, **kwargs: Any
    ) -> list[LangChainDocument]:
        """The k documents with a passage nearest to a vector."""
        _check_no_more(kwargs)
        return [_of_hit(hit) for hit in self._kept.nearest(embedding, k, where=translated(filter))]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """The k documents that answer a query and differ most, out of the best; 50 are looked at, or `fetch_k`."""
        options = {"rerank_depth": max(fetch_k, k), **kwargs, "mmr": lambda_mult}
        return [_of_hit(hit) for hit in self._search(query, k, **options)]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: min(max(score, 0.0), 1.0)

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """The probability that a document is relevant where the model is calibrated, else its score, in [0, 1]."""
        if {**self._options, **kwargs}.get("mode") == "lexical":
            raise InvalidInput("BM25 has no upper bound: there are no relevance scores with mode='lexical'")
        clipped = self._select_relevance_score_fn()
        return [
            (_of_hit(hit), clipped(hit.score) if hit.probability is None else hit.probability)
            for hit in self._search(query, k, **kwargs)
        ]

    def _search(self, query: str, k: int, *, filter: Any = None, **options: Any) -> list[Hit]:
        return self._kept.search(query, k, {**self._options, **options}, where=translated(filter))


class SemsearchReranker(BaseDocumentCompressor):
    """Puts documents in the order in which they answer a query; `relevance_score` is added to the metadata.

    Attributes:
        model: the name or folder of a cross-encoder; without, a bi-encoder compares token by token.
        embedding_model: that bi-encoder.
        top_n: how many documents are kept; None for all.
        device: where the model runs.
    """

    model: str | None = None
    embedding_model: str = DEFAULT_MODEL
    top_n: int | None = Field(default=10, ge=1)
    device: str = "auto"
    _reranker: Any = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Find the model, so that a wrong name is told at once."""
        super().model_post_init(context)
        self._reranker = any_reranker(self.model, self.embedding_model, self.device)

    def compress_documents(
        self, documents: Sequence[LangChainDocument], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[LangChainDocument]:
        """The best documents, best first; those that were given are not changed."""
        if not documents:
            return []
        scores = self._reranker.score(query, [document.page_content for document in documents])
        ranked = []
        for i in np.argsort(-scores, kind="stable")[: self.top_n].tolist():
            metadata = {**documents[i].metadata, "relevance_score": float(scores[i])}
            ranked.append(documents[i].model_copy(update={"metadata": metadata}))
        return ranked


def _whole(document: Document) -> LangChainDocument:
    original = restore(document)
    return LangChainDocument(id=original.id, page_content=original.text, metadata=original.metadata)


def _of_hit(hit: Hit) -> LangChainDocument:
    if is_whole(hit.document):
        return _whole(hit.document)
    return LangChainDocument(
        id=f"{hit.document.id}#chunk={hit.chunk.ordinal}",
        page_content=hit.chunk.text,
        metadata=passage_metadata(hit),
    )


def _embedder_of(embedding: Embeddings) -> Embedder:
    if isinstance(embedding, SemsearchEmbeddings):
        return embedding.embedder
    kind = type(embedding)
    named = (getattr(embedding, name, None) for name in ("model", "model_name", "model_id", "deployment"))
    model = next((name for name in named if isinstance(name, str) and name), "")
    name = f"{kind.__module__}.{kind.__qualname__}" + (f" {model}" if model else "")
    return ForeignEmbedder(name, embedding.embed_documents, embedding.embed_query)


def _check_no_more(options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInput(f"{', '.join(options)}: there is no such option here")
