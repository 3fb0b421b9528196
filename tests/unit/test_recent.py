"""Documents that are kept unpacked between searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index
from semsearch.store.metadata import Store
from semsearch.store.recent import RecentDocuments
from tests.toy import ToyEmbedder


def documents(*rows: int, length: int = 10) -> dict[int, Document]:
    return {row: Document(f"d{row}", "x" * length, metadata={"tags": [row]}) for row in rows}


def test_those_of_the_same_generation_are_given_again() -> None:
    recent = RecentDocuments()
    assert recent.of(1, {1, 2}) == {}
    recent.add(documents(1, 2))
    assert recent.of(1, {2, 3}) == documents(2)
    assert recent.of(2, {1, 2}) == {}
    assert recent.of(1, {1, 2}) == {}


def test_those_go_first_that_nobody_wanted_for_longest() -> None:
    recent = RecentDocuments(most_bytes=3 * 11_000)
    recent.of(1, set())
    recent.add(documents(1, 2, 3, length=10_000))
    recent.of(1, {1})
    recent.add(documents(4, length=10_000))
    assert recent.of(1, {1, 2, 3, 4}).keys() == {1, 3, 4}


def test_one_that_is_too_long_for_them_all_is_not_kept() -> None:
    recent = RecentDocuments(most_bytes=5_000)
    recent.of(1, set())
    recent.add(documents(1, length=10_000))
    assert recent.of(1, {1}) == {}
    recent.add(documents(2))
    assert recent.of(1, {2}) == documents(2)


def test_bytes_are_counted_anew_with_each_generation() -> None:
    recent = RecentDocuments(most_bytes=3 * 11_000)
    for generation in range(5):
        recent.of(generation, set())
        recent.add(documents(1, 2, 3, length=10_000))
    assert recent.of(4, {1, 2, 3}).keys() == {1, 2, 3}


def test_what_a_caller_does_to_a_hit_is_not_in_the_next(toy: ToyEmbedder) -> None:
    build_index([Document("a", "stone wheel", metadata={"tags": ["old"]}), Document("b", "stone river")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        for _ in range(3):
            hits = {hit.document.id: hit.document for hit in searcher.search("stone")}
            assert {key: dict(document.metadata) for key, document in hits.items()} == {"a": {"tags": ["old"]}, "b": {}}
            hits["a"].metadata["tags"].append("new")
            dict.__setitem__(hits["b"].metadata, "tags", "new")  # type: ignore[arg-type]


def test_a_search_reads_a_document_once_until_the_index_changes(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build_index([Document("a", "stone wheel"), Document("b", "stone river")], index=index, embedder=toy)
    read: list[int] = []
    documents_of = Store.documents
    monkeypatch.setattr(Store, "documents", lambda self, rows: read.extend(rows) or documents_of(self, rows))
    with Searcher.open(index, embedder=toy) as searcher:
        for _ in range(3):
            assert len(searcher.search("stone")) == 2
        assert len(read) == 2
        build_index([Document("a", "stone kettle")], index=index, embedder=toy)
        assert {hit.chunk.text for hit in searcher.search("stone")} == {"stone kettle", "stone river"}
        assert len(read) == 4
