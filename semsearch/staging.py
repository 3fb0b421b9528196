"""The middle of the write line: documents to chunks, chunks to vectors, both written out of sight.

Encoding has a thread of its own. While it works on one window of chunks, the caller's thread reads and cuts the
documents of the next and writes those of the last, so that the processor's cores are never without work.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from semsearch.chunking import ChunkSettings, split
from semsearch.errors import InvalidInput
from semsearch.store.checksums import HASH_BYTES, hash_key, text_hash
from semsearch.store.lexical import ANALYSIS_VERSION
from semsearch.store.metadata import FileState
from semsearch.store.writing import StoreWriter
from semsearch.token_keeping import embed_with_codes
from semsearch.types import Chunk, Document, Embedder, FloatArray, storable

__all__ = ["Stager", "clean", "document_digest", "encode_stretches"]

CONTENT_VERSION = 3  # raise it when loaders or chunking give other text, so that unchanged files are read again
MIN_CHUNK_SHARE = 0.2  # of max_tokens: sections shorter than this are joined to the next
WINDOW_CHUNKS = 256  # for each device: encoded, written and made durable together
WINDOW_DOCUMENTS = 2_000
WINDOWS_AHEAD = 2  # cut and waiting for the encoder, or being encoded: bounds the memory of a run
REPORT_INTERVAL_S = 0.2  # between two reports of progress while the encoder is waited for
# Tokens of a passage taken for a query. Recall on them is that on people's questions within 0.02, while whole passages,
# which lie amid others, are found far more easily: 0.96 where questions are at 0.89 (lists), 0.98 at 0.91 (graph).
MIN_STRETCH, MAX_STRETCH = 4, 16


@dataclass(frozen=True, slots=True)
class _Staged:
    document: Document
    path: str | None
    chunks: list[Chunk]
    hashes: list[bytes]


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """Vectors of some texts, float32 (n, dim), and the codes of each one's tokens, or none."""

    rows: FloatArray
    codes: Sequence[bytes] = ()


@dataclass(slots=True)
class _Window:
    """Documents cut into chunks, and files read whole, that are encoded and written together.

    `parts` are the texts in it that neither the index nor an earlier window has, by hash, and what is to come of them.
    """

    documents: list[_Staged] = field(default_factory=list)
    files: list[FileState] = field(default_factory=list)
    n_chunks: int = 0
    parts: list[tuple[list[bytes], Future[_Encoded]]] = field(default_factory=list)


