"""Whether a model got better: nDCG@10 of the same queries before and after, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from semsearch.encoders.late_interaction import LateInteraction
from semsearch.evaluation import DEPTH, Qrels, Run, measure
from semsearch.evaluation import compare as compare_runs
from semsearch.ranking.blending import blend
from semsearch.ranking.reranking import smoothed
from semsearch.training.data import TrainingData
from semsearch.training.first_stage import Candidates, encode_passages, rank_passages
from semsearch.types import Embedder, FloatArray, Reranker

__all__ = [
    "Comparison",
    "blended_run",
    "compare",
    "cross_fitted",
    "embedder_run",
    "first_stage_run",
    "join_cross_encoder",
    "join_late_interaction",
    "rerank_scores",
]

MEASURE = "nDCG@10"
PER_OWNER = 3  # passages ranked for each place of a run, as several may belong to one document
Join = Callable[
    [Candidates, FloatArray, float], FloatArray
]  # of candidates, their scores, and the first stage's weight
WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rankings of the same queries.

    Attributes:
        before, after: mean nDCG@10.
        n_queries: over so many queries.
        p: of a paired t-test, two-sided; 1 where there is but one query.
    """

    before: float
    after: float
    n_queries: int
    p: float

    @property
    def difference(self) -> float:
        """Points of nDCG@10 gained, in [-1, 1]."""
        return self.after - self.before

    def is_won(self, alpha: float) -> bool:
        """Whether `after` is better, and by chance alone would seem so with a probability below `alpha`."""
        return self.difference > 0 and self.p < alpha

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**asdict(self), "difference": self.difference}


def compare(before: Run, after: Run, data: TrainingData) -> Comparison:
    """Compare two runs of the same queries."""
    found = compare_runs(after, before, _qrels(data, after))
    values = found.measures[MEASURE]
    p = 1.0 if values.p_t_test is None else values.p_t_test
    return Comparison(values.baseline, values.mean, found.n_queries, p)


def embedder_run(
    data: TrainingData, embedder: Embedder, query_ids: Sequence[str], *, vectors: FloatArray | None = None
) -> Run:
    """All passages ranked by their cosine for each query."""
    rows = encode_passages(data, embedder) if vectors is None else vectors
    queries = embedder.embed_queries([data.queries[key] for key in query_ids])
    depth = DEPTH * PER_OWNER
    return {
        key: _owners(data, rank_passages(rows @ query, depth)) for key, query in zip(query_ids, queries, strict=True)
    }


def first_stage_run(data: TrainingData, found: Mapping[str, Candidates]) -> Run:
    """The candidates as the first stage ranked them."""
    return {key: _owners(data, candidates.passages) for key, candidates in found.items()}


def rerank_scores(
    data: TrainingData,
    found: Mapping[str, Candidates],
    reranker: Reranker,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, FloatArray]:
    """What a reranker says of each query's candidates, in their order.

    It reads passages alone, as in training: made of an index, queries are titles and headings, which those read with a
    passage in a search would answer by themselves.
    """
    if isinstance(reranker, LateInteraction):
        return _late_scores(data, found, reranker, progress)
    scores = {}
    for done, (key, candidates) in enumerate(found.items(), start=1):
        scores[key] = reranker.score(data.queries[key], [data.texts[position] for position in candidates.passages])
        if progress is not None:
            progress(done, len(found))
    return scores


def _late_scores(
    data: TrainingData,
    found: Mapping[str, Candidates],
    reranker: LateInteraction,
    progress: Callable[[int, int], None] | None,
) -> dict[str, FloatArray]:
    """The same, reading each passage once, as most are candidates of many queries."""
    places: dict[int, list[tuple[int, int]]] = {}  # passage to (query, place among its candidates)
    for number, candidates in enumerate(found.values()):
        for place, passage in enumerate(candidates.passages):
            places.setdefault(passage, []).append((number, place))
    scores = [np.empty(len(candidates.passages), dtype=np.float32) for candidates in found.values()]
    texts = [data.texts[passage] for passage in places]
    wanted = [[number for number, _ in of_passage] for of_passage in places.values()]
    said = reranker.score_by_text([data.queries[key] for key in found], texts, wanted)
    for done, (of_passage, values) in enumerate(zip(places.values(), said, strict=True), start=1):
        for (number, place), value in zip(of_passage, values.tolist(), strict=True):
            scores[number][place] = value
        if progress is not None:
            progress(done, len(places))
    return dict(zip(found, scores, strict=True))


def blended_run(
    data: TrainingData, found: Mapping[str, Candidates], scores: Mapping[str, FloatArray], weight: float, join: Join
) -> Run:
    """The candidates of each query ranked as `join` says; ties keep the first stage's order."""
    run = {}
    for key, candidates in found.items():
        order = np.argsort(-join(candidates, scores[key], weight), kind="stable").tolist()
        run[key] = _owners(data, [candidates.passages[i] for i in order])
    return run


def join_cross_encoder(candidates: Candidates, scores: FloatArray, weight: float) -> FloatArray:
    """What a searcher ranks by when a cross-encoder has read the candidates."""
    return blend(candidates.scores, scores.tolist(), first_stage_weight=weight)


def join_late_interaction(candidates: Candidates, scores: FloatArray, weight: float) -> FloatArray:
    """What a searcher ranks by when late interaction has read them."""
    mean = weight * np.asarray(candidates.scores) + (1.0 - weight) * scores
    return np.asarray(smoothed(mean, candidates.vectors), dtype=np.float32)


def cross_fitted(
    data: TrainingData, found: Mapping[str, Candidates], scores: Mapping[str, FloatArray], join: Join, *, seed: int
) -> tuple[Run, float]:
    """(blended run, weight of the first stage), without a query having a say in its own weight.

    The queries are halved at random; each half is ranked with the weight that is best for the other. The weight given
    back is the best for all of them, to be used from now on.
    """
    runs = {weight: blended_run(data, found, scores, weight, join) for weight in WEIGHTS}
    qrels = _qrels(data, found)
    values = {weight: measure(run, qrels)[MEASURE] for weight, run in runs.items()}

    def best(keys: Sequence[str]) -> float:
        """The best mean; among equals the first stage counts more."""
        return max(WEIGHTS, key=lambda weight: (round(float(np.mean([values[weight][k] for k in keys])), 9), weight))

    keys = sorted(found)
    order = [keys[i] for i in np.random.default_rng([seed, 3]).permutation(len(keys)).tolist()]
    halves = (order[::2], order[1::2] or order[::2])
    chosen = {key: best(other) for half, other in (halves, halves[::-1]) for key in half}
    return {key: runs[chosen[key]][key] for key in keys}, best(keys)


def _owners(data: TrainingData, passages: Sequence[int]) -> list[tuple[str, float]]:
    """(owner, score) of a ranking of passages, each owner once, where its first passage stands."""
    owners = dict.fromkeys(data.owners[position] for position in passages)
    return [(owner, -float(place)) for place, owner in enumerate(owners)][:DEPTH]


def _qrels(data: TrainingData, keys: Mapping[str, Any]) -> Qrels:
    return {key: data.qrels[key] for key in keys}
