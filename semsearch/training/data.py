"""Where training examples come from: pairs in a file, judged collections, judged indexes."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.evaluation import Qrels, judged_names, read_collection, read_qrels, read_queries
from semsearch.store.files import index_path
from semsearch.store.metadata import Store
from semsearch.store.vectors import ShardReader
from semsearch.types import FloatArray

__all__ = ["KnownVectors", "TrainingData", "read_beir", "read_index", "read_judged_index", "read_pairs"]


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """Vectors that an index holds: float32 (n, dim) rows for the int64 (n,) positions of passages."""

    model: str
    fingerprint: str
    positions: list[int]
    rows: FloatArray


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Queries, passages, and which of them belong together.

    Attributes:
        source: where it came from, in words for a model card.
        queries: text by query id.
        texts: the passages; a passage is known by its position.
        contexts: title and headings around each passage, "" where there are none.
        owners: what is judged: each passage's document, or the passage itself.
        qrels: grades > 0 by query id and owner.
        negatives: owners that are known not to answer, by query id.
        vectors: of passages whose text is as an index encoded it.
    """

    source: str
    queries: Mapping[str, str]
    texts: Sequence[str]
    contexts: Sequence[str]
    owners: Sequence[str]
    qrels: Mapping[str, Mapping[str, int]]
    negatives: Mapping[str, Sequence[str]] = field(default_factory=dict)
    vectors: KnownVectors | None = None

    def passages_of(self) -> dict[str, list[int]]:
        """Positions of the passages of each owner."""
        places: dict[str, list[int]] = {}
        for position, owner in enumerate(self.owners):
            places.setdefault(owner, []).append(position)
        return places

    def digest(self) -> str:
        """SHA-256 of all that decides what is learnt, in hex."""
        texts = hashlib.sha256()
        for text in self.texts:
            texts.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
        judged = {q: dict(sorted(grades.items())) for q, grades in sorted(self.qrels.items())}
        rest = [dict(sorted(self.queries.items())), judged, list(self.owners), sorted(self.negatives.items())]
        texts.update(json.dumps(rest).encode())
        return texts.hexdigest()


def read_pairs(path: Path, *, limit: int = 0, seed: int = 0) -> TrainingData:
    """Pairs of a JSONL file, perhaps gzipped: `query`, `positive` (a text or a list), perhaps `negatives` (a list).

    Args:
        path: the file.
        limit: take so many lines, drawn at random; 0 for all.
        seed: of the draw.

    Raises:
        InvalidInput: the file cannot be read, or a line is not such a pair.
    """
    rows = list(_read_jsonl(path))
    if limit and len(rows) > limit:
        kept = np.random.default_rng(seed).choice(len(rows), size=limit, replace=False)
        rows = [rows[i] for i in sorted(kept.tolist())]
    query_ids: dict[str, str] = {}
    owners: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    negatives: dict[str, list[str]] = {}
    for line, row in rows:
        query, positives, wrong = row.get("query"), _texts(row.get("positive")), _texts(row.get("negatives", []))
        if not isinstance(query, str) or not query.strip() or not positives or wrong is None:
            raise InvalidInput(
                f'{path}, line {line}: not a pair. Each line is like {{"query": "a question", "positive": "a passage '
                'that answers it", "negatives": ["one that does not"]}}; negatives may be missing'
            )
        key = query_ids.setdefault(query, f"q{len(query_ids)}")
        for text in positives:
            qrels.setdefault(key, {})[owners.setdefault(text, f"p{len(owners)}")] = 1
        negatives.setdefault(key, []).extend(owners.setdefault(text, f"p{len(owners)}") for text in wrong)
    if not query_ids:
        raise InvalidInput(f"{path} holds no pairs")
    clean = {key: [owner for owner in wrong if owner not in qrels[key]] for key, wrong in negatives.items() if wrong}
    return TrainingData(
        source=f"{len(rows)} pairs of the file {path.name}",
        queries={key: text for text, key in query_ids.items()},
        texts=list(owners),
        contexts=[""] * len(owners),
        owners=list(owners.values()),
        qrels=qrels,
        negatives=clean,
    )


def read_beir(folder: Path, split: str, *, limit: int = 0, seed: int = 0) -> TrainingData:
    """A collection in BEIR's layout; a document with its title is one passage, read up to the model's limit.

    Raises:
        InvalidInput: a file is missing or cannot be read, or nothing is judged relevant.
    """
    collection = read_collection(folder, split)
    documents = list(collection.documents())
    return _judged(
        f"the {split} split of the collection {collection.name}",
        collection.queries,
        texts=[document.text for document in documents],
        contexts=[""] * len(documents),  # the title is the beginning of the text
        owners=[document.id for document in documents],
        qrels=collection.qrels,
        limit=limit,
        seed=seed,
    )


