"""Helpers for the tests of the loaders: reading a file's one document, and hostile files made on the spot."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import pytest

from semsearch.errors import LoadError
from semsearch.loaders import load
from semsearch.types import Document


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def only(path: Path) -> Document:
    (document,) = load(path)
    check_invariants(document)
    return document


def check_invariants(document: Document) -> None:
    text = document.text
    assert text.strip()
    assert "\r" not in text and "\x00" not in text
    text.encode("utf-8")  # no lone surrogates
    starts = [heading.start for heading in document.outline]
    assert starts == sorted(starts)
    assert all(0 <= start < len(text) for start in starts)
    assert all(heading.level >= 1 and heading.title == heading.title.strip() != "" for heading in document.outline)
    pages = list(document.page_starts)
    assert pages == sorted(pages) and (not pages or (pages[0] == 0 and pages[-1] <= len(text)))


def outline(document: Document) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in document.outline]


def section(document: Document, title: str) -> str:
    """The text from the heading of that title on."""
    return document.text[next(heading.start for heading in document.outline if heading.title == title) :]


def failure(path: Path, **options: str) -> LoadError:
    with pytest.raises(LoadError) as caught:
        list(load(path, **options))
    return caught.value


def zip_bomb(path: Path, member: str, *, n_mebibytes: int) -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(member, "w") as stream,
    ):
        for _ in range(n_mebibytes):
            stream.write(bytes(1 << 20))
    return path


def pdf_bomb(path: Path, operators: bytes, *, n_repeats: int, n_pages: int = 1) -> Path:
    """A small PDF whose pages all draw the same stream: `operators`, `n_repeats` times over."""
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(operators) for _ in range(n_repeats)), packer.flush()])
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
    kids = b" ".join(b"%d 0 R" % (5 + k) for k in range(n_pages))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (n_pages, kids),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length %d/Filter/FlateDecode>>\nstream\n%s\nendstream" % (len(packed), packed),
        *[page] * n_pages,
    ]
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, content) for number, content in enumerate(objects, start=1))
    return write(path, b"%PDF-1.4\n" + body + b"trailer<</Size %d/Root 1 0 R>>\n%%%%EOF" % (len(objects) + 1))


def shared_folder(name: str) -> Path:
    """A folder of the shared test data, which is too large to live beside the tests."""
    root = os.environ.get("SEMSEARCH_SHARED")
    if not root:
        pytest.skip("SEMSEARCH_SHARED is not set")
    folder = Path(root) / "data/docs" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return folder


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
