"""Worker processes that read files ahead of the caller: one bad file never stops, hangs or fills the run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput, LoadError
from semsearch.loaders import limits
from semsearch.loaders.frames import decode_frame, read_frame, to_document, write_frame
from semsearch.processes import ChildProcess
from semsearch.types import Document

__all__ = ["LoaderPool"]

_MAX_BUFFERED_BYTES = 32 * 1024 * 1024
_FILES_AHEAD_PER_WORKER = 16
_WATCH_INTERVAL_S = 0.1
_START_TIMEOUT_S = 60.0
# Threads reserve address space: libraries' own ones, and glibc 64 MiB for what each thread allocates.
_FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_SIGKILL = 9  # Windows has no name for it
_SELF_ENDED = (4, 5, 6)  # SIGILL, SIGTRAP, SIGABRT: how PDFium ends the process when it is refused memory


class _Stopped(Exception):
    """The caller wants no more of this file."""


class _Job:
    """A file on its way.

    Attributes:
        path: the file.
        batches: (documents as lists, size in bytes) that wait for the caller.
        failure: why no more will come, once `is_done`.
        is_done: nothing more will be added.
        is_abandoned: the caller went on without taking the rest.
        is_head: the caller is at this file, so it must not wait for the others' buffers to empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: deque[tuple[list[Any], int]] = deque()
        self.failure: LoadError | None = None
        self.is_done = False
        self.is_abandoned = False
        self.is_head = False


class _Lane:
    """A thread's place: its worker, and when that worker will have been silent for too long."""

    def __init__(self) -> None:
        self.worker: ChildProcess | None = None
        self.deadline: float | None = None
        self.timed_out = False

    def drop(self) -> int:
        """End the worker; the next file gets a new one. Answers its exit code, 0 without one."""
        worker, self.worker, self.deadline = self.worker, None, None
        return worker.stop() if worker else 0


