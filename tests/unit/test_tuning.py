"""Tuning on made-up indexes where it is known which ranking is right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from semsearch import Document, Searcher, build_index, document_ranking
from semsearch.cli import cli
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.errors import IndexLocked, IndexNotFound, InvalidInput
from semsearch.evaluation import measure, read_qrels, read_queries
from semsearch.ranking.fusion import DENSE_WEIGHT
from semsearch.ranking.plan import DEFAULT_PLAN, RankingPlan
from semsearch.store.files import index_path
from semsearch.store.info import inspect_index
from semsearch.store.writing import StoreWriter
from semsearch.training.data import read_judged_index
from semsearch.tuning import (
    HIDDEN_MARGIN,
    cross_validated,
    interval_of_mean,
    measure_plans,
    ndcg,
    reset_plan,
    tune,
)
from tests.toy import DIM, ToyEmbedder

N_TOPICS = 40


class MeaningEmbedder(ToyEmbedder):
    """Takes the words aNxM and bNxM for synonyms and does not know others."""

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return super().embed_queries([" ".join(re.findall(r"\b[ab](\d+x\d+)", text)) for text in texts])


class BlindEmbedder(ToyEmbedder):
    """Gives every text a vector of its own that says nothing."""

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return super().embed_queries([re.sub(r"\W", "", text) for text in texts])


class TokenToyEmbedder(ToyEmbedder):
    """Also gives vectors of tokens."""

    precision, device = "f32", "cpu"

    def token_vectors(self, texts: Sequence[str], *, queries: bool = False) -> list[np.ndarray]:
        spans = self.token_spans(texts)
        words = [[text[a:b] for a, b in rows.tolist()] for text, rows in zip(texts, spans, strict=True)]
        return [self.embed_queries(row) if row else np.zeros((0, DIM), dtype=np.float32) for row in words]


class Judged:
    """An index with queries and judgments in files."""

    def __init__(self, documents: list[Document], asked: dict[str, tuple[str, str]], embedder: ToyEmbedder) -> None:
        self.embedder = embedder
        build_index(documents, embedder=embedder)
        self.queries, self.qrels = Path("queries.jsonl").absolute(), Path("qrels.tsv").absolute()
        lines = (json.dumps({"_id": key, "text": text}) for key, (text, _) in asked.items())
        self.queries.write_text("\n".join(lines), encoding="utf-8")
        judgments = (f"{key}\t{document}\t1" for key, (_, document) in asked.items())
        self.qrels.write_text("\n".join(judgments), encoding="utf-8")

    def tune(self, **options):
        return tune(queries=self.queries, qrels=self.qrels, embedder=self.embedder, **options)


def words_mislead(own_folder: Path) -> Judged:
    """The answer says it in other words; a document near it in meaning has the query's rarest word."""
    documents, asked = [], {}
    for n in range(N_TOPICS):
        said = [f"{n}x{i}" for i in range(8)]
        answer, near = ([f"b{word}" for word in words] for words in (said, [*said[:7], f"{n}x99"]))
        documents += [Document(f"answer{n}", " ".join(answer)), Document(f"near{n}", " ".join([*near, f"word{n}"]))]
        asked[f"q{n}"] = (" ".join([*(f"a{word}" for word in said), f"word{n}"]), f"answer{n}")
    return Judged(documents, asked, MeaningEmbedder(max_tokens=80))


def the_model_is_blind(own_folder: Path) -> Judged:
    documents = [Document(f"d{n}", f"alpha beta gamma{n} delta epsilon zeta") for n in range(N_TOPICS)]
    return Judged(documents, {f"q{n}": (f"gamma{n}", f"d{n}") for n in range(N_TOPICS)}, BlindEmbedder())


def answers_are_noise(own_folder: Path) -> Judged:
    rng = np.random.default_rng(5)
    documents = [Document(f"d{n}", f"alpha beta gamma{n} delta epsilon zeta") for n in range(N_TOPICS)]
    asked = {f"q{n}": (f"gamma{n} beta", f"d{rng.integers(N_TOPICS)}") for n in range(N_TOPICS)}
    return Judged(documents, asked, ToyEmbedder())


def test_where_words_mislead_meaning_counts_more(own_folder: Path) -> None:
    report = words_mislead(own_folder).tune()
    assert report.is_better and report.plan == report.best
    assert report.plan.dense_weight > DENSE_WEIGHT
    assert 0 < report.interval[0] <= report.gain <= report.interval[1]
    assert report.n_queries == N_TOPICS


def test_where_the_model_is_blind_words_count_more(own_folder: Path) -> None:
    report = the_model_is_blind(own_folder).tune()
    assert report.is_better and report.plan.dense_weight <= 0.6 and report.interval[0] > 0


def test_on_noise_the_default_is_kept_and_an_earlier_plan_given_up(own_folder: Path) -> None:
    judged = answers_are_noise(own_folder)
    with StoreWriter.open(index_path("default")) as store:
        store.set_meta(plan=RankingPlan(0.5).as_dict())
    report = judged.tune()
    assert not report.is_better and report.plan == DEFAULT_PLAN and report.interval[0] <= 0
    assert report.is_stored and inspect_index().plan is None
    assert not judged.tune().is_stored


