"""The routes. Each checks a request, has the service answer it in a thread, and sends JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query
from fastapi.responses import Response

from semsearch import __version__
from semsearch.answers import strict_json
from semsearch.encoders.openvino_runtime import n_cores
from semsearch.errors import InvalidInput
from semsearch.search_options import SearchOptions
from semsearch.server import schemas
from semsearch.server.failures import install, responses
from semsearch.server.gate import Gate
from semsearch.server.pages import add_page
from semsearch.server.service import Service
from semsearch.server.settings import MAX_HITS_OF_BATCH, Settings

__all__ = ["create_app"]

MAX_CHUNK_ID = 2**63 - 1
SAME = ("k", "mode", "rerank", "rerank_depth", "budget_ms", "per_document", "context", "fold", "mmr", "where")

ChunkId = Annotated[int, Path(ge=1, le=MAX_CHUNK_ID, description="`chunk_id` of a hit.")]


def create_app(service: Service, settings: Settings) -> FastAPI:
    """The service as an ASGI application."""
    gate = Gate(
        n_threads=settings.n_threads or n_cores(), max_waiting=settings.max_waiting, timeout_s=settings.timeout_s
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        gate.close()

    app = FastAPI(
        title="semsearch",
        summary="Private semantic search over your own documents.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    install(app, service.path)
    _add_search(app, service, gate)
    _add_index(app, service, gate)
    add_page(app)
    return app


def _json(answer: Any) -> bytes:
    """Strict JSON in UTF-8; surrogates, which stand for bytes of ill-named files, are escaped."""
    try:
        text = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):  # metadata may hold NaN
        text = json.dumps(strict_json(answer), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", errors="backslashreplace")


async def _answered(gate: Gate, work: Callable[[], Any]) -> Response:
    """The answer of some work, made and written in a thread."""
    return Response(await gate.run(lambda: _json(work())), media_type="application/json")


def _add_search(app: FastAPI, service: Service, gate: Gate) -> None:
    """What is asked of passages."""

    def ask(text: str, asked: schemas.SearchQuery | schemas.SearchBody) -> dict[str, Any]:
        options: SearchOptions = {name: getattr(asked, name) for name in SAME}  # type: ignore[assignment]
        return service.search(
            text,
            options,
            min_probability=asked.min_probability,
            explain=asked.explain,
            highlight=asked.highlight,
            facets=asked.facet,
        )

    @app.get("/search", response_model=schemas.Answer, responses=responses(400, 503, 504), tags=["search"])
    async def search(asked: Annotated[schemas.SearchQuery, Query()]) -> Response:
        """Find the passages that answer a query best."""
        return await _answered(gate, lambda: ask(asked.q, asked))

    @app.post(
        "/search",
        response_model=schemas.Answer | schemas.Answers,
        responses=responses(400, 503, 504),
        tags=["search"],
    )
    async def search_by_body(asked: schemas.SearchBody) -> Response:
        """The same with its parameters in a JSON body; with `queries`, one answer for each."""
        if (asked.q is None) == (asked.queries is None):
            raise InvalidInput("give either q, a query, or queries, a list of them")
        if asked.queries is None:
            return await _answered(gate, lambda: ask(asked.q or "", asked))
        texts = asked.queries
        if len(texts) * asked.k > MAX_HITS_OF_BATCH:
            raise InvalidInput(f"{len(texts)} queries of k = {asked.k}: ask for {MAX_HITS_OF_BATCH} hits at most")
        return await _answered(gate, lambda: {"answers": [ask(text, asked) for text in texts]})

    @app.get(
        "/documents/{chunk_id}",
        response_model=schemas.Passage,
        responses=responses(404, 503, 504),
        tags=["search"],
    )
    async def passage(chunk_id: ChunkId, asked: Annotated[schemas.PassageQuery, Query()]) -> Response:
        """A passage with lines of its document around it."""
        return await _answered(gate, partial(service.passage, chunk_id, context=asked.context))

    @app.get(
        "/similar/{chunk_id}",
        response_model=schemas.SimilarAnswer,
        responses=responses(400, 404, 503, 504),
        tags=["search"],
    )
    async def similar(chunk_id: ChunkId, asked: Annotated[schemas.SimilarQuery, Query()]) -> Response:
        """Find passages like one."""
        work = partial(service.similar, chunk_id, k=asked.k, per_document=asked.per_document, where=asked.where)
        return await _answered(gate, work)

    @app.get("/facets", response_model=schemas.FacetsAnswer, responses=responses(400, 503, 504), tags=["search"])
    async def facets(asked: Annotated[schemas.FacetsQuery, Query()]) -> Response:
        """Count documents and passages for each value of some fields."""
        return await _answered(gate, partial(service.facets, asked.key, asked.where))


def _add_index(app: FastAPI, service: Service, gate: Gate) -> None:
    """What is asked of the index and of the service."""

    @app.get("/index", response_model=schemas.IndexStatus, responses=responses(503, 504), tags=["index"])
    async def index() -> Response:
        """What the index holds."""
        return await _answered(gate, service.status)

    @app.get("/health", response_model=schemas.Health, responses=responses(), tags=["service"])
    async def health() -> Response:
        """That the service answers."""
        return Response(b'{"status":"ok"}', media_type="application/json")
