"""Watching folders for a service, in a process that leaves the processor to searches."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TypeVar

from semsearch.cli.watch import tell_error, teller
from semsearch.errors import SemsearchError
from semsearch.loaders.frames import decode_frame, read_frame, write_frame
from semsearch.processes import ChildProcess, as_error, private_stdout, stay_behind, told_error
from semsearch.watching import Watch

__all__ = ["main", "watching_beside"]

T = TypeVar("T")
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
            child.dismiss()
            heeding.join(END_S)
    finally:
        child.end(0)


def main(index: str, device: str) -> None:
    """Watch until stdin ends; the other side of `watching_beside`."""
    stay_behind()
    answers = private_stdout()
    stop, has_begun = threading.Event(), False
    threading.Thread(target=_stop_at_the_end, args=(sys.stdin.buffer, stop), daemon=True).start()
    with suppress(OSError):
        try:
            with Watch(index=index, device=device) as watcher:
                write_frame(answers, None)
                has_begun = True
                watcher.run(on_report=_heard_or_not(teller()), on_error=_heard_or_not(tell_error), stop=stop)
        except Exception as error:  # nobody else would tell of it
            if has_begun:
                tell_error(error)
            else:
                write_frame(answers, told_error(error))
    os._exit(0)  # the thread that still reads holds stdin, which the interpreter's own end would wait for


def _heard_or_not(tell: Callable[[T], None]) -> Callable[[T], None]:
    """The same, but that nobody reads what is told is no reason not to go on."""

    def told(value: T) -> None:
        with suppress(OSError):
            tell(value)

    return told


def _stop_at_the_end(stream: BinaryIO, stop: threading.Event) -> None:
    try:
        stream.read()
    finally:
        stop.set()