def test_a_plan_is_used_by_open_searchers_shown_and_taken_back(own_folder: Path) -> None:
    judged = words_mislead(own_folder)
    query = read_queries(judged.queries)["q3"]
    with Searcher.open(embedder=judged.embedder) as searcher:

        def first(**options) -> str:
            return searcher.search(query, **options)[0].document.id

        assert first() == "near3" and first(mode="dense") == "answer3" and first(mode="lexical") == "near3"
        with searcher._index.state() as state:
            before = state
        assert not judged.tune(dry_run=True).is_stored and first() == "near3"
        report = judged.tune()
        assert report.is_stored and first() == "answer3" and first(mode="lexical") == "near3"
        with searcher._index.state() as state:
            assert state is before  # nothing was opened again
        shown = inspect_index().as_dict()["plan"]
        assert RankingPlan.from_dict(shown) == report.plan
        assert shown["gain"] == report.gain and shown["interval"] == list(report.interval)
        assert "qrels.tsv" in shown["tuned_on"] and shown["date"] and shown["n_queries"] == N_TOPICS
        build_index([Document("more", "something else")], embedder=judged.embedder)
        assert first() == "answer3"
        assert reset_plan() and first() == "near3" and inspect_index().plan is None
        assert not reset_plan()


def test_another_model_drops_the_plan(own_folder: Path) -> None:
    judged = words_mislead(own_folder)
    assert judged.tune().is_stored
    build_index(embedder=judged.embedder, rebuild=True)
    assert inspect_index().plan is not None
    build_index(embedder=ToyEmbedder("other"), rebuild=True)
    assert inspect_index().plan is None


