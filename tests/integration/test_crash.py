"""Killed at any moment, a run of `index` loses nothing, shows nothing half done, and is taken up where it stopped."""

from __future__ import annotations

import json
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch import Searcher
from semsearch.opening import OpenIndex
from semsearch.store.checksums import checksum_record
from semsearch.store.metadata import Store
from semsearch.store.schema import DOCUMENT_COLUMNS
from semsearch.store.sealing import seal
from semsearch.token_keeping import embed_with_codes
from tests.crashing import OTHER_SEED, SEED, STEPS, WINDOW
from tests.toy import ToyEmbedder

N_RANDOM = 200  # kills at random moments, over the four changes
N_SERVERS = 2
WORDS = [
    "river",
    "stone",
    "cloud",
    "forest",
    "engine",
    "wheel",
    "brake",
    "kettle",
    "violin",
    "garden",
    "lantern",
    "mill",
]
QUERIES = ("river stone", "violin in the garden", "wheel brake engine", "p7x2 lantern")


def write_page(folder: Path, number: int, edition: str = "") -> None:
    rng = np.random.default_rng(number)
    parts = [" ".join(rng.choice(WORDS, size=12)) + f" p{number}x{j}." for j in range(int(rng.integers(2, 9)))]
    path = folder / f"part{number % 3}" / f"page{number}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"# Page {number}\n\n" + "\n\n".join(parts) + (f"\n\n{edition}" if edition else ""), encoding="utf-8"
    )


def add(folder: Path) -> None:
    for number in range(20, 30):
        write_page(folder, number)


def change(folder: Path) -> None:
    for number in range(0, 16, 2):
        write_page(folder, number, f"A new edition of page {number} speaks of kettles.")


def delete(folder: Path) -> None:
    shutil.rmtree(folder / "part1")
    (folder / "part0").rename(folder / "part9")


def rebuild(folder: Path) -> None:
    """Another model, same files."""


CHANGES: dict[str, Callable[[Path], None]] = {"add": add, "change": change, "delete": delete, "rebuild": rebuild}


@dataclass
class World:
    """Folders of one kind of change: before, and after a run that was not killed."""

    name: str
    folder: Path
    before: Any
    after: Any
    steps: dict[str, int]
    seconds: float
    encoded: Counter[str]


