"""Filtered searches at several selectivities: milliseconds to pick the passages, and of whole searches.

The index is synthetic: random unit vectors of 384 dimensions and words by Zipf's law, so that no model has to run and
the figures are those of the store and the legs alone. It is kept.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import _report
import numpy as np

from semsearch import Document, Searcher, build_index
from semsearch.filters import parse
from semsearch.store.selection import Selector
from semsearch.types import FloatArray, IntArray

PASSAGES = 5  # of a document
WORDS = 30  # of a passage, with a number that makes it distinct
VOCABULARY = 30_000
SHARES = (0.0001, 0.01, 0.1, 1.0)
ROUNDS = 40
DIM = 384
CACHE = Path(__file__).parent / "cache"


class RandomEmbedder:
    """Unit vectors that mean nothing, the same for the same number of the passage."""

    name = fingerprint = "random"
    description = property(lambda self: {"pooling": "none"})
    dim = DIM
    max_tokens = WORDS + 2

    def token_spans(self, texts: list[str]) -> list[IntArray]:
        spans = []
        for text in texts:
            lengths = np.array([len(word) for word in text.split()], dtype=np.int64)
            starts = np.cumsum(np.concatenate([[0], lengths[:-1] + 1]))
            spans.append(np.stack([starts, starts + lengths], axis=1))
        return spans

    def unknown_share(self, text: str) -> float:
        return 0.0

    def embed_documents(self, texts: list[str]) -> FloatArray:
        rows = np.random.default_rng(zlib.crc32(texts[0].encode())).standard_normal((len(texts), DIM), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    embed_queries = embed_documents


def documents(n_passages: int) -> Iterator[Document]:
    rng = np.random.default_rng(0)
    chances = 1 / (np.arange(VOCABULARY) + 5.0)
    vocabulary = np.array([f"w{i:05d}q" for i in range(VOCABULARY)])
    n = n_passages // PASSAGES
    draws = rng.permutation(n)
    for first in range(0, n, 1_000):
        words = vocabulary[rng.choice(VOCABULARY, size=(1_000, PASSAGES, WORDS), p=chances / chances.sum())]
        for i in range(first, min(first + 1_000, n)):
            lines = [f"{' '.join(line)} n{i}x{j}" for j, line in enumerate(words[i - first])]
            draw = int(draws[i])
            yield Document(
                f"{i}",
                "\n\n".join(lines),
                source=f"/data/s{draw % 10_000 // 100:03d}/t{draw % 100:02d}/{i}.md",
                metadata={"draw": draw, "bucket": draw % 10_000, "lang": "en"},
            )


def measured(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock and of the processor; on a busy machine the latter is what can be compared."""
    began, began_cpu = time.perf_counter(), time.process_time()
    call()
    return (time.perf_counter() - began) * 1e3, (time.process_time() - began_cpu) * 1e3


def percentiles(ms: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = np.array(ms).T
    found = {f"p{p} ms": float(np.percentile(wall, p)) for p in (50, 95)}
    return {**found, **{f"p{p} CPU ms": float(np.percentile(cpu, p)) for p in (50, 95)}}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--passages", type=int, default=200_000)
    n_passages = arguments.parse_args().passages
    index, embedder = CACHE / f"filters-{n_passages}", RandomEmbedder()
    if not (index / "store.db").exists():
        start = time.perf_counter()
        build_index(documents(n_passages), index=index, embedder=embedder)
        print(f"built in {time.perf_counter() - start:.0f} s")
    rng = np.random.default_rng(1)
    queries = [" ".join(f"w{i:05d}q" for i in rng.integers(100, 5_000, size=6)) for _ in range(ROUNDS)]
    rows: list[dict[str, object]] = []
    with Searcher.open(index, embedder=embedder) as searcher:
        with searcher._index.state() as state:
            n, n_documents = state.n_chunks, state.n_documents
            selector = state.selector
            ms = [measured(lambda: selector.select(parse("not draw < 0")))]
            rows.append({"step": "a process's first that needs all passages", "share": 1.0, **percentiles(ms)})
        for share in SHARES:
            few, many = max(1, round(n_documents * share)), max(1, round(10_000 * share))
            filters = {
                "distinct values": lambda r, few=few: f"draw >= {r} and draw < {few + r}",
                "few values": lambda r, many=many: f"bucket >= {r % 3} and bucket < {many + r % 3}",
            }
            for kind, where in filters.items():
                times: dict[str, list[tuple[float, float]]] = {"pick": [], "pick, kept": [], "search": []}
                for r, query in enumerate(queries):
                    asked = where(r)
                    searcher.search(query, rerank=False, where=asked)
                    with searcher._index.state() as state:
                        for name in ("pick", "pick, kept"):
                            if name == "pick":
                                selector._kept.clear()
                            times[name].append(measured(lambda w=asked: selector.select(parse(w))))
                    times["search"].append(measured(lambda q=query, w=asked: searcher.search(q, rerank=False, where=w)))
                for name, ms in times.items():
                    rows.append({"step": f"{name}, {kind}", "share": share, **percentiles(ms)})
        plain = []
        for query in queries:
            plain.append(measured(lambda q=query: searcher.search(q, rerank=False)))
        rows.append({"step": "search without a filter", "share": 1.0, **percentiles(plain)})
        with searcher._index.state() as state:
            fresh = Selector(state.store)
            ms = [measured(lambda: fresh.select(parse("draw < 20")))]
            rows.append({"step": "a process's first, of few documents", "share": 20 / n_documents, **percentiles(ms)})
    _report.write("filters", rows, chunks=n)


if __name__ == "__main__":
    main()
