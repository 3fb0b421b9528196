"""LlamaIndex's filters on metadata, to ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from semsearch.errors import InvalidInput
from semsearch.integrations.originals import PARENT

__all__ = ["translated", "wanted"]

Where = dict[str, Any]
MAX_LISTED = 1_000  # of one `in`

_ORDERS = {
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}


def wanted(
    filters: MetadataFilters | None, node_ids: Sequence[str] | None = None, parent_ids: Sequence[str] | None = None
) -> Where | None:
    """All that a query asks of nodes: their metadata, ids, and those of the documents they were cut from."""
    parts = [translated(filters)] if filters is not None and filters.filters else []
    for field, ids in (("path", node_ids), (PARENT, parent_ids)):
        if ids:
            listed = list(ids)
            some = [{field: {"in": listed[i : i + MAX_LISTED]}} for i in range(0, len(listed), MAX_LISTED)]
            parts.append({"or": some})
    return {"and": parts} if parts else None


def translated(filters: MetadataFilters) -> Where:
    """What `Searcher.search` takes as `where`.

    A number is also found in a text; `text_match` looks at the first 1,000 characters of a text.

    Raises:
        InvalidInput: an operator does not fit its value, or there are no filters; the text names the operator.
    """
    if not filters.filters:
        raise InvalidInput("there are no filters in MetadataFilters; give one, or None")
    parts = [translated(part) if isinstance(part, MetadataFilters) else _comparison(part) for part in filters.filters]
    if filters.condition == FilterCondition.NOT:  # none of them matches
        return {"not": {"or": parts}}
    return {"or" if filters.condition == FilterCondition.OR else "and": parts}


def _comparison(given: MetadataFilter) -> Where:
    field, operator, value = f"metadata.{given.key}", given.operator, given.value
    if operator == FilterOperator.IS_EMPTY:
        return {field: {"exists": False}}
    of_lists: dict[FilterOperator, Callable[[list[Any]], Where]] = {
        FilterOperator.IN: lambda values: {field: {"in": values}},
        FilterOperator.ANY: lambda values: {field: {"in": values}},
        FilterOperator.NIN: lambda values: {"not": {field: {"in": values}}},
        FilterOperator.ALL: lambda values: {"and": [{field: {"=": value}} for value in values]},
    }
    if operator in of_lists:
        if not isinstance(value, list) or not value:
            raise InvalidInput(f"the operator {operator.value} takes a list of values, not {value!r}")
        return of_lists[operator](value)
    if value is None or isinstance(value, list):
        raise InvalidInput(f"the operator {operator.value} takes one value, not {value!r}")
    if operator in (FilterOperator.EQ, FilterOperator.CONTAINS):
        return {field: {"=": value}}
    if operator == FilterOperator.NE:
        return {"not": {field: {"=": value}}}
    if operator in _ORDERS:
        return {field: {_ORDERS[operator]: value}}
    if operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"the operator {operator.value} takes a text, not {value!r}")
        is_exact = operator == FilterOperator.TEXT_MATCH
        return {field: {"~": f"*{''.join(map(_literal if is_exact else _either_case, value))}*"}}
    raise InvalidInput(f"semsearch does not know the operator {operator.value}")


def _literal(character: str) -> str:
    return f"[{character}]" if character in "*?[" else character


def _either_case(character: str) -> str:
    both = {character.lower(), character.upper()}
    return f"[{''.join(sorted(both))}]" if len(both) == 2 and all(len(c) == 1 for c in both) else _literal(character)
