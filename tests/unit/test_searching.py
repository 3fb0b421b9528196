"""The read line against brute force, with a toy encoder."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from semsearch import Document, Hit, Searcher, build_index, gathering, remove
from semsearch.errors import IndexNotFound, InvalidInput, PassageNotFound
from semsearch.opening import OpenIndex
from semsearch.ranking.fusion import DENSE_WEIGHT, fuse, ranked
from semsearch.search_options import MODES, PER_DOCUMENT, SearchOptions
from semsearch.store import metadata
from semsearch.types import FloatArray
from tests.toy import ToyEmbedder, ToyReranker

if TYPE_CHECKING:
    from typing import Unpack

WORDS = ["river", "stone", "cloud", "forest", "engine", "wheel", "brake", "kettle", "violin", "garden", "lantern"]


def make_documents() -> list[Document]:
    rng = np.random.default_rng(3)
    documents = []
    for i in range(60):
        lines = [" ".join(rng.choice(WORDS, size=9)) + "." for _ in range(int(rng.integers(1, 14)))]
        documents.append(Document(f"d{i}", "\n".join(lines), title=f"Title {i}"))
    return documents


@pytest.fixture
def searcher(toy: ToyEmbedder) -> Iterator[Searcher]:
    build_index(make_documents(), embedder=toy)
    with Searcher.open(embedder=toy) as opened:
        yield opened


def all_chunks(searcher: Searcher) -> list[Hit]:
    return searcher.search("river", k=10_000, mode="dense", per_document=0, fold=False)


@pytest.mark.parametrize("mode", MODES)
def test_few_hits_are_the_first_of_more(searcher: Searcher, mode: str) -> None:
    for text in ("river stone", "cloud engine violin", "kettle garden brake wheel"):
        ids = {k: [hit.chunk.id for hit in searcher.search(text, k=k, mode=mode)] for k in (1, 3, 10, 25)}
        assert all(ids[25][:k] == found for k, found in ids.items())


def test_nearest_equals_exact_search_whatever_the_length_of_the_vector(searcher: Searcher, toy: ToyEmbedder) -> None:
    everything = {h.chunk.id: h.chunk.text for h in all_chunks(searcher)}
    ids = np.array(sorted(everything))
    rows = toy.embed_queries([everything[i] for i in ids])
    vector = toy.embed_queries(["violin in the garden"])[0]
    scores = rows @ vector
    best = np.lexsort((ids, -scores))[:20]
    hits = searcher.nearest(7 * vector, k=20, per_document=0, fold=False)
    assert [h.chunk.id for h in hits] == ids[best].tolist()
    np.testing.assert_allclose([h.score for h in hits], scores[best], atol=1e-6)
    assert searcher.nearest(vector, k=5, where={"title": "Title 7"})[0].document.id == "d7"


@pytest.mark.parametrize("vector", [np.zeros(64), np.ones(63), np.full(64, np.nan), np.ones((1, 64))])
def test_nearest_refuses_what_is_no_direction(searcher: Searcher, vector: Any) -> None:
    with pytest.raises(InvalidInput, match="give 64 numbers"):
        searcher.nearest(vector)


def test_similar_leaves_out_the_passage_and_its_copies(toy: ToyEmbedder) -> None:
    texts = ["river stone cloud", "river stone cloud", "river stone wheel", "violin kettle lantern"]
    build_index([Document(f"d{i}", text) for i, text in enumerate(texts)], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        first = searcher.search("river stone cloud", mode="dense")[0]
        assert [d.document_id for d in first.duplicates] == ["d1"]
        hits = searcher.similar(first.chunk.id, k=2)
        assert [(h.rank, h.document.id) for h in hits] == [(1, "d2"), (2, "d3")]
        cosine = float(np.prod(toy.embed_queries([texts[0], texts[2]]), axis=0).sum())
        assert hits[0].score == pytest.approx(cosine, abs=1e-6)
        with pytest.raises(PassageNotFound, match="no passage 99"):
            searcher.similar(99)


def test_passage_gives_lines_around_it(searcher: Searcher) -> None:
    hit = next(h for h in all_chunks(searcher) if h.chunk.line_start > 2)
    chunk, document = searcher.passage(hit.chunk.id)
    assert (chunk, document) == (hit.chunk, hit.document)
    wider, _ = searcher.passage(hit.chunk.id, context=2)
    assert wider.line_start == chunk.line_start - 2
    assert document.text[wider.start : wider.end] == wider.text
    for refused, error in ((10**9, PassageNotFound), (-1, PassageNotFound), (2**70, PassageNotFound)):
        with pytest.raises(error):
            searcher.passage(refused)


def test_dense_search_equals_exact_search(searcher: Searcher, toy: ToyEmbedder) -> None:
    everything = {h.chunk.id: h.chunk.text for h in all_chunks(searcher)}
    assert len(everything) > 120
    ids = np.array(sorted(everything))
    rows = toy.embed_queries([everything[i] for i in ids])
    for query in ("river stone", "violin in the garden", "engine"):
        scores = rows @ toy.embed_queries([query])[0]
        for k in (1, 7, 1_000):
            order = np.lexsort((ids, -scores.round(6)))[:k]
            hits = searcher.search(query, k=k, mode="dense", per_document=0)
            assert [h.score for h in hits] == pytest.approx(scores[order].tolist(), abs=1e-5)
            worst = hits[-1].score
            surely = {int(i) for i, score in zip(ids, scores, strict=True) if score > worst + 1e-5}
            assert surely <= {h.chunk.id for h in hits} and len(hits) == min(k, len(ids))
            assert [h.rank for h in hits] == list(range(1, len(hits) + 1))


def test_hybrid_scores_are_the_weighted_legs(searcher: Searcher) -> None:
    hits = searcher.search("kettle lantern", k=20, per_document=0)
    best = max(h.scores.lexical or 0 for h in hits)
    assert best == max(h.scores.lexical or 0 for h in searcher.search("kettle lantern", k=20, mode="lexical"))
    for hit in hits:
        assert hit.scores.dense is not None and hit.scores.rerank is None and hit.probability is None
        cosine = hit.scores.dense if hit.scores.feedback is None else hit.scores.feedback
        expected = DENSE_WEIGHT * max(0.0, cosine) + (1 - DENSE_WEIGHT) * (hit.scores.lexical or 0.0) / best
        assert hit.score == hit.scores.fused == pytest.approx(expected, abs=1e-6)
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_a_query_of_unknown_tokens_is_ranked_by_its_words(toy: ToyEmbedder) -> None:
    build_index([Document("zh", "怎样上传文件"), Document("en", "upload a file")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        hits = searcher.search("上传文件")
        assert hits[0].document.id == "zh" and hits[0].score == pytest.approx(1.0)


def test_hits_of_one_document_are_limited_but_k_is_filled(toy: ToyEmbedder) -> None:
    crowd = Document("crowd", "\n\n".join(f"violin violin violin number{i} {'x' * 30} y z." * 3 for i in range(300)))
    build_index([crowd, *make_documents()], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        hits = searcher.search("violin", k=10)
        per_document = [h.document.id for h in hits]
        assert len(hits) == 10 and per_document.count("crowd") == 3
        assert len({h.document.id for h in searcher.search("violin", k=10, per_document=1)}) == 10
        assert {h.document.id for h in searcher.search("violin", k=10, per_document=0)} == {"crowd"}


def book(name: str, subject: str, n: int) -> Document:
    """A document of n passages that say more of a subject the earlier they stand."""
    lines = (f"{subject} " * (1 + (n - i) % n % 7) + f"number{i} {name} {'x' * 30} y z." for i in range(n))
    return Document(name, "\n\n".join(line * 3 for line in lines), metadata={"subject": subject})


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_the_only_document_fills_all_places(toy: ToyEmbedder, mode: str, rerank: bool) -> None:
    build_index([book("one", "violin", 90)], embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        for k in (2, 10, 40):
            hits = searcher.search("violin", k=k, mode=mode, rerank=rerank)
            assert [h.rank for h in hits] == list(range(1, k + 1))
            assert hits == searcher.search("violin", k=k, mode=mode, rerank=rerank, per_document=0)
        assert len(searcher.search("violin", k=10, mode=mode, per_document=3)) == 3
        build_index([book("another", "kettle", 90)], embedder=toy)
        hits = searcher.search("violin", k=10, mode=mode, rerank=rerank, where='subject = "violin"')
        assert hits == searcher.search("violin", k=10, mode=mode, rerank=rerank, per_document=0)


@pytest.mark.parametrize("options", [{"rerank": False}, {"rerank": True}, {"rerank": False, "mmr": 0.7}, {"mmr": 0.7}])
@pytest.mark.parametrize("mode", MODES)
def test_places_that_others_leave_are_filled(toy: ToyEmbedder, mode: str, options: dict[str, Any]) -> None:
    few = [Document(f"{i}", f"violin and stone {i}") for i in range(3)]
    build_index([book("crowd", "violin", 200), *few], embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        found = searcher.search("violin", k=10, mode=mode, fold=False, rerank_depth=10, **options)
        assert Counter(h.document.id for h in found) == Counter({"crowd": 7, "0": 1, "1": 1, "2": 1})
        assert {h.document.id for h in found[:6]} == {"crowd", "0", "1", "2"}
        assert [h.document.id for h in found[6:]] == ["crowd"] * 4
        for k in (1, 3, 5, 8):
            fewer = searcher.search("violin", k=k, mode=mode, fold=False, rerank_depth=10, **options)
            assert [h.chunk.id for h in fewer] == [h.chunk.id for h in found[:k]]
        if "mmr" not in options:
            for part in (found[:6], found[6:]):
                assert [h.score for h in part] == sorted((h.score for h in part), reverse=True)
        strict = searcher.search("violin", k=10, mode=mode, fold=False, rerank_depth=10, per_document=3, **options)
        assert Counter(h.document.id for h in strict) == Counter({"crowd": 3, "0": 1, "1": 1, "2": 1})


@pytest.mark.parametrize("seed", range(4))
def test_those_that_come_first_are_those_that_a_limit_leaves(toy: ToyEmbedder, seed: int) -> None:
    rng = np.random.default_rng(seed)
    documents = [
        "\n\n".join(" ".join(rng.choice(WORDS, size=rng.integers(4, 20))) + f" n{i} {'z' * 30} y w." for i in range(n))
        for n in rng.choice([30, 120, 300], size=3)
    ]
    build_index([Document(f"d{i}", text) for i, text in enumerate(documents)], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        for _, mode in itertools.product(range(4), MODES):
            query = " ".join(rng.choice(WORDS, size=2))
            hits = searcher.search(query, k=10, mode=mode, rerank=False, fold=False)
            places: Counter[str] = Counter()
            first = []
            for hit in hits:
                places[hit.document.id] += 1
                first += [hit] if places[hit.document.id] <= PER_DOCUMENT else []
            assert first == hits[: len(first)]
            strict = searcher.search(query, k=10, mode=mode, rerank=False, fold=False, per_document=PER_DOCUMENT)
            assert [h.chunk.id for h in first] == [h.chunk.id for h in strict]


@pytest.mark.parametrize(("books", "most"), [(("crowd", "other"), 100), (("crowd",), 800)])
def test_other_documents_are_looked_for_so_far(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, books: tuple[str, ...], most: int
) -> None:
    build_index([*(book(name, "violin", 1_000) for name in books), Document("stone", "a stone")], embedder=toy)
    taken: list[int] = []
    legs = gathering._legs

    def counted(state: Any, query: Any, n: int, selection: Any) -> Any:
        taken.append(n)
        return legs(state, query, n, selection)

    monkeypatch.setattr(gathering, "_legs", counted)
    with Searcher.open(embedder=toy) as searcher:
        found = searcher.search("violin", k=10, rerank=False, where="exists(subject)" if len(books) == 2 else None)
    assert len(found) == 10 and max(taken) == most


def test_passages_nearest_to_one_fill_places_as_well(toy: ToyEmbedder) -> None:
    build_index([book("crowd", "violin", 40), Document("other", "violin")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        hits = searcher.nearest(toy.embed_queries(["violin"])[0], k=8)
        assert len(hits) == 8 and "other" in [h.document.id for h in hits[:4]]
        assert len(searcher.similar(hits[0].chunk.id, k=8)) == 8
        others = searcher.similar(hits[0].chunk.id, k=8, per_document=1)
        assert hits[0].document.id == "other" and [h.document.id for h in others] == ["crowd"]


def what_was_read(hit: Hit) -> str:
    """Of a passage that does not say its title."""
    return f"{hit.chunk.text}\n\n{hit.document.title}"


def test_reranking_decides_the_order(toy: ToyEmbedder) -> None:
    build_index(make_documents(), embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        hits = searcher.search("river stone", k=5)
        assert all(h.score == h.scores.rerank == len(what_was_read(h)) for h in hits)
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
        assert all(h.scores.fused is not None for h in hits)
        plain = searcher.search("river stone", k=5, rerank=False)
        assert plain[0].scores.rerank is None and plain[0].score == plain[0].scores.fused


def test_copies_are_read_once_for_each_context_they_stand_in(toy: ToyEmbedder) -> None:
    class Recorder(ToyReranker):
        def __init__(self) -> None:
            self.asked: list[Sequence[str]] = []

        def score(self, query: str, texts: Sequence[str]) -> FloatArray:
            self.asked.append(texts)
            return super().score(query, texts)

    text, titles = "The river is cold.", ["", "Boats", "Water birds", "Boats", "", "Water birds"]
    copies = [Document(f"c{i}", text, title=title) for i, title in enumerate(titles)]
    build_index([*copies, Document("other", "A violin.")], embedder=toy)
    recorder = Recorder()
    with Searcher.open(embedder=toy, reranker=recorder) as searcher:
        hits = searcher.search("river", k=5)
        assert recorder.asked == [[text, f"{text}\n\nBoats", f"{text}\n\nWater birds", "A violin."]]
        assert (hits[0].document.id, len(hits[0].duplicates)) == ("c2", 5)
        recorder.asked = []
        searcher.search("river", rerank_depth=2)
        assert recorder.asked == [[text, f"{text}\n\nBoats"]]


def test_context_widens_the_passage_by_lines(toy: ToyEmbedder) -> None:
    text = "\n".join(f"line {i} is here with some {WORDS[i % 11]} words" for i in range(60))
    build_index([Document("d", text)], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        plain = searcher.search("lantern", k=1)[0].chunk
        wide = searcher.search("lantern", k=1, context=2)[0].chunk
        assert text[wide.start : wide.end] == wide.text and plain.text in wide.text
        assert wide.line_start == max(1, plain.line_start - 2) and wide.line_end == min(60, plain.line_end + 2)
        assert wide.text == "\n".join(text.split("\n")[wide.line_start - 1 : wide.line_end])
        whole = searcher.search("lantern", k=1, context=1_000)[0].chunk
        assert (whole.text, whole.line_start, whole.line_end) == (text, 1, 60)


def test_highlight_points_at_sentence_and_words(toy: ToyEmbedder) -> None:
    build_index([Document("d", "Boats lie at anchor. The kettle boils on the stove. Nothing else.")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        for mode, query in (
            ("hybrid", "boiling kettles"),
            ("lexical", "boiling kettles"),
            ("hybrid", "\udcff boil, kettle!"),
        ):
            hit = searcher.search(query, mode=mode)[0]
            mark = searcher.highlight(query, [hit])[0]
            assert hit.chunk.text[slice(*mark.sentence)] == "The kettle boils on the stove."
            assert [hit.chunk.text[a:b] for a, b in mark.words] == ["kettle", "boils"]


def test_a_cross_encoder_points_at_the_sentence_of_what_it_read(toy: ToyEmbedder) -> None:
    build_index([Document("d", "Boats lie at anchor in the harbour. The kettle boils. Nothing else.")], embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        for rerank, sentence in ((True, "Boats lie at anchor in the harbour."), (False, "The kettle boils.")):
            hits = searcher.search("boiling kettles", rerank=rerank)
            mark = searcher.highlight("boiling kettles", hits)[0]
            assert hits[0].chunk.text[slice(*mark.sentence)] == sentence


def test_a_query_longer_than_the_model_reads_is_read_whole(searcher: Searcher, toy: ToyEmbedder) -> None:
    first, second = "river " * toy.max_tokens, "violin " * toy.max_tokens
    hit = searcher.search(first + second, k=1, mode="dense")[0]
    expected = toy.embed_queries(["river", "violin"]).mean(axis=0)
    expected /= np.linalg.norm(expected)
    assert hit.score == pytest.approx(float(expected @ toy.embed_queries([hit.chunk.text])[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k = 0"),
        ({"k": 10_001}, "10001"),
        ({"mode": "fuzzy"}, "hybrid, dense, lexical"),
        ({"per_document": -1}, "-1"),
        ({"context": -2}, "-2"),
        ({"mmr": 1.5}, "mmr = 1.5"),
        ({"mmr": float("nan")}, "mmr = nan"),
        ({"rerank": True}, "--reranker NAME_OR_FOLDER"),
    ],
)
def test_wrong_options_are_named(searcher: Searcher, options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        searcher.search("x", **options)  # type: ignore[arg-type]


def test_queries_without_words(searcher: Searcher) -> None:
    assert searcher.search("") == searcher.search(" \n") == []
    assert searcher.search("?!…", mode="lexical") == []
    assert searcher.search("zzzzqqqq", mode="lexical") == []


def test_search_many_equals_search(searcher: Searcher) -> None:
    texts = ["river", "", "violin " * 100, *(f"kettle {n}" for n in range(40)), "  ", "violin"]
    for options in ({}, {"mode": "lexical"}, {"mode": "dense", "per_document": 0}):
        found = searcher.search_many(texts, k=3, **options)
        assert found == [searcher.search(text, k=3, **options) for text in texts]
        assert found[1] == found[-2] == []
        assert found[-1]
    assert searcher.search_many([]) == []


def test_many_threads_while_a_writer_works(searcher: Searcher, toy: ToyEmbedder) -> None:
    expected = [h.chunk.text for h in searcher.search("kettle lantern", k=5)]
    errors: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        try:
            while not stop.is_set():
                found = [h.chunk.text for h in searcher.search("kettle lantern", k=5)]
                assert found == expected
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(8):
        build_index([Document("other", f"Unrelated edition {i}.")], embedder=ToyEmbedder())
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_no_index_says_how_to_make_one(toy: ToyEmbedder) -> None:
    with pytest.raises(IndexNotFound, match=r"semsearch index FOLDER$"):
        Searcher.open()
    with pytest.raises(IndexNotFound, match=r"semsearch index FOLDER --index notes$"):
        Searcher.open("notes")
    with pytest.raises(IndexNotFound, match=r"--index /nowhere/x$"):
        Searcher.open("/nowhere/x")


def test_an_index_moves_with_its_folder(
    searcher: Searcher, toy: ToyEmbedder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = searcher.search("kettle", k=3)
    moved = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(searcher.path, moved)
    with Searcher.open(moved, embedder=toy) as other:
        assert other.search("kettle", k=3) == expected


def test_nothing_that_neither_leg_speaks_for_is_a_hit(toy: ToyEmbedder) -> None:
    build_index(make_documents(), embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        assert searcher.search("日本語の検索") == []


def test_passages_that_share_a_vector_do_not_end_the_search(toy: ToyEmbedder) -> None:
    crowd = Document("crowd", "\n\n".join(["violin violin violin " * 8] * 300))
    build_index([crowd, *(Document(f"s{i}", f"one violin among words {i}") for i in range(3))], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        for mode in ("lexical", "hybrid", "dense"):
            assert {h.document.id for h in searcher.search("violin", k=6, mode=mode)} == {"crowd", "s0", "s1", "s2"}


def test_files_that_a_writer_has_just_replaced_are_looked_for_again(
    searcher: Searcher, toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = OpenIndex._open, []

    def publish_first(self: OpenIndex, meta: Mapping[str, Any]) -> Any:
        calls.append(meta["generation"])
        if len(calls) == 1:
            build_index([Document("new", "A publication in between.")], embedder=ToyEmbedder())
        return real(self, meta)

    monkeypatch.setattr(OpenIndex, "_open", publish_first)
    assert searcher.search("publication", k=1)[0].document.id == "new"
    assert len(calls) == 2


def test_first_queries_of_two_threads_do_not_wait_for_each_other(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(make_documents(), embedder=toy)
    opening, loading = threading.Event(), threading.Event()
    real = OpenIndex._open

    def slow_open(self: OpenIndex, meta: Mapping[str, Any]) -> Any:
        opening.set()
        loading.wait(2)
        return real(self, meta)

    def slow_load(*_: object, **__: object) -> ToyEmbedder:
        loading.set()
        return toy

    monkeypatch.setattr(OpenIndex, "_open", slow_open)
    monkeypatch.setattr("semsearch.searching.load_embedder", slow_load)
    with Searcher.open() as searcher:
        threads = [
            threading.Thread(target=searcher.search, args=("river",), kwargs={"mode": m}, daemon=True)
            for m in ("lexical", "dense")
        ]
        threads[0].start()
        opening.wait(5)
        threads[1].start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def test_a_copy_that_may_not_be_written_to_answers(searcher: Searcher, toy: ToyEmbedder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(searcher.path, copy)
    expected = searcher.search("kettle", k=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semsearch.store.lexical.os.access", lambda *_: False)  # root may write anywhere
        (lexical,) = copy.glob("lexical-*")
        before = sorted((p.name, p.stat().st_mtime_ns) for p in lexical.iterdir())
        with Searcher.open(copy, embedder=toy) as other:
            assert other.search("kettle", k=3) == expected
    assert sorted((p.name, p.stat().st_mtime_ns) for p in lexical.iterdir()) == before


PARAGRAPH = (
    "The violin hangs in the hall beside the lantern, and its case lies under the stairs until the garden opens."
)


def find(texts: dict[str, str], toy: ToyEmbedder, **options: Unpack[SearchOptions]) -> list[tuple[str, list[str]]]:
    """(document, documents folded into it) of each hit."""
    build_index([Document(i, text) for i, text in texts.items()], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        hits = searcher.search("violin in the hall", **options)
        assert searcher.search_many(["violin in the hall"], **options) == [hits]
    assert [h.rank for h in hits] == list(range(1, len(hits) + 1))
    return [(h.document.id, [d.document_id for d in h.duplicates]) for h in hits]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_copies_are_folded_into_the_best(mode: str, toy: ToyEmbedder) -> None:
    texts = {
        "a": PARAGRAPH,
        "b": PARAGRAPH,
        "c": PARAGRAPH.replace("hall", "*hall*"),
        "d": PARAGRAPH.replace("The violin", "The violin never"),
        "e": PARAGRAPH.replace("violin hangs", "7 violin hangs"),
        "f": "An engine and a wheel without a violin.",
    }
    found = dict(find(texts, toy, mode=mode))
    assert found["a"] == ["b", "c"] and not found.keys() & {"b", "c"}
    assert {"d", "e", "f"} <= found.keys() and not any(found[i] for i in "def")
    apart = find(texts, toy, mode=mode, fold=False)
    assert {i for i, _ in apart} == set(texts) and not any(folded for _, folded in apart)


def test_a_duplicate_says_where_it_stands(toy: ToyEmbedder) -> None:
    copy = Document("two", f"{'Words of no matter. ' * 4}\n\n{PARAGRAPH}", title="Second", page_starts=(0,))
    build_index([Document("one", PARAGRAPH), copy], embedder=ToyEmbedder(max_tokens=26))
    with Searcher.open(embedder=ToyEmbedder(max_tokens=26)) as searcher:
        [folded] = searcher.search("violin in the hall", k=1)[0].duplicates
        assert (folded.document_id, folded.title, folded.source) == ("two", "Second", "")
        assert (folded.line_start, folded.page) == (3, 1)
        apart = {h.document.id: h.chunk for h in searcher.search("violin in the hall", k=2, fold=False)}
        assert apart["two"].id == folded.chunk_id and apart["two"].line_start == 3


def test_places_are_filled_beside_hundreds_of_copies(toy: ToyEmbedder) -> None:
    texts = {f"copy{i}": f"{PARAGRAPH}{' ' * i}" + "!" * i for i in range(300)}
    texts |= {f"other{i:02}": f"A violin with {WORDS[i % 11]} number {i}." for i in range(30)}
    for mode in ("hybrid", "dense"):
        found = find(texts, toy, k=20, mode=mode)
        assert len(found) == 20 and sum(i.startswith("copy") for i, _ in found) == 1
        assert len(dict(found)["copy0"]) >= 99
        assert found == find(texts, toy, k=20, mode=mode)


def test_copies_are_not_looked_past_twice(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [Document(f"copy{i}", "river stone") for i in range(150)]
    build_index([*copies, *(Document(f"other{i}", f"river stone number{i}") for i in range(400))], embedder=toy)
    taken: list[int] = []
    legs = gathering._legs
    monkeypatch.setattr(gathering, "_legs", lambda *of: taken.append(of[2]) or legs(*of))
    with Searcher.open(embedder=toy) as searcher:
        assert len(searcher.search("river stone", k=5)) == 5
    assert taken == [50, 200]


def test_a_document_of_copies_has_its_places_for_other_passages(toy: ToyEmbedder) -> None:
    build_index(
        [
            Document("first", PARAGRAPH),
            Document(
                "second", "\n\n".join([PARAGRAPH, "violin number 1 " * 9, "violin number 2 " * 9, "lantern " * 30])
            ),
        ],
        embedder=ToyEmbedder(max_tokens=30),
    )
    with Searcher.open(embedder=ToyEmbedder(max_tokens=30)) as searcher:
        hits = searcher.search("violin in the hall", per_document=2)
        assert [h.document.id for h in hits].count("second") == 2
        assert [d.document_id for d in hits[0].duplicates] in (["first"], ["second"])
        assert all(PARAGRAPH not in h.chunk.text for h in hits[1:])


def test_mmr_reorders_and_keeps_scores(searcher: Searcher) -> None:
    plain = searcher.search("river stone", k=50, per_document=0)
    assert searcher.search("river stone", k=50, per_document=0, mmr=1.0) == plain
    scores = {h.chunk.id: h.score for h in plain}
    vectors = dict(zip(scores, searcher._model().embed_documents([h.chunk.text for h in plain]), strict=True))
    mixed = searcher.search("river stone", k=10, per_document=0, mmr=0.3)
    assert [h.rank for h in mixed] == list(range(1, 11))
    assert mixed[0] == plain[0] and mixed != plain[:10]
    assert all(h.score == scores[h.chunk.id] for h in mixed)

    def likeness(hits: list[Hit]) -> float:
        rows = np.stack([vectors[h.chunk.id] for h in hits])
        return float(np.triu(rows @ rows.T, 1).sum())

    assert likeness(mixed) < likeness(plain[:10])
    assert mixed == searcher.search("river stone", k=10, per_document=0, mmr=0.3)


def test_mmr_follows_the_reranker(toy: ToyEmbedder) -> None:
    build_index(make_documents(), embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        plain = searcher.search("river stone", k=5)
        assert searcher.search("river stone", k=5, mmr=1.0) == plain
        mixed = searcher.search("river stone", k=5, mmr=0.2)
        assert mixed[0] == plain[0] and len(mixed) == 5
        assert all(h.score == h.scores.rerank == len(what_was_read(h)) for h in mixed)


def in_context(hits: list[Hit], searcher: Searcher) -> dict[int, float]:
    """Two thirds of each hit's BM25, one third of the mean over it and the passages beside it; 0 without a hit."""
    bm25 = {(h.document.id, h.chunk.ordinal): h.scores.lexical or 0.0 for h in hits}
    n_chunks = Counter(h.document.id for h in all_chunks(searcher))
    found = {}
    for h in hits:
        first, last = max(0, h.chunk.ordinal - 1), min(n_chunks[h.document.id] - 1, h.chunk.ordinal + 1)
        near = [bm25.get((h.document.id, i), 0.0) for i in range(first, last + 1)]
        found[h.chunk.id] = bm25[h.document.id, h.chunk.ordinal] * 2 / 3 + sum(near) / len(near) / 3
    return found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    k=st.integers(1, 120),
    per_document=st.none() | st.integers(0, 4),
    mode=st.sampled_from(MODES),
)
@example(words=["violin"], k=22, per_document=1, mode="lexical")  # the last is far down the ranking
@example(words=["forest"], k=25, per_document=0, mode="lexical")  # passages beside the last three bring them up
def test_without_folding_hits_are_the_fused_ranking(
    searcher: Searcher, words: list[str], k: int, per_document: int | None, mode: str
) -> None:
    query = " ".join(words)
    hits = searcher.search(query, k=k, per_document=per_document, mode=mode, fold=False)
    everything = searcher.search(query, k=10_000, per_document=0, mode=mode, fold=False)
    dense = {h.chunk.id: h.scores.dense for h in everything if h.scores.dense is not None}
    dense |= {h.chunk.id: h.scores.feedback for h in everything if h.scores.feedback is not None}
    lexical = {h.chunk.id: h.scores.lexical for h in everything if h.scores.lexical is not None}
    if mode == "lexical":
        lexical = in_context(everything, searcher)
    ranking = fuse(dense, lexical, weight=DENSE_WEIGHT) if mode == "hybrid" else ranked(dense or lexical)
    document_of = {h.chunk.id: h.document.id for h in everything}
    expected: list[tuple[int, float]] = []
    others: list[tuple[int, float]] = []
    limit = PER_DOCUMENT if per_document is None else per_document
    for chunk_id, score in ranking:
        of_document = sum(document_of[i] == document_of[chunk_id] for i, _ in expected)
        (expected if not limit or of_document < limit else others).append((chunk_id, score))
    expected = (expected + (others if per_document is None else []))[:k]
    if mode == "hybrid":  # feedback may bring up what neither leg had among its first, at the end only
        hits, expected = hits[: len(hits) // 2], expected[: len(hits) // 2]
    assert [h.score for h in hits] == pytest.approx([score for _, score in expected], abs=1e-6)
    assert [h.chunk.id for h in hits] == [i for i, _ in expected] or len({round(h.score, 5) for h in hits}) < len(hits)
    assert all(h.duplicates == () for h in hits)
    assert [sum(h.scores.parts.values()) for h in hits] == pytest.approx([h.score for h in hits])


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_that_is_known_takes_the_place_of_encoding(searcher: Searcher, toy: ToyEmbedder, mode: str) -> None:
    vector = 3 * toy.embed_queries(["violin garden"])[0]
    expected = [(h.chunk.id, h.scores.lexical) for h in searcher.search("violin garden", mode=mode)]
    found = searcher.search("violin garden", mode=mode, vector=vector)
    assert [(h.chunk.id, h.scores.lexical) for h in found] == expected
    if mode == "dense":
        assert searcher.search("stone", mode=mode, vector=vector)[0].chunk.id == expected[0][0]
        with pytest.raises(InvalidInput, match="give 64 numbers"):
            searcher.search("stone", mode=mode, vector=vector[:5])


def test_documents_are_given_as_they_were_written(searcher: Searcher) -> None:
    written = make_documents()
    assert searcher.documents() == written and searcher.n_documents == len(written)
    assert searcher.documents(["d7", "no", "d3"]) == [written[7], written[3]]
    assert searcher.documents(["d7", "d3"], where='title = "Title 3"') == [written[3]]
    assert searcher.documents([]) == []


def test_known_vectors_are_those_of_passages_also_of_deleted_ones(searcher: Searcher, toy: ToyEmbedder) -> None:
    first = all_chunks(searcher)[0]
    passage = first.chunk.text
    assert remove([], ids=[first.document.id]).documents == 1
    known = searcher.known_vectors([passage, "never seen"])
    assert list(known) == [passage]
    assert np.allclose(known[passage], toy.embed_documents([passage])[0], atol=1e-6)


def test_options_are_those_of_search() -> None:
    parameters = inspect.signature(Searcher.search).parameters.values()
    own = {"vector"}  # of one query
    assert set(SearchOptions.__annotations__) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - own


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": "3"}, "k = '3': give a whole number"),
        ({"rerank_depth": 5.5}, "rerank_depth = 5.5: give a whole number"),
        ({"per_document": "3"}, "per_document = '3': give a whole number"),
        ({"k": None}, "k = None: give a whole number"),
        ({"budget_ms": "20"}, "budget_ms = '20': give a number"),
        ({"budget_ms": 0}, "budget_ms = 0: give a time above 0"),
        ({"rerank_depth": 0}, "rerank_depth = 0: give a number from 1 to 10000"),
    ],
)
def test_values_of_the_wrong_kind_are_named(searcher: Searcher, options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):
        searcher.search("river", **options)  # type: ignore[arg-type]


