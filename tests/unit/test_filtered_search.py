"""Filtered searches against brute force over what matches, and filters against a plain reading of their rules."""

from __future__ import annotations

import fnmatch
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semsearch import Document, Searcher, build_index, gathering
from semsearch.errors import IndexCorrupt, IndexIncompatible, InvalidInput
from semsearch.filters import And, Comparison, Exists, Filter, Not, Or, parse
from semsearch.gathering import Query, gather
from semsearch.opening import IndexState
from semsearch.ranking.candidates import Candidates
from semsearch.ranking.feedback import rank_hybrid
from semsearch.ranking.fusion import ranked
from semsearch.store import lexical, selection
from semsearch.store.lexical import LexicalIndex
from semsearch.store.selection import Selection, Selector
from semsearch.types import FloatArray, IntArray, Neighbors
from tests.old_formats import make_older
from tests.toy import DIM, ToyEmbedder, ToyReranker

N = 500
PASSAGES = 20  # of a document, but for the one whose draw is 0
WORDS = [f"{a}{b}" for a in ("riv", "sto", "clo", "for", "eng", "whe", "bra", "ket") for b in ("er", "ne", "ud", "est")]
ALL: Mapping[str, Any] = {"draw": {">=": 0}}
SELECTED = [1, 2, 6, 50, 250, N]  # documents: from 0.01 % to 100 % of the passages


def many_documents() -> Iterator[Document]:
    """Ten thousand passages; `draw` is a permutation, so that `draw < n` selects n documents."""
    rng = np.random.default_rng(11)
    for i, draw in enumerate(rng.permutation(N).tolist()):
        n = 1 if draw == 0 else PASSAGES
        lines = [f"{' '.join(row)} no{i} at{j}." for j, row in enumerate(rng.choice(WORDS, size=(n, 26)))]
        yield Document(f"d{i}", "\n\n".join(lines), metadata={"draw": draw})


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    index = tmp_path_factory.mktemp("large") / "index"
    build_index(many_documents(), index=index, embedder=ToyEmbedder())
    with Searcher.open(index, embedder=ToyEmbedder()) as searcher:
        yield searcher


def places_of(state: IndexState, chosen: Selection) -> list[tuple[int, int, int]]:
    return state.store.places_of_chunks(chosen.chunks.tolist())


