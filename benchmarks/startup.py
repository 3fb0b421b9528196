"""A query from a cold start: seconds and peak memory of whole processes, beside a txtai script with a saved index.

Indexes the folder given as argument, or the documents under SEMSEARCH_SHARED, or the project's own. The txtai script
runs in the Python that SEMSEARCH_TXTAI_PYTHON names (by default this one, if it has txtai). Its index holds at most
2,000 of the passages, because it takes so long to build, which is in its favour here.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import _quality
import _report

from semsearch.encoders.models import find_model
from semsearch.store.metadata import Store

ROUNDS = 9
N_TXTAI = 2_000
QUESTIONS = ("how do I undo the last commit", "declare a dependency with defaults", "where do log files go")
PROJECT = Path(__file__).parents[1]
CACHE = PROJECT / "benchmarks" / "cache"

TXTAI_INDEX = """
import json, sys
from txtai.embeddings import Embeddings
model, texts, saved = sys.argv[1:]
embeddings = Embeddings(path=model, method="sentence-transformers", content=True, hybrid=True)
embeddings.index(json.load(open(texts)))
embeddings.save(saved)
"""
TXTAI_QUERY = """
import sys
from txtai.embeddings import Embeddings
embeddings = Embeddings()
embeddings.load(sys.argv[1])
for hit in embeddings.search(sys.argv[2], 10):
    print(hit["score"], hit["text"])
"""


def run(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MB) of a process that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command[:4]} failed with wait status {status}")
    return seconds, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def txtai_python() -> str | None:
    python = os.environ.get("SEMSEARCH_TXTAI_PYTHON", sys.executable)
    check = [python, "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('txtai') is None)"]
    return python if subprocess.run(check, check=False).returncode == 0 else None


def main() -> None:
    data = _quality.shared_data()
    source = sys.argv[1:] or [str(data / "docs" if data else PROJECT / "semsearch")]
    index = CACHE / "startup-index"
    semsearch = [sys.executable, "-m", "semsearch"]
    # In processes of their own: the memory of this one would count as that of those it starts.
    subprocess.run([*semsearch, "index", *source, "--index", str(index), "--quiet"], check=True)
    described = subprocess.run([*semsearch, "info", "--index", str(index), "--json"], check=True, capture_output=True)
    n_chunks = json.loads(described.stdout)["index"]["chunks"]
    commands = {
        "semsearch query": lambda q: [*semsearch, "query", q, "--index", str(index), "--no-rerank"],
        "python -c 'import numpy'": lambda q: [sys.executable, "-c", "import numpy"],
    }
    python = txtai_python()
    if python:
        saved = CACHE / "txtai-index"
        if not saved.exists():
            store = Store(index)
            texts = [row[0] for row in store.query("SELECT text FROM chunks ORDER BY id LIMIT ?", [N_TXTAI])]
            store.close()
            listed = CACHE / "txtai-texts.json"
            listed.write_text(json.dumps(texts))
            subprocess.run([python, "-c", TXTAI_INDEX, str(find_model().path), str(listed), str(saved)], check=True)
        commands["txtai, load and search"] = lambda q: [python, "-c", TXTAI_QUERY, str(saved), q]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for i in range(ROUNDS + 1):
        for name, command in commands.items():
            measured = run(command(QUESTIONS[i % len(QUESTIONS)]))
            if i:  # the first round fills the caches of all
                figures[name].append(measured)
    seconds = {name: statistics.median(s for s, _ in values) for name, values in figures.items()}
    rows: list[dict[str, object]] = [
        {
            "process": name,
            "median s": seconds[name],
            "peak MB": statistics.median(m for _, m in values),
            "times semsearch": seconds[name] / seconds["semsearch query"],
        }
        for name, values in figures.items()
    ]
    _report.write("startup", rows, chunks=n_chunks)


if __name__ == "__main__":
    main()