class Stager:
    """Stages documents in an index, a window at a time; a text known to the index is not encoded again.

    Attributes:
        settings: all that decides which chunks and vectors a file gives; an index made with others is out of date.
        n_encoded, n_reused: chunks so far whose vectors were made, and were known.
        on_encoded: called in the caller's thread while and after chunks are encoded.
    """

    def __init__(self, store: StoreWriter, embedder: Embedder, *, keeps_tokens: bool = False) -> None:
        """Stage documents in an index, which may keep codes of their tokens."""
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
        self._keeps_tokens = keeps_tokens
        self.on_encoded: Callable[[], None] = lambda: None
        self._lengths = ChunkSettings(embedder.max_tokens, round(embedder.max_tokens * MIN_CHUNK_SHARE))
        self._window_chunks = WINDOW_CHUNKS * int(getattr(embedder, "n_devices", 1))
        self._hash_key = hash_key(embedder.fingerprint)
        self._window = _Window()
        self._ahead: deque[_Window] = deque()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._is_kept = threading.Semaphore(1)  # whether all vectors that were made are durable
        self._is_ended = False

    def __enter__(self) -> Stager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ended = True
        self._is_kept.release()  # so that the encoder's thread waits for nothing any more
        self._encoder.shutdown(cancel_futures=True)
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # what was encoded is kept for the next run
            for hashes, rows in (part for window in self._ahead for part in window.parts):
                is_made = not rows.cancelled() and rows.exception() is None
                if is_made and len(rows.result().rows) and not self._store.vector_ids(hashes):
                    self._add(hashes, rows.result())

    def add(self, document: Document, path: str | None) -> None:
        """Stage a document; `path` is the file it came from."""
        self._keep_ready()
        chunks = split(document, self._embedder.token_spans, self._lengths)
        self._window.documents.append(
            _Staged(document, path, chunks, [text_hash(c.text, self._hash_key) for c in chunks])
        )
        self._window.n_chunks += len(chunks)
        if self._window.n_chunks >= self._window_chunks or len(self._window.documents) >= WINDOW_DOCUMENTS:
            self._send()

    def add_file(self, state: FileState) -> None:
        """Note that all documents of a file have been staged, or that it gave none."""
        self._window.files.append(state)

    def take_back(self, path: str) -> None:
        """Drop what was staged of a file that failed on the way."""
        for window in (self._window, *self._ahead):
            window.documents = [staged for staged in window.documents if staged.path != path]
            window.n_chunks = sum(len(staged.chunks) for staged in window.documents)
        self._store.drop_staged_of(path)

    def flush(self) -> None:
        """Encode and write all that was added."""
        self._send()
        while self._ahead:
            self._write_first()

    def _send(self) -> None:
        """Hand the window to the encoder, and write the ones before it that are done or must make room."""
        window, self._window = self._window, _Window()
        texts = {h: c.text for staged in window.documents for h, c in zip(staged.hashes, staged.chunks, strict=True)}
        known = self._store.vector_ids(list(texts))
        known.update({h: 0 for ahead in self._ahead for hashes, _ in ahead.parts for h in hashes})
        # Longest first, so that what is encoded together is of one length.
        new = sorted((h for h in texts if h not in known), key=lambda h: len(texts[h]), reverse=True)
        self.n_reused += window.n_chunks - len(new)
        for first in range(0, len(new), self._window_chunks):
            part = new[first : first + self._window_chunks]
            window.parts.append((part, self._encoder.submit(self._encode, [texts[h] for h in part])))
        self._ahead.append(window)
        while len(self._ahead) > WINDOWS_AHEAD or (self._ahead and all(f.done() for _, f in self._ahead[0].parts)):
            self._write_first()

    def _keep_ready(self) -> None:
        """Keep the vectors that are made, if any."""
        for window in self._ahead:
            if window.parts:
                if window.parts[0][1].done():
                    self._keep(window)
                return

    def _keep(self, window: _Window) -> None:
        """Keep the next vectors of a window for good, and let the encoder go on."""
        hashes, encoded = window.parts[0]
        self._add(hashes, encoded.result())
        del window.parts[0]
        self._is_kept.release()
        self.on_encoded()

    def _add(self, hashes: Sequence[bytes], encoded: _Encoded) -> None:
        """Keep codes, then vectors: a text that has its vector is not encoded again."""
        self._store.tokens.add(dict(zip(hashes, encoded.codes, strict=False)))
        self._store.add_vectors(hashes, encoded.rows, self._embedder.fingerprint)

    def _encode(self, texts: Sequence[str]) -> _Encoded:
        """Runs in the encoder's thread; waits until what it made before is durable, so that a crash costs one batch."""
        self._is_kept.acquire()
        if self._is_ended:
            return _Encoded(np.empty((0, self._embedder.dim), dtype=np.float32))
        if self._keeps_tokens:
            encoded = _Encoded(*embed_with_codes(self._embedder, texts))
        else:
            encoded = _Encoded(self._embedder.embed_documents(texts))
        self.n_encoded += len(texts)
        return encoded

    def _write_first(self) -> None:
        """Keep the vectors of the oldest window for good as they come, then stage its documents."""
        window = self._ahead[0]
        while window.parts:
            while not wait([window.parts[0][1]], timeout=REPORT_INTERVAL_S).done:
                self.on_encoded()
            self._keep(window)
        self._ahead.popleft()
        known = self._store.vector_ids(list({h for staged in window.documents for h in staged.hashes}))
        with self._store.db.atomic():  # one commit for all of the window
            for staged in window.documents:
                vector_ids = [known[h] for h in staged.hashes]
                digest = document_digest(staged.document)
                self._store.stage_document(staged.document, staged.chunks, vector_ids, path=staged.path, digest=digest)
            for state in window.files:
                self._store.stage_file(state)


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
    except (TypeError, ValueError, RecursionError) as error:
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


def encode_stretches(embedder: Embedder, passages: Sequence[str]) -> FloatArray:
    """float32 (n, dim) vectors of queries as people may ask them: a few tokens in a row from each passage."""
    rng = np.random.default_rng(0)
    stretches = []
    for text, spans in zip(passages, embedder.token_spans(passages), strict=True):
        length = int(rng.integers(MIN_STRETCH, MAX_STRETCH, endpoint=True))
        first = int(rng.integers(max(len(spans) - length, 0), endpoint=True))
        part = spans[first : first + length]
        stretches.append(text[part[0, 0] : part[-1, 1]] if len(part) else text)
    return embedder.embed_queries(stretches)
