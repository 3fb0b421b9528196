"""What a search answers, as plain data: the same from every door."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsearch.ranking.calibration import NOTHING_RELEVANT

if TYPE_CHECKING:
    from semsearch.encoders.late_interaction import TokenMatch
    from semsearch.store.selection import FacetCount
    from semsearch.types import Chunk, Document, Hit

__all__ = [
    "explained",
    "facets_json",
    "hit_from_json",
    "hit_json",
    "hit_path",
    "metadata_json",
    "passage_json",
    "query_answer",
    "relevant",
    "strict_json",
]


def relevant(hits: Sequence[Hit], min_probability: float | None) -> tuple[list[Hit], float | None]:
    """Those hits that are worth showing, and the probability of the best of all; None where hits have none.

    Args:
        hits: what a search without `min_probability` found.
        min_probability: leave out less probable hits, in [0, 1]. None leaves all in, or all out where even the best
            says that the index holds no answer.
    """
    best = max((hit.probability for hit in hits if hit.probability is not None), default=None)
    if min_probability is None and (best is None or best >= NOTHING_RELEVANT):
        return list(hits), best
    threshold = NOTHING_RELEVANT if min_probability is None else min_probability
    return [hit for hit in hits if hit.probability is None or hit.probability >= threshold], best


def explained(
    explain: Callable[[str, Hit], list[TokenMatch]], query: str, hits: Sequence[Hit], mode: str
) -> list[list[TokenMatch]]:
    """What `Searcher.explain` tells of each hit; nothing where words alone were looked for, without the model."""
    return [explain(query, hit) if mode != "lexical" else [] for hit in hits]


def query_answer(
    query: str,
    index: Path,
    mode: str,
    elapsed_ms: float,
    hits: Sequence[Hit],
    best_probability: float | None,
    matches: Sequence[Sequence[TokenMatch]] | None = None,
) -> dict[str, Any]:
    """One query's answer, as every door gives it.

    Args:
        query: what was asked.
        index: the folder of the index.
        mode: `hybrid`, `dense` or `lexical`.
        elapsed_ms: that the search took, in milliseconds.
        hits: best first.
        best_probability: as `relevant` gives it.
        matches: a list a hit, to tell which tokens met and what scores are the sum of.
    """
    shown = [hit_json(hit) for hit in hits]
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
        "best_probability": best_probability,
    }


def passage_json(chunk: Chunk, document: Document) -> dict[str, Any]:
    """A passage and where it stands."""
    path = document.source or document.id
    return {
        "chunk_id": chunk.id,
        "document_id": document.id,
        "path": path,
        "title": document.title or Path(path).stem,
        "heading": chunk.heading,
        "page": chunk.page,
        "line_start": chunk.line_start,
        "line_end": chunk.line_end,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
    }


def metadata_json(document: Document) -> dict[str, Any]:
    """A document's metadata without what adapters keep in it for themselves."""
    return {name: value for name, value in document.metadata.items() if not name.startswith("__")}


def hit_json(hit: Hit) -> dict[str, Any]:
    """One hit as part of an answer."""
    scores = hit.scores
    return {
        "rank": hit.rank,
        "score": hit.score,
        "probability": hit.probability,
        **passage_json(hit.chunk, hit.document),
        "scores": {
            "dense": scores.dense,
            "lexical": scores.lexical,
            "feedback": scores.feedback,
            "fused": scores.fused,
            "rerank": scores.rerank,
        },
        "metadata": metadata_json(hit.document),
        "duplicates": [
            {
                "path": other.source or other.document_id,
                "title": other.title or Path(other.source or other.document_id).stem,
                "heading": other.heading,
                "page": other.page,
                "line_start": other.line_start,
            }
            for other in hit.duplicates
        ],
    }


def hit_from_json(data: Mapping[str, Any]) -> Hit:
    """The hit that `hit_json` gave, as far as it tells; its document has no text."""
    from semsearch.types import Chunk, Document, Duplicate, Hit, Scores  # numpy, which what prints JSON does not need

    path = data["path"]
    scores = Scores(**data["scores"], parts=data.get("parts") or {})
    title = "" if data["title"] == Path(path).stem else data["title"]
    document = Document(data["document_id"], "", title=title, source=path, metadata=data["metadata"])
    of_chunk = {name: data[name] for name in ("text", "start", "end", "line_start", "line_end", "heading", "page")}
    chunk = Chunk(id=data["chunk_id"], document_id=document.id, ordinal=0, **of_chunk)
    duplicates = tuple(
        Duplicate(0, other["path"], other["path"], other["title"], other["line_start"], other["page"], other["heading"])
        for other in data["duplicates"]
    )
    return Hit(data["rank"], data["score"], data["probability"], chunk, document, scores, duplicates)


def facets_json(counts: Mapping[str, Sequence[FacetCount]]) -> dict[str, Any]:
    """All values of each field as part of an answer."""
    return {
        key: [{"value": c.value, "documents": c.documents, "passages": c.passages} for c in found]
        for key, found in counts.items()
    }


def hit_path(hit: Hit) -> str:
    """Where the document came from, or its id when it came from no file."""
    return hit.document.source or hit.document.id


def strict_json(value: Any) -> Any:
    """A copy that JSON can hold: NaN and infinities become null, unknown objects their text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [strict_json(item) for item in value]
    return str(value)


def _matches(found: Sequence[TokenMatch]) -> list[dict[str, Any]]:
    places = [m.passage or (None, None) for m in found]
    return [
        {"query": m.query_text, "word": m.text, "start": start, "end": end, "cosine": m.cosine}
        for m, (start, end) in zip(found, places, strict=True)
    ]
