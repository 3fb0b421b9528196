"""A folder of 723 real and odd files, through every loader, with a toy encoder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from semsearch import IndexReport, Searcher, build_index
from semsearch.roots import RACY_NS
from semsearch.store.info import list_files
from tests.toy import ToyEmbedder

PAGE = "fastapi/en/release-notes.md"


@pytest.fixture(scope="module")
def built(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, IndexReport]]:
    """(documents, index, report of the first run)."""
    work = tmp_path_factory.mktemp("folder")
    docs = work / "docs"
    shutil.copytree(shared_folder / "data" / "docs", docs)
    for path in [docs, *docs.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
        if path.is_file():
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 2 * RACY_NS))
    report = build_index(docs, index=work / "index", embedder=ToyEmbedder(max_tokens=200))
    yield docs, work / "index", report


def again(docs: Path, index: Path) -> tuple[IndexReport, ToyEmbedder]:
    toy = ToyEmbedder(max_tokens=200)
    return build_index(docs, index=index, embedder=toy), toy


def test_every_file_is_accounted_for(built: tuple[Path, Path, IndexReport]) -> None:
    docs, index, report = built
    files = report.files
    assert files.seen == sum(p.is_file() for p in docs.rglob("*")) == 723
    assert files.seen == files.indexed + files.unchanged + files.skipped + files.failed
    assert len(report.problems) == files.skipped + files.failed < 20
    named = {p.path: p.reason for p in report.problems}
    indexed = {f.path for f in list_files(index) if f.status == "indexed"}
    for path in (docs / "odd").rglob("*"):
        if path.is_file():
            assert (str(path) in indexed) is not (str(path) in named), path
    reasons = {Path(path).name: reason for path, reason in named.items()}
    for name, said in {
        "empty.pdf": "empty",
        "scan-without-text.pdf": "OCR",
        "truncated.pdf": "damaged",
        "text-named.docx": "not a Word document",
        "random-bytes.txt": "binary",
        "picture.png": "binary",
        "only-spaces.txt": "no text",
        ".hidden-notes.md": "hidden",
    }.items():
        assert said in reasons[name]


def test_passages_are_exact_and_whole(built: tuple[Path, Path, IndexReport]) -> None:
    _, index, report = built
    toy = ToyEmbedder(max_tokens=200)
    with Searcher.open(index, embedder=toy) as searcher:
        hits = searcher.search("git", k=10_000, mode="dense", per_document=0)
    assert len(hits) == min(10_000, report.chunks.total)
    for hit in hits:
        assert hit.document.text[hit.chunk.start : hit.chunk.end] == hit.chunk.text
    assert max(len(s) for s in toy.token_spans([h.chunk.text for h in hits])) <= 200
    pages = [h.chunk.page for h in hits if h.document.source.endswith("bashref.pdf")]
    assert pages and None not in pages and max(p or 0 for p in pages) > 100


def test_encodings_are_read(built: tuple[Path, Path, IndexReport]) -> None:
    _, index, _ = built
    with Searcher.open(index, embedder=ToyEmbedder(max_tokens=200)) as searcher:
        for query, name in (
            ("软件包 维护者", "gb18030"),
            ("套件 維護者", "big5"),
            ("パッケージ", "sjis"),
            ("пакет", "koi8r"),
        ):
            hits = searcher.search(query, k=50, mode="lexical", per_document=1)
            assert any(name in h.document.source for h in hits), name


def test_syncing_touches_only_what_changed(built: tuple[Path, Path, IndexReport]) -> None:
    docs, index, first = built
    report, _ = again(docs, index)
    assert (report.files.unchanged, report.chunks.encoded) == (first.files.indexed, 0)
    (docs / "git").rename(docs / "version-control")
    report, toy = again(docs, index)
    assert report.files.removed == report.files.indexed > 50 and toy.n_encoded == 0
    assert report.chunks.total == first.chunks.total
    page = docs / PAGE
    text = page.read_text(encoding="utf-8")
    middle = text.index("\n\n", len(text) // 2)
    page.write_text(
        text[:middle] + "\n\nA paragraph about zeppelins was put in here." + text[middle:], encoding="utf-8"
    )
    report, _ = again(docs, index)
    assert report.files.indexed == 1 and 1 <= report.chunks.encoded <= 4
    with Searcher.open(index, embedder=toy) as searcher:
        assert searcher.search("zeppelins", mode="lexical")[0].document.source == str(page)
        page.unlink()
        report, _ = again(docs, index)
        assert report.files.removed == 1
        assert not any(h.document.source == str(page) for h in searcher.search("zeppelins release", k=1_000))
