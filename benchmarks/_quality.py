"""Retrieval collections in BEIR's layout, read from SEMSEARCH_SHARED, and nDCG@10 of vectors on them."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.types import FloatArray

CORE = ("nfcorpus", "cranfield", "cisi", "npl", "cosqa-code")
Encode = Callable[[list[str]], FloatArray]


def shared_data() -> Path | None:
    """The evaluation data, which is not part of the project."""
    shared = os.environ.get("SEMSEARCH_SHARED")
    return Path(shared) / "data" if shared else None


def ndcg_by_collection(
    data: Path, encode_documents: Encode, encoders_of_queries: Sequence[Encode]
) -> list[list[float]]:
    """nDCG@10 in points, a row for each encoder of queries, a column for each core collection."""
    scores: list[list[float]] = [[] for _ in encoders_of_queries]
    for name in CORE:
        ids, texts, queries, judged = _read(data / "beir" / name)
        documents = encode_documents(texts)
        for row, encode in zip(scores, encoders_of_queries, strict=True):
            vectors = encode([text for _, text in queries])
            row.append(100 * _ndcg(ids, documents, [key for key, _ in queries], vectors, judged))
    return scores


def _read(folder: Path) -> tuple[list[str], list[str], list[tuple[str, str]], dict[str, dict[str, int]]]:
    corpus = _lines(next(p for p in (folder / "corpus.jsonl.gz", folder / "corpus.jsonl") if p.exists()))
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        judged[query][document] = int(grade)
    judged = {query: grades for query, grades in judged.items() if max(grades.values()) > 0}
    queries = [(row["_id"], row["text"]) for row in _lines(folder / "queries.jsonl") if row["_id"] in judged]
    texts = [f"{row.get('title', '')} {row['text']}".strip() for row in corpus]
    return [row["_id"] for row in corpus], texts, queries, judged


def _lines(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode("utf-8").splitlines()]


def _ndcg(
    ids: list[str], documents: FloatArray, keys: list[str], queries: FloatArray, judged: dict[str, dict[str, int]]
) -> float:
    """Mean nDCG@10 with the grade as gain and log2(rank + 1) as discount, as trec_eval computes it."""
    best = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    found = []
    for key, row in zip(keys, best, strict=True):
        grades = judged[key]
        ideal = sorted((g for g in grades.values() if g > 0), reverse=True)[:10]
        gain = _discounted([max(0, grades.get(ids[i], 0)) for i in row])
        found.append(gain / _discounted(ideal))
    return float(np.mean(found))


def _discounted(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))
