"""Training for real: tiny random checkpoints, a few steps, seconds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from semsearch import Document, Searcher, build_index, load_embedder, load_reranker
from semsearch.cli import cli
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.encoders.models import find_model
from semsearch.encoders.reranker_settings import RerankerSettings, write_settings
from semsearch.errors import InvalidInput, ModelError
from semsearch.evaluation import Run
from semsearch.training import runs, torch_engine
from semsearch.training.data import TrainingData
from semsearch.training.examples import Example
from semsearch.training.first_stage import Candidates
from semsearch.training.measuring import cross_fitted, rerank_scores
from semsearch.training.runs import Training, pretrain, train_embedder, train_reranker
from semsearch.training.settings import Settings, TrainReport
from semsearch.types import TokenEmbedder
from tests.checkpoints import write_bi_encoder
from tests.toy import ToyEmbedder

SETTINGS = Settings(
    epochs=4, batch_size=8, learning_rate=5e-3, warmup=0.1, weight_decay=0.01, max_length=32, negatives=1, positives=1,
    loss="mnr", seed=3, precision="f32", device="cpu",
)  # fmt: skip
RERANKING = replace(SETTINGS, loss="listnet", negatives=3, epochs=2)
LATE = replace(SETTINGS, loss="late", epochs=40, learning_rate=1e-2)
MASKING = replace(SETTINGS, loss="mlm", epochs=6, negatives=0)
LETTERS = "abcdefghijkl"


def collection() -> TrainingData:
    """Three ways to ask for each letter; the passage names another one, so only training can tell which."""
    asked = [(f"{way} {letter}", letter) for letter in LETTERS for way in ("the river", "query:", "a cloud of")]
    answers = {letter: LETTERS[(i * 5 + 3) % 12] for i, letter in enumerate(LETTERS)}
    return TrainingData(
        source="letters",
        queries={f"q{i:02}": text for i, (text, _) in enumerate(asked)},
        texts=[f"stone {answers[letter]}" for letter in LETTERS],
        contexts=[""] * 12,
        owners=list(LETTERS),
        qrels={f"q{i:02}": {letter: 1} for i, (_, letter) in enumerate(asked)},
    )


class Watcher:
    """Remembers what it is told, and presses Ctrl-C after a step or when something begins."""

    def __init__(self, interrupt_at: int = 0, begins: str = "?") -> None:
        self.interrupt_at = interrupt_at
        self.begins = begins
        self.seen: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.seen.append((what, done, total))
        if (what == "training" and done == self.interrupt_at) or what.startswith(self.begins):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small spend their time waiting for each other's threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts here even where the tests run in the background, whose shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose weights are small enough to learn from; the ones that tests of runtimes use are not."""
    from safetensors.numpy import load_file, save_file

    folder = write_bi_encoder(tmp_path_factory.mktemp("base") / "tiny")
    weights = load_file(folder / "model.safetensors")
    smaller = {name: values * 0.1 if values.ndim == 2 else values for name, values in weights.items()}
    save_file(smaller, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def of(base: str, output: str | Path, settings: Settings = SETTINGS, **more: Any) -> Training:
    return Training(output=Path(output), settings=settings, base=base, held_out=0.25, **more)


@pytest.fixture(scope="module")
def embedder(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainReport, Watcher]:
    watcher = Watcher()
    settings = replace(SETTINGS, epochs=20)
    training = of(base, tmp_path_factory.mktemp("models") / "ours", settings, licence="CC0", progress=watcher)
    return train_embedder(collection(), training, test=collection()), watcher


@pytest.fixture(scope="module")
def reranker(base: str, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    return train_reranker(collection(), of(base, tmp_path_factory.mktemp("models") / "r", RERANKING), embedder=base)


@pytest.fixture(scope="module")
def late(base: str, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    return train_reranker(collection(), of(base, tmp_path_factory.mktemp("models") / "l", LATE), embedder=base)


@pytest.fixture(scope="module")
def encoder(base: str, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    return pretrain(collection(), of(base, tmp_path_factory.mktemp("models") / "e", MASKING))


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training-log.jsonl").read_text().splitlines()]


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


class TestEmbedder:
    def test_it_wins_on_questions_it_never_saw_and_is_installed(self, embedder):
        report, _ = embedder
        held_out = report.comparisons["held out"]
        assert report.installed
        assert held_out.n_queries == report.n_held_out == 9
        assert held_out.after > held_out.before + 0.2
        assert held_out.p < 0.05
        assert report.model.name == "ours"
        assert sorted(p.name for p in report.model.parent.iterdir()) == ["ours"]  # no work is left beside it

    def test_sentence_transformers_and_semsearch_read_it_alike(self, embedder):
        from sentence_transformers import SentenceTransformer

        folder = str(embedder[0].model)
        texts = ["stone d", "the river a", "query: " * 40]
        theirs = SentenceTransformer(folder, device="cpu").encode(texts, normalize_embeddings=True)
        ours = load_embedder(folder, device="cpu", precision="f32").embed_documents(texts)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def test_only_safetensors_hold_weights(self, embedder):
        suffixes = {path.suffix for path in files_below(embedder[0].model)}
        assert suffixes == {".safetensors", ".json", ".jsonl", ".md", ".png"}

    def test_log_and_plot_show_the_loss(self, embedder):
        folder = embedder[0].model
        entries = [entry for entry in log_of(folder) if "loss" in entry]
        assert [entry["step"] for entry in entries] == sorted({entry["step"] for entry in entries})
        assert entries[-1]["loss"] < entries[0]["loss"]
        assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")

    def test_the_card_says_what_it_was_made_of(self, embedder):
        report, _ = embedder
        card = (report.model / "README.md").read_text()
        held_out = report.comparisons["held out"]
        for said in (
            "from `tiny`",
            "- letters",
            "27 queries to train on, 9 held out",
            "licence of the data: CC0",
            f"| held out (decides) | 9 | {held_out.before:.4f} | {held_out.after:.4f} |",
            "| test (letters) | 36 |",
            "| seed | 3 |",
            "| learning rate | 0.005 |",
            "It won on held-out data.",
        ):
            assert said in card
        assert str(report.model.parent) not in card  # it is read on other machines

    def test_progress_counts_the_steps(self, embedder):
        report, watcher = embedder
        steps = [entry for entry in watcher.seen if entry[0] == "training"]
        assert steps == [("training", n, report.steps) for n in range(1, report.steps + 1)]

    def test_its_prompts_go_with_it(self, tmp_path):
        prompted = write_bi_encoder(tmp_path / "e5-small-v2")  # a family that needs prompts and does not state them
        report = train_embedder(collection(), of(str(prompted), "out", replace(SETTINGS, epochs=1)))
        stated = json.loads((report.model / "config_sentence_transformers.json").read_text())["prompts"]
        assert (stated["query"], stated["document"]) == ("query: ", "passage: ")

    @pytest.mark.parametrize("precision", ["bf16", "f32"])
    def test_the_cached_loss_and_half_precision_train_too(self, base, precision):
        settings = replace(SETTINGS, loss="cached-mnr", epochs=1, precision=precision)
        report = train_embedder(collection(), of(base, "out", settings))
        assert report.steps == 4
        assert f"| precision | {precision} |" in (report.model / "README.md").read_text()

    def test_the_weights_saved_lie_between_the_base_and_what_was_learnt(self, base, monkeypatch):
        from safetensors.numpy import load_file

        settings = replace(SETTINGS, epochs=1)
        mixed = load_file(train_embedder(collection(), of(base, "mixed", settings)).model / "model.safetensors")
        monkeypatch.setattr(torch_engine, "TRAINED_SHARE", 1.0)
        learnt = load_file(train_embedder(collection(), of(base, "learnt", settings)).model / "model.safetensors")
        before = load_file(Path(base) / "model.safetensors")
        moved = 0.0
        for name, values in mixed.items():
            np.testing.assert_allclose(values, before[name] + 0.7 * (learnt[name] - before[name]), atol=1e-6)
            moved += float(np.abs(learnt[name] - before[name]).max())
        assert moved > 0.01

    def test_whatever_of_a_batch_answers_a_query_is_learnt_as_an_answer(self, base):
        import torch
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(base, device="cpu")
        queries, texts = ["the river a", "a cloud of b"], ["stone a", "stone b", "stone c", "stone d"]
        rows = [Example("q0", [0], [1], [2]), Example("q1", [1], [1], [3])]
        relevant = {"q0": {0, 3}, "q1": {1}}  # the first query's other answer is offered as a negative of the second
        loss = torch_engine._known_positives_loss(model, rows, relevant, torch_engine._cosines, n_negatives=1)
        features = [model.tokenize(part) for part in (queries, texts[:2], texts[2:])]
        found = float(loss(features, torch.tensor([0, 1])).detach())
        cosines = model.encode(queries, normalize_embeddings=True) @ model.encode(texts, normalize_embeddings=True).T
        odds = np.exp(cosines.astype(np.float64) / 0.05)

        def entropy(row: int, positive: int, negatives: list[int]) -> float:
            return -float(np.log(odds[row, positive] / (odds[row, positive] + odds[row, negatives].sum())))

        first = (entropy(0, 0, [1, 2]) + entropy(0, 3, [1, 2])) / 2
        assert found == pytest.approx((first + entropy(1, 1, [0, 2, 3])) / 2, rel=1e-4)


class TestReproducibility:
    def test_the_same_seed_gives_the_same_weights_and_another_one_others(self, base):
        hashes = []
        for name, seed in (("first", 3), ("second", 3), ("third", 4)):
            settings = replace(SETTINGS, seed=seed)
            hashes.append(weights_hash(train_embedder(collection(), of(base, name, settings)).model))
        assert hashes[0] == hashes[1] != hashes[2]

    @pytest.mark.parametrize("kind", ["embedder", "reranker", "late", "pretrain"])
    def test_a_run_that_was_interrupted_ends_as_one_that_was_not(self, base, kind):
        def run(training: Training) -> TrainReport:
            if kind == "embedder":
                return train_embedder(collection(), training)
            if kind in {"reranker", "late"}:
                return train_reranker(collection(), training, embedder=base)
            return pretrain(collection(), training)

        settings = {
            "embedder": SETTINGS,
            "reranker": RERANKING,
            "late": replace(LATE, epochs=2),
            "pretrain": MASKING,
        }[kind]
        whole = run(of(base, "whole", settings))
        with pytest.raises(KeyboardInterrupt):
            run(of(base, "cut", settings, progress=Watcher(interrupt_at=3)))
        assert not Path("cut").exists()
        assert not Path("cut.rejected").exists()
        with pytest.raises(InvalidInput, match="--resume"):
            run(of(base, "cut", settings))
        resumed = run(of(base, "cut", settings, resume=True))
        assert resumed.steps == whole.steps
        assert weights_hash(resumed.model) == weights_hash(whole.model)
        losses = [[(e["step"], e["loss"]) for e in log_of(r.model) if "loss" in e] for r in (whole, resumed)]
        assert losses[0] == losses[1]

    @pytest.mark.parametrize("stage", ["encoding", "mining", "comparing"])
    def test_a_run_cut_off_before_or_after_training_goes_on_too(self, base, embedder, stage):
        settings = replace(SETTINGS, epochs=20)
        with pytest.raises(KeyboardInterrupt):
            train_embedder(collection(), of(base, "cut", settings, progress=Watcher(begins=stage)))
        report = train_embedder(collection(), of(base, "cut", settings, resume=True))
        assert report.steps == embedder[0].steps
        assert weights_hash(report.model) == weights_hash(embedder[0].model)

    def test_what_is_left_by_an_interruption_holds_no_pickled_arguments_and_no_held_out_query(self, base):
        with pytest.raises(KeyboardInterrupt):
            train_embedder(collection(), of(base, "cut", progress=Watcher(interrupt_at=2)))
        work = Path("cut.training")
        names = {path.name for path in files_below(work / "checkpoints")}
        assert {"model.safetensors", "optimizer.pt", "trainer_state.json"} <= names
        assert "training_args.bin" not in names
        trained = {json.loads(line)["query"] for line in (work / "examples.jsonl").read_text().splitlines()}
        report = train_embedder(collection(), of(base, "cut", resume=True))
        assert len(trained) == report.n_queries == 27
        assert len(collection().queries) - len(trained) == report.n_held_out

    def test_other_settings_or_data_cannot_take_a_run_up(self, base):
        with pytest.raises(KeyboardInterrupt):
            train_embedder(collection(), of(base, "cut", progress=Watcher(interrupt_at=2)))
        with pytest.raises(InvalidInput, match=r"learning_rate was 0.005 and is 0.003"):
            train_embedder(collection(), of(base, "cut", replace(SETTINGS, learning_rate=3e-3), resume=True))
        other = replace(collection(), texts=[f"{text}." for text in collection().texts])
        with pytest.raises(InvalidInput, match="data was"):
            train_embedder(other, of(base, "cut", resume=True))

    def test_there_is_nothing_to_take_up(self, base):
        with pytest.raises(InvalidInput, match="leave out --resume"):
            train_embedder(collection(), of(base, "none", resume=True))

    def test_the_time_limit_ends_training_and_what_was_learnt_counts(self, base):
        report = train_embedder(collection(), of(base, "out", replace(SETTINGS, time_limit_s=1e-6)))
        assert report.out_of_time
        assert report.steps == 1 < report.steps_total
        assert (report.model / "model.safetensors").is_file()


class TestRejection:
    def test_a_model_that_did_not_get_better_is_left_beside(self, base):
        report = train_embedder(collection(), of(base, "out", replace(SETTINGS, learning_rate=1e-12, epochs=1)))
        assert not report.installed
        assert report.model == Path("out.rejected").absolute()
        assert not Path("out").exists()
        assert not Path("out.training").exists()
        assert "**Rejected" in (report.model / "README.md").read_text()
        load_embedder(str(report.model)).embed_queries(["still usable"])

    def test_a_gain_that_may_be_chance_is_not_enough(self, base):
        report = train_embedder(collection(), of(base, "out", replace(SETTINGS, epochs=20), alpha=1e-12))
        assert report.comparisons["held out"].difference > 0
        assert not report.installed

    @pytest.mark.parametrize("content", ["file", "folder"])
    def test_a_place_that_is_taken_is_not_touched(self, base, content):
        place = Path("out")
        if content == "file":
            place.write_text("mine")
        else:
            place.mkdir()
            (place / "mine.txt").write_text("mine")
        with pytest.raises(InvalidInput, match="exists already"):
            train_embedder(collection(), of(base, place))
        assert (place if content == "file" else place / "mine.txt").read_text() == "mine"

    def test_a_base_that_is_no_model_is_an_error_before_anything_is_made(self, tmp_path):
        with pytest.raises(ModelError):
            train_embedder(collection(), of(str(tmp_path), "out"))
        assert not Path("out.training").exists()

    @pytest.mark.parametrize(
        "change", [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"max_length": 4}]
    )
    def test_settings_out_of_range_are_errors(self, change):
        with pytest.raises(InvalidInput):
            replace(SETTINGS, **change)

    def test_an_unknown_loss_is_an_error(self, base):
        with pytest.raises(InvalidInput, match="mnr, cached-mnr"):
            train_embedder(collection(), of(base, "out", RERANKING))


class TestReranker:
    def test_sentence_transformers_and_semsearch_read_it_alike(self, reranker):
        from sentence_transformers import CrossEncoder

        folder, texts = str(reranker.model), ["stone d", "stone e " * 30, "cloud"]
        theirs = CrossEncoder(folder, device="cpu").predict([("the river a", text) for text in texts])
        ours = load_reranker(folder, device="cpu", precision="f32").score("the river a", texts)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_the_weight_of_the_first_stage_is_kept_with_it(self, reranker):
        kept = json.loads((reranker.model / "semsearch.json").read_text())
        assert kept == {"first_stage_weight": reranker.first_stage_weight, "late_interaction": False}
        assert 0 <= kept["first_stage_weight"] <= 1

    def test_it_is_compared_with_the_first_stage_and_with_its_start(self, reranker):
        assert set(reranker.decisive) == {
            "held out, blended, against the first stage",
            "held out, blended, against the start blended",
        }
        assert set(reranker.decisive) < set(reranker.comparisons)
        assert reranker.installed == all(reranker.comparisons[name].is_won(0.05) for name in reranker.decisive)

    @pytest.mark.parametrize(("loss", "activation"), [("lambda", "Identity"), ("bce", "Sigmoid")])
    def test_other_losses_train_too(self, base, loss, activation):
        report = train_reranker(collection(), of(base, "out", replace(RERANKING, loss=loss)), embedder=base)
        losses = [entry["loss"] for entry in log_of(report.model) if "loss" in entry]
        assert len(losses) == report.steps
        assert np.isfinite(losses).all()
        stated = json.loads((report.model / "config_sentence_transformers.json").read_text())["activation_fn"]
        assert stated.endswith(activation)


class TestLateInteraction:
    def test_it_wins_on_questions_it_never_saw_and_is_installed(self, late):
        assert late.installed
        for name in late.decisive:
            assert late.comparisons[name].difference > 0.05
        card = (late.model / "README.md").read_text()
        assert "- late-interaction\n" in card and "cross-encoder" not in card
        assert "| negatives |" in card and "positives" not in card

    def test_it_is_read_as_late_interaction_whose_scores_are_those_of_its_token_vectors(self, late):
        found = load_reranker(str(late.model), device="cpu", precision="f32")
        assert isinstance(found, LateInteraction)
        assert found.first_stage_weight == late.first_stage_weight
        embedder = load_embedder(str(late.model), device="cpu", precision="f32")
        assert isinstance(embedder, TokenEmbedder)
        (asked,), (passage,) = embedder.token_vectors(["the river a"]), embedder.token_vectors(["stone d"])
        expected = (asked @ passage.T).max(axis=1).mean()
        assert found.score("the river a", ["stone d"])[0] == pytest.approx(float(expected), abs=1e-4)

    def test_better_alone_is_not_enough_where_the_blend_is_worse(self, base, monkeypatch):
        def worse(*arguments: Any, **more: Any) -> tuple[Run, float]:
            run, weight = cross_fitted(*arguments, **more)
            turned = {key: ranking[::-1] for key, ranking in run.items()}
            calls.append(1)
            return (run if len(calls) == 1 else turned), weight  # the start's comes first

        calls: list[int] = []
        monkeypatch.setattr(runs, "cross_fitted", worse)
        report = train_reranker(collection(), of(base, "out", LATE), embedder=base)
        assert report.comparisons[report.decisive[0]].is_won(0.05)
        assert not report.installed

    @pytest.mark.parametrize("name", ["tiny", "e5-small-v2"])  # the second is of a family that has prompts
    def test_the_loss_compares_texts_as_the_reranker_does(self, tmp_path, name):
        from sentence_transformers import SentenceTransformer

        folder = str(write_bi_encoder(tmp_path / name))
        model = SentenceTransformer(folder, device="cpu").eval()
        texts = [
            "stone a",
            "a cloud of \u2603 stones beside the river b",
            "c",
        ]  # one holds what the vocabulary does not
        queries = ["the river \u2603", "b"]
        files = find_model(folder)
        prompts = (files.query_prompt, files.document_prompt)
        assert bool(prompts[0]) == (name != "tiny")
        asked, first, second = (
            model(model.tokenize([prompt + text for text in part]))
            for prompt, part in ((prompts[0], queries), (prompts[1], texts[:2]), (prompts[1], texts[2:]))
        )
        found = torch_engine._mean_best_cosines(model, prompts)(asked, [first, second]).detach().numpy()
        reranker = LateInteraction.of(load_embedder(folder, device="cpu", precision="f32"))
        for query, row in zip(queries, found, strict=True):
            np.testing.assert_allclose(row, reranker.score(query, texts), atol=1e-4)

    def test_reading_each_passage_once_gives_the_scores_of_reading_it_for_each_query(self, base):
        data = collection()
        reranker = LateInteraction.of(load_embedder(base, device="cpu", precision="f32"))
        nothing = np.zeros((3, 1), dtype=np.float32)
        orders = {"q00": [4, 2, 7], "q01": [2, 11, 0], "q05": [7]}
        found = {key: Candidates(order, [0.0] * len(order), nothing[:, 0], nothing) for key, order in orders.items()}
        seen: list[tuple[int, int]] = []
        scores = rerank_scores(data, found, reranker, progress=lambda *state: seen.append(state))
        assert list(scores) == list(orders)
        for key, order in orders.items():
            alone = reranker.score(data.queries[key], [data.texts[i] for i in order])
            np.testing.assert_allclose(scores[key], alone, atol=1e-5)
        assert seen == [(n, 5) for n in range(1, 6)]

    @pytest.mark.parametrize("weight", [0.0, 1.0])
    def test_a_searcher_gives_it_the_weight_that_training_found(self, late, base, tmp_path, weight):
        folder = shutil.copytree(late.model, tmp_path / "model")
        write_settings(folder, RerankerSettings(weight, late_interaction=True))
        embedder = load_embedder(base, device="cpu")
        documents = [Document(id=letter, text=f"stone {letter}") for letter in LETTERS]
        build_index(documents, index=tmp_path / "index", embedder=embedder)
        with Searcher.open(tmp_path / "index", embedder=embedder, reranker=str(folder)) as searcher:
            hits = searcher.search("the river a", k=12, fold=False, budget_ms=60_000)
        parts = [hit.scores.parts for hit in hits]
        named = {name for part in parts for name, value in part.items() if value}
        assert ("reranker" in named, "meaning" in named) == (weight == 0.0, weight == 1.0)

    def test_a_searcher_blends_it_as_training_did(self, late, base, tmp_path):
        embedder = load_embedder(base, device="cpu")
        documents = [Document(id=letter, text=f"stone {letter}") for letter in LETTERS]
        build_index(documents, index=tmp_path / "index", embedder=embedder)
        with Searcher.open(tmp_path / "index", embedder=embedder, reranker=str(late.model)) as searcher:
            hits = searcher.search("the river a", k=12, fold=False)
        assert hits[0].document.id == LETTERS[3]  # what only training can tell
        assert all(hit.probability is None for hit in hits)

    def test_a_cross_encoder_is_not_taken_for_a_bi_encoder(self, reranker, base):
        with pytest.raises(InvalidInput, match="--loss listnet"):
            train_reranker(collection(), of(str(reranker.model), "out", LATE), embedder=base)


class TestPretraining:
    def test_the_loss_on_passages_it_never_saw_falls(self, encoder):
        (loss,) = encoder.comparisons.values()
        assert encoder.installed
        assert -loss.after < -loss.before
        assert encoder.n_queries + encoder.n_held_out == 12

    def test_an_embedder_can_start_from_it(self, encoder, base):
        trained = load_embedder(str(encoder.model), precision="f32", device="cpu").embed_documents(["stone d"])
        before = load_embedder(base, precision="f32", device="cpu").embed_documents(["stone d"])
        assert np.abs(trained - before).max() > 1e-3
        report = train_embedder(collection(), of(str(encoder.model), "out", replace(SETTINGS, epochs=1)))
        assert report.steps > 0

    def test_one_passage_is_too_few(self, base):
        with pytest.raises(InvalidInput, match="too few"):
            pretrain(replace(collection(), texts=["one"] * 12), of(base, "out", MASKING))


class TestCommand:
    PAIRS = "".join(
        json.dumps({"query": text, "positive": collection().texts[LETTERS.index(owner)]}) + "\n"
        for key, text in collection().queries.items()
        for owner in collection().qrels[key]
    )
    QUICK = ("--epochs", 1, "--batch-size", 8, "--max-length", 32, "--held-out", 0.25, "--device", "cpu")

    def run(self, *args: object) -> Any:
        return CliRunner().invoke(cli, ["train", *map(str, args)])

    @pytest.fixture
    def pairs(self) -> str:
        Path("pairs.jsonl").write_text(self.PAIRS)
        return "pairs.jsonl"

    def test_a_win_is_status_0_and_json_tells_everything(self, base, pairs):
        options = (*self.QUICK[2:], "--epochs", 20, "--learning-rate", 5e-3, "--seed", 3)
        done = self.run("embedder", "--pairs", pairs, "--base", base, "-o", "ours", "--json", *options)
        report = json.loads(done.stdout)
        assert done.exit_code == 0
        assert report["installed"]
        assert report["comparisons"]["held out"]["p"] < 0.05
        assert Path(report["model"]) == Path("ours").absolute()

    def test_a_rejected_model_is_status_1_and_the_message_says_where_it_is(self, base, pairs):
        done = self.run(
            "embedder", "--pairs", pairs, "--base", base, "-o", "ours", "--learning-rate", 1e-12, *self.QUICK
        )
        assert done.exit_code == 1
        assert "not installed" in done.stderr
        assert "ours.rejected" in done.stderr
        assert "may help; 9 held-out queries show large differences only (--held-out)" in done.stderr
        assert not Path("ours").exists()

    def test_an_index_alone_is_enough(self, base, toy: ToyEmbedder):
        sentences = "The river runs past the stone in the cloud, number {}. A query for the passage, number {}."
        build_index([Document(f"d{i}", sentences.format(i, i)) for i in range(12)], embedder=toy)
        done = self.run("reranker", "--embedder", base, "--base", base, "-o", "r", "--json", *self.QUICK)
        assert done.exit_code in {0, 1}, done.output
        assert "12 sentences of the index default" in json.loads(done.stdout)["data"]
        done = self.run("pretrain", "--base", base, "-o", "e", "--json", *self.QUICK)
        assert done.exit_code in {0, 1}, done.output
        assert json.loads(done.stdout)["kind"] == "pretrain"

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("--pairs", "pairs.jsonl", "--beir", "."), "exclude each other"),
            (("--queries", "pairs.jsonl"), "belong together"),
            (("--pairs", "pairs.jsonl", "--test-split", "test"), "--beir"),
            (("--pairs", "missing.jsonl"), "does not exist"),
            ((), "no index"),
        ],
    )
    def test_arguments_that_do_not_fit_are_errors(self, pairs, args, said):
        done = self.run("embedder", "-o", "ours", *args)
        assert done.exit_code == 2
        assert said in done.stderr

    @pytest.mark.parametrize("content", ["", '{"query": "a", "positive": "b"}\n'])
    def test_too_few_pairs_are_an_error(self, content):
        Path("few.jsonl").write_text(content)
        done = self.run("embedder", "--pairs", "few.jsonl", "-o", "ours")
        assert done.exit_code == 2
        assert done.stderr.startswith("semsearch: error: ")
        assert not Path("ours.training").exists()

    def test_an_interruption_tells_how_to_go_on(self, base, pairs, monkeypatch):
        from semsearch.cli import progress

        with monkeypatch.context() as patch:
            patch.setattr(progress, "stages", lambda: nullcontext(Watcher(interrupt_at=1)))
            done = self.run("embedder", "--pairs", pairs, "--base", base, "-o", "ours", *self.QUICK)
        assert done.exit_code == 130
        assert "--resume" in done.stderr
        done = self.run("embedder", "--pairs", pairs, "--base", base, "-o", "ours", "--resume", *self.QUICK)
        assert done.exit_code in {0, 1}, done.output

    @pytest.mark.parametrize("command", ["embedder", "reranker", "pretrain"])
    def test_each_command_explains_itself_with_examples(self, command):
        done = self.run(command, "--help")
        assert done.exit_code == 0
        assert f"semsearch train {command}" in done.stdout