def test_one_text_is_not_many(searcher: Searcher) -> None:
    with pytest.raises(InvalidInput, match="'river' is one query"):
        searcher.search_many("river")
    for ids, said in (("d1", "ids = 'd1': give a list"), (5, "ids = 5: give a list"), (["d1", 2], "id = 2: give a")):
        with pytest.raises(InvalidInput, match=said):
            searcher.documents(ids)  # type: ignore[arg-type]


def test_ids_are_numbers(searcher: Searcher) -> None:
    for ask in (searcher.similar, searcher.passage):
        with pytest.raises(InvalidInput, match="chunk_id = 'd1': give the id of a hit's chunk"):
            ask("d1")  # type: ignore[operator]
    (hit,) = searcher.search("river", k=1)
    assert searcher.passage(np.int64(hit.chunk.id))[0] == hit.chunk  # type: ignore[arg-type]


def test_a_query_that_is_a_book_is_refused(searcher: Searcher) -> None:
    with pytest.raises(InvalidInput, match="100,001 characters; give at most 100,000"):
        searcher.search("a" * 100_001)
    with pytest.raises(InvalidInput, match="100,001 characters"):
        searcher.highlight("a" * 100_001, searcher.search("river"))


READER = """
import json, sys
from semsearch import Searcher
from tests.toy import ToyEmbedder
seen = set()
with Searcher.open(sys.argv[1], embedder=ToyEmbedder()) as searcher:
    print("open", flush=True)
    while not sys.stdin.closed and (word := sys.stdin.readline()):
        for mode in ("dense", "lexical", "hybrid"):
            hits = searcher.search("river stone", k=30, mode=mode, per_document=0, fold=False)
            seen.add((mode, tuple((h.document.id, h.chunk.text, round(h.score, 5)) for h in hits)))
        print("asked", flush=True)
print(json.dumps(sorted(seen)))
"""


