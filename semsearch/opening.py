"""One state of an index and the files that belong to it, opened once and again only when a writer has published."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.ranking.plan import RankingPlan
from semsearch.store.checksums import hash_key, text_hash
from semsearch.store.derived import LEXICAL, first_damage
from semsearch.store.files import command
from semsearch.store.lexical import LexicalIndex
from semsearch.store.metadata import Store
from semsearch.store.nearest import open_nearest
from semsearch.store.selection import Selector
from semsearch.store.tokens import TokenReader
from semsearch.store.vectors import ShardReader
from semsearch.types import FloatArray, VectorIndex, storable

__all__ = ["IndexState", "OpenIndex"]

OPEN_ATTEMPTS = 5  # a file named by a state of the index may be gone when a writer has just replaced it


@dataclass(frozen=True, slots=True)
class IndexState:
    """The files that belong to one state of an index. They answer for it while `OpenIndex.state` is held."""

    generation: int
    store: Store
    lexical: LexicalIndex
    vectors: ShardReader
    ann: VectorIndex
    n_chunks: int
    n_documents: int
    selector: Selector
    tokens: TokenReader
    hash_key: bytes  # of the model, as for `text_hash`

    def codes_of(self, passages: Iterable[str]) -> dict[str, bytes]:
        """What the index keeps of the tokens of passages, by text; those of which it keeps nothing are left out."""
        hashes = {text_hash(text, self.hash_key): text for text in passages}
        return {hashes[found]: codes for found, codes in self.tokens.get(hashes).items()}


class OpenIndex:
    """An index opened to be read. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._state: IndexState | None = None
        self._tokens = TokenReader(store.path)

    @property
    def path(self) -> Path:
        """The folder of the index."""
        return self._store.path

    def close(self) -> None:
        """Let go of the index."""
        self._store.close()
        self._tokens.close()

    def is_in_place(self) -> bool:
        """Whether the index that was opened still lies at its path, and no other."""
        return self._store.is_in_place()

    def model(self) -> dict[str, Any]:
        """What is known about the model that the index was built with."""
        with self._store.snapshot() as meta:
            return dict(meta["model"])

    def plan(self) -> RankingPlan:
        """How its searches rank: as it was tuned, or by default."""
        with self._store.snapshot() as meta:
            return RankingPlan.from_dict(meta.get("plan"))

    def known_vectors(self, passages: Iterable[str]) -> dict[str, FloatArray]:
        """Vectors (dim,) of the index's model that it has for passages, by text; also of those that were deleted.

        A document that is written with one of these passages shares its vector.
        """
        with self._store.snapshot() as meta:
            fingerprint, dim = meta["model"]["fingerprint"], meta["model"]["dim"]
            hashes = {text_hash(storable(text), hash_key(fingerprint)): text for text in passages}
            ids = self._store.vector_ids(hashes)
            if not ids:
                return {}
            shards = ShardReader(self.path / "vectors", self._store.shard_names(fingerprint), dim)
            rows = shards.get(np.array(list(ids.values()), dtype=np.int64))
        return {hashes[known]: row for known, row in zip(ids, rows, strict=True)}

    @contextlib.contextmanager
    def state(self) -> Iterator[IndexState]:
        """Hold one state of the index.

        Raises:
            IndexCorrupt: files of the index cannot be read.
        """
        with contextlib.ExitStack() as stack:
            for attempt in range(1, OPEN_ATTEMPTS + 1):
                meta = stack.enter_context(self._store.snapshot())
                try:
                    state = self._state_of(meta)
                    break
                except (FileNotFoundError, IndexCorrupt) as error:  # a writer may just have replaced it
                    stack.close()
                    if attempt == OPEN_ATTEMPTS and isinstance(error, FileNotFoundError):
                        raise self._damaged(f"{error.filename} is missing") from error
                    if attempt == OPEN_ATTEMPTS:
                        raise
            yield state

    def _state_of(self, meta: Mapping[str, Any]) -> IndexState:
        with self._lock:
            if self._state is None or self._state.generation != meta["generation"]:
                self._state = self._open(meta)
            return self._state

    def _damaged(self, what: str) -> IndexCorrupt:
        return IndexCorrupt(f"{what}. Mend it with: {command('verify --repair', self.path)}")

    def _open(self, meta: Mapping[str, Any]) -> IndexState:
        store, model = self._store, meta["model"]
        lexical = str(meta.get("lexical", LEXICAL))
        for part in (str(meta["ann"]["file"]), lexical):
            known = store.checksums(part)
            damaged = first_damage(self.path, known) if known else part
            if damaged is not None:
                raise self._damaged(f"{damaged} in {self.path} is not what was written")
        shards = ShardReader(self.path / "vectors", store.shard_names(model["fingerprint"]), model["dim"])
        index = open_nearest(self.path, meta["ann"], shards)
        n_chunks, _, n_documents, _ = store.counts()
        words = LexicalIndex(self.path / lexical)
        return IndexState(
            generation=meta["generation"],
            store=store,
            lexical=words,
            vectors=shards,
            ann=index,
            n_chunks=n_chunks,
            n_documents=n_documents,
            selector=Selector(store, n_documents, n_chunks),
            tokens=self._tokens,
            hash_key=hash_key(model["fingerprint"]),
        )
