"""semsearch in Haystack: its own standard suites, an index on disk, the real model where meaning counts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"  # read when haystack is imported
pytest.importorskip("haystack", reason="haystack-ai is not installed")

from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing import document_store as suites
from haystack.testing import document_store_async as async_suites
from haystack.utils.filters import document_matches_filter

from semsearch import build_index, load_embedder
from semsearch.errors import IndexIncompatible, InvalidInput
from semsearch.integrations.haystack import SemsearchDocumentStore, SemsearchRanker, SemsearchRetriever
from semsearch.types import Embedder

TEXTS = [
    "Refunds are paid within ten days.",
    "The office is closed on Sundays.",
    "Bicycles may be left in the yard.",
    "Ask the help desk for a new password.",
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder(precision="full")


@pytest.fixture
def document_store(own_folder: Path, embedder: Embedder) -> SemsearchDocumentStore:
    store = SemsearchDocumentStore(str(own_folder / "index"))
    store._kept._embedder = embedder  # as after the first call: loaded once for all tests
    return store


class TestStore(
    suites.DocumentStoreBaseExtendedTests,
    suites.CountDocumentsByFilterTest,
    suites.CountUniqueMetadataByFilterTest,
    suites.GetMetadataFieldsInfoTest,
    suites.GetMetadataFieldMinMaxTest,
    suites.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, own_folder: Path, embedder: Embedder) -> SemsearchDocumentStore:
        store = SemsearchDocumentStore(str(own_folder / "index"))
        store._kept._embedder = embedder
        return store

    def test_write_documents(self, document_store: SemsearchDocumentStore) -> None:
        """The suite asks every store to say here what it does without a policy."""
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])


class TestStoreAsync(
    async_suites.CountDocumentsAsyncTest,
    async_suites.WriteDocumentsAsyncTest,
    async_suites.DeleteDocumentsAsyncTest,
    async_suites.FilterDocumentsAsyncTest,
    async_suites.DeleteAllAsyncTest,
    async_suites.DeleteByFilterAsyncTest,
    async_suites.UpdateByFilterAsyncTest,
    async_suites.CountDocumentsByFilterAsyncTest,
    async_suites.CountUniqueMetadataByFilterAsyncTest,
    async_suites.GetMetadataFieldsInfoAsyncTest,
    async_suites.GetMetadataFieldMinMaxAsyncTest,
    async_suites.GetMetadataFieldUniqueValuesAsyncTest,
):
    @pytest.fixture
    def document_store(self, own_folder: Path, embedder: Embedder) -> SemsearchDocumentStore:
        store = SemsearchDocumentStore(str(own_folder / "index"))
        store._kept._embedder = embedder
        return store

    async def test_write_documents_async(self, document_store: SemsearchDocumentStore) -> None:
        """As `test_write_documents`."""
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


def comparison(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": f"meta.{field}", "operator": operator, "value": value}


def joined(operator: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": operator, "conditions": list(conditions)}


def make_filterable() -> list[Document]:
    about: list[dict[str, Any]] = [
        {"lang": "en", "year": 2020, "day": "2020-05-01", "author": {"name": "Ann"}},
        {"lang": "en", "year": 2023, "day": "2023-01-31T12:30:00", "draft": True},
        {"lang": "de", "year": 2022.5, "day": "2021-12-31T23:59:59+00:00", "author": {"name": "Bea"}},
        {"type": "memo", "year": None},
    ]
    return [Document(id=str(n), content=TEXTS[n], meta=meta) for n, meta in enumerate(about)]


@pytest.fixture(scope="module")
def filterable(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> SemsearchDocumentStore:
    store = SemsearchDocumentStore(str(tmp_path_factory.mktemp("filterable") / "index"))
    store._kept._embedder = embedder
    store.write_documents(make_filterable())
    return store


FILTERS = [
    *(comparison("year", operator, 2022.5) for operator in ("==", "!=", ">", ">=", "<", "<=")),
    *(comparison("day", operator, "2021-12-31T23:59:59+00:00") for operator in ("==", "!=", ">", ">=", "<", "<=")),
    *(comparison("day", operator, "2020-05-01") for operator in ("==", ">", "<=")),
    *(comparison("year", operator, None) for operator in ("==", "!=")),
    *(comparison("lang", operator, ["de", "fr"]) for operator in ("in", "not in")),
    *(comparison("year", operator, [2020, None]) for operator in ("in", "not in")),
    comparison("draft", "==", True),
    comparison("draft", "!=", True),
    comparison("type", "==", "memo"),
    comparison("author.name", "==", "Ann"),
    comparison("author.name", "!=", "Ann"),
    {"field": "lang", "operator": "==", "value": "en"},
    joined("AND", comparison("lang", "==", "en"), comparison("year", ">", 2021)),
    joined("OR", comparison("lang", "==", "de"), comparison("year", "<", 2021)),
    joined("NOT", comparison("lang", "==", "en"), comparison("year", ">", 2021)),
    joined("AND", comparison("lang", "==", "en"), joined("NOT", joined("OR", comparison("year", "==", 2020)))),
    {},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_searches_filter_as_haystack_does(filterable: SemsearchDocumentStore, filters: dict[str, Any]) -> None:
    expected = {d.id for d in make_filterable() if not filters or document_matches_filter(filters, d)}
    assert {d.id for d in filterable.search("refunds", top_k=10, filters=filters)} == expected
    words = filterable.search(" ".join(TEXTS), top_k=10, filters=filters, mode="lexical")
    assert {d.id for d in words} == expected
    assert {d.id for d in filterable.filter_documents(filters)} == expected


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        (comparison("lang", "contains", "e"), "contains"),
        (comparison("year", ">", None), ">"),
        (comparison("year", ">", "soon"), ">"),
        (comparison("year", ">=", [1]), ">="),
        (comparison("year", "<", True), "<"),
        (comparison("lang", "in", "en"), "in"),
        (comparison("lang", "==", ["en"]), "=="),
        (joined("XOR", comparison("lang", "==", "en")), "XOR"),
        (joined("AND"), "AND"),
        ({"field": "content", "operator": "==", "value": "x"}, "content"),
        ({"field": "meta.lang", "operator": "=="}, "value"),
        (comparison("nosuch", "==", 1), "nosuch"),
        ("lang", "lang"),
    ],
    ids=str,
)
def test_filters_that_a_search_cannot_follow_are_refused(
    filterable: SemsearchDocumentStore, filters: Any, named: str
) -> None:
    with pytest.raises(InvalidInput, match=named):
        filterable.search("refunds", filters=filters)


def test_malformed_filters_are_refused_even_where_nothing_is_stored(document_store: SemsearchDocumentStore) -> None:
    with pytest.raises(InvalidInput, match="operator"):
        document_store.filter_documents({"conditions": []})
    assert document_store.search("refunds") == []


def test_documents_come_back_as_they_were(document_store: SemsearchDocumentStore) -> None:
    long = "\n\n".join(f"Part {i}. " + " ".join(TEXTS) * 3 for i in range(30))
    written = Document(
        content=long,
        meta={"nested": {"list": [1, 2.5, None]}, "title": "Long", "id": "a clash", "score": 3},
        embedding=[0.1, 1 / 3, -2.0],
        sparse_embedding=SparseEmbedding(indices=[1, 5], values=[0.5, 0.25]),
        blob=ByteStream(b"\x00\xff", mime_type="image/png", meta={"page": 1}),
        score=0.25,
    )
    document_store.write_documents([written])
    assert document_store.filter_documents() == [written]
    found = document_store.search("when are refunds paid?", top_k=5)
    assert (
        [d.id for d in found] == [written.id] and found[0].content == long and found[0].embedding == written.embedding
    )


def test_a_document_without_text_is_refused(document_store: SemsearchDocumentStore) -> None:
    with pytest.raises(ValueError, match="no text"):
        document_store.write_documents([Document(content="good"), Document(blob=ByteStream(b"x"))])
    assert document_store.count_documents() == 0


def test_pipelines_write_search_and_rank_and_are_saved_as_text(own_folder: Path, embedder: Embedder) -> None:
    store = SemsearchDocumentStore(str(own_folder / "index"))
    writing = Pipeline()
    writing.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    documents = [Document(content=text, meta={"n": n, "even": n % 2 == 0}) for n, text in enumerate(TEXTS)]
    assert writing.run({"writer": {"documents": documents}})["writer"]["documents_written"] == 4

    pipeline = Pipeline()
    options = {"mode": "dense", "rerank": False}
    pipeline.add_component(
        "retriever",
        SemsearchRetriever(
            store, top_k=3, filters=comparison("n", "<", 3), filter_policy="merge", search_options=options
        ),
    )
    pipeline.add_component("ranker", SemsearchRanker(top_k=2))
    pipeline.connect("retriever.documents", "ranker.documents")
    query = "when do I get my money back?"
    asked = {"retriever": {"query": query, "filters": comparison("even", "==", True)}, "ranker": {"query": query}}
    found = pipeline.run(asked, include_outputs_from={"retriever"})
    assert [d.meta["n"] for d in found["retriever"]["documents"]] == [0, 2]
    ranked = found["ranker"]["documents"]
    assert [d.meta["n"] for d in ranked] == [0, 2] and ranked[0].score > ranked[1].score

    with pytest.raises(Exception, match="semsearch"):
        Pipeline.loads(pipeline.dumps())
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["semsearch.integrations"])
    assert again.to_dict() == pipeline.to_dict()
    assert again.run(asked)["ranker"]["documents"] == ranked
    assert SemsearchDocumentStore.from_dict(store.to_dict()).count_documents() == 4


def test_an_index_of_files_gives_passages(own_folder: Path) -> None:
    (own_folder / "guide.md").write_text("# Guide\n\n" + "\n\n".join(TEXTS * 30), encoding="utf-8")
    build_index(own_folder / "guide.md", index="guide", precision="full")
    retriever = SemsearchRetriever(SemsearchDocumentStore("guide"), top_k=1)
    (found,) = asyncio.run(retriever.run_async("refunds"))["documents"]
    assert found.meta["source"] == str(own_folder / "guide.md") and found.meta["line_start"] >= 1
    assert len(found.content or "") < len((own_folder / "guide.md").read_text(encoding="utf-8"))


def test_embeddings_that_documents_bring_are_searched(own_folder: Path) -> None:
    store = SemsearchDocumentStore(str(own_folder / "given"), embedding_dim=3, embedding_model="letters")
    long = " ".join(TEXTS * 50)
    documents = [
        Document(id="a", content="alpha", embedding=[2.0, 0, 0]),
        Document(id="b", content="beta", embedding=[0, 1.0, 0], meta={"n": 1}),
        Document(id="long", content=long, embedding=[0, 0.6, 0.8], meta={"n": 2}),
    ]
    store.write_documents(documents)
    retriever = SemsearchRetriever(store, top_k=2)
    found = retriever.run(query_embedding=[0, 0, 1.0])["documents"]
    assert [(d.id, d.score) for d in found][:1] == [("long", pytest.approx(0.8))] and found[0].content == long
    both = retriever.run("alpha", query_embedding=[0, 1.0, 0], top_k=3)["documents"]
    assert [d.id for d in both] == ["b", "long", "a"]
    only = retriever.run("alpha", filters=comparison("n", ">", 1), query_embedding=[0, 1.0, 0])["documents"]
    assert [d.id for d in only] == ["long"]
    words = SemsearchRetriever(store, search_options={"mode": "lexical"}).run("alpha")["documents"]
    assert [d.id for d in words] == ["a"]
    assert store.filter_documents() == documents
    assert store.update_by_filter(comparison("n", "==", 1), {"n": 5}) == 1
    assert store.search("", query_embedding=[0, 1.0, 0], top_k=1)[0].meta == {"n": 5}

    with pytest.raises(InvalidInput, match="query_embedding"):
        retriever.run("alpha")
    with pytest.raises(InvalidInput, match="'bare' brings no embedding"):
        store.write_documents([Document(id="bare", content="bare")])
    with pytest.raises(InvalidInput, match="components"):
        store.write_documents([Document(content="short", embedding=[1.0])])
    with pytest.raises(InvalidInput, match="text of another one"):
        store.write_documents(
            [Document(content="x", embedding=[1.0, 0, 0]), Document(content="x", embedding=[0, 1, 0])]
        )
    with pytest.raises(IndexIncompatible, match="another vector"):
        store.write_documents([Document(content="alpha", embedding=[0, 1.0, 0])])
    other = SemsearchDocumentStore(str(own_folder / "given"), embedding_dim=3, embedding_model="others")
    with pytest.raises(IndexIncompatible, match="others"):
        other.write_documents([Document(content="gamma", embedding=[0, 1.0, 0])])
    store.delete_all_documents()
    store.write_documents([Document(id="new", content="alpha", embedding=[0, 1.0, 0])])
    assert store.search("", query_embedding=[0, 1.0, 0])[0].score == pytest.approx(1.0)


def test_what_cannot_be_followed_is_refused(filterable: SemsearchDocumentStore, own_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="scale_score"):
        SemsearchRetriever(filterable, search_options={"scale_score": True})
    with pytest.raises(InvalidInput, match="where"):
        filterable.search("refunds", where="lang = 'en'")
    with pytest.raises(InvalidInput, match="top_k"):
        SemsearchRetriever(filterable, top_k=0)
    assert SemsearchDocumentStore(Path("faq")).to_dict()["init_parameters"]["index"] == str(own_folder / "faq")


def test_a_query_embedding_is_refused_where_the_store_encodes(filterable: SemsearchDocumentStore) -> None:
    with pytest.raises(InvalidInput, match="embedding_dim"):
        filterable.search("refunds", query_embedding=[0.0] * 384)
    with pytest.raises(InvalidInput, match="model"):
        SemsearchDocumentStore("x", model="m", embedding_dim=3)


def test_the_ranker_leaves_documents_without_text_to_the_end() -> None:
    documents = [Document(blob=ByteStream(b"x")), *(Document(content=text) for text in TEXTS)]
    ranked = SemsearchRanker(top_k=10).run("when are refunds paid?", documents)["documents"]
    assert ranked[0].content == TEXTS[0] and ranked[-1].content is None and len(ranked) == 5
    assert documents[1].score is None
    with pytest.raises(InvalidInput, match="top_k"):
        SemsearchRanker(top_k=0)


def test_fields_within_fields_are_counted_as_they_are_filtered(document_store: SemsearchDocumentStore) -> None:
    metas = [{"author": {"name": "ann", "year": 1990}}, {"author": {"name": "bob", "year": 2001}}, {"author": "none"}]
    document_store.write_documents([Document(content=f"text {n}", meta=meta) for n, meta in enumerate(metas)])
    named = comparison("author.name", "in", ["ann", "bob"])
    assert document_store.count_documents_by_filter(named) == 2
    assert document_store.get_metadata_field_unique_values("meta.author.name") == (["ann", "bob"], 2)
    assert document_store.get_metadata_field_min_max("author.year") == {"min": 1990, "max": 2001}
    assert document_store.count_unique_metadata_by_filter(named, ["author.name"]) == {"author.name": 2}


def test_documents_of_files_are_not_rewritten(own_folder: Path, embedder: Embedder) -> None:
    (own_folder / "note.txt").write_text("The office is closed on Sundays.")
    build_index(own_folder / "note.txt", index=own_folder / "index", embedder=embedder)
    store = SemsearchDocumentStore(own_folder / "index")
    store._kept._embedder = embedder
    store.write_documents([Document(id="own", content="Refunds are paid within ten days.")])
    with pytest.raises(InvalidInput, match=r"note\.txt"):
        store.update_by_filter({}, {"checked": True})
    assert store.count_documents() == 2
    assert store.get_metadata_fields_info().keys() & {"checked"} == set()


async def test_a_method_of_a_subclass_is_also_that_of_its_event_loop(own_folder: Path) -> None:
    class Counting(SemsearchDocumentStore):
        def count_documents(self) -> int:
            return 41 + super().count_documents()

    assert await Counting(own_folder / "index").count_documents_async() == 41
