"""A searcher that follows its index, through every door that keeps one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index
from semsearch.errors import IndexNotFound, InvalidInput
from semsearch.integrations.kept import KeptIndex, searching
from semsearch.mcp_indexes import Indexes
from semsearch.reopening import CurrentSearcher
from semsearch.server.service import Service
from tests.toy import ToyEmbedder

KEPT = Path("indexes") / "kept"
Using = Callable[[], AbstractContextManager[Searcher]]


def write(name: str, toy: ToyEmbedder) -> None:
    """An index in place of the one that is there."""
    while KEPT.exists():  # where a file came or went meanwhile, a part is left
        shutil.rmtree(KEPT, ignore_errors=True)
    build_index([Document(name, "the lamp of the lighthouse")], index="kept", embedder=toy)


def of_indexes() -> Using:
    indexes = Indexes(["kept"])
    return lambda: indexes.searcher("kept")


DOORS: dict[str, Callable[[ToyEmbedder], Using]] = {
    "itself": lambda toy: CurrentSearcher(KEPT, lambda: Searcher.open(KEPT, embedder=toy)).use,
    "service": lambda toy: Service("kept", embedder=toy).searcher.use,
    "agents": lambda toy: of_indexes(),
    "adapter": lambda toy: KeptIndex("kept", embedder=toy).searcher,  # type: ignore[return-value]
    "retriever": lambda toy: searching("kept", device="auto", reranker=None),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_was_replaced_is_closed_when_the_last_search_in_it_ends(door: str, toy: ToyEmbedder) -> None:
    write("before", toy)
    use = DOORS[door](toy)
    with use() as first, use() as same:
        assert first is same and first.documents()[0].id == "before"
        write("after", toy)
        with use() as second:
            assert second is not first and second.documents()[0].id == "after"
        assert first.documents()[0].id == "before"
    with pytest.raises(InvalidInput, match="has been closed"):
        first.documents()
    with use() as again:
        assert again is second and again.documents()[0].id == "after"


def test_one_that_was_given_stays(toy: ToyEmbedder) -> None:
    write("before", toy)
    with Searcher.open("kept", embedder=toy) as given:
        use = searching(given, device="auto", reranker=None)
        served = Indexes(opened={"kept": given})
        write("after", toy)
        with use() as same, served.searcher("kept") as served_one:
            assert same is served_one is given


def test_threads_that_meet_a_replaced_index_open_it_once(toy: ToyEmbedder) -> None:
    write("before", toy)
    opened: list[Searcher] = []

    def open_searcher() -> Searcher:
        opened.append(Searcher.open("kept", embedder=toy))
        return opened[-1]

    current, ids = CurrentSearcher(KEPT, open_searcher), list[str]()
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait()
        with current.use() as searcher:
            ids.append(searcher.documents()[0].id)

    for name in ("before", "after"):
        write(name, toy)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ids == 8 * ["before"] + 8 * ["after"] and len(opened) == 2
    current.close()
    with pytest.raises(InvalidInput):
        opened[1].documents()


def test_an_index_that_is_gone_is_told_until_it_is_back(toy: ToyEmbedder) -> None:
    write("before", toy)
    use = CurrentSearcher(KEPT, lambda: Searcher.open(KEPT, embedder=toy)).use
    with use() as first:
        first.documents()
        shutil.rmtree(KEPT)
        for _ in range(2):
            with pytest.raises(IndexNotFound), use():
                pass
        assert first.documents()[0].id == "before"
    write("after", toy)
    with use() as second:
        assert second.documents()[0].id == "after"
