"""What follows from what torch says of a machine: devices, precision, tokens a batch."""

from __future__ import annotations

import pytest

from semsearch.encoders.devices import (
    CPU_TOKENS,
    MAX_TOKENS,
    TOKENS_A_DEVICE,
    batch_tokens,
    bytes_per_token,
    choose_devices,
    choose_precision,
    find_budget,
    find_devices,
    find_precision,
    is_out_of_memory,
    n_devices_for,
    tokens_that_fit,
)
from semsearch.errors import InvalidInput

MINILM = {"hidden_size": 384, "intermediate_size": 1_536, "num_attention_heads": 12}


@pytest.mark.parametrize(
    ("device", "n_cuda", "has_mps", "chosen"),
    [
        ("auto", 0, False, ["cpu"]),
        ("auto", 0, True, ["mps"]),
        ("auto", 1, False, ["cuda:0"]),
        ("auto", 3, False, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda", 2, False, ["cuda:0", "cuda:1"]),
        ("cuda", 0, False, ["cuda"]),  # torch then says why there is none
        ("cuda:1", 4, False, ["cuda:1"]),
        ("cpu", 4, False, ["cpu"]),
        ("mps", 0, False, ["mps"]),
    ],
)
def test_devices_that_an_option_names(device: str, n_cuda: int, has_mps: bool, chosen: list[str]) -> None:
    assert choose_devices(device, n_cuda=n_cuda, has_mps=has_mps) == chosen


@pytest.mark.parametrize("device", ["warp", "", "cuda:", "cuda:x", "cuda:0,1", "CPU", "meta"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be used here: give auto, cpu, cuda, cuda:N or mps"):
        choose_devices(device, n_cuda=2, has_mps=True)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_devices_that_are_not_there_are_refused(device: str) -> None:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InvalidInput, match=rf"'{device}' cannot be used here \(.+\)\. Try --device auto"):
        find_devices(device)
    assert find_devices("auto") == find_devices("cpu") == ["cpu"]


@pytest.mark.parametrize(
    ("precision", "on_gpu", "has_bf16", "chosen"),
    [
        ("auto", True, True, "f16"),
        ("auto", True, False, "f16"),
        ("auto", False, True, "bf16"),
        ("auto", False, False, "f32"),
        ("f32", True, True, "f32"),
        ("bf16", True, True, "bf16"),
        ("f16", True, False, "f16"),
    ],
)
def test_precision_that_is_chosen(precision: str, on_gpu: bool, has_bf16: bool, chosen: str) -> None:
    assert choose_precision(precision, on_gpu=on_gpu, has_bf16=has_bf16) == chosen


@pytest.mark.parametrize(
    ("precision", "on_gpu", "said"),
    [
        ("f16", False, "'f16' is for GPUs"),
        ("bf16", True, "does not compute in bf16"),
        ("bf16", False, "does not compute in bf16"),
        ("int8", True, "'int8' is OpenVINO's"),
        ("fp4", True, "give one of auto, f32, bf16, f16, int8"),
    ],
)
def test_precisions_that_are_refused(precision: str, on_gpu: bool, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        choose_precision(precision, on_gpu=on_gpu, has_bf16=False)


def test_bf16_is_asked_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for said, chosen in (({"avx512_bf16": True}, "bf16"), ({"avx512_f": True, "avx512_bf16": False}, "f32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda said=said: said, raising=False)
        assert find_precision("auto", ["cpu"]) == chosen
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert find_precision("auto", ["cpu"]) == "f32"


def test_tokens_that_fit_into_memory() -> None:
    # (6 * 384 + 2 * 1536 + 12 * 256) values of 2 bytes
    assert bytes_per_token(MINILM, 256, 2) == 8_448 * 2
    assert bytes_per_token({}, 512, 4) > bytes_per_token(MINILM, 512, 4)
    assert tokens_that_fit(2 * 1_000 * 16_896, 16_896) == 1_000
    assert tokens_that_fit(80 * 2**30, 16_896) == MAX_TOKENS
    assert tokens_that_fit(0, 16_896) == tokens_that_fit(-5, 16_896) == 1
    assert find_budget("cpu", 16_896) == CPU_TOKENS


def test_work_is_divided_where_it_is_worth_it() -> None:
    assert [n_devices_for(n, 4) for n in (0, 1, TOKENS_A_DEVICE, 2 * TOKENS_A_DEVICE, 10**9)] == [1, 1, 1, 2, 4]
    assert batch_tokens(10**6, [5_000]) == 5_000
    assert batch_tokens(10**6, [5_000, 3_000]) == 3_000  # fits both
    assert batch_tokens(3_001, [5_000, 5_000]) == 1_501  # each has one to do


def test_what_out_of_memory_looks_like() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA: no luck"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
