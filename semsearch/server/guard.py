"""What stands before the routes: who may ask, and how much, how slowly. Counts what is answered."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from semsearch.server.bodies import error_body
from semsearch.server.metrics import Metrics
from semsearch.server.origins import Origins
from semsearch.server.settings import Settings

__all__ = ["Guard", "Refused"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

WRITE_ROUTE = "/index/documents"
OPEN_TO_ALL = frozenset({"/health"})  # without a token
PREFLIGHT = {
    b"access-control-allow-methods": b"GET, POST, DELETE",
    b"access-control-allow-headers": b"authorization, content-type",
    b"access-control-max-age": b"600",
}
ALWAYS = {
    b"cache-control": b"no-store",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
_logger = logging.getLogger("semsearch.server")


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str, headers: dict[bytes, bytes] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


class Guard:
    """An ASGI application around another."""

    def __init__(
        self, app: App, settings: Settings, origins: Origins, metrics: Metrics, *, open_paths: frozenset[str]
    ) -> None:
        self._app = app
        self._settings = settings
        self._origins = origins
        self._metrics = metrics
        self._open_paths = OPEN_TO_ALL | open_paths
        self._token = settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered = _Answer(send, self._extra_headers(_values(scope, b"origin")))
        start = time.perf_counter()
        try:
            self._check(scope)
            if _has_body(scope):
                receive = _replay(await self._body(scope, receive), receive)
            start = time.perf_counter()
            await self._app(scope, receive, answered.send)
        except Refused as refusal:
            await answered.instead(refusal.status, error_body(str(refusal)), refusal.headers)
        except Exception as error:
            _logger.error(
                "unexpected %s: %s", type(error).__name__, error, exc_info=_logger.isEnabledFor(logging.DEBUG)
            )
            await answered.instead(500, error_body("the service failed; its log says more"), {})
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.count(scope["method"], route, answered.status, time.perf_counter() - start)

    def _check(self, scope: Scope) -> None:
        """Refuse who may not ask."""
        if scope.get("client") is None and scope.get("server", (None, 0))[1] is None:
            return  # by a Unix socket in the user's own folder, where no browser comes from
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if not self._origins.knows_host(hosts):
            raise Refused(421, "the host named by the request is not this service; semsearch serve --allow-host NAME")
        is_foreign = _values(scope, b"sec-fetch-site") == ["cross-site"] and not origins
        if not self._origins.takes(origins, hosts[0]) or (
            is_foreign and _values(scope, b"sec-fetch-mode") != ["navigate"]
        ):
            raise Refused(403, "pages of another origin may not ask; semsearch serve --cors-origin ORIGIN")
        if scope["method"] == "OPTIONS" and origins and origins[0].lower() in self._origins.cors:
            raise Refused(204, "", PREFLIGHT)
        if self._token and scope["path"] not in self._open_paths:
            given = " ".join(_values(scope, b"authorization")).encode("latin-1", "replace")
            scheme, _, token = given.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(token, self._token):
                message = "the token is missing or wrong; send it as Authorization: Bearer TOKEN"
                raise Refused(401, message, {b"www-authenticate": b"Bearer"})

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of the body, if it is not too large and arrives in time."""
        settings = self._settings
        is_write = settings.writable and scope["path"] == WRITE_ROUTE
        most = settings.max_write_bytes if is_write else settings.max_body_bytes
        too_large = Refused(413, f"the body is larger than {most:,} bytes", {b"connection": b"close"})
        stated = "".join(_values(scope, b"content-length"))
        if stated.isdecimal() and int(stated) > most:
            raise too_large
        parts, n_bytes, deadline = [], 0, time.monotonic() + settings.receive_timeout_s
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                raise Refused(408, "the body did not arrive in time", {b"connection": b"close"}) from None
            if message["type"] == "http.disconnect":
                raise Refused(408, "the body did not arrive", {b"connection": b"close"})
            parts.append(message.get("body", b""))
            n_bytes += len(parts[-1])
            if n_bytes > most:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(parts)

    def _extra_headers(self, origins: list[str]) -> dict[bytes, bytes]:
        """Headers that every answer has, and those for a page of another origin that may read it."""
        if len(origins) == 1 and origins[0].lower() in self._origins.cors:
            return {**ALWAYS, b"access-control-allow-origin": origins[0].encode("latin-1"), b"vary": b"Origin"}
        return ALWAYS


class _Answer:
    """What is sent, with more headers."""

    def __init__(self, send: Send, headers: dict[bytes, bytes]) -> None:
        self._send = send
        self._headers = headers
        self.status = 0

    async def send(self, message: Message) -> None:
        """Send a message of the application on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in self._headers.items() if name not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)

    async def instead(self, status: int, body: bytes, headers: dict[bytes, bytes]) -> None:
        """Send this, unless an answer has begun."""
        if self.status:
            return
        body = b"" if status == 204 else body
        kind = {} if status == 204 else {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
        start = {"type": "http.response.start", "status": status, "headers": [*kind.items(), *headers.items()]}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})


def _values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _has_body(scope: Scope) -> bool:
    """Whether a body follows the headers (RFC 9112, section 6.3)."""
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body that was received already, then what comes after it."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
