"""Batches: every text once, none too large, lengths padded to whole steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.encoders.batching import (
    PACKED_STEP,
    model_inputs,
    packed_inputs,
    packs,
    padded_length,
    placed,
    token_budget_batches,
)


@given(st.lists(st.integers(0, 90), max_size=60), st.integers(1, 200), st.sampled_from([1, 16]))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int, step: int) -> None:
    batches = [batch.tolist() for batch in token_budget_batches(lengths, budget, step=step)]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        width = padded_length(max(lengths[i] for i in batch), step)
        assert len(batch) == 1 or len(batch) * width <= budget
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)


def test_inputs_are_padded_to_a_whole_step_and_masked() -> None:
    ids, types = [[5, 6, 7], [8], [9, 9]], [[0, 0, 1], [0], [0, 1]]
    padded, mask, kinds = model_inputs(ids, types, np.array([2, 0]), step=4)
    assert padded.tolist() == [[9, 9, 0, 0], [5, 6, 7, 0]]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert kinds.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert [a.tolist() for a in model_inputs(ids, None, np.array([1]))] == [[[8]], [[1]]]


def test_rows_go_back_to_their_places() -> None:
    parts = [(np.array([2, 0]), np.array([[2.0], [0.0]], dtype=np.float32)), (np.array([1]), np.ones((1, 1), "f4"))]
    assert placed(parts, 3).ravel().tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("n_tokens", "step", "expected"), [(1, 16, 16), (16, 16, 16), (17, 16, 32), (5, 1, 5)])
def test_padded_length(n_tokens: int, step: int, expected: int) -> None:
    assert padded_length(n_tokens, step) == expected


@given(st.lists(st.integers(1, 90), max_size=60), st.integers(1, 200))
def test_packs_hold_every_text_once_in_order_within_the_budget(lengths: list[int], budget: int) -> None:
    found = list(packs(lengths, budget))
    assert [i for texts, _ in found for i in texts] == list(range(len(lengths)))
    for n, (texts, starts) in enumerate(found):
        ends = [start + lengths[i] for i, start in zip(texts, starts.tolist(), strict=True)]
        assert starts[0] == 0 and not (starts % PACKED_STEP).any()
        assert all(end <= start < end + PACKED_STEP for end, start in zip(ends, starts[1:].tolist(), strict=False))
        assert len(texts) == 1 or ends[-1] <= budget
        if n:  # the text would not have found room in the row before
            before, at = found[n - 1]
            assert padded_length(int(at[-1]) + lengths[before[-1]], PACKED_STEP) + lengths[texts[0]] > budget


def test_packed_inputs_tell_texts_and_places_apart() -> None:
    ids, positions, texts = packed_inputs([[5, 6, 7], [8], [9, 4]], np.array([0, 4, 6]), step=4)
    assert ids.tolist() == [[5, 6, 7, 0, 8, 0, 9, 4]]
    assert positions.tolist() == [[0, 1, 2, 0, 0, 0, 0, 1]]
    assert texts.tolist() == [[0, 0, 0, -1, 1, -1, 2, 2]]
    assert [a.shape for a in packed_inputs([[5, 6, 7]], np.array([0]), step=16)] == [(1, 16)] * 3
