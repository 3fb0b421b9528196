"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "DEFAULT_INDEX",
    "MODES",
    "PRECISIONS",
    "device_option",
    "examples",
    "index_option",
    "json_option",
    "precision_option",
    "rerank_options",
]

DEFAULT_INDEX = "default"
MODES = ("hybrid", "dense", "lexical")
PRECISIONS = ("auto", "full", "f32", "bf16", "f16", "int8")

F = TypeVar("F", bound=Callable[..., Any])

index_option = click.option(
    "--index",
    "-i",
    default=DEFAULT_INDEX,
    show_default=True,
    metavar="NAME",
    help="Which index: a name (kept in ./indexes/NAME) or the path of an index folder.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Where the model runs: auto, cpu, cuda (all GPUs), cuda:N (one), mps.",
)


precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default="the index's own, or int8 where it costs next to nothing, else full",
    help="How passages are encoded. full: the quickest without loss here; int8: CPU only, quickest; f16: GPU only.",
)


def rerank_options(command: F) -> F:
    """Add `--reranker` and `--rerank/--no-rerank`."""
    command = click.option(
        "--rerank/--no-rerank",
        default=None,
        help="Let the reranker read the best passages again, or not. [default: on when --reranker is given]",
    )(command)
    return click.option(
        "--reranker",
        metavar="NAME",
        help="Cross-encoder that rescores the best passages: a hub name or a local folder. Slower, often better.",
    )(command)


def examples(*lines: str) -> str:
    """The end of a command's help: example lines, kept as they are."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
