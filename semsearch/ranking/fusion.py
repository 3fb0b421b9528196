"""One ranking from two: normalised scores added, not ranks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from semsearch.errors import InvalidInput

__all__ = ["DENSE_WEIGHT", "ScoreArray", "dense_weight", "fuse", "meaning_and_words", "ranked"]

ScoreArray = npt.NDArray[np.float64]

# Mean nDCG@10 over seven sets of training and development queries: .679 at 0.85, .678 at 0.8 and .676 at 0.9. Of these
# 0.85 keeps the hybrid nearest to the better leg where one is poor (questions for code, short answers).
DENSE_WEIGHT = 0.85
BLIND_SHARE = 0.3  # share of unknown tokens in a query from which its vector says nothing


def dense_weight(unknown_share: float, most: float = DENSE_WEIGHT) -> float:
    """Weight of the dense leg for a query, less the more of its tokens the model's vocabulary does not hold.

    Args:
        unknown_share: unknown tokens of all tokens of the query, in [0, 1].
        most: the weight where all are known, in [0, 1].

    Returns:
        In [0, most]; 0 from BLIND_SHARE on, where only the words themselves can be matched.
    """
    return most * max(0.0, 1.0 - unknown_share / BLIND_SHARE)


def meaning_and_words(dense: ScoreArray, lexical: ScoreArray, *, weight: float) -> tuple[ScoreArray, ScoreArray]:
    """What each leg adds to the fused score: `weight * max(0, cosine)` and `(1 - weight) * bm25 / best bm25`.

    Args:
        dense: (n,) cosines, in [-1, 1]; NaN, here and below, where there is no score, which adds 0.
        lexical: (n,) BM25 scores, >= 0.
        weight: of the dense leg, in [0, 1].

    Returns:
        Two of (n,), whose sum lies in [0, 1].

    Raises:
        InvalidInput: weight outside [0, 1].

    Source: a convex combination of scores, as in Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid
        Retrieval", ACM TOIS 42 (1), 2023, doi:10.1145/3596512; cosine needs no scaling, BM25 is scaled by its maximum.
    """
    if not 0.0 <= weight <= 1.0:
        raise InvalidInput(f"the weight of the dense leg must lie in [0, 1], not {weight}")
    said = np.where(np.isnan(lexical), 0.0, lexical)
    best = float(said.max(initial=0.0))
    scale = (1.0 - weight) / best if best > 0 else 0.0
    return weight * np.where(dense > 0, dense, 0.0), scale * said


def fuse(dense: Mapping[int, float], lexical: Mapping[int, float], *, weight: float) -> list[tuple[int, float]]:
    """Rank ids by the sum of `meaning_and_words`; an id that a leg lacks gets 0 from it.

    Args:
        dense: cosines by id, in [-1, 1].
        lexical: BM25 scores by id, >= 0.
        weight: of the dense leg, in [0, 1].

    Returns:
        (id, score in (0, 1]), best first, ties to the smaller id; ids for which neither leg speaks are left out.

    Raises:
        InvalidInput: weight outside [0, 1].
    """
    ids = list(dense.keys() | lexical.keys())
    legs = (np.array([leg.get(i, np.nan) for i in ids], dtype=np.float64) for leg in (dense, lexical))
    meaning, words = meaning_and_words(*legs, weight=weight)
    return ranked({i: score for i, score in zip(ids, (meaning + words).tolist(), strict=True) if score > 0})


def ranked(scores: Mapping[int, float]) -> list[tuple[int, float]]:
    """(id, score), best first, ties to the smaller id."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
