"""Vectors that are not ours, through the `Embedder` protocol: a framework's model, or vectors that came with texts."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.types import FloatArray, IntArray

__all__ = ["ForeignEmbedder", "GivenVectors", "unit_rows"]

MAX_TOKENS = 256  # of a passage, in the pieces below: about as many as a small model reads to its end
ENDLESS = 1_000_000_000
_PIECE = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]|[^\W\u3040-\u9fff\uac00-\ud7af]{1,6}|[^\w\s]")


class ForeignEmbedder:
    """A framework's embedding model. It has no tokenizer that we know: words, or pieces of six letters, are counted."""

    def __init__(
        self,
        name: str,
        documents: Callable[[list[str]], Sequence[Sequence[float]]],
        query: Callable[[str], Sequence[float]],
    ) -> None:
        """`name` tells the model, with all that its vectors depend on but their number of components."""
        self.name = name
        self.max_tokens = MAX_TOKENS
        self.description: Mapping[str, Any] = {"pooling": "unknown"}
        self._documents = documents
        self._query = query
        self._dim = 0
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Found by one query."""
        with self._lock:
            if not self._dim:
                self._dim = len(self._query("dimension"))
            return self._dim

    @property
    def fingerprint(self) -> str:
        """Of the name and the number of components, which is all that is known."""
        return hashlib.sha256(f"{self.name}\n{self.dim}".encode()).hexdigest()

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        """As `Embedder.token_spans`."""
        return [np.array([m.span() for m in _PIECE.finditer(t)], dtype=np.int64).reshape(-1, 2) for t in texts]

    def unknown_share(self, text: str) -> float:
        """None is known to be."""
        return 0.0

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """As `Embedder.embed_documents`."""
        return unit_rows(self._documents(list(texts)), self.dim)

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """As `Embedder.embed_queries`."""
        return unit_rows([self._query(text) for text in texts], self.dim)


class GivenVectors:
    """Vectors that came with their texts, by text, each of which stays whole; it cannot encode anything else."""

    def __init__(self, dim: int, name: str, vectors: Mapping[str, FloatArray] | None = None) -> None:
        self.name = name
        self.dim = dim
        self.max_tokens = ENDLESS
        self.fingerprint = hashlib.sha256(f"given vectors\n{name}\n{dim}".encode()).hexdigest()
        self.description: Mapping[str, Any] = {"pooling": "unknown"}
        self._vectors = vectors or {}

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        """One token a text."""
        return [np.array([(0, len(t))] if t.strip() else [], dtype=np.int64).reshape(-1, 2) for t in texts]

    def unknown_share(self, text: str) -> float:
        """None is known to be."""
        return 0.0

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of these texts.

        Raises:
            InvalidInput: one came without.
        """
        missing = next((text for text in texts if text not in self._vectors), None)
        if missing is not None:
            raise InvalidInput(
                f"the index holds vectors that came with their texts ({self.name}), and none came with {missing[:80]!r}"
            )
        return np.stack([self._vectors[text] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """As `embed_documents`."""
        return self.embed_documents(texts)


def unit_rows(vectors: Sequence[Sequence[float]], dim: int) -> FloatArray:
    """float32 (n, dim) unit rows.

    Raises:
        InvalidInput: a vector has another number of components, is zero or not finite.
    """
    if any(len(vector) != dim for vector in vectors):
        sizes = sorted({len(vector) for vector in vectors})
        raise InvalidInput(f"vectors of {sizes} components; the index needs {dim}")
    rows = np.asarray(vectors, dtype=np.float64).reshape(-1, dim)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise InvalidInput("a vector is zero or not finite, and so has no direction that could be compared")
    return np.asarray(rows / lengths, dtype=np.float32)
