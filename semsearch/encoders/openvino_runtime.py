"""Embedding and reranking on a CPU with OpenVINO: no torch in the process, hidden states never copied out.

A checkpoint is written as a graph once (`bert_graph`) and kept, with what OpenVINO compiled of it, under the user's
cache folder; later processes read that.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import bert_graph, quantization
from semsearch.encoders.batching import model_inputs, packed_inputs, packs, placed, token_budget_batches
from semsearch.encoders.bert_graph import LENGTH_STEP
from semsearch.encoders.models import ModelFiles, cache_folder
from semsearch.encoders.openvino_library import openvino_core, openvino_library
from semsearch.encoders.sample_texts import CHECKING_TEXTS, MEASURING_TEXTS, SAMPLE_QUERY
from semsearch.encoders.tokenized import TokenizedEmbedder, TokenizedReranker
from semsearch.errors import InvalidInput, ModelError
from semsearch.types import FloatArray, IntArray

__all__ = ["PRECISIONS", "OpenVinoEmbedder", "OpenVinoReranker", "choose_precision"]

PRECISIONS = ("f32", "bf16", "int8")
INT8_LOSS = {  # models whose int8 passages were evaluated: SHA-256 of the weights to points of mean nDCG@10 lost
    # all-MiniLM-L6-v2; nfcorpus, cranfield, cisi, npl and cosqa-code, by benchmarks/encode.py
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": -0.14,
}
BATCH_TOKENS = 1_024  # with padding; what a core's cache holds of a layer
FEW_TEXTS_TOKENS = 256  # the same for a few dozen texts, too few to be of like length
PAIRS_TOKENS = 512  # for a few dozen pairs of a query and a passage
PACKED_TOKENS = 256  # of queries behind each other in one row; what attention then reads in vain costs next to nothing
FEW_BATCHES = 8  # one after the other they take less time than compiling the graph for parallel streams
REQUESTS_PER_STREAM = 2  # one computes while the next is filled
INT8_GROUP = 384  # activations that share a scale where they are rounded token by token
NEW_PREFIX = ".new-"  # of a graph's folder while it is written
LEFT_BEHIND_S = 86_400.0  # after this such a folder is nobody's
USED = "used"  # file in a graph's folder whose time is that of its last use; its own would have it compiled anew
UNUSED_S = 30 * 86_400.0  # after this a graph is taken away; 40 to 260 MB, made anew in seconds
GRAPH_VERSION = 5  # raise it when `bert_graph` or `quantization` writes another graph


def choose_precision(precision: str, *, weights_sha256: str = "") -> str:
    """Turn `full` and `auto` into a precision of this machine.

    `full` is bf16 where the processor computes in it, else f32. `auto` is int8 where that was shown to cost next to
    nothing for these weights and the processor has the instructions, else as `full`.

    Raises:
        InvalidInput: an unknown precision, or one the processor lacks.
    """
    has_bf16 = computes_in_bf16()
    if precision == "auto" and weights_sha256 in INT8_LOSS and computes_in_int8():
        return "int8"
    if precision in {"auto", "full"}:
        return "bf16" if has_bf16 else "f32"
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision {precision!r}: on a CPU give one of auto, full, {', '.join(PRECISIONS)}")
    if precision == "bf16" and not has_bf16:
        raise InvalidInput("this processor does not compute in bf16; use --precision auto, f32 or int8")
    return precision


def computes_in_bf16() -> bool:
    """Whether the processor has instructions for bf16."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def computes_in_int8() -> bool:
    """Whether the processor multiplies 8-bit values faster than others, as far as the system tells."""
    try:
        return "_vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class OpenVinoEmbedder(TokenizedEmbedder):
    """A BERT bi-encoder. Safe to use from several threads.

    Only passages are encoded in int8: a query is one short text, and its vector is compared with all of them.
    """

    is_batch_invariant = True

    def __init__(self, files: ModelFiles, *, precision: str = "auto") -> None:
        super().__init__(files, precision=choose_precision(precision, weights_sha256=files.weights_sha256))
        kind = f"bi-{files.pooling}"
        full = self.precision if self.precision != "int8" else choose_precision("full")
        self._full = _CompiledGraph(files, kind, self._build_full, full)
        self._packed = _CompiledGraph(files, "packed", self._build_packed, full)
        self._rounded = _CompiledGraph(files, kind, self._build_int8, "int8") if self.precision == "int8" else None
        self._both = _CompiledGraph(files, f"both-{files.pooling}", self._build_both, self.precision)
        # Vectors of tokens only order passages, so they are made as passages are by default, unless asked otherwise.
        asked = "auto" if precision in {"auto", "full"} else precision
        tokens = choose_precision(asked, weights_sha256=files.weights_sha256)
        build = self._build_int8_tokens if tokens == "int8" else self._build_tokens
        self._tokens = _CompiledGraph(files, "tokens", build, tokens, batch_tokens=FEW_TEXTS_TOKENS, n_few=0)

    @property
    def dim(self) -> int:
        """Components of a vector: the model's hidden size, as what this runtime runs has nothing behind its pooling."""
        return self._hidden

    def _build_full(self) -> Any:
        return bert_graph.build_bi_encoder(bert_graph.BertGraph(self._files.path), self._files.pooling)

    def _build_packed(self) -> Any:
        return bert_graph.build_packed_encoder(bert_graph.PackedGraph(self._files.path))

    def _build_tokens(self) -> Any:
        return bert_graph.build_token_encoder(bert_graph.BertGraph(self._files.path))

    def _build_int8(self) -> Any:
        return bert_graph.build_bi_encoder(self._int8_graph(), self._files.pooling)

    def _build_both(self) -> Any:
        graph = self._int8_graph() if self.precision == "int8" else bert_graph.BertGraph(self._files.path)
        return bert_graph.build_text_and_token_encoder(graph, self._files.pooling)

    def _build_int8_tokens(self) -> Any:
        return bert_graph.build_token_encoder(self._int8_graph())

    def _int8_graph(self) -> bert_graph.BertGraph:
        measuring, checking = (
            [np.array(row, dtype=np.int64) for row in self._token_ids(texts, self._files.document_prompt)]
            for texts in (MEASURING_TEXTS, CHECKING_TEXTS)
        )
        return quantization.int8_graph(self._files.path, self._files.pooling, measuring, checking)

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows; a text longer than `max_tokens` is read up to there."""
        if self._rounded is None or not texts:
            return super().embed_documents(texts)
        return self._rounded.run(self._token_ids(texts, self._files.document_prompt))

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows; a text longer than `max_tokens` is read up to there.

        Short texts of unlike lengths are read in one row: together they take half the time that padding them takes, and
        each has the vector that it has alone.
        """
        if not texts:
            return super().embed_queries(texts)
        ids = self._token_ids(texts, self._files.query_prompt)
        rows = [
            row
            for which, starts in packs([len(row) for row in ids], PACKED_TOKENS)
            for row in self._pooled([ids[i] for i in which], starts)
        ]
        vectors = np.stack(rows)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _pooled(self, ids: Sequence[Sequence[int]], starts: IntArray) -> list[FloatArray]:
        """A vector (dim,) of any length for each text of a pack."""
        hidden = self._packed.infer(packed_inputs(ids, starts, step=LENGTH_STEP))[0]
        places = zip(starts.tolist(), ids, strict=True)
        if self._files.pooling == "cls":
            return [hidden[start] for start, _ in places]
        return [hidden[start : start + len(row)].mean(axis=0) for start, row in places]

    def _embed(self, texts: Sequence[str], prompt: str) -> FloatArray:
        return self._full.run(self._token_ids(texts, prompt))

    def _embed_tokens(self, ids: Sequence[Sequence[int]]) -> list[tuple[IntArray, FloatArray]]:
        return self._tokens.run_parts(ids)

    def _embed_both(self, ids: Sequence[Sequence[int]], prompt: str) -> list[tuple[IntArray, FloatArray]]:
        return self._both.run_parts(ids)


