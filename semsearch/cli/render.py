"""Results on the terminal: hits and reports. In a pipe the same text, without colour, wrapping or cutting."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from semsearch.answers import hit_path
from semsearch.cli.options import DEFAULT_INDEX
from semsearch.cli.output import clean, clean_line, short_path

if TYPE_CHECKING:
    from semsearch.cli.environment import Installation
    from semsearch.encoders.late_interaction import TokenMatch
    from semsearch.highlighting import Highlight
    from semsearch.reports import IndexReport, Problem, RemoveReport
    from semsearch.store.info import FileEntry, IndexInfo
    from semsearch.types import Hit

__all__ = [
    "ann_in_words",
    "failures",
    "files",
    "hits",
    "index_report",
    "info",
    "open_console",
    "plan_in_words",
    "removal",
]

INDENT = "     "
MAX_PASSAGE_LINES = 8  # of a hit, on a terminal
MIN_PASSAGE_WIDTH = 20  # columns
MAX_PASSAGE_WIDTH = 110  # columns; longer lines are hard to read
MAX_FAILURES_SHOWN = 20
MAX_REASONS_SHOWN = 10
# Formats whose text is taken out of a container: its line numbers are not the file's, so they are not shown.
CONVERTED = frozenset({".docx", ".epub", ".htm", ".html", ".ipynb", ".odt", ".pdf", ".pptx", ".xhtml"})

# The colours of grep, which the eye knows.
PATH, PLACE, SENTENCE, WORD, SENTENCE_WORD = "magenta", "green", "bold", "red", "bold red"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave closed pipes to `Door`: they are not an error, as rich has it."""
        raise BrokenPipeError


def open_console(*, stderr: bool = False) -> Console:
    """A console that prints texts as they are: no markup, no emoji names, and no colour under NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return _Console(stderr=stderr, color_system=None, highlight=False, markup=False, emoji=False)
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _print(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print one line of (text, style) parts as it is; the terminal folds it where it must."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def hits(
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
        _print(console, *_head(hit))
        heading = clean_line(hit.chunk.heading or hit.document.title)
        if heading:
            _print(console, INDENT, (heading, "italic dim"))
        if matches is not None:
            for part in _explanation(hit, matches[row]):
                _print(console, INDENT, (part, "dim"))
        if mark is not None:
            passage = _wrapped(console, _emphasised(hit.chunk.text, mark))
            lines = passage if whole else _around_sentence(passage)
        else:
            lines = [Text(line) for line in clean(hit.chunk.text).split("\n")]
        for line in lines:
            console.print(Text.assemble(INDENT, line) if line.plain else "", soft_wrap=True)
        console.print()


def _head(hit: Hit) -> Iterator[str | tuple[str, str]]:
    """Rank, score, path, where in the file, and how often it is said elsewhere."""
    yield f"{hit.rank:>3}  ", "bold"
    yield f"{hit.score:.3f}  "
    if hit.probability is not None:
        yield f"{hit.probability:>4.0%}  ", "cyan"
    path, document_id = hit_path(hit), hit.document.id
    yield clean_line(short_path(path)), PATH
    if document_id.startswith(f"{path}#"):  # a row of a table
        yield clean_line(document_id[len(path) :]), PLACE
    elif hit.chunk.page is not None:
        yield f"  page {hit.chunk.page}", PLACE
    elif Path(path).suffix.lower() not in CONVERTED:
        first, last = hit.chunk.line_start, hit.chunk.line_end
        yield f":{first}" if first == last else f":{first}-{last}", PLACE
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
        word = clean_line(hit.chunk.text[slice(*match.passage)])
        words.append(f"{clean_line(match.query_text)} → {word} {match.cosine:.2f}")
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


def index_report(report: IndexReport, index: str) -> None:
    """Print what a run of `index` did, and how to go on."""
    console = open_console()
    n, chunks = report.files, report.chunks
    how = f"  in {report.elapsed_s:.1f} s, with {clean_line(report.model)}"
    _print(console, (clean_line(short_path(report.index)), PATH), how)
    counts = {"unchanged": n.unchanged, "removed": n.removed, "skipped": n.skipped, "failed": n.failed}
    rest = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
    _print(console, "  files     ", (f"{n.indexed:,} indexed", "bold"), rest)
    _print(
        console,
        "  passages  ",
        (f"{chunks.encoded:,} encoded", "bold"),
        f", {chunks.reused:,} reused, {chunks.total:,} in the index",
    )
    if "parameter" in report.ann or "declined" in report.ann:
        _print(console, "  search    ", ann_in_words(report.ann))
    failed = [problem for problem in report.problems if problem.failed]
    if failed:
        _print(console, ("  failed", "bold red"))
        for problem in failed[:MAX_FAILURES_SHOWN]:
            _print(console, "    ", (clean_line(short_path(problem.path)), PATH), f": {clean_line(problem.reason)}")
        if len(failed) > MAX_FAILURES_SHOWN:
            _print(console, f"    and {len(failed) - MAX_FAILURES_SHOWN:,} more; see them all with: semsearch list")
    _skipped(console, [problem for problem in report.problems if not problem.failed])
    if chunks.total:
        option = "" if index == DEFAULT_INDEX else f" --index {shlex.quote(index)}"
        _print(console, "Ask it something: ", (f'semsearch query "your question"{clean(option)}', "bold"))


def _skipped(console: Console, skipped: Sequence[Problem]) -> None:
    if not skipped:
        return
    _print(console, ("  skipped", "bold"))
    reasons = Counter(clean_line(problem.reason) for problem in skipped)
    for reason, count in reasons.most_common(MAX_REASONS_SHOWN):
        _print(console, f"    {count:>5,}  {reason}")
    if len(reasons) > MAX_REASONS_SHOWN:
        _print(console, f"           and {len(reasons) - MAX_REASONS_SHOWN} other reasons")


def failures(report: IndexReport) -> None:
    """Print the files that failed, on stderr."""
    console = open_console(stderr=True)
    for problem in report.problems:
        if problem.failed:
            _print(console, f"semsearch: {clean_line(short_path(problem.path))}: {clean_line(problem.reason)}")


def removal(report: RemoveReport) -> None:
    """Print what `remove` took out."""
    console = open_console()
    _print(
        console,
        f"{_number(report.documents, 'document')} and {_number(report.chunks, 'passage')} removed from ",
        (clean(short_path(report.index)), PATH),
    )
    for root in report.roots:
        _print(console, "no longer remembered: ", (clean_line(short_path(root)), PATH))


def _number(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def info(facts: IndexInfo | None, others: Sequence[Path], installation: Installation) -> None:
    """Print an index's facts, the other indexes, versions, and warnings."""
    console = open_console()
    if facts is None:
        _print(console, "There is no index here yet. Make one with: ", ("semsearch index FOLDER", "bold"))
    else:
        _facts(console, facts)
    if others:
        _print(console, ("other indexes", "bold"))
        for path in others:
            _print(console, "  ", (clean_line(short_path(path)), PATH))
    _print(console, ("versions", "bold"))
    for name, version in installation.versions.items():
        if version:
            _print(console, f"  {name:<22}{version}")
    for warning in installation.warnings:
        _print(console, ("warning: ", "bold red"), warning)


