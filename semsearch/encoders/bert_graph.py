"""BERT written as an OpenVINO graph, straight from a checkpoint's safetensors: no torch, no tracing.

Covers the family that bi-encoders and cross-encoders are mostly made of: BERT, RoBERTa, XLM-R, CamemBERT. Pooling,
normalising and the classification head are part of the graph, so that hidden states never leave it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders.openvino_library import openvino_library
from semsearch.errors import ModelError
from semsearch.types import FloatArray

__all__ = [
    "LENGTH_STEP",
    "BertGraph",
    "PackedGraph",
    "build_bi_encoder",
    "build_cross_encoder",
    "build_packed_encoder",
    "build_text_and_token_encoder",
    "build_token_encoder",
    "score_activation",
    "supports",
]


_FAMILY = {"bert", "roberta", "xlm-roberta", "camembert"}
_ACTIVATIONS = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
_MODULES = {"Transformer", "Pooling", "Normalize"}
_SCORE_ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "Sigmoid": lambda logits: (1 / (1 + np.exp(-logits))).astype(np.float32),
    "Identity": lambda logits: logits,
}
LENGTH_STEP = 16  # lengths are padded to a multiple: attention runs a third faster on whole vector registers
_FAR_BELOW = -1e4  # added to the attention scores of padding; its softmax is 0 in every precision


def supports(folder: Path, pooling: str) -> bool:
    """Whether a checkpoint's architecture and pooling, over all tokens, are ones that this module writes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pooled = folder / "1_Pooling" / "config.json"
    whole = not pooled.is_file() or json.loads(pooled.read_text(encoding="utf-8")).get("include_prompt", True)
    modules = folder / "modules.json"
    listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    return (
        config.get("model_type") in _FAMILY
        and pooling in {"mean", "cls"}
        and whole
        and config.get("hidden_act", "gelu") in _ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and all(str(module["type"]).rpartition(".")[2] in _MODULES for module in listed)
    )


def build_bi_encoder(graph: BertGraph, pooling: str) -> Any:
    """A model from input ids and attention mask (int64, (n, length)) to unit rows (float32, (n, dim)).

    Args:
        graph: of the checkpoint.
        pooling: `mean` over the tokens that are not padding, or `cls`, the first token.

    Raises:
        ModelError: weights that do not fit the architecture.
    """
    op, model = openvino_library().opset13, openvino_library().Model
    pooled = _pooled(graph, graph.encode(first_only=pooling == "cls"), pooling)
    unit = op.normalize_l2(pooled, np.array([1], dtype=np.int64), 1e-24, "max")
    return model([unit], [graph.ids, graph.mask], "bi-encoder")


def build_text_and_token_encoder(graph: BertGraph, pooling: str) -> Any:
    """What `build_bi_encoder` and `build_token_encoder` build, in one: unit rows, float32 (n, 1 + length, hidden).

    A text's own row comes first, then its tokens'.

    Raises:
        ModelError: weights that do not fit the architecture.
    """
    op, model = openvino_library().opset13, openvino_library().Model
    hidden = graph.encode()
    rows = op.concat([op.unsqueeze(_pooled(graph, hidden, pooling), np.int64(1)), hidden], 1)
    unit = op.normalize_l2(rows, np.array([2], dtype=np.int64), 1e-24, "max")
    return model([unit], [graph.ids, graph.mask], "text-and-token-encoder")


def build_token_encoder(graph: BertGraph) -> Any:
    """A model from input ids and attention mask (int64, (n, length)) to unit rows (float32, (n, length, hidden)).

    Raises:
        ModelError: weights that do not fit the architecture.
    """
    op, model = openvino_library().opset13, openvino_library().Model
    unit = op.normalize_l2(graph.encode(), np.array([2], dtype=np.int64), 1e-24, "max")
    return model([unit], [graph.ids, graph.mask], "token-encoder")


def build_packed_encoder(graph: PackedGraph) -> Any:
    """A model of texts in one row, from what `batching.packed_inputs` makes, to hidden states, float32 (1, n, hidden).

    Raises:
        ModelError: weights that do not fit the architecture.
    """
    return openvino_library().Model([graph.encode()], [graph.ids, graph.positions, graph.texts], "packed-encoder")


def build_cross_encoder(graph: BertGraph) -> Any:
    """A model from input ids, attention mask, token types (int64, (n, length)) to logits (float32, (n, labels)).

    Raises:
        ModelError: no classification head, or weights that do not fit the architecture.
    """
    op, model = openvino_library().opset13, openvino_library().Model
    token_types = op.parameter([-1, -1], np.int64, "token_type_ids")
    first = _first_token(graph.encode(token_types=token_types, first_only=True))
    if f"{graph.prefix}pooler.dense.weight" in graph.weights:
        features, out = graph.linear(first, f"{graph.prefix}pooler.dense"), "classifier"
    else:
        features, out = graph.linear(first, "classifier.dense"), "classifier.out_proj"
    return model([graph.linear(op.tanh(features), out)], [graph.ids, graph.mask, token_types], "cross-encoder")


