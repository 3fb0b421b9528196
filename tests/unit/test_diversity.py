"""What may stand beside what: the rule for passages that say the same, and the two ways to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch.errors import InvalidInput
from semsearch.ranking.candidates import Candidates
from semsearch.ranking.diversity import (
    best_of_copies,
    choose,
    diversify,
    maximal_marginal_relevance,
    placed,
    say_the_same,
)

TEXT = (
    "To receive a parcel after closing time, leave a note for the porter at the north gate before 18:30. "
    "He keeps it for 3 days in the cool room. Do not ask for parcels of more than 20 kg, which go to the depot."
)


@pytest.mark.parametrize(
    "other",
    [
        TEXT,
        TEXT.upper(),
        TEXT.replace(" ", "\n  ").replace("porter", "*porter*"),
        f"• {TEXT}".replace(",", ""),
        TEXT.replace("the depot", "the depot at Long Lane"),
        TEXT.replace("To receive", "Parcels. To receive"),
    ],
)
def test_copies_say_the_same(other: str) -> None:
    assert say_the_same(TEXT, other) and say_the_same(other, TEXT)


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("18:30", "18:45"),
        ("20 kg", "25 kg"),
        ("3 days", "days"),
        ("18:30", "30:18"),
        ("20 kg", "-20 kg"),
        ("Do not ask", "Do ask"),
        ("Do not ask", "Don't ask"),
        ("north", "south"),
        ("after closing time", "before closing time"),
        ("more", "no more"),
        ("which go to the depot", "which go to the depot, and so does everything that has no name and street on it"),
    ],
)
def test_what_says_something_else_is_kept_apart(word: str, instead: str) -> None:
    other = TEXT.replace(word, instead)
    assert other != TEXT
    assert not say_the_same(TEXT, other) and not say_the_same(other, TEXT)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("version 2.0 of the tool", "version 2.1 of the tool"),
        ("2024-05-06", "2024-06-05"),
        ("the dog bites the man", "the man bites the dog"),
        ("if a == b: pass", "if a != b: pass"),
        ("keep x < 3", "keep x > 3"),
        ("costs 5 € a day", "costs 5 £ a day"),
        ("仓库里还有三箱苹果请在周五之前发货", "仓库里没还有三箱苹果请在周五之前发货"),
        ("✓ done", "✗ done"),
        ("", "a"),
        ("---", "***"),
    ],
)
def test_short_texts_that_differ_in_what_counts(a: str, b: str) -> None:
    assert say_the_same(a, a) and say_the_same(b, b)
    assert not say_the_same(a, b) and not say_the_same(b, a)


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_rule_is_symmetric(a: str, b: str) -> None:
    assert say_the_same(a, b) == say_the_same(b, a)
    assert say_the_same(a, a)


def make(texts: list[str], documents: list[int] | None = None, *, seed: int = 0) -> tuple[Candidates, dict[int, str]]:
    """Candidates in order of relevance; equal letters are equal vectors, so that the texts alone decide."""
    rng = np.random.default_rng(seed)
    known = {text[0]: rng.standard_normal(8).astype(np.float32) for text in texts}
    vectors = np.stack([known[text[0]] / np.linalg.norm(known[text[0]]) for text in texts])
    n = len(texts)
    places = [(10 + i, (documents or list(range(n)))[i], 100 + texts.index(texts[i])) for i in range(n)]
    none = np.full(n, np.nan)
    candidates = Candidates.of(places, vectors, none, none)
    candidates = candidates.ranked_by(np.array([1.0 - i / n for i in range(n)]))
    return candidates, {10 + i: text for i, text in enumerate(texts)}


def test_copies_take_one_place_and_the_places_are_filled() -> None:
    candidates, texts = make(["a one", "b two", "a one", "a 1", "b TWO", "c three", "d four"])
    found, copies = choose(candidates, 4, texts=lambda ids: {i: texts[i] for i in ids})
    assert found.ids.tolist() == [10, 11, 13, 15]
    assert found.duplicates == ((12,), (14,), (), ())
    assert copies.ids.tolist() == [12, 14]
    assert copies.duplicates == ((10, 12), (11, 14))
    found, copies = choose(candidates, 4)
    assert found.ids.tolist() == [10, 11, 12, 13] and not len(copies)


def test_of_copies_the_one_stays_that_the_reranker_likes_best() -> None:
    candidates, texts = make(["a one", "a one", "b two", "a one", "c three", "d four", "d four"])
    found, copies = choose(candidates, 9, texts=lambda ids: {i: texts[i] for i in ids})
    assert found.ids.tolist() == [10, 12, 14, 15]
    both = found.followed_by(copies).take([0, 4, 5, 1, 2, 3, 6])
    assert both.ids.tolist() == [10, 11, 13, 12, 14, 15, 16]
    kept, scores = best_of_copies(both, np.array([0.1, 0.3, 0.2, 0.7]))
    assert kept.ids.tolist() == [11, 12, 14, 15]
    assert kept.duplicates == ((10, 13), (), (), (16,))
    assert scores.tolist() == [0.3, 0.7]
    assert np.array_equal(kept.vectors, candidates.take([1, 2, 4, 5]).vectors)
    assert best_of_copies(both, np.array([0.1, 0.1, 0.1, 0.1]))[0].ids.tolist() == [10, 12, 14, 15]
    assert best_of_copies(both, np.array([0.1]))[0].ids.tolist() == [10, 12, 14, 15]


def test_of_copies_the_next_has_its_turn_where_a_document_is_full() -> None:
    candidates, texts = make(["a one", "b two", "a one", "c three"], [1, 2, 2, 2])
    found, copies = choose(candidates, 9, per_document=1, texts=lambda ids: {i: texts[i] for i in ids})
    assert (found.ids.tolist(), copies.ids.tolist()) == ([10, 11], [12])
    both = found.followed_by(copies).take([0, 2, 1])
    kept, scores = best_of_copies(both, np.array([0.1, 0.3, 0.5]), per_document=1)
    assert (kept.ids.tolist(), kept.duplicates, scores.tolist()) == ([10, 11], ((12,), ()), [0.1, 0.5])
    kept, scores = best_of_copies(both, np.array([0.1, 0.5, 0.3]), per_document=1)
    assert (kept.ids.tolist(), kept.duplicates, scores.tolist()) == ([12], ((10,),), [0.5])
    assert best_of_copies(both, np.array([0.1, 0.5, 0.3]))[0].ids.tolist() == [12, 11]
    kept, _ = best_of_copies(both, np.array([0.1, 0.3, 0.5]), per_document=1, fill=True)
    assert (kept.ids.tolist(), kept.duplicates) == ([10, 11], ((12,), ()))  # its place is elsewhere
    kept, scores = best_of_copies(both, np.array([0.1, 0.5, 0.3]), per_document=1, fill=True)
    assert (kept.ids.tolist(), kept.duplicates, scores.tolist()) == ([12, 11], ((10,), ()), [0.5, 0.3])


def test_thousands_of_copies_share_what_names_them() -> None:
    candidates, texts = make(["a one"] * 5_000)
    found, copies = choose(candidates, 2, texts=lambda ids: {i: texts[i] for i in ids})
    assert len(found) == 1 and len(copies) == 4_999 and len(found.duplicates[0]) == 4_999
    assert len({id(duplicates) for duplicates in copies.duplicates}) == 1


def test_a_copy_takes_no_place_of_its_document_either() -> None:
    candidates, texts = make(["a one", "b two", "a one", "b two", "c x", "d y", "e z"], [1, 1, 2, 2, 2, 2, 1])
    found, _ = choose(candidates, 10, per_document=2, texts=lambda ids: {i: texts[i] for i in ids})
    assert found.ids.tolist() == [10, 11, 14, 15]
    assert choose(candidates, 10, per_document=2)[0].ids.tolist() == [10, 11, 12, 13]


def test_words_are_read_only_where_vectors_are_near() -> None:
    candidates, texts = make(["a one", "b two", "a three", "c four"])
    read: list[int] = []

    def reading(ids: Sequence[int]) -> dict[int, str]:
        read.extend(ids)
        return {i: texts[i] for i in ids}

    choose(candidates, 4, texts=reading)
    assert sorted(read) == [10, 12]


@given(
    texts=st.lists(
        st.sampled_from(["a one", "a ONE", "a 2", "b two", "b two!", "c x", "c y"]), min_size=1, max_size=250
    ),
    n=st.integers(1, 130),
    limit=st.integers(0, 3),
    fill=st.booleans(),
    data=st.data(),
)
def test_choosing_equals_comparing_all_pairs(
    texts: list[str], n: int, limit: int, fill: bool, data: st.DataObject
) -> None:
    documents = data.draw(st.lists(st.integers(0, 20), min_size=len(texts), max_size=len(texts)))
    candidates, text_of = make(texts, documents)
    chosen: list[int] = []
    passed: list[int] = []

    def is_said(i: int) -> bool:
        return any(texts[i][0] == texts[j][0] and say_the_same(texts[i], texts[j]) for j in chosen)

    for i in range(len(texts)):
        full = limit and sum(documents[j] == documents[i] for j in chosen) >= limit
        if not is_said(i) and full:
            passed.append(i)
        elif not is_said(i) and len(chosen) < n:
            chosen.append(i)
    for i in passed if fill else ():
        if not is_said(i) and len(chosen) < n:
            chosen.append(i)
    read = lambda ids: {i: text_of[i] for i in ids}  # noqa: E731
    found, copies = choose(candidates, n, per_document=limit, fill=fill, texts=read)
    assert found.ids.tolist() == [10 + i for i in chosen]
    for chunk_id, folded in zip(found.ids.tolist(), found.duplicates, strict=True):
        assert all(say_the_same(text_of[chunk_id], text_of[i]) and (fill or i > chunk_id) for i in folded)
    assert sorted(i for folded in found.duplicates for i in folded) == copies.ids.tolist()
    folds = {(i, *folded) for i, folded in zip(found.ids.tolist(), found.duplicates, strict=True)}
    for chunk_id, fold in zip(copies.ids.tolist(), copies.duplicates, strict=True):
        assert fold in folds and chunk_id in fold[1:]


def test_what_fills_places_says_nothing_again() -> None:
    candidates, texts = make(["a one", "b two", "c x", "b two!"], [1, 1, 1, 2])
    found, copies = choose(candidates, 4, per_document=1, fill=True, texts=lambda ids: {i: texts[i] for i in ids})
    assert found.ids.tolist() == [10, 13, 12] and found.duplicates == ((), (11,), ())
    assert copies.ids.tolist() == [11]


def test_three_of_a_document_are_shown_before_others_unless_a_number_is_given() -> None:
    candidates, _ = make([f"a {i}" for i in range(7)], [1, 1, 1, 1, 2, 1, 3])
    candidates = replace(candidates, relevance=np.linspace(1, 0.9, 7))
    in_order = [10, 11, 12, 14, 16, 13, 15]
    for k in (1, 4, 6, 9):
        assert placed(candidates, k, mmr=None, per_document=None).ids.tolist() == in_order[:k]
        assert placed(candidates, k, mmr=1.0, per_document=None).ids.tolist() == in_order[:k]
        assert placed(candidates, k, mmr=None, per_document=0).ids.tolist() == list(range(10, 17))[:k]
        assert placed(candidates, k, mmr=1.0, per_document=4).ids.tolist() == list(range(10, 17))[:k]


def brute_force(relevance: list[float], vectors: np.ndarray, k: int, trade_off: float) -> list[int]:
    low, high = min(relevance), max(relevance)
    picked: list[int] = []
    while len(picked) < min(k, len(relevance)):
        best, best_value = -1, -np.inf
        for i in range(len(relevance)):
            if i in picked:
                continue
            scaled = (relevance[i] - low) / (high - low) if high > low else 1.0
            nearest = max([0.0, *(float(vectors[i].astype(float) @ vectors[j].astype(float)) for j in picked)])
            value = trade_off * scaled - (1 - trade_off) * nearest
            if value > best_value + 1e-6:  # float32 products differ in the last bits
                best, best_value = i, value
        picked.append(best)
    return picked


@pytest.mark.parametrize("trade_off", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_mmr_equals_brute_force(trade_off: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((30, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.sort(rng.normal(size=30) * 9)[::-1]  # a cross-encoder's scores have any range
    for k in (1, 7, 50):
        picked = maximal_marginal_relevance(relevance, vectors, k, trade_off=trade_off)
        assert picked == brute_force(relevance.tolist(), vectors, k, trade_off)
        if trade_off == 1.0:
            assert picked == list(range(min(k, 30)))


def test_mmr_ties_and_the_edges() -> None:
    same = np.tile(np.float32([1, 0]), (4, 1))
    assert maximal_marginal_relevance(np.ones(4), same, 3, trade_off=0.5) == [0, 1, 2]
    assert maximal_marginal_relevance(np.empty(0), np.empty((0, 2), dtype=np.float32), 3, trade_off=0.5) == []
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="mmr"):
            maximal_marginal_relevance(np.ones(4), same, 3, trade_off=wrong)


def test_diversifying_keeps_relevance() -> None:
    candidates, _ = make(["a one", "a two", "b three"])
    found = diversify(candidates, 3, 0.3)
    assert found.ids.tolist() == [10, 12, 11]
    assert found.relevance.tolist() == pytest.approx([1.0, 1 / 3, 2 / 3])
