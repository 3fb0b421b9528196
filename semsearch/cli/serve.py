"""`semsearch serve`: the HTTP service and its page."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec

import click

from semsearch.cli.options import Number, device_option, examples, index_option

__all__ = ["serve"]

TOKEN_VARIABLE = "SEMSEARCH_TOKEN"
ONE_THREAD_EACH = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@click.command(
    epilog=examples(
        "semsearch serve                           then open http://127.0.0.1:8765/",
        "semsearch serve --index work --port 9000 --writable",
        "curl 'http://127.0.0.1:8765/search?q=opening+hours&k=3'",
    ),
    context_settings={"show_default": True},
)
@index_option
@click.option("--host", default="127.0.0.1", metavar="HOST", help="Where to listen; a network's address needs --token.")
@click.option("--port", default=8765, type=click.IntRange(0, 65535), metavar="PORT", help="0: any that is free.")
@click.option("--writable", is_flag=True, help="Let requests add and remove documents.")
@click.option("--watch", "is_watching", is_flag=True, help="Index the folders of the index again when they change.")
@click.option(
    "--token", envvar=TOKEN_VARIABLE, show_default=f"{TOKEN_VARIABLE}, or none", help="What requests must carry."
)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Another name of this service, as of a proxy. Repeatable.",
)
@click.option(
    "--cors-origin", "origins", metavar="ORIGIN", multiple=True, help="Let pages of https://... ask. Repeatable."
)
@click.option("--reranker", metavar="NAME", help="Another reranker. [default: the index's own model]")
@device_option
@click.option(
    "--max-waiting",
    default=64,
    type=click.IntRange(0, 10_000),
    metavar="N",
    help="Requests that may wait; others get 503.",
)
@click.option("--timeout-s", default=10.0, type=Number(0.1, 600), metavar="SECONDS", help="A request's time, else 504.")
def serve(
    index: str,
    host: str,
    port: int,
    writable: bool,
    is_watching: bool,
    token: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    reranker: str | None,
    device: str,
    max_waiting: int,
    timeout_s: float,
) -> None:
    """Answer searches over HTTP, with a page for the browser.

    GET /openapi.json describes all that can be asked; agents that speak MCP ask at /mcp (extra mcp). While it runs,
    semsearch query of the same index asks it, which is quicker. Ctrl-C ends it once requests in flight are answered.
    """
    from semsearch.errors import MissingExtra

    for name in ("fastapi", "uvicorn"):
        if find_spec(name) is None:
            raise MissingExtra(name, "serve")
    for name in ONE_THREAD_EACH:  # requests run beside each other; threads of each would only wait for one another
        os.environ.setdefault(name, "1")
    from semsearch.cli.watching_beside import watching_beside
    from semsearch.server.memory import bound_memory

    bound_memory()
    from semsearch.server.run import check
    from semsearch.server.run import serve as run
    from semsearch.server.service import Service
    from semsearch.server.settings import Settings

    settings = Settings(
        host=host,
        port=port,
        token=token or "",
        allowed_hosts=hosts,
        cors_origins=origins,
        writable=writable,
        max_waiting=max_waiting,
        timeout_s=timeout_s,
    )
    check(settings)
    service = Service(index, device=device, reranker=reranker, writable=writable)
    with contextlib.closing(service), watching_beside(index, device) if is_watching else contextlib.nullcontext():
        run(service, settings, shared=reranker is None and device == "auto", on_start=_tell)


def _tell(address: str) -> None:
    click.echo(f"semsearch: serving at {address} (Ctrl-C ends it)", err=True)
