"""Damage of every kind to every file of an index: found, refused by queries, mended or told what to index again."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from semsearch import Document, Hit, Searcher, build_index, remove
from semsearch.errors import (
    IndexCorrupt,
    IndexIncompatible,
    IndexLocked,
    IndexNotFound,
    IndexUnwritable,
    SemsearchError,
)
from semsearch.reports import SourceCounts, VerifyReport
from semsearch.store.ann import FlatIndex
from semsearch.store.checksums import checksum_file, checksum_rows
from semsearch.store.files import writer_lock
from semsearch.store.info import inspect_index, list_files
from semsearch.store.metadata import Store
from semsearch.store.schema import FORMAT_VERSION
from semsearch.store.sealing import break_seal
from semsearch.store.tokens import TokenReader
from semsearch.store.writing import StoreWriter
from semsearch.types import IntArray
from semsearch.verifying import verify
from tests.old_formats import make_older
from tests.toy import ToyEmbedder

# Nothing of an index is in them: SQLite makes the first anew, the others are only held open.
SCRATCH = {
    "store.db-shm",
    "store.db-wal",
    "tokens.db-shm",
    "tokens.db-wal",
    "writer.lock",
    ".tantivy-meta.lock",
    ".tantivy-writer.lock",
}
NOUNS = ("river", "violin", "kettle", "lantern", "saddle", "garden", "anchor", "bridge", "candle", "meadow")
PLACES = [(a, b) for a in NOUNS for b in NOUNS if a < b]


def make_documents(n: int) -> list[Document]:
    return [
        Document(
            f"d{i}",
            f"The {a} lies beside the {b}. " * 4 + f"Nobody has seen number {i} since.",
            title=f"About {a}",
            metadata={"number": i},
        )
        for i, (a, b) in enumerate(PLACES[:n])
    ]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with several shards and segments, of documents and of files; not to be changed."""
    work = tmp_path_factory.mktemp("original")
    docs, index = work / "docs", work / "index"
    docs.mkdir()
    for noun in NOUNS[:3]:
        (docs / f"{noun}.txt").write_text(f"What is to be known about the {noun} stands in this file.\n" * 3)
        os.utime(docs / f"{noun}.txt", (1_000_000_000, 1_000_000_000))
    toy = ToyEmbedder()
    build_index(make_documents(40), index=index, embedder=toy, token_vectors=True)
    build_index(docs, index=index, embedder=toy)
    return index


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def seen(hit: Hit) -> tuple[object, ...]:
    """All of a hit but the last digits of its scores and the ids that mean nothing."""
    chunk = hit.chunk
    place = (chunk.start, chunk.end, chunk.line_start, chunk.line_end, chunk.heading, chunk.page)
    return hit.document, chunk.text, place, round(hit.score, 5), [d.document_id for d in hit.duplicates]


def ask(index: Path, embedder: ToyEmbedder | None = None) -> list[list[tuple[object, ...]]]:
    with Searcher.open(index, embedder=embedder or ToyEmbedder()) as searcher:
        modes = (("the violin beside the kettle", "hybrid"), ("anchor bridge", "dense"), ("meadow", "lexical"))
        return [[seen(hit) for hit in searcher.search(text, mode=mode, k=5)] for text, mode in modes]


def without_scores(answers: list[list[tuple[object, ...]]]) -> list[list[tuple[object, ...]]]:
    """Entries that tantivy has deleted still count in its statistics of words."""
    return [[hit[:3] for hit in hits] for hits in answers]


def contents(index: Path) -> list[tuple[object, ...]]:
    """Of all documents and passages that are visible."""
    sql = (
        "SELECT key, title, metadata, content, ordinal, text, text_hash FROM documents d "
        "JOIN chunks ON document_id = d.id JOIN vectors v ON vector_id = v.id WHERE visible = 1 ORDER BY key, ordinal"
    )
    with closing(Store(index)) as store:
        return store.query(sql)


def codes(index: Path) -> dict[bytes, bytes]:
    """What can be read of those of all passages' tokens."""
    with closing(Store(index)) as store, closing(TokenReader(index)) as reader:
        return reader.get([row[0] for row in store.query("SELECT text_hash FROM vectors")])


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def damageable(index: Path) -> list[str]:
    files = (p for p in index.rglob("*") if p.is_file() and p.name not in SCRATCH)
    return sorted(p.relative_to(index).as_posix() for p in files)


def check_damage(original: Path, copy: Path, name: str, expected: object, toy: ToyEmbedder) -> VerifyReport:
    """No query is answered wrongly, the damage is found, and what repair says of itself is so."""
    try:
        assert ask(copy) == expected, f"{name}: another answer"
    except SemsearchError as error:
        assert isinstance(error, IndexCorrupt | IndexNotFound | IndexIncompatible), name
        assert "semsearch " in str(error), f"{name}: {error}"
    is_harmless = name == "tokens.db" and codes(copy) == codes(original)  # bytes of it that hold no row
    report = verify(copy, repair=True, embedder=toy)
    assert report.mended or report.damages or is_harmless, f"{name}: damage not found"
    if report.is_sound:
        assert ask(copy) == expected, f"{name}: another answer after repair"
        assert verify(copy, embedder=toy).is_sound
    elif not report.damages:  # what was damaged itself is no longer shown, and named
        assert (report.to_index or report.n_lost) and verify(copy, embedder=toy).is_sound
        ask(copy)
    else:
        assert name == "store.db" and all("semsearch index" in damage.fix for damage in report.damages)
    return report


