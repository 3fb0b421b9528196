"""The first stage's candidates with their passages: what hits are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from semsearch.ranking.candidates import Candidates
from semsearch.store.lexical import LexicalIndex
from semsearch.types import Chunk, Document, Duplicate, Hit, Scores

__all__ = ["Found"]


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of a query with what one state of the index says of them.

    Attributes:
        candidates: best first.
        passages: each candidate's, by chunk id.
        elsewhere: the copies that candidates carry, by chunk id.
        lexical: the words of that state.
    """

    candidates: Candidates
    passages: Mapping[int, tuple[Chunk, Document]]
    elsewhere: Mapping[int, Duplicate]
    lexical: LexicalIndex

    def hits(self, probabilities: Callable[[Sequence[Scores]], Sequence[float | None]] | None = None) -> list[Hit]:
        """One hit a candidate, with what `probabilities` makes of all their scores."""
        scores = [self.candidates.scores(row) for row in range(len(self.candidates))]
        relevant = probabilities(scores) if probabilities is not None else [None] * len(scores)
        hits = []
        for row, chunk_id in enumerate(self.candidates.ids.tolist()):
            chunk, document = self.passages[chunk_id]
            relevance = float(self.candidates.relevance[row])
            duplicates = tuple(self.elsewhere[i] for i in self.candidates.duplicates[row])
            hits.append(Hit(row + 1, relevance, relevant[row], chunk, document, scores[row], duplicates))
        return hits
