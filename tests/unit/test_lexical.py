from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from semsearch.errors import IndexCorrupt
from semsearch.store.lexical import Analyzer, LexicalEntry, LexicalIndex, LexicalWriter

TEXTS = {
    1: "The cat sat on the mat",
    2: "Dogs and cats living together, cats everywhere",
    3: "A database keeps rows; rows are written to the log first",
    4: "Café owners like naïve résumés",
    5: "机器学习模型需要大量的训练数据",
    6: "ファイルをアップロードする方法",
    7: "open_file(path) raises OSError: errno 13",
}


@pytest.fixture
def index(tmp_path: Path) -> LexicalIndex:
    writer = LexicalWriter(tmp_path / "lexical")
    writer.add(LexicalEntry(i, text, "") for i, text in TEXTS.items())
    writer.commit()
    writer.close()
    return LexicalIndex(tmp_path / "lexical")


def bm25(terms: dict[str, int], texts: dict[int, list[str]], k1: float = 1.2, b: float = 0.75) -> dict[int, float]:
    """Robertson and Zaragoza 2009, eq. 3.15, with the always positive idf of Lucene."""
    n, mean = len(texts), sum(map(len, texts.values())) / len(texts)
    scores: dict[int, float] = {}
    for term, n_asked in terms.items():
        df = sum(term in words for words in texts.values())
        idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
        for i, words in texts.items():
            if tf := words.count(term):
                scores[i] = scores.get(i, 0) + n_asked * idf * tf * (k1 + 1) / (
                    tf + k1 * (1 - b + b * len(words) / mean)
                )
    return scores


@pytest.mark.parametrize(
    "query",
    ["cat", "cats on a mat", "rows of a database", "训练数据", "アップロード", "resume", "cats and rows, the cat"],
)
def test_scores_are_textbook_bm25(index: LexicalIndex, query: str) -> None:
    analyzer = Analyzer()
    stemmed = {i: analyzer.stem(analyzer.words(t)) for i, t in TEXTS.items()}
    expected = bm25(analyzer.query_terms(query), stemmed)
    found = dict(index.search(query, 10))
    assert expected and found == pytest.approx(expected, rel=1e-3)


def bert_words(text: str) -> list[str]:
    pieces = BertPreTokenizer().pre_tokenize_str(BertNormalizer(handle_chinese_chars=False).normalize_str(text))
    return [word for word, _ in pieces if len(word) > 1 or word.isalnum()]


@pytest.mark.parametrize("beside", ["", "é"])
def test_each_character_parts_words_as_in_bert(beside: str) -> None:
    analyzer = Analyzer()
    for character in map(chr, range(0x3040)):
        text = f"a{character}B {character}{character} {beside}"
        assert analyzer.words(text) == bert_words(text)


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x303F) | st.sampled_from("aB9_' \n\x0b\u0301😀")))
def test_words_are_those_that_bert_cuts(text: str) -> None:
    assert Analyzer().words(text) == bert_words(text)


def test_accents_case_and_plurals_do_not_matter(index: LexicalIndex) -> None:
    assert [i for i, _ in index.search("CAFE Resumes", 5)] == [4]
    assert {i for i, _ in index.search("cat", 5)} == {1, 2}


def test_one_character_finds_chinese_and_japanese(index: LexicalIndex) -> None:
    assert [i for i, _ in index.search("习", 5)] == [5]
    assert [i for i, _ in index.search("法", 5)] == [6]


@pytest.mark.parametrize("query", ["", "   ", "?!", "AND OR NOT (", 'text:"cat" OR *', "cat^2 -mat +x~1", "\x00\ud800"])
def test_queries_are_words_never_syntax(index: LexicalIndex, query: str) -> None:
    for chunk_id, score in index.search(query.encode("utf-8", "replace").decode(), 10):
        assert chunk_id in TEXTS and score > 0


def test_function_words_count_only_when_there_is_nothing_else() -> None:
    analyzer = Analyzer()
    assert analyzer.query_terms("what is the cat") == {"cat": 1}
    assert analyzer.query_terms("to be or to have been") == {"to": 2, "be": 1, "or": 1, "have": 1, "been": 1}
    assert analyzer.query_terms("is it not null") == {"not": 1, "null": 1}


def test_score_of_given_ids_equals_search(index: LexicalIndex) -> None:
    found = dict(index.search("cats rows", 10))
    assert index.score("cats rows", [1, 3, 5, 99]) == pytest.approx({i: s for i, s in found.items() if i in (1, 3)})
    assert index.score("cats", []) == {} and index.score("?", [1]) == {}


