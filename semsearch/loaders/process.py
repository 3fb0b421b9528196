"""Starting and ending a process that works for this one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

__all__ = ["ChildProcess", "private_stdout"]

# Run with -I, so neither the working directory nor PYTHONPATH can shadow a module. The first line of stdin tells where
# this very package lies and what else the parent could import; the package's own start is skipped, as it loads more.
_BOOTSTRAP = """
import importlib, json, sys, types
start = json.loads(sys.stdin.buffer.readline())
sys.path += [entry for entry in start["path"] if entry not in sys.path]
package = types.ModuleType("semsearch")
package.__path__ = [start["package"]]
sys.modules["semsearch"] = package
importlib.import_module(start["module"]).main(**start["arguments"])
"""


class ChildProcess:
    """A child that runs `main` of a module of this package. Messages go in and out as frames.

    Args:
        module: its full name.
        arguments: of `main`, as JSON can tell them.
        environment: variables that the child has beside those of this process.
    """

    def __init__(
        self, module: str, arguments: Mapping[str, Any], *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        start = {
            "package": str(Path(__file__).resolve().parents[1]),
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
