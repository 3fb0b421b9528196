"""Vector search as an index grows: each kind of ours beside hnswlib, usearch and LanceDB, on one thread.

    python benchmarks/ann.py [--sizes 10000,30000,300000] [--peers real,1000000]

`results/ann.json` has the sizes at which peers are measured too, `results/ann_curve.json` the others, ours alone.

`real` is all real passages and nothing else; larger sizes are real passages extended by moved copies of them
(`_vectors.extended`), smaller ones are real passages alone. Questions are those that people asked. Every engine is
searched one question after the other, ever more widely until it finds `RECALL` of the ten nearest; that row is kept, so
rows compare at about one recall. Ours are also searched as widely as their own sample said (`chosen`).

`bytes_per_vector` is what the index's file takes, all of which may be mapped into memory. Scores of candidates are then
taken from the full vectors, 1,536 bytes each, on disk: by ours and LanceDB; hnswlib has them in its index.

Peers run in the Python that SEMSEARCH_PEERS_PYTHON names, by default this one; where one is missing it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _ann_peers
import _report
import _vectors
import numpy as np

from semsearch.store.ann import faiss_library
from semsearch.store.approximate import RECIPES, RescoredIndex
from semsearch.store.nearest import SearchKind, bring_up_to_date, open_nearest
from semsearch.store.recall import exact_neighbors
from semsearch.store.vectors import ShardReader, write_shard

CACHE = Path(__file__).parent / "cache" / "ann"
N_QUESTIONS = 1_000
RECALL = 0.97
SHARD = 65_536
SHARE_ADDED = 0.01
KINDS = ("flat", *RECIPES)


def prepared(n: int, rows: np.ndarray) -> Path:
    """A folder with n vectors as an index keeps them, one per cent more to be added, questions and their neighbours."""
    folder = CACHE / str(n)
    if not (folder / "nearest.npy").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        more = n + int(n * SHARE_ADDED)
        for first in range(0, more, SHARD):
            part = rows[first : min(first + SHARD, more)]
            write_shard(folder / "vectors", f"{first // SHARD:06d}", np.arange(first, first + len(part)), part)
        np.save(folder / "rows.npy", rows[:n])
        questions = _vectors.real_questions(N_QUESTIONS)
        np.save(folder / "questions.npy", questions)
        np.save(folder / "nearest.npy", exact_neighbors(questions, np.arange(n), shards(folder)))
    return folder


def shards(folder: Path) -> ShardReader:
    names = sorted(p.name.partition(".")[0] for p in (folder / "vectors").glob("*.ids.npy"))
    return ShardReader(folder / "vectors", names, int(np.load(folder / "questions.npy", mmap_mode="r").shape[1]))


def build(folder: Path, kind: str) -> dict[str, Any]:
    """Build one kind of ours, and then add to it."""
    vectors, live = shards(folder), np.arange(len(np.load(folder / "rows.npy", mmap_mode="r")))

    def kept(name: str, ids: np.ndarray, before: dict[str, Any]) -> tuple[dict[str, Any], float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        about = bring_up_to_date(folder, name, ids, vectors, before, SearchKind(kind), _vectors.real_stretches)
        return about, time.perf_counter() - start, time.process_time() - cpu

    about, seconds, cpu = kept(f"{kind}.faiss", live, {})
    (folder / f"{kind}.json").write_text(json.dumps(about))
    more = np.arange(len(vectors))
    _, added, added_cpu = kept("more.faiss", more, about)
    (folder / "more.faiss").unlink()
    return {
        "engine": "semsearch",
        "kind": about["kind"],
        "n_vectors": len(live),
        "build_s": seconds,
        "build_cpu_s": cpu,
        "add_1_percent_s": added,
        "add_1_percent_cpu_s": added_cpu,
        "bytes_per_vector": (folder / about["file"]).stat().st_size / len(live),
        "sampled_recall": about.get("recall", 1.0),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def search(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Search one kind of ours, as widely as was chosen and at `RECALL`."""
    faiss = faiss_library()
    faiss.omp_set_num_threads(1)
    about = json.loads((folder / f"{kind}.json").read_text())
    questions, nearest = np.load(folder / "questions.npy"), np.load(folder / "nearest.npy")
    vectors = shards(folder)
    start = time.perf_counter()
    index = open_nearest(folder, about, vectors)
    opened = time.perf_counter() - start

    def measured(value: int | None) -> dict[str, Any]:
        if isinstance(index, RescoredIndex):
            index._index.value = value  # type: ignore[attr-defined]
        found = _ann_peers.searched(lambda q: index.search(q[np.newaxis], 10).ids[0], questions, nearest)
        setting = f"{about['parameter']} {value}" if value else "all"
        return {"setting": setting, "chosen": value == about.get("value"), **found, "open_s": opened}

    if not isinstance(index, RescoredIndex):
        return [measured(None)]
    rows = [measured(about["value"])]
    for value in RECIPES[kind].values:
        at_recall = rows[0] if value == about["value"] else measured(value)
        if at_recall["recall_at_10"] >= RECALL:
            return rows if at_recall is rows[0] else [at_recall, *rows]
    return rows


