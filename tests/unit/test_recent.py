"""Documents that are kept unpacked between searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index
from semsearch.store.metadata import Store
from semsearch.store.recent import RecentDocuments
from semsearch.types import Heading
from tests.toy import ToyEmbedder


def documents(*rows: int, text: str = "x", metadata: str = '{"tags": [1]}') -> dict[int, tuple[Document, str]]:
    return {row: (Document(f"d{row}", text, metadata=json.loads(metadata)), metadata) for row in rows}


def given(rows: dict[int, tuple[Document, str]]) -> dict[int, Document]:
    return {row: document for row, (document, _) in rows.items()}


def test_those_of_the_same_generation_are_given_again() -> None:
    recent = RecentDocuments()
    assert recent.of(1, {1, 2}) == {}
    recent.add(documents(1, 2))
    assert recent.of(1, {2, 3}) == given(documents(2))
    assert recent.of(2, {1, 2}) == {}
    assert recent.of(1, {1, 2}) == {}


LARGE = {  # 50 kB and a little, whatever it is that takes them
    "text": (Document("d", "x" * 50_000), "{}"),
    "wide text": (Document("d", "x" * 12_500 + "\N{GRINNING FACE}"), "{}"),
    "metadata": (Document("d", "", metadata={"rows": ["y" * 50_000]}), json.dumps({"rows": ["y" * 50_000]})),
    "outline": (Document("d", "", outline=(Heading(0, 1, "h"),) * 250), "{}"),
    "pages": (Document("d", "", page_starts=tuple(range(1_250))), "{}"),
}


@pytest.mark.parametrize("what", LARGE)
def test_those_go_first_that_nobody_wanted_for_longest(what: str) -> None:
    one = LARGE[what]
    recent = RecentDocuments(most_bytes=10 * 55_000)
    recent.of(1, set())
    recent.add(dict.fromkeys(range(10), one))
    recent.of(1, {0})
    recent.add({10: one})
    assert recent.of(1, set(range(11))) == dict.fromkeys((0, *range(2, 11)), one[0])


def test_many_short_ones_are_not_all_kept() -> None:
    recent = RecentDocuments(most_bytes=20_000)
    recent.of(1, set())
    recent.add(documents(*range(100)))
    assert 5 < len(recent.of(1, set(range(100)))) <= 20


def test_one_that_would_take_much_of_the_room_is_not_kept() -> None:
    recent = RecentDocuments(most_bytes=100_000)
    recent.of(1, set())
    recent.add(documents(2))
    recent.add(documents(1, text="x" * 13_000))
    assert recent.of(1, {1, 2}) == given(documents(2))


def test_bytes_are_counted_anew_with_each_generation() -> None:
    recent = RecentDocuments(most_bytes=100_000)
    for generation in range(5):
        recent.of(generation, set())
        recent.add(documents(*range(8), text="x" * 10_000))
    assert len(recent.of(4, set(range(8)))) == 8


def test_what_a_caller_does_to_a_hit_is_not_in_the_next(toy: ToyEmbedder) -> None:
    build_index([Document("a", "stone wheel", metadata={"tags": ["old"]}), Document("b", "stone river")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        for _ in range(3):
            hits = {hit.document.id: hit.document for hit in searcher.search("stone")}
            assert {key: dict(document.metadata) for key, document in hits.items()} == {"a": {"tags": ["old"]}, "b": {}}
            hits["a"].metadata["tags"].append("new")
            hits["b"].metadata["tags"] = "new"  # type: ignore[index]


def test_a_search_reads_a_document_once_until_the_index_changes(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build_index([Document("a", "stone wheel"), Document("b", "stone river")], index=index, embedder=toy)
    read: list[int] = []
    records = Store._document_records
    monkeypatch.setattr(Store, "_document_records", lambda self, rows: read.extend(rows) or records(self, rows))
    with Searcher.open(index, embedder=toy) as searcher:
        for _ in range(3):
            assert len(searcher.search("stone")) == 2
        assert len(read) == 2
        build_index([Document("a", "stone kettle")], index=index, embedder=toy)
        assert {hit.chunk.text for hit in searcher.search("stone")} == {"stone kettle", "stone river"}
        assert len(read) == 4
