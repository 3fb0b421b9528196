"""Measures and comparisons on the terminal, as aligned columns; in a pipe the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from semsearch.cli.output import clean_line, short_path
from semsearch.cli.render import PATH, open_console

if TYPE_CHECKING:
    from rich.console import Console

    from semsearch.evaluation import Comparison, QueryDifference

__all__ = ["comparison", "measures"]

SIGNIFICANT = 0.05
NAME_WIDTH = 10  # Recall@100
MAX_QUERY_CHARS = 80


def _print(console: Console, *parts: str | tuple[str, str]) -> None:
    console.print(Text.assemble(*parts), soft_wrap=True)


def measures(answer: Mapping[str, Any], *, precision: str, reranker: str | None) -> None:
    """Print what was evaluated, and a line for each measure."""
    console = open_console()
    split = f", {answer['split']}" if answer["split"] else ""
    how = f"{answer['mode']}, {answer['model']}{f' in {precision}' if precision else ''}"
    again = f", reranked by {reranker}" if reranker else ""
    about = f"{split}: {answer['queries']:,} queries, {how}{again}, {answer['elapsed_s']:.1f} s"
    _print(console, (clean_line(answer["collection"]), PATH), clean_line(about))
    for name, value in answer["measures"].items():
        _print(console, f"  {name:<{NAME_WIDTH}}  ", (f"{value:.3f}", "bold"))


def comparison(found: Comparison, baseline: Path | None, queries: Mapping[str, str]) -> None:
    """Print both runs' measures with their differences, and the queries that differ most."""
    console = open_console()
    missing = f", which lacks {found.n_missing:,} of the queries" if found.n_missing else ""
    _print(console, "compared with ", (clean_line(short_path(baseline or "")), PATH), missing)
    head = f"{'':<{NAME_WIDTH}}  baseline  this run    change  p (t-test)  p (random.)  better  equal  worse"
    _print(console, "  ", (head, "dim"))
    for name, m in found.measures.items():
        is_clear = m.p_randomisation is not None and m.p_randomisation < SIGNIFICANT
        p_values = f"{_probability(m.p_t_test):>10}  {_probability(m.p_randomisation):>11}"
        counts = f"{m.wins:>6}  {m.ties:>5}  {m.losses:>5}"
        _print(
            console,
            f"  {name:<{NAME_WIDTH}}  {m.baseline:>8.3f}  {m.mean:>8.3f}  ",
            (f"{m.difference:>+8.3f}", "bold" if is_clear else ""),
            f"  {p_values}  {counts}",
        )
    _differences(console, "largest losses, by nDCG@10", found.largest_losses, queries)
    _differences(console, "largest gains, by nDCG@10", found.largest_wins, queries)


def _differences(console: Console, title: str, rows: Sequence[QueryDifference], queries: Mapping[str, str]) -> None:
    if rows:
        _print(console, (title, "bold"))
    for row in rows:
        text = clean_line(queries.get(row.query, ""))
        text = text if len(text) <= MAX_QUERY_CHARS else f"{text[: MAX_QUERY_CHARS - 1]}…"
        _print(console, f"  {row.baseline:.3f} to {row.value:.3f}  ", (clean_line(row.query), "bold"), f"  {text}")


def _probability(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
