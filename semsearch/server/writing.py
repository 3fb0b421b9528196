"""Changes to the index of a service, one at a time, while it goes on answering."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput
from semsearch.indexing import build_index, load_built_embedder, remove
from semsearch.reports import Progress
from semsearch.store.info import inspect_index
from semsearch.types import Document, Embedder

__all__ = ["Stopped", "Writer"]

WAIT_S = 5.0  # for another process that is writing
# While others ask, the pause after a change is so many times as long as it took, up to a limit: changes without a pause
# would keep a core busy, and of 70 questions a second, which two cores answer, 58 would be answered.
PAUSE = 3.0
MAX_PAUSE_S = 1.0
LOOK_S = 0.05  # between looks at whether others still ask


class Stopped(Exception):
    """The service ends, and a change was not made; when it is sent again, what was encoded for it is known."""

    def __init__(self) -> None:
        super().__init__("the service ends; send this change again to the next one")


class Writer:
    """Writes to one index. Its methods are called one after the other.

    Attributes:
        is_asked: whether others wait for answers, so that a change has to wait after the one before.
    """

    def __init__(self, index: Path, *, device: str = "auto", embedder: Embedder | None = None) -> None:
        self._index = index
        self.is_asked: Callable[[], bool] = lambda: False
        self._pause_ends = 0.0  # by the monotonic clock
        self._device = device
        self._given = embedder
        self._loaded: tuple[str, Embedder] | None = None
        self._is_ending = False  # no lock: a signal's handler sets it

    def add(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Add documents, in place of those with the same ids; errors as for `build_index`."""
        return self._build(documents)

    def sync(self) -> dict[str, Any]:
        """Bring the index up to date with the folders it remembers; errors as for `build_index`."""
        return self._build(None)

    def remove(self, ids: Sequence[str], paths: Sequence[str]) -> dict[str, Any]:
        """Take documents, files and folders out; errors as for `indexing.remove`."""
        for path in paths:
            if not Path(path).is_absolute():
                raise InvalidInput(f"paths: {path!r} is not absolute; a document goes by its id, in ids")
        with self._writing():
            report = remove(paths, ids=ids, index=self._index, wait_s=WAIT_S)
        return {"done": True, "removed": report.documents, "missing": list(report.missing)}

    def end(self) -> None:
        """Let what is being written stop soon; the next run takes it up."""
        self._is_ending = True

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

    def _build(self, documents: Sequence[Document] | None) -> dict[str, Any]:
        with self._writing():
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

    @contextmanager
    def _writing(self) -> Iterator[None]:
        while (left := self._pause_ends - time.monotonic()) > 0 and self.is_asked():
            self._unless_ending()
            time.sleep(min(left, LOOK_S))
        self._unless_ending()
        started = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self._pause_ends = ended + min(PAUSE * (ended - started), MAX_PAUSE_S)
