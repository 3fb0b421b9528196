"""What travels between the stages of ranking: passages with their scores, before they are hits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from semsearch.ranking.fusion import ScoreArray
from semsearch.types import FloatArray, IntArray, Scores

__all__ = ["Candidates", "ScoreArray"]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Passages that may become hits, one a row. A stage of ranking takes one of these and returns another.

    Attributes:
        ids: int64 (n,) chunk ids.
        documents: int64 (n,) rows of the documents they belong to.
        vector_ids: int64 (n,); equal where the texts are equal.
        vectors: float32 (n, dim) unit rows, exact.
        dense: (n,) cosines of query and passage, in [-1, 1]; NaN, here and below, where there is no score.
        lexical: (n,) BM25, >= 0.
        feedback: (n,) cosines of passage and the query moved by feedback.
        fused: (n,) what the first stage ranked by.
        rerank: (n,) what the reranker answered.
        relevance: (n,) the score of the last stage that gave one, which becomes `Hit.score`; larger is better.
        duplicates: chunk ids that say the same as each row and were folded into it, best first.
        parts: by name (n,) what `relevance` is the sum of.
        hundredth: cosine, 0 at least, of the hundredth of all vectors of the index by it, whatever a filter leaves of
            them; where there are n < 100, n / 100 of that of the last.
    """

    ids: IntArray
    documents: IntArray
    vector_ids: IntArray
    vectors: FloatArray
    dense: ScoreArray
    lexical: ScoreArray
    feedback: ScoreArray
    fused: ScoreArray
    rerank: ScoreArray
    relevance: ScoreArray
    duplicates: tuple[tuple[int, ...], ...]
    parts: Mapping[str, ScoreArray] = field(default_factory=dict)
    hundredth: float = 0.0

    @classmethod
    def of(
        cls, places: Sequence[tuple[int, int, int]], vectors: FloatArray, dense: ScoreArray, lexical: ScoreArray
    ) -> Candidates:
        """Unranked candidates, from their (chunk id, document row, vector id), vectors and scores of both legs."""
        ids, documents, vector_ids = np.array(places, dtype=np.int64).reshape(-1, 3).T
        none = np.full(len(ids), np.nan)
        return cls(ids, documents, vector_ids, vectors, dense, lexical, none, none, none, none, ((),) * len(ids))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | IntArray) -> Candidates:
        """These rows, in this order."""
        at = np.asarray(rows, dtype=np.int64)
        return Candidates(
            self.ids[at],
            self.documents[at],
            self.vector_ids[at],
            self.vectors[at],
            self.dense[at],
            self.lexical[at],
            self.feedback[at],
            self.fused[at],
            self.rerank[at],
            self.relevance[at],
            tuple(map(self.duplicates.__getitem__, at.tolist())),
            {name: part[at] for name, part in self.parts.items()},
            self.hundredth,
        )

    def followed_by(self, others: Candidates) -> Candidates:
        """These rows, then those of others of the same query and stage."""
        arrays = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)]
        return Candidates(
            **{name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in arrays},
            duplicates=self.duplicates + others.duplicates,
            parts={name: np.concatenate([part, others.parts[name]]) for name, part in self.parts.items()},
            hundredth=self.hundredth,
        )

    def take_first(self, n: int) -> Candidates:
        """The first n rows, or all."""
        return self.take(range(min(n, len(self))))

    def ranked_by(self, scores: ScoreArray) -> Candidates:
        """Those that have one of some scores (n,), best first, ties to the smaller id; it becomes their relevance."""
        rows = np.flatnonzero(~np.isnan(scores))
        order = rows[np.lexsort((self.ids[rows], -scores[rows]))]
        return replace(self.take(order), relevance=scores[order])

    def scores(self, row: int) -> Scores:
        """What each leg and stage said of a row, and what its relevance is the sum of."""
        said = (float(of[row]) for of in (self.dense, self.lexical, self.feedback, self.fused, self.rerank))
        dense, lexical, feedback, fused, rerank = (None if math.isnan(score) else score for score in said)
        parts = {name: float(part[row]) for name, part in self.parts.items()}
        return Scores(dense, lexical, feedback, fused, rerank, parts)
