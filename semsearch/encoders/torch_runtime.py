"""Embedding and reranking with torch, through sentence-transformers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from semsearch.encoders.models import ModelFiles, load_tokenizer
from semsearch.errors import InvalidInput, ModelError
from semsearch.types import FloatArray, IntArray

__all__ = ["TorchEmbedder", "TorchReranker"]

BATCH_SIZE = 16  # texts; on a CPU larger batches only add padding


class TorchEmbedder:
    """A BERT bi-encoder. Safe to use from several threads, one encoding at a time.

    Only the tokenizer is read at once; torch and the weights wait for the first text to encode, so that a run which
    finds nothing new does not pay for them.
    """

    def __init__(self, files: ModelFiles, *, device: str = "auto") -> None:
        self._files = files
        self._device = device
        self._lock = threading.RLock()
        self._tokenizer = load_tokenizer(files)
        self._unknown = str(getattr(self._tokenizer.model, "unk_token", None))
        prompts = self._tokenizer.encode_batch([files.document_prompt, files.query_prompt], add_special_tokens=False)
        n_special = self._tokenizer.num_special_tokens_to_add(False)
        self._max_tokens = files.max_tokens - n_special - max(len(p) for p in prompts)
        if self._max_tokens < 1:
            raise ModelError(f"{files.name} reads {files.max_tokens} tokens, which leaves none beside its prompt")

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

    @property
    def name(self) -> str:
        """The model's name."""
        return self._files.name

    @property
    def fingerprint(self) -> str:
        """Of weights, tokenizer and settings."""
        return self._files.fingerprint

    @property
    def description(self) -> dict[str, str]:
        """Pooling, prompts and SHA-256 of the weights."""
        files = self._files
        return {
            "pooling": files.pooling,
            "query_prompt": files.query_prompt,
            "document_prompt": files.document_prompt,
            "weights_sha256": files.weights_sha256,
        }

    @functools.cached_property
    def dim(self) -> int:
        """Components of a vector."""
        return int(self._embed(["probe"], "").shape[1])

    @property
    def max_tokens(self) -> int:
        """Longest text read to its end, in tokens, special tokens and prompt left out."""
        return self._max_tokens

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        """Character spans of each text's tokens, int64 (n_tokens, 2)."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(e.offsets, dtype=np.int64).reshape(-1, 2) for e in encoded]

    def unknown_share(self, text: str) -> float:
        """Share of the text's tokens that the vocabulary does not hold, in [0, 1]."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens.count(self._unknown) / len(tokens) if tokens else 0.0

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows; a text longer than `max_tokens` is read up to there."""
        return self._embed(texts, self._files.document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows; a text longer than `max_tokens` is read up to there."""
        return self._embed(texts, self._files.query_prompt)

    def _embed(self, texts: Sequence[str], prompt: str) -> FloatArray:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
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