class BertGraph:
    """The part that all models share: embeddings and encoder layers. Subclasses round the matrices."""

    def __init__(self, folder: Path) -> None:
        """Read a checkpoint.

        Raises:
            ModelError: weights that cannot be read, or are not BERT's.
        """
        op = openvino_library().opset13
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.weights = _read_weights(folder)
        words = next((n for n in self.weights if n.endswith("embeddings.word_embeddings.weight")), None)
        if words is None:
            raise ModelError(f"{folder} has no word embeddings; it is not a BERT checkpoint")
        self.prefix = words.removesuffix("embeddings.word_embeddings.weight")
        self.ids = op.parameter([-1, -1], np.int64, "input_ids")
        self.mask = op.parameter([-1, -1], np.int64, "attention_mask")

    def array(self, name: str) -> FloatArray:
        """A weight of the checkpoint."""
        if name not in self.weights:
            raise ModelError(f"{self.folder} lacks the weight {name}; it is not a complete BERT checkpoint")
        return np.asarray(self.weights[name], dtype=np.float32)

    def weight(self, name: str) -> Any:
        """A weight of the checkpoint as a constant."""
        return openvino_library().opset13.constant(self.array(name))

    def matrix(self, rows: FloatArray) -> Any:
        """A weight matrix (out, in)."""
        return openvino_library().opset13.constant(rows)

    def linear(self, x: Any, name: str, scale: float = 1.0) -> Any:
        """The rows of x times a matrix, plus its bias, all times `scale`."""
        op = openvino_library().opset13
        factor = np.float32(scale)
        product = op.matmul(x, self.matrix(self.array(f"{name}.weight") * factor), False, True)
        return op.add(product, op.constant(self.array(f"{name}.bias") * factor))

    def queries_keys_values(self, x: Any, first: Any, name: str, scale: float) -> tuple[Any, Any, Any]:
        """The projections of self-attention: queries of `first`, times `scale`, keys and values of `x`."""
        query = self.linear(first, f"{name}.query", scale)
        return query, self.linear(x, f"{name}.key"), self.linear(x, f"{name}.value")

    def feed_forward(self, x: Any, name: str) -> Any:
        """The two matrices of a layer and the activation between them."""
        return self.linear(self.gelu(self.linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")

    def gelu(self, x: Any) -> Any:
        """The activation that the configuration names."""
        kind = _ACTIVATIONS[self.config.get("hidden_act", "gelu")]
        return openvino_library().opset13.gelu(x, kind)

    def layer_norm(self, x: Any, name: str) -> Any:
        """Rows of mean 0 and variance 1, times a weight, plus a bias."""
        op = openvino_library().opset13
        epsilon = float(self.config.get("layer_norm_eps", 1e-12))
        unit = op.mvn(x, np.array([-1], dtype=np.int64), True, epsilon, "inside_sqrt")
        return op.add(op.multiply(unit, self.weight(f"{name}.weight")), self.weight(f"{name}.bias"))

    def encode(self, *, token_types: Any = None, first_only: bool = False) -> Any:
        """Hidden states of the last layer, (n, length, hidden), or (n, 1, hidden) of the first token only.

        Where only the first token is read, the last layer computes no other: it needs their keys and values alone.
        """
        bias = self._attended()
        hidden = self._embed(token_types)
        n_layers = int(self.config["num_hidden_layers"])
        for i in range(n_layers):
            is_last = i == n_layers - 1
            hidden = self._layer(hidden, bias, f"{self.prefix}encoder.layer.{i}", first_only=first_only and is_last)
        return hidden

    def _attended(self) -> Any:
        """What is added to attention's scores: 0 for what a token reads, much less than any score for the rest."""
        op = openvino_library().opset13
        far = op.multiply(op.subtract(op.convert(self.mask, "f32"), np.float32(1)), np.float32(-_FAR_BELOW))
        return op.unsqueeze(far, np.array([1, 2], dtype=np.int64))

    def _positioned(self, table: FloatArray) -> Any:
        """The rows of a table by the tokens' positions."""
        op = openvino_library().opset13
        length = op.gather(op.shape_of(self.ids), np.array([1], dtype=np.int64), np.int64(0))
        start, step = np.array([0], dtype=np.int64), np.array([1], dtype=np.int64)
        return op.slice(op.constant(table), start, length, step, start)

    def _embed(self, token_types: Any) -> Any:
        op = openvino_library().opset13
        axis = np.int64(0)
        base = f"{self.prefix}embeddings"
        # RoBERTa and its kin number positions from the one after the padding index.
        first = int(self.config.get("pad_token_id", 1)) + 1 if self.config["model_type"] != "bert" else 0
        positions = self.array(f"{base}.position_embeddings.weight")[first:]
        types = self.array(f"{base}.token_type_embeddings.weight")
        if token_types is None:
            positions = positions + types[0]
        positions = np.pad(positions, ((0, -len(positions) % LENGTH_STEP), (0, 0)))  # for padding, which is masked
        x = op.gather(self.weight(f"{base}.word_embeddings.weight"), self.ids, axis)
        x = op.add(x, self._positioned(positions))
        if token_types is not None:
            x = op.add(x, op.gather(op.constant(types), token_types, axis))
        return self.layer_norm(x, f"{base}.LayerNorm")

    def _layer(self, x: Any, bias: Any, name: str, *, first_only: bool) -> Any:
        op = openvino_library().opset13
        n_heads = int(self.config["num_attention_heads"])
        head_dim = int(self.config["hidden_size"]) // n_heads
        split = np.array([0, 0, n_heads, head_dim], dtype=np.int64)
        order = np.array([0, 2, 1, 3], dtype=np.int64)
        read = _first_tokens(x) if first_only else x
        rows = self.queries_keys_values(x, read, f"{name}.attention.self", head_dim**-0.5)
        query, key, value = (op.transpose(op.reshape(r, split, True), order) for r in rows)
        shares = op.softmax(op.add(op.matmul(query, key, False, True), bias), -1)
        joined = op.transpose(op.matmul(shares, value, False, False), order)
        joined = op.reshape(joined, np.array([0, 0, -1], dtype=np.int64), True)
        joined = self.linear(joined, f"{name}.attention.output.dense")
        read = self.layer_norm(op.add(read, joined), f"{name}.attention.output.LayerNorm")
        return self.layer_norm(op.add(read, self.feed_forward(read, name)), f"{name}.output.LayerNorm")


class PackedGraph(BertGraph):
    """Texts one behind the other in one row: tokens read those of their own text, so nothing is padded to the longest.

    Attributes:
        positions, texts: parameters, int64 (1, n): a token's position in its text, and the number of that text.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        op = openvino_library().opset13
        self.ids = op.parameter([1, -1], np.int64, "input_ids")
        self.positions = op.parameter([1, -1], np.int64, "position_ids")
        self.texts = op.parameter([1, -1], np.int64, "text_ids")

    def _attended(self) -> Any:
        op = openvino_library().opset13
        reading, read = (op.unsqueeze(self.texts, np.int64(axis)) for axis in (2, 1))
        far = op.multiply(op.convert(op.not_equal(reading, read), "f32"), np.float32(_FAR_BELOW))
        return op.unsqueeze(far, np.int64(1))

    def _positioned(self, table: FloatArray) -> Any:
        op = openvino_library().opset13
        return op.gather(op.constant(table), self.positions, np.int64(0))


def score_activation(config: Mapping[str, Any]) -> Callable[[FloatArray], FloatArray]:
    """What sentence-transformers applies to a cross-encoder's logit: what its configuration names, or a sigmoid.

    Raises:
        ModelError: the configuration names another function.
    """
    stated = (config.get("sentence_transformers") or {}).get("activation_fn")
    named = str(stated or config.get("sbert_ce_default_activation_function") or "torch.nn.modules.activation.Sigmoid")
    function = _SCORE_ACTIVATIONS.get(named.rpartition(".")[2])
    if function is None:
        raise ModelError(f"the cross-encoder's activation {named} is not known; Sigmoid and Identity are")
    return function


def _pooled(graph: BertGraph, hidden: Any, pooling: str) -> Any:
    """(n, hidden) of (n, length, hidden): the first token, or the mean over those that are not padding."""
    if pooling == "cls":
        return _first_token(hidden)
    op, tokens = openvino_library().opset13, np.array([1], dtype=np.int64)
    mask = op.unsqueeze(op.convert(graph.mask, "f32"), np.int64(2))
    return op.divide(op.reduce_sum(op.multiply(hidden, mask), tokens), op.reduce_sum(mask, tokens))


def _first_tokens(hidden: Any) -> Any:
    """(n, 1, hidden) of (n, length, hidden)."""
    op = openvino_library().opset13
    start, stop, step, axis = (np.array([i], dtype=np.int64) for i in (0, 1, 1, 1))
    return op.slice(hidden, start, stop, step, axis)


def _first_token(hidden: Any) -> Any:
    """(n, hidden) of (n, length, hidden)."""
    op = openvino_library().opset13
    return op.gather(hidden, np.int64(0), np.int64(1))


def _read_weights(folder: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    weights: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            weights.update(load_file(path))
        except (SafetensorError, TypeError, KeyError, ValueError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from error
    return weights
