"""How much each part of the ranking counts: the defaults, or what was tuned for an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from semsearch.errors import InvalidInput
from semsearch.ranking.fusion import DENSE_WEIGHT

__all__ = ["DEFAULT_PLAN", "RERANK_SHARE", "RankingPlan"]

RERANK_SHARE = 0.5  # cosines of passages and of tokens have one range: their mean


@dataclass(frozen=True, slots=True)
class RankingPlan:
    """How a hybrid search ranks.

    Attributes:
        dense_weight: of the dense leg, in [0, 1], for a query whose tokens the model knows; 0 ranks by words only.
        feedback: whether the query moves towards the first passages.
        rerank: whether the index's own model reads the first passages again.
        rerank_share: of its answer in the score that they are then ranked by, in [0, 1]; the rest is the first stage's.
    """

    dense_weight: float = DENSE_WEIGHT
    feedback: bool = True
    rerank: bool = True
    rerank_share: float = RERANK_SHARE

    def __post_init__(self) -> None:
        if not 0.0 <= self.dense_weight <= 1.0 or not 0.0 <= self.rerank_share <= 1.0:
            raise InvalidInput(
                f"dense_weight = {self.dense_weight}, rerank_share = {self.rerank_share}: give numbers from 0 to 1"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> RankingPlan:
        """The plan that an index keeps, beside what is known of its tuning; the defaults where it keeps none."""
        kept = values or {}
        return cls(**{name: kept[name] for name in cls.__slots__ if name in kept})

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


DEFAULT_PLAN = RankingPlan()
