"""What ranks the documents of a framework, wherever it found them."""

from __future__ import annotations

from semsearch.encoders import load_embedder, load_reranker
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.types import Reranker

__all__ = ["any_reranker"]


def any_reranker(model: str | None, embedding_model: str, device: str) -> Reranker:
    """A cross-encoder by name or folder, or without one a bi-encoder that compares token by token.

    Raises:
        ModelError: the model cannot be found or run, or the bi-encoder gives no vectors of tokens.
    """
    if model is not None:
        return load_reranker(model, device=device)
    return LateInteraction.of(load_embedder(embedding_model, device=device, precision="full"))
