"""The first stage's candidates with their passages: what hits are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from semsearch.ranking.candidates import Candidates
from semsearch.reading import read_in_context, read_passage
from semsearch.store.lexical import LexicalIndex
from semsearch.types import Chunk, Document, Duplicate, Hit, Scores

__all__ = ["Found"]

MAX_READ_AGAIN = 4  # copies of one passage that are read under their own titles, so that others get their turn


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of a query with what one state of the index says of them.

    Attributes:
        candidates: best first.
        passages: each candidate's, by chunk id.
        elsewhere: the copies that candidates name, by chunk id.
        lexical: the words of that state.
    """

    candidates: Candidates
    passages: Mapping[int, tuple[Chunk, Document]]
    elsewhere: Mapping[int, Duplicate]
    lexical: LexicalIndex

    def to_read(self, n: int) -> list[str]:
        """What a reranker reads of the first n candidates."""
        passages = (self.passages[i] for i in self.candidates.ids[:n].tolist())
        return [read_passage(chunk, document) for chunk, document in passages]

    def with_copies(self, copies: Candidates, n: int, per_document: int) -> Candidates:
        """The candidates, each followed by those of its copies that a reranker would read in another context.

        Copies say the same, but it may be another that stands below the title which is asked for.

        Args:
            copies: those folded into the candidates, best first.
            n: passages that are read; behind them no copies are added.
            per_document: most rows of one document, which the candidates keep to; 0 for no limit.
        """
        row_of = {chunk_id: row for row, chunk_id in enumerate(copies.ids.tolist(), len(self.candidates))}
        every = self.candidates.followed_by(copies)
        places = Counter(self.candidates.documents.tolist())
        rows: list[int] = []
        for row, chunk_id in enumerate(self.candidates.ids.tolist()):
            rows.append(row)
            chunk, document = self.passages[chunk_id]
            read = {read_passage(chunk, document)}
            for copy in (self.elsewhere[i] for i in self.candidates.duplicates[row]):
                if len(rows) >= n or len(read) > MAX_READ_AGAIN:
                    break
                of_document = int(every.documents[row_of[copy.chunk_id]])
                text = read_in_context(chunk.text, f"{copy.title} > {copy.heading}")
                if text not in read and not 0 < per_document <= places[of_document]:
                    places[of_document] += 1
                    read.add(text)
                    rows.append(row_of[copy.chunk_id])
        return every.take(rows)

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
