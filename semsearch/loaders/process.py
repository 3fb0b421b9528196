"""Starting and ending a worker process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, BinaryIO, cast

__all__ = ["WorkerProcess"]

# Run with -I, so neither the working directory nor PYTHONPATH can shadow a module. The first line of stdin tells where
# this very package lies and what else the parent could import; the package's own start is skipped, as it loads more.
_BOOTSTRAP = """
import json, sys, types
start = json.loads(sys.stdin.buffer.readline())
sys.path += [entry for entry in start["path"] if entry not in sys.path]
package = types.ModuleType("semsearch")
package.__path__ = [start["package"]]
sys.modules["semsearch"] = package
from semsearch.loaders.worker import main
main(start["memory_bytes"], start["timeout_s"])
"""


class WorkerProcess:
    """A child that runs `worker.main`.

    Args:
        memory_bytes: limit of its address space; 0 sets none.
        timeout_s: longest a file may take, in seconds, before the child ends itself.
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        # Threads reserve address space: libraries' own ones, and glibc 64 MiB for what each thread allocates.
        few_threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-X", f"utf8={sys.flags.utf8_mode}", "-c", _BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **few_threads},
        )
        start = {
            "package": str(Path(__file__).resolve().parents[1]),
            "path": [entry for entry in sys.path if Path(entry).is_absolute()],
            "memory_bytes": memory_bytes,
            "timeout_s": timeout_s,
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
