"""CSV, TSV, JSON Lines and JSON: a document a row, streamed."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from semsearch.errors import LoadError
from semsearch.loaders import limits, load
from tests.unit.loaders_fixtures import check_invariants, failure, only, write


def rows(path, **options):
    documents = list(load(path, **options))
    for document in documents:
        check_invariants(document)
    return documents


def test_csv_columns_are_found_by_name(tmp_path):
    text = 'id,Title,Body,year\n7,"One, first","Two\r\nlines ""quoted""",1999\n8,Second,,2000\n9,Third,More,\n'
    path = write(tmp_path / "a.csv", text)
    first, third = rows(path)
    assert (first.id, first.source) == (f"{path}#row=1", str(path))
    assert (first.title, first.text) == ("One, first", 'Two\nlines "quoted"')
    assert first.metadata == {"id": "7", "year": "1999"}
    assert third.id == f"{path}#row=3" and third.metadata == {"id": "9", "year": ""}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(tmp_path, delimiter):
    lines = [["name", "remark"], ["A", "short, with; marks"], ["B", "another one"]]
    content = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    found = rows(write(tmp_path / "a.csv", content))
    assert [(d.title, d.text) for d in found] == [("A", "short, with; marks"), ("B", "another one")]


def test_headers_are_told_from_data(tmp_path):
    assert rows(write(tmp_path / "a.csv", "alpha beta gamma,x\ndelta epsilon,y\n"))[0].text == "alpha beta gamma"
    with_header = rows(write(tmp_path / "b.csv", "when,entry\n2001,a long entry about things\n2002,and another one\n"))
    assert [d.text for d in with_header] == ["a long entry about things", "and another one"]
    assert with_header[0].metadata == {"when": "2001"}
    with_gaps = rows(write(tmp_path / "c.csv", "text,lang,,,Lang\nfirst animal,en,,x,de\n"))
    assert [d.text for d in with_gaps] == ["first animal"]
    assert with_gaps[0].metadata == {"lang": "en", "column 4": "x", "Lang": "de"}
    repeated = rows(write(tmp_path / "d.csv", "text,lang,lang\nfirst animal,en,de\n"))
    assert [d.metadata for d in repeated] == [{"lang": "en", "lang_2": "de"}]
    widest = rows(write(tmp_path / "e.csv", "text" + ",a,a,a_2" * 300 + "\nfirst animal" + ",1,2,3" * 300 + "\n"))
    assert list(widest[0].metadata)[:6] == ["a", "a_2", "a_2_2", "a_3", "a_4", "a_2_3"]
    uneven = rows(write(tmp_path / "c.csv", "text,year\nwords,1999,extra,more\nfewer\n"))
    assert uneven[0].metadata == {"year": "1999", "further cells": "extra | more"} and uneven[1].text == "fewer"


def test_the_named_column(tmp_path):
    path = write(tmp_path / "a.csv", "text,Notes\nbody,remark\n")
    assert rows(path, text_column="notes")[0].text == "remark"
    error = failure(path, text_column="abstract")
    assert error.reason == "has no column 'abstract' (columns: text, Notes)" and not error.skipped
    jsonl = write(tmp_path / "a.jsonl", '{"text": "t", "n": "x"}\n')
    assert rows(jsonl, text_column="n")[0].text == "x"
    assert "columns: text, n" in failure(jsonl, text_column="abstract").reason


def test_question_and_answer_become_title_and_text(tmp_path):
    (document,) = rows(write(tmp_path / "faq.csv", "question,answer\nWhy?,Because.\n"))
    assert (document.title, document.text) == ("Why?", "Because.")


def test_tsv_quotation_marks_are_characters(tmp_path):
    path = write(tmp_path / "a.tsv", 'title\ttext\nTwelve\t12" records\nNext\tplain\n')
    assert [d.text for d in rows(path)] == ['12" records', "plain"]
    quoted = write(tmp_path / "b.tsv", 'title\ttext\nA\t"two\nlines"\n')
    assert rows(quoted)[0].text == "two\nlines"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "gb18030"])
def test_encodings_of_tables(tmp_path, encoding):
    words = "软件的使用和安装，我们在这里说明" if encoding == "gb18030" else "Größe, naïve Übung"
    text = "title;text\nA;" + words + "\nB;more\n"
    assert rows(write(tmp_path / "a.csv", text.encode(encoding)))[0].text == words
    line = json.dumps({"text": words}, ensure_ascii=False) + "\n"
    assert rows(write(tmp_path / "a.jsonl", line.encode(encoding)))[0].text == words


