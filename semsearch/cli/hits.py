"""Hits on the terminal. In a pipe the same text, without colour, links, wrapping or cutting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from semsearch.answers import hit_path
from semsearch.cli.output import clean, clean_line, short_path
from semsearch.cli.places import file_line, hyperlink, row_of
from semsearch.cli.render import PATH, open_console, print_line

if TYPE_CHECKING:
    from semsearch.encoders.late_interaction import TokenMatch
    from semsearch.highlighting import Highlight
    from semsearch.types import Hit

__all__ = ["show_hits"]

INDENT = "     "
MAX_PASSAGE_LINES = 8  # of a hit, on a terminal
MIN_PASSAGE_WIDTH = 20  # columns
MAX_PASSAGE_WIDTH = 110  # columns; longer lines are hard to read
PLACE, SENTENCE, WORD, SENTENCE_WORD = "green", "bold", "red", "bold red"  # as grep


def show_hits(
    found: Sequence[Hit],
    highlight: Callable[[Sequence[Hit]], list[Highlight]],
    *,
    whole: bool,
    matches: Sequence[Sequence[TokenMatch]] | None = None,
) -> None:
    """Print hits, best first.

    Args:
        found: the hits.
        highlight: asked only where emphasis can be seen.
        whole: show passages in full, however long.
        matches: which tokens met, a list a hit, where scores are to be explained.
    """
    console = open_console()
    marks = highlight(found) if console.is_terminal else [None] * len(found)
    for row, (hit, mark) in enumerate(zip(found, marks, strict=True)):
        print_line(console, *_head(hit))
        heading = clean_line(hit.chunk.heading or hit.document.title)
        if heading:
            print_line(console, INDENT, (heading, "italic dim"))
        if matches is not None:
            for part in _explanation(hit, matches[row]):
                print_line(console, INDENT, (part, "dim"))
        if mark is not None:
            passage = _wrapped(console, _emphasised(hit.chunk.text, mark))
            lines = passage if whole else _around_sentence(passage)
        else:
            lines = [Text(line) for line in clean(hit.chunk.text).split("\n")]
        for line in lines:
            console.print(Text.assemble(INDENT, line) if line.plain else "", soft_wrap=True)
        console.print()


def _head(hit: Hit) -> Iterator[str | tuple[str, str | Style]]:
    """Rank, score, path, where in the file, and how often it is said elsewhere."""
    yield f"{hit.rank:>3}  ", "bold"
    yield f"{hit.score:.3f}  "
    if hit.probability is not None:
        yield f"{hit.probability:>4.0%}  ", "cyan"
    link = hyperlink(hit)
    yield clean_line(short_path(hit_path(hit))), Style(color=PATH, link=link)
    if row_of(hit):
        yield clean_line(row_of(hit)), PLACE
    elif hit.chunk.page is not None:
        yield f"  page {hit.chunk.page}", PLACE
    elif file_line(hit) is not None:
        first, last = hit.chunk.line_start, hit.chunk.line_end
        yield f":{first}" if first == last else f":{first}-{last}", Style(color=PLACE, link=link)
    if hit.duplicates:
        yield f"  +{len(hit.duplicates)} near-identical", "dim"


def _explanation(hit: Hit, matches: Sequence[TokenMatch]) -> Iterator[str]:
    """Where a hit's score came from, part by part, and the words of the passage that answer to those of the query."""
    scores = hit.scores
    named = {
        "meaning": scores.dense,
        "words (BM25)": scores.lexical,
        "meaning after feedback": scores.feedback,
        "fused": scores.fused,
        "reranker": scores.rerank,
    }
    yield ", ".join(f"{name} {value:.3f}" for name, value in named.items() if value is not None)
    parts = [(name, value) for name, value in scores.parts.items() if value]
    if len(parts) > 1:
        first, *others = parts
        added = "".join(f" {'-' if value < 0 else '+'} {name} {abs(value):.3f}" for name, value in others)
        yield f"{hit.score:.3f} = {first[0]} {first[1]:.3f}{added}"
    words = []
    for match in matches:
        where = "" if match.passage else " (title or heading)"
        words.append(f"{clean_line(match.query_text)} → {clean_line(match.text)}{where} {match.cosine:.2f}")
    if words:
        yield ", ".join(words)


def _emphasised(passage: str, highlight: Highlight) -> Text:
    """The passage, fit to be shown, with its best sentence and the query's words marked."""
    cuts = {0, len(passage)}
    for span in (highlight.sentence, *highlight.words):
        cuts.update(span)
    text = Text()
    for start, end in pairwise(sorted(cuts)):
        in_sentence = highlight.sentence[0] <= start < highlight.sentence[1]
        is_word = any(first <= start < last for first, last in highlight.words)
        style = (SENTENCE_WORD if is_word else SENTENCE) if in_sentence else (WORD if is_word else "")
        text.append(clean(passage[start:end]), style=style)
    return text


def _wrapped(console: Console, text: Text) -> list[Text]:
    """Lines that fit beside the indent; runs of empty lines become one."""
    width = min(max(console.width - len(INDENT), MIN_PASSAGE_WIDTH), MAX_PASSAGE_WIDTH)
    lines: list[Text] = []
    for line in text.wrap(console, width, tab_size=4):
        line.rstrip()
        if line.plain or (lines and lines[-1].plain):
            lines.append(line)
    return lines


def _around_sentence(lines: list[Text]) -> list[Text]:
    """At most MAX_PASSAGE_LINES lines around the best sentence, with marks where something is left out."""
    if len(lines) <= MAX_PASSAGE_LINES + 1:  # nothing is gained by putting a mark for one line
        return lines
    marked = [i for i, line in enumerate(lines) if any(s.style in (SENTENCE, SENTENCE_WORD) for s in line.spans)]
    first, last = (marked[0], marked[-1]) if marked else (0, 0)
    n_before = max(0, MAX_PASSAGE_LINES - (last - first + 1)) // 2
    start = max(0, min(first - n_before, len(lines) - MAX_PASSAGE_LINES))
    end = start + MAX_PASSAGE_LINES
    mark = Text("…", style="dim")
    return [*([mark] if start else []), *lines[start:end], *([mark] if end < len(lines) else [])]
