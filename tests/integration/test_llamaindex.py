"""semsearch in LlamaIndex, through its own indexes, retrievers and query engines; the real model, indexes on disk."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    IndexNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from semsearch import Document as OwnDocument
from semsearch import Searcher, build_index, load_embedder
from semsearch.errors import IndexIncompatible, InvalidInput, SemsearchError
from semsearch.integrations.llamaindex import (
    SemsearchEmbedding,
    SemsearchRerank,
    SemsearchRetriever,
    SemsearchVectorStore,
)

TEXTS = [
    "Refunds are paid within ten days.",
    "The office is closed on Sundays.",
    "Bicycles may be left in the yard.",
    "Ask the help desk for a new password.",
]
QUERY = "when do I get my money back?"


@pytest.fixture(scope="module")
def embedding() -> SemsearchEmbedding:
    return SemsearchEmbedding()


@pytest.fixture
def store(own_folder: Path) -> SemsearchVectorStore:
    return SemsearchVectorStore(str(own_folder / "index"))


def make_documents() -> list[Document]:
    about: list[dict[str, Any]] = [
        {"lang": "en", "year": 2020, "tags": ["a", "b"]},
        {"lang": "en", "year": 2023, "tags": ["b"]},
        {"lang": "de", "year": 2022.5, "tags": ["a", "c"]},
        {"type": "50%* [off]"},
    ]
    hidden = ["lang", "year", "tags", "type"]
    return [
        Document(id_=f"doc{n}", text=TEXTS[n], metadata=meta, excluded_embed_metadata_keys=hidden)
        for n, meta in enumerate(about)
    ]


def index_of(store: SemsearchVectorStore, embedding: SemsearchEmbedding, documents: list[Document]) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embedding)


@pytest.fixture(scope="module")
def filterable(tmp_path_factory: pytest.TempPathFactory, embedding: SemsearchEmbedding) -> SemsearchVectorStore:
    store = SemsearchVectorStore(str(tmp_path_factory.mktemp("filterable") / "index"))
    index_of(store, embedding, make_documents())
    return store


def test_the_embedding_gives_our_vectors(embedding: SemsearchEmbedding) -> None:
    expected = load_embedder(precision="full")
    assert np.allclose(embedding.get_text_embedding(TEXTS[0]), expected.embed_documents(TEXTS[:1])[0], atol=1e-6)
    assert np.allclose(embedding.get_query_embedding(QUERY), expected.embed_queries([QUERY])[0], atol=1e-6)
    batch = embedding.get_text_embedding_batch(TEXTS)
    assert np.allclose(batch, expected.embed_documents(TEXTS), atol=1e-2)
    assert np.allclose(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)), batch, atol=1e-2)
    assert np.allclose(asyncio.run(embedding.aget_query_embedding(QUERY)), embedding.get_query_embedding(QUERY))
    assert SemsearchEmbedding.from_dict(embedding.to_dict()).model_name == embedding.model_name


def test_a_query_engine_over_an_index_of_files(own_folder: Path) -> None:
    (own_folder / "guide.md").write_text("# Guide\n\n" + "\n\n".join(TEXTS * 30), encoding="utf-8")
    build_index(own_folder / "guide.md", index="guide", precision="full")
    retriever = SemsearchRetriever("guide", similarity_top_k=2, search_options={"rerank": False})
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=[SemsearchRerank(top_n=1)], response_mode="compact"
    )
    answer = engine.query(QUERY)
    (source,) = answer.source_nodes
    assert "Refunds" in source.node.get_content() and "Refunds" in str(answer)
    node = source.node
    text = (own_folder / "guide.md").read_text(encoding="utf-8")
    assert isinstance(node, TextNode)
    assert node.text == text[node.start_char_idx : node.end_char_idx] != text
    assert node.metadata["source"] == str(own_folder / "guide.md") and node.ref_doc_id
    assert node.get_content(MetadataMode.EMBED) == node.text
    found = asyncio.run(engine.aquery(QUERY)).source_nodes
    assert [n.node.node_id for n in found] == [node.node_id]
    with pytest.raises(SemsearchError, match="no index"):
        SemsearchRetriever("none")


def test_the_retriever_filters_and_gives_whole_documents_of_python(own_folder: Path) -> None:
    documents = [OwnDocument(f"d{n}", text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    build_index(documents, index="own", precision="full")
    with Searcher.open("own") as searcher:
        retriever = SemsearchRetriever(searcher, where="n > 0", similarity_top_k=4)
        found = retriever.retrieve(QueryBundle("refunds", embedding=[0.5]))
        assert {n.metadata["document_id"] for n in found} == {"d1", "d2", "d3"}
        assert [n.node_id for n in asyncio.run(retriever.aretrieve("refunds"))] == [n.node_id for n in found]


def test_an_index_of_llamaindex_inserts_filters_deletes_and_opens_again(
    store: SemsearchVectorStore, embedding: SemsearchEmbedding, own_folder: Path
) -> None:
    index = index_of(store, embedding, make_documents()[:3])
    assert [n.node.ref_doc_id for n in index.as_retriever(similarity_top_k=1).retrieve(QUERY)] == ["doc0"]
    index.insert(make_documents()[3])
    found = index.as_retriever(similarity_top_k=10).retrieve("a new password, please")
    assert found[0].node.ref_doc_id == "doc3" and len(found) == 4
    assert found[0].score == pytest.approx(
        float(np.dot(embedding.get_query_embedding("a new password, please"), embedding.get_text_embedding(TEXTS[3]))),
        abs=1e-3,
    )
    german = MetadataFilters(filters=[MetadataFilter(key="lang", value="de")])
    assert [n.node.ref_doc_id for n in index.as_retriever(filters=german).retrieve(QUERY)] == ["doc2"]
    index.delete_ref_doc("doc0")
    index.delete_ref_doc("doc0")
    assert {n.ref_doc_id for n in store.get_nodes()} == {"doc1", "doc2", "doc3"}

    again = VectorStoreIndex.from_vector_store(SemsearchVectorStore(str(own_folder / "index")), embed_model=embedding)
    asked = again.as_query_engine(llm=MockLLM(), similarity_top_k=1, vector_store_query_mode="hybrid").query("Sundays")
    assert [n.node.ref_doc_id for n in asked.source_nodes] == ["doc1"]
    assert [n.node.ref_doc_id for n in asyncio.run(again.as_retriever().aretrieve("yard"))][:1] == ["doc2"]
    store.clear()
    assert again.as_retriever().retrieve(QUERY) == [] == store.get_nodes()
    again.insert(make_documents()[0])
    assert [n.ref_doc_id for n in store.get_nodes()] == ["doc0"]


def test_modes(filterable: SemsearchVectorStore, embedding: SemsearchEmbedding) -> None:
    index = VectorStoreIndex.from_vector_store(filterable, embed_model=embedding)

    def found(query: str, mode: str, **options: Any) -> list[NodeWithScore]:
        return index.as_retriever(vector_store_query_mode=mode, similarity_top_k=3, **options).retrieve(query)

    assert [n.node.ref_doc_id for n in found("Sundays", "text_search")] == ["doc1"]
    assert [n.node.ref_doc_id for n in found("Sundays", "sparse")] == ["doc1"]
    assert found("Sundays", "hybrid")[0].node.ref_doc_id == "doc1"
    assert len(found("Sundays", "hybrid", hybrid_top_k=2)) == 2
    assert found(QUERY, "mmr")[0].node.ref_doc_id == "doc0"
    for mode, options, named in [
        ("svm", {}, "svm"),
        ("semantic_hybrid", {}, "semantic_hybrid"),
        ("hybrid", {"alpha": 0.5}, "alpha"),
        ("default", {"vector_store_kwargs": {"rerank": True}}, "rerank"),
    ]:
        with pytest.raises(InvalidInput, match=named):
            found(QUERY, mode, **options)
    with pytest.raises(InvalidInput, match="query_embedding"):
        filterable.query(VectorStoreQuery(query_str="x"))
    with pytest.raises(InvalidInput, match="query_str"):
        filterable.query(VectorStoreQuery(query_embedding=[0.1] * 384, mode=VectorStoreQueryMode.HYBRID))


def one(key: str, operator: str, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


def several(condition: str, *parts: MetadataFilter | MetadataFilters) -> MetadataFilters:
    return MetadataFilters(filters=list(parts), condition=FilterCondition(condition))


FILTERS = [
    *(several("and", one("year", operator, 2022.5)) for operator in ("==", "!=", ">", ">=", "<", "<=")),
    *(several("and", one("lang", operator, ["de", "fr"])) for operator in ("in", "nin")),
    *(several("and", one("tags", operator, ["a", "c"])) for operator in ("any", "all")),
    several("and", one("tags", "contains", "b")),
    several("and", one("lang", "is_empty")),
    several("and", one("type", "text_match", "%* [")),
    several("and", one("type", "text_match", "OFF")),
    several("and", one("type", "text_match_insensitive", "[OFF")),
    several("and", one("lang", "==", "en"), one("year", ">", 2021)),
    several("or", one("lang", "==", "de"), one("year", "==", 2020)),
    several("not", one("lang", "==", "de"), one("year", "==", 2020)),
]


@pytest.mark.parametrize("filters", FILTERS, ids=lambda f: f"{f.condition} {f.filters}")
def test_filters_mean_what_llamaindex_means(
    filterable: SemsearchVectorStore, embedding: SemsearchEmbedding, filters: MetadataFilters
) -> None:
    vector = embedding.get_query_embedding(QUERY)
    simple = SimpleVectorStore()
    nodes = [TextNode(id_=d.doc_id, text=d.text, metadata=d.metadata, embedding=vector) for d in make_documents()]
    simple.add([n.model_copy(update={"relationships": {}}) for n in nodes])
    expected = set(simple.query(VectorStoreQuery(vector, similarity_top_k=10, filters=filters)).ids or [])
    query = VectorStoreQuery(vector, similarity_top_k=10, filters=filters, query_str=" ".join(TEXTS))
    for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.TEXT_SEARCH):
        query.mode = mode
        assert {n.ref_doc_id for n in filterable.query(query).nodes or []} == expected
    assert {n.ref_doc_id for n in filterable.get_nodes(filters=filters)} == expected


def test_filters_within_filters_and_by_ids(filterable: SemsearchVectorStore, embedding: SemsearchEmbedding) -> None:
    nested = several("and", one("lang", "==", "en"), several("or", one("year", "<", 2021), one("year", ">", 2030)))
    assert [n.ref_doc_id for n in filterable.get_nodes(filters=nested)] == ["doc0"]
    vector = embedding.get_query_embedding(QUERY)
    of_documents = filterable.query(VectorStoreQuery(vector, similarity_top_k=10, doc_ids=["doc1", "doc2"]))
    assert {n.ref_doc_id for n in of_documents.nodes or []} == {"doc1", "doc2"}
    ids = [n.node_id for n in of_documents.nodes or []]
    assert set(filterable.query(VectorStoreQuery(vector, similarity_top_k=10, node_ids=ids)).ids or []) == set(ids)
    assert filterable.query(VectorStoreQuery(vector, node_ids=["none"])).ids == []


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (one("lang", "in", "en"), "in"),
        (one("lang", "==", ["en"]), "=="),
        (one("lang", ">"), ">"),
        (one("year", "text_match", 2), "text_match"),
        (one("nosuch", "==", 1), "nosuch"),
        (several("and"), "no filters"),
    ],
)
def test_filters_that_cannot_be_followed_are_refused(filterable: SemsearchVectorStore, part: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        filterable.get_nodes(filters=several("and", part))


def test_nodes_come_back_as_they_were(store: SemsearchVectorStore) -> None:
    related = {
        NodeRelationship.SOURCE: RelatedNodeInfo(node_id="parent", metadata={"x": 1}),
        NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
    }
    long = "\n\n".join(TEXTS * 100)
    nodes = [
        TextNode(
            id_="long",
            text=long,
            metadata={"nested": {"list": [1, 2.5, None]}, "title": "T"},
            excluded_llm_metadata_keys=["title"],
            relationships=related,
            start_char_idx=3,
            end_char_idx=9,
            text_template="{metadata_str} :: {content}",
            embedding=[0.6, 0.8, 0.0],
        ),
        IndexNode(id_="index", text="points elsewhere \ud800", index_id="elsewhere", embedding=[0.0, 0.0, 2.0]),
    ]
    assert asyncio.run(store.async_add(nodes)) == ["long", "index"]
    expected = [node.model_copy(update={"embedding": None}) for node in nodes]
    assert store.get_nodes(["index", "long", "none"]) == expected[::-1]
    result = store.query(VectorStoreQuery([1.0, 0.0, 0.0], similarity_top_k=1))
    assert result.nodes == expected[:1] and result.similarities == pytest.approx([0.6])
    assert (result.nodes or [])[0].ref_doc_id == "parent"
    words = VectorStoreQuery(query_str="nested 2.5", mode=VectorStoreQueryMode.TEXT_SEARCH, similarity_top_k=1)
    assert store.query(words).ids == ["long"]  # what was embedded holds the metadata
    store.add([nodes[0].model_copy(update={"metadata": {"new": True}, "embedding": [0.0, 1.0, 0.0]})])
    assert [n.metadata for n in store.get_nodes(["long"])] == [{"new": True}]
    store.delete_nodes(["index"])
    store.delete_nodes(filters=several("and", one("new", "is_empty")))
    assert [n.node_id for n in store.get_nodes()] == ["long"]
    with pytest.raises(InvalidInput, match="clear"):
        store.delete_nodes()


def test_nodes_that_cannot_be_kept_are_refused(store: SemsearchVectorStore, own_folder: Path) -> None:
    def node(text: str, vector: list[float] | None, **fields: Any) -> TextNode:
        return TextNode(text=text, embedding=vector, **fields)

    store.add([node("one", [1.0, 0.0])])
    for nodes, named in [
        ([node("two", None)], "no embedding"),
        ([node("two", [1.0, 0.0, 0.0])], "components"),
        ([node("two", [0.0, 0.0])], "zero"),
        ([node("", [1.0, 0.0])], "no text"),
        ([node("two", [1.0, 0.0]), node("two", [0.0, 1.0])], "text of another one"),
        ([node("two", [1.0, 0.0], metadata={"pair": (1, 2)})], "metadata"),
    ]:
        with pytest.raises(InvalidInput, match=named):
            store.add(nodes)
    with pytest.raises(IndexIncompatible, match="another vector"):
        store.add([node("one", [0.0, 1.0])])
    with pytest.raises(IndexIncompatible, match="other-model"):
        SemsearchVectorStore(str(own_folder / "index"), embed_model_name="other-model").add([node("x", [1.0, 0.0])])
    assert [n.get_content() for n in store.get_nodes()] == ["one"]
    build_index([OwnDocument("d", "own")], index=own_folder / "own", precision="full")
    with pytest.raises(IndexIncompatible, match="SemsearchRetriever"):
        SemsearchVectorStore(str(own_folder / "own")).query(VectorStoreQuery([0.1] * 384))


def test_many_tasks_may_write_and_read(store: SemsearchVectorStore) -> None:
    async def work() -> list[list[str]]:
        rows = np.eye(6, 8)
        nodes = [TextNode(id_=str(i), text=f"node {i}", embedding=row.tolist()) for i, row in enumerate(rows)]
        await asyncio.gather(*(store.async_add([node]) for node in nodes))
        found = await asyncio.gather(*(store.aquery(VectorStoreQuery(row.tolist())) for row in rows))
        return [result.ids or [] for result in found]

    assert asyncio.run(work()) == [[str(i)] for i in range(6)]


def test_the_reranker_orders_what_it_is_given() -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS[::-1]]
    ranked = SemsearchRerank(top_n=2).postprocess_nodes(nodes, query_str="when are refunds paid?")
    assert ranked[0].node is nodes[3].node and len(ranked) == 2 and ranked[0].get_score() > ranked[1].get_score()
    assert nodes[0].score == 0.5 and SemsearchRerank().postprocess_nodes([], query_str="x") == []
    with pytest.raises(InvalidInput, match="query"):
        SemsearchRerank().postprocess_nodes(nodes)
    with pytest.raises(ValueError, match="top_n"):
        SemsearchRerank(top_n=0)


def test_an_index_that_is_gone_is_made_anew_by_the_next_node(store: SemsearchVectorStore) -> None:
    store.add([TextNode(id_="before", text=TEXTS[0], embedding=[1.0, 0.0, 0.0])])
    assert store.client is not None
    shutil.rmtree(Path(store.client.path))
    assert store.get_nodes() == [] and store.client is None
    store.add([TextNode(id_="after", text=TEXTS[1], embedding=[0.0, 1.0])])
    found = store.query(VectorStoreQuery(query_embedding=[0.0, 1.0], similarity_top_k=1))
    assert found.ids == ["after"]


def test_ids_are_those_of_the_nodes(store: SemsearchVectorStore) -> None:
    store.add([TextNode(id_="odd \udc80", text=TEXTS[0], embedding=[1.0, 0.0])])
    found = store.query(VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=1))
    assert found.nodes is not None and found.ids == [node.node_id for node in found.nodes] == ["odd \udc80"]
