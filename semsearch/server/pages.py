"""The page: the files of one folder, under a policy that lets it load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

__all__ = ["add_page"]

FOLDER = Path(__file__).with_name("page")
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> frozenset[str]:
    """Add a route for each file, and give all of them; `index.html` is at `/`. No other file can be asked for."""
    files = {"/" if p.name == "index.html" else f"/{p.name}": p for p in FOLDER.iterdir() if p.suffix in KINDS}
    for route, path in sorted(files.items()):
        _add_file(app, route, path)
    return frozenset(files)


def _add_file(app: FastAPI, route: str, path: Path) -> None:
    @app.api_route(route, methods=["GET", "HEAD"], include_in_schema=False)
    def file() -> Response:
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        return Response(path.read_bytes(), headers=headers, media_type=KINDS[path.suffix])
