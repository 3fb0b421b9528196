"""Bodies of answers, in strict JSON."""

from __future__ import annotations

import json
from typing import Any

from semsearch.answers import strict_json

__all__ = ["error_body", "json_bytes"]


def json_bytes(answer: Any) -> bytes:
    """Strict JSON in UTF-8; surrogates, which stand for bytes of ill-named files, are escaped."""
    try:
        text = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):  # metadata may hold NaN
        text = json.dumps(strict_json(answer), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", errors="backslashreplace")


def error_body(message: str, field: str | None = None) -> bytes:
    """The body of an answer that is none."""
    return json_bytes({"error": {"message": message} if field is None else {"message": message, "field": field}})
