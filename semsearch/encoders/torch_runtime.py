"""Embedding and reranking with torch, through sentence-transformers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from semsearch.encoders.models import ModelFiles
from semsearch.encoders.tokenized import TokenizedEmbedder
from semsearch.errors import InvalidInput, ModelError
from semsearch.types import FloatArray

__all__ = ["TorchEmbedder", "TorchReranker"]

BATCH_SIZE = 16  # texts; on a CPU larger batches only add padding


class TorchEmbedder(TokenizedEmbedder):
    """A BERT bi-encoder. Safe to use from several threads, one encoding at a time."""

    def __init__(self, files: ModelFiles, *, device: str = "auto") -> None:
        super().__init__(files, precision="f32")
        self._device = device
        self._lock = threading.RLock()

    @functools.cached_property
    def _model(self) -> Any:
        with _quiet():
            from sentence_transformers import SentenceTransformer

            device = resolve_device(self._device)
            try:
                model = SentenceTransformer(str(self._files.path), device=device, local_files_only=True)
            except Exception as error:  # whatever torch, transformers and safetensors raise for files they cannot use
                raise ModelError(f"{self._files.name} cannot be run as a bi-encoder: {error}") from error
        model.max_seq_length = self._files.max_tokens
        return model

    def _embed(self, texts: Sequence[str], prompt: str) -> FloatArray:
        with self._lock:
            vectors = self._model.encode(
                list(texts),
                prompt=prompt or None,
                batch_size=BATCH_SIZE,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)


class TorchReranker:
    """A BERT cross-encoder. Safe to use from several threads, one scoring at a time."""

    def __init__(self, files: ModelFiles, *, device: str = "auto") -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint cannot be run, or does not give one score a pair.
            InvalidInput: an unknown or missing device.
        """
        self._name = files.name
        with _quiet():
            from sentence_transformers import CrossEncoder

            try:
                self._model = CrossEncoder(str(files.path), device=resolve_device(device), local_files_only=True)
            except Exception as error:  # whatever torch, transformers and safetensors raise for files they cannot use
                raise ModelError(f"{files.name} cannot be run as a cross-encoder: {error}") from error
        if self._model.num_labels != 1:
            raise ModelError(
                f"{files.name} gives {self._model.num_labels} labels a pair; a reranker gives one score. "
                "Choose a cross-encoder trained for ranking, such as cross-encoder/ms-marco-MiniLM-L6-v2"
            )
        self._model.max_seq_length = files.max_tokens
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The model's name."""
        return self._name

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """float32 (n,) scores in the order given, in the model's own range; larger is better."""
        if not texts:
            return np.empty(0, dtype=np.float32)
        with self._lock:
            scores: Any = self._model.predict(
                [(query, text) for text in texts], batch_size=BATCH_SIZE, show_progress_bar=False
            )
        return np.asarray(scores, dtype=np.float32)


def resolve_device(device: str) -> str:
    """Turn `auto` into the best device there is, and check a named one.

    Raises:
        InvalidInput: torch does not know the device or this machine does not have it.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"the device {device!r} cannot be used here ({reason}). Try --device auto or --device cpu"
        ) from error
    return device


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars and advice of model loading off the user's terminal."""
    import logging
    import warnings

    import transformers.utils.logging as chatter

    level, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    library = logging.getLogger("sentence_transformers")
    library_level = library.level
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    library.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(level)
        library.setLevel(library_level)
        if bars:
            chatter.enable_progress_bar()
