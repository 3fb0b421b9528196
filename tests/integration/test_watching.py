"""An index kept in step with real files, by the toy encoder."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from semsearch import build_index, change_hints, watching
from semsearch.change_hints import ChangeHints
from semsearch.errors import (
    IndexIncompatible,
    IndexLocked,
    IndexNotFound,
    IndexUnwritable,
    InvalidInput,
    MissingExtra,
    ModelError,
)
from semsearch.reports import IndexReport
from semsearch.store.files import writer_lock
from semsearch.watching import watch
from tests.toy import ToyEmbedder

PATIENCE_S = 60.0  # nothing here should take a second; machines are slow at times


class Watching:
    """`watch` in a thread, and what it told."""

    def __init__(self, index: Path, *paths: Path, embedder: ToyEmbedder | None = None) -> None:
        self.index = index
        self.stop = threading.Event()
        self.told: queue.Queue[IndexReport | Exception] = queue.Queue()
        self.failure: BaseException | None = None
        self.embedder = embedder or ToyEmbedder()
        self.thread = threading.Thread(target=self._run, args=(paths,))
        self.thread.start()

    def _run(self, paths: tuple[Path, ...]) -> None:
        tell = self.told.put
        options = {"index": self.index, "embedder": self.embedder, "on_report": tell, "on_error": tell}
        try:
            watch(paths, stop=self.stop, **options)  # type: ignore[arg-type]
        except BaseException as error:
            self.failure = error
            tell(error)  # type: ignore[arg-type]

    def next(self) -> IndexReport | Exception:
        return self.told.get(timeout=PATIENCE_S)

    def texts(self) -> set[str]:
        """The texts of all documents that searches may find."""
        with closing(sqlite3.connect(self.index / "store.db")) as connection:
            rows = connection.execute("SELECT content FROM documents WHERE visible = 1").fetchall()
        return {zlib.decompress(content).decode() for (content,) in rows}

    def until(self, expected: set[str]) -> None:
        """Wait until the index holds just these texts."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.thread.is_alive():
            if (self.index / "store.db").exists() and self.texts() == expected:
                return
            time.sleep(0.05)
        assert self.texts() == expected

    def end(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("A river.")
    (folder / "deep" / "er" / "b.txt").write_text("A violin.")
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    begun = []

    def make(*paths: Path, index: Path | None = None, embedder: ToyEmbedder | None = None) -> Watching:
        begun.append(Watching(index or tmp_path / "index", *paths, embedder=embedder))
        return begun[-1]

    yield make
    for watching_ in begun:
        watching_.end()


FIRST = {"A river.", "A violin."}


@pytest.fixture
def running(start: Callable[..., Watching], folder: Path) -> Watching:
    watching_ = start(folder)
    report = watching_.next()
    assert isinstance(report, IndexReport), report
    assert report.files.indexed == 2
    return watching_


def test_files_come_change_and_go(running: Watching, folder: Path) -> None:
    running.until(FIRST)
    (folder / "new.txt").write_text("A kettle.")
    running.until({*FIRST, "A kettle."})
    (folder / "new.txt").write_text("A lantern.")
    running.until({*FIRST, "A lantern."})
    (folder / "new.txt").unlink()
    running.until(FIRST)
    kinds = [running.next() for _ in range(3)]
    assert all(isinstance(report, IndexReport) for report in kinds)
    assert [(r.files.indexed, r.files.removed) for r in kinds] == [(1, 0), (1, 0), (0, 1)]  # type: ignore[union-attr]


def test_an_editor_saves_by_renaming(running: Watching, folder: Path) -> None:
    for n in range(3):
        (folder / ".a.txt.swp").write_text("half written")
        (folder / "4913").touch()
        (folder / "4913").unlink()
        (folder / ".a.txt.swp").write_text(f"A kettle, {n}.")
        (folder / ".a.txt.swp").replace(folder / "a.txt")
        running.until({f"A kettle, {n}.", "A violin."})


def test_a_watched_file_may_be_replaced_again_and_again(start: Callable[..., Watching], folder: Path) -> None:
    file = folder / "a.txt"
    running = start(file)
    running.next()
    running.until({"A river."})
    for n in range(3):
        (folder / "other").write_text(f"A harbour, {n}.")
        (folder / "other").replace(file)
        running.until({f"A harbour, {n}."})


def test_a_watched_file_that_changed_is_seen_without_a_hint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that took the place of another, and got the number of the one before that."""
    file, stop = folder / "a.txt", threading.Event()
    hints = ChangeHints([str(file), str(folder / "deep")])
    monkeypatch.setattr(hints, "_next", lambda _: time.sleep(0.02))
    number = file.stat().st_ino
    file.write_text("A harbour")
    assert file.stat().st_ino == number
    impatient = threading.Timer(PATIENCE_S, stop.set)
    impatient.start()
    hints.wait(stop)  # or for LOOK_S
    assert not stop.is_set()
    impatient.cancel()
    monkeypatch.setattr(hints, "_next", lambda _: stop.set())
    (folder / "deep" / "er" / "b.txt").write_text("A horn.")  # of folders the system tells
    monkeypatch.setattr(hints, "_begin", lambda: pytest.fail("nothing took the place of a root"))
    hints.wait(stop)
    hints.close()


def test_folders_are_moved_out_in_and_about(running: Watching, folder: Path, tmp_path: Path) -> None:
    (folder / "deep").rename(tmp_path / "deep")
    running.until({"A river."})
    (tmp_path / "deep" / "er" / "c.txt").write_text("An onion.")
    (tmp_path / "deep").rename(folder / "again")
    running.until({*FIRST, "An onion."})
    n_before = running.embedder.n_encoded
    (folder / "again").rename(folder / "once more")
    (folder / "once more" / "er" / "d.txt").write_text("A crust.")  # in a folder that is new to the watcher
    running.until({*FIRST, "An onion.", "A crust."})
    assert running.embedder.n_encoded == n_before + 1  # what moved is known


def test_many_files_at_once_are_few_syncs(running: Watching, folder: Path) -> None:
    expected = set(FIRST)
    for n in range(1_000):
        path = folder / f"{n % 10}" / f"{n}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"Ledger number {n}.")
        expected.add(f"Ledger number {n}.")
    running.until(expected)
    for n in range(10):
        shutil.rmtree(folder / f"{n}")
    running.until(FIRST)
    running.end()
    assert running.told.qsize() < 40


def test_what_changes_while_it_is_indexed_is_read_again(start: Callable[..., Watching], folder: Path) -> None:
    class Slow(ToyEmbedder):
        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            for text in texts:
                if "river" in text:
                    (folder / "a.txt").write_text("A kettle instead.")
            return super().embed_documents(texts)

    running = start(folder, embedder=Slow())
    running.next()
    running.until({"A kettle instead.", "A violin."})


def test_another_writer_is_waited_for(running: Watching, folder: Path) -> None:
    with writer_lock(running.index, wait_s=PATIENCE_S):
        (folder / "c.txt").write_text("An onion.")
        assert isinstance(running.next(), IndexLocked)
        assert running.texts() == FIRST
    running.until({*FIRST, "An onion."})
    assert isinstance(running.next(), IndexReport)  # and told once


def test_a_later_error_is_told_and_tried_again(
    start: Callable[..., Watching], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "FIRST_PAUSE_S", 0.1)
    running = start(folder)
    running.next()

    def fail(*_: object, **__: object) -> IndexReport:
        raise IndexUnwritable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(watching, "build_index", fail)
        (folder / "c.txt").write_text("An onion.")
        assert str(running.next()) == "the disk is full"
    running.until({*FIRST, "An onion."})


def test_files_that_fail_are_told_once(running: Watching, folder: Path) -> None:
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    report = running.next()
    assert isinstance(report, IndexReport) and [Path(p.path).name for p in report.problems] == ["bad.pdf"]
    (folder / "c.txt").write_text("An onion.")
    running.until({*FIRST, "An onion."})
    running.end()
    assert running.told.qsize() == 1


def test_a_root_that_goes_is_kept_until_it_is_back(running: Watching, folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "away")
    report = running.next()
    assert isinstance(report, IndexReport)
    assert [p.path for p in report.problems] == [str(folder)] and "no longer there" in report.problems[0].reason
    assert running.texts() == FIRST
    shutil.copytree(tmp_path / "away", folder)
    (folder / "c.txt").write_text("An onion.")
    running.until({*FIRST, "An onion."})
    (folder / "c.txt").write_text("A crust.")
    running.until({*FIRST, "A crust."})


def test_an_index_inside_a_watched_folder_wakes_nobody(start: Callable[..., Watching], folder: Path) -> None:
    (folder / "indexes").mkdir()
    (folder / "indexes" / ".gitignore").write_text("*\n!.gitignore\n")
    running = start(folder, index=folder / "indexes" / "default")
    running.next()
    (folder / "c.txt").write_text("An onion.")
    running.until({*FIRST, "An onion."})
    hints = ChangeHints([str(folder)])
    try:
        stop = threading.Event()
        build_index(folder, index=running.index, embedder=running.embedder, wait_s=PATIENCE_S)
        threading.Timer(3, stop.set).start()
        hints.wait(stop)
        assert stop.is_set()  # that is what it waited for
    finally:
        hints.close()


@pytest.mark.parametrize(
    ("path", "matters"),
    [("a.txt", True), (".gitignore", True), ("x/.git/HEAD", False), ("node_modules/a.md", False), ("a.b/c.md", True)],
)
def test_only_what_may_be_indexed_is_a_hint(tmp_path: Path, path: str, matters: bool) -> None:
    hidden = tmp_path / ".notes"  # above the files it does not matter
    hidden.mkdir()
    hints = ChangeHints([str(hidden)])
    hints.close()
    assert hints._may_matter(str(hidden / path)) is matters


def test_without_hints_it_looks_from_time_to_time(
    start: Callable[..., Watching], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import watchfiles

    def no_watches(*_: object, **__: object) -> Iterator[object]:
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr(watchfiles, "watch", no_watches)
    monkeypatch.setattr(change_hints, "BLIND_LOOK_S", 0.1)
    running = start(folder)
    running.next()
    (folder / "c.txt").write_text("An onion.")
    running.until({*FIRST, "An onion."})


def test_without_paths_the_remembered_folders_are_watched(start: Callable[..., Watching], folder: Path) -> None:
    index = folder.parent / "index"
    build_index(folder, index=index, embedder=ToyEmbedder())
    running = start()
    (folder / "c.txt").write_text("An onion.")
    running.until({*FIRST, "An onion."})


def test_stop_ends_a_sync_that_is_going_on(start: Callable[..., Watching], folder: Path) -> None:
    class Endless(ToyEmbedder):
        def embed_documents(self, texts):  # type: ignore[no-untyped-def]
            running.stop.set()
            return super().embed_documents(texts)

    for n in range(300):
        (folder / f"{n}.txt").write_text(f"Ledger number {n}. " * 20)
    running = start(folder, embedder=Endless())
    running.end()
    assert running.failure is None and running.told.empty()
    build_index(folder, index=running.index, embedder=ToyEmbedder())  # goes on from there
    assert len(running.texts()) == 302


def test_what_cannot_be_watched_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound, match="name a folder"):
        watch(index=tmp_path / "none")
    with pytest.raises(InvalidInput, match="does not exist"):
        watch([tmp_path / "nowhere"], index=tmp_path / "none", embedder=ToyEmbedder())
    assert not (tmp_path / "none").exists()
    build_index(folder, index=tmp_path / "index", embedder=ToyEmbedder())
    with pytest.raises(IndexIncompatible, match="toy-b"):
        watch([folder], index=tmp_path / "index", embedder=ToyEmbedder(seed="b"))


def test_without_watchfiles_the_extra_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingExtra, match=r"pip install 'semsearch\[watch\]'"):
        watch([folder], index=tmp_path / "index", embedder=ToyEmbedder())


def test_what_tells_of_changes_is_let_go_of_where_the_model_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[ChangeHints] = []
    real = ChangeHints.close
    monkeypatch.setattr(ChangeHints, "close", lambda hints: (closed.append(hints), real(hints)))
    with pytest.raises(ModelError):
        watching.Watch([folder], index="new", model="./no-such-folder")
    assert len(closed) == 1
