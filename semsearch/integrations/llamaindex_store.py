"""The vector store for LlamaIndex; `semsearch.integrations.llamaindex` gives it out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from semsearch.errors import IndexIncompatible, IndexNotFound, InvalidInput
from semsearch.integrations.foreign import GivenVectors
from semsearch.integrations.given import write_given
from semsearch.integrations.kept import WAIT_S, KeptIndex, name_or_path
from semsearch.integrations.llamaindex_filters import wanted
from semsearch.integrations.originals import PARENT, is_whole, keep, passage_metadata, restore
from semsearch.store.info import inspect_index
from semsearch.types import Document, Hit

__all__ = ["SemsearchVectorStore", "node_of_hit"]

_WORDS = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
DEFAULT_MMR = 0.5  # LlamaIndex's own
_PLACES = ["document_id", "chunk_id", "line_start", "line_end"]


class SemsearchVectorStore(BasePydanticVectorStore):
    """An index on disk as a vector store: of the vectors that nodes bring, and of the words that were embedded.

    A node is one passage. Query modes are `default`, `hybrid`, `text_search` (or `sparse`) and `mmr`. What LlamaIndex
    embeds, and so what words are found in, is the text with its metadata; see `excluded_embed_metadata_keys`.

    Attributes:
        index: a name, or the path of a folder.
        embed_model_name: what made the vectors; an index refuses those of another name.
        wait_s: seconds to wait for another writer.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    index: str = "default"
    embed_model_name: str = "llama-index"
    wait_s: float = WAIT_S
    _kept: KeptIndex | None = PrivateAttr(default=None)
    _was_there: bool = PrivateAttr(default=False)
    _lock: Any = PrivateAttr(default_factory=threading.RLock)

    def __init__(self, index: str | Path = "default", **fields: Any) -> None:
        """As the attributes; the index is made by the first node."""
        super().__init__(**{"index": name_or_path(index), **fields})

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex serialises it."""
        return "SemsearchVectorStore"

    @property
    def client(self) -> Any:
        """The `Searcher` of the index as it is now; None where there is none yet."""
        kept = self._open()
        if kept is None:
            return None
        with kept.searcher() as searcher:
            return searcher

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes, or replace those with the same ids, all at once; gives their ids.

        Raises:
            InvalidInput: a node has no text or no embedding, metadata that are not JSON, or a text has two vectors.
            IndexIncompatible: another model made the vectors that are there.
        """
        if not nodes:
            return []
        vectors: list[list[float]] = []
        for node in nodes:
            if node.embedding is None:
                raise InvalidInput(f"the node {node.node_id!r} has no embedding")
            vectors.append(node.embedding)
        kept = self._open(len(vectors[0]))
        if kept is None:
            raise InvalidInput(f"the node {nodes[0].node_id!r} has an empty embedding")
        given = GivenVectors(kept.embedder().dim, self.embed_model_name)
        write_given(kept, given, [_keep(node) for node in nodes], vectors)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document."""
        kept = self._open()
        if kept is not None and kept.count():
            kept.remove([document.id for document in kept.documents(where={PARENT: ref_doc_id})])

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by metadata, or those of some ids that match."""
        if node_ids is None and filters is None:
            raise InvalidInput("delete_nodes takes ids or filters; clear deletes all nodes")
        kept = self._open()
        if kept is not None:
            kept.remove(node_ids if filters is None else [node.node_id for node in self.get_nodes(node_ids, filters)])

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, by metadata, or both; all of them for neither."""
        kept = self._open()
        if kept is None or not kept.count():
            return []
        return [node_of(document) for document in kept.documents(node_ids, where=wanted(filters))]

    def clear(self) -> None:
        """Delete all nodes."""
        kept = self._open()
        if kept is not None:
            kept.remove(None)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes that answer a query best, with cosines (`default`, `mmr`), fused scores or BM25.

        Raises:
            InvalidInput: a mode or an option that is not known here, or a filter that cannot be followed.
        """
        _check(query, kwargs)
        where = wanted(query.filters, query.node_ids, query.doc_ids)
        kept = self._open()
        hits = [] if kept is None or not kept.count() else _search(kept, query, where)
        nodes = [node_of_hit(hit) for hit in hits]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[hit.score for hit in hits], ids=[node.node_id for node in nodes]
        )

    def _open(self, dim: int | None = None) -> KeptIndex | None:
        """The index; `dim` is that of the vectors of one that is to be made, and without it there is none then."""
        with self._lock:
            if self._kept is not None:
                was_there, self._was_there = self._was_there, self._kept.is_there()
                if was_there and not self._was_there:  # one that is being made was not
                    self._kept.close()
                    self._kept = None
            if self._kept is None:
                try:
                    about = inspect_index(self.index)
                except IndexNotFound:
                    if not dim:
                        return None
                else:
                    if about.model != self.embed_model_name:
                        raise IndexIncompatible(
                            f"{about.path} holds vectors of {about.model}, not of {self.embed_model_name}; take "
                            "another index for these, or search that one with SemsearchRetriever"
                        )
                    dim = about.dim
                given = GivenVectors(dim, self.embed_model_name)
                # approximate search has to be tuned with queries, which we cannot encode
                self._kept = KeptIndex(self.index, embedder=given, wait_s=self.wait_s, kind="flat")
            return self._kept

    # The same on a thread, so that an event loop goes on

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As `delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aclear(self) -> None:
        """As `clear`."""
        await asyncio.to_thread(self.clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _check(query: VectorStoreQuery, options: dict[str, Any]) -> None:
    known = (
        VectorStoreQueryMode.DEFAULT,
        VectorStoreQueryMode.HYBRID,
        VectorStoreQueryMode.MMR,
        *_WORDS,
    )
    if query.mode not in known:
        raise InvalidInput(
            f"semsearch does not know the query mode {query.mode.value}; use default, hybrid or text_search"
        )
    asked = {name: getattr(query, name) for name in ("alpha", "sparse_top_k", "output_fields", "embedding_field")}
    unknown = [*(name for name, value in asked.items() if value is not None), *options]
    if unknown:
        raise InvalidInput(f"semsearch does not know the query option {unknown[0]}")
    if query.mode not in _WORDS and query.query_embedding is None:
        raise InvalidInput(f"the query mode {query.mode.value} needs a query_embedding")
    if query.mode != VectorStoreQueryMode.DEFAULT and not query.query_str:
        raise InvalidInput(f"the query mode {query.mode.value} needs a query_str")


def _search(kept: KeptIndex, query: VectorStoreQuery, where: dict[str, Any] | None) -> list[Hit]:
    text, embedding = query.query_str or "", query.query_embedding
    if query.mode in _WORDS or embedding is None:
        return kept.search(text, query.similarity_top_k, {"mode": "lexical"}, where=where)
    vector = np.asarray(embedding, dtype=np.float32)
    if query.mode == VectorStoreQueryMode.HYBRID:
        return kept.search(text, query.hybrid_top_k or query.similarity_top_k, {}, where=where, vector=vector)
    if query.mode == VectorStoreQueryMode.MMR:
        share = DEFAULT_MMR if query.mmr_threshold is None else query.mmr_threshold
        options = {"mode": "dense", "mmr": share}
        return kept.search(text, query.similarity_top_k, options, where=where, vector=vector)
    return kept.nearest(embedding, query.similarity_top_k, where=where)


def _keep(node: BaseNode) -> Document:
    """Its words are those that were embedded; the rest of it, and its own text where that differs, is kept beside."""
    values = node_to_metadata_dict(node, remove_text=isinstance(node, TextNode))
    rest = json.loads(values["_node_content"])
    rest["metadata"] = {}
    text, embedded = node.get_content(MetadataMode.NONE), node.get_content(MetadataMode.EMBED)
    extra = {"node": rest, "node_type": values["_node_type"], "text": text}
    if text == embedded:
        del extra["text"]
    return keep(node.node_id, embedded, node.metadata, extra, parent=node.ref_doc_id or "")


def node_of(document: Document) -> BaseNode:
    """The node that was written; of a document that came from elsewhere, one of all its text."""
    original = restore(document)
    if "node" not in original.extra:
        return TextNode(id_=original.id, text=original.text, metadata=original.metadata)
    content = json.dumps({**original.extra["node"], "metadata": original.metadata})
    stored = {"_node_content": content, "_node_type": original.extra["node_type"]}
    node = metadata_dict_to_node(stored)
    if isinstance(node, TextNode):
        node.set_content(original.text)
    return node


def node_of_hit(hit: Hit) -> BaseNode:
    """The node that was written; of other documents the passage."""
    if is_whole(hit.document):
        return node_of(hit.document)
    chunk, metadata = hit.chunk, passage_metadata(hit)
    return TextNode(
        id_=f"{hit.document.id}#chunk={chunk.ordinal}",
        text=chunk.text,
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),
        excluded_llm_metadata_keys=_PLACES,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.document.id)},
    )
