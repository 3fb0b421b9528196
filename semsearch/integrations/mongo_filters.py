"""Filters as LangChain's vector stores write them, `{"year": {"$gte": 2020}}`, to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsearch.errors import InvalidInput

__all__ = ["translated"]

_COMPARISONS = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<=", "$in": "in"}
_COMPLEMENTS = {"$ne": "=", "$nin": "in"}  # as in MongoDB they also match documents without the field


def translated(given: Any) -> str | dict[str, Any] | None:
    """What `Searcher.search` takes as `where`; None for no filter. Names are those of metadata.

    Raises:
        InvalidInput: an operator is none of `$eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not`, or it is no
            filter at all.
    """
    if given is None or given == {}:
        return None
    return given if isinstance(given, str) else _of_mapping(given)


def _of_mapping(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(f'filter = {given!r}: give a mapping such as {{"year": {{"$gte": 2020}}}}, or a string')
    return {"and": [_of_entry(name, wanted) for name, wanted in given.items()]}


def _of_entry(name: Any, wanted: Any) -> dict[str, Any]:
    if name in ("$and", "$or"):
        if not isinstance(wanted, list | tuple) or not wanted:
            raise InvalidInput(f"{name} = {wanted!r}: give a list of filters")
        return {name[1:]: [_of_mapping(part) for part in wanted]}
    if name == "$not":
        return {"not": _of_mapping(wanted)}
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise InvalidInput(f"semsearch knows no filter {name!r} here; it knows $and, $or, $not and names of metadata")
    field = f"metadata.{name}"
    if not isinstance(wanted, Mapping):
        return _of_operator(field, "$eq", wanted)
    if not wanted:
        raise InvalidInput(f"the filter on {name!r} is empty; give a value, or an operator such as $eq")
    return {"and": [_of_operator(field, operator, value) for operator, value in wanted.items()]}


def _of_operator(field: str, operator: Any, value: Any) -> dict[str, Any]:
    if operator == "$exists":
        return {field: {"exists": value}}
    if operator == "$not":
        if not isinstance(value, Mapping) or not value:
            raise InvalidInput(f"$not = {value!r}: give operators, such as {{'$gt': 5}}")
        return {"not": {"and": [_of_operator(field, inner, v) for inner, v in value.items()]}}
    if operator in _COMPARISONS:
        return {field: {_COMPARISONS[operator]: value}}
    if operator in _COMPLEMENTS:
        return {"not": {field: {_COMPLEMENTS[operator]: value}}}
    known = " ".join([*_COMPARISONS, *_COMPLEMENTS, "$exists", "$not"])
    raise InvalidInput(f"semsearch knows no operator {operator!r} in filters; it knows {known}")
