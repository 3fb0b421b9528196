"""Which devices a model runs on under torch, in which precision, and how many tokens each takes at once.

What torch says of the machine is asked in one place a question; what follows from the answers is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from semsearch.errors import InvalidInput

__all__ = [
    "PRECISIONS",
    "batch_tokens",
    "bytes_per_token",
    "choose_devices",
    "choose_precision",
    "empty_cache",
    "find_devices",
    "find_precision",
    "is_out_of_memory",
    "n_devices_for",
    "tokens_that_fit",
]

PRECISIONS = ("f32", "bf16", "f16")
CPU_TOKENS = 2_048  # with padding; larger batches leave the processor's caches
MAX_TOKENS = 131_072  # with padding; a GPU is busy long before, and a failed batch costs more the larger it is
MEMORY_SHARE = 0.5  # of what is free; the rest is for other processes and for what the estimate leaves out
TOKENS_A_DEVICE = 8_192  # fewer do not keep one GPU busy, so they are not worth another copy of the model
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # as torch.cpu.get_capabilities names them


def choose_devices(device: str, *, n_cuda: int, has_mps: bool) -> list[str]:
    """The devices that an option names: `auto` and `cuda` are all CUDA GPUs, everything else is one device.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        n_cuda: CUDA GPUs that torch can use.
        has_mps: whether torch can use Apple's GPU.

    Returns:
        Names as torch takes them, the first for what needs one only; whether a named one is there is not looked at.

    Raises:
        InvalidInput: another name.
    """
    if device != "auto" and not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise InvalidInput(f"the device {device!r} cannot be used here: give auto, cpu, cuda, cuda:N or mps")
    if n_cuda and device in {"auto", "cuda"}:
        return [f"cuda:{i}" for i in range(n_cuda)]
    if device == "auto":
        return ["mps"] if has_mps else ["cpu"]
    return [device]


def find_devices(device: str) -> list[str]:
    """The devices of this machine that an option names, as for `choose_devices`.

    Raises:
        InvalidInput: an unknown device, or one that this machine or this torch does not have.
    """
    import torch

    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = choose_devices(device, n_cuda=n_cuda, has_mps=torch.backends.mps.is_available())
    try:
        torch.empty(0, device=devices[0])
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInput(
            f"the device {device!r} cannot be used here ({str(error).splitlines()[0]}). "
            "Try --device auto or --device cpu"
        ) from error
    return devices


def choose_precision(precision: str, *, on_gpu: bool, has_bf16: bool) -> str:
    """Turn `auto` and `full` into the quickest precision at full quality, and check another.

    On a GPU that is f16, which is nearer to f32 than bf16 and which every GPU computes in; on a CPU bf16 where it has
    the instructions, else f32.

    Raises:
        InvalidInput: an unknown precision, or one that the device lacks.
    """
    if precision in {"auto", "full"}:
        return "f16" if on_gpu else "bf16" if has_bf16 else "f32"
    if precision == "int8":
        raise InvalidInput(
            "precision 'int8' is OpenVINO's, and this model or device runs on torch; leave --precision out"
        )
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision {precision!r}: give one of auto, {', '.join(PRECISIONS)}, int8")
    if precision == "f16" and not on_gpu:
        raise InvalidInput("precision 'f16' is for GPUs; on a CPU use --precision auto, f32 or bf16")
    if precision == "bf16" and not has_bf16:
        raise InvalidInput("this device does not compute in bf16; use --precision auto or f32")
    return precision


def find_precision(precision: str, devices: Sequence[str]) -> str:
    """The precision for all of these devices, as for `choose_precision`."""
    on_gpu = devices[0] != "cpu"
    is_asked = precision == "bf16" or not on_gpu  # asking a GPU starts CUDA on it
    has_bf16 = is_asked and all(_computes_in_bf16(device) for device in devices)
    return choose_precision(precision, on_gpu=on_gpu, has_bf16=has_bf16)


def bytes_per_token(config: Mapping[str, Any], max_tokens: int, value_bytes: int) -> int:
    """Memory that a token takes while a layer runs: hidden states, the feed-forward part, and a row of attention.

    Estimated as (6 hidden + 2 intermediate + heads * longest text) values; frugal attention needs no such row, but not
    every device has it. A configuration that names its sizes otherwise is taken for a large model's.

    Args:
        config: the checkpoint's `config.json`.
        max_tokens: longest text, in tokens.
        value_bytes: of one value, 4 in f32.
    """
    hidden = int(config.get("hidden_size", 1_024))
    intermediate = int(config.get("intermediate_size", 4 * hidden))
    n_heads = int(config.get("num_attention_heads", 16))
    return (6 * hidden + 2 * intermediate + n_heads * max_tokens) * value_bytes


def tokens_that_fit(free_bytes: int, token_bytes: int) -> int:
    """Tokens of a batch, padding included, for a device with so much free memory."""
    return max(1, min(int(free_bytes * MEMORY_SHARE / token_bytes), MAX_TOKENS))


def find_budget(device: str, token_bytes: int) -> int:
    """Tokens that a device takes at once, from what it has free now."""
    import torch

    if device == "cpu":
        return CPU_TOKENS
    if device == "mps":
        return tokens_that_fit(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), token_bytes)
    return tokens_that_fit(torch.cuda.mem_get_info(device)[0], token_bytes)


def n_devices_for(n_tokens: int, n_devices: int) -> int:
    """Devices that so many tokens keep busy: at least one, so a query runs on the first and wakes no other."""
    return min(n_devices, max(1, n_tokens // TOKENS_A_DEVICE))


def batch_tokens(n_tokens: int, budgets: Sequence[int]) -> int:
    """Tokens of a batch that fits all devices and leaves none of them without work."""
    return min(*budgets, -(-n_tokens // len(budgets))) if len(budgets) > 1 else budgets[0]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so of a GPU: an error of its own with CUDA, or in words (Metal, cuBLAS)."""
    import torch

    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in said or "alloc_failed" in said


def empty_cache(device: str) -> None:
    """Give memory that torch keeps for later back to the device."""
    import torch

    if device == "mps":
        torch.mps.empty_cache()
    elif device != "cpu":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def _computes_in_bf16(device: str) -> bool:
    import torch

    if device == "cpu":  # a torch without this function is too old to say, and f32 is right everywhere
        said: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(said.get(name) for name in _BF16_INSTRUCTIONS)
    if device == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