class Server:
    """One `tests.crashing` process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crashing"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )

    def run(self, place: Path, change: str, **how: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {
            "source": str(place / "docs"),
            "index": str(place / "index"),
            "log": str(place / "log"),
            "rebuild": change == "rebuild",
            "seed": OTHER_SEED if change == "rebuild" else SEED,
            **how,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    started = [Server() for _ in range(N_SERVERS)]
    yield started
    for server in started:
        server.close()


@pytest.fixture(scope="module")
def worlds(servers: list[Server], tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    found = {}
    base = tmp_path_factory.mktemp("crash") / "base"
    for number in range(20):
        write_page(base / "docs", number)
    servers[0].run(base, "first")
    for name, do in CHANGES.items():
        folder = base.parent / name
        shutil.copytree(base, folder)
        move(folder)
        do(folder / "docs")
        before = contents(folder / "index")
        whole = folder.with_name(f"{name}-whole")
        shutil.copytree(folder, whole)
        move(whole)
        answer = servers[0].run(whole, name)
        assert not answer["killed"]
        found[name] = World(
            name, folder, before, contents(whole / "index"), answer["steps"], answer["seconds"], encoded(whole)
        )
    return found


def move(folder: Path) -> None:
    """Let an index that was copied speak of the files beside it, unchanged since."""
    with closing(sqlite3.connect(folder / "index" / "store.db")) as db, db:
        for table, column in (("files", "path"), ("documents", "path"), ("documents", "key")):
            rows = db.execute(f"SELECT {column} FROM {table}").fetchall()
            for (path,) in rows:
                old = path.split("/docs")[0]
                db.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?", [path.replace(old, str(folder)), path]
                )
        (roots,) = db.execute("SELECT value FROM meta WHERE key = 'roots'").fetchone()
        for path in json.loads(roots):
            roots = roots.replace(json.dumps(path.split("/docs")[0])[1:-1], json.dumps(str(folder))[1:-1])
        row = (roots, checksum_record(("roots", roots)))
        db.execute("UPDATE meta SET value = ?, checksum = ? WHERE key = 'roots'", row)
        for (source,) in db.execute("SELECT source FROM documents").fetchall():
            old = source.split("/docs")[0]
            db.execute("UPDATE documents SET source = ? WHERE source = ?", [source.replace(old, str(folder)), source])
        for row in db.execute(f"SELECT {DOCUMENT_COLUMNS} FROM documents").fetchall():
            db.execute("UPDATE documents SET checksum = ? WHERE id = ?", [checksum_record(row), row[0]])
    seal(folder / "index")
    (folder / "log").unlink(missing_ok=True)


def contents(index: Path) -> dict[str, Any]:
    """All that an index shows: documents and passages with their vectors, and hits of some queries, best first."""
    store = Store(index)
    opened = OpenIndex(store)
    toy = ToyEmbedder(SEED if opened.model()["name"].endswith(SEED) else OTHER_SEED)
    with opened.state() as state:
        rows = store.query(
            "SELECT d.key, c.ordinal, c.text, c.vector_id, c.id FROM chunks c JOIN documents d ON d.id = document_id "
            "WHERE visible = 1 ORDER BY d.key, c.ordinal"
        )
        vectors = state.vectors.get(np.array([row[3] for row in rows], dtype=np.int64))
        faiss_ids = set(state.ann.ids.tolist())
        lexical_ids = sorted(state.lexical.ids.tolist())
        codes = state.codes_of(row[2] for row in rows)
    opened.close()
    assert faiss_ids == {row[3] for row in rows} and lexical_ids == sorted(row[4] for row in rows)
    root = str(index.parent)
    with Searcher.open(index, embedder=toy) as searcher:
        hits = {
            (query, mode): [
                (hit.document.id.replace(root, ""), hit.chunk.ordinal, round(hit.score, 4))
                for hit in searcher.search(query, k=20, mode=mode, per_document=0, fold=False)
            ]
            for query in QUERIES
            for mode in ("dense", "lexical", "hybrid")
        }
    texts = [row[2] for row in rows]
    assert codes == dict(zip(texts, embed_with_codes(toy, texts)[1], strict=True))
    expected = toy.embed_queries(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    return {"passages": [(row[0].replace(root, ""), *row[1:3]) for row in rows], "hits": hits, "model": toy.name}


def encoded(place: Path) -> Counter[str]:
    """How often each text was encoded."""
    log = place / "log"
    return Counter(log.read_text(encoding="utf-8").splitlines()) if log.exists() else Counter()


def trial(server: Server, world: World, place: Path, how: dict[str, Any]) -> str:
    """Kill one run and take it up; gives what was seen: `killed` or `ended` before it could be."""
    shutil.copytree(world.folder, place)
    move(place)
    killed = server.run(place, world.name, **how)["killed"]
    seen = contents(place / "index")
    assert seen in (world.before, world.after), f"{world.name} {how}: something half done is shown"
    resumed = server.run(place, world.name)
    assert "encoded" in resumed, f"{world.name} {how}: the run that took it up failed"
    assert contents(place / "index") == world.after, f"{world.name} {how}: the resumed run ended otherwise"
    counts = encoded(place)
    assert set(counts) == set(world.encoded), f"{world.name} {how}: other texts were encoded"
    twice = sum(n - 1 for n in counts.values())
    assert twice <= WINDOW, f"{world.name} {how}: {twice} texts encoded again, a batch has {WINDOW}"
    shutil.rmtree(place)
    return "killed" if killed else "ended"


def trials(servers: list[Server], folder: Path, todo: list[tuple[World, dict[str, Any]]]) -> Counter[str]:
    """All these trials, on all servers at once."""
    orders: queue.SimpleQueue[tuple[int, tuple[World, dict[str, Any]]]] = queue.SimpleQueue()
    for order in enumerate(todo):
        orders.put(order)
    outcomes: Counter[str] = Counter()
    problems: list[BaseException] = []

    def work(server: Server) -> None:
        while not problems:
            try:
                number, (world, how) = orders.get_nowait()
                outcomes[trial(server, world, folder / f"t{number}", how)] += 1
            except queue.Empty:
                return
            except BaseException as error:  # raised again in the test's own thread
                problems.append(error)

    threads = [threading.Thread(target=work, args=[server]) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return outcomes


def test_killed_before_and_after_every_step(servers, worlds, tmp_path):
    todo = []
    missed = set(STEPS)
    for world in worlds.values():
        for step, n_calls in world.steps.items():
            missed.discard(step)
            numbers = {1, n_calls} if step == "commit SQLite" else {(n_calls + 1) // 2}
            todo += [(world, {"kill_at": [step, n, when]}) for n in sorted(numbers) for when in ("before", "after")]
    assert not missed, f"no run has the steps {missed}"
    outcomes = trials(servers, tmp_path, todo)
    assert outcomes["killed"] >= 0.95 * len(todo)  # the last COMMIT has nothing after it


def test_a_disk_that_is_full_from_any_step_on(servers, worlds, tmp_path):
    messages = set()
    for name in ("change", "rebuild"):
        for number, (step, n_calls) in enumerate(worlds[name].steps.items()):
            place = tmp_path / f"{name}{number}"
            shutil.copytree(worlds[name].folder, place)
            move(place)
            answer = servers[0].run(place, name, fill_at=[step, (n_calls + 1) // 2, "before"])
            assert contents(place / "index") in (worlds[name].before, worlds[name].after), step
            assert answer.get("error", "IndexUnwritable") == "IndexUnwritable", (step, answer)
            messages.add(answer.get("message", "").replace(str(place), ""))
            assert "encoded" in servers[0].run(place, name)
            assert contents(place / "index") == worlds[name].after, step
            assert sum(n - 1 for n in encoded(place).values()) <= WINDOW, step
    assert any("make room" in message for message in messages)


def test_killed_at_random_moments(servers, worlds, tmp_path):
    rng = np.random.default_rng(7)
    n_killed = 0
    for world in worlds.values():
        n_left, longest_s = N_RANDOM // len(worlds), world.seconds
        while n_left:  # a machine with less to do is quicker than it was: a run that ended was not killed
            moments = rng.uniform(0, longest_s, size=n_left).tolist()
            outcomes = trials(servers, tmp_path, [(world, {"kill_after_s": moment}) for moment in moments])
            n_left -= outcomes["killed"]
            n_killed += outcomes["killed"]
            longest_s *= max(0.5, outcomes["killed"] / outcomes.total())
    assert n_killed == N_RANDOM