@pytest.mark.parametrize("damage", [flip, truncate, delete])
def test_damage_to_any_file_is_found_and_mended(
    original: Path, tmp_path: Path, damage: Callable[[Path, random.Random], None]
) -> None:
    rng, expected = random.Random(damage.__name__), ask(original)
    names = [name for name in damageable(original) if name != "store.db"]
    assert len(names) > 20
    for name in names:
        copy, toy = tmp_path / "copy", ToyEmbedder()
        shutil.copytree(original, copy)
        damage(copy / name, rng)
        report = check_damage(original, copy, name, expected, toy)
        assert report.is_sound and codes(copy) == codes(original), (name, report)
        assert toy.n_encoded == 0 or name == "tokens.db" or (name.startswith("vectors/") and name.count(".") == 1), name
        shutil.rmtree(copy)


def test_damage_to_the_database_is_found_and_mended_as_far_as_can_be(original: Path, tmp_path: Path) -> None:
    rng, expected, n_mended = random.Random(1), ask(original), 0
    for i in range(40):
        copy = tmp_path / "copy"
        shutil.copytree(original, copy)
        (delete if i == 0 else truncate if i < 6 else flip)(copy / "store.db", rng)
        report = check_damage(original, copy, "store.db", expected, ToyEmbedder())
        n_mended += not report.damages
        shutil.rmtree(copy)
    assert n_mended >= 30


def test_a_damaged_document_is_taken_out_and_comes_back_when_it_is_indexed_again(copy: Path) -> None:
    expected, toy = ask(copy), ToyEmbedder()
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        path = connection.execute("SELECT path FROM documents WHERE path LIKE '%violin.txt'").fetchone()[0]
        sql = "UPDATE chunks SET text = text || '!' WHERE document_id IN (SELECT id FROM documents WHERE {})"
        connection.execute(sql.format("key = 'd12'"))
        connection.execute(sql.format("path LIKE '%violin.txt'"))
    report = verify(copy, repair=True, embedder=toy)
    assert set(report.to_index) == {"d12", path} and not report.damages and not report.is_sound
    assert {damage.part for damage in report.mended} == {"database", "passages"}
    assert verify(copy, embedder=toy).is_sound
    assert all(hit[0].id not in report.to_index for hits in ask(copy) for hit in hits)
    build_index(make_documents(40), index=copy, embedder=toy)
    assert build_index(index=copy, embedder=toy).files.failed == 0
    assert toy.n_encoded == 0 and without_scores(ask(copy)) == without_scores(expected)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE chunks SET text = replace(text, 'kettle', 'bottle')",
        "UPDATE chunks SET line_start = line_start + 1",
        "UPDATE chunks SET document_id = document_id % 40 + 1",
        "UPDATE chunks SET vector_id = vector_id % 40 + 1",
        "UPDATE documents SET title = 'About nothing'",
        "UPDATE documents SET content = (SELECT content FROM documents WHERE id = 1)",
        "UPDATE documents SET content = substr(content, 1, 20)",
        "UPDATE documents SET metadata = 'not JSON'",
        "UPDATE meta SET value = '{}' WHERE key = 'model'",
        "DELETE FROM meta WHERE key = 'ann'",
        "UPDATE meta SET key = 'modem' WHERE key = 'model'",
        "DELETE FROM shards",
        "DROP TABLE checksums",
    ],
)
def test_no_query_shows_what_was_not_written(copy: Path, change: str) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute(change)
    with pytest.raises((IndexCorrupt, IndexNotFound), match=r"semsearch (verify|index)"):
        ask(copy)
    report = verify(copy, embedder=ToyEmbedder())
    assert not report.is_sound and all("semsearch" in damage.fix for damage in report.damages)
    with pytest.raises(IndexCorrupt, match="semsearch verify"):
        build_index(make_documents(1), index=copy, embedder=ToyEmbedder())