def read_judged_index(index: str | Path, queries: Path, qrels: Path, *, limit: int = 0, seed: int = 0) -> TrainingData:
    """The passages of an index with queries (`_id`, `text` a line) and judgments of its documents.

    Judgments name documents by their id, as `semsearch list` shows it, or by the end of their path: `guide/start.md`.

    Raises:
        InvalidInput: a file cannot be read, or names no document of the index.
        IndexNotFound, IndexCorrupt: as the index says.
    """
    data, sources = _read_passages(index)
    judged = read_qrels(qrels)
    names = judged_names({name for grades in judged.values() for name in grades}, sources)
    return _judged(
        f"{data.source}, judged by {qrels.name}",
        read_queries(queries),
        texts=data.texts,
        contexts=data.contexts,
        owners=[names.of.get(owner, owner) for owner in data.owners],
        qrels=judged,
        limit=limit,
        seed=seed,
        vectors=data.vectors,
    )


def read_index(index: str | Path) -> TrainingData:
    """The passages of an index and their vectors, without queries; each passage is owned by its document.

    Raises:
        IndexNotFound: there is none.
        IndexCorrupt: its files cannot be read.
        InvalidInput: it holds no passages.
    """
    return _read_passages(index)[0]


def _read_passages(index: str | Path) -> tuple[TrainingData, list[tuple[str, str]]]:
    """What `read_index` gives, and (id, source) of every document."""
    store = Store(index_path(index))
    try:
        with store.snapshot() as meta:
            rows = store.query(
                "SELECT d.key, d.title, c.heading, c.text, c.vector_id, d.source FROM chunks c JOIN documents d "
                "ON d.id = c.document_id WHERE d.visible = 1 ORDER BY c.id"
            )
            model = meta["model"]
            if not rows:
                raise InvalidInput(f"the index {store.path} holds no passages; index some documents first")
            shards = ShardReader(store.path / "vectors", store.shard_names(model["fingerprint"]), model["dim"])
            vectors = shards.get(np.array([row[4] for row in rows], dtype=np.int64))
    finally:
        store.close()
    data = TrainingData(
        source=f"the index {store.path.name} ({len(rows)} passages)",
        queries={},
        texts=[row[3] for row in rows],
        contexts=[" > ".join(part for part in row[1:3] if part) for row in rows],
        owners=[row[0] for row in rows],
        qrels={},
        vectors=KnownVectors(model["name"], model["fingerprint"], list(range(len(rows))), vectors),
    )
    return data, list(dict.fromkeys((row[0], row[5]) for row in rows))


def _judged(
    source: str,
    queries: Mapping[str, str],
    *,
    texts: Sequence[str],
    contexts: Sequence[str],
    owners: Sequence[str],
    qrels: Qrels,
    limit: int,
    seed: int,
    vectors: KnownVectors | None = None,
) -> TrainingData:
    known = set(owners)
    judged = {key: {o: grade for o, grade in grades.items() if o in known} for key, grades in qrels.items()}
    grades = {key: {o: grade for o, grade in found.items() if grade > 0} for key, found in judged.items()}
    wrong = {key: [o for o, grade in found.items() if grade <= 0] for key, found in judged.items()}
    ids = sorted(key for key in grades if grades[key] and queries.get(key, "").strip())
    if not ids:
        raise InvalidInput(f"{source}: no query has a relevant document; do queries and judgments use the same ids?")
    if limit and len(ids) > limit:
        ids = sorted(np.random.default_rng(seed).choice(np.array(ids), size=limit, replace=False).tolist())
    return TrainingData(
        source=source,
        queries={key: queries[key] for key in ids},
        texts=texts,
        contexts=contexts,
        owners=owners,
        qrels={key: grades[key] for key in ids},
        negatives={key: wrong[key] for key in ids if wrong[key]},
        vectors=vectors,
    )


def _texts(value: Any) -> list[str] | None:
    """A text or a list of texts as a list; None for anything else."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return None
    return [item for item in items if item.strip()]


def _open_text(path: Path) -> TextIO:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8")
        return path.open(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not blank."""
    with _open_text(path) as stream:
        number = 0
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("not an object")
                    yield number, row
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise InvalidInput(f"{path}, line {number}: cannot be read as JSON lines ({error})") from error
