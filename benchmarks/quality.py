"""nDCG@10 of all collections under SEMSEARCH_SHARED, by ranking: words, meaning, both, both and reranked.

`semsearch evaluate` gives the same figures one by one. The collections are encoded the first time, which takes minutes.
"""

from __future__ import annotations

import random
import sys

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
from semsearch.searching import RankingOptions

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
    asked = judged_queries(collection.qrels)
    random.Random(1).shuffle(asked)
    qrels = {key: collection.qrels[key] for key in asked[:MAX_QUERIES]}
    row: dict[str, object] = {"collection": collection.name, "queries": len(qrels)}
    for name, options in RANKINGS.items():

        def search(query: str, k: int, options: RankingOptions = options) -> list[tuple[str, float]]:
            return document_ranking(searcher, query, k, **options)

        row[name] = evaluate(search, collection.queries, qrels).measures["nDCG@10"]
    print(row, file=sys.stderr, flush=True)
    return row


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
    mean |= {name: sum(float(row[name]) for row in rows[:N_MEAN]) / N_MEAN for name in RANKINGS}  # type: ignore[arg-type]
    _report.write("quality", [*rows[:N_MEAN], mean, *rows[N_MEAN:]], measure="nDCG@10", split="test")


if __name__ == "__main__":
    main()
