"""Queries from nothing but an index: what titles, headings and sentences of its documents could be asked as."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from semsearch.chunking import split_sentences
from semsearch.errors import InvalidInput
from semsearch.training.data import KnownVectors, TrainingData

__all__ = ["make_hidden_queries", "make_pseudo_queries"]

TITLE_CHARS = (8, 200)  # shorter ones are labels ("FAQ"), longer ones are not titles
SENTENCE_CHARS = (40, 250)
MAX_UNDER_TITLE = 5  # passages that a title is taken to describe
CUT_SHARE = 0.9  # of the sentences that are taken out of their passage, so that words alone do not give it away
MIN_LEFT_CHARS = 80  # of a passage without its sentence; else it stays whole


def make_pseudo_queries(data: TrainingData, *, n_queries: int, seed: int, cut_share: float = CUT_SHARE) -> TrainingData:
    """Queries for the passages of an index, drawn at random, half of them titles and headings where there are enough.

    A title or heading asks for the passages under it. A sentence asks for the passage that it was taken from; mostly
    the passage is then without it, everywhere: in training, among the candidates and in the evaluation.

    Args:
        data: passages without queries; each becomes its own owner.
        n_queries: how many at most.
        seed: of every draw.
        cut_share: probability that a sentence is taken out of its passage.

    Raises:
        InvalidInput: the passages give fewer than two queries.
    """
    rng = np.random.default_rng(seed)
    owners = [str(position) for position in range(len(data.texts))]
    titles: dict[str, list[int]] = {}
    for position, context in enumerate(data.contexts):
        for title in context.split(" > "):
            if TITLE_CHARS[0] <= len(title.strip()) <= TITLE_CHARS[1]:
                titles.setdefault(title.strip(), []).append(position)
    described = [(title, places) for title, places in titles.items() if len(places) <= MAX_UNDER_TITLE]
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number in rng.permutation(len(described))[: n_queries // 2].tolist():
        title, places = described[number]
        queries[f"t{number}"], qrels[f"t{number}"] = title, {owners[p]: 1 for p in places}
    texts = list(data.texts)
    for position in rng.permutation(len(texts)).tolist():
        if len(queries) >= n_queries:
            break
        choices = list(_sentences(texts[position]))
        if not choices:
            continue
        start, end = choices[int(rng.integers(len(choices)))]
        sentence = texts[position][start:end].strip()
        rest = f"{texts[position][:start].rstrip()} {texts[position][end:].lstrip()}".strip()
        if rng.random() < cut_share and len(rest) >= MIN_LEFT_CHARS:
            texts[position] = rest
        queries[f"s{position}"], qrels[f"s{position}"] = sentence, {owners[position]: 1}
    if len(queries) < 2:
        raise InvalidInput(
            f"{data.source}: no queries can be made from it; passages need titles, headings, or at least two sentences"
        )
    n_titles = sum(key.startswith("t") for key in queries)
    return replace(
        data,
        source=f"{n_titles} titles and headings and {len(queries) - n_titles} sentences of {data.source}",
        queries=queries,
        texts=texts,
        owners=owners,
        qrels=qrels,
        vectors=_still_true(data, texts),
    )


def make_hidden_queries(data: TrainingData, *, n_queries: int, seed: int) -> TrainingData:
    """Queries to measure with: no passage that one asks for holds its words in one piece, nor do headings around it.

    As `make_pseudo_queries`, but title, heading or sentence are always taken out, and one that cannot be is not asked:
    because little of the passage would be left, or because another passage says the sentence too. Else BM25 would
    seem better than it is for people, who do not know the words of what they look for.

    Raises:
        InvalidInput: the passages give fewer than two queries.
    """
    made = make_pseudo_queries(data, n_queries=2 * n_queries, seed=seed, cut_share=0.0)
    titles, sentences = ([key for key in made.queries if key.startswith(kind)] for kind in "ts")
    texts, contexts, everything = list(data.texts), list(data.contexts), "\n".join(data.texts)
    kept: dict[str, str] = {}
    for key in (key for pair in itertools.zip_longest(titles, sentences) for key in pair if key is not None):
        query, places = made.queries[key], [int(owner) for owner in made.qrels[key]]
        left = {place: _without(texts[place], query) for place in places}
        n_here = sum(data.texts[place].count(query) for place in places)
        is_elsewhere = key.startswith("s") and everything.count(query) > n_here
        if len(kept) < n_queries and not is_elsewhere and min(map(len, left.values())) >= MIN_LEFT_CHARS:
            kept[key] = query
            for place, text in left.items():
                texts[place] = text
                parts = (_without(part, query) for part in contexts[place].split(" > "))
                contexts[place] = " > ".join(part for part in parts if part)
    n_titles = sum(key.startswith("t") for key in kept)
    return replace(
        made,
        source=f"{n_titles} titles and headings and {len(kept) - n_titles} sentences taken out of {data.source}",
        queries=kept,
        texts=texts,
        contexts=contexts,
        qrels={key: made.qrels[key] for key in kept},
        vectors=_still_true(data, texts),
    )


def _without(text: str, query: str) -> str:
    """The text with no occurrence of the query, in whatever case."""
    return re.sub(rf"\s*{re.escape(query)}\s*", " ", text, flags=re.IGNORECASE).strip()


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Sentences fit to be queries, of a passage that has others too."""
    spans = split_sentences(text)
    if len(spans) > 1:
        yield from ((a, b) for a, b in spans if SENTENCE_CHARS[0] <= len(text[a:b].strip()) <= SENTENCE_CHARS[1])


def _still_true(data: TrainingData, texts: list[str]) -> KnownVectors | None:
    """The vectors of passages whose text has not changed."""
    known = data.vectors
    if known is None:
        return None
    kept = [row for row, position in enumerate(known.positions) if texts[position] == data.texts[position]]
    return replace(known, positions=[known.positions[row] for row in kept], rows=known.rows[kept])
