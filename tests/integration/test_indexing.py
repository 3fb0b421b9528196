"""The write line end to end, with a toy encoder that counts what it is asked to encode."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch import Document, Heading, IndexReport, Searcher, build_index, remove
from semsearch.errors import IndexCorrupt, IndexIncompatible, IndexLocked, IndexNotFound, InvalidInput, ModelError
from semsearch.reports import Progress
from semsearch.roots import RACY_NS
from semsearch.staging import WINDOWS_AHEAD
from semsearch.store.ann import FlatIndex
from semsearch.store.files import writer_lock
from semsearch.store.info import inspect_index, list_files
from semsearch.store.lexical import LexicalWriter
from semsearch.store.metadata import Store
from semsearch.store.schema import FORMAT_VERSION, check_format, migrate
from semsearch.store.sealing import seal
from semsearch.types import FloatArray
from semsearch.verifying import verify
from tests.old_formats import make_older
from tests.toy import ToyEmbedder

PAGE = "# {0}\n\nAll about {0}.\n\n" + "\n\n".join(
    f"## Part {i} of {{0}}\n\nThe {{0}} has a part number {i} which does a thing of its own, as parts of {{0}} do."
    for i in range(8)
)


@pytest.fixture
def docs(own_folder: Path) -> Path:
    folder = own_folder / "docs"
    for name in ("engine", "guides/wheel", "guides/brake"):
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE.format(path.stem), encoding="utf-8")
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Make files old enough for their time stamps to be believed."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 2 * RACY_NS))


def index(source: object, toy: ToyEmbedder, **options: object) -> IndexReport:
    return build_index(source, embedder=toy, **options)  # type: ignore[arg-type]


def paths_of(query: str, toy: ToyEmbedder, **options: object) -> list[str]:
    with Searcher.open(embedder=toy) as searcher:
        hits = searcher.search(query, per_document=1, **options)  # type: ignore[arg-type]
        return [Path(hit.document.source).name for hit in hits]


def state(toy: ToyEmbedder) -> list[tuple[object, ...]]:
    """All that can be found: text, place and vector of every visible chunk."""
    store = Store(Path("indexes/default").absolute())
    with store.snapshot():
        rows = store.query(
            "SELECT d.key, c.ordinal, c.text, c.start, c.vector_id FROM chunks c "
            "JOIN documents d ON d.id = c.document_id WHERE d.visible = 1 ORDER BY d.key, c.ordinal"
        )
    store.close()
    with Searcher.open(embedder=toy) as searcher, searcher._index.state() as parts:
        vectors = parts.vectors.get(np.array([r[4] for r in rows], dtype=np.int64))
    assert np.allclose(vectors, toy.embed_queries([r[2] for r in rows]), atol=1e-6)
    return [tuple(r[:4]) for r in rows]


def test_a_new_index_finds_what_was_put_in(docs: Path, toy: ToyEmbedder) -> None:
    report = index(docs, toy)
    assert (report.files.seen, report.files.indexed, report.problems) == (3, 3, ())
    assert report.chunks.encoded == report.chunks.total == toy.n_encoded > 20
    assert paths_of("what does part number 3 of the wheel do", toy)[0] == "wheel.md"
    assert (Path("indexes/default/.gitignore")).read_text() == "*\n"
    assert state(toy)


def test_indexing_again_encodes_nothing_and_changes_nothing(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    before, n_encoded = state(toy), toy.n_encoded
    files = sorted((p.name, p.stat().st_mtime_ns) for p in Path("indexes/default").glob("ann-*"))
    report = index(docs, toy)
    assert (report.files.unchanged, report.files.indexed, report.chunks.encoded) == (3, 0, 0)
    assert toy.n_encoded == n_encoded and state(toy) == before
    assert sorted((p.name, p.stat().st_mtime_ns) for p in Path("indexes/default").glob("ann-*")) == files


def test_a_touched_file_is_compared_by_content(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    os.utime(docs / "engine.md")
    assert index(docs, toy).files.unchanged == 3


def test_a_change_within_one_clock_tick_is_seen(docs: Path, toy: ToyEmbedder) -> None:
    page = docs / "engine.md"
    page.write_text(page.read_text())
    stat = page.stat()
    index(docs, toy)
    page.write_text(page.read_text().replace("thing", "thong"))
    os.utime(page, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert page.stat().st_size == stat.st_size
    assert index(docs, toy).files.indexed == 1


def test_a_changed_paragraph_encodes_only_its_chunk(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    page = docs / "engine.md"
    page.write_text(page.read_text().replace("part number 3 which", "part number three which"))
    report = index(docs, toy)
    assert (report.files.indexed, report.files.unchanged) == (1, 2)
    assert 1 <= report.chunks.encoded <= 2 and report.chunks.reused >= 6
    assert "three" in str(state(toy)) and "number 3 which does a thing of its own, as parts of engine" not in str(
        state(toy)
    )


def test_a_renamed_folder_encodes_nothing(docs: Path, toy: ToyEmbedder) -> None:
    total = index(docs, toy).chunks.total
    (docs / "guides").rename(docs / "manuals")
    report = index(docs, toy)
    assert (report.files.indexed, report.files.removed, report.chunks.encoded) == (2, 2, 0)
    assert report.chunks.total == total
    assert all("/guides/" not in str(row[0]) for row in state(toy))


def test_a_deleted_file_is_not_found(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    (docs / "guides/wheel.md").unlink()
    report = index(docs, toy)
    assert (report.files.removed, report.files.unchanged) == (1, 2)
    for mode in ("hybrid", "dense", "lexical"):
        assert "wheel.md" not in paths_of("wheel", toy, k=50, mode=mode)


def test_equal_files_are_encoded_once(docs: Path, toy: ToyEmbedder) -> None:
    shutil.copy(docs / "engine.md", docs / "copy.md")
    report = index(docs, toy)
    assert report.chunks.reused == (report.chunks.total - report.chunks.encoded) > 0
    assert {"engine.md", "copy.md"} <= set(paths_of("engine part", toy, k=5, mode="dense"))


def test_unreadable_files_are_reported_and_tried_again_only_when_changed(docs: Path, toy: ToyEmbedder) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 cut off")
    (docs / "empty.txt").write_text("")
    (docs / ".secret").write_text("hidden")
    settle(docs)
    report = index(docs, toy)
    files = report.files
    assert (files.seen, files.indexed, files.failed, files.skipped) == (6, 3, 1, 2)
    assert {Path(p.path).name for p in report.problems} == {"broken.pdf", "empty.txt", ".secret"}
    assert all(p.reason for p in report.problems)
    again = index(docs, toy)
    assert again.problems == report.problems and again.files.unchanged == 3 and again.chunks.encoded == 0
    assert {Path(f.path).name: f.status for f in list_files()}["broken.pdf"] == "failed"
    (docs / "broken.pdf").unlink()
    assert index(docs, toy).files.failed == 0


def test_a_file_that_becomes_unreadable_leaves_the_index(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    (docs / "engine.md").write_bytes(os.urandom(5_000))
    report = index(docs, toy)
    assert report.files.skipped + report.files.failed == 1
    assert "engine.md" not in paths_of("engine", toy, k=50)


def test_several_roots_share_an_index(docs: Path, toy: ToyEmbedder, own_folder: Path) -> None:
    other = own_folder / "notes"
    other.mkdir()
    (other / "todo.txt").write_text("Buy a saddle for the horse.")
    index(docs, toy)
    index(other, toy)
    assert inspect_index().roots == (str(docs), str(other))
    assert paths_of("saddle horse", toy)[0] == "todo.txt"
    (other / "todo.txt").unlink()
    assert index(docs, toy).files.removed == 0  # only the named root is brought up to date
    report = index(None, toy)
    assert (report.files.removed, report.files.unchanged) == (1, 3)


def test_patterns_are_remembered(docs: Path, toy: ToyEmbedder) -> None:
    assert index(docs, toy, excludes=["guides"]).files.seen == 1
    assert index(docs, toy).files.seen == 1
    assert index(docs, toy, excludes=[]).files.indexed == 2
    assert index(docs, toy, globs=["wh*.md"]).files.removed == 2


def test_nothing_is_deleted_from_a_lexical_index_of_which_nothing_stays(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = list[int]()
    monkeypatch.setattr(LexicalWriter, "delete", lambda _, ids: deleted.extend(ids))
    build_index([Document("a", "river"), Document("b", "river")], embedder=toy)
    index = build_index([Document("a", "cloud"), Document("b", "cloud")], embedder=toy).index
    assert not deleted and verify(index, embedder=toy).is_sound
    build_index([Document("a", "stone")], embedder=toy)
    assert len(deleted) == 1


def test_documents_without_files(toy: ToyEmbedder) -> None:
    texts = {"a": "The first text is about rivers.", "b": "The second one is about mountains. " * 12}
    given = [
        Document(i, t, title=f"T{i}", metadata={"n": 1, "tags": ["x"]}, outline=(Heading(0, 1, "Top"),))
        for i, t in texts.items()
    ]
    report = index(iter(given), toy)
    assert (report.files.indexed, report.chunks.encoded) == (2, toy.n_encoded)
    with Searcher.open(embedder=toy) as searcher:
        hit = searcher.search("mountains", k=1)[0]
    assert hit.document == given[1] and hit.chunk.heading == "Top"
    assert hit.document.text[hit.chunk.start : hit.chunk.end] == hit.chunk.text
    report = index([given[0], Document("b", "Now about deserts.")], toy)
    assert (report.files.unchanged, report.files.indexed, report.chunks.total) == (1, 1, 2)
    report = index([Document("a", "  ")], toy)
    assert report.problems[0].reason == "empty text" and report.chunks.total == 1
    assert index([], toy).files.seen == 0


@pytest.mark.parametrize(
    "document",
    [
        Document("", "x"),
        Document("a", None),  # type: ignore[arg-type]
        Document("a", "x", metadata={"k": {1, 2}}),
        Document("a", "x", metadata={"k": float("nan")}),
    ],
)
def test_unusable_documents_are_refused_and_nothing_is_lost(document: Document, toy: ToyEmbedder) -> None:
    index([Document("old", "An older text.")], toy)
    with pytest.raises(InvalidInput, match="document"):
        index([Document("new", "A newer text."), document], toy)
    with Searcher.open(embedder=toy) as searcher:
        assert [h.document.id for h in searcher.search("text")] == ["old"]


def test_odd_characters_survive(toy: ToyEmbedder) -> None:
    text = "half \ud800 pair, zero \x00 byte, \u202e bidi, emoji 🚀 and e\u0301"
    index([Document("odd", text)], toy)
    with Searcher.open(embedder=toy) as searcher:
        assert searcher.search("emoji")[0].document.text == text.replace("\ud800", "\ufffd")


def test_another_model_is_refused_until_rebuilt(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    index([Document("given", "A text that came from no file, about kayaks.")], toy)
    other = ToyEmbedder("b", max_tokens=25)
    with pytest.raises(IndexIncompatible, match=r"toy-a .*toy-b.*--rebuild"):
        index(docs, other)
    with pytest.raises(IndexIncompatible, match="cannot be compared"):
        Searcher.open(embedder=other)
    report = index(docs, other, rebuild=True)
    assert report.chunks.encoded == other.n_encoded > 20 and report.files.indexed == 4
    assert state(other) and inspect_index().model == "toy-b"
    with Searcher.open(embedder=other) as searcher:
        assert searcher.search("kayaks", k=1)[0].document.id == "given"
    assert index(docs, other).chunks.encoded == 0


def test_readers_keep_their_state_and_move_on(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    with Searcher.open(embedder=toy) as searcher:
        assert searcher.search("wheel", k=1)[0].document.source.endswith("wheel.md")
        (docs / "guides/wheel.md").unlink()
        (docs / "saddle.md").write_text("A saddle for the horse.")
        index(docs, toy)
        assert searcher.search("saddle horse", k=1)[0].document.source.endswith("saddle.md")
        assert all("wheel" not in h.document.source for h in searcher.search("wheel", k=20))


def test_reading_goes_on_while_passages_are_encoded(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 10)
    is_read = threading.Event()
    threads = set()

    def encode(texts: list[str]) -> FloatArray:
        threads.add(threading.get_ident())
        assert is_read.wait(30), "the second window was not read while the first was being encoded"
        return toy.embed_queries(texts)

    def stream() -> Iterator[Document]:
        for i in range(40):
            if i == 15:
                is_read.set()
            yield Document(str(i), f"text number {i}")

    monkeypatch.setattr(toy, "embed_documents", encode)
    told: list[int] = []
    report = build_index(stream(), embedder=toy, progress=lambda p: told.append(threading.get_ident()))
    assert report.chunks.encoded == 40
    assert len(threads) == 1 and set(told) == {threading.get_ident()} != threads  # progress is told in one's own thread


def test_what_was_encoded_before_an_interruption_is_kept(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 10)
    is_stopped = threading.Event()

    def encode(texts: list[str]) -> FloatArray:
        is_stopped.wait(30)  # so that nothing is written before the interruption
        return toy.embed_queries(texts)

    def stream(n: int) -> Iterator[Document]:
        yield from (Document(str(i), f"text number {i}") for i in range(n))
        if n == 15:
            is_stopped.set()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(toy, "embed_documents", encode)
        with pytest.raises(KeyboardInterrupt):
            index(stream(15), toy)
    chunks = index(stream(40), toy).chunks
    assert (chunks.total, chunks.reused) == (40, 10)  # the window that was being encoded


def test_an_error_of_the_encoder_is_raised_and_nothing_is_shown(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 10)
    sizes: list[int] = []

    def encode(texts: list[str]) -> FloatArray:
        if len(sizes) > 1:
            raise ModelError("the encoder broke")
        sizes.append(len(texts))
        return toy.embed_queries(texts)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "embed_documents", encode)
        with pytest.raises(ModelError, match="the encoder broke"):
            index((Document(str(i), f"text number {i}") for i in range(95)), toy)
    with pytest.raises(IndexNotFound, match="never finished"):
        Searcher.open(embedder=toy)
    chunks = index((Document(str(i), f"text number {i}") for i in range(95)), toy).chunks
    assert (chunks.total, chunks.reused) == (95, 20)  # two windows had been written


def test_a_faiss_file_of_another_kind_is_made_anew(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FlatIndex, "kind", "older")
        index([Document("a", "a wheel")], toy)
    with monkeypatch.context() as patch:
        patch.setattr(FlatIndex, "load", lambda *_, **__: pytest.fail("the old file was taken over"))
        index([Document("b", "a brake")], toy)
    with Searcher.open(embedder=toy) as searcher:
        assert {hit.document.id for hit in searcher.search("wheel brake", mode="dense")} == {"a", "b"}
    assert inspect_index().ann_kind == FlatIndex.kind


def test_texts_in_windows_that_wait_are_encoded_once(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 5)
    documents = [Document(str(i), f"text number {i % 7}") for i in range(50)]
    chunks = index(documents, toy).chunks
    assert (chunks.encoded, chunks.reused, chunks.total) == (7, 43, 50) and toy.n_encoded == 7


def test_several_devices_are_handed_so_many_times_more_at_once(
    docs: Path, toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 4)
    largest = []
    for n_devices in (1, 3):
        sizes: list[int] = []
        monkeypatch.setattr(
            toy, "embed_documents", lambda texts, sizes=sizes: sizes.append(len(texts)) or toy.embed_queries(texts)
        )
        monkeypatch.setattr(toy, "n_devices", n_devices, raising=False)
        assert index(docs, toy, index=f"on-{n_devices}").chunks.encoded == sum(sizes) > 20
        largest.append(max(sizes))
    assert largest == [4, 12]


class Killed(BaseException):
    """Stands for the process being gone: nothing may catch it."""


def test_a_run_that_is_cut_off_shows_nothing_and_is_taken_up(
    docs: Path, toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 5)
    index(docs, toy)
    before = state(toy)
    for i in range(5):
        (docs / f"new{i}.md").write_text(PAGE.format(f"novelty{i}"))
    settle(docs)
    n_before = toy.n_encoded
    cut = ToyEmbedder(fail_after=22)
    with pytest.raises(KeyboardInterrupt):
        index(docs, cut)
    assert state(toy) == before
    whole = ToyEmbedder()
    report = index(docs, whole)
    assert report.files.indexed == 5 and report.files.unchanged == 3
    n_new = report.chunks.total - len(before)
    assert whole.n_encoded <= n_new - 22 + 5 + 1  # at most the window in flight is encoded twice
    resumed = state(toy)
    shutil.rmtree("indexes")
    index(docs, toy)
    assert state(toy) == resumed and n_before > 0


@pytest.mark.parametrize("step", ["save_ann", "_swap", "remove_leftover_files", "compact_shards"])
def test_death_at_a_step_of_publishing(
    docs: Path, toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    index(docs, toy)
    before = state(toy)
    (docs / "guides/wheel.md").unlink()
    (docs / "saddle.md").write_text(PAGE.format("saddle"))
    settle(docs)
    target = "semsearch.store.writing.StoreWriter" if step == "_swap" else "semsearch.store.derived.Derived"

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"{target}.{step}", die)
        with pytest.raises(Killed):
            index(docs, toy)
    committed = step in {"remove_leftover_files", "compact_shards"}
    assert (state(toy) == before) is not committed
    n_encoded = toy.n_encoded
    report = index(docs, toy)
    assert toy.n_encoded == n_encoded and report.chunks.encoded == 0
    assert paths_of("saddle", toy)[0] == "saddle.md" and "wheel.md" not in paths_of("wheel", toy, k=50)


@pytest.mark.parametrize("damage", ["ann", "lexical"])
def test_lost_derived_files_come_back_without_encoding(docs: Path, toy: ToyEmbedder, damage: str) -> None:
    index(docs, toy)
    if damage == "ann":
        next(Path("indexes/default").glob("ann-*")).write_bytes(b"")
    else:
        shutil.rmtree(next(Path("indexes/default").glob("lexical*")))
    with Searcher.open(embedder=toy) as searcher, pytest.raises(IndexCorrupt, match="semsearch verify --repair"):
        searcher.search("wheel")
    (docs / "more.md").write_text("Something more.")
    report = index(docs, toy)
    assert report.chunks.encoded == 1
    assert paths_of("wheel", toy, mode="lexical")[0] == "wheel.md" == paths_of("wheel part", toy, mode="dense")[0]


def test_many_runs_leave_few_shards_and_no_dead_vectors(own_folder: Path, toy: ToyEmbedder) -> None:
    for i in range(30):
        index([Document("same", f"Edition {i} of a text. " * (10 + i))], toy)
    shards = list(Path("indexes/default/vectors").glob("*.ids.npy"))
    assert len(shards) <= 9 and state(toy)
    assert sum(len(np.load(s)) for s in shards) <= 2 * inspect_index().vectors
    assert len(list(Path("indexes/default").glob("ann-*"))) == 1


def test_vectors_of_removed_documents_do_not_crowd_out_hits(toy: ToyEmbedder) -> None:
    index([Document(f"d{i}", f"word{i} common") for i in range(40)], toy)
    remove([f"d{i}" for i in range(6)])  # under the share at which shards are written anew
    with Searcher.open(embedder=toy) as searcher:
        assert len(searcher.search("common", k=34, mode="dense")) == 34
        assert len(searcher.search("common", k=34, mode="lexical")) == 34


def test_remove(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    index([Document("given", "A given text.")], toy)
    report = remove(["docs/guides/wheel.md", "given", "nowhere"])
    assert (report.documents, report.missing, report.roots) == (2, ("nowhere",), ()) and report.chunks > 1
    assert "wheel.md" not in paths_of("wheel", toy, k=50)
    assert remove(["docs"]).roots == (str(docs),)
    assert inspect_index().documents == 0 and list_files() == []
    assert remove(["nowhere"]).missing == ("nowhere",)
    with Searcher.open(embedder=toy) as searcher:
        assert searcher.search("anything") == []
    assert docs.is_dir() and (docs / "engine.md").exists()
    with pytest.raises(IndexNotFound):
        remove(["x"], index="other")


@pytest.mark.parametrize("by", ["replacing", "emptying", "removing"])
def test_a_file_whose_document_is_taken_by_its_id_is_read_again(docs: Path, toy: ToyEmbedder, by: str) -> None:
    (docs / "rows.csv").write_text("town,river\nBerne,Aare\nBasle,Rhine\n")
    index(docs, toy)
    before = state(toy)
    for key in (str(docs / "guides/wheel.md"), f"{docs / 'rows.csv'}#row=2"):
        if by == "removing":
            assert remove([], ids=[key]).documents == 1
        else:
            index([Document(key, "Other words." if by == "replacing" else "")], toy)
    assert state(toy) != before
    assert astuple(verify(embedder=toy).sources) == (2, 2, 0, 0)
    assert index(docs, toy).files.indexed == 2
    assert state(toy) == before
    assert index(docs, toy).files.indexed == 0


def test_wrong_sources(toy: ToyEmbedder, own_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere does not exist"):
        index("nowhere", toy)
    with pytest.raises(InvalidInput, match="neither a path nor a Document"):
        index([5], toy)
    with pytest.raises(IndexNotFound, match="name a folder"):
        index(None, toy)
    assert not Path("indexes/default/store.db").exists()


def test_an_index_does_not_index_itself(own_folder: Path, toy: ToyEmbedder) -> None:
    (own_folder / "note.txt").write_text("A note.")
    assert index(own_folder, toy).files.seen == 1
    assert index(own_folder, toy).files.seen == 1


def test_two_writers_are_refused(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    with writer_lock(Path("indexes/default")), pytest.raises(IndexLocked, match=f"pid {os.getpid()}"):
        index(docs, toy)


def test_a_newer_format_and_a_damaged_database_are_named(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    connection = sqlite3.connect("indexes/default/store.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for action in (lambda: index(docs, toy), lambda: Searcher.open(embedder=toy)):
        with pytest.raises(IndexIncompatible, match=r"format 99.*pip install --upgrade"):
            action()
    for leftover in Path("indexes/default").glob("store.db*"):
        leftover.write_bytes(b"not a database" * 1000)
    for action in (lambda: index(docs, toy), lambda: Searcher.open(embedder=toy)):
        with pytest.raises(IndexCorrupt, match=r"store\.db"):
            action()


def test_progress_and_report(docs: Path, toy: ToyEmbedder) -> None:
    (docs / "empty.md").write_text("")
    seen: list[Progress] = []
    report = index(docs, toy, progress=seen.append)
    assert seen[-1].files_done == seen[-1].files_total == 4
    assert [p.files_done for p in seen] == sorted(p.files_done for p in seen)
    assert seen[-1].chunks_done == report.chunks.encoded
    told = json.loads(json.dumps(report.as_dict()))
    assert set(told) == {"index", "files", "chunks", "ann", "elapsed_s", "problems"}
    files = told["files"]
    assert files["seen"] == files["indexed"] + files["unchanged"] + files["skipped"] + files["failed"] == 4
    assert told["problems"][0]["path"].endswith("empty.md")


def test_rows_of_a_table_are_documents(own_folder: Path, toy: ToyEmbedder) -> None:
    rows = "".join(f'{{"text": "row {i} tells of animal{i}", "n": {i}}}\n' for i in range(20))
    (own_folder / "rows.jsonl").write_text(rows)
    report = index("rows.jsonl", toy)
    assert (report.files.seen, report.chunks.total) == (1, 20)
    with Searcher.open(embedder=toy) as searcher:
        hit = searcher.search("animal7", k=1)[0]
    assert hit.document.metadata["n"] == 7 and hit.document.id.endswith("rows.jsonl#row=8")
    (own_folder / "rows.jsonl").write_text(rows + "{broken\n")
    report = index("rows.jsonl", toy)
    assert report.files.failed == 1 and report.chunks.total == 0  # all of a file or none of it


def test_documents_may_stream(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 10)

    def stream() -> Iterator[Document]:
        for i in range(95):
            assert toy.n_encoded >= i - 10 * (1 + WINDOWS_AHEAD)  # no more than these windows wait in memory
            yield Document(str(i), f"text number {i}")

    assert index(stream(), toy).chunks.total == 95


def test_a_folder_that_is_no_index_is_left_alone(docs: Path, toy: ToyEmbedder) -> None:
    (docs / "vectors").mkdir()
    (docs / "vectors" / "logo.svg").write_text("<svg/>")
    before = sorted(str(p) for p in docs.rglob("*"))
    for folder in (docs, str(docs) + "/", "./docs"):
        with pytest.raises(InvalidInput, match="is not an index but holds other files"):
            index(docs, toy, index=folder)
    assert sorted(str(p) for p in docs.rglob("*")) == before
    sqlite3.connect(docs / "store.db").execute("CREATE TABLE customers (name)").connection.close()
    for action in (lambda: index(docs, toy, index=docs), lambda: Searcher.open(docs)):
        with pytest.raises(IndexIncompatible, match="another application's database"):
            action()
    with pytest.raises(InvalidInput, match="cannot be made or read"):
        index(docs, toy, index=docs / "engine.md")


@pytest.mark.parametrize("n_asked", [0, 1, 2, 3])
def test_a_database_that_is_being_made_is_nobody_elses(tmp_path: Path, n_asked: int) -> None:
    """A reader that opens it just when its writer makes the tables, after so many of the reader's statements."""
    path = tmp_path / "store.db"

    class Reader(sqlite3.Connection):
        n_left = n_asked

        def execute(self, *statement: Any) -> sqlite3.Cursor:
            if self.n_left == 0:
                with closing(sqlite3.connect(path, isolation_level=None)) as writer:
                    migrate(writer)
            self.n_left -= 1
            return super().execute(*statement)

    with closing(sqlite3.connect(path, factory=Reader)) as reader:
        assert check_format(reader) in (0, FORMAT_VERSION)
        assert check_format(reader) == FORMAT_VERSION


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_lost_shards_are_encoded_again(docs: Path, toy: ToyEmbedder, damage: str) -> None:
    index(docs, toy)
    index([Document("given", "A text that came from no file, about kayaks.")], toy)
    expected = state(toy)
    shard = Path("indexes/default/vectors/000000.npy")
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:200])
    with Searcher.open(embedder=toy) as searcher, pytest.raises(IndexCorrupt, match="semsearch verify --repair"):
        searcher.search("wheel")
    report = index(docs, toy)
    assert report.chunks.encoded > 0 and state(toy) == expected
    assert index(docs, toy).chunks.encoded == 0


