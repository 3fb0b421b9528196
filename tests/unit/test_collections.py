"""Collections as people have them: compressed or not, with gaps, doubles and mistakes."""

from __future__ import annotations

import gzip
import json

import pytest

from semsearch.errors import InvalidInput
from semsearch.evaluation import read_collection, read_qrels, read_queries

CORPUS = [
    {"_id": "1", "title": "Title", "text": "text one"},
    {"_id": "2", "text": "no title"},
    {"_id": "3", "title": "", "text": ""},
    {"_id": "4", "title": None, "text": None},
    {"_id": "", "text": "no id"},
    {"_id": "1", "text": "the same id again"},
    {"_id": 7, "title": "only a title", "text": " "},
    {"_id": "\ud800", "text": "\ud800"},
]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mine"
    (root / "qrels").mkdir(parents=True)
    write_lines(root / "corpus.jsonl", CORPUS)
    write_lines(root / "queries.jsonl", [{"_id": "a", "text": "first"}, {"_id": "a", "text": "again"}, {"_id": ""}])
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\na\t1\t2\na\t3\t0\n", encoding="utf-8")
    (root / "qrels" / "dev.tsv").write_text("a\t2\t1\r\n\r\na\t2\t3\r\n", encoding="utf-8")
    return root


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_documents_are_title_and_text_and_gaps_do_no_harm(folder):
    collection = read_collection(folder)
    documents = {d.id: d.text for d in collection.documents()}
    assert documents == {"1": "Title\n\ntext one", "2": "no title", "7": "only a title", "\ufffd": "\ufffd"}
    assert [d.title for d in collection.documents()] == ["Title", "", "only a title", ""]
    assert (collection.name, collection.split, collection.n_documents) == ("mine", "test", 4)
    assert collection.queries == {"a": "first"}
    assert collection.qrels == {"a": {"1": 2, "3": 0}}


def test_splits_are_files_and_a_header_is_not_needed(folder):
    assert read_collection(folder, "dev").qrels == {"a": {"2": 3}}
    with pytest.raises(InvalidInput, match=r"has no split 'train'; it has: dev, test"):
        read_collection(folder, "train")
    with pytest.raises(InvalidInput, match="has no split"):
        read_collection(folder, "../qrels/test")


def test_compressed_is_the_same_collection(folder):
    plain = read_collection(folder)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
    (folder / "corpus.jsonl").unlink()
    assert read_collection(folder) == plain
    assert list(read_collection(folder).documents()) == list(plain.documents())


@pytest.mark.parametrize("cut", [5, 60])
def test_a_damaged_archive_is_named(folder, cut):
    data = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(data[:cut])
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl\.gz.*damaged gzip data"):
        read_collection(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_missing_files_are_named_with_what_belongs_in_them(folder, name):
    (folder / name).unlink()
    with pytest.raises(InvalidInput, match=rf'{name}.*"_id"'):
        read_collection(folder)


def test_missing_folders_are_named(folder, tmp_path):
    with pytest.raises(InvalidInput, match="is not a folder"):
        read_collection(tmp_path / "nowhere")
    for path in (folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(InvalidInput, match="holds no judgments"):
        read_collection(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "9", "text": ', "line 2: not JSON"),
        (b"[1]", "line 2: not a JSON object"),
        (b'{"text": "x"}', "line 2: there is no _id"),
        (b'{"_id": "9", "text": 3}', "line 2: text is int, not a string"),
        (b'{"_id": ["9"], "text": "x"}', "line 2: _id is list"),
        (b'{"_id": "9", "text": "\xff"}', "line 2: not UTF-8"),
        (b"[" * 100_000, "line 2: not JSON"),
    ],
)
def test_bad_lines_are_named(folder, line, message):
    for name in ("corpus.jsonl", "queries.jsonl"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(b'\xef\xbb\xbf{"_id": "a", "text": "fine"}\n' + line + b"\n")
        with pytest.raises(InvalidInput, match=rf"{name}, {message}"):
            read_collection(folder)
        (folder / name).write_bytes(before)


def test_a_corpus_without_texts_is_an_error(folder):
    write_lines(folder / "corpus.jsonl", [{"_id": "1", "text": ""}])
    with pytest.raises(InvalidInput, match="holds no document"):
        read_collection(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q\td\t1\nq d 1\n", "line 2: 1 columns; write query-id, corpus-id and score with tabs"),
        ("query-id\tcorpus-id\tscore\nq\td\thigh\n", "line 2: the score 'high' is not a whole number"),
        ("query-id\tcorpus-id\tscore\nq\td\t0\n", "judges no document relevant"),
        ("", "judges no document relevant"),
    ],
)
def test_bad_judgments_are_named(tmp_path, text, message):
    (tmp_path / "x.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=message):
        read_qrels(tmp_path / "x.tsv")


def test_files_that_cannot_be_opened_are_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"none\.jsonl cannot be read"):
        read_queries(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_qrels(tmp_path)
