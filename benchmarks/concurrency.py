"""Four processes that search without pause, alone and while another adds documents: milliseconds a query.

The index is a copy of that of `query.py`. Every reader says which generations of the index it saw; every hit it gets is
compared with the text that its document should have.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import _report
import numpy as np
from query import CACHE, QUESTIONS, index_of

from semsearch import Document, Searcher, build_index, load_embedder

READERS = 4
WRITTEN = 200  # documents of a commit
PAUSE_S = 0.5  # of the writer between two


def read(index: Path, seconds: float) -> None:
    """Search for so long; print milliseconds of each query, generations seen and faults."""
    ms, seen, faults = [], set(), 0
    with Searcher.open(index) as searcher:
        for question in QUESTIONS:
            searcher.search(question, rerank=False)
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            hits = searcher.search(QUESTIONS[len(ms) % len(QUESTIONS)], rerank=False)
            ms.append((time.perf_counter() - start) * 1e3)
            seen.add(searcher._index._state.generation if searcher._index._state else -1)
            faults += sum(h.document.text[h.chunk.start : h.chunk.end] != h.chunk.text for h in hits)
            faults += len(hits) != 10
    print(json.dumps({"ms": ms, "generations": sorted(seen), "faults": faults}))


def write(index: Path, seconds: float) -> None:
    """Add documents, and change them, for so long; print how many commits that made."""
    embedder = load_embedder()
    end, n_commits = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        documents = [
            Document(f"new {n_commits % 3} {i}", f"Report {n_commits} of ward {i}: the pump was mended and runs again.")
            for i in range(WRITTEN)
        ]
        build_index(documents, index=index, embedder=embedder)
        n_commits += 1
        time.sleep(PAUSE_S)
    print(n_commits)


def run(index: Path, seconds: float, *, writing: bool) -> tuple[list[float], int, set[int], int]:
    """(milliseconds of all queries, faults, generations seen, commits)."""
    command = [sys.executable, __file__, "--index", str(index), "--seconds", str(seconds)]
    readers = [
        subprocess.Popen([*command, "--read"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(READERS)
    ]
    for reader in readers:
        assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
    writer = subprocess.Popen([*command, "--write"], stdout=subprocess.PIPE, text=True) if writing else None
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    answers = [json.loads(reader.communicate()[0]) for reader in readers]
    n_commits = int(writer.communicate()[0]) if writer else 0
    seen = {generation for answer in answers for generation in answer["generations"]}
    return [ms for a in answers for ms in a["ms"]], sum(a["faults"] for a in answers), seen, n_commits


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--passages", type=int, default=100_000)
    arguments.add_argument("--seconds", type=float, default=30.0)
    arguments.add_argument("--index", type=Path)
    arguments.add_argument("--read", action="store_true")
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    if given.read or given.write:
        (read if given.read else write)(given.index, given.seconds)
        return
    index = CACHE / "concurrency-index"
    shutil.rmtree(index, ignore_errors=True)
    shutil.copytree(index_of(given.passages), index)
    rows: list[dict[str, object]] = []
    try:
        for writing in (False, True):
            ms, faults, seen, n_commits = run(index, given.seconds, writing=writing)
            p50, p95, p99 = np.percentile(ms, (50, 95, 99))
            setting = "a writer commits" if writing else "readers alone"
            row = {"setting": setting, "queries": len(ms), "p50 ms": float(p50), "p95 ms": float(p95)}
            rows.append({**row, "p99 ms": float(p99), "commits": n_commits, "states seen": len(seen), "faults": faults})
    finally:
        shutil.rmtree(index, ignore_errors=True)
    _report.write("concurrency", rows, chunks=given.passages, readers=READERS)


if __name__ == "__main__":
    main()