def test_without_judgments_more_has_to_be_gained(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = the_model_is_blind(own_folder)
    data = read_judged_index("default", judged.queries, judged.qrels)
    monkeypatch.setattr("semsearch.tuning.make_hidden_queries", lambda *_, **__: data)
    for low, is_enough in ((HIDDEN_MARGIN - 0.01, False), (HIDDEN_MARGIN + 0.01, True)):
        monkeypatch.setattr("semsearch.tuning.interval_of_mean", lambda *_, low=low, **__: (low, 0.5))
        assert judged.tune(dry_run=True).is_better
        assert tune(embedder=judged.embedder, dry_run=True).is_better is is_enough


def test_the_seed_decides(own_folder: Path) -> None:
    judged = the_model_is_blind(own_folder)
    reports = [judged.tune(seed=seed, n_queries=25, dry_run=True) for seed in (4, 4, 5)]
    assert reports[0] == reports[1] != reports[2]
    assert reports[0].n_queries == 25


def test_the_gain_is_not_the_one_that_was_fitted() -> None:
    rng = np.random.default_rng(1)
    n_claimed = 0
    for seed in range(30):
        values = rng.random((40, 60))  # no plan is better than another
        fitted = float((values.mean(axis=0) - values[:, 0].mean()).max())
        gains = cross_validated(values, seed=seed)
        assert gains.mean() < fitted
        n_claimed += interval_of_mean(gains, seed=seed)[0] > 0
    assert n_claimed <= 3  # one-sided 2.5 % of 30, and luck


def test_a_plan_that_is_always_better_gains_what_it_is_better_by() -> None:
    values = np.random.default_rng(1).random((40, 5)) * 0.1
    values[:, 3] = values[:, 0] + 0.25
    gains = cross_validated(values, seed=0)
    assert gains == pytest.approx(0.25)
    assert interval_of_mean(gains, seed=0) == pytest.approx((0.25, 0.25))


def test_ndcg_is_trec_evals() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        ranking = rng.permutation(30)[: rng.integers(0, 20)].tolist()
        grades = {int(i): int(rng.integers(1, 4)) for i in rng.permutation(30)[: rng.integers(1, 15)]}
        run = {"q": [(str(i), -float(place)) for place, i in enumerate(ranking)]}
        theirs = measure(run, {"q": {str(i): grade for i, grade in grades.items()}})["nDCG@10"]["q"]
        assert ndcg(ranking, grades) == pytest.approx(theirs["q"] if isinstance(theirs, dict) else theirs)


@pytest.mark.parametrize(
    "plan", [DEFAULT_PLAN, RankingPlan(0.5, feedback=False, rerank_share=0.25), RankingPlan(0.0, rerank=False)]
)
def test_plans_are_measured_as_searches_rank(own_folder: Path, plan: RankingPlan) -> None:
    rng = np.random.default_rng(3)
    words = ["river", "stone", "cloud", "forest", "engine", "wheel", "brake", "kettle", "violin", "garden", "lantern"]
    texts = [" ".join(rng.choice(words, size=rng.integers(5, 60))) for _ in range(60)]
    asked = {f"q{n}": (" ".join(rng.choice(words, size=3)), f"d{n}") for n in range(20)}
    documents = [Document(f"d{n}", text, title=f"{words[n % 11]} {words[n % 7]}") for n, text in enumerate(texts)]
    judged = Judged(documents, asked, TokenToyEmbedder())
    data = read_judged_index("default", judged.queries, judged.qrels)
    values = measure_plans(data, judged.embedder, LateInteraction(judged.embedder), [plan])[:, 0]
    with StoreWriter.open(index_path("default")) as store:
        store.set_meta(plan=plan.as_dict())
    with Searcher.open(embedder=judged.embedder) as searcher:
        queries = read_queries(judged.queries)
        run = {key: document_ranking(searcher, queries[key], 10, budget_ms=1e9) for key in data.queries}
        assert (searcher.reranker_name() is not None) == plan.rerank
    theirs = measure(run, read_qrels(judged.qrels))["nDCG@10"]
    assert values.tolist() == pytest.approx([theirs[key] for key in data.queries])


def test_what_cannot_be_tuned_is_refused(own_folder: Path) -> None:
    judged = words_mislead(own_folder)
    with pytest.raises(InvalidInput, match=r"7 queries .* 20 are needed"):
        judged.tune(n_queries=7)
    with pytest.raises(InvalidInput, match="belong together"):
        tune(queries=judged.queries, embedder=judged.embedder)
    judged.qrels.write_text("q1\tunheard-of\t1\n")
    with pytest.raises(InvalidInput, match="same ids"):
        judged.tune()
    with pytest.raises(IndexNotFound):
        reset_plan("nowhere")
    assert not index_path("nowhere").exists()
    with pytest.raises(InvalidInput, match="from 0 to 1"):
        RankingPlan(dense_weight=1.5)


def test_a_writer_at_work_is_not_disturbed(own_folder: Path) -> None:
    judged = answers_are_noise(own_folder)
    with StoreWriter.open(index_path("default")):
        for work in (
            reset_plan,
            lambda: judged.tune(progress=lambda done, total: pytest.fail("it worked for nothing")),
        ):
            with pytest.raises(IndexLocked):
                work()
        assert not judged.tune(dry_run=True).is_stored


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> Callable:
        judged = words_mislead(own_folder)
        monkeypatch.setattr("semsearch.searching.load_embedder", lambda *_, **__: judged.embedder)
        files = ["--queries", str(judged.queries), "--qrels", str(judged.qrels)]

        def run(*args: str, judged: bool = True):
            return CliRunner().invoke(cli, ["tune", *(files if judged else []), *args])

        return run

    def test_json_and_exit_status(self, run: Callable) -> None:
        done = run("--json")
        found = json.loads(done.stdout)
        assert done.exit_code == 0 and done.stderr == ""
        assert found["is_better"] and found["is_stored"] and found["plan"]["dense_weight"] > DENSE_WEIGHT
        assert found["interval"][0] > 0 and found["n_queries"] == N_TOPICS
        info = CliRunner().invoke(cli, ["info", "--json"])
        assert json.loads(info.stdout)["index"]["plan"]["dense_weight"] == found["plan"]["dense_weight"]
        assert "tuned on" in CliRunner().invoke(cli, ["info"]).stdout
        assert run("--reset", "--json", judged=False).exit_code == 0
        again = run("--reset", judged=False)
        assert again.exit_code == 1 and "already" in again.stdout

    def test_text(self, run: Callable) -> None:
        done = run("--dry-run")
        assert done.exit_code == 0 and "cross-validated" in done.stdout and "was not changed" in done.stdout
        assert inspect_index().plan is None
        assert "ranks by the best from now on" in run().stdout

    @pytest.mark.parametrize(
        ("args", "judged", "said"),
        [
            (["--n-queries", "5"], True, "20 are needed"),
            (["--reset"], True, "--reset goes with"),
            (["--index", "nowhere"], True, "there is no index"),
            (["--queries", "queries.jsonl"], False, "belong together"),
            ([], False, "no queries can be made"),
        ],
    )
    def test_errors(self, run: Callable, args: list[str], judged: bool, said: str) -> None:
        done = run(*args, judged=judged)
        assert done.exit_code == 2 and said in done.stderr


def test_documents_alone_are_enough_and_what_is_asked_is_hidden(own_folder: Path) -> None:
    embedder = ToyEmbedder(max_tokens=80)
    rng = np.random.default_rng(1)
    names = [f"{a}{b}" for a in "bcdfghklmn" for b in ("amber", "obelisk", "island", "emblem", "utensil")]
    documents = []
    for n in range(40):
        own = rng.choice(names, size=4, replace=False)
        sentences = [f"The {rng.choice(own)} lies {n} steps from the {rng.choice(own)} in room {i}." for i in range(6)]
        documents.append(Document(f"d{n}", " ".join(sentences)))
    build_index(documents, embedder=embedder)
    report = tune(embedder=embedder, dry_run=True, n_queries=30)
    assert report.is_better is (report.interval[0] > HIDDEN_MARGIN)
    assert report.n_queries == 30 and "sentences taken out of the index" in report.tuned_on
    assert 0 < report.default_ndcg < 1
