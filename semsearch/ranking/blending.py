"""A reranker's scores and the first stage's, joined to one ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.types import FloatArray

__all__ = ["blend"]


def blend(first_stage: Sequence[float], rerank: Sequence[float], *, first_stage_weight: float) -> FloatArray:
    """Scores to rank the candidates of one query by: `w * first stage + (1 - w) * reranker`, each scaled to [0, 1].

    Each list is scaled by its own least and greatest value, so neither range matters. At w = 0 the order is the
    reranker's, at w = 1 the first stage's.

    Args:
        first_stage: what the first stage ranked the candidates by.
        rerank: what the cross-encoder said of the same candidates, in the same order.
        first_stage_weight: w, in [0, 1].

    Returns:
        float32 (n,) in [0, 1]; larger is better.

    Raises:
        InvalidInput: a weight outside [0, 1], or lists of different lengths.
    """
    if not 0.0 <= first_stage_weight <= 1.0:
        raise InvalidInput(f"the weight of the first stage must lie in [0, 1], not {first_stage_weight}")
    if len(first_stage) != len(rerank):
        raise InvalidInput(f"{len(first_stage)} first-stage scores for {len(rerank)} reranker scores")
    joined = first_stage_weight * _scaled(first_stage) + (1.0 - first_stage_weight) * _scaled(rerank)
    return joined.astype(np.float32)


def _scaled(scores: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Scores from 0, the least, to 1; all 0 where they are equal."""
    values = np.asarray(scores, dtype=np.float64)
    span = float(np.ptp(values)) if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.zeros(len(values))
