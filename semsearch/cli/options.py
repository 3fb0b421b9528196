"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "DEFAULT_INDEX",
    "MODES",
    "PRECISIONS",
    "device_option",
    "diversity_options",
    "examples",
    "index_option",
    "json_option",
    "kind_options",
    "known_indexes",
    "model_option",
    "pattern_options",
    "precision_option",
    "rerank_options",
    "wait_option",
    "where_option",
]

DEFAULT_INDEX = "default"
MODES = ("hybrid", "dense", "lexical")
KINDS = ("auto", "flat", "hnsw", "ivf", "ivfpq")  # written out: `--help` loads no numpy
PRECISIONS = ("auto", "full", "f32", "bf16", "f16", "int8")

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number in a range; click itself lets through what is no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As of `click.FloatRange`."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def known_indexes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers after `--index`: names, or folders where a path was begun."""
    from click.shell_completion import CompletionItem

    from semsearch.store.files import find_indexes

    if "/" in incomplete or incomplete.startswith((".", "~")):
        return [CompletionItem(incomplete, type="dir")]
    return [CompletionItem(path.name) for path in find_indexes() if path.name.startswith(incomplete)]


index_option = click.option(
    "--index",
    "-i",
    default=DEFAULT_INDEX,
    show_default=True,
    metavar="NAME",
    shell_complete=known_indexes,
    help="Which index: a name (kept in ./indexes/NAME) or the path of an index folder.",
)
wait_option = click.option(
    "--wait",
    "wait_s",
    default=0.0,
    type=Number(0),
    metavar="SECONDS",
    help="How long to wait for another process that is writing to the index.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Where the model runs: auto, cpu, cuda (all GPUs), cuda:N (one), mps.",
)

where_option = click.option(
    "--where",
    metavar="FILTER",
    help='Only documents like this: \'lang = "en" and year >= 2020 and path ~ "guides/**"\'.',
)

model_option = click.option(
    "--model",
    metavar="NAME",
    show_default="the index's own, or all-MiniLM-L6-v2",
    help="Model for a new index: a hub name, NAME@REVISION, or a local folder.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default="the index's own, or int8 where it costs next to nothing, else full",
    help="How passages are encoded. full: the quickest without loss here; int8: CPU only, quickest; f16: GPU only.",
)


def pattern_options(command: F) -> F:
    """Add `--glob` and `--exclude`."""
    for option, name, what in (
        ("--exclude", "excludes", "Leave files like this out"),
        ("--glob", "globs", "Read only files like this"),
    ):
        text = f"{what}; remembered. Repeatable."
        command = click.option(option, name, metavar="PATTERN", multiple=True, help=text)(command)
    return command


def kind_options(command: F) -> F:
    """Add `--kind`, `--recall` and `--token-vectors/--no-token-vectors`."""
    command = click.option(
        "--token-vectors/--no-token-vectors",
        default=None,
        help="Keep vectors of the passages' tokens, 5 to 20 KB a passage, so that reranking need not read them again; "
        "remembered. [default: as last time, or not]",
    )(command)
    command = click.option(
        "--recall",
        type=Number(0, 1, min_open=True),
        metavar="SHARE",
        show_default="as last time, or 0.98",
        help="Share of the ten nearest passages that an approximate kind has to find; measured on a sample.",
    )(command)
    return click.option(
        "--kind",
        type=click.Choice(KINDS),
        show_default="as last time, or auto",
        help="How vectors are searched; remembered. flat: all are compared; auto: flat while that is quick.",
    )(command)


def rerank_options(command: F) -> F:
    """Add `--reranker`, `--rerank/--no-rerank`, `--rerank-depth` and `--budget-ms`."""
    command = click.option(
        "--budget-ms",
        default=200.0,
        type=Number(0, min_open=True),
        metavar="MS",
        help="Time the reranker may take: as many of the best passages are read again as fit into it.",
    )(command)
    command = click.option(
        "--rerank-depth", default=30, type=click.IntRange(1, 10_000), metavar="N", help="At most so many passages."
    )(command)
    command = click.option(
        "--rerank/--no-rerank",
        default=None,
        help="Let a reranker read the best passages again, or not. [default: on, but not in lexical mode]",
    )(command)
    return click.option(
        "--reranker",
        metavar="NAME",
        help="Another reranker: a hub name or a local folder. [default: the index's own model]",
    )(command)


def diversity_options(command: F) -> F:
    """Add `--fold/--no-fold` and `--mmr`."""
    command = click.option(
        "--mmr",
        type=Number(0, 1),
        metavar="LAMBDA",
        help="Prefer passages unlike those above them: 1 is by relevance alone, 0.7 a little, 0.3 much. [default: off]",
    )(command)
    return click.option(
        "--fold/--no-fold",
        default=True,
        help="Show passages that say the same once, with how often they occur elsewhere.",
    )(command)


def examples(*lines: str) -> str:
    """The end of a command's help: example lines, kept as they are."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
