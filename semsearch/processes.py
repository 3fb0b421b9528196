"""Processes that work for this one: starting and ending them, and what they do on their side."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from semsearch import errors
from semsearch.errors import SemsearchError

__all__ = ["NICENESS", "ChildProcess", "as_error", "private_stdout", "stay_behind", "told_error"]

# A tenth of what a search has of a core while both want it: with 19, a change waited 10 s beside searches that rerank.
NICENESS = 10

# Run with -I, so neither the working directory nor PYTHONPATH can shadow a module. The first line of stdin tells where
# this very package lies and what else the parent could import; the package's own start is skipped, as it loads more.
_BOOTSTRAP = """
import importlib, json, sys, types
start = json.loads(sys.stdin.buffer.readline())
sys.path += [entry for entry in start["path"] if entry not in sys.path]
package = types.ModuleType("semsearch")
package.__path__ = [start["package"]]
package.__version__ = start["version"]
sys.modules["semsearch"] = package
importlib.import_module(start["module"]).main(**start["arguments"])
"""


class ChildProcess:
    """A child that runs `main` of a module of this package. Messages go in and out as frames.

    Args:
        module: its full name.
        arguments: of `main`, as JSON can tell them.
        environment: variables that the child has beside those of this process.
        is_heard: whether its stderr is that of this process; else what it writes there goes nowhere.
    """

    def __init__(
        self,
        module: str,
        arguments: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        is_heard: bool = False,
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if is_heard else subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        start = {
            "package": str(Path(__file__).resolve().parent),
            "version": sys.modules["semsearch"].__version__,
            "path": [entry for entry in sys.path if Path(entry).is_absolute()],
            "module": module,
            "arguments": arguments,
        }
        with contextlib.suppress(OSError):  # a child that cannot start shows at the first answer
            self.stdin.write(json.dumps(start).encode() + b"\n")
            self.stdin.flush()

    @property
    def stdin(self) -> BinaryIO:
        """Where requests go."""
        return cast(BinaryIO, self.process.stdin)

    @property
    def stdout(self) -> BinaryIO:
        """Where answers come from."""
        return cast(BinaryIO, self.process.stdout)

    def dismiss(self) -> None:
        """Tell the process to end soon, by the end of its stdin. A signal's handler may do so."""
        with contextlib.suppress(OSError, ValueError):
            self.stdin.close()

    def end(self, patience_s: float) -> int:
        """Dismiss the process, and kill it where it has not ended after so many seconds; as `stop` then."""
        self.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        return self.stop()

    def stop(self) -> int:
        """Kill the process, close its pipes and answer the exit code it had or got."""
        with contextlib.suppress(OSError):
            self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                cast(IO[bytes], pipe).close()
        return code


def private_stdout() -> BinaryIO:
    """In a child, keep stdout for messages: what a library prints goes nowhere."""
    private = os.fdopen(os.dup(1), "wb")
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.close(sink)
    return private


def stay_behind() -> None:
    """In a child, leave the processor to others while they want it, and signals that end programs to the parent."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)


def told_error(error: Exception) -> tuple[str, str]:
    """An error as a message can hold it: its kind and its text, and its traceback unless it is meant for users."""
    is_meant = isinstance(error, SemsearchError)
    return type(error).__name__, str(error) if is_meant else "".join(traceback.format_exception(error))


def as_error(kind: str, text: str) -> Exception:
    """The error that another process told of."""
    named = getattr(errors, kind, None)
    if not isinstance(named, type) or not issubclass(named, SemsearchError):
        return RuntimeError(text)
    error = named.__new__(named, text)  # some are made from more than their text
    error.args = (text,)
    return error
