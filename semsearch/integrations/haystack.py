"""semsearch in Haystack: document store, retriever and ranker. `pip install 'semsearch[haystack]'`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from semsearch.encoders import DEFAULT_MODEL
from semsearch.errors import InvalidInput, MissingExtra
from semsearch.integrations.kept import check_options
from semsearch.integrations.rerankers import any_reranker
from semsearch.types import Reranker

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
except ImportError as error:
    raise MissingExtra("haystack-ai", "haystack") from error

from semsearch.integrations.haystack_store import Filters, SemsearchDocumentStore

__all__ = ["SemsearchDocumentStore", "SemsearchRanker", "SemsearchRetriever"]


@component
class SemsearchRetriever:
    """Gives the documents of a `SemsearchDocumentStore` that answer a query best."""

    def __init__(
        self,
        document_store: SemsearchDocumentStore,
        *,
        filters: Filters | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        search_options: dict[str, Any] | None = None,
    ) -> None:
        """Keep what a run does not say.

        Args:
            document_store: what is searched.
            filters: on metadata.
            top_k: how many documents, from 1.
            filter_policy: whether filters of a run replace these, or both count.
            search_options: of `Searcher.search`: `mode`, `rerank`, `mmr`, `min_probability`, ...
        """
        if not isinstance(document_store, SemsearchDocumentStore):
            raise InvalidInput(f"document_store = {document_store!r}: give a SemsearchDocumentStore")
        if top_k < 1:
            raise InvalidInput(f"top_k = {top_k}: give a number of documents from 1")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy
        self.search_options = search_options or {}
        check_options(self.search_options)

    def to_dict(self) -> dict[str, Any]:
        """As Haystack serialises it."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            search_options=self.search_options,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SemsearchRetriever:
        """What `to_dict` gave."""
        parameters = data["init_parameters"]
        if isinstance(parameters["document_store"], Mapping):
            store = SemsearchDocumentStore.from_dict(dict(parameters["document_store"]))
            data = {**data, "init_parameters": {**parameters, "document_store": store}}
        retriever: SemsearchRetriever = default_from_dict(cls, data)
        return retriever

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str = "",
        filters: Filters | None = None,
        top_k: int | None = None,
        query_embedding: list[float] | None = None,
    ) -> dict[str, list[Document]]:
        """Search; arguments and errors are those of `SemsearchDocumentStore.search`."""
        found = self.document_store.search(
            query,
            top_k=self.top_k if top_k is None else top_k,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            query_embedding=query_embedding,
            **self.search_options,
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str = "",
        filters: Filters | None = None,
        top_k: int | None = None,
        query_embedding: list[float] | None = None,
    ) -> dict[str, list[Document]]:
        """As `run`, on a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k, query_embedding)


@component
class SemsearchRanker:
    """Puts documents in the order in which they answer a query, by a cross-encoder or token by token."""

    def __init__(
        self,
        model: str | None = None,
        *,
        embedding_model: str = DEFAULT_MODEL,
        top_k: int = 10,
        device: str = "auto",
    ) -> None:
        """The model is loaded by `warm_up`, or by the first run.

        Args:
            model: the name or folder of a cross-encoder; without, a bi-encoder compares token by token.
            embedding_model: that bi-encoder.
            top_k: how many documents are kept, from 1.
            device: where the model runs.
        """
        if top_k < 1:
            raise InvalidInput(f"top_k = {top_k}: give a number of documents from 1")
        self.model = model
        self.embedding_model = embedding_model
        self.top_k = top_k
        self.device = device
        self._reranker: Reranker | None = None

    def to_dict(self) -> dict[str, Any]:
        """As Haystack serialises it."""
        return default_to_dict(
            self, model=self.model, embedding_model=self.embedding_model, top_k=self.top_k, device=self.device
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SemsearchRanker:
        """What `to_dict` gave."""
        ranker: SemsearchRanker = default_from_dict(cls, data)
        return ranker

    def warm_up(self) -> None:
        """Load the model.

        Raises:
            ModelError: it cannot be found or run.
        """
        if self._reranker is None:
            self._reranker = any_reranker(self.model, self.embedding_model, self.device)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """The best documents, best first, with `score`; those without text come last."""
        self.warm_up()
        if self._reranker is None or not documents:
            return {"documents": []}
        read = [document for document in documents if document.content]
        scores = self._reranker.score(query, [str(document.content) for document in read])
        ranked = [replace(read[i], score=float(scores[i])) for i in np.argsort(-scores, kind="stable").tolist()]
        unread = [document for document in documents if not document.content]
        return {"documents": [*ranked, *unread][: self.top_k if top_k is None else top_k]}
