"""What is gone made anew: vectors, of which all that a shard still proves is kept, and codes of tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.checksums import hash_key, text_hash
from semsearch.store.files import DATABASE, command
from semsearch.store.repairing import Repairs
from semsearch.token_keeping import check_gives_codes, embed_with_codes
from semsearch.types import Embedder, FloatArray, IntArray

__all__ = ["mend_codes", "mend_vectors"]

BATCH = 1_024  # texts encoded between two reports


def mend_vectors(
    repairs: Repairs,
    load: Callable[[], Embedder],
    damaged: Collection[str],
    on_encoded: Callable[[int, int], None] | None = None,
) -> int:
    """Bring the vectors of all visible chunks back into shards that can be read; one commit.

    What a run that was cut off had staged is forgotten, but for its vectors.

    Args:
        repairs: of the index.
        load: gives the encoder; called only if something has to be encoded.
        damaged: paths in the index of files of shards that are not what was written.
        on_encoded: called with the number of texts encoded so far and of all that have to be.

    Returns:
        How many vectors were encoded.

    Raises:
        IndexCorrupt: a text is not what was encoded.
        ModelError: the encoder cannot be found or run.
    """
    kept = repairs.kept_vectors(damaged)
    gone = np.setdiff1d(repairs.visible_vector_ids(), kept.ids)
    if not damaged and not len(gone):
        return 0
    rows = _encode(repairs, load, gone, on_encoded) if len(gone) else np.empty((0, kept.dim), dtype=np.float32)
    repairs.replace_shards(kept, gone, rows)
    return len(gone)


def mend_codes(
    repairs: Repairs, load: Callable[[], Embedder], on_encoded: Callable[[int, int], None] | None = None
) -> int:
    """Make codes of the tokens of all visible chunks that have none.

    Args:
        repairs: of the index.
        load: gives the encoder; called only if something has to be encoded.
        on_encoded: called with the number of texts encoded so far and of all that have to be.

    Returns:
        How many texts were encoded.

    Raises:
        IndexCorrupt: a text is not what was encoded.
        InvalidInput: the encoder does not give them.
        ModelError: the encoder cannot be found or run.
    """
    store = repairs.store
    visible = set(repairs.visible_vector_ids().tolist())
    ids = {known: i for i, known in store.rows("SELECT id, text_hash FROM vectors") if i in visible}
    missing = sorted(ids[known] for known in store.tokens.missing(ids))
    if not missing:
        return 0
    embedder = load()
    check_gives_codes(embedder)
    key = hash_key(embedder.fingerprint)
    for first in range(0, len(missing), BATCH):
        texts = _texts(repairs, missing[first : first + BATCH], key)
        _, codes = embed_with_codes(embedder, texts)
        store.tokens.add({text_hash(text, key): code for text, code in zip(texts, codes, strict=True)})
        if on_encoded is not None:
            on_encoded(min(first + BATCH, len(missing)), len(missing))
    return len(missing)


def _encode(
    repairs: Repairs,
    load: Callable[[], Embedder],
    ids: IntArray,
    on_encoded: Callable[[int, int], None] | None,
) -> FloatArray:
    embedder = load()
    key = hash_key(embedder.fingerprint)
    parts = []
    for first in range(0, len(ids), BATCH):
        part = ids[first : first + BATCH].tolist()
        texts = _texts(repairs, part, key)
        if len(texts) < len(part):
            raise _damaged(repairs, "passages are not where they should be")
        parts.append(embedder.embed_documents(texts))
        if on_encoded is not None:
            on_encoded(min(first + BATCH, len(ids)), len(ids))
    return np.concatenate(parts)


def _texts(repairs: Repairs, ids: Sequence[int], key: bytes) -> list[str]:
    """The texts that these vectors are of."""
    found = []
    for vector_id, text, known in repairs.texts_of_vectors(ids):
        if text_hash(text, key) != known:
            raise _damaged(repairs, f"a passage is not what was encoded (vector {vector_id})")
        found.append(text)
    return found


def _damaged(repairs: Repairs, what: str) -> IndexCorrupt:
    path = repairs.store.path
    return IndexCorrupt(f"{path / DATABASE} is damaged: {what}. Mend it with: {command('verify --repair', path)}")
