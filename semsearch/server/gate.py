"""The gate to the threads that search: a bounded queue, and a time within which each request is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Busy", "Gate", "TookTooLong"]

T = TypeVar("T")


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

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a thread."""
        return max(0, self._n_inside - self._n_threads)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of some work.

        Raises:
            Busy: too many wait already.
            TookTooLong: it was not done in time. What waits is dropped; what has begun ends by itself, and keeps its
                place until then.
        """
        if self._n_inside >= self._n_most:
            raise Busy
        loop = asyncio.get_running_loop()
        self._n_inside += 1
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._left(loop))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s)
        except asyncio.TimeoutError as error:  # TimeoutError itself only since Python 3.11
            raise TookTooLong from error

    def close(self) -> None:
        """Drop what waits and let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _left(self, loop: asyncio.AbstractEventLoop) -> None:
        def leave() -> None:
            self._n_inside -= 1

        if not loop.is_closed():
            loop.call_soon_threadsafe(leave)