class OpenVinoReranker(TokenizedReranker):
    """A BERT cross-encoder. Safe to use from several threads."""

    def __init__(self, files: ModelFiles, *, precision: str = "auto") -> None:
        """Read the tokenizer; the weights wait for the first pair.

        Raises:
            ModelError: the checkpoint does not give one score a pair.
            InvalidInput: an unknown precision.
        """
        super().__init__(files, precision=choose_precision(precision))
        self._activate = bert_graph.score_activation({**self._config, **_stated_activation(files.path)})
        self._graph = _CompiledGraph(files, "cross", self._build, self.precision, batch_tokens=PAIRS_TOKENS, n_few=0)

    def _build(self) -> Any:
        if self.precision != "int8":
            return bert_graph.build_cross_encoder(bert_graph.BertGraph(self._files.path))
        measuring, checking = (self._pairs(texts) for texts in (MEASURING_TEXTS, CHECKING_TEXTS))
        return quantization.int8_cross_encoder(self._files.path, measuring, checking)

    def _pairs(self, texts: Sequence[str]) -> list[quantization.Pair]:
        """Each text beside a sample query, as the model reads them."""
        encoded = self._tokenizer.encode_batch([(SAMPLE_QUERY, text) for text in texts])
        return [(np.array(e.ids, dtype=np.int64), np.array(e.type_ids, dtype=np.int64)) for e in encoded]

    def _scores(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> FloatArray:
        return self._activate(self._graph.run(ids, types)[:, 0])


class _CompiledGraph:
    """A graph ready to run: in one go for a single text, in parallel streams for many. Safe to use from threads."""

    def __init__(
        self,
        files: ModelFiles,
        kind: str,
        build: Callable[[], Any],
        precision: str,
        *,
        batch_tokens: int = BATCH_TOKENS,
        n_few: int = FEW_BATCHES,
    ) -> None:
        name = f"{files.fingerprint[:16]}-{kind}-{'int8' if precision == 'int8' else 'f32'}"
        self._folder = (
            cache_folder() / "openvino" / f"{name}-v{GRAPH_VERSION}-{openvino_library().__version__.split('-')[0]}"
        )
        self._model_name = files.name
        self._build = build
        self._batch_tokens = batch_tokens
        self._n_few = n_few
        hint = "bf16" if precision != "f32" and computes_in_bf16() else "f32"
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "CACHE_DIR": str(self._folder / f"compiled-{hint}"),
        }
        if precision == "int8":
            self._settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = INT8_GROUP
        self._local = threading.local()
        self._queue_lock = threading.Lock()
        self._compile_lock = threading.Lock()
        self._by_streams: dict[int, Any] = {}

    def run(self, ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None) -> FloatArray:
        """float32 (n, width) output rows for n token sequences, in their order."""
        return placed(self.run_parts(ids, token_types), len(ids))

    def run_parts(
        self, ids: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None
    ) -> list[tuple[IntArray, FloatArray]]:
        """(positions, output) of every batch that n token sequences were cut into."""
        batches = list(token_budget_batches([len(row) for row in ids], self._batch_tokens, step=LENGTH_STEP))
        inputs = ((order, model_inputs(ids, token_types, order, step=LENGTH_STEP)) for order in batches)
        n_few = min(1, self._n_few) if n_cores() in self._by_streams else self._n_few
        if len(batches) <= n_few:
            return [(order, self.infer(batch)) for order, batch in inputs]
        with self._told():
            return self._run_in_parallel(inputs)

    def infer(self, batch: list[IntArray]) -> FloatArray:
        """The output for one batch."""
        with self._told():
            return np.array(self._request.infer(batch)[0])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Name the model where the runtime fails."""
        try:
            yield
        except RuntimeError as error:
            raise ModelError(f"{self._model_name} cannot be run by OpenVINO: {str(error).splitlines()[-1]}") from error

    def _run_in_parallel(self, inputs: Iterable[tuple[IntArray, list[IntArray]]]) -> list[tuple[IntArray, FloatArray]]:
        """(positions, output rows) of each batch."""
        with self._queue_lock:
            done: list[tuple[IntArray, FloatArray]] = []
            queue = self._queue
            queue.set_callback(lambda request, order: done.append((order, np.array(request.get_output_tensor(0).data))))
            try:
                for order, batch in inputs:
                    queue.start_async(batch, order)
            finally:
                queue.wait_all()
            return done

    @property
    def _request(self) -> Any:
        """This thread's own request, for work that is one batch."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled(n_streams=1).create_infer_request()
        return self._local.request

    @functools.cached_property
    def _queue(self) -> Any:
        """For many batches at once; used under its lock."""
        n_streams = n_cores()
        return openvino_library().AsyncInferQueue(self._compiled(n_streams), n_streams * REQUESTS_PER_STREAM)

    def _compiled(self, n_streams: int) -> Any:
        """The graph compiled for so many streams, once."""
        with self._compile_lock:
            if n_streams not in self._by_streams:
                self._by_streams[n_streams] = self._compile(n_streams)
            return self._by_streams[n_streams]

    def _compile(self, n_streams: int) -> Any:
        settings = {**self._settings, "NUM_STREAMS": n_streams}
        graph = str(self._folder / "model.xml")
        if Path(graph).is_file():
            with contextlib.suppress(OSError):
                (self._folder / USED).touch()
            with contextlib.suppress(RuntimeError):  # a damaged cache is made anew
                return openvino_core().compile_model(graph, "CPU", settings)
        model = self._build()
        try:
            _keep_graph(self._folder, model)
        except OSError:  # a cache that cannot be written is one that is not used
            return openvino_core().compile_model(model, "CPU", {k: v for k, v in settings.items() if k != "CACHE_DIR"})
        return openvino_core().compile_model(graph, "CPU", settings)


