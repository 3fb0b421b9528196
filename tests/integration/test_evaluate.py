"""`semsearch evaluate` as a user meets it: the real model, a small collection, and what goes wrong."""

import json
import os

import pytest
from click.testing import CliRunner

from semsearch.cli import cli
from semsearch.evaluation import MEASURES, read_run

PAGES = {
    "bread": ("Bread", "Knead the dough until it is smooth. Let the loaf rise in a warm place and bake it."),
    "volcano": ("Volcanoes", "Molten rock rises below the mountain and lava flows down its side."),
    "chess": ("Chess", "Castling moves the king two squares and the rook to the square beside it."),
    "tea": ("", "Steep the leaves for three minutes in water that has just boiled."),
    "blank": ("", ""),
}
QUERIES = {"1": "how do I bake a loaf", "2": "eruption of lava", "3": "protecting the king", "4": "never judged"}
RELEVANT = [("1", "bread", 2), ("1", "tea", 0), ("2", "volcano", 1), ("3", "chess", 1), ("3", "blank", 1)]
KEYS = ["collection", "split", "mode", "rerank", "queries", "measures", "elapsed_s", "model"]


def run(*args):
    return CliRunner().invoke(cli, ["evaluate", *map(str, args)])


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def qrels(rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in [("query-id", "corpus-id", "score"), *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("collections") / "tiny"
    (root / "qrels").mkdir(parents=True)
    corpus = lines({"_id": i, "title": title, "text": text} for i, (title, text) in PAGES.items())
    (root / "corpus.jsonl").write_text(corpus, encoding="utf-8")
    (root / "queries.jsonl").write_text(lines({"_id": i, "text": t} for i, t in QUERIES.items()), encoding="utf-8")
    (root / "qrels" / "test.tsv").write_text(qrels(RELEVANT), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """(folder of files, index of them)"""
    root = tmp_path_factory.mktemp("pages")
    for name, (title, text) in PAGES.items():
        (root / f"{name}.md").write_text(f"# {title}\n\n{text}\n" if text else "", encoding="utf-8")
    index = str(tmp_path_factory.mktemp("indexes") / "pages")
    assert CliRunner().invoke(cli, ["index", str(root), "--index", index, "--quiet"]).exit_code == 0
    return root, index


class TestCollection:
    def test_json_has_exactly_the_documented_shape(self, folder):
        done = run(folder, "--json")
        assert done.exit_code == 0, done.output
        assert done.stdout.count("\n") == 1
        answer = json.loads(done.stdout)
        assert list(answer) == KEYS
        assert (answer["collection"], answer["split"], answer["mode"]) == ("tiny", "test", "hybrid")
        assert (answer["rerank"], answer["queries"]) == (True, 3)
        assert json.loads(run(folder, "--no-rerank", "--json").stdout)["rerank"] is False
        assert json.loads(run(folder, "--mode", "lexical", "--json").stdout)["rerank"] is False
        assert answer["model"].endswith("all-MiniLM-L6-v2")
        assert list(answer["measures"]) == list(MEASURES)
        assert answer["measures"]["success@1"] == 1
        assert answer["measures"]["Recall@100"] == pytest.approx((1 + 1 + 1 / 2) / 3)  # nothing can find a blank page
        assert answer["elapsed_s"] > 0
        assert done.stderr == ("semsearch: 1 of 4 relevant documents are not in the index and cannot be found: blank\n")

    @pytest.mark.parametrize("mode", ["dense", "lexical"])
    def test_other_modes_and_precisions(self, folder, mode):
        answer = json.loads(run(folder, "--mode", mode, "--precision", "f32", "--json").stdout)
        assert answer["mode"] == mode
        assert answer["measures"]["success@5"] == (1 if mode == "dense" else pytest.approx(1))

    def test_the_text_is_a_table(self, folder):
        done = run(folder)
        first, *rows = done.stdout.splitlines()
        assert first.startswith("tiny, test: 3 queries, hybrid, ")
        assert [row.split()[0] for row in rows] == list(MEASURES)
        assert "\x1b" not in done.stdout

    def test_a_run_is_written_and_compared_with(self, folder, tmp_path):
        path = tmp_path / "dense.run"
        run(folder, "--mode", "dense", "--no-rerank", "--run-file", path)
        assert set(read_run(path)) == {"1", "2", "3"}
        assert path.read_text(encoding="utf-8").splitlines()[0].endswith("semsearch-dense")
        answer = json.loads(run(folder, "--mode", "lexical", "--compare", path, "--json").stdout)
        assert list(answer) == [*KEYS, "comparison"]
        found = answer["comparison"]
        assert list(found) == ["n_queries", "n_missing", "measures", "largest_losses", "largest_wins"]
        row = found["measures"]["nDCG@10"]
        assert row["mean"] == pytest.approx(answer["measures"]["nDCG@10"])
        assert row["wins"] + row["ties"] + row["losses"] == found["n_queries"] == 3
        text = run(folder, "--mode", "dense", "--compare", path).stdout
        assert "compared with " in text
        assert "+0.000" in text

    def test_progress_is_on_stderr_only(self, folder, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setenv("FORCE_COLOR", "1")
            patch.setenv("TERM", "xterm-256color")
            done = run(folder, "--json")
        assert "queries" in done.stderr
        assert json.loads(done.stdout)["queries"] == 3


class TestOwnIndex:
    @pytest.fixture
    def questions(self, tmp_path):
        (tmp_path / "queries.jsonl").write_text(lines([{"_id": "a", "text": "bake a loaf"}]), encoding="utf-8")
        return tmp_path / "queries.jsonl"

    def judged(self, tmp_path, *rows):
        (tmp_path / "qrels.tsv").write_text(qrels(rows), encoding="utf-8")
        return tmp_path / "qrels.tsv"

    @pytest.mark.parametrize("whole", [False, True])
    def test_documents_are_named_by_path_or_its_end(self, pages, questions, tmp_path, whole):
        root, index = pages
        judged = self.judged(tmp_path, ("a", root / "bread.md" if whole else "bread.md", 1))
        done = run("--index", index, "--queries", questions, "--qrels", judged, "--json")
        assert done.exit_code == 0, done.output
        assert done.stderr == ""
        answer = json.loads(done.stdout)
        assert (answer["collection"], answer["split"]) == (index, None)
        assert answer["measures"]["MRR@10"] == 1

    def test_judgments_of_other_documents_are_an_error(self, pages, questions, tmp_path):
        judged = self.judged(tmp_path, ("a", "cake.md", 1))
        done = run("--index", pages[1], "--queries", questions, "--qrels", judged)
        assert done.exit_code == 2
        assert "no relevant document, such as cake.md, is in the index" in done.stderr
        assert "bread.md" in done.stderr  # how they are called

    def test_an_index_that_is_not_there_is_an_error(self, questions, tmp_path):
        done = run("--index", "none", "--queries", questions, "--qrels", self.judged(tmp_path, ("a", "x", 1)))
        assert done.exit_code == 2
        assert "there is no index" in done.stderr

    def test_a_judged_query_without_text_is_an_error(self, pages, questions, tmp_path):
        judged = self.judged(tmp_path, ("b", "bread.md", 1))
        done = run("--index", pages[1], "--queries", questions, "--qrels", judged)
        assert done.exit_code == 2
        assert "1 of 1 judged queries have no text, such as b" in done.stderr


class TestErrors:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ([], "either BEIR_FOLDER, or --index"),
            (["{folder}", "--index", "x"], "either BEIR_FOLDER, or --index"),
            (["--index", "x"], "--index needs both"),
            (["{folder}", "--queries", "{folder}/queries.jsonl"], "--queries goes with --index only"),
            (["--index", "x", "--split", "dev"], "--split goes with BEIR_FOLDER only"),
            (["{folder}", "--reranker", "/no/such/folder"], "/no/such/folder"),
            (["{folder}", "--split", "dev"], "has no split 'dev'; it has: test"),
            (["{folder}", "--compare", "{folder}/queries.jsonl"], "is not of a run file"),
            (["{folder}", "--compare", "nowhere.run"], "does not exist"),
            (["{folder}", "--run-file", "nowhere/x.run"], "there is no folder nowhere"),
            (["{folder}/qrels"], "has neither corpus.jsonl nor corpus.jsonl.gz"),
            (["nowhere"], "is not a folder"),
            (["{folder}", "--mode", "magic"], "magic"),
            (["{folder}", "--model", "./nowhere"], "nowhere"),
        ],
    )
    def test_they_are_exit_2_and_a_line_that_helps(self, folder, args, message):
        done = run(*(arg.format(folder=folder) for arg in args))
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr


class TestPublicCollection:
    """adi, 82 documents and 35 queries; BM25 with Lucene's stop words over whole documents is 0.477."""

    @pytest.mark.parametrize(("mode", "least"), [("lexical", 0.467), ("dense", 0.48), ("hybrid", 0.5)])
    def test_adi(self, shared_folder, mode, least):
        collection = shared_folder / "data" / "beir" / "adi"
        if not collection.is_dir():
            pytest.skip(f"{collection} is not there")
        done = run(os.fspath(collection), "--mode", mode, "--json")
        assert done.exit_code == 0, done.output
        answer = json.loads(done.stdout)
        assert answer["queries"] == 35
        assert answer["measures"]["nDCG@10"] >= least
