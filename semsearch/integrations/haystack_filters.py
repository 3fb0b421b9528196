"""Haystack's filters: whether one is well formed, and what it is in ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from haystack.dataclasses import Document
from haystack.errors import FilterError

from semsearch.errors import InvalidInput

__all__ = ["UnusableFilter", "check", "translated"]

_ORDERS = (">", ">=", "<", "<=")
_COMPARISONS = ("==", "!=", *_ORDERS, "in", "not in")
_LOGIC = ("AND", "OR", "NOT")
_OWN = {field.name for field in fields(Document)} - {"meta"}


class UnusableFilter(InvalidInput, FilterError):
    """A filter that is malformed, or that a search here cannot follow."""


def check(filters: Any) -> None:
    """Raise UnusableFilter where a filter is malformed anywhere in it; an empty one is not."""
    if filters:
        _check(filters)


def _check(filters: Any) -> None:
    if not isinstance(filters, Mapping):
        raise UnusableFilter(f"{filters!r} is no filter; give a mapping with field, operator and value")
    if "operator" not in filters:
        raise UnusableFilter(f"'operator' is missing in {filters!r}")
    operator = filters["operator"]
    if "field" in filters:
        if "value" not in filters:
            raise UnusableFilter(f"'value' is missing in {filters!r}")
        if operator not in _COMPARISONS:
            raise UnusableFilter(f"there is no operator {operator!r} to compare with; use one of {_COMPARISONS}")
        return
    if not isinstance(filters.get("conditions"), list):
        raise UnusableFilter(f"'field' or 'conditions' is missing in {filters!r}")
    if operator not in _LOGIC:
        raise UnusableFilter(f"there is no operator {operator!r} to join conditions with; use one of {_LOGIC}")
    for condition in filters["conditions"]:
        _check(condition)


def translated(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `Searcher.search` takes as `where`; None for no filter.

    Unlike with Haystack's own matcher, a number is also found in a text, a list by each of its members, and a time
    without a zone is one in UTC.

    Raises:
        UnusableFilter: it is malformed, or cannot be said; the text names the operator.
    """
    check(filters)
    return _translated(filters) if filters else None


def _translated(filters: Mapping[str, Any]) -> dict[str, Any]:
    operator = filters["operator"]
    if "field" in filters:
        return _comparison(_field(filters["field"]), operator, filters["value"])
    if not filters["conditions"]:
        raise UnusableFilter(f"the operator {operator} has no conditions")
    parts = [_translated(condition) for condition in filters["conditions"]]
    if operator == "NOT":
        return {"not": {"and": parts}}
    return {operator.lower(): parts}


def _field(name: Any) -> str:
    if not isinstance(name, str) or not name.removeprefix("meta."):
        raise UnusableFilter(f"{name!r} is no name of a field; give one such as meta.year")
    if name.split(".")[0] in _OWN:
        raise UnusableFilter(f"searches filter by metadata, not by {name!r}; name one such as meta.year")
    return f"metadata.{name.removeprefix('meta.')}"


def _comparison(field: str, operator: str, value: Any) -> dict[str, Any]:
    if operator == "==":
        return _equal(field, value)
    if operator == "!=":
        return {"not": _equal(field, value)}
    if operator in _ORDERS:
        return {field: {operator: _ordered(operator, value)}}
    if not isinstance(value, list) or not value:
        raise UnusableFilter(f"the operator {operator} takes a list of values, not {value!r}")
    if all(v is not None and _date(v) is None for v in value):
        found: dict[str, Any] = {field: {"in": [_scalar("in", v) for v in value]}}
    else:
        found = {"or": [_equal(field, v) for v in value]}
    return found if operator == "in" else {"not": found}


def _equal(field: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {field: {"exists": False}}
    date = _date(value)
    return {field: {"=": _scalar("==", value) if date is None else date}}


def _ordered(operator: str, value: Any) -> Any:
    date = _date(value)
    if (date is None and isinstance(value, str | list)) or value is None or isinstance(value, bool):
        raise UnusableFilter(f"the operator {operator} takes a number or an ISO 8601 date, not {value!r}")
    return _scalar(operator, value) if date is None else date


def _scalar(operator: str, value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise UnusableFilter(
            f"the operator {operator} cannot compare with {value!r} in a search; give a text or a number"
        )
    return value


def _date(value: Any) -> datetime | None:
    """A point in time, or a text that is one with its day at least."""
    if isinstance(value, datetime) or not isinstance(value, str) or len(value) < 10:
        return value if isinstance(value, datetime) else None
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
