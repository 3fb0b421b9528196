"""The document store for Haystack; `semsearch.integrations.haystack` gives it out."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from haystack import Document, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils.filters import document_matches_filter

from semsearch.errors import InvalidInput
from semsearch.integrations.foreign import GivenVectors
from semsearch.integrations.given import write_given
from semsearch.integrations.haystack_filters import check, translated
from semsearch.integrations.kept import WAIT_S, KeptIndex, name_or_path
from semsearch.integrations.originals import is_whole, keep, passage_metadata, restore
from semsearch.types import Document as OwnDocument
from semsearch.types import Hit

__all__ = ["Filters", "SemsearchDocumentStore"]

P = ParamSpec("P")
T = TypeVar("T")
Filters = dict[str, Any]
KEPT = ("embedding", "blob", "sparse_embedding", "score")  # of a document, beside id, content and meta


def _on_thread(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same method, also of a subclass, for an event loop, which goes on meanwhile."""
    name = method.__name__

    @wraps(method)
    async def run(*arguments: P.args, **options: P.kwargs) -> T:
        store, *rest = arguments
        found: T = await asyncio.to_thread(getattr(store, name), *rest, **options)
        return found

    run.__name__ = f"{name}_async"
    return run


class SemsearchDocumentStore:
    """An index on disk as a document store.

    It encodes the documents itself: no embedder is needed in a pipeline. Embeddings that documents bring are kept and
    given back; with `embedding_dim` they are what is searched, and each document has to bring one.
    """

    def __init__(
        self,
        index: str | Path = "default",
        *,
        model: str | None = None,
        device: str = "auto",
        reranker: str | None = None,
        embedding_dim: int | None = None,
        embedding_model: str = "",
        wait_s: float = WAIT_S,
    ) -> None:
        """Nothing is opened before it is needed; an index that is not there is made by the first document.

        Args:
            index: its name, or the path of its folder.
            model: hub name or folder of the encoder; by default the index's own, or all-MiniLM-L6-v2.
            device: where models run.
            reranker: the name or folder of a cross-encoder.
            embedding_dim: components of the embeddings that documents and queries bring, instead of a model.
            embedding_model: what made them; an index refuses those of another name.
            wait_s: seconds to wait for another writer.
        """
        if embedding_dim is not None and model is not None:
            raise InvalidInput(f"model = {model!r} encodes, embedding_dim = {embedding_dim} does without; give one")
        self._parameters = {
            "index": name_or_path(index),
            "model": model,
            "device": device,
            "reranker": reranker,
            "embedding_dim": embedding_dim,
            "embedding_model": embedding_model,
            "wait_s": wait_s,
        }
        self._given = None if embedding_dim is None else GivenVectors(embedding_dim, embedding_model or "haystack")
        self._kept = KeptIndex(
            index,
            embedder=self._given,
            model=model,
            device=device,
            reranker=reranker,
            wait_s=wait_s,
            kind="flat" if self._given else None,  # what approximate search needs to be tuned, we cannot encode
        )
        self._lock = threading.RLock()  # between looking what is there and writing

    def to_dict(self) -> dict[str, Any]:
        """As Haystack serialises it."""
        return default_to_dict(self, **self._parameters)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SemsearchDocumentStore:
        """What `to_dict` gave."""
        store: SemsearchDocumentStore = default_from_dict(cls, data)
        return store

    def count_documents(self) -> int:
        """How many documents there are."""
        return self._kept.count()

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """The documents that match a filter, by Haystack's own matcher, oldest first.

        Raises:
            UnusableFilter: it is malformed.
        """
        return [document for _, document in self._matching(filters)]

    def _matching(self, filters: Filters | None) -> list[tuple[OwnDocument, Document]]:
        """What matches a filter, as the index has it and as Haystack does."""
        check(filters)
        pairs = [(own, _whole(own)) for own in self._kept.documents()]
        return [pair for pair in pairs if document_matches_filter(filters, pair[1])] if filters else pairs

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents, all at once; by default as with `FAIL`.

        Raises:
            ValueError: something is not a list of documents, a document has no text, or its metadata are not JSON.
            DuplicateDocumentError: an id is there already, or twice among these, and the policy is to fail.
            IndexIncompatible: another model made the embeddings that are there.
        """
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise InvalidInput(f"write_documents takes a list of Documents, not {documents!r:.200}")
        with self._lock:
            known = {d.id for d in self._kept.documents([d.id for d in documents])}
            chosen: dict[str, Document] = {}
            for document in documents:
                if policy == DuplicatePolicy.OVERWRITE or document.id not in known | chosen.keys():
                    chosen[document.id] = document
                elif policy != DuplicatePolicy.SKIP:
                    raise DuplicateDocumentError(f"there is a document {document.id!r} already")
            self._write(list(chosen.values()))
        return len(documents) if policy == DuplicatePolicy.OVERWRITE else len(chosen)

    def _write(self, documents: list[Document]) -> None:
        own = [_keep(document) for document in documents]
        if self._given is None or not documents:
            self._kept.write(own)
            return
        bare = next((d.id for d in documents if d.embedding is None), None)
        if bare is not None:
            raise InvalidInput(f"the document {bare!r} brings no embedding, which embedding_dim asks for")
        write_given(self._kept, self._given, own, [d.embedding or [] for d in documents])

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents by id; ids that are not there do nothing."""
        self._kept.remove(document_ids)

    def delete_all_documents(self) -> None:
        """Delete all documents that came from no file."""
        self._kept.remove(None)

    def delete_by_filter(self, filters: Filters) -> int:
        """Delete what `filter_documents` gives for a filter; returns how many there were."""
        with self._lock:
            return self._kept.remove([document.id for document in self.filter_documents(filters)])

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set metadata of what `filter_documents` gives for a filter; returns how many there were.

        Raises:
            InvalidInput: one of them comes from a file, which the index follows.
        """
        with self._lock:
            found = self._matching(filters)
            of_file = next((own.source for own, _ in found if own.source), None)
            if of_file is not None:
                raise InvalidInput(
                    f"{of_file} is a file, whose metadata stand in it; change it there, and index it again"
                )
            self._write([replace(document, meta={**document.meta, **meta}) for _, document in found])
            return len(found)

    def count_documents_by_filter(self, filters: Filters) -> int:
        """How many documents `filter_documents` gives for a filter."""
        return len(self.filter_documents(filters))

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """How many different values each field has, among what `filter_documents` gives for a filter."""
        found = self.filter_documents(filters)
        names = [name.removeprefix("meta.") for name in metadata_fields]
        return {name: len(_different(_values(found, name))) for name in names}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The type of each metadata field: `boolean`, `int`, `float`, or `keyword` for all else."""
        types = {bool: "boolean", int: "int", float: "float"}
        found: dict[str, set[str]] = {}
        for document in self.filter_documents():
            for name, value in document.meta.items():
                if value is not None:
                    found.setdefault(name, set()).add(types.get(type(value), "keyword"))
        return {name: {"type": of.pop() if len(of) == 1 else "keyword"} for name, of in found.items()}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least and the greatest value of a field, None where none can be compared."""
        values = _values(self.filter_documents(), metadata_field)
        comparable = [value for value in values if isinstance(value, int | float | str)]
        if len({isinstance(value, str) for value in comparable}) != 1:
            return {"min": None, "max": None}
        return {"min": min(comparable), "max": max(comparable)}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters | None = None,
    ) -> tuple[list[Any], int]:
        """Different values of a field in the order of their texts, `size` of them from `from_` on; and how many."""
        values = _different(_values(self.filter_documents(filters), metadata_field))
        if search_term:
            values = [value for value in values if search_term.lower() in str(value).lower()]
        values.sort(key=lambda value: (str(value), type(value).__name__))
        return values[from_ : from_ + size], len(values)

    def search(
        self,
        query: str,
        *,
        top_k: int = 10,
        filters: Filters | None = None,
        query_embedding: list[float] | None = None,
        **options: Any,
    ) -> list[Document]:
        """The documents that answer a query best, with `score`; of an index of files the passages.

        Args:
            query: a question or a few words; "" to search by the embedding alone.
            top_k: how many.
            filters: on metadata, which both legs of the search follow.
            query_embedding: of the query, for a store whose documents bring theirs.
            options: others of `Searcher.search`: `mode`, `rerank`, `mmr`, ...

        Raises:
            UnusableFilter: a filter cannot be followed.
            InvalidInput: an embedding is missing, or the store encodes by itself; or an option is out of range.
        """
        where = translated(filters)
        if query_embedding is not None and self._given is None:
            raise InvalidInput("this store encodes queries itself; give none, or make it with embedding_dim")
        if query_embedding is None and self._given is not None and options.get("mode") != "lexical":
            raise InvalidInput("this store was made with embedding_dim: give a query_embedding, or mode 'lexical'")
        if query_embedding is not None and not query.strip():
            return [_of_hit(hit) for hit in self._kept.nearest(query_embedding, top_k, where=where)]
        vector = None if query_embedding is None else np.asarray(query_embedding, dtype=np.float32)
        return [_of_hit(hit) for hit in self._kept.search(query, top_k, options, where=where, vector=vector)]

    # The same for an event loop

    count_documents_async = _on_thread(count_documents)
    filter_documents_async = _on_thread(filter_documents)
    write_documents_async = _on_thread(write_documents)
    delete_documents_async = _on_thread(delete_documents)
    delete_all_documents_async = _on_thread(delete_all_documents)
    delete_by_filter_async = _on_thread(delete_by_filter)
    update_by_filter_async = _on_thread(update_by_filter)
    count_documents_by_filter_async = _on_thread(count_documents_by_filter)
    count_unique_metadata_by_filter_async = _on_thread(count_unique_metadata_by_filter)
    get_metadata_fields_info_async = _on_thread(get_metadata_fields_info)
    get_metadata_field_min_max_async = _on_thread(get_metadata_field_min_max)
    get_metadata_field_unique_values_async = _on_thread(get_metadata_field_unique_values)


def _values(documents: Iterable[Document], field: str) -> Iterator[Any]:
    """The value of each document's field, None where it has none; `author.name` is nested, as in filters."""
    name = field.removeprefix("meta.")
    for document in documents:
        value: Any = document.meta
        for part in [name] if name in document.meta else name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        yield value


