"""Texts to unit vectors, and pairs of query and passage to scores."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path

from semsearch.encoders.models import DEFAULT_MODEL, ModelFiles, find_model
from semsearch.encoders.tokenized import comparable
from semsearch.errors import InvalidInput
from semsearch.types import Embedder, Reranker

__all__ = ["DEFAULT_MODEL", "comparable", "load_embedder", "load_reranker"]


def load_embedder(model: str = DEFAULT_MODEL, *, device: str = "auto", precision: str = "auto") -> Embedder:
    """Load a bi-encoder in the fastest runtime for this machine: OpenVINO on a CPU, torch elsewhere or without it.

    Its weights are read with the first text that is encoded.

    Args:
        model: a hub name, `name@revision`, or a local folder.
        device: `auto`, or a device as torch names it: `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto` for full quality (bf16 where the processor computes in it, else f32), `f32`, `bf16` or `int8`;
            all but `auto` and `f32` need OpenVINO.

    Returns:
        An encoder with `embed_documents(texts)` and `embed_queries(texts)`, both float32 (n, dim) unit rows.

    Raises:
        ModelError: the model cannot be found, verified or run.
        InvalidInput: the device or the precision is unknown or missing.
    """
    files = find_model(model)
    if _runs_on_openvino(files, device):
        from semsearch.encoders.openvino_runtime import OpenVinoEmbedder

        return OpenVinoEmbedder(files, precision=precision)
    _refuse_precision(precision)
    from semsearch.encoders.torch_runtime import TorchEmbedder

    return TorchEmbedder(files, device=device)


def load_reranker(model: str, *, device: str = "auto", precision: str = "auto") -> Reranker:
    """Load a cross-encoder; arguments and errors as for `load_embedder`."""
    files = find_model(model)
    if _runs_on_openvino(files, device):
        from semsearch.encoders.openvino_runtime import OpenVinoReranker

        return OpenVinoReranker(files, precision=precision)
    _refuse_precision(precision)
    from semsearch.encoders.torch_runtime import TorchReranker

    return TorchReranker(files, device=device)


def _runs_on_openvino(files: ModelFiles, device: str) -> bool:
    """Whether this model is to run on the CPU, and OpenVINO is there and knows its architecture."""
    if find_spec("openvino") is None or device not in {"auto", "cpu"}:
        return False
    from semsearch.encoders.bert_graph import supports

    return supports(files.path, files.pooling) and not (device == "auto" and _has_accelerator())


def _has_accelerator() -> bool:
    """Whether torch has a GPU to use; asked of torch, which takes seconds, only where a driver or Apple's chip is."""
    drivers = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("C:/Windows/System32/nvcuda.dll"))
    if not any(driver.exists() for driver in drivers) and (platform.system(), platform.machine()) != (
        "Darwin",
        "arm64",
    ):
        return False
    from semsearch.encoders.torch_runtime import resolve_device

    return resolve_device("auto") != "cpu"


def _refuse_precision(precision: str) -> None:
    if precision not in {"auto", "full", "f32"}:
        raise InvalidInput(
            f"precision {precision!r} is OpenVINO's, and this model or device runs on torch; leave --precision out"
        )
