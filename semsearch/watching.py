"""Keeps an index in step with its folders: a sync first, then one after each burst of changes.

What the system tells of changes is taken for a hint that there are some: every sync goes through all that is watched.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from semsearch.change_hints import ChangeHints
from semsearch.errors import IndexLocked, IndexNotFound, InvalidInput, SemsearchError
from semsearch.indexing import build_index, load_index_embedder
from semsearch.reports import IndexReport, Problem, Progress
from semsearch.roots import Root, gone_reason
from semsearch.store.files import DATABASE, absolute_path, index_path
from semsearch.store.info import inspect_index
from semsearch.store.metadata import Store

if TYPE_CHECKING:
    from typing import Unpack

    from semsearch.types import Embedder

__all__ = ["Watch", "WatchOptions", "watch"]

LOCKED_S = 1.0  # to wait for another writer before looking at whether to stop
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0  # between tries after an error; each is twice as long as the one before


class WatchOptions(TypedDict, total=False):
    """How an index is kept in step; each may be left out.

    Attributes:
        index: its name or the path of its folder; made if there is none.
        model: as for `build_index`, as are the others.
        device: where the model runs.
        precision: of the encoder.
        embedder: in place of these three; else one is loaded, once.
        globs: keep only files like these.
        excludes: leave out files like these.
    """

    index: str | Path
    model: str | None
    device: str
    precision: str
    embedder: Embedder | None
    globs: Sequence[str] | None
    excludes: Sequence[str] | None


def watch(
    paths: Sequence[str | Path] = (),
    *,
    on_report: Callable[[IndexReport], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    stop: threading.Event | None = None,
    **options: Unpack[WatchOptions],
) -> None:
    """Bring an index up to date and keep it so until told to stop.

    Args:
        paths: folders and files to watch; without any, all that the index remembers.
        on_report: told of the first sync and of each that changed something or found new problems.
        on_error: told why a later sync failed; it is tried again.
        stop: ends it, within a batch of passages where a sync is going on.
        options: as `WatchOptions` says.

    Raises:
        MissingExtra: watchfiles is not installed.
        SemsearchError: the first sync failed, as `build_index` says.
    """
    with Watch(paths, **options) as watcher:
        watcher.run(on_report=on_report, on_error=on_error, stop=stop)


class Watch:
    """The folders that are watched, and what brings their index up to date. For one thread."""

    def __init__(
        self,
        paths: Sequence[str | Path] = (),
        *,
        index: str | Path = "default",
        model: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        embedder: Embedder | None = None,
        globs: Sequence[str] | None = None,
        excludes: Sequence[str] | None = None,
    ) -> None:
        """Begin to take notice of changes of `paths`; other arguments as `WatchOptions` says, errors as for `watch`."""
        self.path = index_path(index)
        is_there = (self.path / DATABASE).is_file()
        if not paths and not is_there:
            raise IndexNotFound(f"there is no index in {self.path} whose folders could be watched; name a folder")
        self.roots = list(dict.fromkeys(map(absolute_path, paths))) or list(inspect_index(self.path).roots)
        if not self.roots:
            raise InvalidInput(f"the index {self.path} remembers no folder that could be watched; name one")
        for root in self.roots:
            if paths and not os.path.lexists(root):
                raise InvalidInput(f"{root} does not exist; give a folder or a file to watch")
        self._globs, self._excludes = globs, excludes
        self._hints = ChangeHints(self.roots)
        try:
            built = _model_facts(self.path) if is_there else {}
            self._embedder = embedder or load_index_embedder(self.path, built, model, device, precision)
        except BaseException:
            self._hints.close()
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._hints.close()

    def sync(
        self,
        *,
        progress: Callable[[Progress], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IndexReport | None:
        """Bring the index up to date; None where it was told to stop.

        Args:
            progress: as for `build_index`.
            on_error: told once that another process is writing to the index, which is waited for.
            stop: ends it within a batch of passages.

        Raises:
            SemsearchError: as `build_index` says.
        """

        def tell(state: Progress) -> None:
            if stop is not None and stop.is_set():
                raise _Stopped
            if progress is not None:
                progress(state)

        while stop is None or not stop.is_set():
            there = [root for root in self.roots if os.path.lexists(root)]
            try:
                report = build_index(
                    there,
                    index=self.path,
                    embedder=self._embedder,
                    wait_s=LOCKED_S,
                    progress=tell,
                    globs=self._globs if there else None,
                    excludes=self._excludes if there else None,
                )
            except _Stopped:
                return None
            except IndexLocked as error:
                if on_error is not None:
                    on_error(error)
                on_error = None
                continue
            gone = (Root(root) for root in self.roots if root not in there)
            lost = (Problem(root.path, gone_reason(root, self.path), failed=True) for root in gone)
            return replace(report, problems=(*report.problems, *lost))
        return None

    def run(
        self,
        *,
        after: IndexReport | None = None,
        on_report: Callable[[IndexReport], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Sync after changes until told to stop; at once, too, unless `after` tells of the sync that was made before.

        Other arguments and errors as for `watch`.
        """
        stop = stop or threading.Event()
        before, pause_s = after, FIRST_PAUSE_S
        if after is not None:
            self._hints.wait(stop)
        while not stop.is_set():
            try:
                report = self.sync(on_error=on_error, stop=stop)
            except (SemsearchError, OSError) as error:
                if before is None:
                    raise
                if on_error is not None:
                    on_error(error)
                stop.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if report is None:
                return
            if on_report is not None and _is_news(report, before):
                on_report(report)
            before, pause_s = report, FIRST_PAUSE_S
            self._hints.wait(stop)


class _Stopped(Exception):
    """A sync was told to stop."""


def _model_facts(path: Path) -> dict[str, object]:
    store = Store(path)
    try:
        with store.snapshot() as meta:
            return dict(meta["model"])
    finally:
        store.close()


def _is_news(report: IndexReport, before: IndexReport | None) -> bool:
    """Whether a sync did something, or found something that the one before had not."""
    known: Sequence[Problem] = before.problems if before is not None else ()
    counts = report.files
    return before is None or bool(counts.indexed or counts.removed) or set(report.problems) - set(known) != set()