def test_fields_to_filter_by_are_entered_anew(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        before = connection.execute("SELECT * FROM field_values ORDER BY 1, 2, 3, 4").fetchall()
        connection.execute("DELETE FROM field_values WHERE document_id % 2")
        connection.execute("UPDATE field_values SET value = 'x' WHERE field = 'title'")
    assert len(before) > 100
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert report.is_sound and [damage.part for damage in report.mended] == ["database"]
    with closing(sqlite3.connect(copy / "store.db")) as connection:
        assert connection.execute("SELECT * FROM field_values ORDER BY 1, 2, 3, 4").fetchall() == before


def test_a_query_notices_what_its_indexes_name_and_sqlite_does_not_show(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("DELETE FROM chunks WHERE id = 7")
    for mode in ("dense", "lexical", "hybrid"):
        with Searcher.open(copy, embedder=ToyEmbedder()) as searcher, pytest.raises(IndexCorrupt, match="verify"):
            searcher.search("river lies beside", mode=mode)


def test_a_message_of_sqlite_that_is_no_text_is_damage_too(copy: Path) -> None:
    data = (copy / "store.db").read_bytes()
    (copy / "store.db").write_bytes(data.replace(b"CREATE TABLE files", b"CREATE TABL\xff files", 1))
    with pytest.raises(IndexCorrupt, match="semsearch verify"):
        ask(copy)
    assert verify(copy, repair=True, embedder=ToyEmbedder()).is_sound


@pytest.mark.parametrize(
    ("change", "of_a_search"),
    [
        ("UPDATE field_values SET document_id = 'one, two' WHERE document_id = 5", {"where": "number >= 0"}),
        ("UPDATE chunks SET vector_id = 'a' WHERE document_id = 5", {"where": "number = 4"}),
        ("UPDATE files SET path = x'00' WHERE path LIKE '%violin.txt'", {}),
        ("UPDATE files SET size = 'a', mtime_ns = 'b', status = 7, reason = 8, checked_ns = 'c'", {}),
        ("INSERT INTO files VALUES (x'00', 1, 1, NULL, 'indexed', '', 1)", {}),
        ("UPDATE files SET path = CAST(x'2f746d70ff' AS TEXT) WHERE path LIKE '%violin.txt'", {}),
        ("UPDATE shards SET n_rows = 'many'", {}),
        ("UPDATE shards SET n_rows = n_rows + 1", {}),
        ("UPDATE checksums SET size = 'a' WHERE path GLOB 'vectors/*' OR path GLOB 'ann*'", {}),
        ("UPDATE checksums SET checksum = 7", {}),
        ("UPDATE sqlite_sequence SET seq = 'last'", {}),
        ("UPDATE sqlite_sequence SET seq = 1", {}),
        ("UPDATE documents SET n_chunks = 'one' WHERE id = 5", {}),
        ("UPDATE documents SET visible = 'yes' WHERE id = 5", {}),
        ("UPDATE documents SET visible = 0 WHERE id = 5", {}),
    ],
)
@pytest.mark.parametrize("is_sealed", [True, False])
def test_values_of_another_kind_are_damage(
    copy: Path, change: str, of_a_search: dict[str, str], is_sealed: bool
) -> None:
    expected, toy, root = ask(copy), ToyEmbedder(), str(inspect_index(copy).roots[0])
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute(change)
    if not is_sealed:  # as a run that was cut off leaves it
        break_seal(copy)
        if not any(said in change for said in ("n_rows + 1", "visible = 0", "2f746d70ff")):
            for _ in range(2):  # the first does not seal what it refused
                with pytest.raises(IndexCorrupt, match="semsearch verify"):
                    build_index(root, index=copy, embedder=toy)
    if of_a_search:
        with Searcher.open(copy, embedder=toy) as searcher, pytest.raises(IndexCorrupt, match="verify --repair"):
            searcher.search("the violin beside the kettle", **of_a_search)
    assert not verify(copy, embedder=toy).is_sound
    report = verify(copy, repair=True, embedder=toy)
    assert not report.damages
    with Searcher.open(copy, embedder=toy) as searcher:
        hits = searcher.search("kettle", k=9, where="modified > 2000-06-01")
        assert len(hits) == (0 if "mtime_ns" in change else 2 if "violin" in change else 3)
    assert {row.status for row in list_files(copy)} <= {"indexed", "failed"}
    assert report.to_index == (("d4",) if "id = 5" in change and "field" not in change else ())
    build_index(make_documents(40), index=copy, embedder=toy)
    build_index(root, index=copy, embedder=toy)
    assert toy.n_encoded == 0 and without_scores(ask(copy)) == without_scores(expected)
    report = verify(copy, embedder=toy)
    assert report.is_sound and report.sources == SourceCounts(unchanged=3)


def test_tables_by_another_name_are_damage_and_mended(copy: Path) -> None:
    expected, toy = ask(copy), ToyEmbedder()
    data = (copy / "store.db").read_bytes()
    (copy / "store.db").write_bytes(data.replace(b"reason TEXT", b"raison TEXT"))
    with pytest.raises(IndexCorrupt, match="semsearch verify"):
        ask(copy)
    assert not verify(copy, embedder=toy).is_sound
    assert verify(copy, repair=True, embedder=toy).is_sound and ask(copy) == expected
    build_index(index=copy, embedder=toy)
    assert toy.n_encoded == 0


def test_an_index_of_sqlite_that_lags_behind_is_made_anew(copy: Path) -> None:
    expected, toy = ask(copy), ToyEmbedder()
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        row = connection.execute("SELECT * FROM sqlite_master WHERE name = 'files_modified'").fetchone()
        connection.execute("DELETE FROM sqlite_master WHERE name = 'files_modified'")
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("UPDATE files SET mtime_ns = mtime_ns + 1")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)
    problems = [damage.what for damage in verify(copy, embedder=toy).damages]
    assert any("missing from index files_modified" in problem for problem in problems)
    assert verify(copy, repair=True, embedder=toy).is_sound and ask(copy) == expected


def test_rows_that_no_table_takes_are_made_anew(copy: Path) -> None:
    expected, toy = ask(copy), ToyEmbedder()
    for before, after in (("status TEXT NOT NULL", "status TEXT"), ("status TEXT,", "status TEXT NOT NULL,")):
        with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
            connection.execute("PRAGMA writable_schema = ON")
            sql = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'files'"
            assert connection.execute(sql, [before, after]).rowcount == 1
        if after == "status TEXT":
            with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
                connection.execute("UPDATE files SET status = NULL WHERE path LIKE '%violin.txt'")
    assert verify(copy, repair=True, embedder=toy).is_sound and ask(copy) == expected
    with closing(sqlite3.connect(copy / "store.db")) as connection:
        files = connection.execute("SELECT path, status FROM files").fetchall()
    names = [(Path(path).name, status) for path, status in files]
    assert sorted(names) == [("kettle.txt", "indexed"), ("river.txt", "indexed"), ("violin.txt", "indexed")]


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM chunks WHERE document_id = 7", "UPDATE chunks SET vector_id = 99999 WHERE document_id = 7"],
)
def test_what_is_taken_out_is_no_longer_found(copy: Path, change: str) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        ((key, text),) = connection.execute(
            "SELECT key, text FROM documents d JOIN chunks ON document_id = d.id AND d.id = 7"
        )
        connection.execute(change)
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert report.to_index == (key,) and not report.damages
    with Searcher.open(copy, embedder=ToyEmbedder()) as searcher:
        for mode in ("dense", "lexical", "hybrid"):
            hits = searcher.search(text, mode=mode, k=40)
            assert len(hits) > 5 and key not in {hit.document.id for hit in hits}


