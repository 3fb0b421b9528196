"""Training from data to a model in its place: set queries aside, mine, train, compare, install or reject."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.encoders import DEFAULT_MODEL, load_embedder, load_reranker
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.encoders.models import ModelFiles, find_model
from semsearch.encoders.reranker_settings import RerankerSettings, write_settings
from semsearch.errors import InvalidInput
from semsearch.search_options import RERANK_DEPTH
from semsearch.training import torch_engine
from semsearch.training.cards import model_card
from semsearch.training.data import TrainingData
from semsearch.training.examples import Example, draw_examples, hold_out, mine_negatives, nearest_positives
from semsearch.training.first_stage import Candidates, encode_passages, first_stage
from semsearch.training.folders import Workspace, draw_plot
from semsearch.training.measuring import (
    Comparison,
    blended_run,
    compare,
    cross_fitted,
    embedder_run,
    first_stage_run,
    join_cross_encoder,
    join_late_interaction,
    rerank_scores,
)
from semsearch.training.settings import EMBEDDER_LOSSES, RERANKER_LOSSES, Outcome, Progress, Settings, TrainReport
from semsearch.types import Embedder, FloatArray, Reranker

__all__ = ["Training", "pretrain", "train_embedder", "train_reranker"]

ALPHA = 0.05  # a win by chance is less likely than this
MINED_DEPTH = 50  # candidates that hard negatives are taken from
HELD_OUT_PASSAGES = 500  # at most, to measure pre-training with


@dataclass(frozen=True, slots=True)
class Training:
    """What every training is told.

    Attributes:
        output: folder of the model to be.
        base: model to start from: a name or a folder.
        settings: how to train.
        held_out: share of the queries, or passages, to measure with.
        licence: of the data, as the user states it.
        resume: go on with a run that was cut off.
        alpha: largest p of a paired t-test with which a model counts as better.
        progress: called with what is being done, how much of it is done, and how much there is.
    """

    output: Path
    settings: Settings
    base: str = DEFAULT_MODEL
    held_out: float = 0.1
    licence: str = ""
    resume: bool = False
    alpha: float = ALPHA
    progress: Progress | None = None

    def tell(self, what: str) -> None:
        """Say what is being done."""
        if self.progress is not None:
            self.progress(what, 0, 0)


def train_embedder(data: TrainingData, training: Training, *, test: TrainingData | None = None) -> TrainReport:
    """Train a bi-encoder on queries and passages; it is installed when it ranks the held-out queries better.

    Both models rank all passages by their cosine for the held-out queries; the trained one wins when its mean nDCG@10
    is higher with p < alpha. Hard negatives come from the hybrid ranking with the model that training starts from.

    Args:
        data: what to learn from.
        training: how, and where to.
        test: other judged queries on the same passages, measured too; they decide nothing.

    Raises:
        InvalidInput: too little data, settings out of range, or OUTPUT is taken.
        MissingExtra: libraries of the extra `train` are missing.
        ModelError: the base cannot be found or trained.
        KeyboardInterrupt: it was interrupted; a checkpoint is left for `resume`.
    """
    _check_loss(training.settings.loss, EMBEDDER_LOSSES)
    run = _Run("embedder", data, training)
    base = find_model(training.base)
    start = load_embedder(training.base, device=training.settings.device, precision="full")
    training.tell("encoding the passages")
    vectors = encode_passages(data, start)
    rows = run.examples(start, vectors)
    outcome = run.bi_encoder(base, rows)
    run.check_interrupted(outcome)
    trained = load_embedder(str(run.space.candidate), device=training.settings.device, precision="full")
    training.tell("comparing the models on held-out queries")
    after = encode_passages(data, trained)
    comparisons = {}
    for name, judged, keys in _measured(data, run.held, test):
        before = embedder_run(judged, start, keys, vectors=vectors)
        comparisons[name] = compare(before, embedder_run(judged, trained, keys, vectors=after), judged)
    return run.finish(outcome, comparisons, decisive=[_HELD])


def train_reranker(
    data: TrainingData, training: Training, *, embedder: str = DEFAULT_MODEL, test: TrainingData | None = None
) -> TrainReport:
    """Train a reranker; it is installed when it ranks the candidates of held-out queries better.

    With the loss `late` that is a bi-encoder for late interaction; with the others, a cross-encoder. The first stage's
    best candidates are ranked by a blend of its scores and the model's. The weight is chosen on held-out queries, for
    each half of them on the other, so that no query is measured with a weight that it helped to choose; the one best
    for all is kept in the model's `semsearch.json`. The trained model wins when the mean nDCG@10 is higher than that of
    the first stage alone and than that of the starting model, blended in the same way, both with p < alpha. Late
    interaction starts from a model that reranks already: there it is enough that the blends are no worse, and that what
    was trained, alone, ranks better than the start alone with p < alpha.

    Args:
        data: what to learn from.
        training: how, and where to; a base without a classification head gets a random one.
        embedder: bi-encoder of the first stage.
        test: other judged queries on the same passages, measured too, with the weight that was kept; they decide
            nothing.

    Raises:
        As `train_embedder`.
    """
    _check_loss(training.settings.loss, RERANKER_LOSSES)
    base, is_late = find_model(training.base), training.settings.loss == "late"
    if is_late and _is_cross_encoder(base.path):
        raise InvalidInput(
            f"{_base_name(training.base)} is a cross-encoder; train it with --loss listnet, lambda or bce"
        )
    run = _Run("reranker", data, training, embedder=find_model(embedder).fingerprint)
    encoder = load_embedder(embedder, device=training.settings.device, precision="full")
    training.tell("encoding the passages")
    vectors = encode_passages(data, encoder)
    rows = run.examples(encoder, vectors)
    how = {"device": training.settings.device, "precision": "full"}
    if is_late:
        start = str(base.path)
        outcome = run.bi_encoder(base, rows)
    else:
        folder = run.space.work / "start"
        start = str(folder)
        torch_engine.prepare_reranker(base.path, folder, run.settings)
        outcome = torch_engine.train_reranker_rows(
            folder,
            rows,
            data.queries,
            data.texts,
            settings=run.settings,
            space=run.space,
            resume=run.resumed,
            progress=training.progress,
        )
    run.check_interrupted(outcome)
    folders = {"starting": start, "trained": str(run.space.candidate)}
    rerankers: dict[str, Reranker] = {
        what: LateInteraction.of(load_embedder(folder, **how)) if is_late else load_reranker(folder, **how)
        for what, folder in folders.items()
    }
    comparisons: dict[str, Comparison] = {}
    weights: list[float] = []
    for name, judged, keys in _measured(data, run.held, test):
        found = first_stage(judged, encoder, vectors, keys, RERANK_DEPTH)
        comparisons.update(_compare_rerankers(name, judged, found, run, rerankers, weights))
    write_settings(run.space.candidate, RerankerSettings(weights[1], late_interaction=is_late))
    blended = [f"{_HELD}, blended, against the first stage", f"{_HELD}, blended, against the start blended"]
    # Ranked by the first stage alone, hits would only come later for having been read.
    is_used = weights[1] < 1.0
    decisive, no_worse = ([f"{_HELD}, alone, against the start alone"], blended) if is_late else (blended, [])
    return run.finish(outcome, comparisons, decisive=decisive, no_worse=no_worse, is_used=is_used, weight=weights[1])


def _compare_rerankers(
    name: str,
    data: TrainingData,
    found: Mapping[str, Candidates],
    run: _Run,
    rerankers: Mapping[str, Reranker],
    weights: list[float],
) -> dict[str, Comparison]:
    """All comparisons on some queries; the first call fills `weights` of start and candidate, others take them."""
    scores = []
    join = join_late_interaction if run.settings.loss == "late" else join_cross_encoder
    for what, reranker in rerankers.items():
        if run.training.progress is not None:
            run.training.progress(f"reranking with the {what} model", 0, len(found))
        scores.append(rerank_scores(data, found, reranker, progress=run.reranking(what)))
    if weights:
        blended = [blended_run(data, found, scores[i], weights[i], join) for i in range(2)]
    else:
        fitted = [cross_fitted(data, found, scores[i], join, seed=run.settings.seed) for i in range(2)]
        blended, weights[:] = [fit[0] for fit in fitted], [fit[1] for fit in fitted]
    alone = [blended_run(data, found, scores[i], 0.0, join_cross_encoder) for i in range(2)]
    first = first_stage_run(data, found)
    return {
        f"{name}, blended, against the first stage": compare(first, blended[1], data),
        f"{name}, blended, against the start blended": compare(blended[0], blended[1], data),
        f"{name}, alone, against the start alone": compare(alone[0], alone[1], data),
        f"{name}, alone, against the first stage": compare(first, alone[1], data),
    }


def pretrain(data: TrainingData, training: Training) -> TrainReport:
    """Go on with masked-language-model training on passages; it is installed when the held-out loss fell.

    The result is an encoder to train an embedder or a reranker from: better at the words of these documents, and no
    better at telling which passage answers a query before that.

    Args:
        data: its passages are learnt from; queries are not used.
        training: how, and where to.

    Raises:
        As `train_embedder`.
    """
    _check_loss(training.settings.loss, ("mlm",))
    texts = list(dict.fromkeys(text for text in data.texts if text.strip()))
    if len(texts) < 2:
        raise InvalidInput(f"{data.source}: {len(texts)} passage is too few to pre-train on")
    n_held = min(max(1, round(training.held_out * len(texts))), HELD_OUT_PASSAGES, len(texts) - 1)
    order = np.random.default_rng([training.settings.seed, 1]).permutation(len(texts)).tolist()
    held, kept = ([texts[i] for i in part] for part in (sorted(order[:n_held]), sorted(order[n_held:])))
    run = _Run("pretrain", data, training, divided=(len(kept), n_held))
    base = find_model(training.base)
    outcome, before, after = torch_engine.pretrain_rows(
        base.path,
        kept,
        held,
        settings=run.settings,
        space=run.space,
        resume=run.resumed,
        progress=training.progress,
    )
    run.check_interrupted(outcome)
    # The sign is turned, as larger is better everywhere; one mean has no variance to test.
    loss = Comparison(-before, -after, n_held, 0.0 if after < before else 1.0)
    return run.finish(outcome, {_LOSS: loss}, decisive=[_LOSS])


_HELD = "held out"
_LOSS = "minus the loss of held-out passages"


class _Run:
    """What the three trainings share."""

    def __init__(
        self, kind: str, data: TrainingData, training: Training, *, divided: tuple[int, int] = (0, 0), **more: Any
    ) -> None:
        self.started = time.monotonic()
        self.kind = kind
        self.data = data
        self.training = training
        self.settings = training.settings
        self.kept: list[str] = []
        self.held: list[str] = []
        if kind != "pretrain":
            self.kept, self.held = hold_out(data, share=training.held_out, seed=self.settings.seed)
            divided = len(self.kept), len(self.held)
        self.divided = divided
        torch_engine.require_trainers()
        self.space = Workspace(training.output)
        state = {**asdict(self.settings), "kind": kind, "base": find_model(training.base).fingerprint, **more}
        del state["time_limit_s"]  # a run may be given more time
        state["data"] = data.digest()
        state["held_out"] = training.held_out
        self.resumed = self.space.begin(state, resume=training.resume)

    def examples(self, embedder: Embedder, vectors: FloatArray) -> list[Example]:
        """The rows to learn from, as they were for a run that is taken up."""
        rows = self.space.kept_examples() if self.resumed else None
        if rows is None:
            self.training.tell("mining hard negatives")
            found = first_stage(self.data, embedder, vectors, self.kept, MINED_DEPTH)
            rows = draw_examples(
                nearest_positives(self.data, found),
                mine_negatives(self.data, found),
                relevant=_relevant(self.data),
                n_passages=len(self.data.texts),
                epochs=self.settings.epochs,
                n_positives=self.settings.positives,
                n_negatives=self.settings.negatives,
                seed=self.settings.seed,
            )
            if not rows:
                raise InvalidInput(f"{self.data.source}: no query has a passage that answers it")
            self.space.keep_examples(rows)
        return rows

    def bi_encoder(self, base: ModelFiles, rows: Sequence[Example]) -> Outcome:
        """Train one on the rows."""
        return torch_engine.train_embedder_rows(
            base,
            rows,
            self.data.queries,
            self.data.texts,
            _relevant(self.data),
            settings=self.settings,
            space=self.space,
            resume=self.resumed,
            progress=self.training.progress,
        )

    def check_interrupted(self, outcome: Outcome) -> None:
        """Raise where the user asked to stop."""
        if outcome.interrupted:
            raise KeyboardInterrupt

    def reranking(self, what: str) -> Callable[[int, int], None] | None:
        """Progress of reranking held-out queries."""
        tell = self.training.progress
        return None if tell is None else lambda done, total: tell(f"reranking with the {what} model", done, total)

    def finish(
        self,
        outcome: Outcome,
        comparisons: Mapping[str, Comparison],
        *,
        decisive: Sequence[str],
        no_worse: Sequence[str] = (),
        is_used: bool = True,
        weight: float | None = None,
    ) -> TrainReport:
        """Write card and plot, and move the model to its place."""
        won = all(comparisons[name].is_won(self.training.alpha) for name in decisive)
        won = won and is_used and all(comparisons[name].difference >= 0 for name in no_worse)
        space = self.space
        for name, comparison in comparisons.items():
            space.note({"comparison": name, **comparison.as_dict()})
        draw_plot(space.entries(), space.candidate / "training.png", f"{self.kind}: {self.settings.loss}")
        report = TrainReport(
            kind=self.kind,
            model=space.output if won else space.rejected,
            installed=won,
            base=_base_name(self.training.base),
            data=self.data.source,
            n_queries=self.divided[0],
            n_held_out=self.divided[1],
            steps=outcome.steps,
            steps_total=outcome.steps_total,
            out_of_time=outcome.out_of_time,
            training_s=round(outcome.seconds, 1),
            elapsed_s=round(time.monotonic() - self.started, 1),
            comparisons=comparisons,
            decisive=decisive,
            first_stage_weight=weight,
        )
        precision = replace(self.settings, precision=outcome.precision)
        card = model_card(report, precision, licence=self.training.licence, versions=_versions())
        (space.candidate / "README.md").write_text(card, encoding="utf-8")
        space.finish(won=won)
        return report


def _measured(
    data: TrainingData, held: Sequence[str], test: TrainingData | None
) -> list[tuple[str, TrainingData, Sequence[str]]]:
    """(name, data, query ids) of what is measured: the held-out queries first."""
    others = [] if test is None else [(f"test ({test.source})", test, sorted(test.queries))]
    if test is not None and list(test.texts) != list(data.texts):
        raise InvalidInput("the test queries are judged on other passages; give a split of the same collection")
    return [(_HELD, data, held), *others]


def _relevant(data: TrainingData) -> dict[str, set[int]]:
    places = data.passages_of()
    return {key: {p for owner in data.qrels[key] for p in places.get(owner, ())} for key in data.queries}


def _check_loss(loss: str, known: Sequence[str]) -> None:
    if loss not in known:
        raise InvalidInput(f"loss {loss!r}: give one of {', '.join(known)}")


def _is_cross_encoder(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def _base_name(base: str) -> str:
    """A model's name; of a folder only its last part, as a card is read elsewhere."""
    folder = Path(base).expanduser()
    return folder.resolve().name if folder.is_dir() else base


def _versions() -> dict[str, str]:
    names = ("semsearch", "sentence-transformers", "transformers", "torch")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # semsearch run from its sources
    return found