def by_brute_force(state: IndexState, query: Query, chosen: Selection, n: int) -> list[tuple[int, float]]:
    """(chunk id, relevance): all that match are compared, n near and n / 2 by words are fused."""
    places = places_of(state, chosen)
    ids = [chunk_id for chunk_id, _, _ in places]
    vectors = state.vectors.get(np.array([vector_id for _, _, vector_id in places], dtype=np.int64))
    assert query.vector is not None
    dense = dict(zip(ids, (vectors @ query.vector).astype(float).tolist(), strict=True))
    bm25 = state.lexical.score(query.text, ids)
    if query.mode == "dense":
        return ranked(dense)
    kept = {i for i, _ in ranked(dense)[:n]} | {i for i, _ in ranked(bm25)[: n // 2]}
    rows = [row for row, chunk_id in enumerate(ids) if chunk_id in kept]
    candidates = Candidates.of(
        [places[row] for row in rows],
        vectors[rows],
        np.array([dense[ids[row]] for row in rows]),
        np.array([bm25.get(ids[row], np.nan) for row in rows]),
    )
    fused = rank_hybrid(candidates, query.vector, query.weight)
    return list(zip(fused.ids.tolist(), fused.relevance.tolist(), strict=True))


@pytest.mark.parametrize("how", ["few are looked up", "many are scanned", "both legs at once"])
@pytest.mark.parametrize("n_allowed", SELECTED)
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_filtered_top_k_is_that_of_what_matches(
    large: Searcher, monkeypatch: pytest.MonkeyPatch, how: str, n_allowed: int, mode: str
) -> None:
    k, text = 10, "river stone cloud no77 at3"
    vector = ToyEmbedder().embed_queries([text])[0]
    query = Query(text, mode, vector, 0.85)
    with monkeypatch.context() as patch:
        if how == "many are scanned":
            patch.setattr(gathering, "MAX_COMPARED", 0)
            patch.setattr(lexical, "LOOK_UP_COST", 10**9)
        if how == "both legs at once":
            patch.setattr(gathering, "MIN_BESIDE", 0)
        with large._index.state() as state:
            chosen = state.selector.select(parse(f"draw < {n_allowed}"))
            assert len(chosen.documents) == n_allowed
            assert len(chosen.chunks) == len(chosen.vectors) == 1 + (n_allowed - 1) * PASSAGES
            kept = (chosen.documents, chosen.chunks, chosen.vectors)
            assert all(ids.flags.c_contiguous for ids in kept)  # or a table of rows would be kept behind each
            found, _ = gather(state, query, k, per_document=0, fold=False, selection=chosen)
            expected = by_brute_force(state, query, chosen, gathering.CANDIDATES)
            assert chosen.holds(found.documents).all()
            of_all, _ = gather(state, query, k, per_document=0, fold=False)
            assert found.hundredth == of_all.hundredth > 0  # or the same hit would be more probable with a filter
            words = state.lexical.search_among(text, k, chosen.chunks)
            best_words = ranked(state.lexical.score(text, chosen.chunks.tolist()))[:k]
            assert [score for _, score in words] == pytest.approx([score for _, score in best_words])
            assert {i for i, score in best_words if score > best_words[-1][1]} <= {i for i, _ in words}
    best = [relevance for _, relevance in expected[: len(found)]]
    assert len(found) == min(k, len(expected))
    assert found.relevance.tolist() == pytest.approx(best, abs=1e-6)
    if best:
        surely = {chunk_id for chunk_id, relevance in expected if relevance > best[-1] + 1e-6}
        assert surely <= set(found.ids.tolist())


@pytest.mark.parametrize("n_allowed", SELECTED)
def test_a_whole_search_keeps_k_and_its_filter(large: Searcher, n_allowed: int) -> None:
    for mode in ("dense", "lexical", "hybrid"):
        hits = large.search("river stone", k=25, mode=mode, where={"draw": {"<": n_allowed}}, per_document=1)
        assert all(h.document.metadata["draw"] < n_allowed for h in hits)
        assert len(hits) == min(25, n_allowed) or (mode != "dense" and n_allowed < 25)
    assert large.search("kettle", k=25, where=ALL) == large.search("kettle", k=25)


class Approximate:
    """A FAISS index that does not compare everything."""

    def __init__(self, kind: str, ids: IntArray, vectors: FloatArray) -> None:
        self.kind = kind
        import faiss

        inner: Any
        if kind == "hnsw":
            inner = faiss.IndexHNSWFlat(DIM, 24, faiss.METRIC_INNER_PRODUCT)
        else:
            inner = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, 64, faiss.METRIC_INNER_PRODUCT)
            inner.train(vectors)
        self.n_lists = 64
        self.index = faiss.IndexIDMap(inner)
        self.index.add_with_ids(vectors, ids)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def search(self, queries: FloatArray, k: int, allowed_ids: IntArray | None = None) -> Neighbors:
        import faiss

        k = min(k, len(self))
        sel = None if allowed_ids is None else faiss.IDSelectorBatch(allowed_ids)
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(sel=sel, efSearch=max(64, k))
        else:
            n_lists = min(self.n_lists, max(24, -(-2 * k * self.n_lists // len(self))))
            parameters = faiss.SearchParametersIVF(sel=sel, nprobe=n_lists)
        scores, ids = self.index.search(queries, k, params=parameters)
        return Neighbors(ids, scores)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_indexes_keep_their_recall(large: Searcher, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    queries = ["river stone cloud", "kettle brake", "engine wheel forest"]
    recalls = []
    with monkeypatch.context() as patch, large._index.state() as state:
        patch.setattr(gathering, "MAX_COMPARED", 200)
        rows = state.vectors.get(state.vectors.ids)
        state = replace(state, ann=Approximate(kind, state.vectors.ids, rows))
        for n_allowed in SELECTED:
            chosen = state.selector.select(parse(f"draw < {n_allowed}"))
            for text in queries:
                query = Query(text, "dense", ToyEmbedder().embed_queries([text])[0], 1.0)
                found, _ = gather(state, query, 10, per_document=0, fold=False, selection=chosen)
                exact = by_brute_force(state, query, chosen, 100)
                assert len(found) == min(10, len(chosen.chunks))
                worst = exact[len(found) - 1][1]
                recalls.append(float(np.mean(found.dense >= worst - 1e-6)))
                if len(chosen.chunks) <= 200:
                    assert recalls[-1] == 1.0
    assert np.mean(recalls) >= 0.95


# What filters mean, read plainly from their description

GUIDES, HOSTILE = "/docs/guides", "'; DROP TABLE documents; --"
LIBRARY = [
    Document("a", "river", "Rivers", f"{GUIDES}/river.md", {"lang": "en-GB", "year": 2019, "tags": ["x", "y"]}),
    Document("b", "stone", "Stones", f"{GUIDES}/deep/stone.txt", {"lang": "en", "year": 2021, "draft": True}),
    Document("c", "cloud", "Clouds", "/docs/api/cloud.MD", {"lang": "de", "year": "2021", "tags": "x"}),
    Document("d", "forest", "", "", {"year": 2020.5, "author": {"name": "Ada", "born": "1815-12-10"}}),
    Document("e", "engine", HOSTILE, "/docs/e", {"published": "2024-05-17T23:30:00-02:00"}),
    Document("f", "wheel", "100% _like_", "/docs/f.csv", {"author": [{"name": "Bo"}, {"name": "Cy"}], "draft": False}),
    Document("g", "brake", "", "/docs/g.csv", {"published": "2024-05-31", "year": "unknown", "lang": None}),
    Document("h", "kettle", "", "/docs/h.csv", {"huge": 10**30, "odd key!": 'it\'s "odd"', "nul": "a\x00b", "": 1}),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    index = tmp_path_factory.mktemp("library") / "index"
    build_index(LIBRARY, index=index, embedder=ToyEmbedder())
    with Searcher.open(index, embedder=ToyEmbedder(), reranker=ToyReranker()) as searcher:
        yield searcher


def found_by(searcher: Searcher, where: str | Mapping[str, Any]) -> str:
    hits = searcher.search("the river", k=100, where=where, fold=False, mode="dense", rerank=False)
    return "".join(sorted(h.document.id for h in hits))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ('lang = "en"', "ab"),
        ('lang = "EN_gb"', "a"),
        ('lang != "en"', "c"),
        ('not lang = "en"', "cdefgh"),
        ('lang in ("de", "fr")', "c"),
        ('lang not in ("de", "fr")', "ab"),
        ("exists(lang)", "abc"),
        ("not exists(lang)", "defgh"),
        ("exists(author)", "df"),
        ("exists(author.name) and not exists(author.born)", "f"),
        ("year >= 2020", "bcd"),
        ("year = 2021", "bc"),
        ("year = 2021.0", "bc"),
        ('year = "2021"', "c"),
        ("year != 2021", "adg"),
        ("year < 2021 and year > 2019", "d"),
        ('year = "unknown"', "g"),
        ('tags = "x"', "ac"),
        ('tags != "y"', "c"),
        ("draft = true", "b"),
        ("draft != true", "f"),
        ('author.name = "Ada" or author.name = "Cy"', "df"),
        ("author.born < 1900-01-01", "d"),
        ("published = 2024-05", "eg"),
        ("published = 2024-05-18", "e"),
        ("published > 2024-05-18", "g"),
        ("published <= 2024-05-18", "e"),
        ("published = 2024-05-18T01:30Z", "e"),
        ("published < 2024-05", ""),
        ('published >= "2024-05-31"', "g"),
        ('path ~ "guides/**"', "ab"),
        ('path ~ "guides/*"', "a"),
        ('path ~ "*.csv"', "fgh"),
        ('path !~ "*.csv"', "abcde"),
        ('path = "d"', "d"),
        ('path ~ "d"', "d"),
        ('path ~ "/docs/*"', "efgh"),
        ('type = "md"', "ac"),
        ('type = ".MD"', "ac"),
        ('type ~ "M*"', "ac"),
        ("exists(type)", "abcfgh"),
        ('title ~ "*s"', "abc"),
        ('title = "100% _like_"', "f"),
        ('title ~ "100%*"', "f"),
        ('title = "\'; DROP TABLE documents; --"', "e"),
        ('title > "Rivers"', "b"),
        ("huge > 1e29", "h"),
        ('"odd key!" = "it\'s \\"odd\\""', "h"),
        ("nul = 'a\x00b'", "h"),
        ("year = 99999999999999999999999", ""),
        ('metadata.lang = "en-GB"', "a"),
        ('(lang = "en" or draft = false) and not year < 2020', "bf"),
    ],
)
def test_filters_find_what_they_say(library: Searcher, where: str, expected: str) -> None:
    assert found_by(library, where) == expected


def test_a_mapping_and_a_date_object(library: Searcher) -> None:
    assert found_by(library, {"published": {"<": date(2024, 5, 19)}}) == "e"
    assert found_by(library, {"or": [{"tags": ["y", "z"]}, {"draft": False}], "not": {"year": 3}}) == "af"


plain_values = st.sampled_from(["x", "y", "z", "", "Xy", 0, 1, 2, 1.5, -3, True, False])
metadata = st.dictionaries(
    st.sampled_from(["p", "q"]),
    st.one_of(plain_values, st.none(), st.lists(plain_values, max_size=3)),
)
conditions = st.one_of(
    st.builds(
        lambda f, o, v: Comparison(f, o, (v,)), st.sampled_from("pqr"), st.sampled_from(["=", "!="]), plain_values
    ),
    st.builds(
        lambda f, o, v: Comparison(f, o, (v,)),
        st.sampled_from("pqr"),
        st.sampled_from(["<", "<=", ">", ">="]),
        plain_values.filter(lambda v: not isinstance(v, bool)),
    ),
    st.builds(
        lambda f, o, v: Comparison(f, o, (v,)),
        st.sampled_from("pqr"),
        st.sampled_from(["~", "!~"]),
        st.sampled_from(["*", "x", "?", "[xy]", "X*", "[!x]*"]),
    ),
    st.builds(
        lambda f, o, v: Comparison(f, o, tuple(v)),
        st.sampled_from("pqr"),
        st.sampled_from(["in", "not in"]),
        st.lists(plain_values, min_size=1, max_size=3),
    ),
    st.builds(Exists, st.sampled_from("pqr")),
    st.builds(
        lambda f, ends, lower, upper: And((Comparison(f, ends[0], (lower,)), Comparison(f, ends[1], (upper,)))),
        st.sampled_from("pqr"),
        st.sampled_from([(">", "<"), (">=", "<"), (">", "<="), ("<=", ">=")]),
        st.sampled_from([0, 1, 2, 1.5, -3]),
        st.sampled_from([0, 1, 2, 1.5, -3]),
    ),
)
trees = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda a, b: And((a, b)), inner, inner),
        st.builds(lambda a, b: Or((a, b)), inner, inner),
    ),
    max_leaves=5,
)


def matches(values: Mapping[str, Any], where: Filter) -> bool:
    """The rules again, one document at a time."""
    if isinstance(where, And | Or):
        return (all if isinstance(where, And) else any)(matches(values, part) for part in where.parts)
    if isinstance(where, Not):
        return not matches(values, where.part)
    held = values.get(where.field)
    members = [v for v in (held if isinstance(held, list) else [held]) if v is not None]
    if isinstance(where, Exists):
        return bool(members)
    positive = {"!=": "=", "!~": "~", "not in": "in"}.get(where.operator, where.operator)

    def fits(member: Any, value: Any) -> bool:
        kinds = [bool if isinstance(x, bool) else str if isinstance(x, str) else float for x in (member, value)]
        if kinds[0] is not kinds[1]:
            return False
        return {
            "=": lambda: member == value,
            "in": lambda: member == value,
            "<": lambda: member < value,
            "<=": lambda: member <= value,
            ">": lambda: member > value,
            ">=": lambda: member >= value,
            "~": lambda: fnmatch.fnmatchcase(member, value),
        }[positive]()

    found = any(fits(member, value) for member in members for value in where.values)
    return bool(members) and not found if positive != where.operator else found


@pytest.fixture(scope="module")
def random_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Searcher, list[dict[str, Any]]]]:
    rng = np.random.default_rng(4)
    choices: list[Any] = ["x", "y", "z", "", "Xy", 0, 1, 2, 1.5, -3, True, False, None]

    def value(key: str) -> Any:
        if key != "r" and rng.random() < 0.3:
            return [choices[int(i)] for i in rng.integers(len(choices), size=int(rng.integers(4)))]
        return choices[int(rng.integers(len(choices)))]

    rows = [{key: value(key) for key in "pqr" if rng.random() < 0.8} for _ in range(300)]
    index = tmp_path_factory.mktemp("random") / "index"
    documents = [Document(f"{i}", f"text number{i}", metadata=row) for i, row in enumerate(rows)]
    build_index(documents, index=index, embedder=ToyEmbedder())
    with Searcher.open(index, embedder=ToyEmbedder()) as searcher:
        yield searcher, rows


