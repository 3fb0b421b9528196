"""What becomes of an index when a run is killed, and when files of it are damaged.

Indexes the project's own sources and some documents without files. Runs of `semsearch index` on changed sources are
killed at random moments; then the index is queried, verified, brought up to date by another run, and queried again.
Every file of the index is damaged in turn, by byte flips, truncations and deletions, in several ways each; then it is
queried, verified, repaired, and queried again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import _report

from semsearch import Document, Hit, Searcher, build_index, load_embedder
from semsearch.errors import SemsearchError
from semsearch.types import Embedder
from semsearch.verifying import verify

PROJECT = Path(__file__).parents[1]
QUESTIONS = ("how is a text split into passages", "writer lock", "BM25 of a query", "what happens after a crash")
MODES = ("hybrid", "dense", "lexical")
FILTERS = (None, 'not path ~ "**/cli/**"')
N_KILLS = 40  # runs that were killed before they ended, half of the attempts in the last third of the time one takes
N_FLIPS = 5  # of each file; of the database, ten times as many
# Nothing of the index is in them: SQLite makes the first anew, the second is only held open.
SCRATCH = ("store.db-shm", "writer.lock", ".tantivy-meta.lock", ".tantivy-writer.lock")

OUTCOMES = (
    "byte flips",
    "truncations",
    "deletions",
    "found",
    "same hits",
    "refused, with what to run",
    "refused",
    "other hits",
    "mended, same hits",
    "mended, other hits",
    "lost documents named or counted",
    "told to index anew",
    "not mended",
)

Answers = list[list[tuple[object, ...]]]


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def seen(hit: Hit) -> tuple[object, ...]:
    """All that a user sees of a hit, but for the last digits of scores."""
    chunk = hit.chunk
    return hit.document, chunk.text, chunk.start, chunk.line_start, chunk.heading, chunk.page, round(hit.score, 4)


def ask(index: Path, embedder: Embedder) -> Answers:
    with Searcher.open(index, embedder=embedder) as searcher:
        return [
            [seen(h) for h in searcher.search(q, mode=m, k=5, rerank=False, where=where)]
            for q in QUESTIONS
            for m in MODES
            for where in FILTERS
        ]


def outcome_of_query(index: Path, embedder: Embedder, expected: Answers) -> str:
    try:
        answers = ask(index, embedder)
    except SemsearchError as error:
        return "refused, with what to run" if "semsearch " in str(error) else "refused"
    return "same hits" if answers == expected else "other hits"


def outcome_of_repair(index: Path, embedder: Embedder, expected: Answers) -> str:
    report = verify(index, repair=True, embedder=embedder)
    if report.is_sound:
        return "mended, same hits" if ask(index, embedder) == expected else "mended, other hits"
    if not report.damages:
        return "lost documents named or counted"
    return "told to index anew" if "semsearch index" in report.damages[0].fix else "not mended"


def part_of(name: str) -> str:
    starts = {"lexical": "lexical index", "vectors/": "vectors", "ann-": "FAISS file", "store.db": "database"}
    return next((part for start, part in starts.items() if name.startswith(start)), "seal, .gitignore")


def damages(original: Path, embedder: Embedder, work: Path, n_flips: int) -> list[dict[str, object]]:
    expected, rng = ask(original, embedder), random.Random(0)
    files = sorted(p.relative_to(original).as_posix() for p in original.rglob("*") if p.is_file())
    counts: dict[str, Counter[str]] = {}
    for name in files:
        size = (original / name).stat().st_size
        if not size or Path(name).name in SCRATCH:
            continue
        n = n_flips * 10 if name == "store.db" else n_flips
        ways: list[tuple[str, Callable[[Path, random.Random], None], int]] = [
            ("byte flips", flip, n),
            ("truncations", truncate, max(1, n // 3)),
            ("deletions", delete, 1),
        ]
        for way, damage, times in ways:
            counted = counts.setdefault(part_of(name), Counter())
            for _ in range(times):
                copy = work / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(original, copy)
                damage(copy / name, rng)
                counted[way] += 1
                counted[outcome_of_query(copy, embedder, expected)] += 1
                counted["found"] += not verify(copy, embedder=embedder).is_sound
                counted[outcome_of_repair(copy, embedder, expected)] += 1
        print(name, dict(counts[part_of(name)]), file=sys.stderr)
    return [{"part": part, **{c: counted[c] for c in OUTCOMES}} for part, counted in counts.items()]


def run(index: Path, sources: Path, kill_after_s: float | None = None) -> bool:
    """Whether a run of `semsearch index` came to its end, rather than being killed with all its processes."""
    command = [sys.executable, "-m", "semsearch", "index", str(sources), "--index", str(index)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, start_new_session=True, **quiet)
    try:
        if running.wait(kill_after_s) != 0:
            sys.exit(f"{' '.join(command)} failed with status {running.returncode}")
        return True
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return False


def kills(work: Path, embedder: Embedder) -> dict[str, object]:
    """Runs that add, change and delete files, killed at random moments and taken up."""
    sources, before, after = work / "sources", work / "before", work / "after"
    shutil.copytree(PROJECT / "semsearch", sources, ignore=shutil.ignore_patterns("__pycache__", "page", "server"))
    run(before, sources)
    shutil.copytree(PROJECT / "semsearch" / "server", sources / "server")
    shutil.rmtree(sources / "loaders")
    for path in sorted((sources / "store").glob("*.py")):
        path.write_text(f"# A line that is new in {path.name}.\n{path.read_text()}")
    shutil.copytree(before, after)
    start = time.monotonic()
    run(after, sources)
    longest_s, known = time.monotonic() - start, (ask(before, embedder), ask(after, embedder))
    rng, counted = random.Random(0), Counter[str]()
    for attempt in range(4 * N_KILLS):  # a quicker run than the first may end before it can be killed
        if counted["killed"] == N_KILLS:
            break
        copy = work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(before, copy)
        if run(copy, sources, rng.uniform(0.0 if attempt % 2 else longest_s * 2 / 3, longest_s)):
            continue
        counted["killed"] += 1
        answers = ask(copy, embedder)
        counted["answers as before the run"] += answers == known[0]
        counted["answers as after it"] += answers == known[1]
        counted["other answers"] += answers not in known
        counted["verified as sound"] += verify(copy, embedder=embedder).is_sound
        run(copy, sources)
        counted["taken up, same answers as a run that was not killed"] += ask(copy, embedder) == known[1]
        print(dict(counted), file=sys.stderr)
    return dict(counted)


def main() -> None:
    embedder = load_embedder()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        killed = kills(work, embedder)
        index = work / "original"
        build_index(PROJECT / "semsearch", index=index, embedder=embedder)
        given = [Document(f"note {i}", f"Note {i} says what page {i * 7} is about.", title="A note") for i in range(20)]
        build_index(given, index=index, embedder=embedder)
        rows = damages(index, embedder, work, N_FLIPS)
    questions = len(QUESTIONS) * len(MODES) * len(FILTERS)
    _report.write("durability_kills", [killed], questions=questions)
    _report.write("durability", rows, questions=questions)


if __name__ == "__main__":
    main()
