"""The gate to the threads that search: a bounded queue, and a time within which each request is answered."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Busy", "Gate", "TookTooLong"]

MOMENT_S = 0.25  # in which somebody who was answered may ask again
T = TypeVar("T")
_logger = logging.getLogger("semsearch.server")


class Busy(Exception):
    """As many requests wait as may."""


class TookTooLong(Exception):
    """A request was not answered within its time."""


class Gate:
    """Runs work in a few threads. Its methods belong to the event loop."""

    def __init__(self, *, n_threads: int, max_waiting: int, timeout_s: float) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="search")
        self._n_threads = n_threads
        self._n_most = n_threads + max_waiting
        self._timeout_s = timeout_s
        self._n_inside = 0
        self._left_at = -math.inf  # by the monotonic clock, when the last one was done

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a thread."""
        return max(0, self._n_inside - self._n_threads)

    @property
    def is_busy(self) -> bool:
        """Whether work is being done or waits."""
        return self._n_inside > 0

    def is_used(self) -> bool:
        """Whether somebody waits for an answer, or did a moment ago and may ask again. May be asked from any thread."""
        return self.is_busy or time.monotonic() - self._left_at < MOMENT_S

    def check(self) -> None:
        """Raise Busy where too many wait already."""
        if self._n_inside >= self._n_most:
            raise Busy

    async def run(self, work: Callable[[], T], *, keep: bool = False) -> T:
        """The result of some work.

        Args:
            work: called in a thread.
            keep: whether it is done all the same when its time is over.

        Raises:
            Busy: too many wait already.
            TookTooLong: it was not done in time. Unless it is kept, it is dropped where it has not begun; else it
                ends by itself, and has its place until then.
        """
        self.check()
        loop = asyncio.get_running_loop()
        self._n_inside += 1
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._left(loop))
        try:
            wrapped = asyncio.wrap_future(future)
            return await asyncio.wait_for(asyncio.shield(wrapped) if keep else wrapped, self._timeout_s)
        except asyncio.TimeoutError as error:  # TimeoutError itself only since Python 3.11
            future.add_done_callback(_log_failure)
            raise TookTooLong from error

    def close(self) -> None:
        """Drop what waits and let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _left(self, loop: asyncio.AbstractEventLoop) -> None:
        def leave() -> None:
            self._n_inside -= 1
            self._left_at = time.monotonic()

        if not loop.is_closed():
            loop.call_soon_threadsafe(leave)


def _log_failure(future: Future[Any]) -> None:
    """Tell of work that failed when nobody waited for it any more."""
    error = None if future.cancelled() else future.exception()
    if error is not None and not isinstance(error, CancelledError):
        _logger.error("%s: %s", type(error).__name__, error)