def test_many_ids_have_the_scores_that_few_of_them_have(index: LexicalIndex) -> None:
    unknown = range(100, 2_000)
    many = index.score("cats and rows of a database", [*TEXTS, *unknown])
    few = [index.score("cats and rows of a database", [i]) for i in TEXTS]
    assert many == {i: score for found in few for i, score in found.items()} and len(many) == 3
    assert index.coverage("cats rows", [3, 1, *unknown])[:2] == index.coverage("cats rows", [3, 1])


def test_what_is_deleted_is_gone_and_may_be_added_anew(tmp_path: Path) -> None:
    writer = LexicalWriter(tmp_path / "x")
    writer.add([LexicalEntry(1, "apples", ""), LexicalEntry(2, "apples", "")])
    writer.delete([1])
    writer.add([LexicalEntry(1, "pears", "")])
    writer.commit()
    index = LexicalIndex(tmp_path / "x")
    assert [i for i, _ in index.search("apples", 9)] == [2] and [i for i, _ in index.search("pears", 9)] == [1]
    writer.delete([2, 77])
    assert len(index) == 2  # not committed
    writer.commit()
    writer.close()
    index.reload()
    assert index.search("apples", 9) == []


def test_words_around_a_passage_count_half(tmp_path: Path) -> None:
    writer = LexicalWriter(tmp_path / "x")
    writer.add([LexicalEntry(1, "alpha", "beta"), LexicalEntry(2, "beta", "alpha")])
    writer.commit()
    writer.close()
    found = dict(LexicalIndex(tmp_path / "x").search("beta", 9))
    assert found[1] == pytest.approx(found[2] / 2)


def test_matches_point_at_the_words_of_the_query() -> None:
    analyzer = Analyzer()
    text = "Undoing a Commit: commits are undone. 上传文件吧"
    spans = analyzer.matches(text, analyzer.query_terms("undo commits 文件"))
    assert [text[a:b] for a, b in spans] == ["Undoing", "Commit", "commits", "文", "件"]


def test_a_damaged_index_says_so_and_is_made_anew_by_the_writer(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    LexicalWriter(folder).close()
    (folder / "meta.json").write_text("{broken")
    with pytest.raises(IndexCorrupt, match="--rebuild"):
        LexicalIndex(folder)
    writer = LexicalWriter(tmp_path / "y", folder)
    assert writer.n_entries == 0
    writer.close()


def test_a_writer_goes_on_from_another_index_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    for name, base, texts in (("a", None, {1: "apples", 2: "pears"}), ("b", "a", {3: "plums"})):
        writer = LexicalWriter(tmp_path / name, tmp_path / base if base else None)
        writer.add(LexicalEntry(i, text, "") for i, text in texts.items())
        writer.delete([1] if base else [])
        writer.commit()
        writer.close()
    old, new = LexicalIndex(tmp_path / "a"), LexicalIndex(tmp_path / "b")
    assert [[i for i, _ in old.search(word, 9)] for word in ("apples", "pears", "plums")] == [[1], [2], []]
    assert [[i for i, _ in new.search(word, 9)] for word in ("apples", "pears", "plums")] == [[], [2], [3]]
    shared = {p.name for p in (tmp_path / "a").iterdir() if p.stat().st_nlink == 2}
    assert shared  # segments are written once
    shutil.rmtree(tmp_path / "a")
    assert [i for i, _ in LexicalIndex(tmp_path / "b").search("pears", 9)] == [2]


def test_nothing_changes_after_a_writer_was_closed(tmp_path: Path) -> None:
    """Eight segments are enough for tantivy to join them, in threads of its own."""
    base, first = None, 0
    for round_, n in enumerate([1, 1, 1, 4_000, 1, 1, 1, 1, 1]):
        folder = tmp_path / str(round_)
        writer = LexicalWriter(folder, base)
        writer.add(LexicalEntry(i, f"word{i} apples pears {i % 7}", "") for i in range(first, first + n))
        writer.commit()
        writer.close()
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        time.sleep(0.1)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == files
        base, first = folder, first + n
    joined = LexicalIndex(tmp_path / "8")
    assert len(joined) == first and joined.search("word3", 5)[0][0] == 3
    assert len([p for p in (tmp_path / "8").iterdir() if p.suffix == ".idx"]) < 8
