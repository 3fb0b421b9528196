"""Filtered searches at several selectivities on the index of `query.py`, a million passages unless told otherwise.

Milliseconds to pick the documents, and of whole searches with the query encoded before, each filter met for the
first time (`new`) or again (`kept`). `exact`: the hits by meaning are the nearest of all vectors that are allowed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import _report
import numpy as np
from query import QUESTIONS, Remembering, index_of

from semsearch import Searcher
from semsearch.filters import parse
from semsearch.products import each_with

SHARES = (0.0001, 0.001, 0.01, 0.1)
ROUNDS = 100
WARM_UP = 5
K = 10


def measured(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def is_exact(searcher: Searcher, question: str, where: str) -> bool:
    """Whether the hits by meaning are the nearest of all that are allowed, up to what rounding makes equal."""
    hits = searcher.search(question, k=K, mode="dense", rerank=False, fold=False, where=where)
    with searcher._index.state() as state:
        allowed = state.selector.select(parse(where)).vectors
        # On one thread: others that BLAS would start keep the cores busy for two or three of the next searches.
        scores = np.sort(each_with(state.vectors.get(allowed), searcher._encode([question])[0]))[::-1]
    return np.allclose([hit.score for hit in hits], scores[:K], atol=1e-5) and len(hits) == min(K, len(allowed))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--passages", type=int, default=1_000_000)
    n = arguments.parse_args().passages
    rows: list[dict[str, object]] = []
    with Searcher.open(index_of(n), embedder=Remembering()) as searcher:
        for question in QUESTIONS:
            searcher.search(question, rerank=False)
        for share in SHARES:
            few, many = max(1, round(n * share)), max(1, round(10_000 * share))
            filters: dict[str, Callable[[int], str]] = {
                "a range of distinct values": lambda r, few=few: f"draw >= {97 * r} and draw < {97 * r + few}",
                "some of 10,000 values": lambda r, many=many: f"bucket >= {r} and bucket < {many + r}",
            }
            for kind, where in filters.items():
                times: dict[str, list[float]] = {"pick": [], "search, new": [], "search, kept": []}
                exact = []
                for r in range(WARM_UP + ROUNDS):
                    question, asked = QUESTIONS[r % len(QUESTIONS)], where(r)
                    with searcher._index.state() as state:
                        times["pick"].append(measured(lambda s=state, w=asked: s.selector.select(parse(w))))
                        state.selector._kept.clear()
                    for name in ("search, new", "search, kept"):
                        call = lambda q=question, w=asked: searcher.search(q, rerank=False, where=w)  # noqa: E731
                        times[name].append(measured(call))
                    exact.append(r % 10 != 0 or is_exact(searcher, question, asked))
                for name, ms in times.items():
                    p50, p95 = np.percentile(ms[WARM_UP:], (50, 95))
                    row = {"filter": kind, "share": share, "step": name, "p50 ms": float(p50), "p95 ms": float(p95)}
                    rows.append({**row, "exact": "yes" if all(exact) else "no"})
        ms = [measured(lambda q=q: searcher.search(q, rerank=False)) for q in QUESTIONS * 4]
        p50, p95 = np.percentile(ms, (50, 95))
        rows.append({"filter": "none", "step": "search, kept", "p50 ms": float(p50), "p95 ms": float(p95)})
    _report.write("filters" if n == 1_000_000 else f"filters_{n}", rows, chunks=n)


if __name__ == "__main__":
    main()
