"""Messages between the pool and its workers: a length of four bytes, then JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from semsearch.types import Document, Heading

__all__ = ["FRAME_CHARS", "batches", "decode_frame", "read_frame", "to_document", "write_frame"]

FRAME_CHARS = 1_000_000
"""Documents are sent together until their texts reach this; a longer document travels alone."""

_LENGTH = struct.Struct(">I")


def read_frame(stream: BinaryIO) -> bytes | None:
    """Read one message's JSON; None at the end of the stream, also in the middle of a message."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (n_bytes,) = _LENGTH.unpack(header)
    body = stream.read(n_bytes)
    return body if len(body) == n_bytes else None


def decode_frame(body: bytes) -> Any:
    """The value of a message."""
    return json.loads(body.decode("utf-8", "surrogatepass"))


def write_frame(stream: BinaryIO, message: Any) -> None:
    """Write one message and flush; surrogates in undecodable paths survive."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    stream.write(_LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def batches(documents: Iterator[Document]) -> Iterator[list[list[Any]]]:
    """Gather documents, as plain lists, into messages of about `FRAME_CHARS` characters."""
    batch: list[list[Any]] = []
    n_chars = 0
    for document in documents:
        batch.append(_from_document(document))
        n_chars += len(document.text) + 200
        if n_chars >= FRAME_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch


def _from_document(document: Document) -> list[Any]:
    outline = [(heading.start, heading.level, heading.title) for heading in document.outline]
    return [
        document.id,
        document.text,
        document.title,
        document.source,
        dict(document.metadata),
        outline,
        document.page_starts,
    ]


def to_document(values: list[Any]) -> Document:
    """The document of one entry of a message."""
    document_id, text, title, source, metadata, outline, page_starts = values
    return Document(
        id=document_id,
        text=text,
        title=title,
        source=source,
        metadata=metadata,
        outline=tuple(Heading(start, level, words) for start, level, words in outline),
        page_starts=tuple(page_starts),
    )
