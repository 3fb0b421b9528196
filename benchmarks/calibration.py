"""Fits the probabilities of hits on training queries, and checks them on collections that took no part.

Reads training pairs and collections under SEMSEARCH_SHARED. What it fits stands in `semsearch/ranking/calibration.py`,
where it has to be copied to. Beside the expected calibration error stand the shares of nonsense, off-topic and
answerable queries whose best hit is less probable than the limit below which nothing is shown, of the collections that
are checked and, as `left out`, the error and the mean log loss on sets that were fitted on, each of them left out in
turn: by these features were chosen, and by the queries that were fitted on the limit.
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
N_NEAR = 100  # of whose cosines the last is a feature
BINS = 10
HIDDEN_SHARE = 0.02
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


FEATURES = ("dense", "coverage", "log_rank", "hundredth", "rerank")
OF_FIRST_HIT = ("dense", "coverage", "rerank")  # by which it is told whether there is an answer


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


def features(hit: Hit, coverage: float, hundredth: float, *, rerank: bool) -> list[float]:
    """In the order of FEATURES, without late interaction where there is none."""
    assert hit.scores.dense is not None
    read = [] if not rerank else [hit.scores.rerank if hit.scores.rerank is not None else math.nan]
    return [hit.scores.dense, coverage, math.log(hit.rank), hundredth, *read]


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
            near = searcher.search(text, k=N_NEAR, mode="dense", per_document=0, fold=False, rerank=False)
            last = max(near[-1].scores.dense or 0.0, 0.0) * len(near) / N_NEAR if near else 0.0
            rows = [features(hit, share, last, rerank=rerank) for hit, share in zip(hits, coverage, strict=True)]
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


@dataclass(frozen=True)
class Fitted:
    """Weights of both regressions by feature, with their intercepts, and the mean of late interaction."""

    answered: dict[str, float]
    relevant: dict[str, float]
    unread: float

    def probabilities(self, asked: Asked) -> list[float]:
        x = np.array(asked.features)
        x = np.where(np.isnan(x), self.unread, x)
        names = FEATURES[: x.shape[1]]

        def of(weights: dict[str, float], rows: np.ndarray) -> np.ndarray:
            return weights["intercept"] + rows @ np.array([weights.get(name, 0.0) for name in names])

        odds = (of(self.answered, x[:1]), of(self.relevant, x))
        of_answer, of_hit = (1 / (1 + np.exp(-each)) for each in odds)
        return list((of_answer * of_hit).tolist())


def regression(x: np.ndarray, y: np.ndarray, weights: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Logistic regression on standardised features, with the penalty that is scikit-learn's default."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(max_iter=1_000)
    model.fit((x - mean) / deviation, y, sample_weight=weights * len(weights) / weights.sum())
    slopes = model.coef_[0] / deviation
    intercept = float(model.intercept_[0] - slopes @ mean)
    return {"intercept": intercept, **{name: float(w) for name, w in zip(names, slopes, strict=True)}}


def fit(sets: Mapping[str, list[Asked]]) -> Fitted:
    """Whether there is an answer, from the first hits of all queries; whether a hit is one, from those judged in full.

    Every query of a set counts the same.
    """
    judged = [one for name in COMPLETE if name in sets for one in sets[name] if one.kind == "answerable"]
    rows = np.array([row for one in judged for row in one.features])
    unread = float(np.nanmean(rows[:, -1]))
    rows = np.where(np.isnan(rows), unread, rows)
    weights = np.array([1 / len(one.features) for one in judged for _ in one.features])
    names = FEATURES[: rows.shape[1]]
    asked = [one for all_of_set in sets.values() for one in all_of_set]
    first = np.array([one.features[0] for one in asked])
    first = np.where(np.isnan(first), unread, first)[:, [name in OF_FIRST_HIT for name in names]]
    of_first = tuple(name for name in names if name in OF_FIRST_HIT)
    return Fitted(
        regression(first, np.array([one.kind == "answerable" for one in asked]), np.ones(len(asked)), of_first),
        regression(rows, np.array([answer for one in judged for answer in one.relevant]), weights, names),
        unread,
    )


def left_out(sets: Mapping[str, list[Asked]]) -> dict[str, float]:
    """Error and mean log loss on the judged sets, each fitted without any that shares its documents."""
    probabilities: list[float] = []
    relevant: list[bool] = []
    for collection in dict.fromkeys(name.partition(":")[0] for name in COMPLETE):
        without = {name: asked for name, asked in sets.items() if name.partition(":")[0] != collection}
        fitted = fit(without)
        for name in COMPLETE:
            for one in sets[name] if name not in without else ():
                if one.kind == "answerable":
                    probabilities += fitted.probabilities(one)
                    relevant += one.relevant
    p, y = np.array(probabilities), np.array(relevant)
    return {"error": calibration_error(p, y), "log loss": float(-np.log(np.where(y, p, 1 - p)).mean())}


def main() -> None:
    data = _quality.shared_data()
    if data is None:
        print("skipped: SEMSEARCH_SHARED does not name the folder with the evaluation data", file=sys.stderr)
        return
    rows: list[dict[str, object]] = []
    for rerank in (True, False):
        sets = {name: ask(data, name, rerank=rerank) for name in (*COMPLETE, *ONE_ANSWER)}
        fitted = fit(sets)
        probabilities: list[float] = []
        relevant: list[bool] = []
        best: dict[str, list[float]] = {"answerable": [], "nonsense": [], "off topic": []}
        for name in CHECKED:
            for one in ask(data, name, rerank=rerank):
                p = fitted.probabilities(one)
                best[one.kind].append(max(p))
                if one.kind == "answerable":
                    probabilities += p
                    relevant += one.relevant
        known = [one for asked in sets.values() for one in asked if one.kind == "answerable"]
        limit = np.quantile([max(fitted.probabilities(one)) for one in known], HIDDEN_SHARE)
        below = {kind: float(np.mean(np.array(values) < NOTHING_RELEVANT)) for kind, values in best.items()}
        rows.append(
            {
                "ranking": "reranked" if rerank else "not reranked",
                "calibration error": calibration_error(np.array(probabilities), np.array(relevant)),
                "nonsense not shown": below["nonsense"],
                "off topic not shown": below["off topic"],
                "answerable not shown": below["answerable"],
                "left out": left_out(sets),
                "limit that hides 2 % of the answerable that were fitted on": float(limit),
                "fitted": {
                    "answered": {name: round(w, 4) for name, w in fitted.answered.items()},
                    "relevant": {name: round(w, 4) for name, w in fitted.relevant.items()},
                    **({"unread": round(fitted.unread, 4)} if rerank else {}),
                },
                "best": {kind: [round(v, 4) for v in values] for kind, values in best.items()},
            }
        )
    _report.write(
        "calibration", rows, fitted_on=[*COMPLETE, *ONE_ANSWER], checked_on=CHECKED, threshold=NOTHING_RELEVANT
    )


if __name__ == "__main__":
    main()
