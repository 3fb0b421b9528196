"""MCP over HTTP: what `semsearch mcp` offers on a pipe, for the service's index, behind its guard and its gate."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from semsearch.errors import SemsearchError
from semsearch.server.gate import Busy, Gate, TookTooLong
from semsearch.server.service import Service

__all__ = ["MCP_ROUTE", "Agents", "agents_of"]

MCP_ROUTE = "/mcp"


def agents_of(service: Service, gate: Gate) -> Agents | None:
    """What serves agents; None where the MCP SDK (extra `mcp`) is not installed."""
    return Agents(service, gate) if find_spec("mcp") is not None else None


class Agents:
    """An ASGI application that answers requests of agents.

    Each request stands for itself and is answered by JSON: there are no sessions that clients could open without end,
    and no streams that would keep the service from ending.
    """

    def __init__(self, service: Service, gate: Gate) -> None:
        from mcp.server.transport_security import TransportSecuritySettings

        from semsearch.mcp_server import Indexes, create_server

        async def in_gate(work: Callable[[], Any]) -> Any:
            try:
                return await gate.run(work)
            except Busy:
                raise SemsearchError("too many requests wait already; try again later") from None
            except TookTooLong:
                raise SemsearchError("the answer took too long; ask for less") from None

        server = create_server(Indexes(opened={service.path.name: service.searcher}), run=in_gate)
        server.streamable_http_app(
            streamable_http_path=MCP_ROUTE,
            json_response=True,
            stateless_http=True,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard does it
        )
        self._manager = server.session_manager

    def add_to(self, app: FastAPI) -> None:
        """Add the route, with and without a slash at its end: clients write both."""
        self._route = Route(MCP_ROUTE, endpoint=self, methods=["POST"], include_in_schema=False)
        with_slash = Route(f"{MCP_ROUTE}/", endpoint=self, methods=["POST"], include_in_schema=False)
        app.router.routes += [self._route, with_slash]

    def running(self) -> AbstractAsyncContextManager[None]:
        """What has to last as long as requests are answered."""
        return self._manager.run()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        scope["route"] = self._route  # by which it is counted
        await self._manager.handle_request(scope, receive, send)
