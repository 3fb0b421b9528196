"""A deterministic bag-of-words encoder: near texts share words. No weights, no network, microseconds a text."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from semsearch.types import FloatArray, IntArray

DIM = 64


@functools.lru_cache(maxsize=100_000)
def _word_vector(word: str, seed: str) -> FloatArray:
    digest = hashlib.blake2b(f"{seed}:{word}".encode("utf-8", "replace"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(DIM).astype(np.float32)


class ToyEmbedder:
    """Counts what it is asked to encode in `n_encoded`; raises `fail_after` texts when that is set."""

    def __init__(self, seed: str = "a", max_tokens: int = 40, fail_after: int | None = None) -> None:
        self.seed = seed
        self.max_tokens = max_tokens
        self.n_encoded = 0
        self.fail_after = fail_after

    name = property(lambda self: f"toy-{self.seed}")
    fingerprint = property(lambda self: f"toy-{self.seed}-{self.max_tokens}")
    description = property(lambda self: {"pooling": "sum"})
    dim = DIM
    is_batch_invariant = True

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        return [
            np.array(
                [m.span() for m in re.finditer(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]{1,8}|[^\w\s]", t)], dtype=np.int64
            ).reshape(-1, 2)
            for t in texts
        ]

    def unknown_share(self, text: str) -> float:
        words = re.findall(r"[\u3040-\u9fff]|\w+", text)
        return sum(not w.isascii() for w in words) / len(words) if words else 0.0

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        self.n_encoded += len(texts)
        if self.fail_after is not None and self.n_encoded > self.fail_after:
            raise KeyboardInterrupt
        return self.embed_queries(texts)

    def embed_with_tokens(self, texts: Sequence[str]) -> tuple[FloatArray, list[FloatArray]]:
        return self.embed_documents(texts), self.vectors_of_tokens(texts)

    def vectors_of_tokens(self, texts: Sequence[str]) -> list[FloatArray]:
        found = []
        for text, spans in zip(texts, self.token_spans(texts), strict=True):
            rows = np.array(
                [_word_vector(text[start:end].lower(), self.seed) for start, end in spans], dtype=np.float32
            )
            rows = rows.reshape(-1, DIM)
            found.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
        return found

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        rows = np.zeros((len(texts), DIM), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"[\u3040-\u9fff]|\w+", text.lower()):
                row += _word_vector(word, self.seed)
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return rows


class ToyReranker:
    """Scores a text by its length, so that a test sees whose order it is."""

    name = "toy-reranker"

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return np.array([len(t) for t in texts], dtype=np.float32)
