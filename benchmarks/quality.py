"""nDCG@10 of all collections under SEMSEARCH_SHARED, by ranking: words, meaning, both, both and reranked, and tuned.

With `--tuned` also what `semsearch tune` makes of the last from the documents alone, without judgments; that takes
minutes a collection. `semsearch evaluate` gives the other figures one by one. Encoding the collections the first time
takes minutes, too.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping

import _quality
import _report

from semsearch import Searcher, load_embedder
from semsearch.evaluation import (
    Collection,
    document_ranking,
    evaluate,
    index_collection,
    judged_queries,
    read_collection,
)
from semsearch.evaluation.retrieval import collection_path
from semsearch.search_options import RankingOptions
from semsearch.tuning import reset_plan, tune

COLLECTIONS = ("cisi", "cosqa-code", "cranfield", "med", "msmarco-sample", "nfcorpus", "npl", "time", "adi", "drcd-zh")
N_MEAN = 8  # the first of them make the mean
MAX_QUERIES = 500
RANKINGS: dict[str, RankingOptions] = {
    "BM25": {"mode": "lexical", "rerank": False},
    "dense": {"mode": "dense", "rerank": False},
    "hybrid": {"mode": "hybrid", "rerank": False},
    "hybrid, reranked": {"mode": "hybrid", "rerank": True},
}


def measured(collection: Collection, searcher: Searcher) -> dict[str, object]:
    """A row of the table."""
    row: dict[str, object] = {"collection": collection.name, "queries": len(asked(collection))}
    row |= {name: ndcg(collection, searcher, options) for name, options in RANKINGS.items()}
    if "--tuned" in sys.argv:
        tuned(collection, searcher, row)
    print(row, file=sys.stderr, flush=True)
    return row


def asked(collection: Collection) -> dict[str, Mapping[str, int]]:
    """Judgments of at most MAX_QUERIES queries."""
    keys = judged_queries(collection.qrels)
    random.Random(1).shuffle(keys)
    return {key: collection.qrels[key] for key in keys[:MAX_QUERIES]}


def ndcg(collection: Collection, searcher: Searcher, options: RankingOptions) -> float:
    """Mean nDCG@10 of a ranking."""

    def search(query: str, k: int) -> list[tuple[str, float]]:
        return document_ranking(searcher, query, k, **options)

    return evaluate(search, collection.queries, asked(collection)).measures["nDCG@10"]


def tuned(collection: Collection, searcher: Searcher, row: dict[str, object]) -> None:
    """Add the column of the plan that is chosen without judgments: the one before where that is the default."""
    try:
        is_new = tune(searcher.path, embedder=searcher.embedder).is_better
        row["tuned"] = ndcg(collection, searcher, {"mode": "hybrid"}) if is_new else row["hybrid, reranked"]
    finally:
        reset_plan(searcher.path)


def main() -> None:
    data = _quality.shared_data()
    if data is None:
        print("skipped: SEMSEARCH_SHARED does not name the folder with the evaluation data", file=sys.stderr)
        return
    embedder = load_embedder()
    rows = []
    for name in COLLECTIONS:
        collection = read_collection(data / "beir" / name)
        index_collection(collection, embedder)
        with Searcher.open(collection_path(collection, embedder)) as searcher:
            rows.append(measured(collection, searcher))
    mean: dict[str, object] = {"collection": f"mean of the first {N_MEAN}", "queries": None}
    for name in list(rows[0])[2:]:
        mean[name] = sum(float(row[name]) for row in rows[:N_MEAN]) / N_MEAN  # type: ignore[arg-type]
    _report.write("quality", [*rows[:N_MEAN], mean, *rows[N_MEAN:]], measure="nDCG@10", split="test")


if __name__ == "__main__":
    main()
