"""Writes the tables of README.md from `results/*.json`; with `--check`, only says whether they are up to date.

A table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
DIGITS = {  # decimals of each column; those not named here are left out of README
    "runtime": 0,
    "passages/s": 0,
    "times": 2,
    "mean cosine": 5,
    "least cosine": 3,
    "share of the processor's peak": 2,
    "nDCG@10": 2,
    "process": 0,
    "median s": 2,
    "peak MB": 0,
    "times semsearch": 1,
    "stage": 0,
    "p50 ms": 1,
    "p95 ms": 1,
    "precision": 0,
    "passages encoded": 0,
    "indexing, passages/s": 0,
    "encoder alone, passages/s": 0,
    "share": 2,
    "second run s": 2,
    "collection": 0,
    "queries": 0,
    "BM25": 3,
    "dense": 3,
    "hybrid": 3,
    "hybrid, reranked": 3,
    "tuned": 3,
    "reranker": 0,
    "pairs/s": 0,
    "correlation": 4,
    "30 passages, ms": 0,
    "ranking": 0,
    "calibration error": 3,
    "nonsense not shown": 2,
    "off topic not shown": 2,
    "answerable not shown": 2,
    "engine": 0,
    "kind": 0,
    "n_vectors": 0,
    "setting": 0,
    "p99 ms": 1,
    "service": 0,
    "load": 0,
    "clients": 0,
    "QPS": 0,
    "errors": 0,
    "commits": 0,
    "states seen": 0,
    "faults": 0,
    "filter": 0,
    "step": 0,
    "exact": 0,
    "recall_at_10": 3,
    "p50_ms": 2,
    "p95_ms": 2,
    "bytes_per_vector": 0,
    "build_s": 0,
    "part": 0,
    "damage": 0,
    "damages": 0,
    "byte flips": 0,
    "truncations": 0,
    "deletions": 0,
    "found": 0,
    "same hits": 0,
    "refused, with what to run": 0,
    "other hits": 0,
    "mended, same hits": 0,
    "lost documents named or counted": 0,
    "told to index anew": 0,
    "killed": 0,
    "answers as before the run": 0,
    "answers as after it": 0,
    "other answers": 0,
    "verified as sound": 0,
    "taken up, same answers as a run that was not killed": 0,
}


def table(name: str) -> str:
    """One result as a Markdown table."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    columns = [column for column in rows[0] if column in DIGITS]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c), DIGITS[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}" if isinstance(value, float | int) else str(value)


def written(text: str) -> str:
    """The text with all its tables as the results have them."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text, flags=re.DOTALL
    )


def main() -> None:
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(0 if written(text) == text else "README.md has other tables than benchmarks/results: run _tables.py")
    README.write_text(written(text), encoding="utf-8")


if __name__ == "__main__":
    main()
