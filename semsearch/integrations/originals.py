"""Documents of a framework as semsearch keeps them, and back as they were.

Metadata are kept as they are, so that filters see them. Under one more name lies, as JSON text, what else belongs to
the document; it also tells documents that a framework wrote, which are given back whole, from those of files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semsearch.errors import InvalidInput
from semsearch.types import Document, Hit, storable

__all__ = ["KEY", "PARENT", "Original", "is_whole", "keep", "passage_metadata", "restore"]

KEY = "__original"  # neither filters nor answers look at names that begin so
PARENT = "_parent"


@dataclass(frozen=True, slots=True)
class Original:
    """A document as a framework wrote it; `extra` is what it gave to be kept beside text and metadata."""

    id: str
    text: str
    metadata: dict[str, Any]
    extra: dict[str, Any]


def keep(
    document_id: str,
    text: str,
    metadata: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    *,
    parent: str | None = None,
) -> Document:
    """A document to be written to an index.

    Args:
        document_id: unique in the index.
        text: by which it is found.
        metadata: JSON-serialisable.
        extra: what else is kept; `text`, `id` or `metadata` in it are what comes back in place of those above.
        parent: id of what it was cut from, by which filters find it as `PARENT`.

    Raises:
        InvalidInput: it has no text, or metadata that would not come back from JSON as they were.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"the document {document_id!r} has no text; semsearch finds documents by their text")
    for name in {KEY, PARENT} & metadata.keys():
        raise InvalidInput(f"the document {document_id!r} has metadata {name!r}, a name that semsearch uses itself")
    try:
        written = json.dumps(dict(metadata), allow_nan=False)
        is_same = json.loads(written) == metadata
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the metadata of document {document_id!r} cannot be kept as JSON: {error}") from error
    if not is_same:
        raise InvalidInput(
            f"the metadata of document {document_id!r} would change in JSON, which knows lists, but no tuples, and "
            f"names that are strings: {dict(metadata)!r}"
        )
    original: dict[str, Any] = {}
    if storable(text) != text or storable(document_id) != document_id:
        original |= {"text": text, "id": document_id}
    if storable(json.dumps(dict(metadata), ensure_ascii=False)) != json.dumps(dict(metadata), ensure_ascii=False):
        original["metadata"] = dict(metadata)
    original |= extra or {}
    title = metadata.get("title")
    return Document(
        id=document_id,
        text=text,
        title=title if isinstance(title, str) else "",
        metadata={**metadata, KEY: json.dumps(original), **({} if parent is None else {PARENT: parent})},
    )


def is_whole(document: Document) -> bool:
    """Whether a framework wrote it."""
    return KEY in document.metadata


def restore(document: Document) -> Original:
    """The document as it was written; of one that came from elsewhere what there is."""
    extra = json.loads(document.metadata[KEY]) if is_whole(document) else {}
    metadata = {name: value for name, value in document.metadata.items() if name not in (KEY, PARENT)}
    if not is_whole(document):
        about = {"source": document.source, "title": document.title}
        metadata = {**{name: value for name, value in about.items() if value}, **metadata}
    return Original(
        extra.pop("id", document.id), extra.pop("text", document.text), extra.pop("metadata", metadata), extra
    )


def passage_metadata(hit: Hit) -> dict[str, Any]:
    """Metadata of a hit's document, and where in it the passage is; for documents that no framework wrote."""
    chunk = hit.chunk
    place = {"heading": chunk.heading, "page": chunk.page}
    return {
        **restore(hit.document).metadata,
        "document_id": hit.document.id,
        "chunk_id": chunk.id,
        "line_start": chunk.line_start,
        "line_end": chunk.line_end,
        **{name: value for name, value in place.items() if value},
    }
