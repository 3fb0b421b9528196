"""The routes. Each checks a request, has the service answer it in a thread, and sends JSON."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from itertools import takewhile
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response

from semsearch import __version__
from semsearch.encoders.openvino_runtime import n_cores
from semsearch.errors import InvalidInput
from semsearch.search_options import SearchOptions
from semsearch.server import questions, schemas
from semsearch.server.agents import agents_of
from semsearch.server.bodies import json_bytes
from semsearch.server.changes import Stopped
from semsearch.server.failures import install, responses
from semsearch.server.gate import Gate, TookTooLong
from semsearch.server.guard import Guard
from semsearch.server.metrics import Metrics
from semsearch.server.origins import Origins
from semsearch.server.pages import add_page
from semsearch.server.service import Service
from semsearch.server.settings import MAX_HITS_OF_BATCH, Settings
from semsearch.server.writing import Writer
from semsearch.types import Document

__all__ = ["create_app"]

# Searches at a time, beside the encoder's own thread: one a core. With two a core, which share Python's lock and answer
# later together than one after the other, 130 to 146 questions a second instead of 145 to 156, and p95 a third longer.
MIN_THREADS = 2  # so that no search waits for a long one on a single core
MAX_WRITES_WAITING = 8
MAX_CHUNK_ID = 2**63 - 1
HUNG_UP = 499  # status of what nobody waits for any more, for the counts alone
SAME = ("k", "mode", "rerank", "rerank_depth", "budget_ms", "per_document", "context", "fold", "mmr", "where")

# Newer versions of FastAPI tell OpenTelemetry of each request with its query, where the environment has it collect.
NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}

ChunkId = Annotated[int, Path(ge=1, le=MAX_CHUNK_ID, description="`chunk_id` of a hit.")]


def create_app(service: Service, settings: Settings) -> Guard:
    """The service as an ASGI application."""
    n_threads = settings.n_threads or max(MIN_THREADS, n_cores())
    gate = Gate(n_threads=n_threads, max_waiting=settings.max_waiting, timeout_s=settings.timeout_s)
    writes = Gate(n_threads=1, max_waiting=MAX_WRITES_WAITING, timeout_s=settings.timeout_s)
    if service.writer is not None:
        service.writer.is_asked = gate.is_used
    metrics = Metrics()
    agents = agents_of(service, gate)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with agents.running() if agents is not None else nullcontext():
            yield
        service.end()
        for each in (gate, writes):
            each.close()

    app = FastAPI(
        title="semsearch",
        summary="Private semantic search over your own documents.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    install(app, service.path)
    _add_search(app, service, gate)
    _add_index(app, service, gate, writes)
    _add_writes(app, service, writes)
    _add_health(app, service, gate, metrics)
    if agents is not None:
        agents.add_to(app)
    files = add_page(app)
    origins = Origins(settings.host, allowed_hosts=settings.allowed_hosts, cors_origins=settings.cors_origins)
    return Guard(app, settings, origins, metrics, open_paths=files)


async def _answered(gate: Gate, work: Callable[[], Any], *, keep: bool = False) -> Response:
    """The answer of some work, made and written in a thread; `keep` as for `Gate.run`."""
    return Response(await gate.run(lambda: json_bytes(work()), keep=keep), media_type="application/json")


async def _while_asked(request: Request, answering: Awaitable[Response]) -> Response:
    """An answer, unless whoever asked for it hangs up: it is dropped then where it has not begun."""

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(hang_up())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else Response(status_code=HUNG_UP)
    finally:
        answer.cancel()
        gone.cancel()


def _add_search(app: FastAPI, service: Service, gate: Gate) -> None:
    """What is asked of passages."""

    def ask(text: str, asked: questions.SearchQuery | questions.SearchBody) -> dict[str, Any]:
        options: SearchOptions = {name: getattr(asked, name) for name in SAME}  # type: ignore[assignment]
        return service.search(
            text,
            options,
            min_probability=asked.min_probability,
            explain=asked.explain,
            highlight=asked.highlight,
            facets=asked.facet,
        )

    async def answer(
        request: Request,
        texts: Sequence[str],
        asked: questions.SearchQuery | questions.SearchBody,
        work: Callable[[], Any],
    ) -> Response:
        """The answer of some work, with its queries encoded while it waits for a thread."""
        gate.check()
        with service.expecting(texts) if asked.mode != "lexical" else nullcontext():
            return await _while_asked(request, _answered(gate, work))

    @app.get("/search", response_model=schemas.Answer, responses=responses(400, 503, 504), tags=["search"])
    async def search(request: Request, asked: Annotated[questions.SearchQuery, Query()]) -> Response:
        """Find the passages that answer a query best."""
        return await answer(request, [asked.q], asked, lambda: ask(asked.q, asked))

    @app.post(
        "/search",
        response_model=schemas.Answer | schemas.Answers,
        responses=responses(400, 503, 504),
        tags=["search"],
    )
    async def search_by_body(request: Request, asked: questions.SearchBody) -> Response:
        """The same with its parameters in a JSON body; with `queries`, one answer for each."""
        if (asked.q is None) == (asked.queries is None):
            raise InvalidInput("give either q, a query, or queries, a list of them")
        if asked.queries is None:
            return await answer(request, [asked.q], asked, lambda: ask(asked.q, asked))
        texts, is_over = asked.queries, threading.Event()
        if len(texts) * asked.k > MAX_HITS_OF_BATCH:
            raise InvalidInput(f"{len(texts)} queries of k = {asked.k}: ask for {MAX_HITS_OF_BATCH} hits at most")

        def ask_each() -> dict[str, Any]:
            """Until its time is over or nobody waits any more, so that others need not wait for the rest."""
            return {"answers": [ask(text, asked) for text in takewhile(lambda _: not is_over.is_set(), texts)]}

        try:
            return await answer(request, texts, asked, ask_each)
        finally:
            is_over.set()

    @app.get(
        "/documents/{chunk_id}",
        response_model=schemas.Passage,
        responses=responses(404, 503, 504),
        tags=["search"],
    )
    async def passage(chunk_id: ChunkId, asked: Annotated[questions.PassageQuery, Query()]) -> Response:
        """A passage with lines of its document around it."""
        return await _answered(gate, partial(service.passage, chunk_id, context=asked.context))

    @app.get(
        "/similar/{chunk_id}",
        response_model=schemas.SimilarAnswer,
        responses=responses(400, 404, 503, 504),
        tags=["search"],
    )
    async def similar(chunk_id: ChunkId, asked: Annotated[questions.SimilarQuery, Query()]) -> Response:
        """Find passages like one."""
        work = partial(service.similar, chunk_id, k=asked.k, per_document=asked.per_document, where=asked.where)
        return await _answered(gate, work)

    @app.get("/facets", response_model=schemas.FacetsAnswer, responses=responses(400, 503, 504), tags=["search"])
    async def facets(asked: Annotated[questions.FacetsQuery, Query()]) -> Response:
        """Count documents and passages for each value of some fields."""
        return await _answered(gate, partial(service.facets, asked.key, asked.where, asked.limit))


def _add_index(app: FastAPI, service: Service, gate: Gate, writes: Gate) -> None:
    @app.get("/index", response_model=schemas.IndexStatus, responses=responses(503, 504), tags=["index"])
    async def index() -> Response:
        """What the index holds."""
        return await _answered(gate, lambda: service.status() | {"writing": writes.is_busy})


def _add_writes(app: FastAPI, service: Service, gate: Gate) -> None:
    """What changes the index, one after the other; 202 where it goes on when the request's time is over."""
    accepted: dict[int | str, dict[str, Any]] = {
        202: {"model": schemas.WriteAnswer, "description": "It goes on; see `writing` of GET /index."}
    }
    described: dict[int | str, dict[str, Any]] = {**accepted, **responses(400, 409, 503)}

    async def write(work: Callable[[Writer], dict[str, Any]]) -> Response:
        writer = service.writer
        if writer is None:
            raise HTTPException(403, "this service only reads its index; semsearch serve --writable lets it write")
        try:
            return await _answered(gate, lambda: work(writer), keep=True)
        except TookTooLong:
            if writer.is_ending:
                raise Stopped from None
            return Response(json_bytes({"done": False}), 202, media_type="application/json")

    @app.post("/index/documents", response_model=schemas.WriteAnswer, responses=described, tags=["index"])
    async def add(body: questions.DocumentsBody) -> Response:
        """Add documents, in place of those with the same ids."""
        documents = [Document(d.id, d.text, title=d.title, metadata=d.metadata) for d in body.documents]
        return await write(lambda writer: writer.add(documents))

    @app.delete("/index/documents", response_model=schemas.WriteAnswer, responses=described, tags=["index"])
    async def remove(body: questions.RemovalBody) -> Response:
        """Take documents, files and folders out of the index; the files themselves stay."""
        if not body.ids and not body.paths:
            raise InvalidInput("name ids or paths to remove")
        return await write(lambda writer: writer.remove(body.ids, body.paths))

    @app.post("/index/sync", response_model=schemas.WriteAnswer, responses=described, tags=["index"])
    async def sync(request: Request) -> Response:
        """Bring the index up to date with the folders it remembers."""
        if (await request.body()).strip() not in (b"", b"{}"):
            raise InvalidInput("a sync takes no parameters: it looks at all folders that the index remembers")
        return await write(lambda writer: writer.sync())


def _add_health(app: FastAPI, service: Service, gate: Gate, metrics: Metrics) -> None:
    """What is asked of the service itself."""

    @app.get("/health", response_model=schemas.Health, responses=responses(), tags=["service"])
    async def health() -> Response:
        """That the service answers."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    text: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", response_class=PlainTextResponse, responses={**responses(), 200: text}, tags=["service"])
    async def counts() -> Response:
        """Counts for Prometheus."""
        gauges = {"semsearch_waiting_requests": ("Requests that wait for a thread.", gate.n_waiting)}
        return Response(metrics.text(gauges, service.counters()), media_type="text/plain; version=0.0.4")
