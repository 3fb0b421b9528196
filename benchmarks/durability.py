"""What becomes of an index when files of it are damaged: byte flips, truncations, deletions, one file at a time.

Indexes the project's own sources and some documents without files. Every file of the index is damaged in turn, in
several ways each; then it is queried, verified, repaired, and queried again.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
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
    "documents named to index again",
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
        return [[seen(h) for h in searcher.search(q, mode=m, k=5, rerank=False)] for q in QUESTIONS for m in MODES]


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
    if report.to_index and not report.damages:
        return "documents named to index again"
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


def main() -> None:
    embedder = load_embedder()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        index = work / "original"
        build_index(PROJECT / "semsearch", index=index, embedder=embedder)
        given = [Document(f"note {i}", f"Note {i} says what page {i * 7} is about.", title="A note") for i in range(20)]
        build_index(given, index=index, embedder=embedder)
        rows = damages(index, embedder, work, N_FLIPS)
    # Runs that are killed belong into the same table: rows with another "part", and a column "kills".
    _report.write("durability", rows, questions=len(QUESTIONS) * len(MODES))


if __name__ == "__main__":
    main()
