"""The hybrid ranking over passages held in memory: where hard negatives and a reranker's candidates come from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semsearch.encoders import comparable
from semsearch.gathering import CANDIDATES
from semsearch.ranking import candidates
from semsearch.ranking.feedback import rank_hybrid
from semsearch.ranking.fusion import dense_weight
from semsearch.store.lexical import LexicalEntry, LexicalIndex, LexicalWriter
from semsearch.training.data import TrainingData
from semsearch.types import Embedder, FloatArray

__all__ = ["Candidates", "Legs", "both_legs", "encode_passages", "first_stage", "rank_passages"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stage found for one query, best first.

    Attributes:
        passages: positions in the data.
        scores: what they were ranked by, in (0, 1].
        cosines: of the query and every passage of the data, float32 (n_passages,).
        vectors: of what was found, float32 (n, dim).
    """

    passages: list[int]
    scores: list[float]
    cosines: FloatArray
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class Legs:
    """What meaning and words find for one query.

    Attributes:
        candidates: with the scores of both legs; ids, documents and vector ids are positions in the data.
        query: float32 (dim,) unit vector.
        unknown_share: share of its tokens that the model does not know.
        cosines: of the query and every passage of the data, float32 (n_passages,).
    """

    candidates: candidates.Candidates
    query: FloatArray
    unknown_share: float
    cosines: FloatArray


def encode_passages(data: TrainingData, embedder: Embedder) -> FloatArray:
    """float32 (n_passages, dim) unit rows; those that the data's index already holds are not encoded again."""
    known = data.vectors
    if known is None or not comparable(known.fingerprint, embedder.fingerprint):
        return embedder.embed_documents(data.texts)
    rows = np.empty((len(data.texts), known.rows.shape[1]), dtype=np.float32)
    rows[known.positions] = known.rows
    missing = sorted(set(range(len(data.texts))) - set(known.positions))
    if missing:
        rows[missing] = embedder.embed_documents([data.texts[position] for position in missing])
    return rows


def first_stage(
    data: TrainingData, embedder: Embedder, vectors: FloatArray, query_ids: Sequence[str], depth: int
) -> dict[str, Candidates]:
    """The `depth` best passages of each query, ranked as `Searcher` ranks them.

    Args:
        data: queries and passages.
        embedder: encodes the queries.
        vectors: of the passages, by the same model.
        query_ids: which queries.
        depth: passages a query at most.
    """
    found = {}
    for key, legs in both_legs(data, embedder, vectors, query_ids):
        ranking = rank_hybrid(legs.candidates, legs.query, dense_weight(legs.unknown_share)).take_first(depth)
        found[key] = Candidates(ranking.ids.tolist(), ranking.fused.tolist(), legs.cosines, ranking.vectors)
    return found


def both_legs(
    data: TrainingData, embedder: Embedder, vectors: FloatArray, query_ids: Sequence[str], *, n: int = CANDIDATES
) -> Iterator[tuple[str, Legs]]:
    """What both legs find of each query, n passages each: all that a ranking of it is made of."""
    texts = [data.queries[key] for key in query_ids]
    queries = embedder.embed_queries(texts)
    with tempfile.TemporaryDirectory(prefix="semsearch-") as folder:
        lexical = _lexical_index(data, Path(folder) / "lexical")
        for key, text, query in zip(query_ids, texts, queries, strict=True):
            cosines = vectors @ query
            near = rank_passages(cosines, n)
            words = dict(lexical.search(text, n))
            words.update(lexical.score(text, sorted(set(near) - words.keys())))
            rows = np.array(sorted({*near, *words}), dtype=np.int64)
            bm25 = np.array([words.get(i, np.nan) for i in rows.tolist()])
            found = candidates.Candidates.of([(i, i, i) for i in rows.tolist()], vectors[rows], cosines[rows], bm25)
            yield key, Legs(found, query, embedder.unknown_share(text), cosines)


def rank_passages(scores: FloatArray, k: int) -> list[int]:
    """Positions of the k best scores, best first, ties to the smaller position."""
    k = min(k, len(scores))
    if not k:
        return []
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = np.flatnonzero(scores >= floor)  # ties at the end included, so that the choice among them is fixed
    order = np.lexsort((among, -scores[among]))
    return [int(i) for i in among[order][:k]]


def _lexical_index(data: TrainingData, folder: Path) -> LexicalIndex:
    writer = LexicalWriter(folder)
    pairs = enumerate(zip(data.texts, data.contexts, strict=True))
    writer.add(LexicalEntry(position, text, context) for position, (text, context) in pairs)
    writer.commit()
    writer.close()
    return LexicalIndex(folder)
