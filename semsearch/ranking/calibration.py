"""From scores to the probability that a passage is relevant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semsearch.types import Scores

__all__ = ["CALIBRATIONS", "NOTHING_RELEVANT", "Calibration"]

# A best hit less probable than this says that the index holds no answer: so are, over the sets that probabilities were
# fitted on, all nonsense queries, 93 to 95 % of those off topic, and 2 % of those with an answer.
NOTHING_RELEVANT = 0.08


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic regression on what a hit's scores tell: log odds = intercept + sum of weight times feature.

    Attributes:
        intercept: log odds where all features are 0.
        dense: weight of the cosine of query and passage.
        coverage: weight of the share, by inverse document frequency, of the query's terms that the passage holds.
        log_rank: weight of the logarithm of the rank, from 1.
        rerank: weight of the mean cosine of late interaction; None where hits are not reranked.
        unread: the mean cosine that is taken for a hit which the reranker had no time for.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """

    intercept: float
    dense: float
    coverage: float
    log_rank: float
    rerank: float | None = None
    unread: float = 0.0

    def probability(self, rank: int, coverage: float, scores: Scores) -> float | None:
        """P(relevant), in (0, 1), of the hit at a rank, from 1; None where there is no cosine."""
        if scores.dense is None:
            return None
        odds = self.intercept + self.dense * scores.dense + self.coverage * coverage + self.log_rank * math.log(rank)
        if self.rerank is not None:
            odds += self.rerank * (self.unread if scores.rerank is None else scores.rerank)
        return 1.0 / (1.0 + math.exp(-min(max(odds, -700.0), 700.0)))


# By SHA-256 of the bi-encoder's weights; then with late interaction and without. Fitted by benchmarks/calibration.py.
CALIBRATIONS: Mapping[str, tuple[Calibration, Calibration]] = {
    # all-MiniLM-L6-v2
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": (
        Calibration(intercept=-7.1909, dense=4.3861, coverage=1.4876, log_rank=-0.1273, rerank=5.1902, unread=0.4053),
        Calibration(intercept=-6.1118, dense=6.491, coverage=3.4801, log_rank=-0.1031),
    ),
}
