"""The middle of the write line: documents to chunks, chunks to vectors, both written out of sight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from semsearch.chunking import ChunkSettings, split
from semsearch.errors import InvalidInput
from semsearch.store.lexical import ANALYSIS_VERSION
from semsearch.store.metadata import FileState
from semsearch.store.writing import StoreWriter
from semsearch.types import Chunk, Document, Embedder, storable

__all__ = ["HASH_BYTES", "Stager", "clean", "document_digest"]

CONTENT_VERSION = 2  # raise it when loaders or chunking give other text, so that unchanged files are read again
MIN_CHUNK_SHARE = 0.2  # of max_tokens: sections shorter than this are joined to the next
WINDOW_CHUNKS = 256  # for each device: encoded, written and made durable together
WINDOW_DOCUMENTS = 2_000
ENCODE_CHUNKS = 64  # for each device: encoded between two reports of progress
HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class _Staged:
    document: Document
    path: str | None
    chunks: list[Chunk]
    hashes: list[bytes]


@dataclass(slots=True)
class _Window:
    """Documents cut into chunks, and files read whole, that wait to be encoded and written together."""

    documents: list[_Staged] = field(default_factory=list)
    files: list[FileState] = field(default_factory=list)
    n_chunks: int = 0


class Stager:
    """Stages documents in an index, a window at a time; a text known to the index is not encoded again.

    Attributes:
        settings: all that decides which chunks and vectors a file gives; an index made with others is out of date.
        n_encoded, n_reused: chunks so far whose vectors were made, and were known.
    """

    def __init__(self, store: StoreWriter, embedder: Embedder, on_encoded: Callable[[], None]) -> None:
        self.settings: dict[str, Any] = {
            "content_version": CONTENT_VERSION,
            "analysis_version": ANALYSIS_VERSION,
            "max_tokens": embedder.max_tokens,
            "min_tokens": round(embedder.max_tokens * MIN_CHUNK_SHARE),
            "fingerprint": embedder.fingerprint,
        }
        self.n_encoded = 0
        self.n_reused = 0
        self._store = store
        self._embedder = embedder
        self._on_encoded = on_encoded
        self._lengths = ChunkSettings(embedder.max_tokens, round(embedder.max_tokens * MIN_CHUNK_SHARE))
        self._hash_key = hashlib.sha256(embedder.fingerprint.encode()).digest()[:HASH_BYTES]
        self._window = _Window()

    def add(self, document: Document, path: str | None) -> None:
        """Stage a document; `path` is the file it came from."""
        chunks = split(document, self._embedder.token_spans, self._lengths)
        self._window.documents.append(_Staged(document, path, chunks, [self._hash(c.text) for c in chunks]))
        self._window.n_chunks += len(chunks)
        n_most = WINDOW_CHUNKS * self._embedder.n_devices
        if self._window.n_chunks >= n_most or len(self._window.documents) >= WINDOW_DOCUMENTS:
            self.flush()

    def add_file(self, state: FileState) -> None:
        """Note that all documents of a file have been staged, or that it gave none."""
        self._window.files.append(state)

    def take_back(self, path: str) -> None:
        """Drop what was staged of a file that failed on the way."""
        self._window.documents = [staged for staged in self._window.documents if staged.path != path]
        self._window.n_chunks = sum(len(staged.chunks) for staged in self._window.documents)
        self._store.drop_staged_of(path)

    def flush(self) -> None:
        """Encode what is not known yet and write the window."""
        window, self._window = self._window, _Window()
        texts = {h: c.text for staged in window.documents for h, c in zip(staged.hashes, staged.chunks, strict=True)}
        known = self._store.vector_ids(list(texts))
        new = [h for h in texts if h not in known]
        self.n_reused += window.n_chunks - len(new)
        n_most = WINDOW_CHUNKS * self._embedder.n_devices
        for first in range(0, len(new), n_most):
            self._encode([(h, texts[h]) for h in new[first : first + n_most]])
        known.update(self._store.vector_ids(new))
        with self._store.db.atomic():  # one commit for all of the window
            for staged in window.documents:
                vector_ids = [known[h] for h in staged.hashes]
                digest = document_digest(staged.document)
                self._store.stage_document(staged.document, staged.chunks, vector_ids, path=staged.path, digest=digest)
            for state in window.files:
                self._store.stage_file(state)

    def _encode(self, texts: Sequence[tuple[bytes, str]]) -> None:
        """Encode texts, longest first so that batches are even, and keep their vectors for good."""
        ordered = sorted(texts, key=lambda item: len(item[1]), reverse=True)
        parts = []
        n_most = ENCODE_CHUNKS * self._embedder.n_devices
        for first in range(0, len(ordered), n_most):
            parts.append(self._embedder.embed_documents([t for _, t in ordered[first : first + n_most]]))
            self.n_encoded += len(parts[-1])
            self._on_encoded()
        self._store.add_vectors([h for h, _ in ordered], np.concatenate(parts), self._embedder.fingerprint)

    def _hash(self, text: str) -> bytes:
        """Of a text and the model, so that vectors of two models are never mixed up."""
        return hashlib.blake2b(text.encode("utf-8"), digest_size=HASH_BYTES, key=self._hash_key).digest()


def clean(document: Document) -> Document:
    """The document as it can be stored: lone surrogates become U+FFFD, which keeps every offset.

    Raises:
        InvalidInput: no id, a part of the wrong type, or metadata that is not JSON.
    """
    for name in ("id", "text", "title", "source"):
        value = getattr(document, name)
        if not isinstance(value, str) or (name == "id" and not value):
            raise InvalidInput(f"the document {document.id!r} has {name} = {value!r}; give a string")
    try:
        metadata = json.dumps(dict(document.metadata), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the metadata of document {document.id!r} cannot be stored as JSON: {error}") from error
    return replace(
        document,
        id=storable(document.id),
        text=storable(document.text),
        title=storable(document.title),
        source=storable(document.source),
        metadata=json.loads(storable(metadata)),
        outline=tuple(replace(heading, title=storable(heading.title)) for heading in document.outline),
    )


def document_digest(document: Document) -> bytes:
    """Of everything in a document, to tell whether it changed."""
    headings = [(h.start, h.level, h.title) for h in document.outline]
    parts = (document.id, document.text, document.title, document.source)
    data = json.dumps([parts, dict(document.metadata), headings, document.page_starts], sort_keys=True)
    return hashlib.blake2b(data.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
