"""What training learns from: sources, held-out queries, hard negatives, the first stage, and the blend."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semsearch import Document, Heading, Searcher, build_index
from semsearch.errors import InvalidInput
from semsearch.ranking import candidates
from semsearch.ranking.blending import blend
from semsearch.ranking.reranking import late_parts
from semsearch.training.data import TrainingData, read_beir, read_index, read_judged_index, read_pairs
from semsearch.training.examples import draw_examples, hold_out, mine_negatives, nearest_positives
from semsearch.training.first_stage import Candidates, encode_passages, first_stage, rank_passages
from semsearch.training.measuring import cross_fitted, join_cross_encoder, join_late_interaction
from semsearch.training.pseudo_queries import make_hidden_queries, make_pseudo_queries
from semsearch.types import FloatArray
from tests.toy import ToyEmbedder


def found_of(passages: list[int], scores: list[float], cosines: FloatArray) -> Candidates:
    """Candidates that lie at right angles to each other."""
    return Candidates(passages, scores, cosines, np.eye(len(passages), dtype=np.float32))


def data_of(n: int, **more: object) -> TrainingData:
    values = {
        "source": "made up",
        "queries": {f"q{i}": f"question {i}" for i in range(n)},
        "texts": [f"passage {i}" for i in range(n)],
        "contexts": [""] * n,
        "owners": [f"p{i}" for i in range(n)],
        "qrels": {f"q{i}": {f"p{i}": 1} for i in range(n)},
    }
    return TrainingData(**{**values, **more})  # type: ignore[arg-type]


def write_jsonl(path: Path, rows: list[object]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


class TestSources:
    @pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
    def test_pairs_share_queries_and_passages(self, tmp_path, name):
        rows = [
            {"query": "how long", "positive": "three days", "negatives": ["blue", "two metres"]},
            {"query": "how long", "positive": "two metres"},
            {"query": "which colour", "positive": ["blue", "green"]},
        ]
        data = read_pairs(write_jsonl(tmp_path / name, rows))
        assert list(data.queries.values()) == ["how long", "which colour"]
        named = dict(zip(data.owners, data.texts, strict=True))
        relevant = {data.queries[q]: {named[o] for o in owners} for q, owners in data.qrels.items()}
        assert relevant == {"how long": {"three days", "two metres"}, "which colour": {"blue", "green"}}
        assert [named[o] for o in data.negatives["q0"]] == ["blue"]  # what is relevant elsewhere is no negative

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "holds no pairs"),
            (b'{"query": "a"}\n', "line 1: not a pair"),
            (b'{"query": "a", "positive": ""}\n', "line 1: not a pair"),
            (b'{"query": "a", "positive": "b", "negatives": [1]}\n', "line 1: not a pair"),
            (b'{"query": "a", "positive": "b"}\n{"query": ', "line 2: cannot be read"),
            (b"[1]\n", "line 1: cannot be read"),
            (b"\xff\xfe\x00", "cannot be read"),
        ],
    )
    def test_unusable_pairs_are_errors_that_name_the_line(self, tmp_path, content, said):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=said):
            read_pairs(path)

    def test_a_damaged_or_missing_file_is_an_error(self, tmp_path):
        damaged = tmp_path / "pairs.jsonl.gz"
        damaged.write_bytes(gzip.compress(b'{"query": "a", "positive": "b"}\n' * 100)[:-20])
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_pairs(damaged)
        with pytest.raises(InvalidInput, match="cannot be read"):
            read_pairs(tmp_path / "none.jsonl")

    def test_a_limit_draws_reproducibly(self, tmp_path):
        path = write_jsonl(tmp_path / "p.jsonl", [{"query": f"q {i}", "positive": f"p {i}"} for i in range(50)])
        drawn = [read_pairs(path, limit=5, seed=seed).digest() for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(read_pairs(path, limit=5).queries) == 5

    def test_a_collection_keeps_grades_and_tells_judged_negatives(self, tmp_path):
        write_jsonl(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "title": f"T{i}", "text": "words"} for i in range(3)])
        write_jsonl(tmp_path / "queries.jsonl", [{"_id": "1", "text": "one"}, {"_id": "2", "text": "two"}])
        (tmp_path / "qrels").mkdir()
        lines = ["query-id\tcorpus-id\tscore", "1\td0\t2", "1\td1\t0", "1\tgone\t1", "2\td2\t0"]
        (tmp_path / "qrels" / "train.tsv").write_text("\n".join(lines))
        data = read_beir(tmp_path, "train")
        assert data.qrels == {"1": {"d0": 2}}  # a query without a relevant document cannot be learnt from
        assert data.negatives == {"1": ["d1"]}
        assert data.texts[0] == "T0\n\nwords"
        with pytest.raises(InvalidInput, match="test"):
            read_beir(tmp_path, "test")

    def test_judgments_of_an_index_name_documents_by_the_end_of_their_path(self, tmp_path, toy):
        folder = tmp_path / "docs"
        folder.mkdir()
        for name in ("stone", "river"):
            (folder / f"{name}.md").write_text(f"# About {name}\n\nThe {name} lies in the valley.\n")
        build_index(folder, embedder=toy)
        queries = write_jsonl(tmp_path / "q.jsonl", [{"_id": "1", "text": "what is a stone"}])
        qrels = tmp_path / "qrels.tsv"
        qrels.write_text("1\tdocs/stone.md\t1\n")
        data = read_judged_index("default", queries, qrels)
        positive = nearest_positives(data, first_stage(data, toy, encode_passages(data, toy), ["1"], 5))["1"]
        assert [data.texts[position] for position, _ in positive] == [
            text for text in data.texts if "The stone lies" in text
        ]

    def test_vectors_of_the_index_are_not_encoded_again(self, toy):
        build_index([Document(f"d{i}", f"stone number {i}") for i in range(5)], embedder=toy)
        data, n_before = read_index("default"), toy.n_encoded
        vectors = encode_passages(data, toy)
        assert toy.n_encoded == n_before
        np.testing.assert_allclose(vectors, toy.embed_queries(data.texts), atol=1e-6)
        other = ToyEmbedder(seed="b")
        np.testing.assert_allclose(encode_passages(data, other), other.embed_queries(data.texts), atol=1e-6)


class TestPseudoQueries:
    SENTENCES = (
        "The keeper of the lighthouse trims the lamp at dusk.",
        "Boats are tied to the northern pier before the storm.",
        "A third sentence tells of ropes and how they are spliced.",
        "Nobody may enter the harbour after the bell has rung.",
    )

    def build(self, toy, *, titled: bool) -> TrainingData:
        toy.max_tokens = 80
        texts = [" ".join(f"{s[:-1]} {word}." for s in self.SENTENCES) for word in ("alpha", "beta", "gamma", "delta")]
        named = [f"Rules of the harbour {i}" if titled else "" for i in range(4)]
        documents = [Document(f"d{i}", text, title=named[i]) for i, text in enumerate(texts)]
        build_index(documents, embedder=toy)
        return read_index("default")

    def test_without_titles_sentences_are_taken_out_of_their_passages(self, toy):
        plain = self.build(toy, titled=False)
        data = make_pseudo_queries(plain, n_queries=4, seed=1, cut_share=1.0)
        assert len(data.queries) == 4
        for key, text in data.queries.items():
            (owner,) = data.qrels[key]
            position = data.owners.index(owner)
            assert text in plain.texts[position]
            assert text not in data.texts[position]
            assert data.vectors is not None
            assert position not in data.vectors.positions  # its vector would know the sentence
        whole = make_pseudo_queries(plain, n_queries=4, seed=1, cut_share=0.0)
        assert list(whole.texts) == list(plain.texts)

    def test_changed_passages_alone_are_encoded_again(self, toy):
        data = make_pseudo_queries(self.build(toy, titled=False), n_queries=2, seed=1, cut_share=1.0)
        n_before = toy.n_encoded
        vectors = encode_passages(data, toy)
        assert toy.n_encoded == n_before + 2
        np.testing.assert_allclose(vectors, toy.embed_queries(data.texts), atol=1e-6)

    def test_titles_ask_for_the_passages_under_them(self, toy):
        data = make_pseudo_queries(self.build(toy, titled=True), n_queries=4, seed=1)
        titles = {key: text for key, text in data.queries.items() if key.startswith("t")}
        assert len(titles) == 2
        for key, title in titles.items():
            assert all(title in data.contexts[int(owner)] for owner in data.qrels[key])

    def test_the_seed_decides(self, toy):
        plain = self.build(toy, titled=True)
        drawn = [make_pseudo_queries(plain, n_queries=4, seed=seed).digest() for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_passages_that_give_no_queries_are_an_error(self, toy):
        build_index([Document("a", "short"), Document("b", "also short")], embedder=toy)
        with pytest.raises(InvalidInput, match="no queries can be made"):
            make_pseudo_queries(read_index("default"), n_queries=4, seed=1)

    def test_hidden_queries_are_nowhere_in_what_they_ask_for(self, toy):
        toy.max_tokens = 80
        notice = "Nobody may enter the harbour after the bell has rung."
        doings = ("trims all lamps", "ties the boats", "sings aloud")
        own = " ".join(f"The keeper of pier {{i}} {doing} before it is dark." for doing in doings)
        texts = [f"RULES OF THE PIER {i}\n\n{own.format(i=i)} {notice}" for i in range(8)]
        too_long = "RULES OF THE PIER 3, and what else is to be known of it " * 4  # to be asked
        headings = (Heading(0, 1, too_long.strip()),)
        documents = [
            Document(f"d{i}", text, title=f"Rules of the pier {i}", outline=headings if i == 3 else ())
            for i, text in enumerate(texts)
        ]
        documents.append(
            Document("short", "Tiny. The keeper of this short page says very little.", title="A short page")
        )
        build_index(documents, embedder=toy)
        plain = read_index("default")
        data = make_hidden_queries(plain, n_queries=30, seed=1)
        asked = set(data.queries.values())
        assert {f"Rules of the pier {i}" for i in range(8)} <= asked and len(asked) > 8
        assert notice not in asked and "A short page" not in asked  # said elsewhere too; nothing would be left
        for key, text in data.queries.items():
            for position in map(int, data.qrels[key]):
                assert text.casefold() in f"{plain.contexts[position]} {plain.texts[position]}".casefold()
                assert text.casefold() not in f"{data.contexts[position]} {data.texts[position]}".casefold()
                assert data.vectors is not None and position not in data.vectors.positions
        few = make_hidden_queries(plain, n_queries=2, seed=2)
        assert sorted(key[0] for key in few.queries) == ["s", "t"]


class TestHeldOut:
    def test_queries_are_divided_and_the_seed_decides(self):
        data = data_of(50)
        kept, held = hold_out(data, share=0.2, seed=1)
        assert len(held) == 10
        assert set(kept).isdisjoint(held)
        assert set(kept) | set(held) == set(data.queries)
        assert (kept, held) == hold_out(data, share=0.2, seed=1) != hold_out(data, share=0.2, seed=2)

    def test_equal_questions_stay_on_one_side(self):
        data = data_of(
            20, queries={f"q{i}": f"Question  {i // 2}" if i % 2 else f"question {i // 2}" for i in range(20)}
        )
        for seed in range(5):
            _, held = hold_out(data, share=0.3, seed=seed)
            assert all((f"q{i}" in held) == (f"q{i + 1}" in held) for i in range(0, 20, 2))

    def test_one_query_is_too_few(self):
        with pytest.raises(InvalidInput, match="1 query is too few"):
            hold_out(data_of(1), share=0.1, seed=1)

    @pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
    def test_a_share_leaves_both_sides_something(self, share):
        with pytest.raises(InvalidInput, match="between 0 and 1"):
            hold_out(data_of(5), share=share, seed=1)


class TestMining:
    def test_the_margin_keeps_unjudged_positives_out(self):
        data = data_of(5, qrels={"q0": {"p0": 1, "p1": 1}}, queries={"q0": "x"})
        cosines = np.array([0.80, 0.50, 0.77, 0.75, 0.10], dtype=np.float32)
        found = {"q0": found_of([2, 0, 3, 1, 4], [5, 4, 3, 2, 1], cosines)}
        # 0.95 * 0.80 = 0.76: passage 2 may well be relevant; 0 and 1 are judged so
        assert mine_negatives(data, found, margin=0.95) == {"q0": [3, 4]}
        assert mine_negatives(data, found, margin=1.0) == {"q0": [2, 3, 4]}

    def test_given_negatives_come_first_and_stay_whatever_the_margin(self):
        data = data_of(4, qrels={"q0": {"p0": 1}}, queries={"q0": "x"}, negatives={"q0": ["p3"]})
        found = {"q0": found_of([1, 2], [2, 1], np.array([0.5, 0.9, 0.1, 0.99], dtype=np.float32))}
        assert mine_negatives(data, found) == {"q0": [3, 2]}

    def test_rows_are_reproducible_and_never_hold_a_relevant_passage_as_a_negative(self):
        positives = {f"q{i}": [(i, 1), (i + 1, 3)] for i in range(6)}
        relevant = {f"q{i}": {i, i + 1} for i in range(6)}
        options = {"relevant": relevant, "n_passages": 12, "epochs": 3, "n_positives": 1, "n_negatives": 4}
        rows = draw_examples(positives, {"q0": [9]}, seed=1, **options)
        assert rows == draw_examples(positives, {"q0": [9]}, seed=1, **options)
        assert rows != draw_examples(positives, {"q0": [9]}, seed=2, **options)
        assert [sorted(row.query for row in rows[i : i + 6]) for i in (0, 6, 12)] == [sorted(positives)] * 3
        for row in rows:
            assert len(set(row.negatives)) == 4
            assert relevant[row.query].isdisjoint(row.negatives)
            assert set(row.positives) <= relevant[row.query]
        assert all(9 in row.negatives for row in rows if row.query == "q0")

    def test_higher_grades_are_drawn_more_often(self):
        options = {"relevant": {"q": {0, 1}}, "n_passages": 2, "n_positives": 1, "n_negatives": 0, "seed": 1}
        rows = draw_examples({"q": [(0, 1), (1, 3)]}, {}, epochs=400, **options)
        assert 0.68 < sum(row.positives == [1] for row in rows) / 400 < 0.82


class TestFirstStage:
    def test_it_ranks_as_a_searcher_does(self, toy):
        rng = np.random.default_rng(5)
        words = ["river", "stone", "cloud", "forest", "engine", "wheel", "brake", "kettle", "violin", "garden"]
        texts = [" ".join(rng.choice(words, size=12)) + f" {i}." for i in range(80)]
        build_index([Document(f"d{i}", text) for i, text in enumerate(texts)], embedder=toy)
        data = read_index("default")
        asked = {"a": "river stone", "b": "the violin in the garden", "c": "engine wheel brake 17"}
        data = data_of(0, queries=asked, texts=data.texts, contexts=data.contexts, owners=data.owners, qrels={})
        found = first_stage(data, toy, encode_passages(data, toy), list(asked), 20)
        with Searcher.open(embedder=toy) as searcher:
            for key, text in asked.items():
                hits = searcher.search(text, k=20, per_document=0)
                assert [data.owners[i] for i in found[key].passages] == [hit.document.id for hit in hits]
                np.testing.assert_allclose(found[key].scores, [hit.score for hit in hits], atol=1e-5)

    def test_ties_go_to_the_smaller_position(self):
        scores = np.array([0.5, 0.9, 0.5, 0.5, 0.1], dtype=np.float32)
        assert rank_passages(scores, 3) == [1, 0, 2]
        assert rank_passages(scores, 99) == [1, 0, 2, 3, 4]
        assert rank_passages(scores[:0], 3) == []


class TestBlend:
    FIRST, RERANK = [0.9, 0.5, 0.1], [-3.0, 8.0, 2.0]

    def test_the_weight_leads_from_the_reranker_to_the_first_stage(self):
        assert np.argsort(-blend(self.FIRST, self.RERANK, first_stage_weight=0.0)).tolist() == [1, 2, 0]
        assert np.argsort(-blend(self.FIRST, self.RERANK, first_stage_weight=1.0)).tolist() == [0, 1, 2]
        np.testing.assert_allclose(
            blend(self.FIRST, self.RERANK, first_stage_weight=0.5), [0.5, 0.75, 0.227273], atol=1e-6
        )

    def test_neither_range_matters(self):
        scaled = blend([9 * x + 4 for x in self.FIRST], [x / 7 - 2 for x in self.RERANK], first_stage_weight=0.3)
        np.testing.assert_allclose(scaled, blend(self.FIRST, self.RERANK, first_stage_weight=0.3), atol=1e-6)

    def test_equal_scores_and_none_are_fine(self):
        assert blend([], [], first_stage_weight=0.5).tolist() == []
        np.testing.assert_allclose(blend([1, 1], [0, 2], first_stage_weight=0.5), [0.0, 0.5])

    def test_wrong_arguments_are_errors(self):
        with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
            blend([1], [1], first_stage_weight=1.5)
        with pytest.raises(InvalidInput, match="2 first-stage scores for 1"):
            blend([1, 2], [1], first_stage_weight=0.5)

    @pytest.mark.parametrize(("good", "weight"), [("rerank", 0.0), ("first", 1.0)])
    def test_the_weight_chosen_is_that_of_the_better_stage(self, good, weight):
        data = data_of(12)
        rng = np.random.default_rng(1)
        right = {f"q{i}": [3.0 if p == i else 0.0 for p in range(12)] for i in range(12)}
        noise = {key: rng.random(12).tolist() for key in right}
        first, rerank = (noise, right) if good == "rerank" else (right, noise)
        cosines = np.zeros(12, dtype=np.float32)
        found = {key: found_of(list(range(12)), first[key], cosines) for key in right}
        scores = {key: np.array(rerank[key], dtype=np.float32) for key in right}
        if good == "rerank":  # many weights are perfect then: the largest of them is kept
            assert cross_fitted(data, found, scores, join_cross_encoder, seed=1)[1] < 0.9
        else:
            assert cross_fitted(data, found, scores, join_cross_encoder, seed=1)[1] == weight

    def test_late_interaction_is_joined_as_a_searcher_does(self):
        rng = np.random.default_rng(2)
        vectors = rng.normal(size=(8, 4)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        first, scores = np.sort(rng.random(8))[::-1], rng.random(8).astype(np.float32)
        nothing = np.full(8, np.nan)
        places = [(i, i, i) for i in range(8)]
        found = candidates.Candidates.of(places, vectors, nothing, nothing).ranked_by(first)
        found = replace(found, parts={"meaning": found.relevance})
        searched = np.sum(list(late_parts(found, scores.astype(np.float64), 0.7).values()), axis=0)
        trained = Candidates(list(range(8)), first.tolist(), nothing.astype(np.float32), vectors)
        np.testing.assert_allclose(join_late_interaction(trained, scores, 0.3), searched, atol=1e-6)

    def test_no_query_is_measured_with_a_weight_it_helped_to_choose(self):
        data = data_of(2)
        # The reranker is right on q0 and wrong on q1, where the first stage is right.
        cosines = np.zeros(2, dtype=np.float32)
        found = {key: found_of([0, 1], [0.0, 1.0], cosines) for key in ("q0", "q1")}
        scores = {key: np.array([1.0, 0.0], dtype=np.float32) for key in ("q0", "q1")}
        run, _ = cross_fitted(data, found, scores, join_cross_encoder, seed=1)
        assert [run[key][0][0] for key in ("q0", "q1")] == ["p1", "p0"]  # each ranked as suits the other: both wrong
