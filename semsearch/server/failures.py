"""What went wrong, as a status and a body that name no path of the machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from semsearch.errors import IndexLocked, InvalidInput, PassageNotFound, SemsearchError
from semsearch.server.bodies import error_body
from semsearch.server.changes import Stopped
from semsearch.server.gate import Busy, TookTooLong
from semsearch.server.schemas import ErrorAnswer

__all__ = ["RETRY_AFTER_S", "install", "responses"]

RETRY_AFTER_S = 1
_MEANINGS = {
    400: "The request cannot be understood, such as a filter that cannot be read.",
    401: "The token is missing or wrong.",
    403: "The request comes from a page of another origin, or would change an index that may only be read.",
    404: "There is no such passage.",
    405: "The path has other methods.",
    408: "The request did not arrive in time.",
    409: "Another process is writing to the index.",
    413: "The request is too large.",
    421: "The host named by the request is not this service.",
    422: "A parameter is missing, unknown or out of range.",
    500: "The service failed; its log says more.",
    503: "Too many requests wait already, or the index cannot be read now.",
    504: "The answer took too long.",
}
_logger = logging.getLogger("semsearch.server")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its description: these, and those that every route has."""
    always = (400, 401, 403, 408, 413, 421, 422, 500)
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in sorted({*statuses, *always})
    }
    if 503 in described:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        described[503]["headers"] = {"Retry-After": seconds}
    return described


def _answer(status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    return Response(error_body(message, field), status, dict(headers or {}), "application/json")


def install(app: FastAPI, index: Path) -> None:
    """Turn what routes raise into answers.

    Args:
        app: gets the handlers.
        index: whose path is not to be told.
    """
    told: dict[type[Exception], Callable[[Any], Response]] = {
        RequestValidationError: _of_validation,
        HTTPException: lambda e: _answer(e.status_code, str(e.detail), None, e.headers),
        InvalidInput: lambda e: _answer(400, str(e).replace(str(index), index.name)),
        PassageNotFound: lambda e: _answer(404, str(e), "chunk_id"),
        Busy: lambda e: _answer(503, "too many requests wait already", None, {"Retry-After": str(RETRY_AFTER_S)}),
        TookTooLong: lambda e: _answer(504, "the answer took too long; ask for less"),
        IndexLocked: lambda e: _answer(409, "another process is writing to the index; try again later"),
        Stopped: lambda e: _answer(503, str(e), None, {"Retry-After": str(RETRY_AFTER_S)}),
        SemsearchError: _of_index,
        Exception: _of_fault,
    }

    def handler(make: Callable[[Any], Response]) -> Callable[[Request, Exception], Any]:
        async def handle(_: Request, error: Exception) -> Response:
            return make(error)

        return handle

    for kind, make in told.items():
        app.add_exception_handler(kind, handler(make))


def _of_validation(error: RequestValidationError) -> Response:
    first = error.errors()[0]
    names = [str(part) for part in first["loc"][1:] if not isinstance(part, int)]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return _answer(422, f"the body is not JSON: {first.get('ctx', {}).get('error', '')}")
    field = ".".join(names) or None
    return _answer(422, f"{field}: {message}" if field else message, field)


def _of_index(error: SemsearchError) -> Response:
    _logger.error("%s", error)
    retry = {"Retry-After": str(RETRY_AFTER_S)}
    return _answer(503, "the index cannot be read now; the service's log says more", None, retry)


def _of_fault(error: Exception) -> Response:
    return _answer(500, "the service failed; its log says more")
