"""What answers look like, for describing them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

__all__ = [
    "Answer",
    "Answers",
    "ErrorAnswer",
    "FacetsAnswer",
    "Health",
    "IndexStatus",
    "Passage",
    "SimilarAnswer",
    "WriteAnswer",
]

Span = Annotated[list[int], Field(min_length=2, max_length=2)]


class HitScores(BaseModel):
    """Where a hit's rank came from; null where a stage did not score it."""

    dense: float | None
    lexical: float | None
    feedback: float | None
    fused: float | None
    rerank: float | None


class DuplicateOfHit(BaseModel):
    """Where else the passage stands."""

    path: str
    title: str
    heading: str
    page: int | None
    line_start: int


class Marks(BaseModel):
    """What to point at, as offsets in characters into the hit's text: a sentence, and words of the query."""

    start: int
    end: int
    words: list[Span]


class Match(BaseModel):
    """A word of the query and the word nearest to it, with offsets into the hit's text.

    They are null where that word stands in the title or the headings around the passage.
    """

    query: str
    word: str
    start: int | None
    end: int | None
    cosine: float


class Place(BaseModel):
    """A passage and where it stands."""

    chunk_id: int
    document_id: str
    path: str
    title: str
    heading: str
    page: int | None
    line_start: int
    line_end: int
    start: int
    end: int
    text: str


class HitAnswer(Place):
    """One hit."""

    rank: int
    score: float
    probability: float | None
    scores: HitScores
    metadata: dict[str, Any]
    duplicates: list[DuplicateOfHit]
    highlight: Marks | None = Field(None, description="Only where it was asked for.")
    parts: dict[str, float] | None = Field(None, description="Only with `explain`: what the score is the sum of.")
    matches: list[Match] | None = Field(None, description="Only with `explain`: which words met.")


class FacetValue(BaseModel):
    """How many documents and passages have a value."""

    value: str | int | float | bool
    documents: int
    passages: int


class Answer(BaseModel):
    """What `semsearch query --json` prints."""

    query: str
    index: str
    mode: str
    elapsed_ms: float
    hits: list[HitAnswer]
    best_probability: float | None
    facets: dict[str, list[FacetValue]] | None = Field(None, description="Only where fields were named.")


class Answers(BaseModel):
    """The answers to several queries, in their order."""

    answers: list[Answer]


class SimilarAnswer(BaseModel):
    """Passages like one, which is not among them."""

    chunk_id: int
    index: str
    elapsed_ms: float
    hits: list[HitAnswer]


class Passage(Place):
    """A passage in its context. `passage` is where it lies in `text`, in characters."""

    passage: Span
    document_chars: int
    metadata: dict[str, Any]


class FacetsAnswer(BaseModel):
    """The values of each field, most documents first."""

    index: str
    where: str | None
    facets: dict[str, list[FacetValue]]


class IndexStatus(BaseModel):
    """What the index holds, and what can be asked of it."""

    name: str
    documents: int
    chunks: int
    files: int
    vectors: int
    bytes: int
    model: str
    dim: int
    kind: str
    created: str
    updated: str
    writable: bool
    writing: bool = Field(description="Whether this service is changing the index now.")
    reranker: str | None = Field(description="What reads the first hits again, unless asked otherwise.")
    fields: list[str] = Field(description="What filters and facets can name.")
    version: str = Field(description="Of semsearch.")


class Health(BaseModel):
    """That the service answers."""

    status: Literal["ok"]


class ErrorFacts(BaseModel):
    """What is wrong, and with which parameter."""

    message: str
    field: str | None = None


class ErrorAnswer(BaseModel):
    """Why there is no answer."""

    error: ErrorFacts


class WriteAnswer(BaseModel):
    """What became of a change."""

    done: bool = Field(description="False where it still goes on: see `writing` of GET /index.")
    indexed: int = Field(0, description="Documents or files that were new or different.")
    unchanged: int = 0
    removed: int = 0
    missing: list[str] = Field([], description="What was to be removed and is not there.")
    problems: list[str] = Field([], description="What could not be indexed, and why.")
