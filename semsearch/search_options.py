"""What a search can be told, the defaults, and which values make sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from semsearch.errors import InvalidInput

__all__ = [
    "BUDGET_MS",
    "MAX_K",
    "MAX_QUERY_CHARS",
    "MMR_DEPTH",
    "MODES",
    "PER_DOCUMENT",
    "RERANK_DEPTH",
    "Asked",
    "RankingOptions",
    "SearchOptions",
    "check_counts",
]

MODES = ("hybrid", "dense", "lexical")
MAX_K = 10_000
MAX_QUERY_CHARS = 100_000  # some 25,000 tokens, which are encoded in pieces, in a second or two
PER_DOCUMENT = 3  # hits of one document that stand before those of others, unless asked otherwise
RERANK_DEPTH = 30  # passages that a reranker reads, at most
BUDGET_MS = 200.0  # that it may take for them
MMR_DEPTH = 50  # hits that `mmr` picks from, at least; with a reranker, those it has read


class RankingOptions(TypedDict, total=False):
    """Those options of `Searcher.search` that decide how passages are scored; it says what they mean."""

    mode: str
    rerank: bool | None
    rerank_depth: int
    budget_ms: float


class SearchOptions(RankingOptions, total=False):
    """All options of `Searcher.search`."""

    k: int
    per_document: int | None
    context: int
    min_probability: float
    fold: bool
    mmr: float | None
    where: str | Mapping[str, Any] | None


def check_counts(**counts: int | None) -> None:
    """Raise InvalidInput where one of the counts, by name, is not a whole number in its range."""
    for name, value in counts.items():
        if value is None and name == "per_document":
            continue
        if not isinstance(value, int):
            raise InvalidInput(f"{name} = {value!r}: give a whole number")
        low = 1 if name in ("k", "rerank_depth") else 0
        if value < low or (low and value > MAX_K):
            raise InvalidInput(f"{name} = {value}: give a number from {low}" + (f" to {MAX_K}" if low else ""))


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of one search; `Searcher.search` says what they mean.

    Raises:
        InvalidInput: one is out of range.
    """

    k: int = 10
    mode: str = "hybrid"
    rerank: bool | None = None
    rerank_depth: int = RERANK_DEPTH
    budget_ms: float = BUDGET_MS
    per_document: int | None = None
    context: int = 0
    min_probability: float = 0.0
    fold: bool = True
    mmr: float | None = None
    where: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_counts(k=self.k, rerank_depth=self.rerank_depth, per_document=self.per_document, context=self.context)
        _check_numbers(budget_ms=self.budget_ms, min_probability=self.min_probability, mmr=self.mmr)
        if self.mode not in MODES:
            raise InvalidInput(f"mode = {self.mode!r}: give one of {', '.join(MODES)}")


def _check_numbers(*, budget_ms: float, min_probability: float, mmr: float | None) -> None:
    """Raise InvalidInput where one is not a number in its range."""
    for name, number in (("budget_ms", budget_ms), ("min_probability", min_probability), ("mmr", mmr)):
        if number is not None and not isinstance(number, int | float):
            raise InvalidInput(f"{name} = {number!r}: give a number")
    if not budget_ms > 0:
        raise InvalidInput(f"budget_ms = {budget_ms}: give a time above 0, in milliseconds")
    if not 0.0 <= min_probability <= 1.0:
        raise InvalidInput(f"min_probability = {min_probability}: give a number from 0 to 1")
    if mmr is not None and not 0.0 <= mmr <= 1.0:
        raise InvalidInput(f"mmr = {mmr}: give a number from 0 (hits that differ) to 1 (relevance alone)")
