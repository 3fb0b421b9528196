"""The ranking plan of an index: chosen on queries with known answers, kept where surely better than the default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semsearch.encoders import comparable
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.errors import IndexIncompatible, InvalidInput
from semsearch.gathering import CANDIDATES
from semsearch.ranking.candidates import Candidates
from semsearch.ranking.diversity import choose
from semsearch.ranking.feedback import rank_hybrid
from semsearch.ranking.fusion import dense_weight
from semsearch.ranking.plan import DEFAULT_PLAN, RankingPlan
from semsearch.ranking.reranking import late_parts, reranked
from semsearch.reading import read_in_context
from semsearch.search_options import RERANK_DEPTH
from semsearch.searching import Searcher
from semsearch.store.files import index_path
from semsearch.store.writing import StoreWriter
from semsearch.training.data import TrainingData, read_index, read_judged_index
from semsearch.training.first_stage import Legs, both_legs, encode_passages
from semsearch.training.pseudo_queries import make_hidden_queries
from semsearch.types import Embedder, TokenEmbedder

__all__ = [
    "HIDDEN_MARGIN",
    "MIN_QUERIES",
    "TuneReport",
    "best_plan",
    "cross_validated",
    "interval_of_mean",
    "measure_plans",
    "ndcg",
    "reset_plan",
    "tune",
]

Values = npt.NDArray[np.float64]

MIN_QUERIES = 20  # four a fold; with fewer no interval excludes 0 but by luck
CUTOFF = 10  # nDCG@10
DENSE_WEIGHTS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # and the default
RERANK_SHARES = (0.25, 0.5, 0.75)
N_FOLDS = 5
N_REPEATS = 10  # of the division into folds, so that the outcome does not hang on one
N_RESAMPLES = 10_000
CONFIDENCE = 0.95
# What writers wrote favours words even where it is hidden. On nfcorpus the plan that is best for 100 hidden sentences
# (meaning 70 %) gains 0.022 on them and loses 0.004 on 60 questions of people, where the best counts words less: a
# precaution, from one collection.
HIDDEN_MARGIN = 0.03  # that the interval has to lie above without judgments


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What tuning found.

    Attributes:
        index: its folder.
        tuned_on: which queries, in words.
        n_queries, n_plans: how many of each were tried.
        plan: what searches are ranked by from now on (with `dry_run`, would be).
        is_better: whether that is another plan than the default, which is kept unless `interval` lies above 0, or
            above HIDDEN_MARGIN where nothing is judged.
        best: the plan with the highest mean on all the queries; `plan` if it is significantly better.
        default_ndcg: mean nDCG@10 of the default plan, in [0, 1].
        gain: over it, cross-validated: of plans that were chosen on other queries than those they are measured on.
        interval: of the gain, 95 %.
        fitted_gain: of `best`, on the queries it was chosen on, which promises too much.
        is_stored: whether the index was changed.
    """

    index: Path
    tuned_on: str
    n_queries: int
    n_plans: int
    plan: RankingPlan
    is_better: bool
    best: RankingPlan
    default_ndcg: float
    gain: float
    interval: tuple[float, float]
    fitted_gain: float
    is_stored: bool

    def as_dict(self) -> dict[str, Any]:
        """The object that `semsearch tune --json` prints."""
        values = {name: getattr(self, name) for name in self.__slots__}
        plans = {"plan": self.plan.as_dict(), "best": self.best.as_dict()}
        return {**values, **plans, "index": str(self.index), "interval": list(self.interval)}


