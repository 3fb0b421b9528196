"""Probabilities of hits that the packaged model finds."""

from __future__ import annotations

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index
from semsearch.ranking.calibration import CALIBRATIONS, NOTHING_RELEVANT


def seas(n):
    """Documents that each say something else of the sea, and one of a refund."""
    names = [
        f"{a}{b}" for a in ("al", "be", "ce", "du", "en", "fo") for b in ("ra", "te", "lo", "mi", "su", "no", "pa")
    ]
    texts = [f"The {names[i % 42]} sea meets the {names[i // 42]} coast." for i in range(n - 1)]
    return [Document(str(i), text, metadata={"n": i}) for i, text in enumerate([*texts, "Refunds take two weeks."])]


def searched(index, n):
    build_index(seas(n), index=index)
    return Searcher.open(index)


def test_probabilities_of_hits_are_those_of_the_calibration(tmp_path):
    query = "which sea meets the coast"
    with searched(tmp_path / "index", 150) as searcher:
        calibration = CALIBRATIONS[searcher.embedder.description["weights_sha256"]][1]
        hits = searcher.search(query, rerank=False, fold=False)
        vector = searcher.embedder.embed_queries([query])[0]
        with searcher._index.state() as state:
            cosines = np.sort(state.vectors.get(state.vectors.ids) @ vector)
            coverage = state.lexical.coverage(query, [hit.chunk.id for hit in hits])
    expected = calibration.probabilities([hit.scores for hit in hits], coverage, float(cosines[-100]))
    assert [hit.probability for hit in hits] == pytest.approx(expected, abs=1e-3)
    other = calibration.probabilities([hit.scores for hit in hits], coverage, float(cosines[-100]) - 0.1)
    assert expected != pytest.approx(other, abs=1e-2)


def test_one_passage_more_changes_little(tmp_path):
    """Where all are nearly as near: the hundredth counts for as much as the ninety-ninth did when it was the last."""
    found = []
    for n in (99, 100, 101):
        build_index(seas(102)[:n], index=tmp_path / "index")
        with Searcher.open(tmp_path / "index") as searcher:
            found.append(searcher.search("which sea meets the coast", k=1, rerank=False, min_probability=0)[0])
    assert len({hit.chunk.text for hit in found}) == 1
    assert np.ptp([hit.probability for hit in found]) < 0.03


def test_a_filter_that_leaves_the_first_hit_changes_none_of_its_probability(tmp_path):
    query = "does the alsu sea meet the allo coast"
    with searched(tmp_path / "index", 150) as searcher:
        (best,) = searcher.search(query, k=1)
        number = best.document.metadata["n"]
        for where in (f"n = {number}", f"n >= {number}", f"n <= {number + 3}"):
            (hit,) = searcher.search(query, k=1, where=where)
            assert hit.chunk.id == best.chunk.id
            assert hit.probability == pytest.approx(best.probability, abs=0.02)


def test_the_one_passage_of_an_index_may_be_an_answer(tmp_path):
    with searched(tmp_path / "index", 1) as searcher:
        (hit,) = searcher.search("when do I get my money back?")
        assert hit.probability > 0.3
        others = searcher.search("how long does the train take")
        assert others and all(hit.probability < NOTHING_RELEVANT for hit in others)
