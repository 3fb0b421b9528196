"""Vectors of tokens in two bits a component, so that those of every passage fit on a disk.

A row is turned by a fixed rotation, which spreads what a few components hold over all of them; then each component is
one of four levels that suit a normal distribution, and the row has a scale of its own.

Source: levels of Max, "Quantizing for Minimum Distortion", IRE Transactions 1960, doi:10.1109/TIT.1960.1057548;
    rotation and scale as of Gao and Long, "RaBitQ", SIGMOD 2024, doi:10.1145/3654970.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from semsearch.products import each_with_each
from semsearch.types import FloatArray

__all__ = ["best_cosines", "cosines", "encode"]

INNER, OUTER = 0.4528, 1.5104  # levels, in standard deviations
BETWEEN = 0.9816  # of the two
PER_BYTE = 4  # components
GOLDEN_RATIO = (1 + 5**0.5) / 2
SCALE = np.dtype("<f2")  # of a row


def encode(rows: FloatArray) -> bytes:
    """Codes of float32 (n, dim) unit rows, of n * (dim / 4 + 2) bytes."""
    dim = rows.shape[1]
    turned = _turned(rows)
    turned = np.pad(turned, ((0, 0), (0, -dim % PER_BYTE))) if dim % PER_BYTE else turned
    sizes = np.abs(turned)
    is_outer = sizes > BETWEEN
    levels = is_outer + 2 * (turned > 0).view(np.uint8)
    codes = functools.reduce(np.bitwise_or, (levels[:, i::PER_BYTE] << np.uint8(2 * i) for i in range(PER_BYTE)))
    # So scaled, the product with the row itself is what it was, and on average that with any other is.
    kept = INNER * sizes.sum(axis=1) + (OUTER - INNER) * np.einsum("nd,nd->n", sizes, is_outer.astype(np.float32))
    lengths = np.einsum("nd,nd->n", sizes, sizes)
    scales = lengths / np.maximum(kept, np.finfo(np.float32).tiny) / np.sqrt(dim)
    return bytes(codes.tobytes() + scales.astype(SCALE).tobytes())


def best_cosines(queries: FloatArray, texts: Sequence[bytes]) -> FloatArray:
    """What each row finds in each text: float32 (n, q) greatest products, -1 for a text without tokens.

    Args:
        queries: float32 (q, dim) unit rows.
        texts: codes of n texts.
    """
    found = np.full((len(texts), len(queries)), -1.0, dtype=np.float32)
    for row, products in zip(found, cosines(queries, texts), strict=True):
        if len(products):
            row[:] = products.max(axis=0)
    return found


def cosines(queries: FloatArray, texts: Sequence[bytes]) -> Iterator[FloatArray]:
    """Of each text, float32 (n_tokens, q) products of its tokens and float32 (q, dim) unit rows."""
    dim = queries.shape[1]
    width = -(-dim // PER_BYTE)
    turned = np.pad(_turned(queries), ((0, 0), (0, -dim % PER_BYTE))) / np.float32(np.sqrt(dim))
    for codes in texts:
        levels, scales = _parts(codes, width)
        yield each_with_each(levels, turned) * scales[:, np.newaxis]


def _parts(codes: bytes, width: int) -> tuple[FloatArray, FloatArray]:
    """Levels (n, 4 * width) and scales (n,)."""
    n, rest = divmod(len(codes), width + SCALE.itemsize)
    if rest:  # nobody wrote these, whatever their checksum says
        n, codes = 0, b""
    scales = np.frombuffer(codes, dtype=SCALE, offset=n * width).astype(np.float32)
    return _levels(np.frombuffer(codes, dtype=np.uint8, count=n * width).reshape(n, width)), scales


def _levels(codes: npt.NDArray[np.uint8]) -> FloatArray:
    rows: FloatArray = _LEVELS.take(codes, axis=0)  # in a tenth of the time of indexing
    return np.asarray(rows, dtype=np.float32).reshape(len(codes), 4 * codes.shape[1])


def _all_levels() -> FloatArray:
    """float32 (256, 4): what each byte stands for."""
    levels = np.array([-INNER, -OUTER, INNER, OUTER], dtype=np.float32)
    bits = np.arange(256)[:, np.newaxis] >> np.arange(0, 2 * PER_BYTE, 2)
    return np.asarray(levels[bits & 3])


_LEVELS = _all_levels()


def _turned(rows: FloatArray) -> FloatArray:
    """float32 (n, dim) rows times the root of `dim`, turned: signs, Hadamard's transform of blocks, a cosine transform.

    The last is over the blocks, whose number is the odd part of `dim`.
    """
    n, dim = rows.shape
    n_blocks, signs, transform = _transforms(dim)
    turned, width = (rows * signs).T.copy(), n  # components of one kind lie side by side
    while width < n * (dim // n_blocks):  # in a twentieth of the additions of a product with a matrix, on one thread
        halves = turned.reshape(-1, 2, width)
        turned = np.concatenate([halves[:, :1] + halves[:, 1:], halves[:, :1] - halves[:, 1:]], axis=1)
        width *= 2
    if n_blocks > 1:
        turned = np.einsum("bk,kw->bw", transform, turned.reshape(n_blocks, -1))
    return np.ascontiguousarray(turned.reshape(dim, n).T)


@functools.cache
def _transforms(dim: int) -> tuple[int, FloatArray, FloatArray]:
    """(number of blocks, signs (dim,), cosine transform (blocks, blocks) times the root of its size)."""
    n_blocks = dim // (dim & -dim)
    at = np.arange(n_blocks)
    transform = np.cos(np.pi / n_blocks * np.outer(at, at + 0.5)) * np.sqrt(2)
    transform[0] = 1
    signs = np.where(np.arange(1, dim + 1) * GOLDEN_RATIO % 1 < 0.5, 1.0, -1.0)  # without a pattern that blocks have
    return n_blocks, signs.astype(np.float32), transform.astype(np.float32)
