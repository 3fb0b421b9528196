"""What requests hold, for checking and describing them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from semsearch.search_options import BUDGET_MS, PER_DOCUMENT, RERANK_DEPTH
from semsearch.server.settings import (
    MAX_CONTEXT_LINES,
    MAX_DEPTH,
    MAX_DOCUMENTS,
    MAX_FACETS,
    MAX_FIELD_CHARS,
    MAX_HITS,
    MAX_QUERIES,
    MAX_QUERY_CHARS,
    MAX_VALUES,
    MAX_WHERE_CHARS,
)

__all__ = [
    "DocumentsBody",
    "FacetsQuery",
    "PassageQuery",
    "RemovalBody",
    "SearchBody",
    "SearchQuery",
    "SimilarQuery",
]


def _whole_number(value: object) -> object:
    """Digits of a query string, or 2.0 in JSON, as a number; pydantic would also take 1_0."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _true_or_false(value: object) -> object:
    """The words of a query string as a truth value; pydantic would also take yes, on and 1."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _number(value: object) -> object:
    """A decimal number of a query string."""
    is_number = isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", value)
    return float(str(value)) if is_number else value


Int = Annotated[int, Field(strict=True), BeforeValidator(_whole_number)]
Float = Annotated[float, Field(strict=True), BeforeValidator(_number)]
Share = Annotated[float, Field(strict=True, ge=0, le=1), BeforeValidator(_number)]
Bool = Annotated[bool, Field(strict=True), BeforeValidator(_true_or_false)]
QueryText = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
OF_A_DOCUMENT = (
    f"Most hits of a document; 0 for any number. By default those beyond {PER_DOCUMENT} stand behind those of others, "
    "in places that are left."
)
Where = Annotated[str, Field(min_length=1, max_length=MAX_WHERE_CHARS)]
PerDocument = Annotated[int, Field(strict=True, ge=0, le=MAX_HITS), BeforeValidator(_whole_number)]
FacetKey = Annotated[str, Field(min_length=1, max_length=MAX_FIELD_CHARS)]


class _Options(BaseModel):
    """How to search; `Searcher.search` says what each means."""

    k: Int = Field(10, ge=1, le=MAX_HITS, description="Number of hits, at most.")
    mode: Literal["hybrid", "dense", "lexical"] = Field("hybrid", description="By meaning, by words, or both.")
    rerank: Bool | None = Field(None, description="Whether a reranker reads the first hits again; by default, if any.")
    rerank_depth: Int = Field(RERANK_DEPTH, ge=1, le=MAX_HITS, description="Passages it reads, at most.")
    budget_ms: Float = Field(BUDGET_MS, gt=0, le=10_000, description="Time that it may take, in milliseconds.")
    per_document: PerDocument | None = Field(None, description=OF_A_DOCUMENT)
    context: Int = Field(0, ge=0, le=MAX_CONTEXT_LINES, description="Lines to add on each side of a passage.")
    min_probability: Share | None = Field(
        None, description="Leave out less probable hits; by default all, where even the best is not."
    )
    fold: Bool = Field(True, description="Whether passages that say the same take one place.")
    mmr: Share | None = Field(None, description="Prefer hits unlike those above: 1 not at all, 0 only.")
    explain: Bool = Field(False, description="Add to each hit what its score is the sum of and which words met.")
    highlight: Bool = Field(False, description="Add to each hit the sentence that answers best and the query's words.")
    facet: list[FacetKey] = Field([], max_length=MAX_FACETS, description="Fields whose values are to be counted.")


class SearchQuery(_Options):
    """The parameters of GET /search."""

    model_config = ConfigDict(extra="forbid")
    q: QueryText = Field(description="The query: a question or a few words.")
    where: Where | None = Field(None, description='Which documents are looked at: lang = "en" and year >= 2020.')


class SearchBody(_Options):
    """The body of POST /search: either `q` or `queries`."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"oneOf": [{"required": ["q"]}, {"required": ["queries"]}]}
    )
    # Defaults are not checked, while a null that is sent is refused.
    q: QueryText = Field(None, description="The query: a question or a few words.")  # type: ignore[assignment]
    queries: list[QueryText] = Field(
        None,  # type: ignore[arg-type]
        min_length=1,
        max_length=MAX_QUERIES,
        description="Several queries, all with the same options.",
    )
    where: Where | dict[str, Any] | None = Field(None, description="A filter, as a text or as an object.")


class PassageQuery(BaseModel):
    """The parameters of GET /documents/{chunk_id}."""

    model_config = ConfigDict(extra="forbid")
    context: Int = Field(0, ge=0, le=MAX_CONTEXT_LINES, description="Lines to add on each side of the passage.")


class SimilarQuery(BaseModel):
    """The parameters of GET /similar/{chunk_id}."""

    model_config = ConfigDict(extra="forbid")
    k: Int = Field(10, ge=1, le=MAX_HITS, description="Number of hits, at most.")
    per_document: PerDocument | None = Field(None, description=OF_A_DOCUMENT)
    where: Where | None = Field(None, description="Which documents are looked at.")


class FacetsQuery(BaseModel):
    """The parameters of GET /facets."""

    model_config = ConfigDict(extra="forbid")
    key: list[FacetKey] = Field(min_length=1, max_length=MAX_FACETS, description="Fields whose values are counted.")
    where: Where | None = Field(None, description="Which documents are counted.")
    limit: Int | None = Field(None, ge=1, le=MAX_VALUES, description="Values of a field, at most; by default all.")


def _not_too_deep(value: dict[str, Any]) -> dict[str, Any]:
    """Values that nest as deeply as anything sensible does."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [x for v in level for x in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())]
        if not level:
            return value
    raise ValueError(f"values may nest {MAX_DEPTH} deep")


DocumentId = Annotated[str, Field(min_length=1, max_length=1_000)]


class NewDocument(BaseModel):
    """A text to be found, in place of any that has its id."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: DocumentId
    text: str = Field(description="All of it; a document without text is taken out.")
    title: str = Field("", max_length=1_000)
    metadata: Annotated[dict[str, Any], AfterValidator(_not_too_deep)] = Field({}, description="For filters.")


class DocumentsBody(BaseModel):
    """The body of POST /index/documents."""

    model_config = ConfigDict(extra="forbid", strict=True)
    documents: list[NewDocument] = Field(min_length=1, max_length=MAX_DOCUMENTS)


class RemovalBody(BaseModel):
    """The body of DELETE /index/documents: one of the two at least."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"anyOf": [{"required": ["ids"]}, {"required": ["paths"]}]}
    )
    ids: list[DocumentId] = Field([], min_length=1, max_length=MAX_DOCUMENTS, description="Of documents.")
    paths: list[DocumentId] = Field(
        [], min_length=1, max_length=MAX_DOCUMENTS, description="Absolute ones, of files and folders."
    )
