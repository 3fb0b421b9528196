from __future__ import annotations

import pytest

from semsearch.errors import InvalidInput
from semsearch.ranking.fusion import DENSE_WEIGHT, dense_weight, fuse


def test_fuse_adds_weighted_normalised_scores() -> None:
    found = fuse({1: 0.5, 2: 0.4, 3: -0.2}, {2: 6.0, 4: 3.0}, weight=0.8)
    assert [i for i, _ in found] == [2, 1, 4]  # nothing speaks for 3
    assert dict(found) == pytest.approx({1: 0.8 * 0.5, 2: 0.8 * 0.4 + 0.2, 4: 0.2 * 0.5})


def test_ties_go_to_the_smaller_id() -> None:
    assert [i for i, _ in fuse({9: 0.5, 3: 0.5, 5: 0.5}, {}, weight=1.0)] == [3, 5, 9]


def test_nothing_to_fuse() -> None:
    assert fuse({}, {}, weight=0.5) == []
    assert fuse({1: -0.5}, {1: 0.0}, weight=0.5) == []


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match=str(weight)):
        fuse({}, {}, weight=weight)


def test_a_query_the_model_cannot_read_is_left_to_its_words() -> None:
    assert dense_weight(0.0) == DENSE_WEIGHT
    assert 0 < dense_weight(0.15) < DENSE_WEIGHT
    assert dense_weight(0.3) == dense_weight(1.0) == 0.0
