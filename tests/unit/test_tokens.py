"""The codes of passages' tokens: kept beside the index, never trusted without a checksum, never needed."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, token_keeping
from semsearch.encoders.late_interaction import Kept, LateInteraction
from semsearch.errors import InvalidInput
from semsearch.indexing import remove
from semsearch.store import tokens
from semsearch.store.archives import export_index, import_index
from semsearch.store.metadata import Store
from semsearch.store.tokens import TOKENS, TokenReader, TokenWriter
from semsearch.types import FloatArray
from semsearch.verifying import verify
from tests.toy import ToyEmbedder

A, B, C = (bytes([i]) * 16 for i in (1, 2, 3))


def write(path: Path, codes: dict[bytes, bytes]) -> None:
    writer = TokenWriter(path)
    writer.add(codes)
    writer.close()


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path / TOKENS)) as connection, connection:
        connection.execute(sql, values)


class TestStore:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        reader = TokenReader(tmp_path)
        assert reader.get([A]) == {}
        write(tmp_path, {A: b"one", B: b""})  # after it was opened
        assert reader.get([A, B, C]) == {A: b"one", B: b""} and reader.get([]) == {}
        write(tmp_path, {B: b"two", C: b"three"})
        assert reader.get([A, B, C]) == {A: b"one", B: b"two", C: b"three"}
        assert stat.S_IMODE((tmp_path / TOKENS).stat().st_mode) == 0o600
        reader.close()

    def test_it_is_read_while_it_is_written(self, tmp_path: Path) -> None:
        reader, writer = TokenReader(tmp_path), TokenWriter(tmp_path)
        for key in (A, B, C):
            writer.add({key: key})
            assert reader.get([A, B, C])[key] == key
        writer.close()
        assert reader.get([A, B, C]).keys() == {A, B, C}
        reader.close()

    def test_another_file_in_its_place_is_followed(self, tmp_path: Path) -> None:
        write(tmp_path, {A: b"one"})
        reader = TokenReader(tmp_path)
        assert reader.get([A]) == {A: b"one"}
        TokenWriter(tmp_path).remove()
        assert not list(tmp_path.glob("tokens*")) and reader.get([A]) == {}
        write(tmp_path, {A: b"other"})
        assert reader.get([A]) == {A: b"other"}
        reader.close()

    @pytest.mark.parametrize(
        ("column", "value"), [("codes", b"onf"), ("codes", "one"), ("codes", 1), ("checksum", b"")]
    )
    def test_a_row_that_is_not_what_was_written_is_not_there(self, tmp_path: Path, column: str, value: object) -> None:
        write(tmp_path, {A: b"one", B: b"two"})
        change(tmp_path, f"UPDATE tokens SET {column} = ? WHERE hash = ?", value, A)
        reader, writer = TokenReader(tmp_path), TokenWriter(tmp_path)
        assert reader.get([A, B]) == {B: b"two"}
        writer.drop_unsound()
        assert writer.missing([A, B, C]) == [A, C]
        writer.close()
        reader.close()

    @pytest.mark.parametrize("part", ["header", "pages"])
    def test_what_cannot_be_read_makes_room(self, tmp_path: Path, part: str) -> None:
        codes = {i.to_bytes(16, "big"): bytes([i % 251]) * 3_000 for i in range(500)}
        write(tmp_path, codes)
        size = (tmp_path / TOKENS).stat().st_size
        for work in ("add", "missing", "keep_only", "drop_unsound"):
            with (tmp_path / TOKENS).open("r+b") as stream:
                stream.seek(0 if part == "header" else 4_096)
                stream.write(b"\xff" * (size - 4_096))
            reader, writer = TokenReader(tmp_path), TokenWriter(tmp_path)
            assert reader.get(codes) == {}
            if work == "drop_unsound":
                writer.drop_unsound()
            else:
                getattr(writer, work)({A: b"one"})
            writer.add({B: b"two"})
            assert reader.get([B]) == {B: b"two"}
            writer.add(codes)
            writer.close()
            reader.close()

    def test_a_full_disk_is_told_and_loses_nothing(self, tmp_path: Path) -> None:
        write(tmp_path, {A: b"one"})
        script = (
            "import resource, sys; from pathlib import Path; from semsearch.store.tokens import TokenWriter\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); writer = TokenWriter(Path(sys.argv[1]))\n"
            "try: writer.add({bytes([7]) * 16: bytes(1_000_000)})\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("OperationalError") and "disk" in done.stdout
        reader = TokenReader(tmp_path)
        assert reader.get([A]) == {A: b"one"}
        reader.close()

    def test_codes_of_another_version_are_not_read_and_make_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, {A: b"one"})
        monkeypatch.setattr(tokens, "VERSION", tokens.VERSION + 1)
        reader = TokenReader(tmp_path)
        assert reader.get([A]) == {}
        write(tmp_path, {B: b"two"})
        assert reader.get([A, B]) == {B: b"two"}
        reader.close()

    def test_what_is_dropped_gives_its_room_back(self, tmp_path: Path) -> None:
        writer = TokenWriter(tmp_path)
        writer.keep_only([A])
        assert not list(tmp_path.glob("tokens*"))
        keys = [i.to_bytes(16, "big") for i in range(200)]
        writer.add({key: bytes(5_000) for key in keys})
        writer.close()
        before = (tmp_path / TOKENS).stat().st_size
        writer.keep_only([keys[7], A])
        writer.close()
        assert before > 1_000_000 and (tmp_path / TOKENS).stat().st_size < 100_000
        assert writer.missing([keys[7], A, keys[8]]) == [A, keys[8]]
        writer.close()


class Tokens(ToyEmbedder):
    """Gives vectors of tokens, and remembers which texts it read for them alone."""

    precision, device = "f32", "cpu"

    def __init__(self, seed: str = "a") -> None:
        super().__init__(seed)
        self.read: list[str] = []

    def token_vectors(self, texts: Sequence[str], *, queries: bool = False) -> list[FloatArray]:
        self.read += [] if queries else texts
        return self.vectors_of_tokens(texts)


DOCUMENTS = [
    Document("a", "Boats lie at anchor on the river.", title="Harbour"),
    Document("b", "The kettle boils on the stove.", title="Kitchen"),
    Document("c", "A violin plays in the garden; the kettle is cold.", title="Evening"),
]


TEXTS = {d.text for d in DOCUMENTS}


def passages(read: Sequence[str]) -> set[str]:
    """Those that texts which were read begin with."""
    return {text for text in TEXTS if any(what.startswith(text) for what in read)}


def n_kept(index: Path) -> int:
    with closing(Store(index)) as store:
        hashes = [row[0] for row in store.query("SELECT text_hash FROM vectors")]
    reader = TokenReader(index)
    try:
        return len(reader.get(hashes))
    finally:
        reader.close()


class TestIndex:
    def test_searches_do_not_read_again_what_is_kept(self, tmp_path: Path) -> None:
        index, embedder, query = tmp_path / "i", Tokens(), "kitchen kettle boils"
        build_index(DOCUMENTS, index=index, embedder=embedder, token_vectors=True)
        assert n_kept(index) == 3
        with Searcher.open(index, embedder=embedder) as searcher:
            hits = searcher.search(query, budget_ms=60_000)
            assert not passages(embedder.read) and {"Harbour", "Kitchen", "Evening"} <= set(embedder.read)
            assert hits[0].document.id == "b" and all(hit.scores.rerank is not None for hit in hits)
            read = [f"{hit.chunk.text}\n\n{hit.document.title}" for hit in hits]
            exact = LateInteraction(Tokens()).score(query, read)
            assert [hit.scores.rerank for hit in hits] == pytest.approx(exact.tolist(), abs=0.05)

    def test_what_is_kept_costs_nothing_of_the_budget(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        build_index([replace(d, title="") for d in DOCUMENTS], index=index, embedder=embedder, token_vectors=True)
        with Searcher.open(index, embedder=embedder) as searcher:
            hits = searcher.search("a kettle that boils", budget_ms=1e-3)
        assert [hit.scores.rerank is not None for hit in hits] == [True] * 3
        assert not passages(embedder.read)
        build_index([], index=index, embedder=embedder, token_vectors=False)
        with Searcher.open(index, embedder=embedder) as searcher:
            hits = searcher.search("a kettle that boils", budget_ms=1e-3)
        assert [hit.scores.rerank is not None for hit in hits] == [True, False, False]

    def test_another_reranker_reads_passages_itself(self, tmp_path: Path) -> None:
        index, embedder, other = tmp_path / "i", Tokens(), Tokens(seed="b")
        build_index(DOCUMENTS, index=index, embedder=embedder, token_vectors=True)
        with Searcher.open(index, embedder=embedder, reranker=LateInteraction(other)) as searcher:
            searcher.search("a kettle that boils", budget_ms=60_000)
        assert passages(other.read) == TEXTS and not embedder.read

    def test_sentences_are_marked_without_reading_them(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        sentences = ["Boats lie at anchor.", "The kettle boils on the stove!", "Nothing else is here."]
        build_index([Document("d", " ".join(sentences))], index=index, embedder=embedder, token_vectors=True)
        with Searcher.open(index, embedder=embedder) as searcher:
            for query, answer in (("kettle boils", 1), ("boats anchor", 0), ("else nothing", 2)):
                hits = searcher.search(query)
                before = embedder.n_encoded
                start = " ".join(sentences).index(sentences[answer])
                assert searcher.highlight(query, hits)[0].sentence == (start, start + len(sentences[answer]))
                assert embedder.n_encoded == before
            TokenWriter(index).remove()
            assert searcher.highlight("kettle boils", hits)[0].sentence[0] == len(sentences[0]) + 1
            assert embedder.n_encoded == before + 3

    def test_each_hit_has_its_own_sentence_marked(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        parts = [
            ["The kettle boils!", "It rains."],
            ["It snows.", "A kettle boils."],
            ["So be it.", "Kettles boil, kettle."],
        ]
        documents = [Document(str(i), " ".join(sentences)) for i, sentences in enumerate(parts)]
        build_index(documents, index=index, embedder=embedder, token_vectors=True)
        expected = {"0": 0, "1": len("It snows. "), "2": len("So be it. ")}
        for n_kept in (3, 2, 1):  # of the others the model reads the sentences
            change(index, "DELETE FROM tokens WHERE rowid > ?", n_kept)
            with Searcher.open(index, embedder=embedder) as searcher:
                hits = searcher.search("kettle boils")
                marked = searcher.highlight("kettle boils", hits)
            found = {hit.document.id: at.sentence[0] for hit, at in zip(hits, marked, strict=True)}
            assert found == expected

    def test_a_sentence_without_tokens_is_none(self) -> None:
        text, embedder = "Boats lie at anchor. — The kettle boils.", Tokens()
        codes = token_keeping.embed_with_codes(embedder, [text])[1][0]
        parts = [(0, 20), (20, 21), (21, 22), (23, len(text))]
        (scores,) = LateInteraction(embedder).score_sentences("kettle", [(text, codes)], [parts])
        assert scores.argmax() == 3 and scores[1] == -1.0 and scores.shape == (4,)

    def test_damage_is_read_by_the_model_found_and_mended(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        build_index(DOCUMENTS, index=index, embedder=embedder, token_vectors=True)
        change(index, "UPDATE tokens SET codes = x'00' WHERE rowid = 2")
        assert n_kept(index) == 2
        with Searcher.open(index, embedder=embedder) as searcher:
            assert searcher.search("a kettle that boils", budget_ms=60_000)[0].document.id == "b"
        assert len(passages(embedder.read)) == 1
        build_index([Document("d", "A lantern stands on the bridge.")], index=index, embedder=embedder)
        damages = verify(index, embedder=embedder).damages
        assert [d.what for d in damages] == ["1 passages have no vectors of their tokens, or damaged ones"]
        before = embedder.n_encoded
        report = verify(index, embedder=embedder, repair=True)
        assert report.is_sound and [d.part for d in report.mended] == ["tokens"] and n_kept(index) == 4
        assert embedder.n_encoded == before + 1

    @pytest.mark.parametrize("damage", ["gone", "garbage"])
    def test_what_is_lost_is_made_by_the_next_run(self, tmp_path: Path, damage: str) -> None:
        index, embedder = tmp_path / "i", Tokens()
        build_index(DOCUMENTS, index=index, embedder=embedder, token_vectors=True)
        (index / TOKENS).unlink() if damage == "gone" else (index / TOKENS).write_bytes(bytes(10_000))
        with Searcher.open(index, embedder=embedder) as searcher:
            assert searcher.search("a kettle that boils", budget_ms=60_000)[0].document.id == "b"
        assert passages(embedder.read) == TEXTS and not verify(index, embedder=embedder).is_sound
        assert build_index([], index=index, embedder=embedder).chunks.encoded == 3
        assert n_kept(index) == 3 and verify(index, embedder=embedder).is_sound

    def test_a_choice_is_remembered(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        build_index(DOCUMENTS, index=index, embedder=embedder)
        assert (
            not (index / TOKENS).exists()
            and [c.part for c in verify(index, embedder=embedder).checks].count("tokens") == 0
        )
        report = build_index([], index=index, embedder=embedder, token_vectors=True)
        assert n_kept(index) == 3 and report.chunks.encoded == 3
        more = Document("d", "A lantern stands on the bridge.")
        assert build_index([more], index=index, embedder=embedder).chunks.encoded == 1 and n_kept(index) == 4
        assert build_index([], index=index, embedder=embedder, token_vectors=True).chunks.encoded == 0
        build_index([], index=index, embedder=embedder, token_vectors=False)
        build_index([replace(more, text="Nothing.")], index=index, embedder=embedder)
        assert not list(index.glob("tokens*")) and verify(index, embedder=embedder).is_sound

    def test_what_a_run_that_was_cut_off_left_is_made(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        build_index(DOCUMENTS[:2], index=index, embedder=embedder)
        embedder.fail_after = embedder.n_encoded
        with pytest.raises(KeyboardInterrupt):
            build_index([], index=index, embedder=embedder, token_vectors=True)
        embedder.fail_after = None
        for n_left in (2, 1):  # nothing is damaged: it is only not done yet
            report = verify(index, embedder=embedder)
            (notes,) = [check.notes for check in report.checks if check.part == "tokens"]
            assert report.is_sound
            assert notes == (f"{n_left} passages have no vectors of their tokens yet; the next run makes them",)
            with closing(Store(index)) as store:
                write(index, {store.query("SELECT text_hash FROM vectors")[0][0]: b"what a run had made"})
        change(index, "UPDATE tokens SET codes = x'00'")
        assert not verify(index, embedder=embedder).is_sound
        assert verify(index, embedder=embedder, repair=True).is_sound and n_kept(index) == 2
        build_index(DOCUMENTS, index=index, embedder=embedder)
        assert n_kept(index) == 3 and verify(index, embedder=embedder).is_sound
        remove(["c"], index=index)
        (index / TOKENS).unlink()
        assert not verify(index, embedder=embedder).is_sound

    def test_a_first_run_that_was_cut_off_goes_on_as_it_began(self, tmp_path: Path) -> None:
        index, embedder = tmp_path / "i", Tokens()
        embedder.fail_after = 0
        with pytest.raises(KeyboardInterrupt):
            build_index(DOCUMENTS, index=index, embedder=embedder, token_vectors=True)
        embedder.fail_after = None
        build_index(DOCUMENTS, index=index, embedder=embedder)
        assert n_kept(index) == 3

    def test_another_model_has_its_own(self, tmp_path: Path) -> None:
        index, other = tmp_path / "i", Tokens(seed="b")
        build_index(DOCUMENTS, index=index, embedder=Tokens(), token_vectors=True)
        build_index([], index=index, embedder=other, rebuild=True)
        assert n_kept(index) == 3 and verify(index, embedder=other).is_sound
        writer = TokenWriter(index)
        assert len(writer._known()) == 3  # those of the other went with its vectors
        writer.close()

    def test_those_of_passages_that_are_gone_go(self, tmp_path: Path) -> None:
        index = tmp_path / "i"
        build_index(DOCUMENTS, index=index, embedder=Tokens(), token_vectors=True)
        remove(["a", "c"], index=index)
        writer = TokenWriter(index)
        assert len(writer._known()) == 1
        writer.close()

    def test_they_travel_with_the_index(self, tmp_path: Path) -> None:
        index, copy, archive = tmp_path / "i", tmp_path / "copy", tmp_path / "a.tar"
        build_index(DOCUMENTS, index=index, embedder=Tokens(), token_vectors=True)
        export_index(index, archive)
        import_index(archive, copy)
        assert n_kept(copy) == 3 and verify(copy, embedder=Tokens()).is_sound
        (index / TOKENS).write_bytes(b"nothing that SQLite knows" * 400)
        export_index(index, archive)
        import_index(archive, tmp_path / "other")
        assert n_kept(tmp_path / "other") == 0

    def test_a_model_that_does_not_give_them_is_told(self, tmp_path: Path) -> None:
        class Plain(ToyEmbedder):
            def __getattribute__(self, name: str) -> object:
                if name == "embed_with_tokens":
                    raise AttributeError(name)
                return super().__getattribute__(name)

        build_index(DOCUMENTS, index=tmp_path / "i", embedder=Plain())
        with pytest.raises(InvalidInput, match="toy-a does not give vectors of tokens"):
            build_index(DOCUMENTS, index=tmp_path / "i", embedder=Plain(), token_vectors=True)
        assert verify(tmp_path / "i", embedder=Plain()).is_sound


def test_what_several_passages_stand_below_is_read_once_and_counts_once() -> None:
    title, embedder = "one title of five words", Tokens()
    texts = [f"{d.text}\n\n{title}" for d in DOCUMENTS]
    codes = token_keeping.embed_with_codes(embedder, [d.text for d in DOCUMENTS])[1]
    kept = [Kept(len(d.text), of_text) for d, of_text in zip(DOCUMENTS, codes, strict=True)]
    reranker = LateInteraction(embedder)
    reranker._speed = 10.0
    assert reranker.n_within("kettle", texts, 0.55, kept) == 3
    assert reranker.n_within("kettle", texts, 0.55) == 1
    reranker.score("kettle", texts, kept)
    assert embedder.read == [title]
    assert reranker.n_within("kettle", texts, 0.55, kept) == 3


def test_codes_are_made_in_blocks_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_keeping, "TEXTS_AT_ONCE", 2)
    texts = [d.text for d in DOCUMENTS]
    rows, codes = token_keeping.embed_with_codes(Tokens(), texts)
    assert np.array_equal(rows, Tokens().embed_documents(texts))
    assert codes == [token_keeping.embed_with_codes(Tokens(), [text])[1][0] for text in texts]
    assert token_keeping.embed_with_codes(Tokens(), [])[0].shape == (0, Tokens.dim)
