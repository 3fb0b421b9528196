"""semsearch in LangChain: its own standard suites, the real model, an index on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from semsearch import Searcher, build_index, load_embedder
from semsearch.errors import IndexIncompatible, InvalidInput, SemsearchError
from semsearch.integrations.langchain import (
    SemsearchEmbeddings,
    SemsearchReranker,
    SemsearchRetriever,
    SemsearchVectorStore,
)

TEXTS = [
    "Refunds are paid within ten days.",
    "The office is closed on Sundays.",
    "Bicycles may be left in the yard.",
    "Ask the help desk for a new password.",
]


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, own_folder: Path) -> SemsearchVectorStore:
        return SemsearchVectorStore(self.get_embeddings(), own_folder / "index")


@pytest.fixture(scope="module")
def embeddings() -> SemsearchEmbeddings:
    return SemsearchEmbeddings()


class TestVectorStoreWithOwnModel(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, embeddings: SemsearchEmbeddings, own_folder: Path) -> SemsearchVectorStore:
        return SemsearchVectorStore(embeddings, own_folder / "index")


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return SemsearchEmbeddings


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return SemsearchEmbeddings


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def index(self, own_folder: Path) -> None:
        for i, text in enumerate(TEXTS):
            (own_folder / f"{i}.md").write_text(f"# About {i}\n\n{text}\n", encoding="utf-8")
        build_index(own_folder, index="office", precision="full")

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return SemsearchRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": "office"}

    @property
    def retriever_query_example(self) -> str:
        return "when do I get my money back?"


@pytest.fixture
def store(embeddings: SemsearchEmbeddings, own_folder: Path) -> SemsearchVectorStore:
    return SemsearchVectorStore(embeddings, own_folder / "index")


def test_the_retriever_gives_passages_of_files_and_says_where_they_stand(own_folder: Path) -> None:
    guide = (
        "# Guide\n\nWelcome.\n\n## Money\n\n" + " ".join(TEXTS[:1] * 60) + "\n\n## Rest\n\n" + " ".join(TEXTS[1:] * 60)
    )
    (own_folder / "guide.md").write_text(guide, encoding="utf-8")
    build_index(own_folder, index="guide", precision="full")
    with Searcher.open("guide") as searcher:
        retriever = SemsearchRetriever(index=searcher, k=1, search_options={"rerank": False})
        first = retriever.invoke("when are refunds paid?")[0]
        expected = searcher.search("when are refunds paid?", k=1, rerank=False)[0]
    assert first.page_content == expected.chunk.text != guide
    assert first.metadata["source"] == str(own_folder / "guide.md")
    assert (first.metadata["heading"], first.metadata["line_start"]) == (
        expected.chunk.heading,
        expected.chunk.line_start,
    )
    assert (first.metadata["score"], first.metadata["probability"]) == (expected.score, expected.probability)


def test_the_retriever_filters_in_its_constructor_and_in_a_call(store: SemsearchVectorStore, own_folder: Path) -> None:
    store.add_texts(TEXTS, [{"n": n} for n in range(4)])
    retriever = SemsearchRetriever(index=own_folder / "index", where="n >= 2")
    assert {d.metadata["n"] for d in retriever.invoke("refunds")} == {2, 3}
    assert {d.metadata["n"] for d in retriever.invoke("refunds", where={"n": 1})} == {1}
    with pytest.raises(SemsearchError, match="no index"):
        SemsearchRetriever(index="none")


def test_a_long_document_comes_back_whole_and_once(store: SemsearchVectorStore) -> None:
    long = "\n\n".join(f"Section {i}. " + " ".join(TEXTS) * 3 for i in range(40))
    metadata = {"nested": {"list": [1, 2.5, None, {"deep": "ü"}], "yes": True}, "title": "A long one", "empty": {}}
    store.add_documents([Document(page_content=long, metadata=metadata, id="long")])
    with Searcher.open(store._kept.path) as searcher:
        assert len(searcher.search("refunds", k=10, per_document=0, fold=False)) > 1
    assert store.similarity_search("refunds", k=4) == [Document(page_content=long, metadata=metadata, id="long")]
    assert store.get_by_ids(["long"])[0].metadata == metadata


def test_text_that_utf8_cannot_hold_comes_back_as_it_was(store: SemsearchVectorStore) -> None:
    odd = Document(page_content="refunds \ud800 here", metadata={"why\udfff": "\ud800"}, id="o\ud801")
    store.add_documents([odd])
    assert store.similarity_search("refunds", k=1) == [odd]
    assert store.get_by_ids(["o\ud801"]) == [odd]


@pytest.mark.parametrize(
    "metadata", [{"when": object()}, {"pair": (1, 2)}, {1: "one"}, {"nan": float("nan")}, {"__original": "x"}]
)
def test_metadata_that_would_change_are_refused(store: SemsearchVectorStore, metadata: dict[Any, Any]) -> None:
    with pytest.raises(InvalidInput, match="metadata"):
        store.add_texts(["text"], [metadata])
    assert store.similarity_search("text") == []


def test_what_cannot_be_added_is_refused_whole(store: SemsearchVectorStore) -> None:
    with pytest.raises(InvalidInput, match="no text"):
        store.add_texts(["good", " \n"])
    with pytest.raises(InvalidInput, match="2 texts, 1 metadatas"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InvalidInput, match="batch"):
        store.add_texts(["a"], batch=3)
    assert store.get_by_ids(["good"]) == [] and not store._kept.path.exists()


FILTERED = [
    ({"lang": "en"}, {"a", "b"}),
    ({"lang": {"$eq": "en"}, "year": {"$gt": 2020}}, {"b"}),
    ({"year": {"$gte": 2020, "$lt": 2022}}, {"a"}),
    ({"year": {"$lte": 2020}}, {"a"}),
    ({"lang": {"$ne": "en"}}, {"c", "d"}),
    ({"lang": {"$in": ["de", "fr"]}}, {"c"}),
    ({"lang": {"$nin": ["de", "fr"]}}, {"a", "b", "d"}),
    ({"year": {"$exists": False}}, {"d"}),
    ({"$or": [{"lang": "de"}, {"year": 2020}]}, {"a", "c"}),
    ({"$and": [{"lang": "en"}, {"year": {"$not": {"$gt": 2020}}}]}, {"a"}),
    ({"$not": {"lang": "en"}}, {"c", "d"}),
    ({"type": "memo"}, {"d"}),
    ('lang = "en" and year > 2020', {"b"}),
    ({}, {"a", "b", "c", "d"}),
]


@pytest.fixture(scope="module")
def filterable(tmp_path_factory: pytest.TempPathFactory) -> SemsearchVectorStore:
    store = SemsearchVectorStore(index=tmp_path_factory.mktemp("filterable") / "index")
    about = [{"lang": "en", "year": 2020}, {"lang": "en", "year": 2023}, {"lang": "de", "year": 2022}, {"type": "memo"}]
    store.add_texts(TEXTS, about, ids=["a", "b", "c", "d"])
    return store


@pytest.mark.parametrize(("given", "expected"), FILTERED)
@pytest.mark.parametrize("mode", ["hybrid", "lexical", "vector"])
def test_filters_mean_what_they_say(
    filterable: SemsearchVectorStore, given: Any, expected: set[str], mode: str
) -> None:
    if mode == "vector":
        vector = filterable._kept.embedder().embed_queries(["refunds"])[0].tolist()
        found = filterable.similarity_search_by_vector(vector, k=10, filter=given)
    else:
        query = " ".join(TEXTS)
        found = filterable.similarity_search(query, k=10, filter=given, mode=mode)
    assert {d.id for d in found} == expected


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"lang": {"$regex": "e."}}, r"\$regex"),
        ({"$nor": [{"lang": "en"}]}, r"\$nor"),
        ({"lang": {"$in": "en"}}, "list"),
        ({"lang": {}}, "empty"),
        ({"lang": None}, "exists"),
        ({"$or": {"lang": "en"}}, r"\$or"),
        ({"nosuch": 1}, "nosuch"),
        (lambda document: True, "filter"),
    ],
)
def test_filters_that_cannot_be_followed_are_refused(filterable: SemsearchVectorStore, given: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        filterable.similarity_search("refunds", filter=given)


@pytest.mark.parametrize("options", [{"where": "lang = 'en'"}, {"score_threshold": 0.5}, {"vector": [1.0]}])
def test_options_that_nobody_would_follow_are_refused(
    filterable: SemsearchVectorStore, options: dict[str, Any]
) -> None:
    (name,) = options
    with pytest.raises(InvalidInput, match=name):
        filterable.similarity_search("refunds", **options)
    with pytest.raises(InvalidInput, match=name):
        SemsearchVectorStore(search_options=options)
    with pytest.raises(ValueError, match=name):
        SemsearchRetriever(index=filterable._kept.path, search_options=options)
    with pytest.raises(InvalidInput, match="mode"):
        filterable.similarity_search_by_vector([0.0], mode="dense")


def test_scores_fall_and_relevance_lies_between_0_and_1(filterable: SemsearchVectorStore) -> None:
    scored = filterable.similarity_search_with_score("when are refunds paid?", k=4)
    assert [score for _, score in scored] == sorted((score for _, score in scored), reverse=True)
    relevant = filterable.similarity_search_with_relevance_scores("when are refunds paid?", k=4)
    assert relevant[0][0].id == "a" and 1 >= relevant[0][1] > 0.5 > relevant[-1][1] >= 0
    threshold = filterable.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.5, "k": 4}
    )
    assert [d.id for d in threshold.invoke("when are refunds paid?")] == ["a"]
    with pytest.raises(InvalidInput, match="BM25"):
        filterable.similarity_search_with_relevance_scores("refunds", mode="lexical")


def test_mmr_prefers_what_differs(store: SemsearchVectorStore) -> None:
    store.add_texts([TEXTS[0], TEXTS[0].replace("ten", "12"), TEXTS[1]], ids=["a", "b", "c"])
    assert [d.id for d in store.similarity_search("refunds paid", k=2)] in (["a", "b"], ["b", "a"])
    mmr = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.2})
    assert "c" in [d.id for d in mmr.invoke("refunds paid")]


def test_documents_that_say_the_same_are_all_there(store: SemsearchVectorStore) -> None:
    ids = store.add_texts([TEXTS[0]] * 3)
    assert {d.id for d in store.similarity_search("refunds", k=5)} == set(ids)
    assert store.delete() is True
    assert store.similarity_search("refunds") == []
    assert store.add_texts([TEXTS[1]], ids=["again"]) == ["again"]
    assert [d.id for d in store.similarity_search("closed", k=5)] == ["again"]


def test_vectors_are_those_of_the_embeddings_given(own_folder: Path) -> None:
    class Letters(Embeddings):
        """Twice as long as unit vectors, and another thing for queries than for documents."""

        model = "letters"
        n_documents = 0

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            self.n_documents += len(texts)
            return [[2.0 * text.count(c) for c in "abc"] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [2.0 * text.count(c) for c in "bca"]

    letters = Letters()
    store = SemsearchVectorStore(letters, own_folder / "letters")
    store.add_texts(["aaa", "bbb", "ccc", "aabb"], ids=["a", "b", "c", "ab"])
    dense = store.similarity_search_with_score("aac", k=4, mode="dense")
    assert dense[0][0].id == "c"
    assert dense[0][1] == pytest.approx(2 / 5**0.5, abs=1e-6)
    assert [d.id for d in store.similarity_search_by_vector([0, 1, 0], k=1)] == ["b"]
    store.add_texts(["aaa"], [{"new": 1}], ids=["a"])
    assert letters.n_documents == 4  # what is known is not encoded again

    class Others(Letters):
        model = "others"

    with pytest.raises(IndexIncompatible, match="others"):
        SemsearchVectorStore(Others(), own_folder / "letters").add_texts(["cab"])
    with pytest.raises(InvalidInput, match="zero"):
        store.add_texts(["nothing"])


def test_own_embeddings_are_not_wrapped(own_folder: Path) -> None:
    embeddings = SemsearchEmbeddings()
    documents = [Document(page_content=text, id=text[:3] if text < "B" else None) for text in TEXTS]
    made = SemsearchVectorStore.from_documents(documents, embeddings, index=own_folder / "index")
    assert made.embeddings is embeddings and made.get_by_ids(["Ask"])[0].page_content == TEXTS[3]
    with Searcher.open(own_folder / "index") as searcher:
        assert searcher.embedder.fingerprint == load_embedder().fingerprint.removesuffix("-int8")
    store = SemsearchVectorStore(index=own_folder / "index")
    assert store.similarity_search("money back", k=1)[0].page_content == TEXTS[0]


def test_many_tasks_may_write_and_read(store: SemsearchVectorStore) -> None:
    async def work() -> list[list[Document]]:
        await asyncio.gather(*(store.aadd_texts([f"{text} {i}"], ids=[f"{i}"]) for i, text in enumerate(TEXTS)))
        return await asyncio.gather(*(store.asimilarity_search(text, k=1) for text in TEXTS))

    assert [[d.id for d in found] for found in asyncio.run(work())] == [["0"], ["1"], ["2"], ["3"]]


def test_an_id_is_never_taken_for_a_path(own_folder: Path) -> None:
    (own_folder / "page.md").write_text(TEXTS[0], encoding="utf-8")
    build_index(own_folder, index="files", precision="full")
    store = SemsearchVectorStore(index="files")
    store.add_texts([TEXTS[1]], ids=[str(own_folder)])
    found = store.similarity_search("refunds", k=1)[0]
    assert found.metadata["source"] == str(own_folder / "page.md")
    store.delete([str(own_folder), "."])
    store.delete()  # what came from files stays
    assert store.similarity_search("refunds", k=5) == [found]
    store.delete([found.metadata["document_id"]])
    assert store.similarity_search("refunds", k=5) == []


def test_the_reranker_orders_what_it_is_given() -> None:
    documents = [Document(page_content=text, metadata={"n": n}, id=str(n)) for n, text in enumerate(TEXTS)]
    reranker = SemsearchReranker(top_n=2)
    best = reranker.compress_documents(documents[::-1], "when are refunds paid?")
    assert best[0].id == "0" and len(best) == 2
    assert best[0].metadata["relevance_score"] > best[1].metadata["relevance_score"]
    assert documents[0].metadata == {"n": 0}
    assert asyncio.run(reranker.acompress_documents(documents, "refunds"))[0].id == "0"
    assert reranker.compress_documents([], "refunds") == []
    with pytest.raises(ValueError, match="top_n"):
        SemsearchReranker(top_n=0)
