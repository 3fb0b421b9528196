"""What a training is told, how far it came, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput
from semsearch.training.measuring import Comparison

__all__ = ["EMBEDDER_LOSSES", "RERANKER_LOSSES", "Outcome", "Progress", "Settings", "TrainReport"]

EMBEDDER_LOSSES = ("mnr", "cached-mnr")
RERANKER_LOSSES = ("late", "listnet", "lambda", "bce")  # `late` trains no cross-encoder, but late interaction

Progress = Callable[[str, int, int], None]  # (what is being done, how much of it is done, how much there is)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is trained.

    Attributes:
        epochs: times that each query (or passage) is met.
        batch_size: queries a step; passages when pre-training.
        learning_rate: at its highest, after the warm-up; then it falls to 0 in a straight line.
        warmup: share of all steps over which it rises.
        weight_decay: of AdamW.
        max_length: tokens read of each text, or of query and passage together.
        negatives: hard negatives a query.
        positives: of them, as many a query; one for an embedder.
        loss: one of EMBEDDER_LOSSES, RERANKER_LOSSES, or `mlm`.
        seed: of everything drawn at random.
        precision: `bf16` for autocast, `f32`, or `auto` for what the machine is quicker in.
        device: `auto` or `cpu`.
        time_limit_s: seconds after which training stops; None for no limit.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    max_length: int
    negatives: int
    positives: int
    loss: str
    seed: int
    precision: str = "auto"
    device: str = "auto"
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.negatives < 0 or self.positives < 1 or self.max_length < 8:
            raise InvalidInput(
                f"epochs = {self.epochs}, batch size = {self.batch_size}, negatives = {self.negatives}, "
                f"maximal length = {self.max_length}: give at least 1, 2, 0 and 8"
            )
        if not 0 < self.learning_rate < 1 or not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise InvalidInput(
                f"learning rate = {self.learning_rate}, warm-up = {self.warmup}, weight decay = {self.weight_decay}: "
                "the first lies between 0 and 1, the second from 0 to below 1, the third is not negative"
            )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a training came.

    Attributes:
        steps, steps_total: taken in all, of how many.
        interrupted: the user asked to stop; a checkpoint is left.
        out_of_time: the time limit ended it.
        seconds: that the steps of this process took.
        precision: what it computed in.
    """

    steps: int
    steps_total: int
    interrupted: bool
    out_of_time: bool
    seconds: float
    precision: str


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of a training.

    Attributes:
        kind: `embedder`, `reranker` or `pretrain`.
        model: folder of the model: OUTPUT, or beside it when it was rejected.
        installed: whether it won.
        base: what it was trained from.
        data: where the examples came from.
        n_queries, n_held_out: trained on, measured with (passages when pre-training).
        steps, steps_total: taken, of how many.
        out_of_time: the time limit ended training.
        training_s, elapsed_s: of the steps, of everything.
        comparisons: on held-out queries, by name; those of another split have its name in front.
        decisive: names of those that decided.
        first_stage_weight: for the blend of a reranker's scores with the first stage's; None for others.
    """

    kind: str
    model: Path
    installed: bool
    base: str
    data: str
    n_queries: int
    n_held_out: int
    steps: int
    steps_total: int
    out_of_time: bool
    training_s: float
    elapsed_s: float
    comparisons: Mapping[str, Comparison]
    decisive: Sequence[str]
    first_stage_weight: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The object that `semsearch train ... --json` prints."""
        values = {name: getattr(self, name) for name in self.__slots__}
        comparisons = {name: comparison.as_dict() for name, comparison in self.comparisons.items()}
        return {**values, "model": str(self.model), "decisive": list(self.decisive), "comparisons": comparisons}
