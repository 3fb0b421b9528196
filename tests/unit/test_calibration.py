"""Probabilities of hits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index
from semsearch.errors import InvalidInput
from semsearch.ranking.calibration import CALIBRATIONS, NOTHING_RELEVANT, Calibration
from semsearch.store.lexical import LexicalEntry, LexicalIndex, LexicalWriter
from semsearch.types import Scores

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "calibration.json"


def test_probability_is_the_logistic_of_the_weighted_features():
    calibration = Calibration(intercept=-2.0, dense=3.0, coverage=1.0, log_rank=-0.5, rerank=4.0, unread=0.25)
    odds = -2.0 + 3.0 * 0.6 + 1.0 * 0.5 - 0.5 * math.log(2) + 4.0 * 0.7
    found = calibration.probability(2, 0.5, Scores(dense=0.6, rerank=0.7))
    assert found == pytest.approx(1 / (1 + math.exp(-odds)))
    unread = calibration.probability(2, 0.5, Scores(dense=0.6))
    assert unread == pytest.approx(1 / (1 + math.exp(-(odds - 4.0 * (0.7 - 0.25)))))
    assert calibration.probability(1, 1.0, Scores(lexical=3.0)) is None


def test_extreme_scores_stay_probabilities():
    calibration = Calibration(intercept=0.0, dense=1e6, coverage=0.0, log_rank=0.0)
    assert 0.0 <= calibration.probability(1, 0.0, Scores(dense=-1.0)) < 1e-9
    assert calibration.probability(1, 0.0, Scores(dense=1.0)) == pytest.approx(1.0)


def test_more_of_anything_but_rank_is_more_probable():
    for with_late_interaction, without in CALIBRATIONS.values():
        for calibration in (with_late_interaction, without):
            assert min(calibration.dense, calibration.coverage) > 0 > calibration.log_rank
        assert with_late_interaction.rerank > 0 and without.rerank is None


@pytest.mark.skipif(not RESULTS.exists(), reason="benchmarks/calibration.py was not run")
def test_what_is_used_is_what_the_benchmark_fitted():
    rows = json.loads(RESULTS.read_text())["rows"]
    for calibration, row in zip(next(iter(CALIBRATIONS.values())), rows, strict=True):
        for name, value in row["fitted"].items():
            assert getattr(calibration, name) == pytest.approx(value, abs=1e-3), name


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
