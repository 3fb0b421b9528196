"""The values that travel between the parts: documents, chunks, hits. All frozen, all plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = [
    "Chunk",
    "Document",
    "Duplicate",
    "Embedder",
    "FloatArray",
    "Heading",
    "Hit",
    "IntArray",
    "Neighbors",
    "Reranker",
    "Scores",
    "TokenEmbedder",
    "VectorIndex",
    "storable",
]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def storable(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot hold; every offset stays."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a document.

    Attributes:
        start: character offset in the document's text where the section begins, its heading line included.
        level: depth, 1 is the outermost.
        title: the heading's words, without markup.
    """

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Document:
    """One text to be found, with what is known about it.

    Attributes:
        id: unique in an index; a path for a file, `path#row=N` for a row of a table.
        text: the whole text; every offset counts characters (code points) of it.
        title: the document's own title, or "" when it has none.
        source: where it came from, normally an absolute path; "" when it came from no file.
        metadata: JSON-serialisable values, such as a Markdown page's front matter or a row's other columns.
        outline: headings in order of `start`.
        page_starts: offset at which each page begins, ascending, the first 0; empty when the text has no pages.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    outline: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `document.text[start:end] == text`.

    Attributes:
        id: int64, unique in an index and never used again; 0 before the index has given one.
        document_id: the `Document.id` it was cut from.
        ordinal: position among the chunks of its document, from 0.
        text: the passage.
        start, end: character offsets in the document's text.
        line_start, line_end: first and last line of the passage in the document's text, from 1.
        heading: titles of the sections around it, outermost first, joined by " > "; "" outside any.
        page: page on which it begins, from 1; None when the document has no pages.
    """

    id: int
    document_id: str
    ordinal: int
    text: str
    start: int
    end: int
    line_start: int
    line_end: int
    heading: str = ""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Where a hit's rank came from; larger is better, None where a leg did not score it.

    Attributes:
        dense: cosine of query and passage vectors, in [-1, 1].
        lexical: BM25, >= 0, not comparable between queries.
        feedback: the cosine that was fused in place of `dense`: with the query moved towards the best passages.
        fused: what the first stage ranked by; its range depends on the mode.
        rerank: what the reranker answered, in its own range.
        parts: by name what `Hit.score` is the sum of: `meaning`, `words`, `context` (what the passages before and after
            add in `lexical` mode), `first stage`, `reranker`, `neighbours` (what passages like this one add), `limit`
            (what keeps a passage that was not read below those that were).
    """

    dense: float | None = None
    lexical: float | None = None
    feedback: float | None = None
    fused: float | None = None
    rerank: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Where else a hit's passage stands, in the same words or nearly.

    Attributes:
        chunk_id: int64, as `Chunk.id`.
        document_id, source, title: as those of `Document`.
        line_start: first line of the passage in that document's text, from 1.
        page: page on which it begins, from 1; None when the document has no pages.
        heading: as that of `Chunk`.
    """

    chunk_id: int
    document_id: str
    source: str
    title: str
    line_start: int
    page: int | None = None
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a query.

    Attributes:
        rank: from 1.
        score: relevance, by which hits are sorted unless they were made to differ (`mmr`); larger is better.
        probability: calibrated P(relevant), or None where the index holds no calibration.
        chunk: the passage.
        document: the document around it.
        scores: the parts of the score.
        duplicates: passages that say the same, which take no place of their own; best first.
    """

    rank: int
    score: float
    probability: float | None
    chunk: Chunk
    document: Document
    scores: Scores
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbors:
    """What a vector search found: one row a query, best first.

    Attributes:
        ids: int64 (q, k) chunk ids, -1 where fewer than k were found.
        scores: float32 (q, k) inner products, -inf where fewer than k were found.
    """

    ids: IntArray
    scores: FloatArray


class Embedder(Protocol):
    """Texts to unit vectors. Documents and queries are two methods because models may prompt them differently.

    `embed_documents` is called from a thread of its own while `token_spans` is called from another. An encoder that
    divides its texts among several devices may tell how many in an attribute `n_devices`; it is handed so many times
    more at once.
    """

    @property
    def name(self) -> str:
        """The model's name, with revision when one was asked for."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would: weights, pooling and prompts."""
        ...

    @property
    def description(self) -> Mapping[str, Any]:
        """Facts to keep beside the vectors, JSON-serialisable: pooling, prompts, SHA-256 of the weights."""
        ...

    @property
    def dim(self) -> int:
        """Components of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longest text, in `token_spans`, that `embed_documents` reads to its end."""
        ...

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        """Character spans (start, end) of each text's tokens, int64 (n_tokens, 2), without special ones and prompts.

        Every letter and digit lies in one: what has no token is in no passage, and `verify` misses it.
        """
        ...

    def unknown_share(self, text: str) -> float:
        """Share of the text's tokens that the vocabulary does not hold, in [0, 1]; 0 for a text without tokens."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows, in the order given."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> FloatArray:
        """float32 (n, dim) unit rows, in the order given."""
        ...


@runtime_checkable
class TokenEmbedder(Protocol):
    """An embedder that also gives the vectors of a text's tokens."""

    @property
    def name(self) -> str:
        """As `Embedder.name`."""
        ...

    @property
    def fingerprint(self) -> str:
        """As `Embedder.fingerprint`."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in."""
        ...

    @property
    def device(self) -> str:
        """Where queries are encoded."""
        ...

    @property
    def max_tokens(self) -> int:
        """As `Embedder.max_tokens`."""
        ...

    def token_spans(self, texts: Sequence[str]) -> list[IntArray]:
        """As `Embedder.token_spans`."""
        ...

    def token_vectors(self, texts: Sequence[str], *, queries: bool = False) -> list[FloatArray]:
        """float32 (n_tokens, hidden) unit rows of each text, for the spans of its tokens that were read."""
        ...


class Reranker(Protocol):
    """A model that reads passages again, for the query.

    It may have a method `n_within(query, texts, budget_s)` that says how many of the texts, from the first on, it
    scores in so many seconds; without it, as many are given as the count allows. An attribute `first_stage_weight`, in
    [0, 1], is the share of the first stage in what hits are ranked by; without it, the reranker alone decides.
    """

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """float32 (n,) scores in the order given; larger is better."""
        ...


class VectorIndex(Protocol):
    """Nearest neighbours among unit vectors by inner product."""

    def __len__(self) -> int: ...

    @property
    def ids(self) -> IntArray:
        """The int64 ids it holds, in no order."""
        ...

    def add(self, ids: IntArray, vectors: FloatArray) -> None:
        """Add float32 (n, dim) unit rows under int64 (n,) ids that are not in it yet."""
        ...

    def search(self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None) -> Neighbors:
        """The k best of float32 (q, dim) queries, ties to the smaller id, among `allowed_ids` when given."""
        ...
