"""Encoding passages in 8 bits: near full precision, by fixed ranges where they hold, token by token where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, load_embedder
from semsearch.encoders import openvino_runtime, quantization
from semsearch.encoders.bert_graph import BertGraph, build_bi_encoder, build_cross_encoder
from semsearch.encoders.models import find_model
from semsearch.encoders.openvino_runtime import OpenVinoEmbedder, OpenVinoReranker, choose_precision
from semsearch.encoders.sample_texts import CHECKING_TEXTS, MEASURING_TEXTS
from semsearch.errors import IndexIncompatible
from semsearch.types import FloatArray
from tests.checkpoints import write_bi_encoder, write_cross_encoder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PAIRS = ["a river and a stone", "cloud", "the stone, the river, the cloud " * 5]


class Rounding:
    """MiniLM, the ranges of its matrices' inputs, and what rounding by them costs."""

    def __init__(self) -> None:
        embedder = OpenVinoEmbedder(find_model(MINILM))
        measuring, checking = (
            [np.array(row, dtype=np.int64) for row in embedder._token_ids(texts, "")]
            for texts in (MEASURING_TEXTS, CHECKING_TEXTS)
        )
        self.folder = find_model(MINILM).path
        self.checking = checking[::2]
        self.ranges = quantization._Recorder(self.folder).measure(measuring)
        self.exact = build_bi_encoder(BertGraph(self.folder), "mean")

    def loss(self) -> float:
        """One less the mean cosine to full precision."""
        rounded = build_bi_encoder(quantization._FixedInt8(self.folder, self.ranges), "mean")
        return 1 - float(quantization.cosines(self.exact, rounded, self.checking).mean())


@pytest.fixture(scope="module")
def rounding() -> Rounding:
    return Rounding()


def test_each_measure_against_loss_pays(rounding: Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = rounding.loss()
    assert 1e-5 < loss < 0.0025
    for what, value, times in (("OUTLIER_RATIO", 1e9, 1.5), ("SMOOTHING", 0.0, 2), ("LEVELS", 31, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(quantization, what, value)
            assert rounding.loss() > times * loss, what


def test_the_middle_of_the_range_and_what_the_mean_loses_pay(
    rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, grid = rounding.loss(), quantization._Grid.of

    def about_the_mean(measured: quantization.InputRange, rows: FloatArray, smoothing: float) -> quantization._Grid:
        spread = np.maximum(measured.high - measured.mean, measured.mean - measured.low)
        return grid(replace(measured, low=measured.mean - spread, high=measured.mean + spread), rows, smoothing)

    def not_made_good(measured: quantization.InputRange, rows: FloatArray, smoothing: float) -> quantization._Grid:
        found = grid(measured, rows, smoothing)
        return replace(found, mean_step=np.zeros_like(found.mean_step))

    for other in (about_the_mean, not_made_good):
        monkeypatch.setattr(quantization._Grid, "of", staticmethod(other))
        assert rounding.loss() > 1.1 * loss, other.__name__


def test_what_is_computed_of_one_token_is_not_rounded(tmp_path: Path) -> None:
    folder = find_model(str(write_cross_encoder(tmp_path / "c"))).path
    texts = [np.array([2, 5, 6, 3], dtype=np.int64)]
    ranges = quantization._Recorder(folder).measure(texts, [np.zeros(4, dtype=np.int64)])
    graph = quantization._FixedInt8(folder, ranges)
    n_layers = graph.config["num_hidden_layers"]
    every = build_bi_encoder(quantization._FixedInt8(folder, ranges), "mean")
    assert n_rounded(every) == 4 * n_layers
    assert n_rounded(build_cross_encoder(graph)) == 4 * n_layers - 3  # keys and values of the last layer are


def n_rounded(model: Any) -> int:
    return [operation.get_type_name() for operation in model.get_ops()].count("FakeQuantize")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("min_cosine", [-1.0, 1.1])
def test_a_model_that_loses_too_much_is_rounded_token_by_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, min_cosine: float
) -> None:
    monkeypatch.setattr(quantization, "MIN_COSINE", min_cosine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = find_model(str(write_bi_encoder(tmp_path / "m", pooling=pooling)))
    rounded, exact = OpenVinoEmbedder(files, precision="int8"), OpenVinoEmbedder(files, precision="f32")
    texts = [f"{'stone ' * (i % 17)}river {i}" for i in range(100)]
    cosines = (rounded.embed_documents(texts) * exact.embed_documents(texts)).sum(axis=1)
    assert 0.97 < cosines.mean() < 1 - 1e-7
    kept = next((tmp_path / "cache").rglob("*int8*/model.xml")).read_text()
    assert ("FakeQuantize" in kept) == (min_cosine < 0)
    full = OpenVinoEmbedder(files, precision="full")
    assert np.array_equal(rounded.embed_queries(texts[:3]), full.embed_queries(texts[:3]))  # queries are not rounded


def test_a_cross_encoder_in_int8_scores_alike(tmp_path: Path) -> None:
    files = find_model(str(write_cross_encoder(tmp_path / "c")))
    exact = OpenVinoReranker(files, precision="f32").score("river", PAIRS)
    rounded = OpenVinoReranker(files, precision="int8").score("river", PAIRS)
    assert np.allclose(exact, rounded, atol=0.05) and not np.allclose(exact, rounded, atol=1e-6)


def test_auto_is_int8_only_where_it_was_evaluated_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_model(MINILM).weights_sha256
    full = choose_precision("full")
    assert full in {"bf16", "f32"}
    monkeypatch.setattr(openvino_runtime, "computes_in_int8", lambda: True)
    assert [choose_precision("auto", weights_sha256=sha) for sha in (known, "0" * 64, "")] == ["int8", full, full]
    assert all(loss <= 0.3 for loss in openvino_runtime.INT8_LOSS.values())
    monkeypatch.setattr(openvino_runtime, "computes_in_int8", lambda: False)
    assert choose_precision("auto", weights_sha256=known) == full


def test_an_index_keeps_its_precision_and_answers_queries_of_any() -> None:
    passages = [Document("stash", "Put uncommitted work away for later."), Document("bread", "Knead the dough.")]
    exact = load_embedder(precision="f32")
    for precision, other in (("int8", "f32"), ("f32", "int8")):
        build_index(passages, index=precision, precision=precision)
        assert build_index([Document("more", f"{precision} text")], index=precision).chunks.encoded == 1
        with pytest.raises(IndexIncompatible, match=f"in {precision} .* in {other}.*--rebuild .*--precision {other} "):
            build_index([Document("x", "y")], index=precision, precision=other)
        scores = []
        for embedder in (None, exact, load_embedder(precision="int8")):
            with Searcher.open(precision, embedder=embedder) as searcher:
                hits = searcher.search("save my changes", k=1, mode="dense")
            assert hits[0].document.id == "stash"
            scores.append(hits[0].scores.dense)
        assert scores == pytest.approx([scores[0]] * 3, abs=2e-3)


def test_an_int8_index_without_openvino_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    build_index([Document("bread", "Knead the dough.")], precision="int8")
    monkeypatch.setattr("semsearch.encoders.find_spec", lambda name: None)
    with pytest.raises(IndexIncompatible, match=r"needs OpenVINO on a CPU.*--rebuild --precision full"):
        build_index([Document("more", "More of it.")])
    with Searcher.open() as searcher:  # but it can be asked
        assert searcher.search("baking", k=1, mode="dense")[0].document.id == "bread"


def test_the_last_layer_computes_no_token_that_is_not_read(tmp_path: Path) -> None:
    """CLS pooling reads one token: the shapes of the last layer show it; its vectors are compared elsewhere."""
    graph = BertGraph(find_model(str(write_bi_encoder(tmp_path / "m", pooling="cls"))).path)
    assert graph.encode(first_only=True).get_output_partial_shape(0)[1].max_length == 1
    assert BertGraph(graph.folder).encode().get_output_partial_shape(0)[1].is_dynamic


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_full_precision_of_this_machine_is_near_f32(tmp_path: Path, pooling: str) -> None:
    if choose_precision("full") == "f32":
        pytest.skip("full precision is f32 on this processor")
    files = find_model(MINILM if pooling == "mean" else str(write_bi_encoder(tmp_path / "m", pooling=pooling)))
    full, exact = (OpenVinoEmbedder(files, precision=p).embed_documents(CHECKING_TEXTS) for p in ("full", "f32"))
    least = 0.9999 if pooling == "mean" else 0.999  # random weights spread an error further than trained ones do
    assert (full * exact).sum(axis=1).mean() > least
