"""Probabilities of hits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index
from semsearch.errors import InvalidInput
from semsearch.ranking.calibration import CALIBRATIONS, NOTHING_RELEVANT, Calibration, Odds
from semsearch.store.lexical import LexicalEntry, LexicalIndex, LexicalWriter
from semsearch.types import Scores

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "calibration.json"


def logistic(odds):
    return 1 / (1 + math.exp(-odds))


def test_probability_is_that_of_an_answer_times_that_of_the_hit():
    answered = Odds(intercept=-1.0, dense=2.0, coverage=3.0, rerank=0.5)
    relevant = Odds(intercept=-2.0, dense=3.0, coverage=1.0, rerank=4.0, log_rank=-0.5, hundredth=-2.0)
    hits = [Scores(dense=0.6, rerank=0.7), Scores(dense=0.4, rerank=0.5), Scores(dense=0.3)]
    found = Calibration(answered, relevant, unread=0.25).probabilities(hits, [0.5, 1.0, 0.0], 0.2)
    of_answer = logistic(-1.0 + 2.0 * 0.6 + 3.0 * 0.5 + 0.5 * 0.7)
    first = -2.0 + 3.0 * 0.6 + 1.0 * 0.5 + 4.0 * 0.7 - 2.0 * 0.2
    second = -2.0 + 3.0 * 0.4 + 1.0 * 1.0 + 4.0 * 0.5 - 0.5 * math.log(2) - 2.0 * 0.2
    unread = -2.0 + 3.0 * 0.3 + 4.0 * 0.25 - 0.5 * math.log(3) - 2.0 * 0.2
    assert found == pytest.approx([of_answer * logistic(odds) for odds in (first, second, unread)])


def test_without_cosines_there_is_no_probability():
    calibration = Calibration(Odds(0.0, 1.0, 1.0), Odds(0.0, 1.0, 1.0))
    assert calibration.probabilities([Scores(lexical=3.0)], [1.0], math.nan) == [None]
    assert calibration.probabilities([], [], math.nan) == []


def test_extreme_scores_stay_probabilities():
    sure, steep = Odds(intercept=800.0, dense=0.0, coverage=0.0), Odds(intercept=0.0, dense=1e6, coverage=0.0)
    (least,) = Calibration(sure, steep).probabilities([Scores(dense=-1.0)], [0.0], 0.0)
    (most,) = Calibration(sure, steep).probabilities([Scores(dense=1.0)], [0.0], 0.0)
    assert 0.0 <= least < 1e-9 and most == pytest.approx(1.0)


def test_more_of_anything_is_more_probable_but_for_what_many_have():
    for with_late_interaction, without in CALIBRATIONS.values():
        for calibration in (with_late_interaction, without):
            assert min(calibration.answered.dense, calibration.answered.coverage) > 0
            assert min(calibration.relevant.dense, calibration.relevant.coverage) > 0
            assert max(calibration.relevant.log_rank, calibration.relevant.hundredth) < 0
        assert min(with_late_interaction.answered.rerank, with_late_interaction.relevant.rerank) > 0
        assert without.answered.rerank == without.relevant.rerank == 0


@pytest.mark.skipif(not RESULTS.exists(), reason="benchmarks/calibration.py was not run")
def test_what_is_used_is_what_the_benchmark_fitted():
    rows = json.loads(RESULTS.read_text())["rows"]
    for calibration, row in zip(next(iter(CALIBRATIONS.values())), rows, strict=True):
        for part in ("answered", "relevant"):
            for name, value in row["fitted"][part].items():
                assert getattr(getattr(calibration, part), name) == pytest.approx(value, abs=1e-3), name
        assert calibration.unread == row["fitted"].get("unread", 0.0)


def test_coverage_weighs_terms_by_how_rare_they_are(tmp_path):
    writer = LexicalWriter(tmp_path)
    texts = ["the river flows", "stones, and the river", "the cloud"]
    writer.add(LexicalEntry(i, text, "") for i, text in enumerate(texts, start=1))
    writer.commit()
    writer.close()
    index = LexicalIndex(tmp_path)
    river, stone = (math.log(1 + (3 - n + 0.5) / (n + 0.5)) for n in (2, 1))
    assert index.coverage("rivers stone", [2, 1, 3]) == pytest.approx([1.0, river / (river + stone), 0.0])
    assert index.coverage("?!", [1]) == [0.0] and index.coverage("river", []) == []
    unknown = math.log(1 + 3.5 / 0.5)
    assert index.coverage("river zeppelin", [1]) == pytest.approx([river / (river + unknown)])


def test_models_that_were_not_calibrated_give_no_probabilities(toy):
    build_index([Document("a", "river stone")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        (hit,) = searcher.search("river", min_probability=0.9)
        assert hit.probability is None
        with pytest.raises(InvalidInput, match=r"min_probability = 1\.5: give a number from 0 to 1"):
            searcher.search("river", min_probability=1.5)
    assert 0 < NOTHING_RELEVANT < 0.5