def test_readers_in_other_processes_see_one_state_or_the_other_while_a_writer_commits(toy: ToyEmbedder) -> None:
    """Four of them; the writer goes to and fro between two states, and nothing of a third is ever seen."""
    editions = [
        [Document(f"d{i}", f"The river stone number {i} of edition {e}. " * (3 + (i + e) % 4)) for i in range(12)]
        for e in range(2)
    ]
    allowed = set()
    for edition in editions:
        build_index(edition, embedder=toy)
        with Searcher.open(embedder=toy) as searcher:
            for mode in ("dense", "lexical", "hybrid"):
                hits = searcher.search("river stone", k=30, mode=mode, per_document=0, fold=False)
                allowed.add((mode, tuple((h.document.id, h.chunk.text, round(h.score, 5)) for h in hits)))
    assert len(allowed) == 6
    path = Path("indexes/default").absolute()
    command = [sys.executable, "-c", READER, str(path)]
    root = Path(__file__).parents[2]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(4)
    ]
    answers = []
    try:
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == "open\n"
        for turn in range(16):
            for reader in readers:
                assert reader.stdin is not None
                reader.stdin.write("again\n")
                reader.stdin.flush()
            build_index(editions[turn % 2], embedder=toy)
        for reader in readers:
            out, _ = reader.communicate(timeout=60)
            assert reader.returncode == 0
            assert out.count("asked") == 16
            answers.append({(mode, tuple(map(tuple, hits))) for mode, hits in json.loads(out.splitlines()[-1])})
    finally:
        for reader in readers:
            reader.kill()
    assert all(seen <= allowed for seen in answers)
    assert set().union(*answers) == allowed  # both states were met


def test_rows_of_many_ids_are_read_in_parts_and_none_is_lost(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index([Document(f"d{i}", f"Text {i}.") for i in range(10)], embedder=toy)
    monkeypatch.setattr(metadata, "MAX_IDS", 3)
    with Searcher.open(embedder=toy) as searcher, searcher._index.state() as state:
        ids = [chunk_id for chunk_id, _, _ in state.store.places_of_chunks(range(1, 11))]
        assert ids == list(range(1, 11))
        assert list(state.store.hydrate(ids)) == ids
        assert len(state.store.texts_of_chunks(ids)) == 10
