"""The second stage: a reranker reads the first candidates again, as many as its time allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from semsearch.encoders.late_interaction import Kept, LateInteraction
from semsearch.gathering import Query
from semsearch.ranking.blending import blend
from semsearch.ranking.candidates import Candidates, ScoreArray
from semsearch.ranking.diversity import best_of_copies
from semsearch.ranking.reranking import late_parts, reranked
from semsearch.search_options import PER_DOCUMENT
from semsearch.types import Reranker

__all__ = ["rescore"]


def rescore(
    reranker: Reranker,
    query: Query,
    candidates: Candidates,
    texts: Sequence[str],
    budget_s: float,
    share: float,
    *,
    kept: Sequence[Kept | None] = (),
    per_document: int | None = 0,
) -> Candidates:
    """The candidates with the first reordered: as many, of these texts, as the reranker reads in the time it has.

    Of those that name each other as `duplicates` the one stays that it likes best; `per_document` (0 for no limit)
    rows of a document may, or, with None, more than PER_DOCUMENT where no copy is found elsewhere. `kept` is what late
    interaction knows of the texts.
    """
    if not texts:
        return candidates
    if isinstance(reranker, LateInteraction):
        texts = texts[: reranker.n_within(query.text, texts, budget_s, kept)]
        said = reranker.score(query.text, texts, kept[: len(texts)])
    else:
        if hasattr(reranker, "n_within"):
            texts = texts[: reranker.n_within(query.text, texts, budget_s)]
        said = reranker.score(query.text, texts)
    scores: ScoreArray = said.astype(np.float64)
    limit = PER_DOCUMENT if per_document is None else per_document
    candidates, scores = best_of_copies(candidates, scores, per_document=limit, fill=per_document is None)
    read = candidates.take_first(len(scores))
    parts: Mapping[str, ScoreArray] = {"reranker": scores}
    weight: float | None = getattr(reranker, "first_stage_weight", None)
    if isinstance(reranker, LateInteraction):
        share = share if weight is None else 1.0 - weight
        scale = float(read.fused.max()) if query.mode == "lexical" else 1.0  # BM25 has no range of its own
        parts = late_parts(read, scores, share, scale=scale)
    elif weight is not None:
        first_stage, answered = read.fused.tolist(), scores.tolist()
        joined = blend(first_stage, answered, first_stage_weight=weight).astype(np.float64)
        left = weight * blend(first_stage, answered, first_stage_weight=1.0).astype(np.float64)
        parts = {"first stage": left, "reranker": joined - left}
    return reranked(candidates, scores, parts)
