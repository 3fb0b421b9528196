"""The second stage: a reranker reads the first candidates again, as many as its time allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semsearch.encoders.late_interaction import LateInteraction
from semsearch.gathering import Query
from semsearch.ranking.blending import blend
from semsearch.ranking.candidates import Candidates
from semsearch.ranking.reranking import reranked
from semsearch.types import Reranker

__all__ = ["rescore"]


def rescore(
    reranker: Reranker, query: Query, candidates: Candidates, texts: Sequence[str], budget_s: float, share: float
) -> Candidates:
    """The candidates with the first reordered: as many, of these texts, as the reranker reads in the time it has."""
    if not texts:
        return candidates
    if hasattr(reranker, "n_within"):
        texts = texts[: reranker.n_within(query.text, texts, budget_s)]
    scores = reranker.score(query.text, texts)
    joined, first_stage = scores, candidates.fused[: len(texts)]
    if isinstance(reranker, LateInteraction):
        scale = first_stage.max() if query.mode == "lexical" else 1.0  # BM25 has no range of its own
        joined = reranker.join(first_stage / scale, scores, share)
    elif hasattr(reranker, "first_stage_weight"):
        joined = blend(first_stage.tolist(), scores.tolist(), first_stage_weight=reranker.first_stage_weight)
    return reranked(candidates, scores.astype(np.float64), joined.astype(np.float64))