@pytest.mark.parametrize("lost", ["ann-*", "lexical-*"])
def test_lost_derived_files_come_back_with_any_run(docs: Path, toy: ToyEmbedder, lost: str) -> None:
    index(docs, toy)
    for path in Path("indexes/default").glob(lost):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert index(docs, toy).chunks.encoded == 0
    assert paths_of("wheel", toy)[0] == "wheel.md"


def test_work_that_was_cut_off_outlives_runs_over_other_folders(
    docs: Path, toy: ToyEmbedder, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.staging.WINDOW_CHUNKS", 5)
    with pytest.raises(KeyboardInterrupt):
        index(docs, ToyEmbedder(fail_after=21))
    other = own_folder / "other"
    other.mkdir()
    (other / "a.txt").write_text("Something else.")
    assert index(other, toy).chunks.total == 1
    report = index(docs, toy)
    assert report.chunks.encoded <= report.chunks.total - 1 - 20 + 5


def test_a_run_that_died_leaves_no_words_behind(docs: Path, toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    from semsearch.store.lexical import LexicalIndex

    index(docs, toy)
    (docs / "secret.md").write_text("zanzibar swordfish")
    with monkeypatch.context() as patch:
        patch.setattr("semsearch.store.derived.Derived.save_ann", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            index(docs, toy)
    written = sorted(Path("indexes/default").glob("lexical-*"))
    assert LexicalIndex(written[-1]).search("swordfish", 5)  # tantivy had committed
    assert paths_of("swordfish", toy, mode="lexical") == []
    (docs / "secret.md").unlink()
    (docs / "other.md").write_text("Something else.")
    index(docs, toy)
    (left,) = Path("indexes/default").glob("lexical-*")
    assert LexicalIndex(left).search("swordfish", 5) == [] and LexicalIndex(left).search("something", 5)


def test_an_index_of_the_first_format_is_brought_up_to_date(docs: Path, toy: ToyEmbedder) -> None:
    import sqlite3

    index(docs, toy)
    expected = state(toy)
    path = Path("indexes/default")
    next(path.glob("lexical-*")).rename(path / "lexical")
    with sqlite3.connect(path / "store.db") as db:
        make_older(db, 1)
    db.close()
    for file in (path / "store.sum", *(path / "vectors").glob("*.sums.npy")):
        file.unlink()
    with pytest.raises(IndexIncompatible, match=r"format 1, .*semsearch index"):
        state(toy)
    assert index(docs, toy).chunks.encoded == 0
    assert state(toy) == expected and paths_of("wheel", toy, mode="lexical")[0] == "wheel.md"
    (docs / "other.md").write_text("Something else.")
    index(docs, toy)
    assert [p.name for p in path.glob("lexical*")] == ["lexical-000003"]
    assert paths_of("wheel", toy, mode="lexical")[0] == "wheel.md"


def test_roots_keep_their_own_patterns_and_files(own_folder: Path, toy: ToyEmbedder) -> None:
    for path in ("a/x.md", "a/x.txt", "b/y.txt", "d/one.md", "d/sub/two.txt"):
        (own_folder / path).parent.mkdir(parents=True, exist_ok=True)
        (own_folder / path).write_text(f"Text of {path}")
    index("a", toy, globs=["*.md"])
    index("b", toy)
    assert index("a", toy, globs=["*.md"], rebuild=True).chunks.total == 2
    index("d", toy, globs=["*.md"])
    index("d/sub", toy)
    assert index("d", toy).files.removed == 0
    (own_folder / "d/sub/two.txt").unlink()
    assert index("d", toy).files.removed == 1
    with pytest.raises(InvalidInput, match="belong to a folder"):
        index(None, toy, globs=["*.md"])
    with pytest.raises(InvalidInput):
        index("b", toy, globs=["!"])
    assert index(None, toy).files.unchanged == 3


def test_the_text_column_is_remembered(own_folder: Path, toy: ToyEmbedder) -> None:
    table = own_folder / "t.csv"
    table.write_text("summary,details\nshort one,a much longer text about walruses\n")
    settle(own_folder)
    assert index(table, toy, text_column="summary").files.indexed == 1
    table.write_text("summary,details\nshort two,a much longer text about walruses\n")
    assert index(table, toy).files.indexed == 1
    with Searcher.open(embedder=toy) as searcher:
        assert searcher.search("short")[0].chunk.text == "short two"
    assert index(table, toy, text_column="details").files.indexed == 1
    with Searcher.open(embedder=toy) as searcher:
        assert "walruses" in searcher.search("walruses")[0].chunk.text


def test_of_documents_with_one_id_the_last_wins(toy: ToyEmbedder) -> None:
    def text() -> list[str]:
        with Searcher.open(embedder=toy) as searcher:
            return [h.chunk.text for h in searcher.search("text", mode="dense")]

    index([Document("z", "text three")], toy)
    index([Document("z", "text four"), Document("z", "text three")], toy)
    assert text() == ["text three"]
    index([Document("z", "text five"), Document("z", "text six")], toy)
    assert text() == ["text six"]
    index([Document("z", "text seven"), Document("z", " ")], toy)
    assert text() == []


def test_a_root_that_is_gone_does_not_hold_up_the_others(docs: Path, toy: ToyEmbedder, own_folder: Path) -> None:
    other = own_folder / "other folder"
    other.mkdir()
    (other / "a.txt").write_text("Something else about walruses.")
    index([docs, other], toy)
    shutil.rmtree(other)
    (docs / "new.md").write_text("New.")
    report = index(None, toy)
    assert report.files.indexed == 1 and report.files.removed == 0
    assert "semsearch remove '" in report.problems[0].reason and "--index" in report.problems[0].reason
    assert paths_of("walruses", toy)[0] == "a.txt"
    assert remove([other]).roots == (str(other),)
    assert index(None, toy).problems == ()


def test_a_model_that_cannot_be_had_leaves_nothing_behind(docs: Path) -> None:
    with pytest.raises(ModelError):
        build_index(docs, model="./nowhere")
    assert not Path("indexes").exists()


def test_values_of_the_wrong_type_are_named(toy: ToyEmbedder) -> None:
    for source, said in (
        ([Document(42, "x")], "id = 42"),  # type: ignore[arg-type]
        ([Document("a", "x", title=None)], "title = None"),  # type: ignore[arg-type]
        ([Document("a", "x"), "docs"], "'docs' is not a Document"),
        ("", "neither a path"),
    ):
        with pytest.raises(InvalidInput, match=said):
            index(source, toy)
    strange = Document("a\ud800", "x y", "t\ud800", "s\ud800", {"k": "\ud800"}, (Heading(0, 1, "h\ud800"),))
    index([strange], toy)
    with Searcher.open(embedder=toy) as searcher:
        assert searcher.search("x \ud800")[0].document.metadata == {"k": "\ufffd"}
        with pytest.raises(InvalidInput, match="the query is None"):
            searcher.search(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="closed"):
        searcher.search("x")


def test_an_index_of_an_older_format_is_counted(docs: Path, toy: ToyEmbedder) -> None:
    index(docs, toy)
    kept = inspect_index()
    path = Path("indexes/default/store.db")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'counts'")
        make_older(connection, 3)
    connection.close()
    seal(path.parent)
    index(docs, toy)
    again = inspect_index()
    assert again.chunks == kept.chunks > 20 and (again.vectors, again.documents) == (kept.vectors, kept.documents)
    remove(["docs/guides/wheel.md"])
    assert inspect_index().chunks == len(state(toy)) < kept.chunks


def test_a_run_without_changes_removes_what_one_that_was_cut_off_left(toy: ToyEmbedder) -> None:
    index = build_index([Document("a", "A river and a stone.")], embedder=toy).index
    left = [index / "lexical-000009" / "meta.json", index / "vectors" / "000009.npy", index / "ann-000009.faiss"]
    left[0].parent.mkdir()
    for file in left:
        file.write_bytes(b"half")
    assert any("nothing names" in note for check in verify(index, embedder=toy).checks for note in check.notes)
    build_index([Document("a", "A river and a stone.")], embedder=toy)
    assert not any(file.exists() for file in left)


def test_metadata_that_nests_without_end_is_refused(toy: ToyEmbedder) -> None:
    nested: dict[str, object] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    with pytest.raises(InvalidInput, match="the metadata of document 'a' cannot be stored"):
        build_index([Document("a", "text", metadata=nested)], embedder=toy)