@pytest.mark.parametrize(("few", "before"), [(0, 1_000), (1_000, 0)])
@given(trees)
def test_filters_agree_with_one_document_at_a_time(
    random_library: tuple[Searcher, list[dict[str, Any]]], few: int, before: int, tree: Filter
) -> None:
    searcher, rows = random_library
    with searcher._index.state() as state, pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "FEW_DOCUMENTS", few)  # with 0 every field that is asked for is read whole
        patch.setattr(selection, "READ_BEFORE", before)
        if before:
            state.selector._kept.clear()
            chosen = state.selector.select(tree)
        else:
            chosen = Selector(state.store, state.n_documents, state.n_chunks).select(tree)
        sql = "SELECT key FROM documents WHERE id IN (SELECT value FROM json_each(?))"
        keys = {row[0] for row in state.store.query(sql, [json.dumps(chosen.documents.tolist())])}
    assert keys == {f"{i}" for i, row in enumerate(rows) if matches(row, tree)}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ('yaer >= 2020', "the filter, character 1: no document has a field 'yaer'; did you mean year?"),
        ('lang = "en" and exists(nonsense)', "character 24: no document has a field 'nonsense'"),
        ({"yaer": 3}, "where['yaer']: no document has a field 'yaer'"),
        ('author.born = 3', "author.born holds text and dates, not numbers; write a date, as in 2024-05-01"),
        ('draft = "true"', "draft holds true and false, not text; compare it with true or false"),
        ('huge = "x"', "huge holds numbers, not text; give a number, without quotes"),
        ("draft = 2024-05-01", "draft holds true and false, not dates"),
        ("path = 3", "path is a text; put the value in quotes"),
        ("modified > 3", "modified is a date; write one as in: modified >= 2024-05-01"),
        ('modified ~ "2024*"', "modified is a date"),
        ({"title": {"~": "x" * 1_001}}, "the pattern has 1,001 characters"),
        (3, "where = 3"),
    ],
)  # fmt: skip
def test_what_no_document_can_answer_is_an_error(library: Searcher, where: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        library.search("river", where=where)
    assert said in str(caught.value)
    with pytest.raises(InvalidInput):
        library.search_many(["river"], where=where)


@pytest.mark.parametrize(
    "nasty", ["' OR 1=1 --", '"; DROP TABLE documents; --', "%", "_", "*?[", "\x00", "\ud800", "\\"]
)
def test_nothing_in_a_value_is_read_as_sql(library: Searcher, nasty: str) -> None:
    for operator in ("<", "~"):
        library.search("river", where={"title": {operator: nasty}})
    assert found_by(library, {"title": nasty}) == found_by(library, {"title": [nasty]}) == ""
    with library._index.state() as state:
        assert state.store.query("SELECT count(*) FROM documents") == [(len(LIBRARY),)]
    with pytest.raises(InvalidInput, match="no document has a field"):
        library.search("river", where={nasty: 1})


def test_metadata_that_looks_like_sql_is_found_as_it_is(toy: ToyEmbedder) -> None:
    nasty = ["' OR 1=1 --", "x'); DELETE FROM chunks; --", "%", "a\x00b", "\ud800"]
    documents = [Document(f"{i}", f"text {i}", metadata={"value": v, v: "key"}) for i, v in enumerate(nasty)]
    build_index(documents, embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        for i, value in enumerate(nasty):
            assert found_by(searcher, {"value": value}) == f"{i}"
            assert found_by(searcher, {value: "key"}) == f"{i}"


def test_folding_reranking_and_limits_keep_to_the_filter(toy: ToyEmbedder) -> None:
    text = "Boats lie at anchor in the harbour at night."
    documents = [Document(f"{i}", text if i < 4 else f"{text} Number {i}.", metadata={"n": i}) for i in range(8)]
    build_index(documents, embedder=toy)
    with Searcher.open(embedder=toy, reranker=ToyReranker()) as searcher:
        hits = searcher.search("boats", where="n >= 2 and n < 6")
        shown = [h.document.id for h in hits] + [d.document_id for h in hits for d in h.duplicates]
        assert sorted(shown) == ["2", "3", "4", "5"]
        assert [h.score for h in hits] == sorted((len(h.chunk.text) for h in hits), reverse=True)
        assert [h.document.id for h in searcher.search("boats", k=1, where="n = 7", mmr=0.5)] == ["7"]
        assert searcher.search("boats", where="n > 100") == []  # fmt: skip


def test_a_document_with_many_passages_does_not_hide_the_others(toy: ToyEmbedder) -> None:
    text = "\n\n".join(f"violin violin number{i} {'x' * 30} y z." * 3 for i in range(200))
    crowd = Document("crowd", text, metadata={"n": 1})
    few = [Document(f"{i}", f"violin and stone {i}", metadata={"n": 2}) for i in range(3)]
    rest = [Document(f"r{i}", f"violin {i}", metadata={"n": 3}) for i in range(50)]
    build_index([crowd, *few, *rest], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        hits = searcher.search("violin", k=6, where="n <= 2", fold=False)
        assert Counter(h.document.id for h in hits) == Counter({"crowd": 3, "0": 1, "1": 1, "2": 1})  # fmt: skip


@pytest.mark.parametrize(("few", "before"), [(0, 8), (1_000, 8), (1_000, 0)])
def test_filters_follow_what_is_written(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, few: int, before: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(selection, "FEW_DOCUMENTS", few)
        patch.setattr(selection, "READ_BEFORE", before)
        build_index([Document("a", "one", metadata={"n": 1}), Document("b", "two", metadata={"n": 2})], embedder=toy)
        with Searcher.open(embedder=toy) as searcher:
            assert found_by(searcher, "n = 1") == "a"
            changed = Document("a", "one", metadata={"n": 2})
            build_index([changed, Document("c", "one", metadata={"n": 1})], embedder=toy)
            assert found_by(searcher, "n = 1") == "c" and found_by(searcher, "not n = 1") == "ab"
            connection = sqlite3.connect(searcher.path / "store.db")
            assert connection.execute("SELECT count(*) FROM field_values WHERE field = '.n'").fetchone() == (3,)
            connection.close()


@pytest.mark.parametrize(("few", "before"), [(0, 8), (1_000, 0)])
def test_what_is_staged_is_not_found(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, few: int, before: int) -> None:
    monkeypatch.setattr(selection, "FEW_DOCUMENTS", few)
    monkeypatch.setattr(selection, "READ_BEFORE", before)
    build_index([Document("a", "one", metadata={"n": 1})], embedder=toy)
    documents = [Document(f"{i}", f"text number {i}", metadata={"n": 1}) for i in range(600)]
    with pytest.raises(KeyboardInterrupt):
        build_index(documents, embedder=ToyEmbedder(fail_after=300))
    with Searcher.open(embedder=toy) as searcher:
        with searcher._index.state() as state:
            assert state.store.query("SELECT count(*) FROM field_values WHERE field = '.n'")[0][0] > 1
            chosen = state.selector.select(parse("n = 1"))
            assert [len(ids) for ids in (chosen.documents, chosen.chunks, chosen.vectors)] == [1, 1, 1]
        assert found_by(searcher, "n = 1") == "a" and found_by(searcher, "not n = 2") == "a"
        assert [(c.documents, c.passages) for c in searcher.facets("n")] == [(1, 1)]


def test_when_files_were_changed(toy: ToyEmbedder, own_folder: Path) -> None:
    folder = own_folder / "docs"
    folder.mkdir()
    for name, day in (("old", 1_000_000_000), ("new", 1_700_000_000)):
        (folder / f"{name}.md").write_text(f"---\nlang: en\n---\nabout {name} things\n", encoding="utf-8")
        os.utime(folder / f"{name}.md", (day, day))
    build_index(folder, embedder=toy)
    with Searcher.open(embedder=toy) as searcher:

        def names(where: str) -> set[str]:
            return {Path(h.document.source).stem for h in searcher.search("things", where=where)}

        assert names("modified >= 2020-01-01") == {"new"} and names("modified = 2001-09") == {"old"}
        assert names("modified < 9999-12-31") == {"old", "new"} and names("not exists(modified)") == set()
        assert names('modified = "2001-09-09"') == {"old"} and names("modified > 9999-12") == set()
        assert [(c.value, c.documents) for c in searcher.facets("modified")] == [("2001-09", 1), ("2023-11", 1)]
        os.utime(folder / "old.md", (1_700_000_000, 1_700_000_000))
        generation = searcher._index.state
        build_index(folder, embedder=toy)  # touched, not changed: no new generation
        assert searcher._index.state == generation and names("modified = 2001-09") == set()
        assert names("modified >= 2020-01-01") == {"new", "old"}


def test_facets_count_what_a_filter_lets_through(library: Searcher, large: Searcher) -> None:
    def counted(key: str, where: str | None = None) -> list[tuple[Any, int]]:
        return [(c.value, c.documents) for c in library.facets(key, where)]

    assert counted("lang") == [("en", 2), ("de", 1), ("en-gb", 1)]
    assert counted("year") == [(2019, 1), (2020.5, 1), (2021, 1), ("2021", 1), ("unknown", 1)]
    assert counted("tags", 'lang = "en"') == [("x", 1), ("y", 1)]
    assert counted("draft") == [(False, 1), (True, 1)] and counted("draft", "year = 3") == []
    assert [type(c.value) for c in library.facets("draft")] == [bool, bool]
    assert counted("type") == [("csv", 3), ("md", 2), ("txt", 1)]
    assert counted("modified") == []
    with pytest.raises(InvalidInput, match="facet 'yaer': no document has a field 'yaer'; did you mean year"):
        library.facets("yaer")
    assert len(large.facets("draw", "draw < 100")) == 100


def test_facets_count_passages(toy: ToyEmbedder) -> None:
    text = "\n\n".join(f"violin number{i} {'x' * 30} y z." * 3 for i in range(20))
    short, other = Document("short", "one", metadata={"n": 1}), Document("other", "two", metadata={"n": [1, 2]})
    build_index([Document("long", text, metadata={"n": 1}), short, other], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        one, two = searcher.facets("n")
        with searcher._index.state() as state:
            assert (one.value, one.documents, one.passages) == (1, 3, state.n_chunks) and state.n_chunks > 10
        assert (two.value, two.documents, two.passages) == (2, 1, 1)  # fmt: skip


def test_selections_are_kept_within_bounds(library: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, library._index.state() as state:
        patch.setattr(selection, "MAX_KEPT_BYTES", 3_000)
        for n in range(50):
            state.selector.select(parse(f"not year = {n}"))
        assert len(state.selector._kept) == 2
        long = parse({"title": ["x" * 1_000, "y" * 1_000]})
        state.selector.select(long)
        assert list(state.selector._kept) == [str(long)] and state.selector._kept_bytes > 3_000
        for n in range(48, 50):
            state.selector.select(parse(f"not year = {n}"))
        kept = state.selector.select(parse("not year = 49"))
        assert state.selector.select(parse("not year = 49")) is kept


DATED = [
    Document(
        f"{i}",
        f"text number{i}",
        metadata={"n": i // 2, "day": f"2024-{i % 12 + 1:02}-{i % 28 + 1:02}", "name": f"name {i % 7}", "two": [1, i]},
    )
    for i in range(60)
]
WIDE = (
    "n >= 3 and n < 9", "n > 3 and n <= 9", "n = 4", "n < 5", "n > 40", "n >= 9 and n < 3", "n in (3, 5)",
    f"n < {2**70}", "day >= 2024-02 and day < 2024-05", "day = 2024-02-02", "day > 2024-03",
    'name = "name 3"', 'name > "name 3"', 'name in ("name 3", "name 5")', "two = 1", "two >= 50", "two > 1 and two < 9",
    'n > 3 and name = "name 3"', 'n > 3 and not name = "name 3"', 'n < 3 or day > 2024-11', "not n > 3",
)  # fmt: skip


def wide_ones(searcher: Searcher) -> dict[str, list[str]]:
    """What each of WIDE lets through, by document."""
    found = {}
    with searcher._index.state() as state:
        for asked in (*map(parse, WIDE), Comparison("n", "<", (10**400,))):
            state.selector._kept.clear()
            rows = state.selector.select(asked).documents.tolist()
            found[str(asked)] = sorted(document.id for document in state.store.documents(rows).values())
    return found


@pytest.mark.parametrize(("few", "before"), [(0, 8), (0, 100), (5, 1)])
def test_columns_in_memory_say_what_the_database_says(
    toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch, few: int, before: int
) -> None:
    build_index(DATED, embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        expected = wide_ones(searcher)
    monkeypatch.setattr(selection, "FEW_DOCUMENTS", few)
    monkeypatch.setattr(selection, "READ_BEFORE", before)
    read, rows = list[str](), Selector._rows
    monkeypatch.setattr(Selector, "_rows", lambda self, *asked: (read.append(asked[1][0]), rows(self, *asked))[1])
    with Searcher.open(embedder=toy) as searcher:
        for _ in range(3):
            read.clear()
            assert wide_ones(searcher) == expected
        assert set(read) == {".n", ".two"}  # what no number fits, and documents with two
        between = {"n": 4.5, "day": "2024-04-30", "name": "name 3a", "two": [1, 4.5]}
        more = [Document(f"more {i}", f"more text {i}", metadata=between) for i in range(600)]
        with pytest.raises(KeyboardInterrupt):
            build_index(more, embedder=ToyEmbedder(fail_after=300))
        with searcher._index.state() as state:
            assert state.store.query("SELECT count(*) FROM field_values WHERE field = '.n'")[0][0] > len(DATED)
        read.clear()
        assert wide_ones(searcher) == expected and set(read) == {".n", ".two"}
        build_index(more, embedder=toy)
        after = wide_ones(searcher)
        assert wide_ones(searcher) == after
    monkeypatch.setattr(selection, "FEW_DOCUMENTS", 10_000)
    with Searcher.open(embedder=toy) as searcher:
        assert wide_ones(searcher) == after != expected


def test_passages_of_all_are_read_after_an_eighth_was(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(DATED, embedder=toy)
    with Searcher.open(embedder=toy) as searcher, searcher._index.state() as state:
        for n in range(3):
            assert len(state.selector.select(parse(f"n = {n}")).chunks) == 2 and state.selector._places is None
        state.selector.select(parse("n = 2"))  # kept
        assert state.selector._places is None
        assert len(state.selector.select(parse("n = 3")).chunks) == 2 and state.selector._places is not None


def test_a_value_that_a_column_does_not_know_is_found(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    report = build_index(DATED, embedder=toy)
    monkeypatch.setattr(selection, "FEW_DOCUMENTS", 0)
    connection = sqlite3.connect(report.index / "store.db", isolation_level=None)
    (row,) = connection.execute("SELECT id FROM documents WHERE key = '20'").fetchone()
    connection.execute("DELETE FROM field_values WHERE field = '.n' AND document_id = ?", [row])
    where = parse("n > 3 and n <= 9")
    with Searcher.open(embedder=toy) as searcher:
        for _ in range(3):
            assert "20" not in wide_ones(searcher)[str(where)]
        connection.execute("INSERT INTO field_values VALUES (?, '.n', 1, 3.5)", [row])
        connection.close()
        assert "20" in wide_ones(searcher)[str(where)]


def test_a_field_is_read_whole_after_an_eighth_was(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "FEW_DOCUMENTS", 0)
    build_index(DATED, embedder=toy)
    with Searcher.open(embedder=toy) as searcher, searcher._index.state() as state:
        n_columns = list[int]()
        for n in range(6):
            state.selector.select(parse(f"n = {n}"))
            n_columns.append(len(state.selector._columns))
        assert n_columns == [0, 0, 0, 0, 1, 1]
        state.selector.select(parse("day > 2024-01"))  # most of it, but nobody asked before
        assert len(state.selector._columns) == 1


@given(st.lists(st.integers(0, 300), max_size=40), st.sampled_from([1, 1_000]))
def test_ids_are_put_in_order_once(ids: list[int], step: int) -> None:
    found = selection._distinct(np.array(ids, dtype=np.int64) * step)
    assert found.tolist() == [step * i for i in sorted(set(ids))]


def test_columns_are_kept_within_bounds(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(DATED, embedder=toy)
    monkeypatch.setattr(selection, "FEW_DOCUMENTS", 0)
    monkeypatch.setattr(selection, "MAX_KEPT_BYTES", 1_500)
    with Searcher.open(embedder=toy) as searcher:
        expected = wide_ones(searcher)
        assert wide_ones(searcher) == wide_ones(searcher) == expected
        with searcher._index.state() as state:
            assert [len(column._documents) for column in state.selector._columns.values()] == [len(DATED)]


@pytest.mark.parametrize(("weight", "n_words"), [(0.85, 25), (0.8, 25), (0.79, 50), (0.5, 50), (0.0, 50)])
def test_half_as_many_are_taken_by_words_where_meaning_leads(
    large: Searcher, monkeypatch: pytest.MonkeyPatch, weight: float, n_words: int
) -> None:
    asked = list[int]()
    search = LexicalIndex.search
    monkeypatch.setattr(LexicalIndex, "search", lambda index, text, k: (asked.append(k), search(index, text, k))[1])
    text = "river stone cloud no77 at3"
    query = Query(text, "hybrid", ToyEmbedder().embed_queries([text])[0], weight)
    with large._index.state() as state:
        gather(state, query, 10, per_document=0, fold=False)
    assert asked[0] == n_words


def test_an_older_index_can_be_filtered_after_an_update(toy: ToyEmbedder) -> None:
    report = build_index(LIBRARY, embedder=toy)
    connection = sqlite3.connect(report.index / "store.db")
    with connection:
        expected = connection.execute("SELECT * FROM field_values ORDER BY 1, 2, 3, 4").fetchall()
        make_older(connection, 3)
    connection.close()
    (report.index / "store.sum").unlink()
    with pytest.raises(IndexIncompatible, match="Bring it up to date: semsearch index"):
        Searcher.open(embedder=toy)
    encoded = toy.n_encoded
    build_index([LIBRARY[0]], embedder=toy)
    assert toy.n_encoded == encoded
    connection = sqlite3.connect(report.index / "store.db")
    assert connection.execute("SELECT * FROM field_values ORDER BY 1, 2, 3, 4").fetchall() == expected
    connection.close()
    with Searcher.open(embedder=toy) as searcher:
        assert found_by(searcher, 'lang = "en"') == "ab"


def test_a_search_beside_threads_survives_a_fork(tmp_path: Path) -> None:
    """As servers do that load an application before they fork."""
    script = """
import os, signal
from pathlib import Path
from semsearch import Document, Searcher, build_index, gathering
from tests.toy import ToyEmbedder

gathering.MIN_BESIDE = 0
build_index([Document("a", "river stone")], index=Path("index"), embedder=ToyEmbedder())

def search():
    with Searcher.open("./index", embedder=ToyEmbedder()) as searcher:
        return searcher.search("river", rerank=False)[0].document.id

assert search() == "a"
child = os.fork()
if not child:
    signal.alarm(30)
    os._exit(0 if search() == "a" else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_damaged_vector_that_a_filter_lets_through_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(gathering, "CANDIDATES", 1)
    texts = ["river stone", "river stones", "river", "cloud of the forest"]
    documents = [Document(f"d{i}", text, metadata={"n": i}) for i, text in enumerate(texts)]
    index = tmp_path / "index"
    build_index(documents, index=index, embedder=ToyEmbedder())
    with Searcher.open(index, embedder=ToyEmbedder()) as searcher, searcher._index.state() as state:
        (best,) = state.selector.select(parse("n = 0")).vectors
        row = int(np.searchsorted(state.vectors.ids, best))
    rows = np.load(index / "vectors" / "000000.npy", mmap_mode="r+")
    rows[row] *= value  # it would rank last, and two are looked for
    rows.flush()
    with Searcher.open(index, embedder=ToyEmbedder()) as searcher:
        assert searcher.search("river stone", k=1, mode="dense", where="n in (1, 3)")[0].document.id == "d1"
        with pytest.raises(IndexCorrupt, match="damaged"):
            searcher.search("river stone", k=1, mode="dense", where="n != 2")


@given(st.permutations(range(12)), st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), max_size=12), st.data())
def test_a_selection_knows_its_passages(ids: list[int], of: list[tuple[int, int]], data: st.DataObject) -> None:
    places = [(chunk, document, vector) for chunk, (document, vector) in zip(ids, of, strict=False)]
    columns = np.array(places, dtype=np.int64).reshape(-1, 3).T
    chosen = Selection.of(columns[1], columns[0], columns[2])
    assert chosen.chunks.tolist() == sorted(chunk for chunk, _, _ in places)
    assert chosen.documents.tolist() == sorted({document for _, document, _ in places})
    assert chosen.vectors.tolist() == sorted({vector for _, _, vector in places})
    vectors = data.draw(st.sets(st.sampled_from(chosen.vectors.tolist()))) if places else set[int]()
    found = chosen.with_vectors(np.array([*vectors], dtype=np.int64))
    assert sorted(found) == sorted(place for place in places if place[2] in vectors)
    chunks = data.draw(st.sets(st.integers(0, 13)))
    found = chosen.with_chunks(np.array([*chunks], dtype=np.int64))
    assert sorted(found) == sorted(place for place in places if place[0] in chunks)
