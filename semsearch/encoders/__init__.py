"""Texts to unit vectors, and pairs of query and passage to scores."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path

from semsearch.encoders.models import DEFAULT_MODEL, ModelFiles, find_model
from semsearch.encoders.reranker_settings import read_settings
from semsearch.encoders.tokenized import comparable
from semsearch.errors import ModelError
from semsearch.types import Embedder, Reranker

__all__ = ["DEFAULT_MODEL", "comparable", "load_embedder", "load_reranker"]


def load_embedder(model: str = DEFAULT_MODEL, *, device: str = "auto", precision: str = "auto") -> Embedder:
    """Load a bi-encoder in the fastest runtime for this machine: OpenVINO on a CPU, torch elsewhere or without it.

    Its weights are read with the first text that is encoded.

    Args:
        model: a hub name, `name@revision`, or a local folder.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. `auto` takes GPUs before the CPU; `auto` and `cuda` encode
            documents on all CUDA GPUs there are, `cuda:N` on one.
        precision: `full` for the quickest at full quality (f16 on a GPU; on a CPU bf16 where the processor has the
            instructions, else f32); `auto` for int8 on a CPU where that was shown to cost next to nothing for this
            model, else as `full`; or `f32`, `bf16`, `f16` (GPUs only), `int8` (OpenVINO on a CPU, documents only).

    Returns:
        An encoder with `embed_documents(texts)` and `embed_queries(texts)`, both float32 (n, dim) unit rows.

    Raises:
        ModelError: the model cannot be found, verified or run.
        InvalidInput: the device or the precision is unknown or missing.
    """
    files = find_model(model)
    if _runs_on_openvino(files, device, precision):
        from semsearch.encoders.openvino_runtime import OpenVinoEmbedder

        return OpenVinoEmbedder(files, precision=precision)
    from semsearch.encoders.torch_runtime import TorchEmbedder

    return TorchEmbedder(files, device=device, precision=precision)


def load_reranker(model: str, *, device: str = "auto", precision: str = "auto") -> Reranker:
    """Load a reranker: a cross-encoder, which runs on one device, or a bi-encoder trained for late interaction.

    Arguments and errors as for `load_embedder`.
    """
    try:
        files = find_model(model)
    except ModelError as error:
        if Path(model).expanduser().is_dir():
            raise
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")  # what to do about it is said below
        raise ModelError(
            f"the cross-encoder {model} cannot be loaded: {reason}. Give a folder that holds one (semsearch train "
            "reranker makes one), or the whole hub name of one that was fetched before; without any, the index's own "
            "model reranks"
        ) from error
    settings = read_settings(files.path)
    if settings.late_interaction:
        from semsearch.encoders.late_interaction import LateInteraction

        embedder = load_embedder(model, device=device, precision=precision)
        return LateInteraction.of(embedder, first_stage_weight=settings.first_stage_weight)
    if _runs_on_openvino(files, device, precision):
        from semsearch.encoders.openvino_runtime import OpenVinoReranker

        return OpenVinoReranker(files, precision=precision)
    from semsearch.encoders.torch_runtime import TorchReranker

    return TorchReranker(files, device=device, precision=precision)


def _runs_on_openvino(files: ModelFiles, device: str, precision: str) -> bool:
    """Whether this model is to run on the CPU, as int8 does, and OpenVINO is there and knows its architecture."""
    if find_spec("openvino") is None or device not in {"auto", "cpu"}:
        return False
    from semsearch.encoders.bert_graph import supports

    if not supports(files.path, files.pooling):
        return False
    return device == "cpu" or precision == "int8" or not _has_accelerator()


def _has_accelerator() -> bool:
    """Whether torch has a GPU to use; asked of torch, which takes seconds, only where a driver or Apple's chip is."""
    drivers = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("C:/Windows/System32/nvcuda.dll"))
    if not any(driver.exists() for driver in drivers) and (platform.system(), platform.machine()) != (
        "Darwin",
        "arm64",
    ):
        return False
    from semsearch.encoders.devices import find_devices

    return find_devices("auto") != ["cpu"]
