from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.chunking import MAX_TOKEN_CHARS, ChunkSettings, split, split_sentences
from semsearch.errors import InvalidInput
from semsearch.types import Chunk, Document, Heading
from tests.toy import ToyEmbedder

LENGTHS = ChunkSettings(max_tokens=40, min_tokens=8)
toy = ToyEmbedder()


def cut(text: str, **parts: object) -> list[Chunk]:
    return split(Document("d", text, **parts), toy.token_spans, LENGTHS)  # type: ignore[arg-type]


def outline(text: str) -> tuple[Heading, ...]:
    return tuple(Heading(m.start(), len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.*)$", text, re.M))


def n_tokens(text: str) -> int:
    return len(toy.token_spans([text])[0])


def assert_sound(text: str, chunks: list[Chunk]) -> None:
    """Offsets exact, in order, nothing but white space between, none too long, lines right."""
    assert all(text[c.start : c.end] == c.text for c in chunks)
    assert all(a.end <= b.start for a, b in pairwise(chunks))
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    covered = "".join(c.text for c in chunks)
    assert re.sub(r"\s", "", covered) == re.sub(r"\s", "", text)
    assert all(n_tokens(c.text) <= LENGTHS.max_tokens for c in chunks)
    for c in chunks:
        assert c.line_start == text.count("\n", 0, c.start) + 1
        assert c.line_end == text.count("\n", 0, c.end) + 1


SENTENCE = "The quick brown fox jumps over the lazy dog. "


def test_short_text_is_one_chunk() -> None:
    chunks = cut("  Just this.\n")
    assert [(c.text, c.start, c.end, c.line_start, c.page) for c in chunks] == [("Just this.", 2, 12, 1, None)]


def test_empty_and_blank_texts_give_nothing() -> None:
    assert cut("") == [] and cut(" \n\t\n") == []


def test_long_prose_is_cut_at_sentence_ends_into_even_parts() -> None:
    text = SENTENCE * 20
    chunks = cut(text)
    assert_sound(text, chunks)
    assert all(c.text.endswith("dog.") for c in chunks)
    sizes = [n_tokens(c.text) for c in chunks]
    assert min(sizes) >= LENGTHS.max_tokens // 2


def test_paragraphs_are_preferred_to_sentences() -> None:
    text = "\n\n".join([SENTENCE.strip() * 2, SENTENCE * 2, SENTENCE * 3, SENTENCE])
    chunks = cut(text)
    assert_sound(text, chunks)
    starts = {m.end() for m in re.finditer(r"\n\n", text)} | {0}
    assert {c.start for c in chunks} <= starts


def test_headings_divide_and_name_chunks() -> None:
    body = SENTENCE * 2
    text = f"# Guide\n\nIntro.\n\n## Install\n\n{body}\n\n## Use\n\n{body}\n\n### Fast\n\n{body}"
    chunks = cut(text, outline=outline(text))
    assert_sound(text, chunks)
    assert [c.heading for c in chunks] == ["Guide > Install", "Guide > Use", "Guide > Use > Fast"]
    assert chunks[0].text.startswith("# Guide\n\nIntro.\n\n## Install")  # a section too short to stand alone


def test_joined_siblings_are_named_by_what_they_share() -> None:
    text = "# All\n\n## One\n\nshort\n\n## Two\n\nshort too"
    assert [c.heading for c in cut(text, outline=outline(text))] == ["All"]


def test_code_block_is_cut_between_lines_only() -> None:
    code = "\n".join(f"value_{i} = call({i}, 'a. b. c')" for i in range(30))
    text = f"Before.\n\n```python\n{code}\n```\n\nAfter."
    chunks = cut(text)
    assert_sound(text, chunks)
    assert all(c.start == 0 or text[c.start - 1] == "\n" for c in chunks)


def test_table_rows_stay_whole() -> None:
    text = "\n".join(f"| name {i} | it is. Or is it? | {i * 7} |" for i in range(30))
    chunks = cut(text)
    assert_sound(text, chunks)
    assert all(c.text.startswith("| name") and c.text.endswith("|") for c in chunks)


def test_list_items_stay_whole() -> None:
    text = "\n".join(f"- item {i} goes on\n  with a second line of words" for i in range(20))
    chunks = cut(text)
    assert_sound(text, chunks)
    assert all(c.text.startswith("- item") for c in chunks)


@pytest.mark.parametrize(
    "sentence", ["机器学习模型需要大量的训练数据和计算资源。", "検索エンジンは文書を意味で探すことができます。"]
)
def test_chinese_and_japanese_are_cut_at_sentence_ends(sentence: str) -> None:
    text = sentence * 12
    chunks = cut(text)
    assert_sound(text, chunks)
    assert len(chunks) > 3 and all(c.text.endswith("。") for c in chunks)


def test_one_line_without_any_place_to_cut_is_covered() -> None:
    for text in ("x" * 5_000, "词" * 500, "word " * 500, "a,b;" * 300):
        chunks = cut(text)
        assert_sound(text, chunks)
        assert len(chunks) > 5


@pytest.mark.parametrize("text", ["." * 30_000, "?" * 30_000, "!." * 15_000, "a" + " " * 100_000 + "b", "z" * 100_000])
def test_runs_of_one_character_are_cut_at_once(text: str) -> None:
    """Each took minutes, or gave one enormous chunk, with a pattern that looks ahead from every character."""
    chunks = cut(text)
    assert max(len(c.text) for c in chunks) <= LENGTHS.max_tokens * MAX_TOKEN_CHARS
    assert re.sub(r"\s", "", "".join(c.text for c in chunks)) == re.sub(r"\s", "", text)


def test_pages_and_lines_are_kept() -> None:
    pages = [SENTENCE * 3 + "\n", "Second page here. " * 8 + "\n", "Third page. " * 12]
    starts = (0, len(pages[0]), len(pages[0]) + len(pages[1]))
    chunks = cut("".join(pages), page_starts=starts)
    assert_sound("".join(pages), chunks)
    for chunk in chunks:
        assert chunk.page == sum(s <= chunk.start for s in starts)


def test_changing_one_section_leaves_the_others_alone() -> None:
    def page(changed: str) -> list[str]:
        text = "\n\n".join(f"## Section {i}\n\n{SENTENCE * 6}{changed if i == 5 else ''}" for i in range(12))
        return [c.text for c in cut(text, outline=outline(text))]

    before, after = page(""), page("And one more sentence was added here. ")
    assert len(set(after) - set(before)) <= 3


def test_an_edit_of_a_long_list_moves_few_cuts() -> None:
    def passages(edited: int | None) -> set[str]:
        items = [f"* entry {i} tells of {(i * 7919) % 1000} things and more" for i in range(400)]
        if edited is not None:
            items[edited] += " with quite a few words more than it had before this edit"
        return {c.text for c in cut("\n".join(items))}

    before = passages(None)
    n_new = [len(passages(edited) - before) for edited in range(0, 380, 19)]
    assert len(before) > 80 and sorted(n_new)[len(n_new) // 2] <= 4 and max(n_new) < len(before) // 3


def test_text_longer_than_a_tokenised_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.chunking.PIECE_CHARS", 200)
    text = "\n".join(SENTENCE * 2 for _ in range(60)) + "y" * 700
    assert_sound(text, cut(text))


@settings(max_examples=150)
@given(st.text(alphabet=st.sampled_from(list("ab .!\n\t#-|`。，词\u200b\ud7ff\x00é")), max_size=600))
def test_any_text_is_covered(text: str) -> None:
    chunks = split(Document("d", text), toy.token_spans, ChunkSettings(max_tokens=7, min_tokens=2))
    assert all(text[c.start : c.end] == c.text and n_tokens(c.text) <= 7 for c in chunks)
    assert all(a.end <= b.start for a, b in pairwise(chunks))
    starts = toy.token_spans([text])[0][:, 0]
    assert all(any(c.start <= start < c.end for c in chunks) for start in starts)


def test_split_sentences() -> None:
    text = 'He said "stop." Then left!  And 3.5 is a number.\n- one item\n- two items\n你好。再见！'
    assert [text[a:b] for a, b in split_sentences(text)] == [
        'He said "stop."', "Then left!", "And 3.5 is a number.", "- one item", "- two items\n你好。", "再见！",
    ]  # fmt: skip


@pytest.mark.parametrize(("most", "least"), [(0, 0), (10, 11), (5, -1)])
def test_impossible_lengths_are_refused(most: int, least: int) -> None:
    with pytest.raises(InvalidInput, match=str(least)):
        ChunkSettings(max_tokens=most, min_tokens=least)
