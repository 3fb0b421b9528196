"""The read line against brute force, with a toy encoder."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch import Document, Hit, Searcher, build_index
from semsearch.errors import IndexNotFound, InvalidInput
from tests.toy import ToyEmbedder, ToyReranker

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
    return searcher.search("river", k=10_000, mode="dense", per_document=0)


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
    assert best == searcher.search("kettle lantern", k=1, mode="lexical")[0].score
    for hit in hits:
        assert hit.scores.dense is not None and hit.scores.rerank is None and hit.probability is None
        expected = 0.8 * max(0.0, hit.scores.dense) + 0.2 * (hit.scores.lexical or 0.0) / best
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


def test_reranking_decides_the_order(toy: ToyEmbedder) -> None:
    build_index(make_documents(), embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        hits = searcher.search("river stone", k=5)
        assert all(h.score == h.scores.rerank == len(h.chunk.text) for h in hits)
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
        assert all(h.scores.fused is not None for h in hits)
        plain = searcher.search("river stone", k=5, rerank=False)
        assert plain[0].scores.rerank is None and plain[0].score == plain[0].scores.fused


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
        for mode in ("hybrid", "lexical"):
            hit = searcher.search("boiling kettles", mode=mode)[0]
            mark = searcher.highlight("boiling kettles", [hit])[0]
            assert hit.chunk.text[slice(*mark.sentence)] == "The kettle boils on the stove."
            assert [hit.chunk.text[a:b] for a, b in mark.words] == ["kettle", "boils"]


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
    assert searcher.search_many(["river", "violin"], k=3) == [
        searcher.search("river", k=3),
        searcher.search("violin", k=3),
    ]


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
    real, calls = Searcher._open_parts, []

    def publish_first(self: Searcher, meta: Mapping[str, Any]) -> Any:
        calls.append(meta["generation"])
        if len(calls) == 1:
            build_index([Document("new", "A publication in between.")], embedder=ToyEmbedder())
        return real(self, meta)

    monkeypatch.setattr(Searcher, "_open_parts", publish_first)
    assert searcher.search("publication", k=1)[0].document.id == "new"
    assert len(calls) == 2


def test_first_queries_of_two_threads_do_not_wait_for_each_other(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(make_documents(), embedder=toy)
    opening, loading = threading.Event(), threading.Event()
    real = Searcher._open_parts

    def slow_open(self: Searcher, meta: Mapping[str, Any]) -> Any:
        opening.set()
        loading.wait(2)
        return real(self, meta)

    def slow_load(*_: object, **__: object) -> ToyEmbedder:
        loading.set()
        return toy

    monkeypatch.setattr(Searcher, "_open_parts", slow_open)
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
        before = sorted((p.name, p.stat().st_mtime_ns) for p in (copy / "lexical").iterdir())
        with Searcher.open(copy, embedder=toy) as other:
            assert other.search("kettle", k=3) == expected
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (copy / "lexical").iterdir()) == before
