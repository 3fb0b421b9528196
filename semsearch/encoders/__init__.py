"""Texts to unit vectors, and pairs of query and passage to scores."""

from __future__ import annotations

from semsearch.encoders.models import DEFAULT_MODEL, find_model
from semsearch.types import Embedder, Reranker

__all__ = ["DEFAULT_MODEL", "load_embedder", "load_reranker"]


def load_embedder(model: str = DEFAULT_MODEL, *, device: str = "auto") -> Embedder:
    """Load a bi-encoder.

    Args:
        model: a hub name, `name@revision`, or a local folder.
        device: `auto`, or a device as torch names it: `cpu`, `cuda`, `cuda:1`, `mps`.

    Returns:
        An encoder with `embed_documents(texts)` and `embed_queries(texts)`, both float32 (n, dim) unit rows.

    Raises:
        ModelError: the model cannot be found, verified or run.
        InvalidInput: the device is unknown or missing.
    """
    from semsearch.encoders.torch_runtime import TorchEmbedder

    return TorchEmbedder(find_model(model), device=device)


def load_reranker(model: str, *, device: str = "auto") -> Reranker:
    """Load a cross-encoder; arguments and errors as for `load_embedder`."""
    from semsearch.encoders.torch_runtime import TorchReranker

    return TorchReranker(find_model(model), device=device)
