"""Embedding and reranking with torch, through sentence-transformers: on GPUs, and for what OpenVINO does not know.

A model has one copy a device. Texts are cut into batches that fit, and each device takes the next one from a queue.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from semsearch.encoders import devices
from semsearch.encoders.batching import model_inputs, placed, token_budget_batches
from semsearch.encoders.models import ModelFiles
from semsearch.encoders.tokenized import TokenizedEmbedder, TokenizedReranker
from semsearch.errors import ModelError
from semsearch.types import FloatArray, IntArray

__all__ = ["Replica", "Tokens", "TorchEmbedder", "TorchReranker", "run_batches"]


class TorchEmbedder(TokenizedEmbedder):
    """A bi-encoder on one device or several. Safe to use from several threads, one encoding at a time."""

    def __init__(self, files: ModelFiles, *, device: str = "auto", precision: str = "auto") -> None:
        """Read the tokenizer and choose devices and precision; the weights wait for the first text.

        Raises:
            InvalidInput: an unknown or missing device, or a precision that it lacks.
        """
        found = devices.find_devices(device)
        super().__init__(files, precision=devices.find_precision(precision, found))
        self._copies = _Copies(files, found, self.precision, _bi_encoder)
        self._token_copies = _Copies(files, found[:1], self.precision, _token_encoder)
        self._both_copies = _Copies(files, found, self.precision, _text_and_token_encoder)

    @property
    def device(self) -> str:
        """Where queries are encoded."""
        return self._copies.names[0]

    @property
    def n_devices(self) -> int:
        """Devices that work side by side on one call of `embed_documents`."""
        return len(self._copies.names)

    def _embed(self, texts: Sequence[str], prompt: str) -> FloatArray:
        return self._copies.run(Tokens(self._token_ids(texts, prompt), n_prompt=self._n_prompt(prompt)))

    def _embed_tokens(self, ids: Sequence[Sequence[int]]) -> list[tuple[IntArray, FloatArray]]:
        return self._token_copies.run_parts(Tokens(ids))

    def _embed_both(self, ids: Sequence[Sequence[int]], prompt: str) -> list[tuple[IntArray, FloatArray]]:
        return self._both_copies.run_parts(Tokens(ids, n_prompt=self._n_prompt(prompt)))

    def _n_prompt(self, prompt: str) -> int:
        """Tokens that some models leave out of the pooling: all of the prompt's but the closing special one."""
        encoded = self._tokenizer.encode(prompt)
        return len(encoded.ids) - encoded.special_tokens_mask[-1] if prompt else 0


class TorchReranker(TokenizedReranker):
    """A cross-encoder on one device. Safe to use from several threads, one scoring at a time."""

    def __init__(self, files: ModelFiles, *, device: str = "auto", precision: str = "auto") -> None:
        """Read the tokenizer and choose device and precision; the weights wait for the first pair.

        Raises:
            ModelError: the checkpoint does not give one score a pair.
            InvalidInput: an unknown or missing device, or a precision that it lacks.
        """
        found = devices.find_devices(device)[:1]
        super().__init__(files, precision=devices.find_precision(precision, found), device=found[0])
        self._copies = _Copies(files, found, self.precision, _cross_encoder)

    def _scores(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> FloatArray:
        return self._copies.run(Tokens(ids, types))[:, 0]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts as a model reads them.

    Attributes:
        ids: a row of token ids a text.
        types: which of a pair's texts each token belongs to, row by row; None for single texts.
        n_prompt: tokens of the prompt at the start of each row.
    """

    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]] | None = None
    n_prompt: int = 0

    def features(self, positions: IntArray, device: str) -> dict[str, Any]:
        """The rows at these positions as tensors on a device."""
        import torch

        names = ("input_ids", "attention_mask", "token_type_ids")
        arrays = model_inputs(self.ids, self.types, positions)
        tensors = {name: torch.from_numpy(a).to(device) for name, a in zip(names, arrays, strict=False)}
        return {**tensors, "prompt_length": self.n_prompt} if self.n_prompt else tensors


class Replica:
    """A model on one device, and how many tokens, padding included, that device takes at once.

    Attributes:
        budget: lowered for good when the memory proves too small.
    """

    def __init__(self, name: str, device: str, budget: int, forward: Callable[[dict[str, Any]], Any]) -> None:
        self.budget = budget
        self._name = name
        self._device = device
        self._forward = forward

    def run(self, tokens: Tokens, positions: IntArray) -> list[tuple[IntArray, FloatArray]]:
        """(positions, float32 output of n texts), in as many parts as the memory asks for.

        Raises:
            ModelError: torch fails, or a single text does not fit.
        """
        lengths = [len(tokens.ids[i]) for i in positions]
        parts = [positions[part] for part in token_budget_batches(lengths, self.budget)]
        if len(parts) > 1:
            return [done for part in parts for done in self.run(tokens, part)]
        rows = self._try(tokens, positions)
        if rows is not None:
            return [(positions, rows)]
        if len(positions) == 1:
            raise ModelError(
                f"{self._name}: a text of {lengths[0]} tokens does not fit into the memory of {self._device}. "
                "End what else uses it, or use --device cpu"
            )
        self.budget = min(self.budget, len(positions) * max(lengths)) // 2
        return self.run(tokens, positions)

    def _try(self, tokens: Tokens, positions: IntArray) -> FloatArray | None:
        """Output rows, or None when the device is out of memory."""
        import torch

        try:
            with torch.inference_mode():
                rows: FloatArray = self._forward(tokens.features(positions, self._device)).cpu().numpy()
                return rows
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise ModelError(f"{self._name} cannot be run on {self._device}: {error}") from error
        devices.empty_cache(self._device)  # only here does no traceback hold the tensors any more
        return None


def run_batches(replicas: Sequence[Replica], tokens: Tokens) -> list[tuple[IntArray, FloatArray]]:
    """(positions, output) of every batch that n texts were cut into, whichever replica each was run on.

    Raises:
        ModelError: as for `Replica.run`.
    """
    lengths = [len(row) for row in tokens.ids]
    budget = devices.batch_tokens(sum(lengths), [replica.budget for replica in replicas])
    waiting: SimpleQueue[IntArray] = SimpleQueue()
    for positions in token_budget_batches(lengths, budget):
        waiting.put(positions)

    def work(replica: Replica) -> list[tuple[IntArray, FloatArray]]:
        try:
            return [done for positions in _taken(waiting) for done in replica.run(tokens, positions)]
        except BaseException:
            list(_taken(waiting))  # what one replica cannot do ends the work of all
            raise

    if len(replicas) == 1:
        return work(replicas[0])
    with ThreadPoolExecutor(len(replicas)) as pool:
        return [done for parts in pool.map(work, replicas) for done in parts]


def _taken(queue: SimpleQueue[IntArray]) -> Iterator[IntArray]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


class _Copies:
    """A model's replicas, loaded when there is work for them.

    Attributes:
        names: the devices, the first for work that needs one only.
    """

    def __init__(
        self,
        files: ModelFiles,
        names: Sequence[str],
        precision: str,
        load: Callable[[ModelFiles, str, Any], Callable[[dict[str, Any]], Any]],
    ) -> None:
        self._files = files
        self.names = names
        self._precision = precision
        self._load = load
        self._replicas: list[Replica] = []
        self._lock = threading.Lock()

    def run(self, tokens: Tokens) -> FloatArray:
        """float32 (n, width) output rows of n texts, in their order."""
        return placed(self.run_parts(tokens), len(tokens.ids))

    def run_parts(self, tokens: Tokens) -> list[tuple[IntArray, FloatArray]]:
        """(positions, output) of every batch that n texts were cut into."""
        n_devices = devices.n_devices_for(sum(map(len, tokens.ids)), len(self.names))
        with self._lock:
            for name in self.names[len(self._replicas) : n_devices]:
                self._replicas.append(self._replica(name))
            parts = run_batches(self._replicas[:n_devices], tokens)
        if not all(np.isfinite(rows).all() for _, rows in parts):
            raise ModelError(
                f"{self._files.name} gives values beyond the range of {self._precision}. "
                "Use --precision f32, or --device cpu"
            )
        return parts

    def _replica(self, device: str) -> Replica:
        import torch

        files, dtype = self._files, {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
        forward = self._load(files, device, dtype[self._precision])
        config = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
        token_bytes = devices.bytes_per_token(config, files.max_tokens, dtype[self._precision].itemsize)
        return Replica(files.name, device, devices.find_budget(device, token_bytes), forward)


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


@_quiet()
def _bi_encoder(files: ModelFiles, device: str, dtype: Any) -> Callable[[dict[str, Any]], Any]:
    """From features to float32 unit rows (n, dim), through all modules that the checkpoint names."""
    from sentence_transformers import SentenceTransformer
    from torch.nn.functional import normalize

    model = _loaded(SentenceTransformer, files, device, dtype, "bi-encoder")
    return lambda features: normalize(model(features)["sentence_embedding"].float(), dim=1)


@_quiet()
def _token_encoder(files: ModelFiles, device: str, dtype: Any) -> Callable[[dict[str, Any]], Any]:
    """From features to float32 unit rows of tokens (n, length, hidden), from the checkpoint's first module."""
    from sentence_transformers import SentenceTransformer
    from torch.nn.functional import normalize

    model = _loaded(SentenceTransformer, files, device, dtype, "bi-encoder")[0]
    return lambda features: normalize(model(features)["token_embeddings"].float(), dim=2)


@_quiet()
def _text_and_token_encoder(files: ModelFiles, device: str, dtype: Any) -> Callable[[dict[str, Any]], Any]:
    """From features to float32 unit rows (n, 1 + length, width), a text's before its tokens', filled up with zeros."""
    import torch
    from sentence_transformers import SentenceTransformer
    from torch.nn.functional import normalize, pad

    model = _loaded(SentenceTransformer, files, device, dtype, "bi-encoder")

    def forward(features: dict[str, Any]) -> Any:
        given = model(features)
        texts, tokens = given["sentence_embedding"].unsqueeze(1), given["token_embeddings"]
        width = max(texts.shape[2], tokens.shape[2])
        rows = [pad(normalize(part.float(), dim=2), (0, width - part.shape[2])) for part in (texts, tokens)]
        return torch.cat(rows, dim=1)

    return forward


@_quiet()
def _cross_encoder(files: ModelFiles, device: str, dtype: Any) -> Callable[[dict[str, Any]], Any]:
    """From features to float32 scores (n, 1)."""
    from sentence_transformers import CrossEncoder

    model = _loaded(CrossEncoder, files, device, dtype, "cross-encoder")
    taken = model.tokenizer.model_input_names  # not every architecture knows token types

    def forward(features: dict[str, Any]) -> Any:
        logits = model.model(**{name: tensor for name, tensor in features.items() if name in taken}).logits
        return model.activation_fn(logits.float())

    return forward


def _loaded(kind: Any, files: ModelFiles, device: str, dtype: Any, what: str) -> Any:
    """A model of sentence-transformers on a device, with the attention that transformers finds quickest (SDPA)."""
    try:
        model = kind(str(files.path), device="cpu", local_files_only=True)
        return model.to(device=device, dtype=dtype).eval()
    except Exception as error:  # whatever torch, transformers and safetensors raise for files they cannot use
        raise ModelError(f"{files.name} cannot be run as a {what}: {error}") from error