def test_legacy_bytes_late_in_a_large_table(tmp_path):
    path = write(tmp_path / "a.csv", b"text\n" + (b"plain line " * 20 + b"\n") * 6_000 + "Größe\n".encode("cp1252"))
    assert list(load(path))[-1].text == "Größe"


def test_jsonl_objects_strings_and_metadata(tmp_path):
    lines = [
        json.dumps({"_id": 4, "title": " T  x ", "text": ["one", "two"], "nested": {"a": [1.5, None, True]}}),
        "",
        json.dumps("a plain string"),
        '{"text": "bad \\ud800 half", "nan": NaN}',
        json.dumps({"text": "  "}),
    ]
    found = rows(write(tmp_path / "a.ndjson", "\n".join(lines)))
    assert [d.text for d in found] == ["one\ntwo", "a plain string", "bad \ufffd half"]
    assert found[0].title == "T x" and found[0].metadata == {"_id": 4, "nested": {"a": [1.5, None, True]}}
    assert found[2].metadata == {"nan": None}
    assert [d.id.rpartition("#")[2] for d in found] == ["row=1", "row=2", "row=3"]


def test_a_bad_line_names_its_number(tmp_path):
    good = '{"text": "x"}\n'
    assert failure(write(tmp_path / "a.jsonl", good + "\n{oops\n")).reason.startswith("line 3: not valid JSON (")
    assert failure(write(tmp_path / "b.jsonl", good + "[1]\n")).reason == "line 2: neither an object nor a string"
    deep = failure(write(tmp_path / "c.jsonl", "[" * 100_000 + "\n")).reason
    assert deep.startswith("line 1: n")  # newer decoders find the missing brackets first
    documents = load(write(tmp_path / "d.jsonl", good * 150 + "{oops\n"))
    assert sum(1 for _ in zip(range(150), documents, strict=False)) == 150
    with pytest.raises(LoadError, match="line 151: not valid JSON"):
        next(documents)


def test_metadata_that_no_index_should_hold(tmp_path):
    deep = '{"text": "x", "deep": ' + "[" * 60 + "]" * 60 + "}\n"
    assert "nested more than 32 deep" in failure(write(tmp_path / "a.jsonl", deep)).reason
    wide = json.dumps({"text": "x", "wide": [0] * (limits.MAX_METADATA_VALUES + 1)})
    assert "more than 100000 values" in failure(write(tmp_path / "b.jsonl", wide)).reason


def test_json_lists_are_rows_and_the_rest_is_text(tmp_path):
    path = write(tmp_path / "a.json", json.dumps([{"text": "one"}, {"text": "two", "k": 1}]))
    assert [d.id for d in rows(path)] == [f"{path}#row=1", f"{path}#row=2"]
    for name, content in (
        ("b.json", '{"key": "value"}'),
        ("c.json", "[1, 2]"),
        ("d.json", "// no JSON\n{"),
        ("e.json", '[{"a": 1}]'),
    ):
        assert only(write(tmp_path / name, content)).text == content


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", "empty file"),
        ("a.csv", "\n\n", "no text in it"),
        ("a.csv", "text,year\n", "no text in it"),
        ("a.csv", "1,2\n3,4\n", "no column of text in it (columns: column 1, column 2)"),
        ("a.jsonl", "\n", "no text in it"),
        ("a.jsonl", '{"a": 1}\n', "no column of text in it (columns: a)"),
        ("a.jsonl", '{"text": " "}\n', "no column of text in it (columns: text)"),
        ("a.tsv", b"\x89PNG\r\n\x1a\n", "binary file"),
    ],
)
def test_tables_with_nothing_to_read_are_skipped(tmp_path, name, content, reason):
    error = failure(write(tmp_path / name, content))
    assert (error.reason, error.skipped) == (reason, True)


def test_limits_of_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ROW_BYTES", 1000)
    long = write(tmp_path / "a.jsonl", '{"text": "x"}\n{"text": "' + "x" * 2000 + '"}\n')
    assert failure(long).reason == "line 2: longer than the 1000 bytes limit"
    assert failure(write(tmp_path / "a.csv", "text\n" + "x" * 2000)).reason.startswith("line 2: not valid CSV")
    monkeypatch.setattr(limits, "MAX_TABLE_BYTES", 10)
    assert failure(long).reason == "larger than the 10 bytes limit"


def test_rows_are_streamed(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for k in range(6_000):
            file.write(json.dumps({"title": f"t{k}", "text": f"word{k} " * 60}) + "\n")
    assert path.stat().st_size > 2_000_000
    tracemalloc.start()
    assert sum(1 for _ in load(path)) == 6_000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_800_000
