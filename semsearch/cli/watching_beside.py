"""Watching folders for a service, in a process that leaves the processor to searches."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from semsearch.cli.watch import tell_error, teller
from semsearch.errors import SemsearchError
from semsearch.loaders.frames import decode_frame, read_frame, write_frame
from semsearch.processes import ChildProcess, as_error, private_stdout, stay_behind, told_error
from semsearch.watching import Watch

__all__ = ["main", "watching_beside"]

END_S = 10.0  # for a sync that was told to stop; killed after it, nothing that was committed is lost


@contextmanager
def watching_beside(index: str, device: str) -> Iterator[None]:
    """Keep an index in step with its folders while the context lasts; the process says on stderr what it did.

    Raises:
        SemsearchError: there is nothing to watch, as `Watch` says.
    """
    child = ChildProcess(__name__, {"index": index, "device": device}, is_heard=True)
    is_ending = threading.Event()

    def heed() -> None:
        child.stdout.read()
        if not is_ending.is_set():
            code = child.process.wait()
            tell_error(SemsearchError(f"the folders are no longer watched: its process ended with exit status {code}"))

    try:
        begun = read_frame(child.stdout)
        if begun is None:
            raise SemsearchError(f"the process that watches the folders ended with exit status {child.stop()}")
        if error := decode_frame(begun):
            raise as_error(*error)
        heeding = threading.Thread(target=heed, name="watch")
        heeding.start()
        try:
            yield
        finally:
            is_ending.set()
            child.process.terminate()
            heeding.join(END_S)
    finally:
        child.end(0)


def main(index: str, device: str) -> None:
    """Watch until stdin ends or SIGTERM comes; the other side of `watching_beside`."""
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    stop = threading.Event()  # set by this thread alone: a signal's handler could find its lock held
    stay_behind(lambda: ended.put(None))
    answers = private_stdout()

    def work() -> None:
        has_begun = False
        try:
            with Watch(index=index, device=device) as watcher:
                write_frame(answers, None)
                has_begun = True
                watcher.run(on_report=teller(), on_error=tell_error, stop=stop)
        except Exception as error:  # nobody else would tell of it
            if has_begun:
                tell_error(error)
            else:
                write_frame(answers, told_error(error))
        ended.put(None)

    def until_the_end() -> None:
        sys.stdin.buffer.read()
        ended.put(None)

    watching = threading.Thread(target=work)
    watching.start()
    threading.Thread(target=until_the_end, daemon=True).start()
    ended.get()
    stop.set()
    watching.join()
    os._exit(0)  # the thread that still reads holds stdin, which the interpreter's own end would wait for
