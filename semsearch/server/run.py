"""Running the service until a signal ends it."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from semsearch.errors import InvalidInput
from semsearch.running import listening
from semsearch.server.app import create_app
from semsearch.server.origins import is_loopback
from semsearch.server.protocol import ImpatientProtocol
from semsearch.server.service import Service
from semsearch.server.settings import Settings

__all__ = ["check", "serve"]

BACKLOG = 2_048
DEBUG_VARIABLE = "SEMSEARCH_DEBUG"  # as for every command: it shows where a fault of ours is
GRACE_S = 15  # for requests in flight when the service is told to end


def check(settings: Settings) -> None:
    """Refuse what would open an index to a network unguarded.

    Raises:
        InvalidInput: it would listen on a network without a token, or the token cannot be sent.
    """
    if settings.token and not (settings.token.isascii() and settings.token.isprintable() and " " not in settings.token):
        raise InvalidInput("the token may hold letters, digits and signs, no blanks")
    if not is_loopback(settings.host) and not settings.token:
        raise InvalidInput(
            f"{settings.host} can be reached by other machines: give a token that requests must carry, "
            "by --token or in SEMSEARCH_TOKEN"
        )


def serve(service: Service, settings: Settings, *, shared: bool, on_start: Callable[[str], None]) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish those in flight.

    Args:
        service: answers from the index.
        settings: where it listens, and limits.
        shared: whether `semsearch query` of the same user asks this service: its hits are those that it would find.
        on_start: called with the address of the page once requests are taken.

    Raises:
        InvalidInput: it cannot or may not listen there.
    """
    check(settings)
    with _listen(settings.host, settings.port) as listener, contextlib.ExitStack() as stack:
        service.warm_up()
        config = uvicorn.Config(
            create_app(service, settings),
            log_config=None,
            access_log=False,
            server_header=False,
            http=ImpatientProtocol,
            loop="asyncio",
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
        _log_to_stderr()
        server = _Server(config, service)

        def end(*_: object) -> None:
            service.end()
            server.should_exit = True

        for name in (signal.SIGINT, signal.SIGTERM):  # uvicorn, which takes them once it runs, raises them again after
            signal.signal(name, end)
        local = stack.enter_context(listening(service.path)) if shared else None
        host, port = listener.getsockname()[:2]
        gc.collect()
        gc.freeze()  # what is there stays: to look through it time and again would hold up all requests for 0.1 s
        on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        server.run([listener, *([local] if local else [])])


class _Server(uvicorn.Server):
    """One whose changes stop as soon as it is told to end, rather than when all requests were answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but that a second signal does not break off what is being answered."""
        self._service.end()
        if not self.should_exit:
            super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sends without delay only where TCP is named
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InvalidInput(
                f"port {port} of {host} is taken, perhaps by another semsearch serve; give another one, or --port 0"
            ) from error
        raise InvalidInput(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    return listener


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s semsearch: %(message)s"))
    for name in ("semsearch.server", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    if os.environ.get(DEBUG_VARIABLE):
        logging.getLogger("semsearch.server").setLevel(logging.DEBUG)
