"""Embedding and reranking on a CPU with OpenVINO: no torch in the process, hidden states never copied out.

A checkpoint is written as a graph once (`bert_graph`) and kept, with what OpenVINO compiled of it, under the user's
cache folder; later processes read that.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import bert_graph
from semsearch.encoders.batching import model_inputs, placed, token_budget_batches
from semsearch.encoders.models import ModelFiles, cache_folder
from semsearch.encoders.openvino_library import openvino_core, openvino_library
from semsearch.encoders.tokenized import TokenizedEmbedder, TokenizedReranker
from semsearch.errors import InvalidInput, ModelError
from semsearch.types import FloatArray, IntArray

__all__ = ["PRECISIONS", "OpenVinoEmbedder", "OpenVinoReranker", "choose_precision"]

PRECISIONS = ("f32", "bf16", "int8")
BATCH_TOKENS = 2_048  # with padding
REQUESTS_PER_STREAM = 2  # one computes while the next is filled
INT8_GROUP = 384  # activations that share a scale; a scale for all of a row is what the processor's int8 is fast at
GRAPH_VERSION = 1  # raise it when `bert_graph` writes another graph


def choose_precision(precision: str) -> str:
    """Turn `auto` into the fastest precision at full quality here: bf16 where the processor computes in it, else f32.

    Raises:
        InvalidInput: an unknown precision, or one the processor lacks.
    """
    has_bf16 = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "auto":
        return "bf16" if has_bf16 else "f32"
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision {precision!r}: on a CPU give one of auto, {', '.join(PRECISIONS)}")
    if precision == "bf16" and not has_bf16:
        raise InvalidInput("this processor does not compute in bf16; use --precision auto, f32 or int8")
    return precision


class OpenVinoEmbedder(TokenizedEmbedder):
    """A BERT bi-encoder. Safe to use from several threads."""

    def __init__(self, files: ModelFiles, *, precision: str = "auto") -> None:
        super().__init__(files, precision=choose_precision(precision))
        self._lock = threading.Lock()

    @functools.cached_property
    def _graph(self) -> _CompiledGraph:
        files, int8 = self._files, self.precision == "int8"
        build = functools.partial(bert_graph.build_bi_encoder, files.path, files.pooling, int8=int8)
        return _CompiledGraph(files, f"bi-{files.pooling}", build, self.precision)

    def _embed(self, texts: Sequence[str], prompt: str) -> FloatArray:
        with self._lock:
            graph = self._graph
        return graph.run(self._token_ids(texts, prompt))


class OpenVinoReranker(TokenizedReranker):
    """A BERT cross-encoder. Safe to use from several threads."""

    def __init__(self, files: ModelFiles, *, precision: str = "auto") -> None:
        """Read the tokenizer; the weights wait for the first pair.

        Raises:
            ModelError: the checkpoint does not give one score a pair.
            InvalidInput: an unknown precision.
        """
        super().__init__(files)
        self._precision = choose_precision(precision)
        self._activate = bert_graph.score_activation(self._config)
        self._lock = threading.Lock()

    @functools.cached_property
    def _graph(self) -> _CompiledGraph:
        build = functools.partial(bert_graph.build_cross_encoder, self._files.path, int8=self._precision == "int8")
        return _CompiledGraph(self._files, "cross", build, self._precision)

    def _scores(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> FloatArray:
        with self._lock:
            graph = self._graph
        return self._activate(graph.run(ids, types)[:, 0])


class _CompiledGraph:
    """A graph ready to run: in one go for a single text, in parallel streams for many. Safe to use from threads."""

    def __init__(self, files: ModelFiles, kind: str, build: Callable[[], Any], precision: str) -> None:
        name = f"{files.fingerprint[:16]}-{kind}-{'int8' if precision == 'int8' else 'f32'}"
        self._folder = (
            cache_folder() / "openvino" / f"{name}-v{GRAPH_VERSION}-{openvino_library().__version__.split('-')[0]}"
        )
        self._model_name = files.name
        self._build = build
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "CACHE_DIR": str(self._folder / "compiled"),
        }
        if precision == "int8":
            self._settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = INT8_GROUP
        self._local = threading.local()
        self._queue_lock = threading.Lock()

    def run(self, ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None) -> FloatArray:
        """float32 (n, width) output rows for n token sequences, in their order."""
        batches = list(token_budget_batches([len(row) for row in ids], BATCH_TOKENS))
        if len(batches) == 1:
            order = batches[0]
            rows = self._request.infer(model_inputs(ids, token_types, order))[0]
            return placed([(order, np.array(rows))], len(ids))
        with self._queue_lock:
            done: list[tuple[IntArray, FloatArray]] = []
            queue = self._queue
            queue.set_callback(lambda request, order: done.append((order, np.array(request.get_output_tensor(0).data))))
            for order in batches:
                queue.start_async(model_inputs(ids, token_types, order), order)
            queue.wait_all()
        return placed(done, len(ids))

    @property
    def _request(self) -> Any:
        """This thread's own request, for work that is one batch."""
        if not hasattr(self._local, "request"):
            self._local.request = self._one_by_one.create_infer_request()
        return self._local.request

    @functools.cached_property
    def _one_by_one(self) -> Any:
        return self._compile(n_streams=1)

    @functools.cached_property
    def _queue(self) -> Any:
        n_streams = n_cores()
        return openvino_library().AsyncInferQueue(self._compile(n_streams), n_streams * REQUESTS_PER_STREAM)

    def _compile(self, n_streams: int) -> Any:
        settings = {**self._settings, "NUM_STREAMS": n_streams}
        if not (self._folder / "model.xml").is_file():
            _keep_graph(self._folder, self._build)
        try:
            return openvino_core().compile_model(str(self._folder / "model.xml"), "CPU", settings)
        except RuntimeError:  # a damaged cache is made anew
            shutil.rmtree(self._folder, ignore_errors=True)
            _keep_graph(self._folder, self._build)
        try:
            return openvino_core().compile_model(str(self._folder / "model.xml"), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{self._model_name} cannot be run by OpenVINO: {str(error).splitlines()[-1]}") from error


def n_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_graph(folder: Path, build: Callable[[], Any]) -> None:
    """Write a graph to its place in the cache, whole or not at all; a process that was quicker wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        openvino_library().save_model(build(), str(temporary / "model.xml"), compress_to_fp16=False)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "model.xml").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
