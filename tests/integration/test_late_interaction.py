"""Reranking by token vectors, against sentence-transformers' own token embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, load_embedder
from semsearch.encoders import pacing
from semsearch.encoders.late_interaction import RECENT_BYTES, LateInteraction
from semsearch.encoders.models import cache_folder, find_model
from semsearch.encoders.torch_runtime import TorchEmbedder
from semsearch.reading import MAX_PART_CHARS, read_in_context
from semsearch.server.batching import batching
from semsearch.types import Heading
from tests.checkpoints import write_bi_encoder

QUERY = "the stone of the river"
TEXTS = ["a cloud passage", "the river: stone, cloud, stone.", "query", "", "river " * 90]


def oracle(folder, query: str, text: str, prompts=("", "")) -> float:
    """Mean over query tokens of the best cosine, special tokens and prompts left out."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")

    def rows(text, prompt):
        tokens = model.encode(prompt + text, output_value="token_embeddings").numpy()
        n_before = 1 + len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        tokens = tokens[n_before:-1]
        return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)

    asked, found = rows(query, prompts[0]), rows(text, prompts[1])
    return float((asked @ found.T).max(axis=1).mean()) if len(found) else -1.0


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_scores_agree_with_sentence_transformers(tmp_path, family):
    folder = write_bi_encoder(tmp_path / "m", family=family)
    scores = LateInteraction(load_embedder(str(folder), precision="f32")).score(QUERY, TEXTS)
    assert scores == pytest.approx([oracle(folder, QUERY, text) for text in TEXTS], abs=1e-4)


def test_prompts_are_read_and_not_matched(tmp_path):
    folder = write_bi_encoder(tmp_path / "m", prompts={"query": "query: ", "document": "passage: "})
    scores = LateInteraction(load_embedder(str(folder), precision="f32")).score(QUERY, TEXTS[:3])
    expected = [oracle(folder, QUERY, text, ("query: ", "passage: ")) for text in TEXTS[:3]]
    assert scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_texts_and_tokens_are_read_in_one(tmp_path, runtime, pooling):
    folder = write_bi_encoder(tmp_path / "m", pooling=pooling, prompts={"document": "passage: "})
    if runtime == "torch":
        embedder = TorchEmbedder(find_model(str(folder)), device="cpu", precision="f32")
    else:
        embedder = load_embedder(str(folder), device="cpu", precision="f32")
    rows, tokens = embedder.embed_with_tokens(TEXTS)
    assert rows == pytest.approx(embedder.embed_documents(TEXTS), abs=1e-5)
    for found, expected in zip(tokens, embedder.token_vectors(TEXTS), strict=True):
        assert found.shape == expected.shape and found == pytest.approx(expected, abs=1e-5)
    assert [len(found) for found in embedder.embed_with_tokens([])] == [0, 0]


def test_a_text_and_its_tokens_may_differ_in_width(tmp_path):
    """As where a layer behind the pooling makes vectors shorter."""
    folder = write_bi_encoder(tmp_path / "m")
    add_dense(folder, 8)
    embedder = TorchEmbedder(find_model(str(folder)), device="cpu", precision="f32")
    rows, tokens = embedder.embed_with_tokens(TEXTS)
    assert rows == pytest.approx(embedder.embed_documents(TEXTS), abs=1e-5) and rows.shape == (len(TEXTS), 8)
    assert all(np.linalg.norm(part, axis=1) == pytest.approx(1, abs=1e-4) for part in tokens if len(part))
    assert {part.shape[1] for part in tokens} == {32}


def add_dense(folder, width):
    """Put a layer behind the pooling of a bi-encoder."""
    from sentence_transformers.models import Dense

    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    Dense(32, width).save(str(folder / "2_Dense"))


def test_torch_gives_the_same(tmp_path):
    folder = write_bi_encoder(tmp_path / "m")
    ours = LateInteraction(load_embedder(str(folder), precision="f32"))
    torchs = LateInteraction(TorchEmbedder(find_model(str(folder)), device="cpu", precision="f32"))
    assert torchs.score(QUERY, TEXTS) == pytest.approx(ours.score(QUERY, TEXTS), abs=1e-4)


@pytest.mark.parametrize("precision", ["f32", "full", "auto"])
def test_a_text_has_the_same_vectors_whatever_is_read_with_it(precision):
    """So that what is kept of the searches before changes no score."""
    embedder = load_embedder(precision=precision)
    texts = ["The harbour was closed in winter.", "bread", "Ships waited outside of the harbour. " * 20, "A recipe."]
    assert embedder.is_batch_invariant
    alone = [embedder.token_vectors([text])[0] for text in texts]
    cpu = Path("/proc/cpuinfo")
    has_tiles = not cpu.exists() or "amx_tile" in cpu.read_text()  # with which this was not seen
    for some in (texts, texts[::-1], [*texts[1:], *TEXTS]):
        rows = dict(zip(some, embedder.token_vectors(some), strict=True))
        sentences = dict(zip(some, embedder.embed_documents(some), strict=True))
        for text, expected in zip(texts, alone, strict=True):
            if text in rows:
                assert np.abs(rows[text] - expected).max() <= (2e-3 if has_tiles else 0.0)
                one = embedder.embed_documents([text])[0]
                assert np.abs(sentences[text] - one).max() <= (2e-3 if has_tiles else 0.0)


