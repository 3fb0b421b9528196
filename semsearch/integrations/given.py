"""Writing documents with vectors that came with them, and making sure that one text has one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semsearch.errors import IndexIncompatible, InvalidInput
from semsearch.integrations.foreign import GivenVectors, unit_rows
from semsearch.integrations.kept import KeptIndex
from semsearch.types import Document, FloatArray, storable

__all__ = ["write_given"]

SAME = 0.99  # cosine; services give a text slightly different vectors from call to call


def write_given(
    kept: KeptIndex, embedder: GivenVectors, documents: Sequence[Document], vectors: Sequence[Sequence[float]]
) -> None:
    """Add documents, or replace those with the same ids; each is one passage, with the vector that came with it.

    An index keeps one vector a text, so documents with the same text share it.

    Args:
        kept: the index.
        embedder: that of the index; what it is called and how many components its vectors have.
        documents: what is written.
        vectors: (n, dim), of any length but 0.

    Raises:
        InvalidInput: a vector has another number of components, or one text came with two vectors.
        IndexIncompatible: the index has another vector for a text.
    """
    rows = unit_rows(vectors, embedder.dim)
    of_text: dict[str, FloatArray] = {}
    for document, row in zip(documents, rows, strict=True):
        if _differ(of_text.setdefault(storable(document.text).strip(), row), row):
            raise InvalidInput(
                f"the document {document.id!r} has the text of another one, {document.text[:80]!r}, but another "
                "vector; the index keeps one vector a text, so let the text say what differs, or the vectors be equal"
            )
    with kept.searcher() as searcher:
        known = searcher.known_vectors(list(of_text)) if searcher else {}
    for text, row in known.items():
        if _differ(row, of_text[text]):
            raise IndexIncompatible(
                f"{kept.path} has another vector for {text[:80]!r} than the one that came with it now (cosine "
                f"{float(row @ of_text[text]):.2f}); another model made it. Use one index for each model, or remove "
                "all documents before"
            )
    kept.write(documents, embedder=GivenVectors(embedder.dim, embedder.name, of_text))


def _differ(one: FloatArray, other: FloatArray) -> bool:
    return float(np.dot(one, other)) < SAME
