"""What changes the index of a service: in this process, or in one of its own that leaves the processor to searches."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from semsearch.errors import SemsearchError
from semsearch.indexing import build_index, load_built_embedder, remove
from semsearch.loaders.frames import decode_frame, read_frame, write_frame
from semsearch.processes import ChildProcess, as_error, private_stdout, stay_behind, told_error
from semsearch.reports import Progress
from semsearch.server.memory import bound_memory
from semsearch.store.info import inspect_index
from semsearch.types import Document, Embedder

__all__ = ["Changes", "ChangesBeside", "ChangesHere", "Stopped", "main"]

WAIT_S = 5.0  # for another process that is writing
END_S = 10.0  # for a change that was told to stop; killed after it, nothing that was committed is lost

Change = Mapping[str, Any]  # {"documents": [...]}, {"ids": [...], "paths": [...]}, or {} for a sync; plain data


class Stopped(Exception):
    """The service ends, and a change was not made; when it is sent again, what was encoded for it is known."""

    def __init__(self) -> None:
        super().__init__("the service ends; send this change again to the next one")


class Changes(Protocol):
    """Makes changes to one index, one after the other."""

    def make(self, change: Change) -> dict[str, Any]:
        """What came of a change; errors as for `build_index` and `indexing.remove`, and `Stopped`."""

    def end(self) -> None:
        """Let what is being changed stop soon; the next run takes it up. A signal's handler may ask."""

    def close(self) -> None:
        """Let go of everything."""


class ChangesHere:
    """In this process."""

    def __init__(self, index: Path, *, device: str = "auto", embedder: Embedder | None = None) -> None:
        self._index = index
        self._device = device
        self._given = embedder
        self._loaded: tuple[str, Embedder] | None = None
        self._is_ending = False  # no lock: a signal's handler sets it

    def make(self, change: Change) -> dict[str, Any]:
        """As `Changes.make`."""
        self._unless_ending()
        if "ids" in change:
            report = remove(change["paths"], ids=change["ids"], index=self._index, wait_s=WAIT_S)
            return {"done": True, "removed": report.documents, "missing": list(report.missing)}
        return self._build([Document(**given) for given in change["documents"]] if change else None)

    def end(self) -> None:
        """As `Changes.end`."""
        self._is_ending = True

    def close(self) -> None:
        """As `Changes.close`."""

    def _build(self, documents: list[Document] | None) -> dict[str, Any]:
        report = build_index(
            documents, index=self._index, embedder=self._embedder(), wait_s=WAIT_S, progress=self._unless_ending
        )
        return {
            "done": True,
            "indexed": report.files.indexed,
            "unchanged": report.files.unchanged,
            "removed": report.files.removed,
            "problems": [f"{problem.path}: {problem.reason}" for problem in report.problems],
        }

    def _unless_ending(self, _: Progress | None = None) -> None:
        if self._is_ending:
            raise Stopped

    def _embedder(self) -> Embedder:
        """The encoder of the index's passages, kept while the index is built with it."""
        if self._given is not None:
            return self._given
        facts = inspect_index(self._index)
        key = f"{facts.model} {facts.weights_sha256} {facts.precision}"
        if self._loaded is None or self._loaded[0] != key:
            built = {"name": facts.model, "precision": facts.precision}
            self._loaded = (key, load_built_embedder(self._index, built, self._device))
        return self._loaded[1]


class ChangesBeside:
    """In a process of their own, begun by the first: searches neither share Python's lock nor a core with it."""

    def __init__(self, index: Path, *, device: str = "auto") -> None:
        self._arguments = {"index": str(index), "device": device}
        self._child: ChildProcess | None = None
        self._is_ending = False

    def make(self, change: Change) -> dict[str, Any]:
        """As `Changes.make`.

        Raises:
            SemsearchError: the process ended, as by a lack of memory; what it had committed stays.
        """
        child = None if self._is_ending else self._living()
        if child is None or self._is_ending:  # perhaps since: `end` may have come before there was a child to dismiss
            raise Stopped
        body = None
        with contextlib.suppress(OSError, ValueError):  # ValueError: `close` has closed the pipes
            write_frame(child.stdin, change)
            body = read_frame(child.stdout)
        if body is None:
            code, self._child = child.stop(), None
            if self._is_ending:
                raise Stopped
            raise SemsearchError(f"the process that changes the index ended with exit status {code}; ask once more")
        answer = decode_frame(body)
        if "error" in answer:
            kind, text = answer["error"]
            raise Stopped if kind == Stopped.__name__ else as_error(kind, text)
        return dict(answer["made"])

    def end(self) -> None:
        """As `Changes.end`."""
        self._is_ending = True
        if (child := self._child) is not None:
            child.dismiss()

    def close(self) -> None:
        """As `Changes.close`."""
        self._is_ending = True
        if (child := self._child) is not None:
            child.end(END_S)

    def _living(self) -> ChildProcess:
        """The process, begun anew where it ended while nothing was asked of it."""
        child = self._child
        if child is not None and child.process.poll() is not None:
            child.stop()
            child = None
        if child is None:
            self._child = child = ChildProcess(__name__, self._arguments, is_heard=True)
        return child


def main(index: str, device: str) -> None:
    """Make the changes that arrive on stdin, until it ends; the other side of `ChangesBeside`."""
    stay_behind()
    bound_memory()
    changes = ChangesHere(Path(index), device=device)
    inbox: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
    answers = private_stdout()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, inbox, changes), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        while (change := inbox.get()) is not None:
            write_frame(answers, _answer(changes, change))
    os._exit(0)  # the thread that still reads holds stdin, which the interpreter's own end would wait for


def _answer(changes: Changes, change: Change) -> dict[str, Any]:
    try:
        return {"made": changes.make(change)}
    except Exception as error:  # it is told by the service
        return {"error": told_error(error)}


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[Change | None], changes: Changes) -> None:
    """Pass changes on, and stop when there will be no more, even in the middle of one."""
    try:
        while (body := read_frame(requests)) is not None:
            inbox.put(decode_frame(body))
    finally:
        changes.end()
        inbox.put(None)