def test_nothing_is_kept_of_models_whose_vectors_depend_on_the_batch(tmp_path):
    files = find_model(str(write_bi_encoder(tmp_path / "m")))
    torchs, ours = TorchEmbedder(files, device="cpu", precision="f32"), load_embedder(str(files.path), precision="f32")
    for embedder, kept in ((torchs, False), (ours, True), (batching(torchs), False), (batching(ours), True)):
        reranker = LateInteraction(embedder)
        reranker.score(QUERY, TEXTS)
        assert (reranker._recent.length(TEXTS[1]) is not None) == kept
        assert reranker._recent._most_bytes == (RECENT_BYTES if kept else 0)


def test_the_packaged_model_finds_which_words_answer():
    embedder = load_embedder()
    text = "The harbour was closed in winter. Ships waited outside."
    reranker = LateInteraction(embedder)
    matches = reranker.matches("vessels in the port", text)
    assert [match.query for match in matches] == [(0, 7), (8, 10), (11, 14), (15, 19)]
    assert text[slice(*matches[0].passage)] == "Ships" and text[slice(*matches[3].passage)] == "harbour"
    assert reranker.matches("", text) == [] and reranker.matches("port", "") == []
    assert reranker.score("port", []).shape == (0,)
    scores = reranker.score("vessels in the port", [text, "A recipe for bread."])
    assert scores[0] > scores[1]


