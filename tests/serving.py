"""A service on a free port of the loopback interface, in a thread of the test's process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from semsearch.server.app import create_app
from semsearch.server.protocol import ImpatientProtocol
from semsearch.server.service import Service
from semsearch.server.settings import Settings

LOOPBACK = "127.0.0.1"


def allow_loopback(patch: pytest.MonkeyPatch) -> None:
    """Let a test connect to this machine, and to nothing else."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        is_here = self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] == LOOPBACK)
        if not is_here:
            raise AssertionError(f"a connection to {address!r} was attempted")
        real(self, address)  # type: ignore[arg-type]

    patch.setattr(socket.socket, "connect", connect)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and nobody has asked for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextlib.contextmanager
def served(service: Service, settings: Settings) -> Iterator[int]:
    """The port on which the service answers while the context lasts."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        config = uvicorn.Config(
            create_app(service, settings), http=ImpatientProtocol, log_config=None, access_log=False, ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
