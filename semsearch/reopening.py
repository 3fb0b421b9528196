"""A searcher for what lives longer than an index may: opened again where the index was replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from semsearch.searching import Searcher

__all__ = ["CurrentSearcher"]


class _Opened:
    """A searcher and how many use it. It is closed by the last of them once it is no longer wanted."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.n_users = 0
        self.is_wanted = True


class CurrentSearcher:
    """The searcher of an index as it is at its path. Safe to use from several threads."""

    def __init__(
        self, path: Path, open_searcher: Callable[[], Searcher], *, on_replaced: Callable[[], None] | None = None
    ) -> None:
        """Nothing is opened before it is needed.

        Args:
            path: the folder of the index.
            open_searcher: opens the index; called by one thread at a time.
            on_replaced: called before that where it was open, and was replaced or built anew with another model.
        """
        self.path = path
        self._open_searcher = open_searcher
        self._on_replaced = on_replaced
        self._opening = threading.Lock()
        self._lock = threading.Lock()  # guards what follows; never held while an index is asked
        self._opened: _Opened | None = None

    @contextmanager
    def use(self) -> Iterator[Searcher]:
        """A searcher that stays open as long as the context lasts.

        Raises:
            IndexNotFound, IndexIncompatible, IndexCorrupt, ModelError: as for `Searcher.open`.
        """
        opened = self._take()
        if opened is None or not self._is_current(opened):
            opened = self._renew(opened)
        try:
            yield opened.searcher
        finally:
            self._let_go(opened)

    @contextmanager
    def use_if_open(self) -> Iterator[Searcher | None]:
        """The searcher that is open, be it current or not; None where none is."""
        opened = self._take()
        try:
            yield opened.searcher if opened is not None else None
        finally:
            if opened is not None:
                self._let_go(opened)

    def close(self) -> None:
        """Let go of the index once those that use it are done; it is opened again when it is needed."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            self._drop(opened)

    def _take(self) -> _Opened | None:
        with self._lock:
            if self._opened is not None:
                self._opened.n_users += 1
            return self._opened

    def _let_go(self, opened: _Opened) -> None:
        with self._lock:
            opened.n_users -= 1
            is_last = not opened.is_wanted and not opened.n_users
        if is_last:
            opened.searcher.close()

    def _drop(self, opened: _Opened) -> None:
        """Close it now, or have its last user do so."""
        with self._lock:
            opened.is_wanted = False
            is_unused = not opened.n_users
        if is_unused:
            opened.searcher.close()

    def _is_current(self, opened: _Opened) -> bool:
        """Whether it still is the index; it is let go of where it is not."""
        is_current = False
        try:
            is_current = opened.searcher.is_current()
        finally:
            if not is_current:
                self._let_go(opened)
        return is_current

    def _renew(self, before: _Opened | None) -> _Opened:
        """The index opened again, by the first of those that found `before` out of date."""
        with self._opening:
            opened = self._take()
            if opened is not None and opened is not before:
                return opened
            if opened is not None:
                self._let_go(opened)
                self.close()
                if self._on_replaced is not None:
                    self._on_replaced()
            fresh = _Opened(self._open_searcher())
            fresh.n_users = 1
            with self._lock:
                self._opened = fresh
            return fresh
