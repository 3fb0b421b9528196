"""Signs of life on stderr while work is done; nothing at all where stderr is not a terminal."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from semsearch.cli.output import clean_line
from semsearch.cli.render import open_console

if TYPE_CHECKING:
    from semsearch.reports import Progress

__all__ = ["Pace", "counting", "indexing", "stages", "waiting"]

WINDOW_S = 120.0  # files come in bursts, because passages are encoded many at a time
STEP_S = 0.1  # reports closer together than this count as one


class Pace:
    """Speed over the last WINDOW_S seconds, so that files found unchanged do not promise a fast end for long."""

    def __init__(self) -> None:
        self._seen: deque[Progress] = deque()

    def add(self, state: Progress) -> None:
        """Note a report."""
        if len(self._seen) > 1 and state.elapsed_s - self._seen[-2].elapsed_s < STEP_S:
            self._seen.pop()
        self._seen.append(state)
        while len(self._seen) > 2 and self._seen[1].elapsed_s < state.elapsed_s - WINDOW_S:
            self._seen.popleft()

    @property
    def passages_per_s(self) -> float:
        """Passages encoded or reused a second; 0 while nothing is known."""
        first, last = self._seen[0], self._seen[-1]
        return (last.chunks_done - first.chunks_done) / max(last.elapsed_s - first.elapsed_s, STEP_S)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until all files are done at this speed; None while nothing is known."""
        first, last = self._seen[0], self._seen[-1]
        n_files = last.files_done - first.files_done
        if n_files <= 0:
            return None
        return (last.files_total - last.files_done) * (last.elapsed_s - first.elapsed_s) / n_files


@contextmanager
def indexing(what: str = "files") -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar for a run of `build_index` over files or documents, fed by what it yields."""
    console = open_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{what}, looking for what changed", total=None)
        pace, name = Pace(), ""

        def show(state: Progress) -> None:
            nonlocal name
            pace.add(state)
            name = clean_line(Path(state.path).name) or name
            note = f"{what}, {pace.passages_per_s:,.0f} passages/s, {_time_left(pace, state)}  {name}"
            bar.update(task, total=state.files_total, completed=state.files_done, description=note)

        yield show


def _time_left(pace: Pace, state: Progress) -> str:
    if state.files_done >= state.files_total:
        return "all read, finishing"  # passages of the last files may still wait to be encoded
    left = pace.remaining_s
    return "time left unknown" if left is None else f"{timedelta(seconds=round(left))} left"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar for things that are dealt with one by one, fed by (number done, number of all)."""
    console = open_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda n_done, n_all: bar.update(task, completed=n_done, total=n_all)


def waiting(what: str) -> AbstractContextManager[object]:
    """A spinner while models load; only where the results go to a terminal too."""
    console = open_console(stderr=True)
    return console.status(f"{what} …") if console.is_terminal and sys.stdout.isatty() else nullcontext()


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None] | None]:
    """A line for work in several stages: what is being done, how much of it is done, how much there is (0: unknown)."""
    console = open_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    counts = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *counts)
    with Bar(*columns, console=console, transient=True) as bar:
        task, before = bar.add_task("starting", total=None), ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal before
            if what != before:
                bar.reset(task)
                before = what
            bar.update(task, description=what, completed=done, total=total or None)

        yield show