def _stated_activation(folder: Path) -> dict[str, Any]:
    """The activation where sentence-transformers 6 writes it, in the words of the configuration it used before."""
    path = folder / "config_sentence_transformers.json"
    stated = json.loads(path.read_text(encoding="utf-8")).get("activation_fn") if path.is_file() else None
    return {"sentence_transformers": {"activation_fn": stated}} if stated else {}


def n_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _take_away_unused(folder: Path) -> None:
    """Delete a graph that nothing has used for long, or what a process that was killed left of one."""
    used = folder / USED
    age_s = time.time() - (used if used.exists() else folder).stat().st_mtime
    if age_s > (LEFT_BEHIND_S if folder.name.startswith(NEW_PREFIX) else UNUSED_S):
        shutil.rmtree(folder)


def _keep_graph(folder: Path, model: Any) -> None:
    """Write a graph to its place in the cache, whole or not at all, in place of what lies there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        with contextlib.suppress(OSError):
            _take_away_unused(other)
    temporary = Path(tempfile.mkdtemp(prefix=NEW_PREFIX, dir=folder.parent))
    try:
        openvino_library().save_model(model, str(temporary / "model.xml"), compress_to_fp16=False)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a process that was quicker wins
            temporary.rename(folder)
        (folder / "model.xml").stat()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