def test_documents_without_passages_hide_no_loss(copy: Path) -> None:
    class Wordy(ToyEmbedder):
        def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
            return super().token_spans([re.sub(r"[^\w\s]", " ", text) for text in texts])

    build_index([Document("signs", "***"), Document("more signs", "- - -")], index=copy, embedder=Wordy())
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        sql = "SELECT count(*) FROM documents WHERE visible = 1 AND id NOT IN (SELECT document_id FROM chunks)"
        assert connection.execute(sql).fetchone() == (2,)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM documents WHERE key IN ('d7', 'd9')")
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert any("gone: 2" in damage.what for damage in report.mended) and report.n_lost == 2


def test_passages_without_their_document_are_damage(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("DELETE FROM documents WHERE key = 'd7'")
    problems = [damage.what for damage in verify(copy, embedder=ToyEmbedder()).damages]
    assert "documents that are gone: 1" in problems and any("one of documents that is not there" in p for p in problems)
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert not report.damages and not report.is_sound and (report.to_index, report.n_lost) == ((), 1)


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_document_that_is_gone_is_missed(copy: Path, is_sealed: bool) -> None:
    expected, toy = ask(copy), ToyEmbedder()
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM documents WHERE key IN ('d7', 'd9') OR path LIKE '%violin.txt'")
        if is_sealed:  # and the repair has something else to do
            connection.execute("UPDATE chunks SET text = text || '!' WHERE document_id = 12")
    if not is_sealed:  # as if a writer had done so
        (copy / "store.sum").unlink()
    problems = [damage.what for damage in verify(copy, embedder=toy).damages]
    assert "documents that are gone: 3" in problems
    report = verify(copy, repair=True, embedder=toy)
    assert (report.damages, report.to_index) == ((), ("d11",) if is_sealed else ())
    assert report.n_lost == 3 and not report.is_sound and report.as_dict()["n_lost"] == 3
    assert verify(copy, embedder=toy).is_sound
    assert build_index(index=copy, embedder=toy).files.indexed == 3  # all are read again
    build_index([d for d in make_documents(40) if d.id in ("d7", "d9", "d11")], index=copy, embedder=toy)
    assert toy.n_encoded == 0 and without_scores(ask(copy)) == without_scores(expected)


def test_what_sqlite_can_still_read_is_kept(original: Path, tmp_path: Path) -> None:
    """Pages lost one at a time: what they held is named or counted, and all else is there as it was."""
    expected, n_mended, n_kept, n_encoded = contents(original), 0, list[int](), list[int]()
    data = (original / "store.db").read_bytes()
    size = int.from_bytes(data[16:18], "big")
    pages = range(size, len(data), size)
    for at in pages:
        copy, toy = shutil.copytree(original, tmp_path / "copy"), ToyEmbedder()
        (copy / "store.db").write_bytes(data[:at] + bytes(size) + data[at + size :])
        report = verify(copy, repair=True, embedder=toy)
        if not report.damages:
            n_mended += 1
            n_kept.append(inspect_index(copy).documents)
            assert n_kept[-1] == 43 - len(report.to_index) - report.n_lost
            build_index(make_documents(40), index=copy, embedder=toy)
            build_index(index=copy, embedder=toy)
            assert contents(copy) == expected and verify(copy, embedder=toy).is_sound
            n_encoded.append(toy.n_encoded)
        shutil.rmtree(copy)
    assert n_mended >= len(pages) - 1 and max(n_kept) == 43 > min(n_kept)  # all but `meta`
    assert sorted(n_encoded)[:-1] == [0] * (n_mended - 1)  # all but `shards`


OF_FIELDS = "UPDATE field_values SET document_id = 'x' WHERE document_id = 5"
OF_A_DOCUMENT = "UPDATE chunks SET line_start = 7 WHERE document_id = 12"
OF_ANOTHER = "DELETE FROM documents WHERE id = 8"


@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize(
    ("damage", "gone"),
    [
        ((OF_FIELDS,), ((), 0)),
        ((OF_A_DOCUMENT,), (("d11",), 0)),
        ((OF_ANOTHER,), ((), 1)),
        ((OF_FIELDS, OF_A_DOCUMENT, OF_ANOTHER), (("d11",), 1)),
    ],
)
def test_a_repair_that_is_cut_off_is_done_again(
    copy: Path, damage: tuple[str, ...], gone: tuple[tuple[str, ...], int], is_sealed: bool
) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection:
        before = connection.execute("SELECT * FROM field_values ORDER BY 1, 2, 3, 4").fetchall()
        for sql in damage:
            connection.execute(f"PRAGMA foreign_keys = {'ON' if sql == OF_ANOTHER else 'OFF'}")
            connection.execute(sql)
            connection.commit()
    if not is_sealed:
        break_seal(copy)
    for file in (copy / "vectors").glob("000000.*"):
        file.unlink()
    with pytest.raises(KeyboardInterrupt):
        verify(copy, repair=True, embedder=ToyEmbedder(fail_after=0))
    report = verify(copy, embedder=ToyEmbedder())
    assert "the last repair was cut off" in [damage.what for damage in report.damages]
    with pytest.raises(IndexCorrupt, match="verify --repair"):
        build_index(make_documents(41), index=copy, embedder=ToyEmbedder())
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert (report.damages, report.to_index, report.n_lost) == ((), *gone)
    assert verify(copy, repair=True, embedder=ToyEmbedder()).is_sound
    with closing(sqlite3.connect(copy / "store.db")) as connection:
        after = connection.execute("SELECT * FROM field_values ORDER BY 1, 2, 3, 4").fetchall()
        left_out = {8: OF_ANOTHER, 12: OF_A_DOCUMENT}
        assert after == [row for row in before if left_out.get(row[0]) not in damage]


@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (["UPDATE documents SET title = 'zz' WHERE id = 7", "vectors/000000.npy"], 1),
        (["DELETE FROM shards WHERE name = '000000'", "DELETE FROM documents WHERE path IS NULL"], 40),
        (["UPDATE chunks SET vector_id = 9223372036854775807 WHERE id = 5"], 1),
        (["UPDATE chunks SET id = 9223372036854775807 WHERE id = 5"], 1),
        (["UPDATE documents SET id = 9223372036854775807 WHERE id = 5"], 1),
        (["UPDATE sqlite_sequence SET seq = 9223372036854775807"], 0),
        (
            [
                "CREATE TEMP TABLE two AS SELECT id, text_hash FROM vectors WHERE id IN (5, 6)",
                "UPDATE vectors SET text_hash = randomblob(16) WHERE id IN (5, 6)",
                "UPDATE vectors SET text_hash = (SELECT two.text_hash FROM two WHERE two.id = 11 - vectors.id) "
                "WHERE id IN (5, 6)",
            ],
            0,
        ),
        (["UPDATE meta SET value = '{}' WHERE key = 'roots'"], 0),
        (["DELETE FROM meta WHERE key IN ('counts', 'roots')", "DELETE FROM documents WHERE id IN (3, 4)"], 2),
        (["DELETE FROM meta", "DELETE FROM chunks WHERE document_id = 5"], 1),
        (["PRAGMA user_version = 4"], 0),
    ],
)
def test_after_a_repair_an_index_goes_on(copy: Path, change: list[str], lost: int, is_sealed: bool) -> None:
    """Whatever two things are damaged at once."""
    expected, toy = contents(copy), ToyEmbedder()
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        if any(sql.startswith("DELETE FROM documents") for sql in change):
            connection.execute("PRAGMA foreign_keys = ON")
        for sql in change:
            if sql.startswith("vectors/"):
                flip(copy / sql, random.Random(0))
            else:
                connection.execute(sql)
    if not is_sealed:
        break_seal(copy)
    if not is_sealed and any("meta" in sql for sql in change):  # of which nobody has a copy
        if "DELETE" in change[0]:
            with pytest.raises(IndexNotFound, match="semsearch index FOLDER"):
                verify(copy, repair=True, embedder=toy)
        else:
            assert "semsearch index" in verify(copy, repair=True, embedder=toy).damages[0].fix
        return
    report = verify(copy, repair=True, embedder=toy)
    assert not report.damages and len(report.to_index) + report.n_lost == lost
    assert verify(copy, embedder=toy).is_sound
    for documents in (make_documents(40), [Document("new", f"A new text for {change}.")]):
        build_index(documents, index=copy, embedder=toy)
    remove([], ids=["new"], index=copy)
    build_index(index=copy, embedder=toy)
    assert contents(copy) == expected and len(inspect_index(copy).roots) == 1
    assert verify(copy, embedder=toy).is_sound


