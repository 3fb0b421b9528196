"""Many queries at once: an answer a line, from the service of the index where there is one, or from the index."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from semsearch.cli.output import echo_json
from semsearch.errors import InvalidInput
from semsearch.search_options import MAX_QUERY_CHARS

if TYPE_CHECKING:
    from semsearch.cli.asking import Question
    from semsearch.searching import Searcher

__all__ = ["answer_lines"]

BATCH = 256  # queries that are read before the first is answered
ASKED_AT_ONCE = 8  # of a service, which has to answer within a request's time


def answer_lines(question: Question, lines: BinaryIO, *, by_service: bool, device: str, reranker: str | None) -> bool:
    """Print the answer to each line, in order; whether any has a hit.

    Args:
        question: what is asked, but for its text.
        lines: a query each; an empty one has no hits.
        by_service: ask the service of the index, if there is one and as long as it answers.
        device: where the model runs otherwise.
        reranker: one, by name or folder.
    """
    is_found, searcher, n_lines = False, None, 0
    with ExitStack() as opened:
        while block := [line.decode("utf-8", errors="replace").strip() for line in islice(lines, BATCH)]:
            first_long = next((i for i, text in enumerate(block) if len(text) > MAX_QUERY_CHARS), None)
            n_lines, block = n_lines + len(block[:first_long]), block[:first_long]
            answers = _of_service(question, block) if by_service else None
            if answers is None:
                from semsearch.searching import Searcher

                by_service = False
                if searcher is None:
                    searcher = opened.enter_context(Searcher.open(question.index, device=device, reranker=reranker))
                answers = _of_index(searcher, question, block)
            for answer in answers:
                echo_json(answer)
                is_found = is_found or bool(answer["hits"])
            if first_long is not None:
                raise InvalidInput(f"line {n_lines + 1} has more than {MAX_QUERY_CHARS:,} characters; shorten it")
    return is_found


def _of_service(question: Question, texts: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """What the service answers to each; None where there is none, or it does not answer them all."""
    from semsearch.answers import query_answer
    from semsearch.cli.asking import ask_service_many
    from semsearch.server.settings import MAX_HITS_OF_BATCH
    from semsearch.store.files import index_path

    mode, n = question.options.get("mode", "hybrid"), min(ASKED_AT_ONCE, MAX_HITS_OF_BATCH // question.options["k"])
    asked = [text for text in texts if text]
    found: list[Mapping[str, Any]] = []
    for start in range(0, len(asked), n):
        answers = ask_service_many(question, asked[start : start + n])
        if answers is None:
            return None
        found += answers
    in_turn = iter(found)
    nothing = (query_answer(text, index_path(question.index), mode, 0.0, [], None) for text in texts if not text)
    return [next(in_turn) if text else next(nothing) for text in texts]


def _of_index(searcher: Searcher, question: Question, texts: Sequence[str]) -> list[Mapping[str, Any]]:
    """What the index answers to each; `elapsed_ms` is their mean."""
    from semsearch.answers import explained, query_answer, relevant

    mode = question.options.get("mode", "hybrid")
    start = time.perf_counter()
    found = searcher.search_many(texts, **question.options)
    mean_ms = 1000 * (time.perf_counter() - start) / max(1, sum(map(bool, texts)))
    answers: list[Mapping[str, Any]] = []
    for text, hits in zip(texts, found, strict=True):
        shown, best = relevant(hits, question.min_probability)
        matches = explained(searcher.explain, text, shown, mode) if question.explain else None
        answers.append(query_answer(text, searcher.path, mode, mean_ms, shown, best, matches))
    return answers