class LoaderPool:
    """Reads files in worker processes, in the order given, ahead of the caller and within limits.

    A worker that is silent for `timeout_s`, or dies, is replaced, and its file fails with a `LoadError`. Processes
    start with the first file and end with the `with` block; they also end by themselves when this process does.

    Args:
        n_workers: processes at most.
        text_column: column of tables that holds the text; None takes the likeliest.
        timeout_s: longest wait for the next message about a file, in seconds; the time the caller takes does not count.
        memory_bytes: limit of each worker's address space (Linux); 0 sets none.
    """

    def __init__(
        self,
        n_workers: int = 2,
        *,
        text_column: str | None = None,
        timeout_s: float = limits.FILE_TIMEOUT_S,
        memory_bytes: int = limits.WORKER_MEMORY_BYTES,
    ) -> None:
        if n_workers < 1:
            raise InvalidInput(f"n_workers is {n_workers}; a pool needs at least 1")
        self._n_workers = n_workers
        self._text_column = text_column
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[_Job] = deque()
        self._lanes = [_Lane() for _ in range(n_workers)]
        self._threads: list[threading.Thread] = []
        self._buffered_bytes = 0
        self._is_closed = False
        self._closing = threading.Event()  # the same, for the thread that waits without the lock

    def __enter__(self) -> LoaderPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; nothing can be loaded afterwards."""
        self._closing.set()
        with self._changed:
            self._is_closed = True
            for lane in self._lanes:
                if lane.worker is not None:
                    lane.worker.process.kill()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def load_all(self, paths: Iterable[Path]) -> Iterator[tuple[Path, Iterator[Document]]]:
        """Yield (path, its documents) in the order given; `paths` is read a little ahead of the caller.

        The documents of a file are to be taken before the next file is asked for: what is left of them then is dropped.

        Raises:
            LoadError: from a file's iterator, when that file cannot be read; documents may have come before.
            InvalidInput: the pool has been closed.
        """
        self._start()
        source = iter(paths)
        ahead: deque[_Job] = deque()
        try:
            while True:
                while len(ahead) < self._n_workers * _FILES_AHEAD_PER_WORKER:
                    path = next(source, None)
                    if path is None:
                        break
                    ahead.append(_Job(path))
                    with self._changed:
                        self._waiting.append(ahead[-1])
                        self._changed.notify_all()
                if not ahead:
                    return
                with self._changed:
                    ahead[0].is_head = True
                    self._changed.notify_all()
                yield ahead[0].path, self._documents(ahead[0])
                self._abandon([ahead.popleft()])
        finally:
            self._abandon(ahead)

    def _start(self) -> None:
        """Start the threads, once."""
        with self._changed:
            if self._is_closed:
                raise InvalidInput("this LoaderPool has been closed")
            if self._threads:
                return
            self._threads = [
                *(threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in self._lanes),
                threading.Thread(target=self._watch, daemon=True),
            ]
        for thread in self._threads:
            thread.start()

    def _documents(self, job: _Job) -> Iterator[Document]:
        while True:
            with self._changed:
                while not (job.batches or job.is_done or job.is_abandoned or self._is_closed):
                    self._changed.wait(1.0)  # with a limit, so that Windows sees Ctrl-C
                if job.is_abandoned or (self._is_closed and not job.is_done):
                    raise InvalidInput(f"{job.path}: its documents were asked for too late")
                if not job.batches:
                    break
                batch, n_bytes = job.batches.popleft()
                self._buffered_bytes -= n_bytes
                self._changed.notify_all()
            yield from map(to_document, batch)
        if job.failure is not None:
            raise job.failure

    def _abandon(self, jobs: Iterable[_Job]) -> None:
        with self._changed:
            for job in jobs:
                job.is_abandoned = True
                self._buffered_bytes -= sum(n_bytes for _, n_bytes in job.batches)
                job.batches.clear()
                with contextlib.suppress(ValueError):
                    self._waiting.remove(job)
            self._changed.notify_all()

    def _run(self, lane: _Lane) -> None:
        """A lane's thread: take the next file, read it through the lane's worker."""
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    break
                job = self._waiting.popleft()
            try:
                self._read(lane, job)
            except LoadError as error:
                job.failure = error
            except _Stopped:
                lane.drop()
            except Exception as error:  # whatever happened, the caller must not wait for ever
                lane.drop()
                job.failure = LoadError(f"the worker process could not be used: {error}", retry=True)
            with self._changed:
                job.is_done = True
                self._changed.notify_all()
        lane.drop()

    def _read(self, lane: _Lane, job: _Job) -> None:
        """Have the worker read a file and put what it sends where the caller takes it."""
        worker = self._ready_worker(lane)
        with contextlib.suppress(BrokenPipeError):  # shows as the end of its answers
            write_frame(worker.stdin, {"path": str(job.path), "text_column": self._text_column})
        while True:
            message = self._next_message(lane, worker, self._timeout_s)
            if message is None:
                raise self._death(lane)
            body, n_bytes = message
            if "error" in body:
                if body["spent"]:
                    lane.drop()  # what it holds on to could fail the next file as well
                raise LoadError(body["error"], skipped=body["skipped"], retry=body["retry"])
            if "documents" not in body:
                return
            self._put(job, body["documents"], n_bytes)

    def _ready_worker(self, lane: _Lane) -> ChildProcess:
        """The lane's worker, or a new one that has said it is ready."""
        if lane.worker is not None and lane.worker.process.poll() is None:
            return lane.worker
        lane.drop()
        with self._changed:
            if self._is_closed:
                raise _Stopped
            lane.worker = worker = ChildProcess(
                "semsearch.loaders.worker",
                {"memory_bytes": self._memory_bytes, "timeout_s": self._timeout_s},
                environment=_FEW_THREADS,
            )
        if self._next_message(lane, worker, _START_TIMEOUT_S) is None:
            code = lane.drop()
            raise LoadError(f"the worker process could not start (exit code {code})", retry=True)
        return worker

    def _next_message(self, lane: _Lane, worker: ChildProcess, timeout_s: float) -> tuple[Any, int] | None:
        """The worker's next message and its size in bytes; None when it died or was ended for its silence."""
        with self._changed:
            lane.timed_out = False
            lane.deadline = time.monotonic() + timeout_s
        try:
            body = read_frame(worker.stdout)
        finally:
            with self._changed:
                lane.deadline = None
        return None if body is None else (decode_frame(body), len(body))

    def _death(self, lane: _Lane) -> LoadError:
        """Say why a worker ended in the middle of a file."""
        with self._changed:
            timed_out = lane.timed_out
            if self._is_closed:
                raise _Stopped
        code = lane.drop()
        if timed_out:
            return LoadError(f"took longer than {self._timeout_s:g} s", retry=True)  # the machine may have been busy
        if code == -_SIGKILL:
            return LoadError("needs more memory than there is (the system ended the parser)")
        if -code in _SELF_ENDED:
            limit = limits.readable_bytes(self._memory_bytes) + " of memory" if self._memory_bytes else "the memory"
            return LoadError(f"damaged, or needs more than {limit} (the parser ended itself, exit code {code})")
        return LoadError(f"the parser crashed (exit code {code})")

    def _put(self, job: _Job, batch: list[Any], n_bytes: int) -> None:
        """Hand a batch over, waiting while too much is buffered; the file the caller is at may always hold one."""
        with self._changed:
            while (
                not (self._is_closed or job.is_abandoned)
                and self._buffered_bytes + n_bytes > _MAX_BUFFERED_BYTES
                and not (job.is_head and not job.batches)
            ):
                self._changed.wait()
            if self._is_closed or job.is_abandoned:
                raise _Stopped
            job.batches.append((batch, n_bytes))
            self._buffered_bytes += n_bytes
            self._changed.notify_all()

    def _watch(self) -> None:
        """End workers that have been silent for too long."""
        while not self._closing.wait(_WATCH_INTERVAL_S):
            with self._changed:
                now = time.monotonic()
                for lane in self._lanes:
                    if lane.worker is not None and lane.deadline is not None and now > lane.deadline:
                        lane.timed_out, lane.deadline = True, None
                        lane.worker.process.kill()
