"""From scores to the probability that a passage is relevant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semsearch.types import Scores

__all__ = ["CALIBRATIONS", "NOTHING_RELEVANT", "Calibration", "Odds"]

# A best hit less probable than this says that the index holds no answer. It hides less than 2 % of the queries with an
# answer in the sets that probabilities were fitted on; 0.126 would hide as many where hits are reranked, else 0.122.
NOTHING_RELEVANT = 0.11


@dataclass(frozen=True, slots=True)
class Odds:
    """Logistic regression: log odds = intercept + sum of weight times feature.

    Attributes:
        intercept: log odds where all features are 0.
        dense: weight of the cosine of query and passage.
        coverage: weight of the share, by inverse document frequency, of the query's terms that the passage holds.
        rerank: weight of the mean cosine of late interaction.
        log_rank: weight of the logarithm of the rank, from 1.
        hundredth: weight of the cosine of the index's hundredth vector: where many are as near, being near tells less.
    """

    intercept: float
    dense: float
    coverage: float
    rerank: float = 0.0
    log_rank: float = 0.0
    hundredth: float = 0.0

    def probability(self, dense: float, coverage: float, rerank: float, rank: int, hundredth: float) -> float:
        """In (0, 1)."""
        odds = self.intercept + self.dense * dense + self.coverage * coverage + self.rerank * rerank
        odds += self.log_rank * math.log(rank) + self.hundredth * hundredth
        return 1.0 / (1.0 + math.exp(-min(max(odds, -700.0), 700.0)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(relevant) = P(the index has an answer), by its first hit, times P(relevant | it has one).

    Attributes:
        answered: the first, fitted on whether a query was about what its index holds.
        relevant: the second, fitted on judged hits.
        unread: the mean cosine of late interaction that is taken for a hit which the reranker had no time for.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """

    answered: Odds
    relevant: Odds
    unread: float = 0.0

    def probabilities(
        self, hits: Sequence[Scores], coverage: Sequence[float], hundredth: float
    ) -> list[float] | list[None]:
        """P(relevant), in (0, 1), of the first hits of a query; None where they have no cosines.

        Args:
            hits: scores, best first.
            coverage: of each.
            hundredth: as in `Candidates`.
        """
        if any(scores.dense is None for scores in hits):
            return [None] * len(hits)
        features = [
            (float(scores.dense or 0.0), share, self.unread if scores.rerank is None else scores.rerank, rank)
            for rank, (scores, share) in enumerate(zip(hits, coverage, strict=True), 1)
        ]
        of_answer = self.answered.probability(*features[0], hundredth) if features else 0.0
        return [of_answer * self.relevant.probability(*of_hit, hundredth) for of_hit in features]


# By SHA-256 of the bi-encoder's weights; then with late interaction and without. Fitted by benchmarks/calibration.py.
CALIBRATIONS: Mapping[str, tuple[Calibration, Calibration]] = {
    # all-MiniLM-L6-v2
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": (
        Calibration(
            Odds(intercept=-10.9903, dense=12.0066, coverage=2.2366, rerank=11.6309),
            Odds(intercept=-4.0798, dense=5.7719, coverage=1.2156, rerank=2.8674, log_rank=-0.2253, hundredth=-5.0332),
            unread=0.5961,
        ),
        Calibration(
            Odds(intercept=-8.1645, dense=16.383, coverage=5.3738),
            Odds(intercept=-3.4243, dense=7.5736, coverage=2.2892, log_rank=-0.1923, hundredth=-6.277),
        ),
    ),
}
