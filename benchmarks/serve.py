"""The HTTP service under load on the loopback interface: latencies and queries a second by clients, beside a txtai API.

    python benchmarks/serve.py [seconds a row] [seconds of mixed load]

Both hold the same passages, those of the documents under SEMSEARCH_SHARED or of the project's own files, and the same
model; both answer with ten passages, nothing is reranked, and no query comes twice. The txtai API runs in the Python
that SEMSEARCH_TXTAI_PYTHON names and is left out without it. Then clients read for a minute while one writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _load
import _quality
import _report

from semsearch import Document, build_index
from semsearch.encoders.models import DEFAULT_MODEL, find_model
from semsearch.store.metadata import Store

N_PASSAGES = 2_000
CLIENTS = (1, 4, 16)
K = 10
START_S = 120.0
PROJECT = Path(__file__).parents[1]
CACHE = PROJECT / "benchmarks" / "cache"
PORT_OF_SEMSEARCH, PORT_OF_TXTAI = 18765, 18766
BUILD_TXTAI = """
import json, sys
from txtai import Embeddings
rows = json.load(open(sys.argv[1]))
embeddings = Embeddings(path=sys.argv[2], content=True, hybrid=sys.argv[4] == "hybrid")
embeddings.index((str(i), text, None) for i, text in enumerate(rows))
embeddings.save(sys.argv[3])
"""

Target = Callable[[str], str]


def passages() -> list[str]:
    """Texts of one passage each, the same for both."""
    data = _quality.shared_data()
    source = data / "docs" if data else PROJECT / "semsearch"
    index = CACHE / "startup-index"
    build_index(source, index=index)
    store = Store(index)
    rows = store.query("SELECT text FROM chunks ORDER BY id")
    store.close()
    step = max(1, len(rows) // N_PASSAGES)
    return [row[0] for row in rows[::step][:N_PASSAGES]]


@contextlib.contextmanager
def process(command: list[str], port: int, path: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at `path`, ended with the context."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_S
            while asyncio.run(_once(port, path)) != 200:
                if running.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{command[0]} does not answer: {log.read().decode(errors='replace')[-2_000:]}")
                time.sleep(0.3)
            yield running
        finally:
            running.terminate()
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


async def _once(port: int, path: str) -> int:
    client = _load.Client(port)
    try:
        return (await client.get(path))[0]
    finally:
        client.close()


def semsearch_server(index: Path, *more: str) -> Any:
    command = [sys.executable, "-m", "semsearch", "serve", "--index", str(index), "--port", str(PORT_OF_SEMSEARCH)]
    return process([*command, *more], PORT_OF_SEMSEARCH, "/health")


def of_semsearch(mode: str) -> Target:
    return lambda q: f"/search?k={K}&rerank=false&mode={mode}&q={urllib.parse.quote_plus(q)}"


def of_txtai(q: str) -> str:
    return f"/search?limit={K}&query={urllib.parse.quote_plus(q)}"


def rows_of(name: str, port: int, target: Target, texts: list[str], seconds: float) -> list[dict[str, Any]]:
    """Closed loops by number of clients, then arrivals at half and at 80 % of what these reached."""
    queries = _load.distinct_queries(texts)
    targets = (target(q) for q in queries)
    asyncio.run(_load.closed_loop(port, targets, 2, min(3.0, seconds)))
    rows = []
    for n in CLIENTS:
        print(f"{name}, {n} clients", file=sys.stderr)
        load = asyncio.run(_load.closed_loop(port, targets, n, seconds))
        rows.append({"service": name, "load": "closed", "clients": n, **load.row(), "errors": _errors(load)})
    best = max(row["QPS"] for row in rows)
    for share in (0.5, 0.8):
        load = asyncio.run(_load.open_loop(port, targets, share * best, seconds))
        name_of_load = f"open, {share:.0%} of most"
        rows.append({"service": name, "load": name_of_load, "clients": None, **load.row(), "errors": _errors(load)})
    return rows


def _errors(load: _load.Load) -> int:
    return sum(n for status, n in load.statuses.items() if status not in {200, 503})


def txtai_rows(python: str, texts: list[str], seconds: float) -> list[dict[str, Any]]:
    model = str(find_model(DEFAULT_MODEL).path)
    listed = CACHE / "serve-texts.json"
    listed.write_text(json.dumps(texts))
    rows = []
    for kind in ("hybrid", "dense"):
        saved = CACHE / f"serve-txtai-{kind}-{N_PASSAGES}"
        if not saved.exists():
            subprocess.run([python, "-c", BUILD_TXTAI, str(listed), model, str(saved), kind], check=True)
        config = CACHE / f"serve-txtai-{kind}.yml"
        config.write_text(json.dumps({"path": str(saved), "embeddings": {"path": model, "content": True}}))
        command = [python, "-m", "uvicorn", "txtai.api:app", "--port", str(PORT_OF_TXTAI), "--log-level", "warning"]
        with process(command, PORT_OF_TXTAI, of_txtai("harbour"), CONFIG=str(config)):
            rows += rows_of(f"txtai, {kind}", PORT_OF_TXTAI, of_txtai, texts, seconds)
    return rows


def resident_bytes(pid: int) -> int:
    """Of a process and its children, such as the one that makes the changes."""
    own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    children = {c for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()}
    return own + sum(map(resident_bytes, map(int, children)))


async def mixed(port: int, pid: int, texts: list[str], seconds: float, rate: float) -> dict[str, Any]:
    """16 clients together ask `rate` a second while another writes, without a pause."""
    queries = (of_semsearch("hybrid")(q) for q in _load.distinct_queries(texts))
    written, memory, ends, started = [], [], time.perf_counter() + seconds, time.time()

    async def write() -> None:
        client = _load.Client(port)
        for n in itertools.count():
            if time.perf_counter() > ends:
                return client.close()
            text = f"note {n} of {started:.0f}: {texts[n % len(texts)]}"  # one that no earlier run has encoded
            body = json.dumps({"documents": [{"id": f"note-{n % 50}", "text": text, "metadata": {"n": n}}]}).encode()
            written.append((await client.post("/index/documents", body))[0])
            written.append((await client.post("/index/sync", b""))[0])

    async def watch() -> None:
        while time.perf_counter() < ends:
            memory.append(resident_bytes(pid))
            await asyncio.sleep(1.0)

    reading = _load.open_loop(port, queries, rate, seconds, n_clients=16)
    load, _, _ = await asyncio.gather(reading, write(), watch())
    settled = memory[len(memory) // 5 :]  # the first writes load the encoder of passages
    return {
        **load.row(),
        "asked a second": rate,
        "reads by status": dict(load.statuses),
        "writes": len(written),
        "writes that failed": sum(status not in {200, 202, 503} for status in written),
        "memory at first MB": settled[0] / 1e6,
        "memory at last MB": settled[-1] / 1e6,
        "memory growth": settled[-1] / settled[0] - 1,
    }


def main() -> None:
    seconds, of_mixed = (
        (float(a) for a in (*sys.argv[1:], "20", "60")[:2]) if len(sys.argv) < 3 else map(float, sys.argv[1:3])
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left
    CACHE.mkdir(exist_ok=True)
    texts = passages()
    index = CACHE / f"serve-index-{N_PASSAGES}"
    build_index([Document(f"p{i}", text) for i, text in enumerate(texts)], index=index)
    rows: list[dict[str, Any]] = []
    with semsearch_server(index):
        for mode in ("hybrid", "dense"):
            target = of_semsearch(mode)
            rows += rows_of(f"semsearch, {mode}", PORT_OF_SEMSEARCH, target, texts, seconds)
    python = os.environ.get("SEMSEARCH_TXTAI_PYTHON")
    if python:
        rows += txtai_rows(python, texts, seconds)
    else:
        print("SEMSEARCH_TXTAI_PYTHON names no Python with txtai[api]: its rows are left out", file=sys.stderr)
    best = {r["service"]: max(x["QPS"] for x in rows if x["service"] == r["service"]) for r in rows}
    times = {kind: best[f"semsearch, {kind}"] / best[f"txtai, {kind}"] for kind in ("hybrid", "dense") if python}
    with semsearch_server(index, "--writable") as running:
        queries = (of_semsearch("hybrid")(q) for q in _load.distinct_queries(texts))
        single = asyncio.run(_load.closed_loop(PORT_OF_SEMSEARCH, queries, 1, seconds))
        under = asyncio.run(mixed(PORT_OF_SEMSEARCH, running.pid, texts, of_mixed, single.qps))
    under["p95 times single client"] = under["p95 ms"] / single.ms(0.95)
    _report.write("serve", rows, passages=len(texts), times_txtai=times, single_client=single.row(), mixed=under)


if __name__ == "__main__":
    main()
