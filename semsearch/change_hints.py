"""What the system tells of changes to files: a hint to look, and no more. Needs watchfiles (extra `watch`)."""

from __future__ import annotations

import contextlib
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from semsearch.errors import MissingExtra
from semsearch.roots import covers
from semsearch.store.files import DATABASE, LOCK

__all__ = ["ChangeHints"]

QUIET_MS = 200  # without a change, after which a burst is over
BURST_MS = 3_000  # after which it is not waited for any longer
TICK_MS = 500  # between looks at whether to stop, and whether the roots are still the same folders
LOOK_S = 300.0  # after which all is looked at without a hint: some may have been lost
BLIND_LOOK_S = 10.0  # the same where the system gives no hints
SKIPPED_FOLDERS = frozenset(("node_modules", "__pycache__"))  # and hidden ones, as indexing leaves them out


class ChangeHints:
    """What the system tells of changes below some roots."""

    def __init__(self, roots: Sequence[str]) -> None:
        try:
            import watchfiles
        except ImportError as error:
            raise MissingExtra("watchfiles", "watch") from error
        self._watchfiles = watchfiles
        self._roots = roots
        self._begin()

    def _begin(self) -> None:
        """Watch what the roots are now; returns when that has begun."""
        self._identities = self._identify()
        there = [root for root, identity in zip(self._roots, self._identities, strict=True) if identity is not None]
        self._stop = threading.Event()
        self._changes: Iterator[object] | None = None
        if not there:
            return
        changes = self._watchfiles.watch(
            *there,
            watch_filter=lambda _, path: self._may_matter(path),
            debounce=BURST_MS,
            step=QUIET_MS,
            rust_timeout=TICK_MS,
            yield_on_timeout=True,
            stop_event=self._stop,
            ignore_permission_denied=True,
        )
        with contextlib.suppress(OSError, RuntimeError):  # such as the system's limit of watches: then it goes blind
            next(changes)
            self._changes = changes

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._changes = None

    def wait(self, stop: threading.Event) -> None:
        """Return when something may have changed, or it is time to look without a hint, or `stop` is set."""
        until = time.monotonic() + (LOOK_S if self._changes is not None else BLIND_LOOK_S)
        while not stop.is_set() and time.monotonic() < until:
            hinted = self._next(stop)
            if self._identities != self._identify():  # a root is gone, back, or another file of that name
                self.close()
                self._begin()
                return
            if hinted:
                return

    def _next(self, stop: threading.Event) -> bool:
        """Whether something has changed, told after a burst or, where nothing has, after TICK_MS."""
        if self._changes is None:
            stop.wait(TICK_MS / 1e3)
            return False
        try:
            return bool(next(self._changes))
        except (OSError, RuntimeError, StopIteration):  # the system gives no more hints
            self._changes = None
            return True

    def _identify(self) -> list[tuple[int, ...] | None]:
        """Device and inode of each root, of a file also when it changed; None for one that is not there.

        A file that takes the place of another may have the number of the one before that.
        """
        found: list[tuple[int, ...] | None] = []
        for root in self._roots:
            try:
                status = Path(root).stat()
            except OSError:
                found.append(None)
            else:
                changed = () if stat.S_ISDIR(status.st_mode) else (status.st_ctime_ns,)
                found.append((status.st_dev, status.st_ino, *changed))
        return found

    def _may_matter(self, path: str) -> bool:
        """Whether what lies there may be indexed: not in hidden folders, nor in indexes, which each sync writes to."""
        for root in self._roots:
            if covers(root, path):
                folders = Path(path).relative_to(root).parts[:-1]
                if any(name.startswith(".") or name in SKIPPED_FOLDERS for name in folders):
                    return False
        return not any((folder / LOCK).exists() and (folder / DATABASE).exists() for folder in Path(path).parents)
