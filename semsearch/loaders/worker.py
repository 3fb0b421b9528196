"""A worker process: reads paths from stdin, writes documents to stdout, and dies with its parent.

The first message out is `{"ready": true}`. A message in is `{"path": ..., "text_column": ...}`; the answer is any
number of `{"documents": [...]}`, then `{"end": true}`, or `{"error": reason}` with the flags `skipped`, `retry` and
`spent`. A spent worker has run out of memory and is to be replaced.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from semsearch.errors import LoadError
from semsearch.loaders.frames import batches, decode_frame, read_frame, write_frame
from semsearch.loaders.limits import readable_bytes
from semsearch.processes import private_stdout

__all__ = ["main"]

_GRACE_S = 15.0


def main(memory_bytes: int, timeout_s: float) -> None:
    """Serve until stdin ends.

    Args:
        memory_bytes: limit of the address space, where the system knows one; 0 sets none.
        timeout_s: longest a file may take, in seconds, should the parent no longer be there to watch.
    """
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    requests, answers = sys.stdin.buffer, private_stdout()
    _limit_memory(memory_bytes)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    with Path(os.devnull).open("w") as sink, contextlib.suppress(BrokenPipeError):
        answerer = _Answerer(answers, sink, memory_bytes, timeout_s)
        answerer.send({"ready": True})
        while True:
            answerer.serve(inbox.get())


def _limit_memory(memory_bytes: int) -> None:
    if not memory_bytes or sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[Any]) -> None:
    """Pass requests on, and end the process when the parent is gone, even in the middle of a file."""
    while (body := read_frame(requests)) is not None:
        inbox.put(decode_frame(body))
    os._exit(0)


class _Answerer:
    """Answers requests; `sink` takes the trace of a file that ran out of time."""

    def __init__(self, answers: BinaryIO, sink: TextIO, memory_bytes: int, timeout_s: float) -> None:
        self._answers = answers
        self._sink = sink
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s

    def send(self, message: Any) -> None:
        """Write a message; waiting for the parent to take it is not the file's fault."""
        faulthandler.cancel_dump_traceback_later()
        write_frame(self._answers, message)

    def _watch(self) -> None:
        """Have a timer that needs no interpreter lock end the process, should a parser hold it for ever."""
        faulthandler.dump_traceback_later(self._timeout_s + _GRACE_S, exit=True, file=self._sink)

    def serve(self, request: Any) -> None:
        """Answer one request."""
        from semsearch.loaders.formats import load

        self._watch()
        try:
            for batch in batches(load(Path(request["path"]), text_column=request["text_column"])):
                self.send({"documents": batch})
                self._watch()
            self.send({"end": True})
        except BrokenPipeError:
            raise
        except LoadError as error:
            if isinstance(error.__cause__, MemoryError):
                self._fail(self._memory_reason(), spent=True)
            else:
                self._fail(error.reason, skipped=error.skipped, retry=error.retry)
        except MemoryError:
            self._fail(self._memory_reason(), spent=True)
        except Exception as error:  # nothing else may end the process: the parent would call it a crash
            self._fail(f"cannot be read: {type(error).__name__}: {error}")

    def _memory_reason(self) -> str:
        if not self._memory_bytes:
            return "needs more memory than there is"
        return f"needs more than {readable_bytes(self._memory_bytes)} of memory"

    def _fail(self, reason: str, *, skipped: bool = False, retry: bool = False, spent: bool = False) -> None:
        self.send({"error": reason, "skipped": skipped, "retry": retry, "spent": spent})
