"""Vectors of texts that are kept between searches: read once, the same whether kept or not, within bounds."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tokenizers

from semsearch import Document, Searcher, build_index
from semsearch.encoders import pacing
from semsearch.encoders.late_interaction import LateInteraction
from semsearch.encoders.recent_vectors import BYTES_BESIDE, BYTES_OF_CHARACTER, RecentVectors, _n_bytes
from semsearch.types import FloatArray
from tests.toy import ToyEmbedder

KILOBYTE = 1_000 // 4 - 10  # components of a float32 row; with its text and what is beside, some 1,300 bytes


class Reader:
    """Gives a row of random numbers for each text, always the same ones, and remembers what it was asked for."""

    def __init__(self, n: int = KILOBYTE) -> None:
        self.n = n
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> list[FloatArray]:
        self.asked.append(list(texts))
        return [np.random.default_rng(len(text)).random((len(text), self.n), dtype=np.float32) for text in texts]


def test_each_text_is_read_once_and_given_in_order() -> None:
    recent, read = RecentVectors(ToyEmbedder(), 1_000_000, np.float16), Reader(8)
    first = recent.of(["ccc", "a", "ccc", "bb"], read)
    again = recent.of(["bb", "dddd", "a"], read)
    assert recent.of([], read) == []
    assert read.asked == [["ccc", "a", "bb"], ["dddd"]]
    expected = {
        text: rows.astype(np.float16).astype(np.float32) for text in ("a", "bb", "ccc", "dddd") for rows in read([text])
    }
    for texts, found in ((["ccc", "a", "ccc", "bb"], first), (["bb", "dddd", "a"], again)):
        assert all(rows.dtype == np.float32 for rows in found)
        assert all(np.array_equal(rows, expected[text]) for text, rows in zip(texts, found, strict=True))
    assert [recent.length(text) for text in ("ccc", "other")] == [3, None]


def test_those_go_first_that_nobody_wanted_for_longest() -> None:
    recent, read = RecentVectors(ToyEmbedder(), 10 * 1_350, np.float32), Reader()
    texts = "abcdefghij"
    for text in texts:
        recent.of([text], read)
    recent.of(["a"], read)
    recent.of(["k"], read)
    assert [recent.length(text) for text in "abck"] == [1, None, 1, 1]
    assert [text for (text,) in read.asked] == [*texts, "k"]


def test_what_does_not_fit_is_given_and_not_kept() -> None:
    recent, read = RecentVectors(ToyEmbedder(), 2_000, np.float32), Reader()
    assert [len(rows) for rows in recent.of(["a", "bbb"], read)] == [1, 3]
    assert (recent.length("a"), recent.length("bbb")) == (1, None)


def test_texts_count_the_same_when_they_come_and_when_they_go() -> None:
    """Python keeps the UTF-8 of a text beside it once a library has read it, and equal texts are not one object."""
    recent, read = RecentVectors(ToyEmbedder(), 40_000, np.float32), Reader(8)
    tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()

    def reading(texts: Sequence[str]) -> list[FloatArray]:
        for text in texts:
            tokenizer.pre_tokenize_str(text)
        return read(texts)

    for n in range(200):
        for _ in range(2):  # as two equal texts, of which the second is never read
            recent.of(["日本" * (20 + n % 60)], reading)
            recent.of(["é" * (40 + n % 90)], reading)
    assert 0 < recent._n_bytes <= 40_000
    assert recent._n_bytes == sum(_n_bytes(text, rows) for text, rows in recent._kept.items())
    for text in list(recent._kept):
        assert sys.getsizeof(text) < BYTES_OF_CHARACTER * len(text) + BYTES_BESIDE


def test_vectors_that_depend_on_what_is_read_with_them_are_not_kept() -> None:
    toy = ToyEmbedder()
    toy.is_batch_invariant = False
    for embedder in (toy, object()):
        recent, read = RecentVectors(embedder, 1_000_000, np.float16), Reader(8)
        assert np.array_equal(recent.of(["aa"], read)[0], recent.of(["aa", "b"], read)[0])
        assert read.asked == [["aa"], ["aa", "b"]] and recent.length("aa") is None


def test_what_a_caller_does_to_vectors_changes_none_that_are_kept() -> None:
    recent, read = RecentVectors(ToyEmbedder(), 1_000_000, np.float32), Reader(8)
    for _ in range(2):
        (rows,) = recent.of(["aa"], read)
        assert np.array_equal(rows, read(["aa"])[0])
        rows[:] = 0.0


def test_threads_share_them_within_the_bound() -> None:
    recent, read = RecentVectors(ToyEmbedder(), 30 * 1_350, np.float32), Reader()
    expected = {"x" * n: read(["x" * n])[0] for n in range(1, 12)}

    def work(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(150):
            texts = choice.choices(list(expected), k=4)
            for text, rows in zip(texts, recent.of(texts, read), strict=True):
                assert np.array_equal(rows, expected[text])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    held = sum(rows.nbytes for rows in recent._kept.values())
    assert 0 < held <= recent._n_bytes <= 30 * 1_350


def test_what_another_thread_has_read_meanwhile_counts_once() -> None:
    recent, read = RecentVectors(ToyEmbedder(), 2 * 1_350, np.float32), Reader()
    recent.of(["a"], lambda texts: recent.of(texts, read))
    recent.of(["b"], read)
    assert (recent.length("a"), recent.length("b")) == (1, 1)


class Tokens(ToyEmbedder):
    """Gives vectors of words, and remembers what passages it read."""

    precision, device = "f32", "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        self.read += texts
        return super().embed_documents(texts)

    def token_vectors(self, texts: Sequence[str], *, queries: bool = False) -> list[FloatArray]:
        self.read += [] if queries else texts
        return [self.embed_queries(text.split()) for text in texts]


def test_a_passage_is_read_for_the_first_query_alone() -> None:
    embedder = Tokens()
    reranker = LateInteraction(embedder)
    texts = ["river and stone", "a kettle boils", "boats at anchor"]
    reranker._speed = 10.0
    assert [reranker.n_within("kettle", texts, s) for s in (0.5, 0.6, 0.9)] == [1, 2, 3]
    for query in ("stones of the river", "boiling kettle", "stones of the river"):
        anew = LateInteraction(Tokens()).score(query, texts)
        assert reranker.score(query, texts).tolist() == anew.tolist()
        by_text = list(LateInteraction(Tokens()).score_by_text([query], texts, [[0]] * 3))
        assert np.concatenate(by_text).tolist() == anew.tolist()
    assert reranker.matches("kettle", texts[1])
    assert embedder.read == texts
    assert [reranker.n_within("kettle", texts, s) for s in (0.5, 0.6, 0.9)] == [1, 2, 3]


def test_vectors_that_are_kept_do_not_make_a_model_look_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Tokens()
    monkeypatch.setattr(pacing, "_keep", lambda *_: None)
    monkeypatch.setattr(pacing, "cache_folder", lambda: pacing.Path("none"))
    LateInteraction(embedder).n_within("kettle", ["a"], 1.0)
    assert len(embedder.read) == (1 + pacing.N_RUNS) * pacing.N_TEXTS


def test_sentences_are_read_once_to_be_marked() -> None:
    text = "Boats lie at anchor. The kettle boils on the stove. Nothing else."
    embedder = Tokens()
    build_index([Document("d", text)], embedder=embedder)
    with Searcher.open(embedder=embedder) as searcher:
        hits = searcher.search("boiling kettles", rerank=False)
        first = searcher.highlight("boiling kettles", hits)
        embedder.read.clear()
        assert searcher.highlight("boiling kettles", hits) == first
        assert searcher.highlight("boats", hits)[0].sentence == (0, len("Boats lie at anchor."))
    assert embedder.read == []