def test_the_budget_is_kept_by_what_was_measured_once(tmp_path):
    reranker = LateInteraction(load_embedder(str(write_bi_encoder(tmp_path / "m"))))
    texts = ["river stone cloud " * 10] * 40  # 30 tokens each
    assert reranker.n_within(QUERY, texts, 1e-9) == 1 and reranker.n_within(QUERY, texts, 1e9) == 40
    kept = max((cache_folder() / "speed").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    facts = json.loads(kept.read_text())
    kept.write_text(json.dumps({**facts, "tokens_per_s": 1000.0}))
    again = LateInteraction(load_embedder(str(tmp_path / "m")))
    assert again.n_within(QUERY, texts, 0.3) == 10
    kept.write_text("damaged")
    anew = LateInteraction(load_embedder(str(tmp_path / "m")))
    assert anew.n_within(QUERY, texts, 1e9) == 40
    assert json.loads(kept.read_text())["tokens_per_s"] > 0


def test_texts_are_taken_while_they_fit():
    assert pacing.n_within([10, 10, 10], 0.02, 1000.0) == 2
    assert pacing.n_within([10, 10, 10], 0.03, 1000.0) == 3
    assert pacing.n_within([50, 10], 0.01, 1000.0) == 1  # one is always read
    assert pacing.n_within([], 1.0, 1000.0) == 0


def test_what_is_explained_is_the_passage_without_the_lines_around_it():
    parts = ["Bread is made of flour.\n" * 40, "The harbour was closed in winter.\n" * 40, "Stars are far away.\n" * 40]
    build_index([Document("d", "\n".join(parts))])

    def found(context):
        with Searcher.open() as searcher:
            (hit,) = searcher.search("when is the port shut", k=1, context=context)
            matches = searcher.explain("when is the port shut", hit)
            assert [m.text for m in searcher.explain("when is the port shut \udcff", hit)] == [m.text for m in matches]
            return hit.chunk.text, [(m.query_text, hit.chunk.text[slice(*m.passage)], m.cosine) for m in matches]

    (narrow, matches), (wide, same) = found(0), found(60)
    assert len(wide) > len(narrow) + 500 and narrow in wide
    assert same == matches and ("port", "harbour") in [match[:2] for match in matches]


@pytest.mark.parametrize(
    ("text", "context", "read"),
    [
        ("It opens at nine.", "The museum > Hours", "It opens at nine.\n\nThe museum\nHours"),
        ("# Hours\n\nIt opens at nine.", "The museum > Hours", "# Hours\n\nIt opens at nine.\n\nThe museum"),
        ("the MUSEUM: hours", "The museum > Hours", "the MUSEUM: hours"),
        ("It opens.", "Museum > MUSEUM > Hours > hours", "It opens.\n\nMuseum\nhours"),
        ("The museum\nof  art opens.", "Museum of Art > Hours", "The museum\nof  art opens.\n\nHours"),
        ("The Guide opens.", "Guide > A1 > B2 > C3", "The Guide opens.\n\nB2\nC3"),
        ("It opens.", " > Guide > A1 > B2 > C3", "It opens.\n\nB2\nC3"),
        ("It opens.", " > ", "It opens."),
        ("It opens.", "", "It opens."),
        ("It opens.", "  Museum ", "It opens.\n\nMuseum"),
        ("Google Calendar goes", "Go > Calendars > Cal", "Google Calendar goes\n\nGo\nCalendars\nCal"),
        ("It is for C++, not D", "C > C++ > D", "It is for C++, not D"),
        ("这个产品很好", "产品 > 价格", "这个产品很好\n\n价格"),
        ("It opens.", "Guide > Part 1 > Chapter 2 > Section 3", "It opens.\n\nGuide\nChapter 2\nSection 3"),
        ("It opens.", "m" * 1000, "It opens.\n\n" + "m" * MAX_PART_CHARS),
        ("It opens.", "many words " * 90 + "> Hours", "It opens.\n\n" + "many words " * 13 + "many\nHours"),
    ],
)
def test_a_passage_is_read_with_what_it_does_not_say_of_its_title_and_headings(text, context, read):
    assert read_in_context(text, context) == read


def titled(where, name, key, text):
    """A document below a title or a heading that its text does not say."""
    return Document(key, text, **({"title": name} if where == "title" else {"outline": (Heading(0, 1, name),)}))


@pytest.mark.parametrize("where", ["title", "heading"])
def test_title_and_headings_tell_what_a_passage_is_about(where):
    """Two documents say the same below other titles, or other headings; what is asked names one of them."""
    hours = "It opens at nine in the morning and closes at five, on Sundays at noon. Children pay half."
    build_index([titled(where, "The swimming pool", "a", hours), titled(where, "The museum", "b", f"{hours} ")])
    query = "opening hours of the gallery of paintings"
    with Searcher.open() as searcher:
        hits = searcher.search(query, fold=False, budget_ms=60_000)
        ours = LateInteraction(load_embedder(precision="full"))
        read = [f"{hit.chunk.text}\n\n{hit.document.title or hit.chunk.heading}" for hit in hits]
        matches = searcher.explain(query, hits[0])
    assert [hit.scores.rerank for hit in hits] == pytest.approx(ours.score(query, read).tolist(), abs=1e-5)
    assert hits[0].document.id == "b" and hits[0].scores.rerank > hits[1].scores.rerank
    assert hits[0].scores.dense == pytest.approx(hits[1].scores.dense)  # vectors are of the passage alone
    told = {match.query_text: (match.text, match.passage) for match in matches}
    assert told["gallery"] == ("museum", None)
    opens = hours.index("opens")
    assert told["opening"] == ("opens", (opens, opens + len("opens")))


def test_what_an_index_keeps_of_tokens_ranks_as_reading_does(tmp_path):
    """Scores differ by what two bits a component leave out, and by the title's being read alone."""
    hours = "It opens at nine in the morning and closes at five, on Sundays at noon. Children pay half."
    names = ["The swimming pool", "The museum", "The zoo", "The railway station", "The library"]
    documents = [Document(name, f"{hours} {' '.join(name.split()[::-1])}.", title=name) for name in names]
    documents += [Document("tea", "Boil the water and let the leaves stand in it for three minutes.", title="Tea")]
    query, found = "when does the collection of paintings close", []
    for name, keeps in (("kept", True), ("not", False)):
        build_index(documents, index=tmp_path / name, token_vectors=keeps)
        with Searcher.open(tmp_path / name) as searcher:
            found.append({hit.document.id: hit for hit in searcher.search(query, fold=False, budget_ms=60_000)})
    kept, read = found
    assert next(iter(kept)) == next(iter(read)) == "The museum" and kept.keys() == read.keys()
    for key, hit in kept.items():
        assert hit.scores.rerank != read[key].scores.rerank
        assert hit.scores.rerank == pytest.approx(read[key].scores.rerank, abs=0.04)
        assert hit.probability == pytest.approx(read[key].probability, abs=0.12)


@pytest.mark.parametrize("where", ["title", "heading"])
def test_of_copies_the_one_is_shown_that_stands_below_the_title_asked_for(where):
    hours = "It opens at nine in the morning and closes at five, on Sundays at noon. Children pay half."
    names = ["The swimming pool", "The zoo", "The museum", "The railway station", "The zoo"]
    build_index(
        [titled(where, name, key, hours) for name, key in zip(names, "abcde", strict=True)]
        + [Document("f", "The gallery's paintings are by local artists.")]
    )
    asked = {"c": "opening hours of the exhibition of paintings", "d": "when can I take a train", "b": "see the lions"}
    with Searcher.open() as searcher:
        for key, query in asked.items():
            hits = searcher.search(query, k=5, budget_ms=60_000)
            hit = next(hit for hit in hits if hit.document.id != "f")
            assert [hit.document.id, *sorted(d.document_id for d in hit.duplicates)] == [
                key,
                *sorted({*"abcde"} - {key}),
            ]
            assert len(hits) == 2 and [h.rank for h in hits] == [1, 2]
            apart = {h.document.id: h for h in searcher.search(query, k=6, fold=False, budget_ms=60_000)}
            assert hit.scores.rerank == pytest.approx(max(apart[i].scores.rerank for i in "abcde"), abs=1e-5)
            assert hit.scores.rerank == pytest.approx(apart[key].scores.rerank, abs=1e-5)


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MUSEUMS = [
    "bicycle",
    "chocolate",
    "railway",
    "toy",
    "salt",
    "whaling",
    "coin",
    "clock",
    "hat",
    "stamp",
    "bread",
    "textile",
]


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_among_many_copies_those_are_read_whose_titles_are_asked_for(mode):
    hours = "It opens at nine in the morning and closes at five, on Sundays at noon. Children pay half."
    build_index([Document(f"{i:02}", hours, title=f"The {name} museum") for i, name in enumerate(MUSEUMS)])
    with Searcher.open() as searcher:
        for query, name in (("opening hours of the textile museum", "textile"), ("a house of old trains", "railway")):
            (hit,) = searcher.search(query, mode=mode, budget_ms=60_000)
            assert hit.document.title == f"The {name} museum"


@pytest.mark.parametrize("per_document", [0, 1, 2])
def test_the_copy_asked_for_is_shown_and_documents_keep_to_their_places(per_document):
    """The museum's copy of the hours is the better one, though the museum has another hit, which then has to yield."""
    hours = " ".join(
        f"On {day} it opens at {i} in the morning and shuts at {i + 4} at night." for i, day in enumerate(DAYS)
    )
    rooms = " ".join(
        f"Room {i} holds the paintings of the years from {1700 + i} on, lent by a friend." for i in range(9)
    )
    outline = (Heading(0, 1, "Rooms"), Heading(len(rooms) + 2, 1, "Times"))
    museum = Document("museum", f"{rooms}\n\n{hours}", title="The museum", outline=outline)
    build_index([Document("pool", hours, title="The swimming pool"), museum])
    with Searcher.open() as searcher:
        query = "when does the museum open on Monday"
        hits = searcher.search(query, mode="dense", per_document=per_document, budget_ms=60_000)
    found = [(hit.document.id, hit.chunk.text == hours, [d.document_id for d in hit.duplicates]) for hit in hits]
    assert found[0] == ("museum", True, ["pool"])
    assert len(found) == (1 if per_document == 1 else 2)


def test_copies_in_other_contexts_do_not_crowd_others_out():
    hours = "It opens at nine in the morning and closes at five, on Sundays at noon. Children pay half."
    others = [f"Tickets to the {place} cost {i} euros." for i, place in enumerate(("zoo", "pool", "park"), 2)]
    houses = [Document(f"h{i}", hours, title=f"House {i}") for i in range(24)]
    build_index([*houses, *(Document(text, text) for text in others)])
    with Searcher.open() as searcher:
        for depth, n_read in ((30, 4), (6, 2), (5, 1), (1, 1)):  # the copies come first, and five of them are read
            hits = searcher.search("when does it open and close", k=10, rerank_depth=depth, budget_ms=60_000)
            assert len({h.chunk.text for h in hits}) == len(hits) == 4
            copies = next(h for h in hits if h.chunk.text == hours)
            assert len(copies.duplicates) == 23
            assert copies.chunk.id not in {d.chunk_id for d in copies.duplicates}
            assert [h.scores.rerank is None for h in hits] == [i >= n_read for i in range(4)]


def test_what_the_model_cannot_read_is_answered_by_words_and_without_percentages():
    texts = [
        "仓库里还有三箱苹果。请在周五之前把苹果发货。",
        "浏览器拒绝了跨域请求。",
        "The browser refuses the request.",
    ]
    build_index([Document(str(i), text) for i, text in enumerate(texts)])
    with Searcher.open() as searcher:
        for query, first, is_read in (("跨域请求被浏览器拒绝", "1", False), ("a browser refused it", "2", True)):
            hits = searcher.search(query, min_probability=0.01)
            assert hits[0].document.id == first
            assert [hit.probability is not None for hit in hits] == [is_read] * len(hits)
            assert [hit.scores.rerank is not None for hit in hits] == [is_read] * len(hits)
            assert bool(searcher.explain(query, hits[0])) == is_read
            again = searcher.search(query, rerank=True)
            assert again[0].scores.rerank is not None and (again[0].probability is not None) == is_read
            assert (searcher.search(query, mode="dense", rerank=False)[0].probability is not None) == is_read
