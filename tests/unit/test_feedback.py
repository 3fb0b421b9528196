"""A query moved towards the passages that both legs find first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semsearch.ranking.candidates import Candidates
from semsearch.ranking.feedback import agreement, feedback_vector
from semsearch.ranking.reranking import late_parts, reranked, smoothed

NONE = float("nan")


def candidates(vectors, dense, lexical, fused, vector_ids=None):
    n = len(vectors)
    ids = vector_ids or range(1, n + 1)
    made = Candidates.of(
        [(10 + i, 1, v) for i, v in zip(range(n), ids, strict=True)],
        np.array(vectors, dtype=np.float32),
        np.array(dense, dtype=np.float64),
        np.array(lexical, dtype=np.float64),
    )
    scores = np.array(fused, dtype=np.float64)
    return replace(made, fused=scores, relevance=scores)


QUERY = np.array([1.0, 0.0, 0.0], dtype=np.float32)
A, B, C, D = (0.6, 0.8, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)


def test_the_query_moves_a_quarter_of_the_way_to_the_weighted_mean_of_the_first_three():
    found = candidates([A, B, C, D], [0.6, 0.3, 0.2, 0.1], [4, 3, 2, 1], [0.5, 0.3, 0.2, 0.1])
    moved = QUERY + 0.25 * (0.5 * np.array(A) + 0.3 * np.array(B) + 0.2 * np.array(C))
    assert feedback_vector(QUERY, found) == pytest.approx(moved / np.linalg.norm(moved), abs=1e-6)


def test_it_moves_less_where_the_legs_agree_less():
    found = candidates([A, B, C], [0.6, 0.3, 0.2], [4, NONE, NONE], [0.5, 0.3, 0.2])
    moved = QUERY + 0.25 / 3 * (0.5 * np.array(A) + 0.3 * np.array(B) + 0.2 * np.array(C))
    assert agreement(found, np.arange(3)) == pytest.approx(1 / 3)
    assert feedback_vector(QUERY, found) == pytest.approx(moved / np.linalg.norm(moved), abs=1e-6)


def test_it_stays_where_the_legs_agree_on_nothing():
    found = candidates([A, B, C], [0.6, 0.3, 0.2], [NONE, NONE, NONE], [0.5, 0.3, 0.2])
    assert feedback_vector(QUERY, found) is QUERY
    assert feedback_vector(QUERY, found.take([])) is QUERY


def test_only_the_first_ten_of_a_leg_are_its_approval():
    rows = [[1.0, 0.0, 0.0]] * 12
    found = candidates(rows, np.linspace(0.9, 0.1, 12), np.linspace(1, 12, 12), np.linspace(0.9, 0.1, 12))
    assert agreement(found, np.array([0, 1, 2])) == pytest.approx(1 / 3)  # BM25 puts the first two 12th and 11th


def test_copies_of_one_text_speak_once():
    found = candidates([A, A, B], [0.6, 0.6, 0.3], [4, 4, 3], [0.5, 0.5, 0.3], vector_ids=[7, 7, 9])
    moved = QUERY + 0.25 * (0.5 * np.array(A) + 0.3 * np.array(B)) / 0.8
    assert feedback_vector(QUERY, found) == pytest.approx(moved / np.linalg.norm(moved), abs=1e-6)


def test_reranked_candidates_come_first_and_the_others_keep_their_order():
    found = candidates([A, B, C, D], [0.6, 0.3, 0.2, 0.1], [4, 3, 2, 1], [0.9, 0.8, 0.7, 0.2])
    done = reranked(found, np.array([0.1, 0.9]), {"a": np.array([0.4, 0.05]), "b": np.array([0.1, 0.8])})
    assert done.ids.tolist() == [11, 10, 12, 13]
    assert done.relevance.tolist() == pytest.approx(
        [0.85, 0.5, 0.5, 0.2]
    )  # what was not read is no better than what was
    assert done.rerank[:2].tolist() == [0.9, 0.1] and np.isnan(done.rerank[2:]).all()
    assert done.fused.tolist() == [0.8, 0.9, 0.7, 0.2]
    assert {name: part[:2].tolist() for name, part in done.parts.items() if part[:2].any()} == {
        "a": [0.05, 0.4],
        "b": [0.8, 0.1],
    }
    assert done.parts["limit"].tolist() == pytest.approx([0, 0, -0.2, 0])


def test_equal_scores_go_to_the_smaller_id_and_none_changes_nothing():
    found = candidates([A, B], [0.6, 0.3], [4, 3], [0.9, 0.8])
    assert reranked(found, np.array([1.0, 1.0]), {"a": np.array([1.0, 1.0])}).ids.tolist() == [10, 11]
    untouched = reranked(found, np.array([]), {"a": np.array([])})
    assert untouched.ids.tolist() == [10, 11] and untouched.relevance.tolist() == [0.9, 0.8]


def test_a_score_moves_a_fifth_of_the_way_to_the_mean_of_the_three_nearest():
    angles = np.radians([0, 10, 25, 45, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    scores = np.array([0.1, 0.9, 0.5, 0.7, 0.3])
    near = {0: (1, 2, 3), 1: (0, 2, 3), 2: (1, 3, 0), 3: (2, 1, 0), 4: (3, 2, 1)}
    expected = []
    for row, others in near.items():
        cosines = [np.cos(angles[row] - angles[other]) for other in others]
        mean = sum(c * scores[other] for c, other in zip(cosines, others, strict=True)) / sum(cosines)
        expected.append(0.8 * scores[row] + 0.2 * mean)
    assert smoothed(scores, vectors) == pytest.approx(expected, abs=1e-6)


def test_passages_without_neighbours_keep_their_scores():
    scores = np.array([0.5, 0.4, 0.3, 0.2])
    assert smoothed(scores[:3], np.eye(3, dtype=np.float32)).tolist() == [0.5, 0.4, 0.3]  # too few
    assert smoothed(scores, np.eye(4, dtype=np.float32)) == pytest.approx(scores)  # nothing in common


def test_late_interaction_and_first_stage_are_averaged_and_what_is_added_is_named():
    found = candidates([A, A, A, B, C], [0.6] * 5, [4] * 5, [0.9, 0.8, 0.7, 0.6, 0.5])
    found = replace(found, parts={"meaning": found.fused - 0.1, "words": np.full(5, 0.1)})
    scores = np.array([0.1, 0.5, 0.5, 0.2, 0.4])
    parts = late_parts(found, scores, 0.25, scale=2.0)
    assert parts["reranker"] == pytest.approx(scores / 4) and parts["words"] == pytest.approx(np.full(5, 0.0375))
    mean = 0.75 / 2 * found.fused + 0.25 * scores
    assert sum(parts.values()) == pytest.approx(smoothed(mean, found.vectors))
