"""A warm query on 100,000 passages, or as many as the argument says: milliseconds by stage.

The passages are those of the documents under SEMSEARCH_SHARED, or of the project's own files, over and over with a
number added and their vectors moved a little, so that building the index takes minutes and not hours. It is kept.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _quality
import _report
import numpy as np

from semsearch import Document, Searcher, build_index, load_embedder
from semsearch.gathering import CANDIDATES
from semsearch.store.info import inspect_index
from semsearch.store.recent import RecentDocuments
from semsearch.types import FloatArray

N_CHUNKS = 100_000
N_TEXTS = 4_000
ROUNDS = 5
WARM_UPS = 3
NOISE = 0.03  # of each component, of a unit vector
PROJECT = Path(__file__).parents[1]
CACHE = PROJECT / "benchmarks" / "cache"
QUESTIONS = (
    "how do I undo the last commit but keep my changes",
    "declare a dependency with default values",
    "which processes may read a database while another writes",
    "upload a file",
    "difference between a shallow and a deep copy of a list of lists",
    "package manager asks which configuration file to keep",
    "convert a date to seconds since the epoch",
    "why does my regular expression match nothing",
    "run a shell script at every login",
    "error 13",
)


class Moved:
    """The default encoder, but for documents whose text begins with a number: they get a known vector, moved."""

    def __init__(self, vectors: FloatArray) -> None:
        self._real = load_embedder()
        self._vectors = vectors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def embed_documents(self, texts: list[str]) -> FloatArray:
        numbers = [int(text.partition(" ")[0]) for text in texts]
        rows = self._vectors[[n % len(self._vectors) for n in numbers]]
        noise = np.random.default_rng(numbers[0]).standard_normal(rows.shape)
        rows = rows + NOISE * noise.astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Remembering:
    """The default encoder, which encodes a query once."""

    def __init__(self) -> None:
        self._real = load_embedder()
        self._known: dict[tuple[str, ...], FloatArray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        key = tuple(texts)
        if key not in self._known:
            self._known[key] = self._real.embed_queries(texts)
        return self._known[key]


def build(index: Path, n_chunks: int) -> None:
    data = _quality.shared_data()
    few = CACHE / "startup-index"
    build_index(data / "docs" if data else PROJECT / "semsearch", index=few)
    with Searcher.open(few) as searcher:
        hits = searcher.search("a", k=10_000, mode="dense", per_document=0, rerank=False)
    embedder = load_embedder()
    texts = [hit.chunk.text for hit in hits[:N_TEXTS]]
    lengths = [len(spans) for spans in embedder.token_spans(texts)]
    texts = [t for t, n in zip(texts, lengths, strict=True) if n < embedder.max_tokens - 20]  # stay one chunk
    vectors = embedder.embed_documents(texts)

    def documents() -> Iterator[Document]:
        draws = np.random.default_rng(0).permutation(n_chunks).tolist()
        for i, draw in enumerate(draws):
            text = f"{i} {texts[i % len(vectors)]}"
            yield Document(f"{i}", text, title=f"Passage {i}", metadata={"draw": draw, "bucket": draw % 10_000})

    build_index(documents(), index=index, embedder=Moved(vectors))


def memory_mb() -> dict[str, float]:
    """What the process has of main memory, in MB: in all, and without files that are mapped into it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}


def index_of(n_chunks: int) -> Path:
    """The index, built when it is not there yet."""
    index = CACHE / f"query-{n_chunks}-index"
    if not (index / "store.db").exists():
        build(index, n_chunks)
    return index


def timed(call: Callable[[], Any], searcher: Searcher) -> float:
    """Milliseconds, with no document kept from an earlier question, though these come again and again."""
    searcher._index._store._recent = RecentDocuments()
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    n_chunks = int(sys.argv[1]) if len(sys.argv) > 1 else N_CHUNKS
    name = "query" if n_chunks == N_CHUNKS else f"query_{n_chunks}"
    index = index_of(n_chunks)
    start = time.perf_counter()
    with Searcher.open(index) as searcher, searcher._index.state():
        opened_s = time.perf_counter() - start
    stages: dict[str, list[float]] = {}
    with Searcher.open(index) as searcher:
        for question in QUESTIONS:
            searcher.search(question, rerank=False)  # warms up
        with searcher._index.state() as state:
            n_chunks = state.n_chunks
        for question in QUESTIONS * ROUNDS:
            vector = searcher._encode([question])[0]
            with searcher._index.state() as parts:
                near = parts.ann.search(vector[np.newaxis], 100).ids[0].tolist()
                chunks = [place[0] for place in parts.store.chunks_of_vectors(near)[:10]]
                calls = {
                    "encode": lambda q=question: searcher._encode([q]),
                    "nearest 100 (FAISS)": lambda p=parts, v=vector: p.ann.search(v[np.newaxis], 100),
                    f"best {CANDIDATES} (BM25)": lambda p=parts, q=question: p.lexical.search(q, CANDIDATES),
                    "hydrate 10": lambda p=parts, c=chunks: p.store.hydrate(c),
                }
                for stage, call in calls.items():
                    stages.setdefault(stage, []).append(timed(call, searcher))
            for mode in ("dense", "lexical", "hybrid"):
                took = timed(lambda q=question, m=mode: searcher.search(q, mode=m, rerank=False), searcher)
                stages.setdefault(f"whole query, {mode}", []).append(took)
        memory = memory_mb()
        for question in QUESTIONS[:1] * WARM_UPS + QUESTIONS * ROUNDS:
            searcher._own_reranker = None  # with the vectors of the passages that it has read
            for stage in ("the same, reranked", "the same, reranked again"):
                stages.setdefault(stage, []).append(timed(lambda q=question: searcher.search(q), searcher))
        for stage in ("the same, reranked", "the same, reranked again"):
            del stages[stage][:WARM_UPS]
    with Searcher.open(index, embedder=Remembering()) as searcher:
        for _ in range(ROUNDS + 1):
            for question in QUESTIONS:
                took = timed(lambda q=question: searcher.search(q, rerank=False), searcher)
                stages.setdefault("hybrid, without encoding", []).append(took)
        del stages["hybrid, without encoding"][: len(QUESTIONS)]
    rows: list[dict[str, object]] = [
        {"stage": name, "p50 ms": statistics.median(ms), "p95 ms": float(np.percentile(ms, 95))}
        for name, ms in stages.items()
    ]
    _report.write(name, rows, chunks=n_chunks, opened_s=opened_s, memory_mb=memory, search=inspect_index(index).ann)


if __name__ == "__main__":
    main()
