"""Kinds of vector index, from the write line to searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, remove
from semsearch.errors import InvalidInput
from semsearch.store.info import inspect_index
from tests.toy import ToyEmbedder


def corpus(n: int) -> list[Document]:
    words = np.random.default_rng(2).integers(300, size=(n, 6))
    return [Document(f"d{i}", " ".join(f"word{w}" for w in row) + f" only{i}") for i, row in enumerate(words)]


def test_an_index_of_another_kind_end_to_end(toy: ToyEmbedder) -> None:
    def index(source: object, **kind: Any) -> dict[str, Any]:
        return dict(build_index(source, embedder=toy, **kind).ann)  # type: ignore[call-overload,arg-type]

    documents = corpus(1_300)
    assert index(documents) == {"kind": "flat-f16"}
    n_encoded = toy.n_encoded
    told = index([], kind="hnsw", recall=0.9)
    assert told["kind"] == "hnsw-sq8" and told["recall"] >= 0.9 and toy.n_encoded == n_encoded
    assert inspect_index().ann == told and inspect_index().ann_kind == "hnsw-sq8"
    assert index([Document("new", "something entirely new")])["kind"] == "hnsw-sq8"  # remembered
    remove(["d7"])
    with Searcher.open(embedder=toy) as searcher:
        ids = [hit.document.id for hit in searcher.search(documents[8].text, k=100, mode="dense")]
        assert ids[0] == "d8" and "d7" not in ids and len(ids) == 100
        assert searcher.search("something new", mode="dense")[0].document.id == "new"
        assert searcher.search("only9")[0].document.id == "d9"
    assert index([], kind="flat")["kind"] == "flat-f16"
    assert index([], kind="ivfpq")["kind"] == "ivf-pq4"
    for wrong, match in (({"kind": "tree"}, "kind = 'tree'.*hnsw"), ({"recall": 1.5}, r"recall = 1\.5")):
        with pytest.raises(InvalidInput, match=match):
            index([], **wrong)
