"""Fits the probabilities of hits on training queries, and checks them on collections that took no part.

Reads training pairs and collections under SEMSEARCH_SHARED. What it fits stands in `semsearch/ranking/calibration.py`,
where it has to be copied to. Beside the expected calibration error stand the shares of nonsense, off-topic and
answerable queries whose best hit is less probable than the limit below which nothing is shown.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import _quality
import _report
import numpy as np

from semsearch import Document, Searcher, build_index, load_embedder
from semsearch.evaluation import index_collection, judged_queries, read_collection
from semsearch.evaluation.retrieval import collection_path
from semsearch.ranking.calibration import NOTHING_RELEVANT
from semsearch.types import Hit

# Sets whose judgments name all answers that are known give hits and misses. Of sets that name one answer where there
# may be many, a hit that is not judged is as likely an answer that nobody wrote down: they are asked only what they
# have nothing on.
COMPLETE = ("nfcorpus:train", "nfcorpus:dev", "climatefever")
ONE_ANSWER = ("cosqa-code:dev", "squad", "medquad", "pubmedqa", "covidfaq", "wikiqa", "trecqa")
CHECKED = ("cisi", "cosqa-code", "cranfield", "med", "msmarco-sample", "nfcorpus", "npl", "time")
N_QUERIES = 60  # of each, at most
N_NONSENSE = 16
N_PASSAGES = 3_000  # of a set of pairs
K = 10
BINS = 10
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    "purple", "lantern", "gravel", "sonata", "kettle", "umbrella", "tractor", "velvet", "comet", "sandwich", "harbor",
    "pickle", "violin", "glacier", "marble", "turnip", "zebra", "carousel", "anvil", "biscuit", "feather", "trombone",
    "cactus", "pillow", "wagon",
]  # fmt: skip
FILLER = ["asdf", "qwer", "zxcv", "lorem", "blah", "foo", "xyzzy", "hjkl", "1234", "wibble", "frobnicate"]
OFF_TOPIC = (
    "recipe for chocolate lasagna", "who won the football match last night", "cheap flights to lisbon in october",
    "how tall is the eiffel tower", "best sneakers for running marathons", "how to train a puppy not to bark",
    "price of a used piano", "weather in oslo tomorrow", "how to knit a scarf", "poker hand rankings",
    "horoscope for leo this week", "how to repair a leaking faucet", "tokyo subway map",
    "guitar chords for beginners", "movie with a talking donkey",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """Hits of one query: rows of features, which of them are relevant, and what kind of query it was."""

    kind: str
    features: list[list[float]]
    relevant: list[bool]


def nonsense(rng: random.Random) -> Iterator[str]:
    """Made-up words, words that do not belong together, keyboard noise and filler, in turn."""
    while True:
        yield " ".join("".join(rng.choices(LETTERS, k=rng.randint(4, 9))) for _ in range(rng.randint(2, 5)))
        yield " ".join(rng.sample(WORDS, rng.randint(3, 6)))
        yield "".join(rng.choices("qwertyuiopasdfghjkl;,./", k=rng.randint(8, 25)))
        yield " ".join(rng.choices(FILLER, k=rng.randint(3, 6)))


def pairs(data: Path, name: str) -> tuple[Path, dict[str, str], dict[str, dict[str, int]]]:
    """An index of the passages of training pairs, with queries and judgments."""
    lines = gzip.decompress((data / "train" / f"{name}.jsonl.gz").read_bytes()).decode("utf-8").split("\n")
    rows = [row for row in map(json.loads, filter(None, lines)) if row.get("lang", "en") == "en"]
    random.Random(7).shuffle(rows)
    ids: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    wanted = dict.fromkeys(row["query"] for row in rows)
    asked = set(list(wanted)[: 3 * N_QUERIES])
    for row in rows:
        if row["query"] in asked:
            judged.setdefault(row["query"], {})[ids.setdefault(row["positive"], str(len(ids)))] = 1
    for row in rows:
        for text in (row["positive"], *row.get("negatives", ())):
            if len(ids) < N_PASSAGES:
                ids.setdefault(text, str(len(ids)))
    index = _report.RESULTS.parent / "cache" / f"pairs-{name}"
    build_index([Document(id=key, text=text) for text, key in ids.items()], index=index)
    return index, {query: query for query in judged}, judged


def collection(data: Path, name: str, split: str) -> tuple[Path, Mapping[str, str], Mapping[str, Mapping[str, int]]]:
    """The cached index of a collection, with queries and judgments."""
    found, embedder = read_collection(data / "beir" / name, split=split), load_embedder()
    index_collection(found, embedder)
    return collection_path(found, embedder), found.queries, found.qrels


def features(hit: Hit, coverage: float, *, rerank: bool) -> list[float]:
    """In the order of `Calibration`: cosine, coverage, logarithm of the rank, late interaction."""
    assert hit.scores.dense is not None
    read = [] if not rerank else [hit.scores.rerank if hit.scores.rerank is not None else math.nan]
    return [hit.scores.dense, coverage, math.log(hit.rank), *read]


def ask(data: Path, name: str, *, rerank: bool) -> list[Asked]:
    """What is found for queries of a set, for nonsense, and for what it has nothing on; kept for the next run."""
    kept = _report.RESULTS.parent / "cache" / f"asked-{name.replace(':', '-')}-{'reranked' if rerank else 'plain'}.json"
    if kept.exists():
        return [Asked(**one) for one in json.loads(kept.read_text())]
    collection_name, _, split = name.partition(":")
    if (data / "beir" / collection_name).is_dir():
        index, queries, qrels = collection(data, collection_name, split or "test")
    else:
        index, queries, qrels = pairs(data, name)
    rng = random.Random(1)
    judged = sorted(judged_queries(qrels))
    rng.shuffle(judged)
    asked = [("answerable", queries[key], qrels[key]) for key in judged[:N_QUERIES]]
    made_up = nonsense(rng)
    asked += [("nonsense", next(made_up), {}) for _ in range(N_NONSENSE)]
    asked += [("off topic", text, {}) for text in OFF_TOPIC]
    found = []
    with Searcher.open(index) as searcher:
        for kind, text, grades in asked:
            hits = searcher.search(text, k=K, per_document=1, fold=False, rerank=rerank)
            if not hits:
                continue
            with searcher._index.state() as state:
                coverage = state.lexical.coverage(text, [hit.chunk.id for hit in hits])
            rows = [features(hit, share, rerank=rerank) for hit, share in zip(hits, coverage, strict=True)]
            found.append(Asked(kind, rows, [grades.get(hit.document.id, 0) > 0 for hit in hits]))
    print(name, len(found), file=sys.stderr, flush=True)
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps([asdict(one) for one in found]))
    return found


def calibration_error(probabilities: np.ndarray, relevant: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = [
        np.mean(bins == b) * abs(probabilities[bins == b].mean() - relevant[bins == b].mean()) for b in np.unique(bins)
    ]
    return float(sum(gaps))


def fit(sets: Mapping[str, list[Asked]]) -> tuple[list[float], float, float]:
    """Weights, intercept and the mean of late interaction; every query of a set counts the same."""
    from sklearn.linear_model import LogisticRegression

    rows, relevant, weights = [], [], []
    for name, asked in sets.items():
        for one in asked:
            if name in COMPLETE or one.kind != "answerable":
                rows += one.features
                relevant += one.relevant
                weights += [1 / len(asked) / len(one.features)] * len(one.features)
    x = np.array(rows)
    unread = float(np.nanmean(x[:, -1]))
    x = np.where(np.isnan(x), unread, x)
    model = LogisticRegression(C=1e4, max_iter=1_000)
    model.fit(x, np.array(relevant), sample_weight=np.array(weights) * len(weights) / sum(weights))
    return [float(w) for w in model.coef_[0]], float(model.intercept_[0]), unread


def main() -> None:
    data = _quality.shared_data()
    if data is None:
        print("skipped: SEMSEARCH_SHARED does not name the folder with the evaluation data", file=sys.stderr)
        return
    rows: list[dict[str, object]] = []
    for rerank in (True, False):
        coefficients, intercept, unread = fit(
            {name: ask(data, name, rerank=rerank) for name in (*COMPLETE, *ONE_ANSWER)}
        )
        probabilities: dict[str, list[float]] = {"answerable": [], "nonsense": [], "off topic": []}
        best: dict[str, list[float]] = {kind: [] for kind in probabilities}
        relevant: list[bool] = []
        for name in CHECKED:
            for one in ask(data, name, rerank=rerank):
                x = np.array(one.features)
                odds = intercept + np.where(np.isnan(x), unread, x) @ np.array(coefficients)
                p = (1 / (1 + np.exp(-odds))).tolist()
                probabilities[one.kind] += p
                best[one.kind].append(p[0])
                if one.kind == "answerable":
                    relevant += one.relevant
        below = {kind: float(np.mean(np.array(values) < NOTHING_RELEVANT)) for kind, values in best.items()}
        rows.append(
            {
                "ranking": "reranked" if rerank else "not reranked",
                "calibration error": calibration_error(np.array(probabilities["answerable"]), np.array(relevant)),
                "nonsense not shown": below["nonsense"],
                "off topic not shown": below["off topic"],
                "answerable not shown": below["answerable"],
                "fitted": {
                    "intercept": round(intercept, 4),
                    "dense": round(coefficients[0], 4),
                    "coverage": round(coefficients[1], 4),
                    "log_rank": round(coefficients[2], 4),
                    **({"rerank": round(coefficients[3], 4), "unread": round(unread, 4)} if rerank else {}),
                },
                "best": {kind: [round(v, 4) for v in values] for kind, values in best.items()},
            }
        )
    _report.write(
        "calibration", rows, fitted_on=[*COMPLETE, *ONE_ANSWER], checked_on=CHECKED, threshold=NOTHING_RELEVANT
    )


if __name__ == "__main__":
    main()