def _facts(console: Console, facts: IndexInfo) -> None:
    _print(console, (clean(short_path(facts.path)), PATH))
    rows = {
        "files": f"{facts.files:,}",
        "documents": f"{facts.documents:,}",
        "passages": f"{facts.chunks:,} ({facts.vectors:,} vectors)",
        "search": ann_in_words(facts.ann),
        "model": f"{facts.model} ({facts.dim} dimensions, {facts.pooling} pooling, {facts.max_tokens} tokens)",
        "precision": facts.precision,
        "weights": f"SHA-256 {facts.weights_sha256}",
        "size": f"{facts.size_bytes / 1e6:,.1f} MB, format {facts.format_version}",
        "created": facts.created,
        "updated": facts.updated,
        "ranking": _told_plan(facts.plan),
        "folders": "\n".join(short_path(root) for root in facts.roots) or "none remembered",
    }
    for name, value in rows.items():
        first, *more = clean(value).split("\n")
        _print(console, f"  {name:<11}{first}")
        for line in more:
            _print(console, f"  {'':<11}{line}")


def _told_plan(plan: Mapping[str, Any] | None) -> str:
    """How an index ranks, and how that came about."""
    if plan is None:
        return "the default"
    low, high = plan["interval"]
    how = "\n".join((f"tuned on {plan['tuned_on']}", f"nDCG@10 {plan['gain']:+.3f} ({low:+.3f} to {high:+.3f})"))
    return f"{plan_in_words(plan)}\n{how}, {plan['date']}"


def ann_in_words(ann: Mapping[str, Any]) -> str:
    """How vectors are searched, and how much of the nearest is found."""
    declined = ann.get("declined")
    if "parameter" not in ann:
        tried = f"; {_recall_in_words(declined)}, so it was not chosen" if declined else ""
        return f"{ann['kind']}, compares all vectors{tried}"
    short = ", less than was asked" if ann.get("recall", 1) < ann.get("asked", 0) else ""
    return f"{_recall_in_words(ann)}{short}"


def _recall_in_words(ann: Mapping[str, Any]) -> str:
    how = f"{ann['kind']} with {ann['parameter']} {ann['value']}" if "parameter" in ann else str(ann["kind"])
    if "recall" not in ann:
        return f"{how}, not measured yet"
    return f"{how} finds {ann['recall']:.1%} of the ten nearest (measured at {ann['measured_at']:,} vectors)"


def plan_in_words(plan: Mapping[str, Any]) -> str:
    """What a ranking plan says."""
    meaning, feedback = plan["dense_weight"], "on" if plan["feedback"] else "off"
    again = f"{plan['rerank_share']:.0%} of the score" if plan["rerank"] else "off"
    return f"meaning {meaning:.0%}, words {1 - meaning:.0%}; feedback {feedback}; reranking {again}"


def files(entries: Sequence[FileEntry]) -> None:
    """Print one line a file: status, number of passages, path, and the reason where it was left out."""
    console = open_console()
    for entry in entries:
        style = "red" if entry.status == "failed" else "dim" if entry.status == "skipped" else ""
        note = f": {clean_line(entry.reason)}" if entry.reason else ""
        path = clean_line(short_path(entry.path))
        _print(console, (f"{entry.status:<8}", style), f"{entry.chunks:>7,}  ", (path, PATH), note)
