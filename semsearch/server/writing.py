"""Changes to the index of a service, one at a time, while it goes on answering."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput
from semsearch.server.changes import Change, Changes, Stopped
from semsearch.types import Document

__all__ = ["Writer"]

# While others ask, the pause after a change is so many times as long as it took, up to a limit: changes without a pause
# would keep a core's caches and the disk busy.
PAUSE = 3.0
MAX_PAUSE_S = 1.0
LOOK_S = 0.05  # between looks at whether others still ask


class Writer:
    """Writes to one index. Its methods are called one after the other.

    Attributes:
        is_asked: whether others wait for answers, so that a change has to wait after the one before.
        is_ending: whether the service ends, which gives up what is not made yet.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.is_asked: Callable[[], bool] = lambda: False
        self._pause_ends = 0.0  # by the monotonic clock
        self.is_ending = False  # no lock: a signal's handler sets it

    def add(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Add documents, in place of those with the same ids; errors as for `build_index`."""
        given = [{"id": d.id, "text": d.text, "title": d.title, "metadata": dict(d.metadata)} for d in documents]
        return self._made({"documents": given})

    def sync(self) -> dict[str, Any]:
        """Bring the index up to date with the folders it remembers; errors as for `build_index`."""
        return self._made({})

    def remove(self, ids: Sequence[str], paths: Sequence[str]) -> dict[str, Any]:
        """Take documents, files and folders out; errors as for `indexing.remove`."""
        for path in paths:
            if not Path(path).is_absolute():
                raise InvalidInput(f"paths: {path!r} is not absolute; a document goes by its id, in ids")
        return self._made({"ids": list(ids), "paths": list(paths)})

    def end(self) -> None:
        """Let what is being written stop soon; the next run takes it up."""
        self.is_ending = True
        self._changes.end()

    def close(self) -> None:
        """Let go of what makes the changes."""
        self._changes.close()

    def _made(self, change: Change) -> dict[str, Any]:
        """What came of a change, once it is its turn."""
        while (left := self._pause_ends - time.monotonic()) > 0 and self.is_asked() and not self.is_ending:
            time.sleep(min(left, LOOK_S))
        if self.is_ending:
            raise Stopped
        started = time.monotonic()
        try:
            return self._changes.make(change)
        finally:
            ended = time.monotonic()
            self._pause_ends = ended + min(PAUSE * (ended - started), MAX_PAUSE_S)
