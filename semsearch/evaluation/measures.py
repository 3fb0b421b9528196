"""Measures of ranked documents against judgments; the numbers are ir-measures', the order of ties is ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semsearch.errors import InvalidInput, MissingExtra
from semsearch.evaluation.collections import MAX_NAMED, Qrels

__all__ = [
    "DEPTH",
    "MEASURES",
    "Evaluation",
    "Run",
    "Search",
    "check_measures",
    "evaluate",
    "judged_queries",
    "measure",
]

Search = Callable[[str, int], Sequence[tuple[str, float]]]  # (query, k) to at most k (document id, score), best first
Run = Mapping[str, Sequence[tuple[str, float]]]  # query id to (document id, score), best first

DEPTH = 100  # documents a query that are ranked and measured
# Names shown to ir-measures' own. MAP is that of the ranking's first DEPTH documents, since there is no more of it.
MEASURES = {
    "nDCG@10": "nDCG@10",
    "Recall@100": f"R@{DEPTH}",
    "MRR@10": "RR@10",
    "MAP": f"AP@{DEPTH}",
    "success@1": "Success@1",
    "success@5": "Success@5",
    "success@10": "Success@10",
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a search answered queries.

    Attributes:
        measures: mean over the queries, by name.
        by_query: the value for each query, by name and query id.
        run: what was found, best first, at most DEPTH documents a query.
        elapsed_s: time spent searching.
    """

    measures: Mapping[str, float]
    by_query: Mapping[str, Mapping[str, float]]
    run: Run
    elapsed_s: float


def evaluate(
    search: Search,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask a search every query that has a relevant document, and measure what it answers.

    Args:
        search: any function of (query, k) that gives at most k (document id, score), best first. Its order counts,
            among equal scores too; of a document that occurs twice the first place counts.
        queries: text by query id; those without a relevant document are not asked.
        qrels: grades by query id and document id; relevant from 1, and nDCG takes the grade as gain.
        progress: called with the number of queries done and of all, after each.

    Returns:
        Means over the queries of MEASURES, each in [0, 1]; a query without answers counts as 0.

    Raises:
        InvalidInput: nothing is judged relevant, or the text of a judged query is missing.
        MissingExtra: ir-measures is not installed.
    """
    check_measures()
    asked = judged_queries(qrels)
    missing = [query_id for query_id in asked if query_id not in queries]
    if missing:
        raise InvalidInput(
            f"{len(missing)} of {len(asked)} judged queries have no text, such as {', '.join(missing[:MAX_NAMED])}; "
            "add them to the queries, or drop their judgments"
        )
    run: dict[str, list[tuple[str, float]]] = {}
    elapsed_s = 0.0
    for n_done, query_id in enumerate(asked, start=1):
        start = time.perf_counter()
        found = search(queries[query_id], DEPTH)
        elapsed_s += time.perf_counter() - start
        best: dict[str, float] = {}
        for document_id, score in found:
            best.setdefault(document_id, float(score))
        run[query_id] = list(best.items())[:DEPTH]
        if progress is not None:
            progress(n_done, len(asked))
    by_query = measure(run, qrels)
    means = {name: sum(values.values()) / len(values) for name, values in by_query.items()}
    return Evaluation(means, by_query, run, elapsed_s)


def measure(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """Values of MEASURES by name and query id, for every query with a relevant document; 0 for one the run lacks.

    Raises:
        InvalidInput: nothing is judged relevant.
        MissingExtra: ir-measures is not installed.
    """
    known = check_measures()
    asked = judged_queries(qrels)
    # trec_eval sorts by score again, and ties by id: scores that fall from rank to rank keep the run's own order.
    ranked = {
        query_id: {document_id: float(-rank) for rank, (document_id, _) in enumerate(run.get(query_id, ())[:DEPTH])}
        for query_id in asked
    }
    wanted = {known.parse_measure(theirs): name for name, theirs in MEASURES.items()}
    values = {name: dict.fromkeys(asked, 0.0) for name in MEASURES}
    for found in known.iter_calc(list(wanted), {query_id: dict(qrels[query_id]) for query_id in asked}, ranked):
        values[wanted[found.measure]][found.query_id] = float(found.value)
    return values


def judged_queries(qrels: Qrels) -> list[str]:
    """The queries with a relevant document, in order.

    Raises:
        InvalidInput: there is none.
    """
    asked = [query_id for query_id, grades in qrels.items() if any(grade > 0 for grade in grades.values())]
    if not asked:
        raise InvalidInput("no query has a document judged relevant, with a grade of 1 or more")
    return asked


def check_measures() -> Any:
    """The library that measures.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtra("ir-measures, which measures rankings,", "eval") from error
    return ir_measures
