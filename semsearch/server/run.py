"""Running the service until a signal ends it."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable

import uvicorn

from semsearch.errors import InvalidInput
from semsearch.server.app import create_app
from semsearch.server.service import Service
from semsearch.server.settings import Settings

__all__ = ["serve"]

GRACE_S = 15  # for requests in flight when the service is told to end


def serve(service: Service, settings: Settings, *, on_start: Callable[[str], None]) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish those in flight.

    Args:
        service: answers from the index.
        settings: where it listens, and limits.
        on_start: called with the address of the page once requests are taken.

    Raises:
        InvalidInput: it cannot listen there.
    """
    listener = _listen(settings.host, settings.port)
    with listener:
        service.warm_up()
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            create_app(service, settings),
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
        for name in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it is done: that is the end
            signal.signal(name, lambda *_: None)
        on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        uvicorn.Server(config).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InvalidInput(
                f"port {port} of {host} is taken, perhaps by another semsearch serve; give another: --port {port + 1}"
            ) from error
        raise InvalidInput(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener
