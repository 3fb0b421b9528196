"""Reports on the terminal. In a pipe the same text, without colour or wrapping."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.style import Style
from rich.text import Text

from semsearch.cli.options import DEFAULT_INDEX
from semsearch.cli.output import clean, clean_line, number, short_path

if TYPE_CHECKING:
    from semsearch.cli.environment import Installation
    from semsearch.reports import IndexReport, Problem, RemoveReport
    from semsearch.store.info import FileEntry, IndexInfo

__all__ = [
    "ann_in_words",
    "failures",
    "files",
    "index_report",
    "info",
    "open_console",
    "plan_in_words",
    "print_line",
    "removal",
]

MAX_FAILURES_SHOWN = 20
MAX_REASONS_SHOWN = 10
# The colour of grep, which the eye knows.
PATH = "magenta"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave closed pipes to `Door`: they are not an error, as rich has it."""
        raise BrokenPipeError


def open_console(*, stderr: bool = False) -> Console:
    """A console that prints texts as they are: no markup, no emoji names, and no colour under NO_COLOR."""
    if os.environ.get("NO_COLOR"):
        return _Console(stderr=stderr, color_system=None, highlight=False, markup=False, emoji=False)
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_line(console: Console, *parts: str | tuple[str, str | Style]) -> None:
    """Print one line of (text, style) parts as it is; the terminal folds it where it must."""
    console.print(Text.assemble(*parts), soft_wrap=True)


def index_report(report: IndexReport, index: str) -> None:
    """Print what a run of `index` did, and how to go on."""
    console = open_console()
    n, chunks = report.files, report.chunks
    how = f"  in {report.elapsed_s:.1f} s, with {clean_line(report.model)}"
    print_line(console, (clean_line(short_path(report.index)), PATH), how)
    counts = {"unchanged": n.unchanged, "removed": n.removed, "skipped": n.skipped, "failed": n.failed}
    rest = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
    print_line(console, "  files     ", (f"{n.indexed:,} indexed", "bold"), rest)
    print_line(
        console,
        "  passages  ",
        (f"{chunks.encoded:,} encoded", "bold"),
        f", {chunks.reused:,} reused, {chunks.total:,} in the index",
    )
    if "parameter" in report.ann or "declined" in report.ann:
        print_line(console, "  search    ", ann_in_words(report.ann))
    failed = [problem for problem in report.problems if problem.failed]
    if failed:
        print_line(console, ("  failed", "bold red"))
        for problem in failed[:MAX_FAILURES_SHOWN]:
            print_line(console, "    ", (clean_line(short_path(problem.path)), PATH), f": {clean_line(problem.reason)}")
        if len(failed) > MAX_FAILURES_SHOWN:
            print_line(console, f"    and {len(failed) - MAX_FAILURES_SHOWN:,} more; see them all with: semsearch list")
    if not n.seen:
        print_line(
            console, "  There was nothing to read; hidden and ignored files are left out, and what no --glob asks for"
        )
    _skipped(console, [problem for problem in report.problems if not problem.failed])
    if chunks.total:
        option = "" if index == DEFAULT_INDEX else f" --index {shlex.quote(index)}"
        print_line(console, "Ask it something: ", (f'semsearch query "your question"{clean(option)}', "bold"))


def _skipped(console: Console, skipped: Sequence[Problem]) -> None:
    if not skipped:
        return
    print_line(console, ("  skipped", "bold"))
    reasons = Counter(clean_line(problem.reason) for problem in skipped)
    for reason, count in reasons.most_common(MAX_REASONS_SHOWN):
        print_line(console, f"    {count:>5,}  {reason}")
    if len(reasons) > MAX_REASONS_SHOWN:
        print_line(console, f"           and {len(reasons) - MAX_REASONS_SHOWN} other reasons")


def failures(report: IndexReport) -> None:
    """Print the files that failed, on stderr."""
    console = open_console(stderr=True)
    for problem in report.problems:
        if problem.failed:
            print_line(console, f"semsearch: {clean_line(short_path(problem.path))}: {clean_line(problem.reason)}")


def removal(report: RemoveReport) -> None:
    """Print what `remove` took out."""
    console = open_console()
    print_line(
        console,
        f"{number(report.documents, 'document')} and {number(report.chunks, 'passage')} removed from ",
        (clean(short_path(report.index)), PATH),
    )
    for root in report.roots:
        print_line(console, "no longer remembered: ", (clean_line(short_path(root)), PATH))


def info(facts: IndexInfo | None, others: Sequence[Path], installation: Installation) -> None:
    """Print an index's facts, the other indexes, versions, and warnings."""
    console = open_console()
    if facts is None:
        print_line(console, "There is no index here yet. Make one with: ", ("semsearch index FOLDER", "bold"))
    else:
        _facts(console, facts)
    if others:
        print_line(console, ("other indexes", "bold"))
        for path in others:
            print_line(console, "  ", (clean_line(short_path(path)), PATH))
    print_line(console, ("versions", "bold"))
    for name, version in installation.versions.items():
        if version:
            print_line(console, f"  {name:<22}{version}")
    for warning in installation.warnings:
        print_line(console, ("warning: ", "bold red"), warning)


def _facts(console: Console, facts: IndexInfo) -> None:
    print_line(console, (clean(short_path(facts.path)), PATH))
    rows = {
        "files": f"{facts.files:,}",
        "documents": f"{facts.documents:,}",
        "passages": f"{facts.chunks:,} ({facts.vectors:,} vectors)",
        "search": ann_in_words(facts.ann),
        "model": f"{facts.model} ({facts.dim} dimensions, {facts.pooling} pooling, {facts.max_tokens} tokens)",
        "precision": facts.precision,
        "weights": f"SHA-256 {facts.weights_sha256}",
        "size": f"{facts.size_bytes / 1e6:,.1f} MB, format {facts.format_version}{_told_tokens(facts.token_bytes)}",
        "created": facts.created,
        "updated": facts.updated,
        "ranking": _told_plan(facts.plan),
        "folders": "\n".join(short_path(root) for root in facts.roots) or "none remembered",
    }
    for name, value in rows.items():
        first, *more = clean(value).split("\n")
        print_line(console, f"  {name:<11}{first}")
        for line in more:
            print_line(console, f"  {'':<11}{line}")


def _told_tokens(n_bytes: int) -> str:
    return f", {n_bytes / 1e6:,.1f} MB of it vectors of tokens" if n_bytes else ""


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
        print_line(console, (f"{entry.status:<8}", style), f"{entry.chunks:>7,}  ", (path, PATH), note)
