"""What an index keeps of a passage beside its vector: codes of its tokens, so that no search waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from semsearch.encoders.token_codes import encode
from semsearch.errors import InvalidInput
from semsearch.types import Embedder, FloatArray

__all__ = ["check_gives_codes", "embed_with_codes"]

TEXTS_AT_ONCE = 128  # whose vectors of tokens, in float32, are made together: 50 MB


def check_gives_codes(embedder: Embedder) -> None:
    """Make sure that a model tells the vectors of a passage's tokens together with its own.

    Raises:
        InvalidInput: it does not.
    """
    if not hasattr(embedder, "embed_with_tokens"):
        raise InvalidInput(
            f"{embedder.name} does not give vectors of tokens together with a passage's; index without token vectors"
        )


def embed_with_codes(embedder: Embedder, texts: Sequence[str]) -> tuple[FloatArray, list[bytes]]:
    """Vectors of passages, float32 (n, dim), and the codes of each one's tokens."""
    rows, codes = [np.empty((0, embedder.dim), dtype=np.float32)], list[Future[list[bytes]]]()
    with ThreadPoolExecutor(1, thread_name_prefix="codes") as pool:  # the model's own work needs no interpreter
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[first : first + TEXTS_AT_ONCE]
            vectors, tokens = embedder.embed_with_tokens(part)  # type: ignore[attr-defined]
            rows.append(vectors)
            codes.append(pool.submit(_codes, tokens))
    return np.concatenate(rows), [of_text for part_codes in codes for of_text in part_codes.result()]


def _codes(tokens: Sequence[FloatArray]) -> list[bytes]:
    return [encode(rows) for rows in tokens]
