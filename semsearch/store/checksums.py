"""Checksums against damage: of files, of vectors, of records. They find accidents, not somebody who means to deceive.

A change within one 64-bit word of a file or a vector always shows; of larger ones one in 2^64 does not.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semsearch.types import FloatArray, IntArray

__all__ = ["HASH_BYTES", "SumArray", "checksum_file", "checksum_record", "checksum_rows", "hash_key", "text_hash"]

SumArray = npt.NDArray[np.uint64]

HASH_BYTES = 16
RECORD_BYTES = 8
ROW_WORDS = 509  # prime, so that equal sectors or pages that change places do not cancel each other out
BLOCK_ROWS = 256


def checksum_file(path: Path) -> tuple[int, bytes]:
    """(size in bytes, checksum) of a file, at the speed of main memory: a hash of sums over columns of words.

    Raises:
        FileNotFoundError: there is none.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    size = path.stat().st_size
    if size:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        row_bytes = ROW_WORDS * 8
        for first in range(0, size, BLOCK_ROWS * row_bytes):
            block = data[first : first + BLOCK_ROWS * row_bytes]
            whole = len(block) // row_bytes * row_bytes
            sums = block[:whole].view(np.uint64).reshape(-1, ROW_WORDS).sum(axis=0, dtype=np.uint64)
            digest.update(sums.tobytes())
            digest.update(block[whole:].tobytes())
    return size, digest.digest()


def checksum_rows(ids: IntArray, rows: FloatArray) -> SumArray:
    """uint64 (n,) of int64 (n,) ids and float32 (n, dim) rows: the sum of words times odd constants, modulo 2^64."""
    n, dim = rows.shape
    if dim % 2:
        rows = np.concatenate([rows, np.zeros((n, 1), dtype=np.float32)], axis=1)
    words = np.ascontiguousarray(rows, dtype="<f4").view(np.uint64)
    factors = _odd_numbers(words.shape[1] + 1)
    sums: SumArray = np.einsum("ij,j->i", words, factors[1:])
    sums += ids.astype(np.uint64) * factors[0]
    return sums


def checksum_record(values: Iterable[object]) -> bytes:
    """Of the columns of a row."""
    text = "\x1f".join(map(str, values))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=RECORD_BYTES).digest()


def hash_key(fingerprint: str) -> bytes:
    """What `text_hash` is keyed with for a model, so that vectors of two models are never mixed up."""
    return hashlib.sha256(fingerprint.encode()).digest()[:HASH_BYTES]


def text_hash(text: str, key: bytes) -> bytes:
    """By which a text's vector is known."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=HASH_BYTES, key=key).digest()


@functools.cache
def _odd_numbers(n: int) -> SumArray:
    """uint64 (n,), odd and without pattern: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)