def run(*command: str) -> list[dict[str, Any]]:
    """The objects that a process of its own prints, one a line."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{command[1:]} failed: {done.stderr[-500:]}", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def ours(folder: Path, kind: str) -> list[dict[str, Any]]:
    built = run(sys.executable, __file__, "--do", "build", str(folder), kind)
    found = run(sys.executable, __file__, "--do", "search", str(folder), kind)
    return [{**built[0], **row} for row in found]


def peers(folder: Path, engine: str) -> list[dict[str, Any]]:
    python = os.environ.get("SEMSEARCH_PEERS_PYTHON", sys.executable)
    script = str(Path(_ann_peers.__file__))
    built = run(python, script, "build", engine, str(folder))
    found = run(python, script, "search", engine, str(folder)) if built else []
    for row in found:
        if row["recall_at_10"] >= RECALL or row is found[-1]:
            return [{**built[0], **row}]
    return []


def report(name: str, rows: Sequence[dict[str, Any]], n_real: int) -> None:
    columns = list(dict.fromkeys(c for row in rows for c in row))
    even = [{c: row.get(c, "") for c in columns} for row in rows]
    _report.write(name, even, n_real=n_real, questions=N_QUESTIONS, threads=1, recall=RECALL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="10000,30000,300000")
    parser.add_argument("--peers", default="real,1000000")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--do", nargs=3)
    options = parser.parse_args()
    if options.do:
        what, folder, kind = options.do
        rows = [build(Path(folder), kind)] if what == "build" else search(Path(folder), kind)
        print("\n".join(map(json.dumps, rows)))
        return
    real = _vectors.real_passages()
    _vectors.real_stretches()
    n_real = int(len(real) / (1 + SHARE_ADDED))

    def sizes(text: str) -> list[int]:
        return [n_real if size == "real" else int(size) for size in text.split(",") if size]

    beside = sizes(options.peers)
    results: dict[str, list[dict[str, Any]]] = {"ann": [], "ann_curve": []}
    for n in sorted({*sizes(options.sizes), *beside}):
        folder = prepared(n, _vectors.extended(real, n + int(n * SHARE_ADDED)))
        name = "ann" if n in beside else "ann_curve"
        engines = [(ours, kind) for kind in options.kinds.split(",")]
        engines += [(peers, engine) for engine in _ann_peers.ENGINES if n in beside]
        for measure, engine in engines:
            results[name] += [{**row, "real_share": min(n_real / n, 1.0)} for row in measure(folder, engine)]
            report(name, results[name], n_real)  # after each: a run takes hours


if __name__ == "__main__":
    main()
