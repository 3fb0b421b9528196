"""BERT graphs whose matrices are rounded to 8 bits: by fixed ranges measured on sample texts, or token by token.

Fixed ranges are the faster way, as a tensor goes from one 8-bit product to the next without being looked at. They hold
where a model's activations are well behaved, which is measured: a model that loses more than it may is rounded token by
token, which needs no ranges and cannot clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsearch.encoders.bert_graph import BertGraph, build_bi_encoder, build_cross_encoder
from semsearch.encoders.openvino_library import openvino_core, openvino_library
from semsearch.types import FloatArray, IntArray

__all__ = ["TokenwiseInt8", "cosines", "int8_cross_encoder", "int8_graph"]

Pair = tuple[IntArray, IntArray]  # token ids and token types, int64 (n_tokens,) each

MIN_COSINE = 0.998  # mean over sample texts; below it fixed ranges are given up
MIN_CORRELATION = 0.98  # of a cross-encoder's scores over sample pairs; below it fixed ranges are given up
LEVELS = 127  # of a signed 8-bit value, zero apart
SMOOTHING = 0.7  # share of an input channel's width that moves into the weights: 0 none, 1 all
SMOOTHING_ATTENDED = 0.5  # the same for attention's output, whose channels differ less
N_OUTLIERS = 16  # neurons of a feed-forward layer that are left in full precision: as many as a vector register holds
OUTLIER_RATIO = 4  # how far the widest of them must stand out from the next after them


@dataclass(frozen=True, slots=True)
class InputRange:
    """What one matrix was given over the sample texts: float32 (in,) each."""

    low: FloatArray
    high: FloatArray
    mean: FloatArray


class TokenwiseInt8(BertGraph):
    """8-bit weights; the runtime rounds activations token by token."""

    def matrix(self, rows: FloatArray) -> Any:
        """8-bit rows, each with a scale of its own."""
        return _scaled(*_steps(rows))


class _Recorder(BertGraph):
    """Full precision, with the least, largest and mean value of every matrix's input as further outputs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.inputs: dict[str, Any] = {}

    def linear(self, x: Any, name: str, scale: float = 1.0) -> Any:
        self.inputs[name] = x
        return super().linear(x, name, scale)

    def measure(
        self, texts: Sequence[IntArray], token_types: Sequence[IntArray] | None = None
    ) -> dict[str, InputRange]:
        """Ranges over token rows, each int64 (n_tokens,), of pairs with their types, by the name of the matrix."""
        op, tokens = openvino_library().opset13, np.array([0, 1], dtype=np.int64)
        types = None if token_types is None else op.parameter([-1, -1], np.int64, "token_type_ids")
        self.encode(token_types=types)
        outputs = [
            reduce(x, tokens) for x in self.inputs.values() for reduce in (op.reduce_min, op.reduce_max, op.reduce_mean)
        ]
        inputs = [self.ids, self.mask] if types is None else [self.ids, self.mask, types]
        model = openvino_library().Model(outputs, inputs, "ranges")
        request = _compiled(model).create_infer_request()
        found = []
        for i, text in enumerate(texts):
            rows = [text, np.ones(len(text), dtype=np.int64), *([] if token_types is None else [token_types[i]])]
            request.infer([row[np.newaxis] for row in rows])
            found.append([np.array(request.get_output_tensor(i).data) for i in range(len(outputs))])
        lengths = np.array([len(text) for text in texts], dtype=np.float32)
        ranges = {}
        for i, name in enumerate(self.inputs):
            low, high, mean = (np.stack([values[3 * i + j] for values in found]) for j in range(3))
            ranges[name] = InputRange(low.min(axis=0), high.max(axis=0), np.average(mean, axis=0, weights=lengths))
        return ranges


