"""What the runtimes of a model share: its files, its tokenizer, and the limits that follow from them."""

from __future__ import annotations

import abc
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from semsearch.encoders import pacing
from semsearch.encoders.batching import placed, placed_tokens
from semsearch.encoders.models import ModelFiles, load_tokenizer
from semsearch.encoders.reranker_settings import read_settings
from semsearch.encoders.sample_texts import SAMPLE_QUERY
from semsearch.errors import ModelError
from semsearch.types import FloatArray, IntArray

__all__ = ["TokenizedEmbedder", "TokenizedReranker", "comparable"]

INT8_SUFFIX = "-int8"  # of the fingerprint of a model whose passages are encoded in int8


def comparable(documents: str, queries: str) -> bool:
    """Whether models with these fingerprints are one, and so their vectors comparable, in whatever precision."""
    return documents.removesuffix(INT8_SUFFIX) == queries.removesuffix(INT8_SUFFIX)


class TokenizedEmbedder(abc.ABC):
    """A bi-encoder whose tokenizer is read at once and whose weights wait for the first text to encode.

    So a run that finds nothing new does not pay for them.

    Attributes:
        is_batch_invariant: whether a text has the same vectors, to the last bit, whatever else is encoded with it.
    """

    is_batch_invariant = False

    def __init__(self, files: ModelFiles, *, precision: str) -> None:
        self.precision = precision
        self._files = files
        self._tokenizer = load_tokenizer(files)
        self._unknown = str(getattr(self._tokenizer.model, "unk_token", None))
        prompts = self._tokenizer.encode_batch([files.document_prompt, files.query_prompt], add_special_tokens=False)
        n_special = self._tokenizer.num_special_tokens_to_add(False)
        self._max_tokens = files.max_tokens - n_special - max(len(p) for p in prompts)
        if self._max_tokens < 1:
            raise ModelError(f"{files.name} reads {files.max_tokens} tokens, which leaves none beside its prompt")

    @property
    def name(self) -> str:
        """The model's name."""
        return self._files.name

    @property
    def fingerprint(self) -> str:
        """Of weights, tokenizer and settings; int8 passages are told from those of f32, bf16 and f16."""
        return self._files.fingerprint + (INT8_SUFFIX if self.precision == "int8" else "")

    @property
    def description(self) -> dict[str, str]:
        """Precision, pooling, prompts and SHA-256 of the weights."""
        files = self._files
        return {
            "precision": self.precision,
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

    @property
    def device(self) -> str:
        """Where queries are encoded."""
        return "cpu"

    @property
    def n_devices(self) -> int:
        """Devices that work side by side on one call of `embed_documents`."""
        return 1

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
        return self._rows(texts, self._files.document_prompt)

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows; a text longer than `max_tokens` is read up to there."""
        return self._rows(texts, self._files.query_prompt)

    def token_vectors(self, texts: Sequence[str], *, queries: bool = False) -> list[FloatArray]:
        """Vectors of each text's tokens, float32 (n_tokens, hidden) unit rows, without special tokens and prompt.

        They belong to the spans that `token_spans` gives, up to `max_tokens`.

        Args:
            texts: queries or passages.
            queries: which of the two, for their prompt.
        """
        if not texts:
            return []
        prompt = self._files.query_prompt if queries else self._files.document_prompt
        ids = self._token_ids(texts, prompt)
        return placed_tokens(self._embed_tokens(ids), self._own_tokens(ids, prompt))

    def embed_with_tokens(self, texts: Sequence[str]) -> tuple[FloatArray, list[FloatArray]]:
        """What `embed_documents` and `token_vectors` give for passages, which are read once."""
        if not texts:
            return self.embed_documents(texts), []
        prompt, hidden = self._files.document_prompt, self._hidden
        ids = self._token_ids(texts, prompt)
        parts = self._embed_both(ids, prompt)
        rows = placed([(positions, part[:, 0, : self.dim]) for positions, part in parts], len(texts))
        tokens = [(positions, part[:, 1:, :hidden]) for positions, part in parts]
        return rows, placed_tokens(tokens, self._own_tokens(ids, prompt))

    @functools.cached_property
    def _hidden(self) -> int:
        """Components of a token's vector."""
        config = json.loads((self._files.path / "config.json").read_text(encoding="utf-8"))
        return int(config["hidden_size"])

    def _own_tokens(self, ids: Sequence[Sequence[int]], prompt: str) -> list[tuple[int, int]]:
        """First and one past the last token of each text's own, without special ones and prompt."""
        encoded = self._tokenizer.encode(prompt)
        n_after = encoded.special_tokens_mask[-1]
        return [(len(encoded.ids) - n_after, len(row) - n_after) for row in ids]

    def _rows(self, texts: Sequence[str], prompt: str) -> FloatArray:
        return self._embed(texts, prompt) if texts else np.empty((0, self.dim), dtype=np.float32)

    def _token_ids(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        """Ids of each text with the prompt before it, cut as sentence-transformers does: the last special one stays."""
        longest = self._files.max_tokens
        ids = [encoded.ids for encoded in self._tokenizer.encode_batch_fast([prompt + text for text in texts])]
        return [row if len(row) <= longest else [*row[: longest - 1], row[-1]] for row in ids]

    @abc.abstractmethod
    def _embed(self, texts: Sequence[str], prompt: str) -> FloatArray:
        """float32 (n, dim) unit rows of one or more texts, each with the prompt before it."""

    @abc.abstractmethod
    def _embed_tokens(self, ids: Sequence[Sequence[int]]) -> list[tuple[IntArray, FloatArray]]:
        """(positions, float32 (n, length, hidden) unit rows) of one or more token sequences, in parts."""

    @abc.abstractmethod
    def _embed_both(self, ids: Sequence[Sequence[int]], prompt: str) -> list[tuple[IntArray, FloatArray]]:
        """(positions, float32 (n, 1 + length, width)) of one or more passages, in parts: unit rows of text and tokens.

        Of `width` components the first `dim` are a text's, the first `hidden` a token's. `prompt` is before each text.
        """


class TokenizedReranker(abc.ABC):
    """A cross-encoder whose tokenizer is read at once and whose weights wait for the first pair to score.

    Attributes:
        first_stage_weight: share of the first stage in what hits are ranked by, in [0, 1]: what training found for this
            model and wrote beside it, or what `RerankerSettings` says.
        precision, device: what it computes in, and where.
    """

    def __init__(self, files: ModelFiles, *, precision: str, device: str = "cpu") -> None:
        self._config: dict[str, Any] = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
        n_labels = len(self._config.get("id2label") or range(2))
        if n_labels != 1:
            raise ModelError(
                f"{files.name} gives {n_labels} labels a pair; a reranker gives one score. "
                "Choose a cross-encoder trained for ranking, such as cross-encoder/ms-marco-MiniLM-L6-v2"
            )
        self._files = files
        self._tokenizer = load_tokenizer(files)
        self._tokenizer.enable_truncation(files.max_tokens, strategy="longest_first")
        self._speed: float | None = None
        self.precision = precision
        self.device = device
        self.first_stage_weight = read_settings(files.path).first_stage_weight

    @property
    def name(self) -> str:
        """The model's name."""
        return self._files.name

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """float32 (n,) scores in the order given, in the model's own range; larger is better."""
        if not texts:
            return np.empty(0, dtype=np.float32)
        encoded = self._tokenizer.encode_batch([(query, text) for text in texts])
        return self._scores([e.ids for e in encoded], [e.type_ids for e in encoded])

    def n_within(self, query: str, texts: Sequence[str], budget_s: float) -> int:
        """How many of the texts, from the first on, are scored in so many seconds; one at least."""
        if self._speed is None:
            key = f"{self._files.fingerprint} {self.precision} {self.device} pairs"
            lengths = functools.partial(self._lengths, SAMPLE_QUERY)
            self._speed = pacing.tokens_per_s(key, functools.partial(self.score, SAMPLE_QUERY), lengths)
        return pacing.n_within(self._lengths(query, texts), budget_s, self._speed)

    def _lengths(self, query: str, texts: Sequence[str]) -> list[int]:
        return [len(encoded.ids) for encoded in self._tokenizer.encode_batch([(query, text) for text in texts])]

    @abc.abstractmethod
    def _scores(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> FloatArray:
        """float32 (n,) scores of one or more pairs, from their token ids and token types."""
