"""How good is the search? Collections with judgments, measures, runs and their comparison."""

from __future__ import annotations

from semsearch.evaluation.collections import Collection, Qrels, read_collection, read_qrels, read_queries
from semsearch.evaluation.comparison import Comparison, MeasureComparison, QueryDifference, compare
from semsearch.evaluation.measures import (
    DEPTH,
    MEASURES,
    Evaluation,
    Run,
    Search,
    check_measures,
    evaluate,
    judged_queries,
    measure,
)
from semsearch.evaluation.retrieval import (
    JudgedNames,
    document_ranking,
    index_collection,
    judged_names,
    with_names,
)
from semsearch.evaluation.runs import read_run, write_run

__all__ = [
    "DEPTH",
    "MEASURES",
    "Collection",
    "Comparison",
    "Evaluation",
    "JudgedNames",
    "MeasureComparison",
    "Qrels",
    "QueryDifference",
    "Run",
    "Search",
    "check_measures",
    "compare",
    "document_ranking",
    "evaluate",
    "index_collection",
    "judged_names",
    "judged_queries",
    "measure",
    "read_collection",
    "read_qrels",
    "read_queries",
    "read_run",
    "with_names",
    "write_run",
]