def test_a_repair_that_fails_for_another_reason_leaves_the_index_usable(copy: Path) -> None:
    (copy / "tokens.db").unlink()
    with pytest.raises(KeyboardInterrupt):
        verify(copy, repair=True, embedder=ToyEmbedder(fail_after=0))
    toy, expected = ToyEmbedder(), ask(copy)
    assert "tokens" in {damage.part for damage in verify(copy, embedder=toy).damages}
    build_index(make_documents(40), index=copy, embedder=toy)
    assert verify(copy, embedder=toy).is_sound and ask(copy) == expected


def test_lost_values_of_meta_are_told_and_taken_from_the_seal(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("DELETE FROM meta WHERE key = 'ann'")
    with pytest.raises(IndexCorrupt, match="verify --repair"):
        ask(copy)
    for key in ("token_vectors", "unfinished", "settings", "ann"):
        with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
            before = connection.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
            connection.execute("DELETE FROM meta WHERE key = ?", [key])
        assert verify(copy, repair=True, embedder=ToyEmbedder()).is_sound
        with closing(sqlite3.connect(copy / "store.db")) as connection:
            after = connection.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        assert after == before or key == "ann"


def test_readers_find_all_files_while_an_index_is_repaired(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("UPDATE chunks SET line_start = 7 WHERE document_id = 12")
    asked = []

    def save(self: StoreWriter, *args: object, **options: object) -> None:
        derive(self, *args, **options)  # type: ignore[arg-type]
        with Searcher.open(copy, embedder=ToyEmbedder()) as searcher:
            asked.append(searcher.search("kettle", mode="lexical", k=3))

    derive = StoreWriter.save_derived
    monkeypatch.setattr(StoreWriter, "save_derived", save)
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert (report.to_index, report.damages) == (("d11",), ()) and len(asked[0]) == 3


def test_a_full_disk_costs_a_repair_nothing(copy: Path) -> None:
    expected, toy, before = ask(copy), ToyEmbedder(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("UPDATE files SET status = 7")
    size = (copy / "store.db").stat().st_size
    for room in (0, 8_192, size // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(IndexUnwritable, match="make room"):
                verify(copy, repair=True, embedder=toy)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (copy / "store.db").stat().st_size == size and not list(copy.glob("*.tmp*"))
    assert verify(copy, repair=True, embedder=toy).is_sound and ask(copy) == expected


def test_a_damaged_database_of_an_older_format_is_left_as_it_is(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        make_older(connection, 3)
    data = (copy / "store.db").read_bytes()
    report = verify(copy, repair=True, embedder=ToyEmbedder())
    assert "semsearch index" in report.damages[0].fix and (copy / "store.db").read_bytes() == data


def test_a_table_whose_definition_is_damaged_does_not_cost_the_others(copy: Path) -> None:
    expected, toy = ask(copy), ToyEmbedder()
    data = (copy / "store.db").read_bytes()
    (copy / "store.db").write_bytes(data.replace(b"CREATE TABLE vectors", b"CREATE TABLE-vectors"))
    with pytest.raises(IndexCorrupt, match="semsearch verify"):
        ask(copy)
    report = verify(copy, repair=True, embedder=toy)
    assert report.is_sound and toy.n_encoded == 0 and ask(copy) == expected


def test_ids_do_not_come_back_after_a_repair(copy: Path) -> None:
    toy = ToyEmbedder()
    build_index([Document("last", "A text of which only its vector is left.")], index=copy, embedder=toy)
    with closing(sqlite3.connect(copy / "store.db")) as connection:
        (largest,) = connection.execute("SELECT max(id) FROM vectors").fetchone()
    remove([], ids=["last"], index=copy)
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        connection.execute("DELETE FROM vectors WHERE id = ?", [largest])
        connection.execute("DELETE FROM sqlite_sequence")
    assert verify(copy, repair=True, embedder=toy).is_sound
    build_index([Document("new", "A text that was not there before.")], index=copy, embedder=toy)
    with closing(sqlite3.connect(copy / "store.db")) as connection:
        assert connection.execute("SELECT max(id) FROM vectors").fetchone()[0] == largest + 1
    assert verify(copy, embedder=toy).is_sound


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_passage_that_is_gone_is_missed(copy: Path, is_sealed: bool) -> None:
    """Also one of signs alone, and by whatever rule texts are cut."""

    class Short(ToyEmbedder):
        def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
            return [spans[: len(spans) // 2] for spans in super().token_spans(texts)]

    signs = Document("signs", "A kettle.\n\n" + " ".join("*" * 300), title="Signs")
    toy = ToyEmbedder()
    build_index([signs], index=copy, embedder=toy)
    build_index([Document("half", "Of this the second half is in no passage")], index=copy, embedder=Short())
    assert verify(copy, embedder=toy).is_sound
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        of_signs = "document_id = (SELECT id FROM documents WHERE key = 'signs')"
        sql = f"DELETE FROM chunks WHERE {of_signs} AND ordinal = (SELECT max(ordinal) FROM chunks WHERE {of_signs})"
        assert connection.execute(sql).rowcount == 1
    if not is_sealed:
        (copy / "store.sum").unlink()
    report = verify(copy, repair=True, embedder=toy)
    assert report.to_index == ("signs",) and not report.damages


def test_only_vectors_that_are_gone_are_encoded(copy: Path) -> None:
    expected = ask(copy)
    shard = copy / "vectors" / "000000.npy"
    rows = np.load(shard, mmap_mode="r+")
    dim = rows.shape[1]
    rows[3, 5] = -rows[3, 5]  # keeps its length
    rows.flush()
    toy = ToyEmbedder()
    assert verify(copy, repair=True, embedder=toy).is_sound and toy.n_encoded == 1 and ask(copy) == expected
    shard = min((copy / "vectors").glob("*.npy"), key=lambda path: (path.name.count("."), path.name))
    size = shard.stat().st_size
    with shard.open("r+b") as stream:
        stream.truncate(size - 4 * dim * 2 - 1)  # two rows and a byte of a third
    toy = ToyEmbedder()
    assert verify(copy, repair=True, embedder=toy).is_sound and toy.n_encoded == 3 and ask(copy) == expected
    assert build_index(make_documents(40), index=copy, embedder=toy).chunks.encoded == 0


def test_what_verify_compares_is_told(copy: Path) -> None:
    told: list[tuple[str, int, int]] = []
    report = verify(copy, deep=True, embedder=ToyEmbedder(), progress=lambda *state: told.append(state))
    assert report.is_sound and not report.mended and report.recall == 1.0
    parts = [check.part for check in report.checks]
    assert parts == ["database", "passages", "vectors", "nearest neighbours", "words", "tokens", "encoder", "folder"]
    assert all(check.compared and not check.notes for check in report.checks)
    assert report.sources == SourceCounts(unchanged=3)
    assert ("checking documents and passages", 43, 43) in told
    assert json.dumps(report.as_dict())


def test_source_files_are_compared_with_what_was_read(copy: Path, original: Path, tmp_path: Path) -> None:
    docs = shutil.copytree(original.parent / "docs", tmp_path / "docs")
    Path(os.fsdecode(os.fsencode(docs) + b"/\xff.txt")).write_text("A text.")  # is skipped, and not gone
    index = tmp_path / "index"
    build_index(docs, index=index, embedder=ToyEmbedder())
    (docs / "river.txt").write_text("Something else.")
    (docs / "violin.txt").unlink()
    (docs / "new.txt").write_text("What was not there.")
    os.utime(docs / "kettle.txt")
    report = verify(index, embedder=ToyEmbedder())
    assert report.is_sound and report.sources == SourceCounts(unchanged=1, changed=1, new=1, gone=1)


def test_deep_finds_vectors_that_another_model_made(copy: Path) -> None:
    other = ToyEmbedder("b")
    other_name = property(lambda self: ToyEmbedder().fingerprint)
    disguised = type("Disguised", (ToyEmbedder,), {"fingerprint": other_name})("b", other.max_tokens)
    assert verify(copy, embedder=disguised).is_sound
    report = verify(copy, deep=True, embedder=disguised)
    assert [damage.part for damage in report.damages] == ["encoder"] and "another vector" in report.damages[0].what


def test_recall_is_measured(copy: Path) -> None:
    with StoreWriter.open(copy) as writer:
        path = copy / writer.meta["ann"]["file"]
        good = FlatIndex.load(path, 64, to_change=True)
        bad = FlatIndex(64)
        bad.add(good.ids, np.random.default_rng(0).standard_normal((len(good), 64)).astype(np.float32))
        bad.save(path)
        row = (*checksum_file(path), path.name)
        writer.db.execute("UPDATE checksums SET size = ?, checksum = ? WHERE path = ?", row)
    report = verify(copy, embedder=ToyEmbedder())
    assert report.recall is not None and report.recall < 0.8
    assert [damage.part for damage in report.damages] == ["nearest neighbours"]
    assert verify(copy, repair=True, embedder=ToyEmbedder()).recall == 1.0


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_approximate_index_is_mended_to_one_of_its_kind(kind: str, tmp_path: Path) -> None:
    numbers = range(1_200)
    documents = [Document(f"d{i}", f"Item {i} of {i % 37} and {i % 101} lies in hall {i % 13}.") for i in numbers]
    toy, index = ToyEmbedder(), tmp_path / "index"
    build_index(documents, index=index, embedder=toy, kind=kind)

    def found() -> list[list[str]]:
        with Searcher.open(index, embedder=toy) as searcher:
            return [[h.document.id for h in searcher.search(f"item {i}", mode="dense")] for i in (3, 500, 1_100)]

    expected, before = found(), inspect_index(index).ann_kind
    for damage in (flip, truncate, delete):
        damage(next(index.glob("ann-*")), random.Random(kind))
        with pytest.raises(IndexCorrupt, match="verify --repair"):
            found()
        report = verify(index, repair=True, embedder=toy)
        assert report.is_sound and report.recall is not None and report.recall > 0.9
        assert [damage.part for damage in report.mended] == ["nearest neighbours"]
        assert inspect_index(index).ann_kind == before != FlatIndex.kind and found() == expected


KILLED = """
import os, sys
from pathlib import Path
from semsearch import build_index
from semsearch.store.writing import StoreWriter
from tests.toy import ToyEmbedder
from tests.integration.test_verifying import make_documents

StoreWriter._swap = lambda *_: os._exit(9)
build_index(make_documents(44)[40:], index=Path(sys.argv[1]), embedder=ToyEmbedder())
"""


def test_a_run_that_was_killed_is_no_damage(copy: Path) -> None:
    expected = ask(copy)
    project = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(copy)], cwd=project, check=False)
    assert killed.returncode == 9
    report = verify(copy, embedder=ToyEmbedder())
    assert report.is_sound, report
    assert any("cut off" in note for check in report.checks for note in check.notes)
    assert ask(copy) == expected
    toy = ToyEmbedder()
    build_index(make_documents(44)[40:], index=copy, embedder=toy)
    report = verify(copy, embedder=toy)
    assert toy.n_encoded == 0 and report.is_sound and not any(check.notes for check in report.checks)


def test_a_log_that_a_reader_kept_is_sealed_with_the_database(copy: Path) -> None:
    with Searcher.open(copy, embedder=ToyEmbedder()) as searcher, searcher._index.state():
        build_index(make_documents(44)[40:], index=copy, embedder=ToyEmbedder())
    assert (copy / "store.db-wal").stat().st_size > 0
    assert verify(copy, embedder=ToyEmbedder()).is_sound
    flip(copy / "store.db-wal", random.Random(0))
    report = verify(copy, embedder=ToyEmbedder())
    assert any("store.db-wal" in damage.what for damage in report.damages)


def test_an_index_of_format_2_gets_its_checksums(copy: Path) -> None:
    expected = ask(copy)
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        make_older(connection, 2)
    for path in (copy / "store.sum", *(copy / "vectors").glob("*.sums.npy")):
        path.unlink()
    with pytest.raises(IndexIncompatible, match=rf"format 2, .* reads {FORMAT_VERSION}.*semsearch index"):
        ask(copy)
    toy = ToyEmbedder()
    assert build_index(make_documents(40), index=copy, embedder=toy).files.unchanged == 40
    assert toy.n_encoded == 0 and verify(copy, embedder=toy).is_sound and ask(copy) == expected


def test_an_index_that_is_brought_up_to_date_keeps_its_damage(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        make_older(connection, 3)
        connection.execute("UPDATE documents SET title = 'About nothing' WHERE key = 'd7'")
    break_seal(copy)
    toy = ToyEmbedder()
    build_index(make_documents(41)[40:], index=copy, embedder=toy)
    assert [damage.what for damage in verify(copy, embedder=toy).damages] == ["the document d7 is not what was written"]


@pytest.mark.parametrize("globs", ["3", "null", "[1]", '"*.md"', "[1"])
def test_roots_that_cannot_be_brought_up_to_date_are_told(copy: Path, globs: str) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        make_older(connection, 3)
        connection.execute("UPDATE roots SET globs = ?", [globs])
    break_seal(copy)
    with pytest.raises(IndexCorrupt, match=r"format 3.*away.*semsearch index FOLDER"):
        build_index(make_documents(1), index=copy, embedder=ToyEmbedder())


def test_a_document_that_lost_passages_before_it_was_brought_up_to_date_is_found(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "store.db")) as connection, connection:
        make_older(connection, 3)
        connection.execute("DELETE FROM chunks WHERE document_id = 5")
    break_seal(copy)
    toy = ToyEmbedder()
    build_index(make_documents(41)[40:], index=copy, embedder=toy)
    report = verify(copy, repair=True, embedder=toy)
    assert (report.to_index, report.n_lost, report.damages) == (("d4",), 0, ())
    build_index(make_documents(40), index=copy, embedder=toy)
    with Searcher.open(copy, embedder=toy) as searcher:
        assert "d4" in {hit.document.id for hit in searcher.search(make_documents(5)[4].text)}


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
def test_only_the_owner_may_read_an_index(own_folder: Path) -> None:
    build_index(make_documents(3), embedder=ToyEmbedder())
    build_index(make_documents(6), embedder=ToyEmbedder())
    ask(own_folder / "indexes" / "default")
    assert verify(embedder=ToyEmbedder()).is_sound
    index = own_folder / "indexes" / "default"
    modes = {str(p.relative_to(index)): p.stat().st_mode & 0o777 for p in (index, *index.rglob("*"))}
    folders = {".", "vectors", *(p.name for p in index.glob("lexical*"))}
    assert {name: mode for name, mode in modes.items() if mode != (0o700 if name in folders else 0o600)} == {}


def test_loading_an_index_executes_nothing(copy: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    shard = copy / "vectors" / "000000.npy"
    np.save(shard, np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        ask(copy)
    assert not verify(copy, embedder=ToyEmbedder()).is_sound
    assert verify(copy, repair=True, embedder=ToyEmbedder()).is_sound
    assert not (tmp_path / "executed").exists()


def test_a_header_cannot_ask_for_more_memory_than_the_file_has(copy: Path) -> None:
    for name in ("000000.npy", "000000.ids.npy", "000000.sums.npy"):
        path = copy / "vectors" / name
        before = path.read_bytes()
        header = before[:128].replace(b"'shape': (", b"'shape': (99999999999999")
        path.write_bytes(header[:127] + b"\n" + before[128:])
        with pytest.raises(IndexCorrupt, match="cannot be read"):
            ask(copy)
        path.write_bytes(before)
    assert ask(copy)


def test_where_there_is_nothing_to_verify(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexNotFound, match="semsearch index FOLDER"):
        verify(tmp_path / "nothing")
    with writer_lock(copy), pytest.raises(IndexLocked):
        verify(copy)


def test_a_row_checksum_sees_every_change_of_a_component() -> None:
    rng = np.random.default_rng(0)
    for dim in (7, 64):
        ids, rows = np.arange(5, dtype=np.int64), rng.standard_normal((5, dim)).astype(np.float32)
        sums = checksum_rows(ids, rows)
        assert len(set(sums.tolist())) == 5 and np.array_equal(checksum_rows(ids[2:4], rows[2:4]), sums[2:4])
        for column in range(dim):
            for bit in range(32):
                changed = rows.copy()
                changed.view(np.uint32)[1, column] ^= np.uint32(1 << bit)
                assert (checksum_rows(ids, changed) != sums).tolist() == [False, True, False, False, False]
        assert (checksum_rows(ids[::-1].copy(), rows) != sums).tolist() == [True, True, False, True, True]
    assert checksum_rows(ids[:0], rows[:0]).shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 7, 4_071, 4_072, 4_073, 1_042_432, 2_100_003])
def test_a_file_checksum_sees_changes_ends_and_swapped_pages(size: int, tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "f"
    data = rng.integers(0, 256, size, dtype=np.uint8)
    path.write_bytes(data.tobytes())
    before = checksum_file(path)
    assert before == checksum_file(path) and before[0] == size
    for at in {0, size // 2, size - 1} if size else ():
        changed = data.copy()
        changed[at] ^= 1
        path.write_bytes(changed.tobytes())
        assert checksum_file(path) != before
    path.write_bytes(data.tobytes() + b"\0")
    assert checksum_file(path) != before
    if size > 3 * 4_096:
        changed = data.copy()
        changed[:4_096], changed[4_096:8_192] = data[4_096:8_192], data[:4_096]
        path.write_bytes(changed.tobytes())
        assert checksum_file(path) != before
