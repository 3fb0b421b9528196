"""The parts of the GPU path that run without one: copies of a real model, precisions, running out of memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch.encoders import devices, load_embedder, torch_runtime
from semsearch.encoders.models import find_model
from semsearch.encoders.openvino_runtime import OpenVinoEmbedder
from semsearch.encoders.torch_runtime import Replica, Tokens, TorchEmbedder, TorchReranker, run_batches
from semsearch.errors import ModelError
from tests.checkpoints import write_bi_encoder, write_cross_encoder

TEXTS = [f"{'stone ' * (i * 7 % 31)}river {i}" for i in range(120)]
Forward = Callable[[dict[str, Any]], Any]


def write_projected(folder: Path) -> Path:
    """A bi-encoder with a Dense and a Normalize module after its pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    model = SentenceTransformer(str(write_bi_encoder(folder.with_name("base"))), device="cpu")
    torch.manual_seed(3)
    SentenceTransformer(modules=[*model, Dense(32, 8), Normalize()], device="cpu").save(str(folder))
    return folder


def test_dense_and_normalize_modules_apply_in_each_precision(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(write_projected(tmp_path / "m"))
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS, normalize_embeddings=True)
    exact = TorchEmbedder(find_model(folder), device="cpu", precision="f32")
    assert exact.dim == 8 and np.allclose(exact.embed_documents(TEXTS), expected, atol=2e-5)
    rough = TorchEmbedder(find_model(folder), device="cpu", precision=devices.find_precision("auto", ["cpu"]))
    assert (rough.embed_documents(TEXTS) * expected).sum(axis=1).mean() > 0.99  # random weights are unkind to bf16


def test_prompts_that_are_left_out_of_the_pooling(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_bi_encoder(tmp_path / "m", prompts={"query": "query: ", "passage": "the river: "})
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    ours = load_embedder(str(folder), device="cpu", precision="f32")
    assert isinstance(ours, TorchEmbedder)  # the OpenVINO graph pools all tokens
    theirs = SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(TEXTS, prompt="the river: ", normalize_embeddings=True)
    assert np.allclose(ours.embed_documents(TEXTS), expected, atol=2e-5)
    plain = theirs.encode(["the river: " + t for t in TEXTS], normalize_embeddings=True)
    assert not np.allclose(plain, expected, atol=1e-2)


def test_bf16_vectors_are_unit_rows_near_those_of_f32(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)  # or emulated
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    texts = [readme[i : i + 400] for i in range(0, 4_000, 400)]
    exact, rough = (TorchEmbedder(find_model(), device="cpu", precision=p) for p in ("f32", "auto"))
    a, b = exact.embed_documents(texts), rough.embed_documents(texts)
    assert b.dtype == np.float32 and np.allclose(np.linalg.norm(b, axis=1), 1, atol=1e-6)
    assert (a * b).sum(axis=1).mean() >= 0.9999 and not np.array_equal(a, b)
    assert (rough.description["precision"], exact.description["precision"]) == ("bf16", "f32")
    assert rough.fingerprint == exact.fingerprint


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_are_held_in_the_precision_asked_for(tmp_path: Path, dtype: str) -> None:
    """Also where the checkpoint holds them in another, and with the quick attention."""
    import torch
    from sentence_transformers import SentenceTransformer

    folder = write_bi_encoder(tmp_path / "m")
    SentenceTransformer(str(folder), device="cpu").to(dtype=torch.float16).save(str(tmp_path / "half"))
    model = torch_runtime._loaded(
        SentenceTransformer, find_model(str(tmp_path / "half")), "cpu", getattr(torch, dtype), "bi-encoder"
    )
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)} and not model.training
    assert model[0].model.config._attn_implementation == "sdpa"


def test_constructing_reads_no_weights(tmp_path: Path) -> None:
    bi, cross = write_bi_encoder(tmp_path / "b"), write_cross_encoder(tmp_path / "c")
    embedder, reranker = TorchEmbedder(find_model(str(bi))), TorchReranker(find_model(str(cross)))
    for folder in (bi, cross):
        (folder / "model.safetensors").write_bytes(b"gone")
    assert embedder.max_tokens == 62 and embedder.description["precision"]
    with pytest.raises(ModelError, match="as a bi-encoder"):
        embedder.embed_queries(["x"])
    with pytest.raises(ModelError, match="as a cross-encoder"):
        reranker.score("x", ["y"])