def _different(values: Iterable[Any]) -> list[Any]:
    """Values that are not None, each once; 1, 1.0, True and "1" are four."""
    return list({(type(value), repr(value)): value for value in values if value is not None}.values())


def _keep(document: Document) -> OwnDocument:
    extra: dict[str, Any] = {}
    if document.embedding is not None:
        extra["embedding"] = base64.b64encode(np.asarray(document.embedding, dtype="<f8").tobytes()).decode("ascii")
    if document.blob is not None:
        extra["blob"] = document.blob.to_dict()
    if document.sparse_embedding is not None:
        extra["sparse_embedding"] = document.sparse_embedding.to_dict()
    if document.score is not None:
        extra["score"] = document.score
    return keep(document.id, document.content or "", document.meta, extra)


def _whole(document: OwnDocument) -> Document:
    original = restore(document)
    values = {name: value for name, value in original.extra.items() if name in KEPT}
    if "embedding" in values:
        values["embedding"] = np.frombuffer(base64.b64decode(values["embedding"]), dtype="<f8").tolist()
    made: Document = Document.from_dict(
        {**values, "id": original.id, "content": original.text, "meta": original.metadata}
    )
    return made


def _of_hit(hit: Hit) -> Document:
    if is_whole(hit.document):
        return replace(_whole(hit.document), score=hit.score)
    name = f"{hit.document.id}#chunk={hit.chunk.ordinal}"
    return Document(id=name, content=hit.chunk.text, meta=passage_metadata(hit), score=hit.score)
