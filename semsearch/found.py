"""The first stage's candidates with their passages: what hits are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from semsearch.encoders.late_interaction import Kept
from semsearch.ranking.candidates import Candidates
from semsearch.reading import read_in_context, read_passage
from semsearch.store.lexical import LexicalIndex
from semsearch.types import Chunk, Document, Duplicate, FloatArray, Hit, Scores

__all__ = ["Found"]

MAX_READ_AGAIN = 4  # copies of one passage that are read in their own contexts, so that others get their turn
MAX_CONTEXTS = 100  # of one passage, of which these are chosen


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of a query with what one state of the index says of them.

    Attributes:
        candidates: best first.
        passages: each candidate's, by chunk id.
        elsewhere: the copies that candidates name, by chunk id.
        lexical: the words of that state.
        codes: of the tokens of passages, by their texts, where that state keeps them and they were asked for.
    """

    candidates: Candidates
    passages: Mapping[int, tuple[Chunk, Document]]
    elsewhere: Mapping[int, Duplicate]
    lexical: LexicalIndex
    codes: Mapping[str, bytes] = field(default_factory=dict)

    def to_read(self, n: int) -> list[str]:
        """What a reranker reads of the first n candidates."""
        passages = (self.passages[i] for i in self.candidates.ids[:n].tolist())
        return [read_passage(chunk, document) for chunk, document in passages]

    def kept(self, n: int) -> list[Kept | None]:
        """What the index knows of that; empty where it knows nothing of any."""
        texts = [self.passages[i][0].text for i in self.candidates.ids[:n].tolist()] if self.codes else []
        return [Kept(len(text), self.codes[text]) if text in self.codes else None for text in texts]

    def with_copies(self, copies: Candidates, n: int, prefer: Callable[[Sequence[str]], FloatArray]) -> Candidates:
        """The candidates, each followed by those of its copies that a reranker would read in another context.

        Copies say the same, but it may be another that stands below the title which is asked for.

        Args:
            copies: those folded into the candidates, best first.
            n: passages that are read; behind them no copies are added.
            prefer: scores of some contexts, (n,); asked where there are more of them than are read of one passage.
        """
        row_of = {chunk_id: row for row, chunk_id in enumerate(copies.ids.tolist(), len(self.candidates))}
        rows: list[int] = []
        for row, chunk_id in enumerate(self.candidates.ids.tolist()):
            rows.append(row)
            duplicates = self.candidates.duplicates[row] if len(rows) < n else ()
            chunk, document = self.passages[chunk_id]
            others: dict[str, int] = {}  # rows of copies by what is read of them
            for copy in (self.elsewhere[i] for i in duplicates):
                read = read_in_context(chunk.text, f"{copy.title} > {copy.heading}")
                others.setdefault(read, row_of[copy.chunk_id])
            others.pop(read_passage(chunk, document), None)
            texts = list(others)[:MAX_CONTEXTS]
            if len(texts) > MAX_READ_AGAIN:
                best = np.argsort(-prefer([text[len(chunk.text) :] for text in texts]), kind="stable")
                texts = [texts[i] for i in best[:MAX_READ_AGAIN].tolist()]
            rows += [others[text] for text in texts][: max(0, n - len(rows))]
        return self.candidates.followed_by(copies).take(rows)

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
