"""What is learnt from, in the order it is learnt: held-out queries set aside, hard negatives mined, rows drawn.

All epochs are drawn before training starts, so that a resumed run meets the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.training.data import TrainingData
from semsearch.training.first_stage import Candidates

__all__ = ["Example", "draw_examples", "hold_out", "mine_negatives", "nearest_positives"]

MAX_HELD_OUT = 300  # more tell little more, and each has to be ranked before and after
MARGIN = 0.95  # a candidate nearer to the query than this share of its best positive's cosine may be one itself
POOL = 30  # hardest negatives of a query that rows draw from


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a query, passages that answer it with their grades, and passages that do not; all by id or position."""

    query: str
    positives: list[int]
    grades: list[int]
    negatives: list[int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def hold_out(data: TrainingData, *, share: float, seed: int) -> tuple[list[str], list[str]]:
    """(ids to train on, ids held out): the queries divided at random; equal texts stay on one side.

    Args:
        data: queries and judgments.
        share: of the queries to hold out, at most MAX_HELD_OUT of them.
        seed: of the division.

    Raises:
        InvalidInput: fewer than two different queries, or a share outside (0, 1).
    """
    if not 0.0 < share < 1.0:
        raise InvalidInput(f"the held-out share is {share}; give one between 0 and 1, such as 0.1")
    by_text: dict[str, list[str]] = {}
    for key in sorted(data.queries):
        by_text.setdefault(" ".join(data.queries[key].casefold().split()), []).append(key)
    if len(by_text) < 2:
        raise InvalidInput(
            f"{data.source}: {len(by_text)} query is too few. Some are held out to see whether training helped, so at "
            "least 2 different ones are needed, and hundreds for a result that counts"
        )
    texts = sorted(by_text)
    order = np.random.default_rng([seed, 1]).permutation(len(texts)).tolist()
    n_held = min(max(1, round(share * len(texts))), MAX_HELD_OUT, len(texts) - 1)
    held = sorted(key for i in order[:n_held] for key in by_text[texts[i]])
    return sorted(set(data.queries) - set(held)), held


def mine_negatives(
    data: TrainingData, found: Mapping[str, Candidates], *, margin: float = MARGIN, pool: int = POOL
) -> dict[str, list[int]]:
    """The hardest passages that do not answer each query: those given as such first, then the first stage's best.

    Left out are passages judged relevant, and those so near to the query that nobody may have judged them yet: with a
    cosine above `margin` times that of the nearest relevant passage.
    """
    passages_of = data.passages_of()
    mined = {}
    for key, candidates in found.items():
        relevant = {position for owner in data.qrels[key] for position in passages_of.get(owner, ())}
        limit = margin * max((float(candidates.cosines[position]) for position in relevant), default=math.inf)
        given = [p for owner in data.negatives.get(key, ()) for p in passages_of.get(owner, ()) if p not in relevant]
        hard = [p for p in candidates.passages if p not in relevant and float(candidates.cosines[p]) <= limit]
        mined[key] = list(dict.fromkeys([*given, *hard]))[:pool]
    return mined


def nearest_positives(data: TrainingData, found: Mapping[str, Candidates]) -> dict[str, list[tuple[int, int]]]:
    """(passage, grade) of each judged owner of each query: of a document in several passages, the nearest one."""
    passages_of = data.passages_of()
    return {
        key: [
            (max(places, key=lambda p: (float(candidates.cosines[p]), -p)), grade)
            for owner, grade in sorted(data.qrels[key].items())
            if (places := passages_of.get(owner))
        ]
        for key, candidates in found.items()
    }


def draw_examples(
    positives: Mapping[str, Sequence[tuple[int, int]]],
    negatives: Mapping[str, Sequence[int]],
    *,
    relevant: Mapping[str, set[int]],
    n_passages: int,
    epochs: int,
    n_positives: int,
    n_negatives: int,
    seed: int,
) -> list[Example]:
    """Rows of all epochs in order: each query once an epoch, with fresh draws of its positives and negatives.

    Args:
        positives: (passage, grade) by query; a higher grade is drawn more often.
        negatives: mined passages by query; where they are too few, passages at random that are not relevant.
        relevant: every relevant passage of each query.
        n_passages: passages there are.
        epochs: times that each query is met.
        n_positives: of each row, at most.
        n_negatives: of each row, fewer only where there are no more passages.
        seed: of all draws.
    """
    rng = np.random.default_rng([seed, 2])
    keys = sorted(key for key in positives if positives[key])
    rows = []
    for _ in range(epochs):
        for number in rng.permutation(len(keys)).tolist():
            key = keys[number]
            grades = np.array([grade for _, grade in positives[key]], dtype=np.float64)
            n_drawn = min(n_positives, len(grades))
            drawn = rng.choice(len(grades), size=n_drawn, replace=False, p=grades / grades.sum()).tolist()
            pool = list(negatives.get(key, ()))
            wrong = [pool[i] for i in rng.permutation(len(pool))[:n_negatives].tolist()]
            wrong += _others(rng, n_negatives - len(wrong), n_passages, relevant[key] | set(wrong))
            rows.append(
                Example(key, [positives[key][i][0] for i in drawn], [positives[key][i][1] for i in drawn], wrong)
            )
    return rows


def _others(rng: np.random.Generator, n: int, n_passages: int, taken: set[int]) -> list[int]:
    """Up to n passages at random that are not taken."""
    n = min(n, n_passages - len(taken))
    if n <= 0:
        return []
    if n_passages < 4 * (len(taken) + n):
        free = sorted(set(range(n_passages)) - taken)
        return [free[i] for i in rng.permutation(len(free))[:n].tolist()]
    chosen: dict[int, None] = {}
    while len(chosen) < n:
        drawn = int(rng.integers(n_passages))
        if drawn not in taken:
            chosen[drawn] = None
    return list(chosen)
