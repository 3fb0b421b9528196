"""Positions of ids: the same whether ids follow each other, have gaps, or lie far apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.store import positions
from semsearch.store.positions import Positions, find

IDS = st.integers(-(2**63), 2**63 - 1)
AMONG = {
    "none": [],
    "one": [7],
    "without gaps": range(5, 40),
    "with gaps": [3, 4, 6, 9, 10, 11, 14, 20],
    "far apart": [-(2**62), -5, 0, 1, 10**6, 2**62],
}


@pytest.mark.parametrize("among", AMONG.values(), ids=AMONG)
@given(st.lists(IDS | st.integers(-10, 50), max_size=30))
def test_ids_are_found_where_they_stand(among: list[int], asked: list[int]) -> None:
    ids, wanted = np.array(list(among), dtype=np.int64), np.array([*asked, *among], dtype=np.int64)
    place = {each: at for at, each in enumerate(among)}
    for at, is_there in (Positions(ids).find(wanted), find(ids, wanted)):
        assert is_there.tolist() == [each in place for each in wanted.tolist()]
        assert at[is_there].tolist() == [place[each] for each in wanted.tolist() if each in place]


def test_a_table_is_made_where_ids_lie_close(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("bisected")

    monkeypatch.setattr(positions, "find", refused)
    ids = np.arange(0, 1_000, 3, dtype=np.int64)
    assert Positions(ids).find(ids)[0].tolist() == list(range(len(ids)))
    with pytest.raises(AssertionError, match="bisected"):
        Positions(ids * 2).find(ids)
