"""Vectors of tokens in two bits a component: small, near to what they were, the same bytes for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from semsearch.encoders.token_codes import _turned, best_cosines, encode
from semsearch.types import FloatArray


def unit_rows(n: int, dim: int, seed: int = 0) -> FloatArray:
    """Random, with one component that is large in all of them, as in models' vectors."""
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    rows[:, 0] += np.sqrt(dim) / 2
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dim", [6, 312, 384, 1024])
def test_products_are_near_to_what_they_were(dim: int) -> None:
    texts = [unit_rows(n, dim, seed) for seed, n in enumerate((1, 40, 90))]
    queries = unit_rows(7, dim, seed=9)
    codes = [encode(rows) for rows in texts]
    assert [len(of_text) for of_text in codes] == [len(rows) * (-(-dim // 4) + 2) for rows in texts]
    found = best_cosines(queries, codes)
    assert found.shape == (3, 7) and found.dtype == np.float32
    noise = 0.36 / np.sqrt(dim)  # of the part of a query that is at right angles to a row
    assert found[0] == pytest.approx(texts[0][0] @ queries.T, abs=5 * noise)
    for rows, best in zip(texts[1:], found[1:], strict=True):
        assert np.abs(best - (rows @ queries.T).max(axis=0)).max() < 5 * noise
    itself = best_cosines(texts[1], [codes[1]])[0]
    assert itself.min() > 0.99  # of a row with itself nothing is lost


def test_errors_nearly_cancel_each_other_out() -> None:
    rows, queries = unit_rows(2_000, 384), unit_rows(20, 384, seed=1)
    found = best_cosines(queries, [encode(rows[i : i + 1]) for i in range(len(rows))])
    errors = found - rows @ queries.T
    assert abs(errors.mean()) < 0.005 and 0.01 < errors.std() < 0.03


def test_a_text_without_tokens_is_like_nothing() -> None:
    assert encode(np.empty((0, 384), dtype=np.float32)) == b""
    assert best_cosines(unit_rows(2, 384), [b"", encode(unit_rows(1, 384))])[0].tolist() == [-1.0, -1.0]
    assert best_cosines(unit_rows(2, 384), []).shape == (0, 2)
    assert np.isfinite(best_cosines(unit_rows(2, 8), [encode(np.zeros((1, 8), dtype=np.float32))])).all()
    odd = encode(unit_rows(1, 384))[:-1]  # which nobody wrote
    assert best_cosines(unit_rows(2, 384), [odd]).tolist() == [[-1.0, -1.0]]


@pytest.mark.parametrize("dim", [1, 6, 8, 312, 384, 768])
def test_turning_keeps_all_products(dim: int) -> None:
    rows = unit_rows(30, dim)
    turned = _turned(rows)
    assert turned @ turned.T == pytest.approx(dim * (rows @ rows.T), rel=1e-4, abs=1e-4 * dim)
    assert np.abs(turned).max() < 6  # no component stands out any more


def test_bytes_that_lie_on_a_disk_mean_the_same_in_every_version() -> None:
    """Where this fails, `store.tokens.VERSION` has to be raised."""
    rows = np.sin(np.arange(12 * 384, dtype=np.float64) ** 1.5).reshape(12, 384).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    codes = encode(rows)[: 12 * 96]  # scales may differ in their last bit where sums are made in another order
    assert hashlib.sha256(codes).hexdigest() == "ceecfa816cae4e43fe6e1a3d54c93fc4dcc54a918b88e2c8ff9c503a981bf486"
