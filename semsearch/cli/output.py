"""Texts and JSON made fit to be printed; no terminal library is needed for it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from semsearch.encoders.late_interaction import TokenMatch
    from semsearch.types import Hit

__all__ = ["clean", "clean_line", "echo_json", "hit_path", "query_answer", "short_path"]

# Control characters could drive the terminal, bidirectional overrides reorder text, surrogates have no encoding.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that a terminal shows and does not obey: line ends and tabs stay, other control characters go."""
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def clean_line(text: str) -> str:
    """The same on one line: white space of any kind becomes single blanks."""
    return clean(" ".join(text.split()))


def short_path(path: str | Path) -> str:
    """The path as one would type it: relative when it lies under the working folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def echo_json(value: Mapping[str, Any]) -> None:
    """Print one object as strict JSON in UTF-8, whatever the locale.

    Characters that could drive a terminal, and the surrogates that stand for bytes of ill-named files, are escaped.
    """
    text = json.dumps(_strict(value), ensure_ascii=False, allow_nan=False)
    text = _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    click.echo(text.encode("utf-8", errors="backslashreplace"))


def query_answer(
    query: str,
    index: Path,
    mode: str,
    elapsed_ms: float,
    hits: Sequence[Hit],
    matches: Sequence[Sequence[TokenMatch]] | None = None,
) -> dict[str, Any]:
    """What `query --json` prints; with `matches`, a list a hit, which tokens met and what scores are the sum of."""
    shown = [_hit(hit) for hit in hits]
    if matches is not None:
        parts = [dict(hit.scores.parts) for hit in hits]
        shown = [
            {**hit, "parts": summands, "matches": _matches(met)}
            for hit, summands, met in zip(shown, parts, matches, strict=True)
        ]
    return {
        "query": query,
        "index": str(index),
        "mode": mode,
        "elapsed_ms": round(elapsed_ms, 3),
        "hits": shown,
    }


def hit_path(hit: Hit) -> str:
    """Where the document came from, or its id when it came from no file."""
    return hit.document.source or hit.document.id


def _matches(found: Sequence[TokenMatch]) -> list[dict[str, Any]]:
    return [{"query": m.query_text, "start": m.passage[0], "end": m.passage[1], "cosine": m.cosine} for m in found]


def _hit(hit: Hit) -> dict[str, Any]:
    chunk, document, scores = hit.chunk, hit.document, hit.scores
    return {
        "rank": hit.rank,
        "score": hit.score,
        "probability": hit.probability,
        "path": hit_path(hit),
        "title": document.title or Path(hit_path(hit)).stem,
        "heading": chunk.heading,
        "page": chunk.page,
        "line_start": chunk.line_start,
        "line_end": chunk.line_end,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
        "scores": {
            "dense": scores.dense,
            "lexical": scores.lexical,
            "feedback": scores.feedback,
            "fused": scores.fused,
            "rerank": scores.rerank,
        },
        "metadata": document.metadata,
        "duplicates": [
            {
                "path": other.source or other.document_id,
                "title": other.title or Path(other.source or other.document_id).stem,
                "page": other.page,
                "line_start": other.line_start,
            }
            for other in hit.duplicates
        ],
    }


def _strict(value: Any) -> Any:
    """A copy that JSON can hold: NaN and infinities become null, unknown objects their text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_strict(item) for item in value]
    return str(value)
