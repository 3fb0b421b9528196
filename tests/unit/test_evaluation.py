"""Measures, runs, comparisons and rankings of documents against values worked out by hand."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from semsearch import Document, Searcher, build_index
from semsearch.errors import InvalidInput, MissingExtra
from semsearch.evaluation import (
    MEASURES,
    Collection,
    compare,
    document_ranking,
    evaluate,
    index_collection,
    judged_names,
    measure,
    read_collection,
    read_run,
    with_names,
    write_run,
)
from semsearch.evaluation.retrieval import collection_path
from semsearch.search_options import RERANK_DEPTH
from tests.toy import ToyEmbedder, ToyReranker

ONE = {"q": {"a": 1}}


def ranked(*ids: str, score: float | None = None) -> list[tuple[str, float]]:
    """A ranking of ids; with equal scores when one is given."""
    return [(i, -float(rank) if score is None else score) for rank, i in enumerate(ids)]


def values(ids, grades):
    """Measures of one query by name."""
    return {name: found["q"] for name, found in measure({"q": ranked(*ids)}, {"q": grades}).items()}


class TestMeasures:
    def test_graded_judgments_by_hand(self):
        found = values(["x", "b", "a", "n"], {"a": 3, "b": 1, "c": 2, "n": 0})
        gain = 1 / math.log2(3) + 3 / math.log2(4)
        ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
        assert found["nDCG@10"] == pytest.approx(gain / ideal)
        assert found["Recall@100"] == pytest.approx(2 / 3)
        assert found["MRR@10"] == pytest.approx(1 / 2)
        assert found["MAP"] == pytest.approx((1 / 2 + 2 / 3) / 3)
        assert [found[f"success@{k}"] for k in (1, 5, 10)] == [0, 1, 1]

    def test_judged_but_not_relevant_is_worth_nothing(self):
        assert set(values(["n", "m"], {"a": 1, "n": 0, "m": -1}).values()) == {0.0}

    def test_cut_offs(self):
        ids = [f"x{i}" for i in range(10)]
        after_ten = values([*ids, "a"], {"a": 1})
        assert (after_ten["nDCG@10"], after_ten["MRR@10"], after_ten["success@10"]) == (0, 0, 0)
        assert after_ten["Recall@100"] == 1
        assert after_ten["MAP"] == pytest.approx(1 / 11)
        after_hundred = values([*(f"x{i}" for i in range(100)), "a"], {"a": 1})
        assert set(after_hundred.values()) == {0.0}

    def test_means_count_queries_without_answers_as_zero(self):
        found = evaluate(
            lambda query, k: ranked("a") if query == "known" else [],
            {"q": "known", "r": "unknown", "not judged": "never asked"},
            {"q": {"a": 1}, "r": {"b": 1}, "none relevant": {"a": 0}},
        )
        assert found.measures == dict.fromkeys(MEASURES, 0.5)
        assert found.run == {"q": [("a", 0.0)], "r": []}
        assert found.by_query["MAP"] == {"q": 1.0, "r": 0.0}
        assert found.elapsed_s >= 0

    def test_a_document_twice_counts_once_at_its_first_place(self):
        found = evaluate(lambda *_: ranked("x", "a", "x", "a", "b"), {"q": "?"}, {"q": {"a": 1, "b": 1}})
        assert [i for i, _ in found.run["q"]] == ["x", "a", "b"]
        assert found.measures["MAP"] == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_the_search_is_asked_for_a_hundred_and_no_more_count(self):
        asked = []

        def search(query: str, k: int) -> list[tuple[str, float]]:
            asked.append(k)
            return ranked(*(str(i) for i in range(500)))

        found = evaluate(search, {"q": "?"}, {"q": {"450": 1}})
        assert asked == [100]
        assert len(found.run["q"]) == 100
        assert found.measures["Recall@100"] == 0

    @given(st.permutations([f"d{i}" for i in range(12)]), st.sets(st.integers(0, 11), min_size=1))
    def test_equal_scores_keep_the_order_of_the_search(self, order, relevant):
        qrels = {"q": {f"d{i}": 1 for i in relevant}}
        found = evaluate(lambda *_: ranked(*order, score=1.0), {"q": "?"}, qrels)
        first = min(order.index(f"d{i}") for i in relevant) + 1
        assert found.measures["MRR@10"] == pytest.approx(1 / first if first <= 10 else 0)
        assert found.measures == pytest.approx(evaluate(lambda *_: ranked(*order), {"q": "?"}, qrels).measures)

    def test_progress_counts_the_queries(self):
        seen = []
        evaluate(lambda *_: [], {"q": "", "r": ""}, {"q": {"a": 1}, "r": {"a": 1}}, progress=lambda *n: seen.append(n))
        assert seen == [(1, 2), (2, 2)]

    def test_errors_name_what_is_missing(self):
        with pytest.raises(InvalidInput, match="1 of 1 judged queries have no text, such as q"):
            evaluate(lambda *_: [], {}, ONE)
        with pytest.raises(InvalidInput, match="no query has a document judged relevant"):
            evaluate(lambda *_: [], {"q": "?"}, {"q": {"a": 0}})

    def test_without_the_library_the_error_says_how_to_install_it(self, monkeypatch):
        real = builtins.__import__

        def refuse(name, *args, **options):
            if name == "ir_measures":
                raise ImportError(name)
            return real(name, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", refuse)
            with pytest.raises(MissingExtra, match=r"pip install 'semsearch\[eval\]'"):
                measure({}, ONE)


class TestRuns:
    def test_what_is_written_is_read_again(self, tmp_path):
        run = {"q1": [("a", 2.5), ("b c", 1.0)], "q2": [("文档", -3.0)]}
        write_run(tmp_path / "x.run", run, tag="mine")
        assert (tmp_path / "x.run").read_text(encoding="utf-8").splitlines() == [
            "q1 Q0 a 1 2.5 mine", "q1 Q0 b c 2 1.0 mine", "q2 Q0 文档 1 -3.0 mine",
        ]  # fmt: skip
        assert read_run(tmp_path / "x.run") == run

    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
    def test_the_order_survives_tools_that_sort_by_score(self, tmp_path_factory, scores):
        path = tmp_path_factory.mktemp("run") / "x.run"
        run = {"q": [(f"d{i}", score) for i, score in enumerate(scores)]}
        write_run(path, run)
        found = read_run(path)["q"]
        assert [i for i, _ in found] == [i for i, _ in run["q"]]
        written = np.array([score for _, score in found], dtype=np.float32)
        assert (np.diff(written) < 0).all()

    def test_foreign_runs_are_sorted_by_score_then_rank(self, tmp_path):
        lines = ["q Q0 c 3 1.0 t", "q\tQ0\tb\t2\t1.0\tt", "", "q Q0 a 9 7 t"]
        (tmp_path / "x.run").write_text("\r\n".join(lines), encoding="utf-8")
        assert read_run(tmp_path / "x.run") == {"q": [("a", 7.0), ("b", 1.0), ("c", 1.0)]}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("q Q0 a 1 0.5 t\nq a 0.5", "line 2: 'q a 0.5' is not of a run file"),
            ("q Q0 a first 0.5 t", "line 1"),
            ("q Q0 a 1 nan t", "line 1: the score is not a number"),
            ("q Q0 a 1 2 t\nq Q0 a 2 1 t", "line 2: a is there twice for q"),
            ("", "is empty"),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path, text, message):
        (tmp_path / "x.run").write_text(text, encoding="utf-8")
        with pytest.raises(InvalidInput, match=message):
            read_run(tmp_path / "x.run")

    @pytest.mark.parametrize(
        "run", [{"two words": ranked("a")}, {"": ranked("a")}, {"q": ranked("")}, {"q": ranked("a\nb")}]
    )
    def test_ids_that_would_not_be_read_again_are_refused(self, tmp_path, run):
        with pytest.raises(InvalidInput, match="cannot stand in a run file"):
            write_run(tmp_path / "x.run", run)
        assert not (tmp_path / "x.run").exists()

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InvalidInput, match=r"none\.run cannot be read"):
            read_run(tmp_path / "none.run")


class TestComparison:
    def two_runs(self, n=40):
        """The relevant document at seeded random ranks of two runs."""
        random = np.random.default_rng(7)
        runs = []
        for shift in (0, 2):
            places = np.minimum(random.integers(0, 8, n) + shift * random.integers(0, 2, n), 9)
            runs.append({f"q{i}": ranked(*others(p), "a") for i, p in enumerate(places)})
        return runs[0], runs[1], {f"q{i}": {"a": 1} for i in range(n)}

    def test_differences_and_tests_agree_with_scipy(self):
        new, old, qrels = self.two_runs()
        ours, theirs = measure(new, qrels), measure(old, qrels)
        found = compare(new, old, qrels)
        for name, row in found.measures.items():
            a, b = (np.array([scores[name][q] for q in qrels]) for scores in (ours, theirs))
            assert (row.mean, row.baseline) == pytest.approx((a.mean(), b.mean()))
            assert row.difference == pytest.approx(a.mean() - b.mean())
            assert (row.wins, row.ties, row.losses) == ((a > b).sum(), (a == b).sum(), (a < b).sum())
            if (a != b).any():
                assert row.p_t_test == pytest.approx(stats.ttest_rel(a, b).pvalue)
        expected = stats.permutation_test(
            [np.array([s["nDCG@10"][q] for q in qrels]) for s in (ours, theirs)],
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1),
        )  # fmt: skip
        assert found.measures["nDCG@10"].p_randomisation == pytest.approx(expected.pvalue, abs=0.02)
        assert compare(new, old, qrels) == found  # seeded

    def test_few_queries_by_hand(self):
        qrels = {q: {"a": 1} for q in ("lost", "same", "won", "won more")}
        new = {"lost": ranked("x", "a"), "same": ranked("a"), "won": ranked("a"), "won more": ranked("a")}
        old = {"lost": ranked("a"), "same": ranked("a"), "won": ranked("x", "a")}
        found = compare(new, old, qrels)
        second = 1 / math.log2(3)
        row = found.measures["nDCG@10"]
        assert (row.wins, row.ties, row.losses) == (2, 1, 1)
        assert row.difference == pytest.approx(1 / 4)  # 1 won whole; the swap of first and second cancels out
        assert [(d.query, d.baseline, d.value) for d in found.largest_losses] == [("lost", 1.0, pytest.approx(second))]
        assert [d.query for d in found.largest_wins] == ["won more", "won"]
        assert (found.n_queries, found.n_missing) == (4, 1)
        # The sums of (±x, ±x, ±1), x = 1 - second, are ±(1 + 2x), four times ±1, and ±(1 - 2x): 6 of 8 reach 1.
        assert row.p_randomisation == pytest.approx(6 / 8, abs=0.02)

    def test_equal_runs_differ_in_nothing(self):
        new, _, qrels = self.two_runs()
        row = compare(new, new, qrels).measures["MAP"]
        assert (row.difference, row.p_t_test, row.p_randomisation, row.ties) == (0, 1, 1, 40)

    def test_one_query_tells_no_probability(self):
        row = compare({"q": ranked("a")}, {"q": ranked("x")}, ONE).measures["MRR@10"]
        assert (row.wins, row.p_t_test, row.p_randomisation) == (1, None, None)

    def test_a_run_of_other_queries_is_refused(self):
        with pytest.raises(InvalidInput, match="none of the 1 judged queries"):
            compare({"q": ranked("a")}, {"other": ranked("a")}, ONE)


def others(n: int) -> list[str]:
    return [f"x{i}" for i in range(n)]


LONG = "alpha is here. " + "filler words that go on and on. " * 30 + "omega is at the end. " * 3


@pytest.fixture
def searcher(toy):
    documents = [
        Document(id="long", text=LONG),
        Document(id="short", text="alpha omega"),
        Document(id="none", text="x"),
    ]
    build_index(documents, index="small", embedder=toy)
    with Searcher.open("small", embedder=toy) as opened:
        yield opened


class TestDocumentRanking:
    def test_a_document_of_many_passages_counts_once_by_its_best(self, searcher):
        hits = searcher.search("omega end", k=10, mode="lexical", per_document=0)
        assert sum(hit.document.id == "long" for hit in hits) >= 1
        found = document_ranking(searcher, "omega end", 10, mode="lexical")
        best = {}
        for hit in hits:
            best.setdefault(hit.document.id, hit.score)
        assert found == list(best.items())
        assert sorted(i for i, _ in found) == ["long", "short"]

    @pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
    def test_ids_are_distinct_and_scores_fall(self, searcher, mode):
        found = document_ranking(searcher, "alpha filler words", 100, mode=mode)
        assert len({i for i, _ in found}) == len(found) > 0
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)

    def test_a_reranker_reads_the_first_and_the_others_follow(self, toy):
        n = RERANK_DEPTH + 15
        texts = ["word " + "and more " * i for i in range(n)]
        build_index([Document(id=str(i), text=t) for i, t in enumerate(texts)], index="many", embedder=toy)
        with Searcher.open("many", embedder=toy, reranker=ToyReranker()) as searcher:
            plain = document_ranking(searcher, "word", 100, mode="dense", rerank=False)
            found = document_ranking(searcher, "word", 100, mode="dense")
            assert document_ranking(searcher, "word", 5, mode="dense") != plain[:5]
        first, rest = found[:RERANK_DEPTH], found[RERANK_DEPTH:]
        assert {i for i, _ in first} == {i for i, _ in plain[:RERANK_DEPTH]}
        assert [i for i, _ in rest] == [i for i, _ in plain[RERANK_DEPTH:]]
        assert len(rest) == 15
        assert (np.diff([s for _, s in found[RERANK_DEPTH - 1 :]]) <= 0).all()

    def test_rerank_without_a_reranker_is_an_error(self, searcher):
        with pytest.raises(InvalidInput, match="--reranker"):
            document_ranking(searcher, "alpha", 5, rerank=True)


class TestIndexOfACollection:
    def collection(self, folder, text="apples and pears", **more) -> Collection:
        folder.mkdir(exist_ok=True)
        (folder / "qrels").mkdir(exist_ok=True)
        (folder / "corpus.jsonl").write_text(
            f'{{"_id": "1", "title": "Fruit", "text": "{text}"}}\n{{"_id": "2", "title": "", "text": "stones"}}\n',
            encoding="utf-8",
        )
        (folder / "queries.jsonl").write_text('{"_id": "q", "text": "fruit"}', encoding="utf-8")
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n", encoding="utf-8")
        return read_collection(folder)

    def test_it_is_encoded_once_and_never_stale(self, tmp_path, toy):
        collection = self.collection(tmp_path / "fruit")
        first = index_collection(collection, toy)
        assert (first.chunks.encoded, first.chunks.total) == (2, 2)
        assert index_collection(collection, toy).chunks.encoded == 0
        changed = self.collection(tmp_path / "fruit", text="plums")
        assert index_collection(changed, toy).index != first.index
        assert index_collection(collection, ToyEmbedder("other")).index != first.index
        assert collection_path(collection, toy) == first.index

    def test_a_title_is_the_beginning_of_the_text_and_progress_knows_the_end(self, tmp_path, toy):
        collection, seen = self.collection(tmp_path / "fruit"), []
        report = index_collection(collection, toy, progress=seen.append)
        assert {state.files_total for state in seen} == {2}
        with Searcher.open(report.index, embedder=toy) as searcher:
            [hit] = searcher.search("fruit", mode="lexical")
        assert (hit.document.title, hit.document.text) == ("Fruit", "Fruit\n\napples and pears")

    def test_long_documents_may_be_read_up_to_what_the_model_reads_at_once(self, tmp_path, toy):
        text = " ".join(f"word{i}" for i in range(3 * toy.max_tokens))
        collection = self.collection(tmp_path / "fruit", text=text)
        whole, cut = (index_collection(collection, toy, truncate=truncate) for truncate in (False, True))
        assert whole.index != cut.index == collection_path(collection, toy, truncate=True)
        assert (whole.chunks.total > 3, cut.chunks.total) == (True, 2)
        with Searcher.open(cut.index, embedder=toy) as searcher:
            [hit] = searcher.search("word1", mode="lexical")
        assert hit.document.text.split() == ["Fruit", *text.split()][: toy.max_tokens]


class TestJudgedNames:
    DOCUMENTS = (
        ("/docs/guide/start.md", "/docs/guide/start.md"),
        ("/docs/start.md", "/docs/start.md"),
        ("/docs/t.csv#row=1", "/docs/t.csv"),
        ("/docs/t.csv#row=2", "/docs/t.csv"),
        ("42", ""),
    )

    def test_ids_then_ends_of_paths(self):
        found = judged_names(["42", "guide/start.md", "/docs/start.md", "t.csv", "art.md", "gone", ""], self.DOCUMENTS)
        assert found.of == {
            "42": "42",
            "/docs/guide/start.md": "guide/start.md",
            "/docs/start.md": "/docs/start.md",
            "/docs/t.csv#row=1": "t.csv",
            "/docs/t.csv#row=2": "t.csv",
        }
        assert found.missing == ("art.md", "gone")

    def test_a_row_may_be_judged_by_itself(self):
        assert judged_names(["t.csv#row=2"], self.DOCUMENTS).of == {"/docs/t.csv#row=2": "t.csv#row=2"}

    def test_what_is_ambiguous_is_refused(self):
        with pytest.raises(InvalidInput, match=r"start\.md fits 2 files: /docs/guide/start\.md, /docs/start\.md"):
            judged_names(["start.md"], self.DOCUMENTS)
        with pytest.raises(InvalidInput, match="are one document"):
            judged_names(["guide/start.md", "docs/guide/start.md"], self.DOCUMENTS)

    def test_documents_that_share_a_name_leave_room_for_others(self):
        rows = [f"/t.csv#row={i}" for i in range(500)]
        names = judged_names(["t.csv"], [(row, "/t.csv") for row in rows])
        everything = ranked(*rows, "other", "last")
        search = with_names(lambda query, k: everything[:k], names)
        assert search("?", 3) == [("t.csv", 0.0), ("other", -500.0), ("last", -501.0)]
        assert search("?", 1) == [("t.csv", 0.0)]
