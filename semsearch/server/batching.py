"""Queries that arrive while others are encoded are encoded together, in one run of the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from semsearch.types import Embedder, FloatArray, IntArray, TokenEmbedder

__all__ = ["BatchingEmbedder", "BatchingTokenEmbedder", "batching"]

MAX_BATCH = 8  # texts; they fill a row of the encoder, and others are ranked while the next ones are encoded
MAX_EXPECTED_CHARS = 400  # a longer query may be encoded in pieces


class _Expected:
    """A query that so many requests will ask for, and its vector when it is there."""

    def __init__(self) -> None:
        self.n_wanted = 1
        self.rows: Future[FloatArray] = Future()


class BatchingEmbedder:
    """An embedder for many threads that each have one query. Nothing waits while the model is free."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        self._waiting: list[tuple[Sequence[str], Future[FloatArray]]] = []
        self._is_running = False
        self._expected: dict[str, _Expected] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self.n_batches = 0
        self.n_queries = 0

    @property
    def name(self) -> str:
        """As `Embedder.name`."""
        return self._embedder.name

    @property
    def fingerprint(self) -> str:
        """As `Embedder.fingerprint`."""
        return self._embedder.fingerprint

    @property
    def description(self) -> Mapping[str, Any]:
        """As `Embedder.description`."""
        return self._embedder.description

    @property
    def dim(self) -> int:
        """As `Embedder.dim`."""
        return self._embedder.dim

    @property
    def is_batch_invariant(self) -> bool:
        """Whether a text has the same vectors whatever else is encoded with it."""
        return bool(getattr(self._embedder, "is_batch_invariant", False))

    @property
    def max_tokens(self) -> int:
        """As `Embedder.max_tokens`."""
        return self._embedder.max_tokens

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        """As `Embedder.token_spans`."""
        return self._embedder.token_spans(texts)

    def unknown_share(self, text: str) -> float:
        """As `Embedder.unknown_share`."""
        return self._embedder.unknown_share(text)

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """As `Embedder.embed_documents`."""
        return self._embedder.embed_documents(texts)

    @contextmanager
    def expecting(self, texts: Sequence[str]) -> Iterator[None]:
        """Encode queries that will be asked for within the context, as by requests that wait for a thread.

        Those that are not encoded at its end never will be: whoever still waits for one gets `CancelledError`.
        """
        texts = [text for text in texts if len(text) <= MAX_EXPECTED_CHARS]
        with self._lock:
            for text in texts:
                if text in self._expected:
                    self._expected[text].n_wanted += 1
                else:
                    self._expected[text] = _Expected()
                    self._waiting.append(([text], self._expected[text].rows))
            leads = bool(self._waiting) and not self._is_running
            self._is_running = self._is_running or leads
        if leads:
            self._pool.submit(self._encode_all)
        try:
            yield
        finally:
            with self._lock:
                for text in texts:
                    self._expected[text].n_wanted -= 1
                    if not self._expected[text].n_wanted:
                        self._expected.pop(text).rows.cancel()  # unless it is encoded already, or just now

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows, in the order given, encoded with what other threads ask for meanwhile."""
        expected = self._expected.get(texts[0]) if len(texts) == 1 else None
        if expected is not None:
            return expected.rows.result()
        mine: Future[FloatArray] = Future()
        with self._lock:
            self._waiting.append((texts, mine))
            leads = not self._is_running
            self._is_running = True
        if leads:
            self._encode_all(mine)
        return mine.result()

    def _encode_all(self, mine: Future[FloatArray] | None = None) -> None:
        """Encode batch after batch until nobody waits; once `mine` is there, another thread goes on."""
        while True:
            with self._lock:
                if mine is not None and mine.done() and self._waiting:
                    self._pool.submit(self._encode_all)
                    return
                batch = self._next()
                if not batch:
                    self._is_running = False
                    return
            try:
                rows = self._embedder.embed_queries([text for texts, _ in batch for text in texts])
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            self.n_batches += 1
            self.n_queries += len(rows)
            ends = np.cumsum([len(texts) for texts, _ in batch])
            for (texts, future), end in zip(batch, ends.tolist(), strict=True):
                future.set_result(rows[end - len(texts) : end])

    def _next(self) -> list[tuple[Sequence[str], Future[FloatArray]]]:
        """Those that wait and are wanted still, first come first, up to MAX_BATCH texts; one at least, if any."""
        n_texts = 0
        batch: list[tuple[Sequence[str], Future[FloatArray]]] = []
        while self._waiting and (not batch or n_texts + len(self._waiting[0][0]) <= MAX_BATCH):
            texts, future = self._waiting.pop(0)
            if future.set_running_or_notify_cancel():
                batch.append((texts, future))
                n_texts += len(texts)
        return batch


class BatchingTokenEmbedder(BatchingEmbedder):
    """The same where the embedder also gives vectors of tokens."""

    def __init__(self, embedder: TokenEmbedder) -> None:
        super().__init__(embedder)  # type: ignore[arg-type]
        self._tokens = embedder

    @property
    def precision(self) -> str:
        """As `TokenEmbedder.precision`."""
        return self._tokens.precision

    @property
    def device(self) -> str:
        """As `TokenEmbedder.device`."""
        return self._tokens.device

    def token_vectors(self, texts: Sequence[str], *, queries: bool = False) -> list[FloatArray]:
        """As `TokenEmbedder.token_vectors`."""
        return self._tokens.token_vectors(texts, queries=queries)


def batching(embedder: Embedder) -> BatchingEmbedder:
    """An embedder that batches and can do all that this one can."""
    return BatchingTokenEmbedder(embedder) if isinstance(embedder, TokenEmbedder) else BatchingEmbedder(embedder)
