"""Runs of the write line that are killed, or whose disk is full: at a named step, or after some time.

`python -m tests.crashing` reads one JSON object a line and answers with one; each run is a process of its own, forked
from one that has everything imported, so that hundreds take minutes. Nothing of the index code knows of it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from semsearch import build_index, indexing, staging
from semsearch.loaders.pool import LoaderPool
from semsearch.store import metadata, vectors, writing  # noqa: F401 - imported before a run is forked
from semsearch.store.ann import FlatIndex
from semsearch.store.derived import Derived
from semsearch.store.lexical import LexicalWriter
from semsearch.store.tokens import TokenWriter
from semsearch.store.writing import StoreWriter
from tests.toy import ToyEmbedder

__all__ = ["STEPS", "CountingToy"]

STEPS: dict[str, tuple[Any, str]] = {
    "encode": (ToyEmbedder, "embed_queries"),
    "begin a run": (StoreWriter, "begin"),
    "keep codes of tokens": (TokenWriter, "add"),
    "keep vectors": (StoreWriter, "add_vectors"),
    "stage a document": (StoreWriter, "stage_document"),
    "stage a file": (StoreWriter, "stage_file"),
    "add to the lexical index": (LexicalWriter, "add"),
    "commit the lexical index": (LexicalWriter, "commit"),
    "drop what is replaced": (StoreWriter, "_swap"),
    "save FAISS": (FlatIndex, "save"),
    "name FAISS": (Derived, "save_ann"),
    "delete from the lexical index": (LexicalWriter, "delete"),
    "join shards": (Derived, "compact_shards"),
    "remove files": (Derived, "remove_leftover_files"),
    "flush a file": (os, "fsync"),
    "rename a file": (Path, "replace"),
    "delete a file": (Path, "unlink"),
    "commit SQLite": (metadata, "connect"),  # each COMMIT of the connection that it gives
}
IMPORTED_LATE = ("faiss", "pathspec", "sqlite_utils", "tantivy", "tokenizers")  # by the first run that needs them
WINDOW = 12  # chunks encoded together, so that a run has many windows
SEED = "a"
OTHER_SEED = "b"  # of another model


class CountingToy(ToyEmbedder):
    """Writes down what it encodes, in a file that outlives the process."""

    def __init__(self, log: Path, seed: str = SEED) -> None:
        super().__init__(seed)
        self._log = log

    def embed_documents(self, texts: Sequence[str]) -> Any:
        with self._log.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps([self.seed, text]) + "\n" for text in texts)
        return super().embed_documents(texts)


class Watch:
    """Counts steps, and does something before or after one of them."""

    def __init__(self, at: tuple[str, int, str] | None, do: Callable[[], None]) -> None:
        self.at = at
        self.do = do
        self.counts: Counter[str] = Counter()

    def wrap(self) -> None:
        """Let every step pass by here."""
        for name, (owner, method) in STEPS.items():
            setattr(owner, method, self._watched(name, getattr(owner, method)))
        writing.connect = metadata.connect

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def commits(*args: Any, **options: Any) -> Any:
            connection = real(*args, **options)
            if not options["read_only"]:
                connection.set_trace_callback(lambda statement: self._seen(statement))
            return connection

        def step(*args: Any, **options: Any) -> Any:
            number = self.counts[name] = self.counts[name] + 1
            self._reached(name, number, "before")
            result = real(*args, **options)
            self._reached(name, number, "after")
            return result

        return commits if name == "commit SQLite" else step

    def _seen(self, statement: str) -> None:
        """Called as a statement begins; the one that follows a COMMIT comes after it."""
        self._reached("commit SQLite", self.counts["commit SQLite"], "after")
        if statement.upper().startswith("COMMIT"):
            self.counts["commit SQLite"] += 1
            self._reached("commit SQLite", self.counts["commit SQLite"], "before")

    def _reached(self, name: str, number: int, when: str) -> None:
        if self.at == (name, number, when):
            self.do()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_disk() -> None:
    """From now on no file can grow, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def run(order: dict[str, Any]) -> dict[str, Any]:
    """One run: in a process of its own, killed or not."""
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(told)
        _child(order, tell)
    os.close(tell)
    started = time.monotonic()
    if order.get("kill_after_s") is not None:
        time.sleep(order["kill_after_s"])
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(told) as stream:
        answer = stream.read()
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - started
    return {"killed": os.WIFSIGNALED(status), "seconds": seconds, **json.loads(answer or "{}")}


def _child(order: dict[str, Any], tell: int) -> None:
    code = 1
    try:
        staging.WINDOW_CHUNKS = WINDOW
        indexing.LoaderPool = partial(
            LoaderPool, 1
        )  # one process that reads: starting it is what a run takes longest for
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        how = "kill_at" if "kill_at" in order else "fill_at"
        watch = Watch(tuple(order[how]) if how in order else None, _kill if how == "kill_at" else _fill_disk)
        watch.wrap()
        toy = CountingToy(Path(order["log"]), order.get("seed", SEED))
        try:
            index, anew = Path(order["index"]), bool(order["rebuild"])
            report = build_index(order["source"], index=index, embedder=toy, token_vectors=True, rebuild=anew)
            answer = {"steps": watch.counts, "encoded": report.chunks.encoded, "chunks": report.chunks.total}
        except Exception as error:  # told to whoever asked
            answer = {"error": type(error).__name__, "message": str(error)}
        os.write(tell, json.dumps(answer).encode())
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    for name in IMPORTED_LATE:  # once for all runs: it would take each longer than its work
        importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
