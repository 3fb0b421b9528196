"""An index in a folder that may not be written to."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index
from semsearch.errors import IndexCorrupt, InvalidInput
from semsearch.store.metadata import Store
from tests.toy import ToyEmbedder

PROJECT = Path(__file__).parents[2]
LAMP = Document("lamp", "the lighthouse keeper trims the lamp")
DOUGH = Document("dough", "knead the dough")
WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")  # modes bind root, too


@pytest.fixture
def index(tmp_path: Path) -> Path:
    build_index([LAMP], index=tmp_path / "index", embedder=ToyEmbedder())
    return tmp_path / "index"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """An index by the real model whose folders and files may only be read."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "lamp.txt").write_text(LAMP.text)
    path = tmp_path / "locked"
    build_index(tmp_path / "docs", index=path)
    (tmp_path / "docs" / "dough.txt").write_text(DOUGH.text)
    entries = [*path.rglob("*"), path]
    for entry in entries:
        entry.chmod(0o500 if entry.is_dir() else 0o400)
    yield path
    for entry in reversed(entries):
        entry.chmod(0o700)


def command(*args: object) -> subprocess.CompletedProcess[str]:
    """Run `semsearch` as somebody whom modes of files bind."""
    privileged = hasattr(os, "geteuid") and os.geteuid() == 0
    if privileged and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv is not here")
    words = [*(WITHOUT_PRIVILEGES if privileged else ()), sys.executable, "-m", "semsearch", *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_it_is_searched_listed_and_verified(locked: Path) -> None:
    before = {entry: entry.stat().st_mtime_ns for entry in locked.rglob("*")}
    found = command("query", "who looks after the lamp", "--index", locked, "--format", "paths")
    assert (found.returncode, Path(found.stdout.strip()).name) == (0, "lamp.txt"), found.stderr
    verified = command("verify", "--index", locked)
    assert (verified.returncode, "is sound" in verified.stdout) == (0, True), verified.stdout
    for name in ("list", "info"):
        assert command(name, "--index", locked).returncode == 0
    assert {entry: entry.stat().st_mtime_ns for entry in locked.rglob("*")} == before


@pytest.mark.parametrize("words", [("index",), ("remove", "x.txt"), ("tune",), ("verify", "--repair"), ("watch",)])
def test_what_would_change_it_says_so(locked: Path, words: tuple[str, ...]) -> None:
    done = command(*words, "--index", locked)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"the index folder {locked} may not be written to; " in done.stderr


def test_where_encoded_collections_cannot_be_kept_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "collection"
    (corpus / "qrels").mkdir(parents=True)
    (corpus / "corpus.jsonl").write_text('{"_id": "d", "text": "the lighthouse keeper trims the lamp"}\n')
    (corpus / "queries.jsonl").write_text('{"_id": "q", "text": "who trims the lamp"}\n')
    (corpus / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    done = command("evaluate", corpus)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    folder = cache / "semsearch" / "collections"
    assert f"{folder}, which cannot be written to (Permission denied); set XDG_CACHE_HOME" in done.stderr


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether folders may be written to."""
    access = os.access
    return lambda is_forbidden: monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.W_OK and access(path, mode) if is_forbidden else access(path, mode)
    )


def test_changes_by_others_who_may_are_seen(index: Path, forbid: Callable[[bool], None]) -> None:
    forbid(True)
    with Searcher.open(index, embedder=ToyEmbedder()) as searcher:
        for n in range(3):
            assert len(searcher.search("dough", mode="lexical", fold=False)) == n
            forbid(False)
            build_index([Document(f"dough {n}", DOUGH.text + "!" * n)], index=index, embedder=ToyEmbedder())
            forbid(True)


def test_what_changes_while_it_is_read_is_no_answer(index: Path, forbid: Callable[[bool], None]) -> None:
    forbid(True)
    store = Store(index)
    with pytest.raises(IndexCorrupt, match="was changed while it was read; ask again"), store.snapshot():
        forbid(False)
        build_index([DOUGH], index=index, embedder=ToyEmbedder())
        forbid(True)
    with store.snapshot():
        assert len(store.document_rows()) == 2
    store.close()


def test_a_writer_that_is_at_work_is_read_beside(index: Path, forbid: Callable[[bool], None]) -> None:
    with contextlib.closing(sqlite3.connect(index / "store.db")) as writing:
        writing.execute("INSERT INTO vectors (text_hash) VALUES (x'00')")
        writing.commit()  # to the log, which is copied back when the last one closes it
        forbid(True)
        store = Store(index)
        assert store.query("SELECT text_hash FROM vectors WHERE id = (SELECT max(id) FROM vectors)") == [(b"\x00",)]
        store.close()


def test_what_a_run_that_was_cut_off_left_is_not_passed_over(index: Path, forbid: Callable[[bool], None]) -> None:
    (index / "store.db-wal").write_bytes(b"what SQLite would have to copy back")
    forbid(True)
    with pytest.raises(InvalidInput, match="was cut off, and its folder may not be written to; use a copy of it"):
        Searcher.open(index, embedder=ToyEmbedder())
