"""Vectors of real passages and questions, and more passages made of them, for benchmarks of vector search.

Passages are those of the documents and collections under SEMSEARCH_SHARED, cut and encoded as `build_index` does it,
once: the index is kept. Questions are those of the collections and of the training pairs, none of which is a passage.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import _quality
import numpy as np

from semsearch import Document, build_index, load_embedder
from semsearch.evaluation import read_collection
from semsearch.staging import encode_stretches
from semsearch.store.metadata import Store
from semsearch.store.nearest import SAMPLE_SIZE
from semsearch.store.vectors import ShardReader
from semsearch.types import Embedder, FloatArray

CACHE = Path(__file__).parent / "cache"
INDEX = CACHE / "passages-index"
NOISE = 0.03  # of each component, of a unit vector: the copy's cosine to its original is 0.86


def real_passages(embedder: Embedder | None = None) -> FloatArray:
    """float32 (n, dim) unit rows, one for each distinct passage, in an order that mixes their sources."""
    if not (INDEX / "store.db").exists():
        data = _data()
        build_index(_documents(data), index=INDEX, embedder=embedder)
        build_index(data / "docs", index=INDEX, embedder=embedder)
    store = Store(INDEX)
    with store.snapshot() as meta:
        ids = np.array(store.query("SELECT DISTINCT vector_id FROM chunks"), dtype=np.int64).ravel()
        names = store.shard_names(meta["model"]["fingerprint"])
        rows = ShardReader(INDEX / "vectors", names, meta["model"]["dim"]).get(np.sort(ids))
    store.close()
    return rows[np.random.default_rng(0).permutation(len(rows))]


def real_questions(n: int) -> FloatArray:
    """float32 (n, dim) unit rows of questions that people asked, drawn from all sources."""
    kept = CACHE / "questions.npy"
    if not kept.exists():
        data = _data()
        texts = {t for folder in _folders(data) for t in read_collection(folder, _a_split(folder)).queries.values()}
        texts.update(row["query"] for row in _pairs(data))
        chosen = random.Random(0).sample(sorted(texts), 4_000)
        CACHE.mkdir(exist_ok=True)
        np.save(kept, load_embedder(precision="full").embed_queries(chosen))
    return np.load(kept)[:n]


def real_stretches() -> FloatArray:
    """float32 (n, dim) unit rows of what an index measures recall on: a few tokens in a row of some passages."""
    kept = CACHE / "stretches.npy"
    if not kept.exists():
        store = Store(INDEX)
        texts = [row[0] for row in store.query("SELECT text FROM chunks ORDER BY id")]
        store.close()
        chosen = random.Random(0).sample(texts, SAMPLE_SIZE)
        np.save(kept, encode_stretches(load_embedder(precision="full"), chosen))
    return np.load(kept)


def extended(rows: FloatArray, n: int) -> FloatArray:
    """The first n of the rows or, where these are fewer, all of them and moved copies of randomly chosen ones.

    Copies lie around their original as near-identical passages would, so they make clusters that real text does not
    have as many of, and an original's neighbours are mostly its own copies.
    """
    if n <= len(rows):
        return rows[:n]
    rng = np.random.default_rng(1)
    out = np.empty((n, rows.shape[1]), dtype=np.float32)
    out[: len(rows)] = rows
    for first in range(len(rows), n, 50_000):
        last = min(first + 50_000, n)
        copies = rows[rng.integers(len(rows), size=last - first)]
        copies = copies + NOISE * rng.standard_normal(copies.shape, dtype=np.float32)
        out[first:last] = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    return out


def _data() -> Path:
    data = _quality.shared_data()
    if data is None:
        raise SystemExit("set SEMSEARCH_SHARED to the folder that holds data/beir, data/train and data/docs")
    return data


def _folders(data: Path) -> list[Path]:
    return sorted(path for path in (data / "beir").iterdir() if path.is_dir())


def _a_split(folder: Path) -> str:
    return sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))[-1]


def _pairs(data: Path) -> Iterator[dict[str, str]]:
    for path in sorted((data / "train").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _documents(data: Path) -> Iterator[Document]:
    for folder in _folders(data):
        for document in read_collection(folder, _a_split(folder)).documents():
            yield replace(document, id=f"{folder.name}/{document.id}")
    passages = {text for row in _pairs(data) for text in (row["positive"], *row.get("negatives", []))}
    for i, text in enumerate(sorted(passages)):
        yield Document(id=f"pairs/{i}", text=text)
