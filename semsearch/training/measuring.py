"""Whether a model got better: nDCG@10 of the same queries before and after, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from semsearch.ranking.blending import blend
from semsearch.training.data import TrainingData
from semsearch.training.first_stage import Candidates, encode_passages, rank_passages
from semsearch.types import Embedder, FloatArray, Reranker

__all__ = [
    "Comparison",
    "best_weight",
    "blended_ndcg",
    "compare",
    "cross_fitted",
    "embedder_ndcg",
    "ndcg",
    "rerank_scores",
]

CUTOFF = 10
PER_OWNER = 20  # passages taken for each place of the ranking, as several may belong to one document
WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rankings of the same queries.

    Attributes:
        before, after: mean nDCG@10.
        n_queries: over so many queries.
        p: of a paired t-test, two-sided; 1 where the two are equal or there is but one query.
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


def compare(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """Compare two lists of values of the same queries, in the same order."""
    from scipy.stats import ttest_rel

    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    gains = new - old
    if len(gains) < 2 or not np.any(gains):
        p = 1.0
    elif np.ptp(gains) < 1e-12:  # every query gained the same: no variance to test against
        p = 0.0
    else:
        p = float(ttest_rel(new, old).pvalue)
    return Comparison(float(old.mean()), float(new.mean()), len(old), p)


def ndcg_at_10(ranking: Sequence[str], grades: Mapping[str, int]) -> float:
    """nDCG@10 of one ranking, with gains equal to the grades as trec_eval has it.

    Source: Järvelin and Kekäläinen, ACM TOIS 20 (4), 2002, doi:10.1145/582415.582418.
    """
    gains = [grades.get(owner, 0) for owner in ranking[:CUTOFF]]
    best = sorted(grades.values(), reverse=True)[:CUTOFF]
    ideal = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(best))
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains)) / ideal if ideal else 0.0


def ndcg(data: TrainingData, rankings: Mapping[str, Sequence[int]]) -> list[float]:
    """nDCG@10 of each query's ranking of passages, each owner counted once, where its first passage stands."""
    owners = {key: list(dict.fromkeys(data.owners[i] for i in passages)) for key, passages in rankings.items()}
    return [ndcg_at_10(found, data.qrels[key]) for key, found in owners.items()]


def embedder_ndcg(
    data: TrainingData, embedder: Embedder, query_ids: Sequence[str], *, vectors: FloatArray | None = None
) -> list[float]:
    """nDCG@10 of each query when all passages are ranked by their cosine."""
    rows = encode_passages(data, embedder) if vectors is None else vectors
    queries = embedder.embed_queries([data.queries[key] for key in query_ids])
    depth = CUTOFF * PER_OWNER
    return ndcg(data, {key: rank_passages(rows @ q, depth) for key, q in zip(query_ids, queries, strict=True)})


def rerank_scores(
    data: TrainingData,
    found: Mapping[str, Candidates],
    reranker: Reranker,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, FloatArray]:
    """What a reranker says of each query's candidates, in their order."""
    scores = {}
    for done, (key, candidates) in enumerate(found.items(), start=1):
        scores[key] = reranker.score(data.queries[key], [data.texts[position] for position in candidates.passages])
        if progress is not None:
            progress(done, len(found))
    return scores


def blended_ndcg(
    data: TrainingData, found: Mapping[str, Candidates], scores: Mapping[str, FloatArray], weight: float
) -> list[float]:
    """nDCG@10 of each query when its candidates are ranked by `blend`; ties keep the first stage's order."""
    rankings = {}
    for key, candidates in found.items():
        joined = blend(candidates.scores, scores[key].tolist(), first_stage_weight=weight)
        rankings[key] = [candidates.passages[i] for i in np.argsort(-joined, kind="stable").tolist()]
    return ndcg(data, rankings)


def best_weight(by_weight: Mapping[float, Sequence[float]], queries: Sequence[int]) -> float:
    """The weight of the first stage with the best mean over these queries, the larger one among equals."""
    return max(by_weight, key=lambda weight: (float(np.mean([by_weight[weight][i] for i in queries])), weight))


def cross_fitted(
    data: TrainingData, found: Mapping[str, Candidates], scores: Mapping[str, FloatArray], *, seed: int
) -> tuple[list[float], float]:
    """(nDCG@10 of each query, weight of the first stage), without a query having a say in its own weight.

    The queries are halved at random; each half is ranked with the weight that is best for the other. The weight given
    back is the best for all of them, to be used from now on.
    """
    by_weight = {weight: blended_ndcg(data, found, scores, weight) for weight in WEIGHTS}
    order = np.random.default_rng([seed, 3]).permutation(len(found)).tolist()
    halves = (order[::2], order[1::2] or order[::2])
    values = [0.0] * len(found)
    for half, other in (halves, halves[::-1]):
        weight = best_weight(by_weight, other)
        for i in half:
            values[i] = by_weight[weight][i]
    return values, best_weight(by_weight, order)
