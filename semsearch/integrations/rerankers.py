"""What ranks the documents of a framework, wherever it found them."""

from __future__ import annotations

from semsearch.encoders import load_embedder, load_reranker
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.errors import InvalidInput
from semsearch.types import Reranker, TokenEmbedder

__all__ = ["any_reranker"]


def any_reranker(model: str | None, embedding_model: str, device: str) -> Reranker:
    """A cross-encoder by name or folder, or without one a bi-encoder that compares token by token.

    Raises:
        ModelError: the model cannot be found or run.
        InvalidInput: the bi-encoder gives no vectors of tokens here.
    """
    if model is not None:
        return load_reranker(model, device=device)
    embedder = load_embedder(embedding_model, device=device, precision="full")
    if not isinstance(embedder, TokenEmbedder):
        raise InvalidInput(f"{embedding_model} gives no vectors of tokens on {device}; name a cross-encoder as model")
    return LateInteraction(embedder)
