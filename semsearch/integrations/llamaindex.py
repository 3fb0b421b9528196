"""semsearch in LlamaIndex: retriever, vector store, embedding, reranker. `pip install 'semsearch[llamaindex]'`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import DEFAULT_MODEL, load_embedder
from semsearch.errors import InvalidInput, MissingExtra
from semsearch.integrations.kept import check_options, searching
from semsearch.integrations.rerankers import any_reranker
from semsearch.searching import Searcher
from semsearch.types import Embedder, Reranker

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise MissingExtra("llama-index-core", "llamaindex") from error

from semsearch.integrations.llamaindex_store import SemsearchVectorStore, node_of_hit

__all__ = ["SemsearchEmbedding", "SemsearchRerank", "SemsearchRetriever", "SemsearchVectorStore"]


class SemsearchRetriever(BaseRetriever):
    """The passages of an index that answer a query best, as nodes; nodes that were written to it come back whole.

    The index encodes queries itself: an embedding that a `QueryBundle` carries is another model's.
    """

    def __init__(
        self,
        index: str | Path | Searcher = "default",
        *,
        similarity_top_k: int = 10,
        where: str | Mapping[str, Any] | None = None,
        search_options: Mapping[str, Any] | None = None,
        reranker: str | Reranker | None = None,
        device: str = "auto",
        **kwargs: Any,
    ) -> None:
        """Open the index.

        Args:
            index: its name, the path of its folder, or a `Searcher`.
            similarity_top_k: how many nodes.
            where: which documents are looked at, as for `Searcher.search`.
            search_options: other options of `Searcher.search`: `mode`, `rerank`, `mmr`, ...
            reranker: a cross-encoder, or the name or folder of one.
            device: where models run.
            kwargs: of LlamaIndex's `BaseRetriever`.

        Raises:
            IndexNotFound: there is none.
        """
        super().__init__(**kwargs)
        self._searching = searching(index, device=device, reranker=reranker)
        self.similarity_top_k = similarity_top_k
        self.where = where
        self.search_options = dict(search_options or {})
        check_options(self.search_options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        options = {**self.search_options, "k": self.similarity_top_k, "where": self.where}
        with self._searching() as searcher:
            hits = searcher.search(query_bundle.query_str, **options)
        return [NodeWithScore(node=node_of_hit(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class SemsearchEmbedding(BaseEmbedding):
    """A sentence encoder that runs on this machine.

    Attributes:
        model_name: hub name, `name@revision` or folder of the model.
        device: where it runs.
        precision: as for `semsearch.load_embedder`.
    """

    model_name: str = Field(default=DEFAULT_MODEL)
    embed_batch_size: int = Field(default=256, gt=0, le=2048)
    device: str = "auto"
    precision: str = "full"
    _embedder: Any = PrivateAttr(default=None)

    def __init__(self, model_name: str = DEFAULT_MODEL, **fields: Any) -> None:
        """As the attributes; errors are those of `semsearch.load_embedder`."""
        super().__init__(model_name=model_name, **fields)
        self._embedder = load_embedder(self.model_name, device=self.device, precision=self.precision)

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex serialises it."""
        return "SemsearchEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The encoder itself."""
        found: Embedder = self._embedder
        return found

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.embedder.embed_queries([query])[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embedder.embed_documents(texts).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class SemsearchRerank(BaseNodePostprocessor):
    """Puts nodes in the order in which they answer the query, by a cross-encoder or token by token.

    Attributes:
        model: the name or folder of a cross-encoder; without, a bi-encoder compares token by token.
        embedding_model: that bi-encoder.
        top_n: how many nodes are kept.
        device: where the model runs.
    """

    model: str | None = None
    embedding_model: str = DEFAULT_MODEL
    top_n: int = Field(default=10, ge=1)
    device: str = "auto"
    _reranker: Any = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        """As the attributes; the model is found at once."""
        super().__init__(**fields)
        self._reranker = any_reranker(self.model, self.embedding_model, self.device)

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex serialises it."""
        return "SemsearchRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        if query_bundle is None:
            raise InvalidInput("nodes are put in order for a query; give query_str or query_bundle")
        texts = [found.node.get_content(MetadataMode.EMBED) for found in nodes]
        scores = self._reranker.score(query_bundle.query_str, texts)
        order = np.argsort(-scores, kind="stable")[: self.top_n].tolist()
        return [NodeWithScore(node=nodes[i].node, score=float(scores[i])) for i in order]