def tune(
    index: str | Path = "default",
    *,
    queries: Path | None = None,
    qrels: Path | None = None,
    n_queries: int = 200,
    seed: int = 0,
    device: str = "auto",
    embedder: Embedder | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> TuneReport:
    """Choose how an index ranks, by queries with known answers, and keep it in the index where it is surely better.

    Documents are ranked by their best passage; the index's own model reads the first 30, on however slow a machine.

    Args:
        index: its name, or the path of its folder.
        queries: JSON lines with `_id` and `text`; without them, titles, headings and sentences of the documents are
            asked, each taken out of what it asks for.
        qrels: judgments, for `queries`: query id, document and grade between tabs.
        n_queries: how many at most, drawn at random.
        seed: of everything that is drawn.
        device: where the model runs.
        embedder: in place of the model the index names.
        dry_run: change nothing.
        progress: called with the number of queries done and of all.

    Raises:
        InvalidInput: there are too few queries, a file cannot be read, or no judged document is in the index.
        IndexNotFound, IndexIncompatible, IndexCorrupt, ModelError: as `Searcher.open` and its searches do.
        IndexLocked: another process is writing to the index.
    """
    if (queries is None) != (qrels is None):
        raise InvalidInput("queries and qrels belong together: give both files, or neither")
    path = index_path(index)
    with Searcher.open(path, device=device, embedder=embedder) as searcher:
        model = searcher.embedder
    if not dry_run:
        with StoreWriter.open(path):  # what cannot be written to is named before the work, not after it
            pass
    if queries is not None and qrels is not None:
        data = read_judged_index(path, queries, qrels, limit=n_queries, seed=seed)
    else:
        data = make_hidden_queries(read_index(path), n_queries=n_queries, seed=seed)
    if len(data.queries) < MIN_QUERIES:
        raise InvalidInput(
            f"{len(data.queries)} queries with a known answer are too few to tune by; {MIN_QUERIES} are needed, "
            f"and 100 tell more. They are those of {data.source}"
        )
    reranker = LateInteraction(model) if isinstance(model, TokenEmbedder) else None
    plans = _plans(with_reranker=reranker is not None)
    values = measure_plans(data, model, reranker, plans, progress=progress)
    differences = cross_validated(values, seed=seed)
    gain, interval = float(differences.mean()), interval_of_mean(differences, seed=seed)
    best = best_plan(values)
    is_better = best > 0 and interval[0] > (0.0 if queries is not None else HIDDEN_MARGIN)
    report = TuneReport(
        index=path,
        tuned_on=data.source,
        n_queries=len(values),
        n_plans=len(plans),
        plan=plans[best] if is_better else DEFAULT_PLAN,
        is_better=is_better,
        best=plans[best],
        default_ndcg=float(values[:, 0].mean()),
        gain=gain,
        interval=interval,
        fitted_gain=float((values[:, best] - values[:, 0]).mean()),
        is_stored=False,
    )
    return report if dry_run else replace(report, is_stored=_write_plan(path, _record(report), model))


def reset_plan(index: str | Path = "default") -> bool:
    """Let an index rank by the defaults again; tells whether it had a plan of its own.

    Raises:
        IndexNotFound: there is no such index.
        IndexLocked: another process is writing to it.
    """
    path = index_path(index)
    Searcher.open(path).close()  # so that none is made where there is none
    return _write_plan(path, None)


def measure_plans(
    data: TrainingData,
    embedder: Embedder,
    reranker: LateInteraction | None,
    plans: Sequence[RankingPlan],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Values:
    """nDCG@10 (n_queries, n_plans) of documents ranked as `Searcher` ranks them; each passage is read again once."""
    owners = list(dict.fromkeys(data.owners))
    number_of = {owner: number for number, owner in enumerate(owners)}
    documents = np.array([number_of[owner] for owner in data.owners], dtype=np.int64)
    query_ids = list(data.queries)
    values = np.empty((len(query_ids), len(plans)))
    vectors = encode_passages(data, embedder)
    texts = [read_in_context(text, context) for text, context in zip(data.texts, data.contexts, strict=True)]
    for row, (key, legs) in enumerate(both_legs(data, embedder, vectors, query_ids, n=2 * CANDIDATES)):
        legs = replace(legs, candidates=replace(legs.candidates, documents=documents[legs.candidates.ids]))
        grades = {number_of[owner]: grade for owner, grade in data.qrels[key].items()}
        rankings = _rankings(legs, plans, reranker, data.queries[key], texts)
        values[row] = [ndcg(ranking.documents.tolist(), grades) for ranking in rankings]
        if progress is not None:
            progress(row + 1, len(query_ids))
    return values


def _rankings(
    legs: Legs, plans: Sequence[RankingPlan], reranker: LateInteraction | None, query: str, texts: Sequence[str]
) -> list[Candidates]:
    """The first documents of one query by each plan."""
    first_stages = {}
    for key in {(plan.dense_weight, plan.feedback) for plan in plans}:
        weight = dense_weight(legs.unknown_share, key[0])
        fused = rank_hybrid(legs.candidates, legs.query, weight, feedback=key[1])
        first_stages[key], _ = choose(fused, RERANK_DEPTH, per_document=1)
    first_stage_of = [first_stages[plan.dense_weight, plan.feedback] for plan in plans]
    to_read = sorted({i for found in first_stages.values() for i in found.ids.tolist()})
    if reranker is None or not to_read or not dense_weight(legs.unknown_share):
        return first_stage_of
    read = dict(zip(to_read, reranker.score(query, [texts[i] for i in to_read]), strict=True))
    rankings = []
    for plan, found in zip(plans, first_stage_of, strict=True):
        scores = np.array([read[i] for i in found.ids.tolist()], dtype=np.float64)
        again = reranked(found, scores, late_parts(found, scores, plan.rerank_share)) if plan.rerank else found
        rankings.append(again)
    return rankings


def ndcg(ranking: Sequence[int], grades: Mapping[int, int]) -> float:
    """nDCG@10 of a ranking, with the grade as gain and 1 / log2(1 + rank) as discount; in [0, 1].

    Source: Jarvelin and Kekalainen, ACM TOIS 20 (4), 2002, doi:10.1145/582415.582418, as trec_eval computes it.
    """
    discounts = 1.0 / np.log2(np.arange(2, CUTOFF + 2))
    gained = np.array([grades.get(document, 0) for document in ranking[:CUTOFF]])
    possible = np.sort(np.array(list(grades.values())))[::-1][:CUTOFF]
    return float(gained @ discounts[: len(gained)] / (possible @ discounts[: len(possible)]))


def best_plan(values: Values) -> int:
    """The column with the highest mean; among equals the first, which is nearest to the default."""
    return int(np.argmax(values.mean(axis=0).round(9)))


def cross_validated(values: Values, *, seed: int) -> Values:
    """What each query gains over the default, (n_queries,), by plans that were chosen without it.

    The queries are divided at random into five folds; each is ranked by the plan that is best for the other four. A
    query's gain is the mean over ten such divisions.

    Args:
        values: (n_queries, n_plans) of a measure, the default plan first.
        seed: of the divisions.
    """
    rng = np.random.default_rng([seed, 1])
    gains = np.zeros(len(values))
    for _ in range(N_REPEATS):
        folds = rng.permutation(len(values)) % N_FOLDS
        for fold in range(N_FOLDS):
            held = folds == fold
            gains[held] += values[held, best_plan(values[~held])] - values[held, 0]
    return gains / N_REPEATS


def interval_of_mean(differences: Values, *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean, from 10,000 bootstrap samples of the queries.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    rng, n = np.random.default_rng([seed, 2]), len(differences)
    means = [float(differences[rng.integers(n, size=n)].mean()) for _ in range(N_RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return low, high


def _plans(*, with_reranker: bool) -> list[RankingPlan]:
    """All plans to try, the default first, then the nearer to it the earlier."""
    default = DEFAULT_PLAN
    shares = [default.rerank_share, *RERANK_SHARES] if with_reranker else [default.rerank_share]
    tried = {
        RankingPlan(weight, feedback, rerank, share if rerank else default.rerank_share)
        for weight in (default.dense_weight, *DENSE_WEIGHTS)
        for feedback in ((True, False) if weight else (default.feedback,))  # words alone move no vector
        for rerank in ((True, False) if with_reranker else (default.rerank,))
        for share in shares
    }

    def distance(plan: RankingPlan) -> tuple[float, ...]:
        weight, share = abs(plan.dense_weight - default.dense_weight), abs(plan.rerank_share - default.rerank_share)
        changes = [weight > 0, plan.feedback != default.feedback, plan.rerank != default.rerank, share > 0]
        return sum(changes), weight, share, plan.dense_weight, *map(float, changes)

    return sorted(tried, key=distance)


def _record(report: TuneReport) -> dict[str, Any] | None:
    """What the index keeps of a tuning; None where the default is as good."""
    if not report.is_better:
        return None
    return {
        **report.plan.as_dict(),
        "tuned_on": report.tuned_on,
        "n_queries": report.n_queries,
        "gain": report.gain,
        "interval": list(report.interval),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _write_plan(path: Path, record: Mapping[str, Any] | None, model: Embedder | None = None) -> bool:
    """Keep a plan in the index, or none; tells whether that changed it.

    Readers see it with their next search. No file of the index changes, so its generation stays, and nothing is opened
    again.
    """
    with StoreWriter.open(path) as store:
        built = store.meta["model"]
        if model is not None and not comparable(built["fingerprint"], model.fingerprint):
            raise IndexIncompatible(f"{path} was rebuilt with {built['name']} meanwhile; tune it again: semsearch tune")
        is_changed = record is not None or store.meta.get("plan") is not None
        if is_changed:
            store.set_meta(plan=record)
        return is_changed
