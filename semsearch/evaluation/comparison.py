"""Two runs on the same queries: which is better, by how much, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semsearch.errors import InvalidInput
from semsearch.evaluation.collections import Qrels
from semsearch.evaluation.measures import MEASURES, Run, judged_queries, measure

__all__ = ["Comparison", "MeasureComparison", "QueryDifference", "compare"]

N_PERMUTATIONS = 10_000
SEED = 0
BLOCK_BYTES = 32_000_000  # of random signs drawn together
EQUAL = 1e-9  # values closer than this differ by rounding only
N_SHOWN = 5  # queries with the largest losses and wins
BY = "nDCG@10"  # whose differences tell which queries to look at


@dataclass(frozen=True, slots=True)
class MeasureComparison:
    """One measure of both runs.

    Attributes:
        baseline, mean: means over the queries of the baseline and of the run.
        difference: mean - baseline.
        p_t_test, p_randomisation: two-sided probability of a difference at least as large where there is none; None
            with fewer than two queries.
        wins, ties, losses: queries on which the run is better, equal, worse.
    """

    baseline: float
    mean: float
    difference: float
    p_t_test: float | None
    p_randomisation: float | None
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class QueryDifference:
    """A query's value of BY in both runs."""

    query: str
    baseline: float
    value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against a baseline.

    Attributes:
        n_queries: queries with a relevant document.
        n_missing: those that are not in the baseline at all, which counts as finding nothing.
        measures: by name.
        largest_losses, largest_wins: queries by difference in nDCG@10, the largest first.
    """

    n_queries: int
    n_missing: int
    measures: Mapping[str, MeasureComparison]
    largest_losses: Sequence[QueryDifference]
    largest_wins: Sequence[QueryDifference]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def compare(run: Run, baseline: Run, qrels: Qrels) -> Comparison:
    """Compare two runs on every query with a relevant document; a query that one lacks counts as 0 for it.

    Raises:
        InvalidInput: nothing is judged relevant, or the baseline holds none of the judged queries.
        MissingExtra: ir-measures is not installed.

    Source: the tests are those of Smucker, Allan and Carterette, CIKM 2007, doi:10.1145/1321440.1321528.
    """
    asked = judged_queries(qrels)
    n_missing = sum(query_id not in baseline for query_id in asked)
    if n_missing == len(asked):
        raise InvalidInput(
            f"the baseline holds none of the {len(asked)} judged queries, such as {asked[0]}; "
            "compare runs of one collection and split"
        )
    ours, theirs = measure(run, qrels), measure(baseline, qrels)
    new, old = (np.array([[values[m][q] for q in asked] for m in MEASURES]) for values in (ours, theirs))
    difference = new - old
    difference[np.abs(difference) < EQUAL] = 0.0
    t_tests, randomised = _t_tests(difference), _randomisation_tests(difference)
    measures = {
        name: MeasureComparison(
            baseline=float(old[i].mean()),
            mean=float(new[i].mean()),
            difference=float(difference[i].mean()),
            p_t_test=t_tests[i],
            p_randomisation=randomised[i],
            wins=int((difference[i] > 0).sum()),
            ties=int((difference[i] == 0).sum()),
            losses=int((difference[i] < 0).sum()),
        )
        for i, name in enumerate(MEASURES)
    }
    by = dict(zip(asked, difference[list(MEASURES).index(BY)].tolist(), strict=True))
    worst = sorted((q for q in asked if by[q] < 0), key=lambda q: by[q])[:N_SHOWN]
    best = sorted((q for q in asked if by[q] > 0), key=lambda q: -by[q])[:N_SHOWN]
    lost, won = ([QueryDifference(q, theirs[BY][q], ours[BY][q]) for q in found] for found in (worst, best))
    return Comparison(len(asked), n_missing, measures, lost, won)


def _t_tests(differences: npt.NDArray[np.float64]) -> list[float | None]:
    """Two-sided p of a paired t-test for each row of (measures, queries) differences."""
    from scipy import stats

    if differences.shape[1] < 2:
        return [None] * len(differences)
    with np.errstate(all="ignore"):  # equal differences have no variance: p is 0, and 1 where they are all 0
        found = [1.0 if not row.any() else float(stats.ttest_1samp(row, 0.0).pvalue) for row in differences]
    return list(found)


def _randomisation_tests(differences: npt.NDArray[np.float64]) -> list[float | None]:
    """Two-sided p for each row of (measures, queries) differences, by swapping the runs' values query by query.

    p = (1 + c) / (1 + n), c the number of n random assignments of signs with a mean at least as far from 0.
    """
    n_queries = differences.shape[1]
    if n_queries < 2:
        return [None] * len(differences)
    random = np.random.default_rng(SEED)
    observed = np.abs(differences.sum(axis=1)) - EQUAL
    n_block = max(1, BLOCK_BYTES // (8 * n_queries))
    counts = np.zeros(len(differences), dtype=np.int64)
    for first in range(0, N_PERMUTATIONS, n_block):
        shape = (min(n_block, N_PERMUTATIONS - first), n_queries)
        signs = random.integers(0, 2, size=shape, dtype=np.int8) * 2.0 - 1.0
        counts += (np.abs(signs @ differences.T) >= observed).sum(axis=0)
    return [float(p) for p in (1 + counts) / (1 + N_PERMUTATIONS)]