class _FixedInt8(BertGraph):
    """8-bit weights and activations, rounded by fixed ranges.

    Five things keep the loss small. An input is centred on the middle of its range, whose product goes into the bias
    exactly; so does what the mean input loses by the rounding of weights. The widths of its channels are evened out
    against the weights' (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438). The few feed-forward neurons whose
    activations and weights are both far out of line are computed beside the others, in full precision: they carry the
    attention sinks. And what is computed of the first token alone is not rounded, since it takes no time.
    """

    def __init__(self, folder: Path, ranges: dict[str, InputRange]) -> None:
        super().__init__(folder)
        self._ranges = ranges

    def linear(self, x: Any, name: str, scale: float = 1.0) -> Any:
        if name not in self._ranges or _is_one_token(x):
            return super().linear(x, name, scale)
        rows, bias = self._parameters(name)
        rounded, grid = self._round(x, self._ranges[name], rows, SMOOTHING_ATTENDED)
        return grid.product(rounded, rows, bias)

    def queries_keys_values(self, x: Any, first: Any, name: str, scale: float) -> tuple[Any, Any, Any]:
        query, key, value = (self._parameters(f"{name}.{part}") for part in ("query", "key", "value"))
        query = (query[0] * np.float32(scale), query[1] * np.float32(scale))
        together = np.concatenate([rows for rows, _ in (query, key, value)])
        rounded, grid = self._round(x, self._ranges[f"{name}.key"], together, SMOOTHING)
        asked = grid.product(rounded, *query) if first is x else super().linear(first, f"{name}.query", scale)
        return asked, grid.product(rounded, *key), grid.product(rounded, *value)

    def feed_forward(self, x: Any, name: str) -> Any:
        if _is_one_token(x):
            return super().feed_forward(x, name)
        op = openvino_library().opset13
        up, down = f"{name}.intermediate.dense", f"{name}.output.dense"
        (rows, bias), (out_rows, out_bias) = self._parameters(up), self._parameters(down)
        inner = self._ranges[down]
        weight = np.maximum(inner.high - inner.mean, inner.mean - inner.low) * np.abs(out_rows).max(axis=0)
        order = np.argsort(-weight, kind="stable")
        stands_out = len(order) > 2 * N_OUTLIERS and weight[order[0]] > OUTLIER_RATIO * weight[order[N_OUTLIERS]]
        far, near = (np.sort(part) for part in np.split(order, [N_OUTLIERS if stands_out else 0]))
        rounded, grid = self._round(x, self._ranges[up], rows[near], SMOOTHING)
        hidden = self.gelu(grid.product(rounded, rows[near], bias[near]))
        kept = InputRange(inner.low[near], inner.high[near], inner.mean[near])
        rounded, grid = self._round(hidden, kept, out_rows[:, near], SMOOTHING)
        product = grid.product(rounded, out_rows[:, near], out_bias)
        if not len(far):
            return product
        beside = self.gelu(op.add(op.matmul(x, op.constant(rows[far]), False, True), op.constant(bias[far])))
        return op.add(product, op.matmul(beside, op.constant(np.ascontiguousarray(out_rows[:, far])), False, True))

    def _parameters(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self.array(f"{name}.weight"), self.array(f"{name}.bias")

    def _round(self, x: Any, measured: InputRange, rows: FloatArray, smoothing: float) -> tuple[Any, _Grid]:
        """The input as 8-bit steps, and the grid it lies on."""
        op = openvino_library().opset13
        grid = _Grid.of(measured, rows, smoothing)
        low, high = np.float32(-grid.width), np.float32(grid.width * LEVELS / (LEVELS + 1))
        even = op.multiply(op.subtract(x, op.constant(grid.center)), op.constant(1 / grid.scales))
        return op.fake_quantize(even, low, high, low, high, 2 * LEVELS + 2), grid


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the 8-bit steps of an input lie: x = center + scales * step, steps within +-width; float32 (in,).

    `mean_step` is that of the mean input.
    """

    center: FloatArray
    scales: FloatArray
    mean_step: FloatArray
    width: float

    @classmethod
    def of(cls, measured: InputRange, rows: FloatArray, smoothing: float) -> _Grid:
        """For an input of a matrix (out, in)."""
        center = ((measured.high + measured.low) / 2).astype(np.float32)
        spread = np.maximum((measured.high - measured.low) / 2, 1e-4)
        largest = np.maximum(np.abs(rows).max(axis=0), 1e-5)
        scales = spread**smoothing / largest ** (1 - smoothing)
        scales = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
        return cls(center, scales, (measured.mean - center) / scales, float((spread / scales).max()))

    def product(self, steps: Any, rows: FloatArray, bias: FloatArray) -> Any:
        """The matrix (out, in) times the input, plus bias."""
        op = openvino_library().opset13
        even = rows * self.scales
        values, row_scales = _steps(even)
        lost = (even - values * row_scales) @ self.mean_step
        product = op.matmul(steps, _scaled(values, row_scales), False, True)
        return op.add(product, op.constant((bias + rows @ self.center + lost).astype(np.float32)))


def int8_graph(folder: Path, pooling: str, measuring: Sequence[IntArray], checking: Sequence[IntArray]) -> BertGraph:
    """The fastest 8-bit graph of a bi-encoder whose vectors stay close to those of full precision.

    What is checked is the loss by rounding; bf16, where the processor has it, adds what it adds to any model.

    Args:
        folder: the checkpoint.
        pooling: as for `build_bi_encoder`.
        measuring: token rows of texts whose ranges are taken, int64 (n_tokens,) each.
        checking: the same, of texts that show what rounding costs.

    Raises:
        ModelError: weights that do not fit the architecture.
    """
    ranges = _Recorder(folder).measure(measuring)
    exact, fixed = build_bi_encoder(BertGraph(folder), pooling), build_bi_encoder(_FixedInt8(folder, ranges), pooling)
    if cosines(exact, fixed, checking).mean() >= MIN_COSINE:
        return _FixedInt8(folder, ranges)
    return TokenwiseInt8(folder)


def int8_cross_encoder(folder: Path, measuring: Sequence[Pair], checking: Sequence[Pair]) -> Any:
    """The fastest 8-bit cross-encoder whose scores go with those of full precision.

    Args:
        folder: the checkpoint.
        measuring: pairs whose ranges are taken.
        checking: pairs that show what rounding costs.

    Raises:
        ModelError: weights that do not fit the architecture.
    """
    ranges = _Recorder(folder).measure([ids for ids, _ in measuring], [types for _, types in measuring])
    exact, fixed = (build_cross_encoder(graph) for graph in (BertGraph(folder), _FixedInt8(folder, ranges)))
    scores = np.array([_outputs(model, checking)[:, 0] for model in (exact, fixed)])
    if np.corrcoef(scores)[0, 1] >= MIN_CORRELATION:
        return fixed
    return build_cross_encoder(TokenwiseInt8(folder))


def cosines(first: Any, second: Any, texts: Sequence[IntArray]) -> FloatArray:
    """Cosine of the vectors that two bi-encoders give each text, float32 (n,)."""
    a, b = (_outputs(model, [(text,) for text in texts]) for model in (first, second))
    return np.asarray(np.einsum("ij,ij->i", a, b), dtype=np.float32)


def _outputs(model: Any, texts: Sequence[tuple[IntArray, ...]]) -> FloatArray:
    """What a model gives for each text, float32 (n, width), from its token ids and perhaps types."""
    request = _compiled(model).create_infer_request()
    found = []
    for ids, *types in texts:
        rows = [ids, np.ones(len(ids), dtype=np.int64), *types]
        found.append(np.array(request.infer([row[np.newaxis] for row in rows])[0][0]))
    return np.array(found, dtype=np.float32)


def _compiled(model: Any) -> Any:
    return openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1})


def _steps(rows: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """A matrix (out, in) as 8-bit steps, int8 (out, in), and the scale of each row, float32 (out, 1)."""
    scales = (np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / LEVELS).astype(np.float32)
    return np.clip(np.round(rows / scales), -LEVELS, LEVELS).astype(np.int8), scales


def _scaled(steps: npt.NDArray[np.int8], scales: FloatArray) -> Any:
    """A matrix as 8-bit steps times a scale a row."""
    op = openvino_library().opset13
    return op.multiply(op.convert(op.constant(steps), "f32"), op.constant(scales))


def _is_one_token(x: Any) -> bool:
    """Whether rows (n, length, width) are of the first token alone, as those of a last layer may be."""
    return bool(x.get_output_partial_shape(0)[1].max_length == 1)
