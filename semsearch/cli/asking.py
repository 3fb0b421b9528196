"""A query's answer, from the index itself or from the service that has it open."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semsearch.cli.facets import Counts
    from semsearch.encoders.late_interaction import TokenMatch
    from semsearch.highlighting import Highlight
    from semsearch.search_options import SearchOptions
    from semsearch.types import Hit

__all__ = ["Answered", "Question", "ask_index", "ask_service", "ask_service_many"]


@dataclass(frozen=True, slots=True)
class Question:
    """What `semsearch query` is asked.

    Attributes:
        text: the query.
        index: as `--index` names it.
        options: as for `Searcher.search`.
        min_probability: as `answers.relevant` takes it.
        explain: whether to tell which words met.
        facets: fields whose values are to be counted.
    """

    text: str
    index: str
    options: SearchOptions
    min_probability: float | None
    explain: bool
    facets: Sequence[str]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer: as data, and what it takes to show it. `highlight` may be asked while the index is open."""

    path: Path
    data: Mapping[str, Any]
    hits: Sequence[Hit]
    best: float | None
    matches: Sequence[Sequence[TokenMatch]] | None
    counts: Counts
    highlight: Callable[[Sequence[Hit]], list[Highlight]]


def ask_index(question: Question, *, device: str, reranker: str | None, opened: ExitStack) -> Answered:
    """Search the index in this process; it is closed with `opened`. Errors as for `Searcher`."""
    from semsearch.answers import explained, facets_json, query_answer, relevant
    from semsearch.cli import facets
    from semsearch.searching import Searcher

    text, options = question.text, question.options
    searcher = opened.enter_context(Searcher.open(question.index, device=device, reranker=reranker))
    start = time.perf_counter()
    hits, best = relevant(searcher.search(text, **options), question.min_probability)
    elapsed_ms = 1000 * (time.perf_counter() - start)
    mode = options.get("mode", "hybrid")
    matches = explained(searcher.explain, text, hits, mode) if question.explain else None
    counts = facets.count(searcher, question.facets, options.get("where"))
    data = query_answer(text, searcher.path, mode, elapsed_ms, hits, best, matches)
    if counts:
        data["facets"] = facets_json(counts)
    return Answered(searcher.path, data, hits, best, matches, counts, lambda found: searcher.highlight(text, found))


def ask_service(question: Question, *, highlight: bool) -> Answered | None:
    """Ask the service of the index; None where there is none, or it does not answer this.

    Args:
        question: what is asked.
        highlight: whether `Answered.highlight` will be asked.
    """
    from semsearch.running import ask
    from semsearch.store.files import index_path

    path = index_path(question.index)
    data = ask(path, {**_asked(question), "q": question.text, "highlight": highlight})
    return _read(data, path) if data is not None else None


def ask_service_many(question: Question, texts: Sequence[str]) -> list[dict[str, Any]] | None:
    """What the service of the index answers to several queries; None where there is none, or it does not.

    Args:
        question: what is asked, but for its text.
        texts: queries that are not empty, as many as the service takes.
    """
    from semsearch.running import ask
    from semsearch.store.files import index_path

    path = index_path(question.index)
    data = ask(path, {**_asked(question), "queries": list(texts)})
    return [{**answer, "index": str(path)} for answer in data["answers"]] if data is not None else None


def _asked(question: Question) -> dict[str, Any]:
    """What the body of a request says beside the query."""
    return {
        **question.options,
        "min_probability": question.min_probability,
        "explain": question.explain,
        "facet": list(question.facets),
    }


def _span(match: dict[str, Any]) -> tuple[int, int] | None:
    return None if match["start"] is None else (match["start"], match["end"])


def _read(data: dict[str, Any], path: Path) -> Answered:
    """What a service answered, as the index would have."""
    from semsearch.answers import hit_from_json
    from semsearch.encoders.late_interaction import TokenMatch
    from semsearch.highlighting import Highlight
    from semsearch.store.selection import FacetCount

    hits = [hit_from_json(hit) for hit in data["hits"]]
    marks = [hit.pop("highlight", None) for hit in data["hits"]]
    matches = None
    if any("matches" in hit for hit in data["hits"]):
        matches = [
            [TokenMatch((0, 0), m["query"], _span(m), m["word"], m["cosine"]) for m in hit["matches"]]
            for hit in data["hits"]
        ]
    counts = {key: [FacetCount(**count) for count in found] for key, found in data.get("facets", {}).items()}

    def highlight(_: Sequence[Hit]) -> list[Highlight]:
        return [Highlight((m["start"], m["end"]), tuple((a, b) for a, b in m["words"])) for m in marks]

    return Answered(path, {**data, "index": str(path)}, hits, data["best_probability"], matches, counts, highlight)
