"""HTTP/1.1 that lets no client hold up others, with half a request or with connections that it does not use."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from semsearch.server.bodies import error_body

__all__ = ["HEADER_TIMEOUT_S", "MAX_CONNECTIONS", "ImpatientProtocol"]

HEADER_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 512


def _refusal(status: str, message: str, *headers: str) -> bytes:
    """An answer to what no application sees, after which the connection is closed."""
    body = error_body(message)
    named = ["content-type: application/json", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([f"HTTP/1.1 {status}", *named, "", ""]).encode("ascii") + body


TOO_SLOW = _refusal("408 Request Timeout", "the request did not arrive in time")
UNREADABLE = _refusal("400 Bad Request", "the request is not HTTP/1.1, or its headers are too large")
FULL = _refusal("503 Service Unavailable", "too many connections", "retry-after: 1")


class ImpatientProtocol(H11Protocol):
    """Closes a connection whose request line and headers are not there in time, or that is in the way of a new one."""

    header_timeout_s = HEADER_TIMEOUT_S
    max_connections = MAX_CONNECTIONS
    _timer: asyncio.TimerHandle | None = None
    _used_at = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request; where there are too many, the one that was idle longest goes."""
        super().connection_made(transport)
        self._used_at = self.loop.time()
        if len(self.connections) > self.max_connections:
            idle = [c for c in self.connections if isinstance(c, ImpatientProtocol) and c is not self and c._is_idle]
            if not idle:
                self._refuse(FULL)
                return
            min(idle, key=lambda connection: connection._used_at).transport.close()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting until a request has begun; between two, uvicorn's own timer runs until the first byte."""
        self._used_at = self.loop.time()
        super().data_received(data)
        if not self._is_idle:
            self._stop_waiting()
        elif self._timer is None and self.timeout_keep_alive_task is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, as any error is told."""
        self._refuse(UNREADABLE)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.header_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_idle and not self.transport.is_closing():
            self._refuse(TOO_SLOW)