def test_two_replicas_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = find_model(str(write_bi_encoder(tmp_path / "m")))
    expected = TorchEmbedder(files, device="cpu", precision="f32").embed_documents(TEXTS)
    monkeypatch.setattr(devices, "TOKENS_A_DEVICE", 500)
    monkeypatch.setattr(devices, "CPU_TOKENS", 256)
    monkeypatch.setattr(devices, "find_devices", lambda device: ["cpu", "cpu"])
    embedder = TorchEmbedder(files, precision="f32")
    embedder.embed_queries(["one query"])
    assert embedder.n_devices == 2 and len(embedder._copies._replicas) == 1  # a query wakes one device only
    both, ran_on = threading.Barrier(2, timeout=60), set()
    real = Replica.run

    def run(self: Replica, tokens: Tokens, positions: Any) -> Any:
        if id(self) not in ran_on:
            ran_on.add(id(self))
            both.wait()  # passes only when two replicas work at the same time
        return real(self, tokens, positions)

    monkeypatch.setattr(Replica, "run", run)
    assert np.allclose(embedder.embed_documents(TEXTS), expected, atol=2e-6)
    assert len(ran_on) == len(embedder._copies._replicas) == 2


def test_a_replica_that_fails_ends_the_work_of_all() -> None:
    import torch

    n_done = 0

    def broken(features: dict[str, Any]) -> Any:
        raise RuntimeError("device-side assert")

    def sound(features: dict[str, Any]) -> Any:
        nonlocal n_done
        n_done += 1
        return torch.zeros(len(features["input_ids"]), 2)

    tokens = Tokens([[1] * 10] * 5_000)
    with pytest.raises(ModelError, match="m cannot be run on cpu: device-side assert"):
        run_batches([Replica("m", "cpu", 10, broken), Replica("m", "cpu", 10, sound)], tokens)
    assert n_done < 5_000


def limited(forward: Forward, limit: int, error: type[RuntimeError], seen: list[int]) -> Forward:
    """A model on a device whose memory holds so many tokens."""

    def run(features: dict[str, Any]) -> Any:
        seen.append(features["input_ids"].numel())
        if seen[-1] > limit:
            raise error("MPS backend out of memory")
        return forward(features)

    return run


@pytest.mark.parametrize("metal", [False, True])
def test_out_of_memory_halves_the_budget_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metal: bool) -> None:
    import torch

    kind = RuntimeError if metal else torch.OutOfMemoryError
    files = find_model(str(write_bi_encoder(tmp_path / "m")))
    embedder = TorchEmbedder(files, device="cpu", precision="f32")
    expected = embedder.embed_documents(TEXTS)
    replica, seen, emptied = embedder._copies._replicas[0], [], []
    monkeypatch.setattr(replica, "_forward", limited(replica._forward, 300, kind, seen))
    monkeypatch.setattr(devices, "empty_cache", emptied.append)
    assert np.allclose(embedder.embed_documents(TEXTS), expected, atol=2e-6)
    assert max(seen) > 300 and 150 <= replica.budget <= 300
    assert emptied == ["cpu"] * sum(n > 300 for n in seen)
    seen.clear()
    assert np.allclose(embedder.embed_documents(TEXTS), expected, atol=2e-6)
    assert max(seen) <= 300  # the device is not tried again with what it could not hold


def test_a_reranker_that_is_out_of_memory_splits_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    reranker = TorchReranker(find_model(str(write_cross_encoder(tmp_path / "c"))), device="cpu", precision="f32")
    expected = reranker.score("river?", TEXTS)
    replica, seen = reranker._copies._replicas[0], []
    monkeypatch.setattr(replica, "_forward", limited(replica._forward, 300, torch.OutOfMemoryError, seen))
    assert np.allclose(reranker.score("river?", TEXTS), expected, atol=2e-6) and max(seen) > 300


def test_a_text_that_does_not_fit_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    embedder = TorchEmbedder(find_model(str(write_bi_encoder(tmp_path / "m"))), device="cpu")
    embedder.embed_queries(["x"])
    replica = embedder._copies._replicas[0]
    monkeypatch.setattr(replica, "_forward", limited(replica._forward, 20, torch.OutOfMemoryError, []))
    with pytest.raises(ModelError, match=r"a text of 64 tokens does not fit into the memory of cpu.*--device cpu"):
        embedder.embed_documents(["stone " * 100, "river"])


def test_values_beyond_the_precision_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = TorchEmbedder(find_model(str(write_bi_encoder(tmp_path / "m"))), device="cpu", precision="f32")
    embedder.embed_queries(["x"])
    replica = embedder._copies._replicas[0]
    real = replica._forward
    monkeypatch.setattr(replica, "_forward", lambda features: real(features) * float("inf"))
    with pytest.raises(ModelError, match="beyond the range of f32"):
        embedder.embed_queries(["x"])


def test_a_gpu_machine_takes_torch_but_for_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.encoders._has_accelerator", lambda: True)
    assert isinstance(load_embedder(), TorchEmbedder)
    assert isinstance(load_embedder(precision="int8"), OpenVinoEmbedder)
    assert isinstance(load_embedder(device="cpu"), OpenVinoEmbedder)
