"""`semsearch serve`: the HTTP service and its page."""

from __future__ import annotations

from importlib.util import find_spec

import click

from semsearch.cli.options import device_option, examples, index_option

__all__ = ["serve"]

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8765


@click.command(
    epilog=examples(
        "semsearch serve                           then open http://127.0.0.1:8765/",
        "semsearch serve --index work --port 9000 --writable",
        "curl 'http://127.0.0.1:8765/search?q=opening+hours&k=3'",
    ),
    context_settings={"show_default": True},
)
@index_option
@click.option(
    "--host", default=DEFAULT_HOST, metavar="HOST", help="Where to listen; others than this machine's own need a token."
)
@click.option(
    "--port", default=DEFAULT_PORT, type=click.IntRange(0, 65535), metavar="PORT", help="0 is any that is free."
)
@click.option("--writable", is_flag=True, help="Let requests add and remove documents.")
@device_option
def serve(index: str, host: str, port: int, writable: bool, device: str) -> None:
    """Answer searches over HTTP, with a page for the browser.

    GET /openapi.json describes all that can be asked.
    """
    from semsearch.errors import MissingExtra
    from semsearch.searching import Searcher

    for name in ("fastapi", "uvicorn"):
        if find_spec(name) is None:
            raise MissingExtra(name, "serve")
    from semsearch.server.run import serve as run
    from semsearch.server.service import Service
    from semsearch.server.settings import Settings

    settings = Settings(host=host, port=port, writable=writable)
    with Searcher.open(index, device=device) as searcher:
        run(Service(searcher, writable=writable), settings, on_start=_tell)


def _tell(address: str) -> None:
    click.echo(f"semsearch: serving at {address} (Ctrl-C ends it)", err=True)
