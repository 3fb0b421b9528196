"""Approximate vector search against an exact oracle, and how an index follows what the chunks hold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch.cli import options
from semsearch.errors import IndexCorrupt
from semsearch.staging import MAX_STRETCH, encode_stretches
from semsearch.store import nearest, recall
from semsearch.store.ann import FlatIndex, threads_for
from semsearch.store.approximate import RECIPES, ApproximateIndex, RescoredIndex
from semsearch.store.nearest import SearchKind, bring_up_to_date, open_nearest
from semsearch.store.vectors import ShardReader, write_shard
from semsearch.types import FloatArray, IntArray
from tests.toy import ToyEmbedder

DIM = 32
N = 3_000
KINDS = tuple(RECIPES)


def unit(rows: FloatArray) -> FloatArray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(n: int, seed: int) -> FloatArray:
    centres = np.random.default_rng(9).standard_normal((60, DIM))
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(60, size=n)] + 0.7 * rng.standard_normal((n, DIM)))


QUERIES = clustered(100, seed=5)


@pytest.fixture
def shards(tmp_path: Path) -> ShardReader:
    """Twice N vectors with ids 5, 8, 11, ..."""
    ids = np.arange(2 * N, dtype=np.int64) * 3 + 5
    write_shard(tmp_path / "vectors", "000000", ids, clustered(2 * N, seed=1))
    return ShardReader(tmp_path / "vectors", ["000000"], DIM)


def exact(ids: IntArray, shards: ShardReader, queries: FloatArray, k: int = 10) -> list[list[int]]:
    scores = queries @ shards.get(ids).T
    return [ids[np.lexsort((ids, -row))[:k]].tolist() for row in scores]


def share_found(index: Any, ids: IntArray, shards: ShardReader, queries: FloatArray = QUERIES) -> float:
    found = index.search(queries, 10).ids
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact(ids, shards, queries), found, strict=True)]))


def built(kind: str, ids: IntArray, shards: ShardReader) -> ApproximateIndex:
    index = ApproximateIndex.train(RECIPES[kind], shards.get(ids), len(ids))
    index.add(ids, shards.get(ids))
    return index


def keep(
    folder: Path, ids: IntArray, shards: ShardReader, before: dict[str, Any], kind: str, asked: float = 0.95
) -> dict[str, Any]:
    generation = len(list(folder.glob("ann-*")))
    return bring_up_to_date(
        folder, f"ann-{generation:06d}.faiss", ids, shards, before, SearchKind(kind, asked), lambda: QUERIES
    )


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_nearest_are_found_with_exact_scores(kind: str, shards: ShardReader) -> None:
    ids = shards.ids[:N]
    index = RescoredIndex(built(kind, ids, shards), shards)
    assert len(index) == N and share_found(index, ids, shards) > 0.98
    found = index.search(QUERIES, 10)
    assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32
    for query, row, scores in zip(QUERIES, found.ids, found.scores, strict=True):
        assert scores == pytest.approx(shards.get(row) @ query, abs=1e-6) and (np.diff(scores) <= 0).all()
    assert index.search(QUERIES[:2], N + 5).ids.shape == (2, N + 5)
    assert (index.search(QUERIES[:2], 300).ids >= 0).all()  # however narrow the search, as many as are asked for


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_removed_never_comes_back(kind: str, shards: ShardReader, tmp_path: Path) -> None:
    ids = shards.ids[:N]
    index = built(kind, ids, shards)
    gone = np.unique(np.array(exact(ids, shards, QUERIES[:30], 3)))
    kept = np.setdiff1d(ids, gone)
    index.remove(gone)
    index.save(tmp_path / "a.faiss")
    mapped = ApproximateIndex.load(RECIPES[kind], tmp_path / "a.faiss", DIM)
    changeable = ApproximateIndex.load(RECIPES[kind], tmp_path / "a.faiss", DIM, to_change=True)
    for each in (index, mapped, changeable):
        assert len(each) == len(kept) and each.n_dead == len(gone) and np.array_equal(np.sort(each.ids), kept)
        assert not np.isin(each.search(QUERIES, 1_000).ids, gone).any()
        assert share_found(RescoredIndex(each, shards), kept, shards) > 0.97
    changeable.add(gone[:1], shards.get(gone[:1]))  # its text came back
    found = changeable.search(shards.get(gone[:1]), 10).ids[0]
    assert found[0] == gone[0] and len(set(found)) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_search_among_allowed_ids(kind: str, shards: ShardReader) -> None:
    ids = shards.ids[:N]
    index = built(kind, ids, shards)
    index.remove(ids[::10])
    found = index.search(QUERIES, 10, ids[::5]).ids
    assert np.isin(found[found >= 0], np.setdiff1d(ids[::5], ids[::10])).all() and (found >= 0).any(axis=1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_follows_whatever_comes_and_goes(kind: str, shards: ShardReader, tmp_path: Path) -> None:
    rng, before = np.random.default_rng(3), {}
    for size in (1_500, 1_600, 1_300, 2_900, 2_850, 800, 2_000):
        ids = np.sort(rng.choice(shards.ids, size, replace=False))
        before = keep(tmp_path, ids, shards, before, kind)
        index = open_nearest(tmp_path, before, shards)
        assert before["kind"] == (RECIPES[kind].name if size >= nearest.MIN_APPROXIMATE else FlatIndex.kind)
        found = index.search(QUERIES, 10).ids
        assert len(index) == size and np.isin(found, ids).all() and share_found(index, ids, shards) > 0.94


@pytest.mark.parametrize("kind", KINDS)
def test_few_changes_change_the_index_and_many_build_it_anew(
    kind: str, shards: ShardReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_trained = 0
    train = ApproximateIndex.train

    def counted(*arguments: Any) -> ApproximateIndex:
        nonlocal n_trained
        n_trained += 1
        return train(*arguments)

    monkeypatch.setattr(ApproximateIndex, "train", counted)
    steps = [
        (shards.ids[:1_200], 1, "built"),
        (shards.ids[:1_212], 1, "added to"),
        (shards.ids[100:1_212], 1, "a twelfth removed"),
        (shards.ids[400:1_212], 2, "more than a fifth removed"),
        (shards.ids[400:1_212], 2, "nothing"),
        (shards.ids[:4_000], 3, "four times as many as it was trained for"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(nearest, "MIN_APPROXIMATE", 500)
        before: dict[str, Any] = {}
        for ids, expected, what in steps:
            now = keep(tmp_path, ids, shards, before, kind)
            assert (n_trained, now == before) == (expected, what == "nothing"), what
            before = now
            assert share_found(open_nearest(tmp_path, now, shards), ids, shards) > 0.94, what


def test_the_narrowest_search_that_finds_enough_is_chosen(shards: ShardReader, tmp_path: Path) -> None:
    ids = shards.ids[:N]
    about = {asked: keep(tmp_path, ids, shards, {}, "ivf", asked) for asked in (0.5, 0.98, 0.9999)}
    values = [about[asked]["value"] for asked in about]
    assert values == sorted(values) and values[0] < values[-1]
    for asked, facts in about.items():
        assert facts["recall"] >= asked == facts["asked"] and facts["measured_at"] == N
        measured = share_found(open_nearest(tmp_path, facts, shards), ids, shards)
        assert measured == pytest.approx(facts["recall"], abs=1e-9)
        narrower = [v for v in RECIPES["ivf"].values if v < facts["value"]]
        for value in narrower[-1:]:
            assert share_found(open_nearest(tmp_path, {**facts, "value": value}, shards), ids, shards) < asked
    wider = keep(tmp_path, ids, shards, about[0.5], "ivf", 0.9999)
    assert (wider["value"], wider["file"]) == (about[0.9999]["value"], about[0.5]["file"])


def test_recall_is_the_share_of_the_nearest_that_is_found(shards: ShardReader, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = shards.ids[:100]
    with monkeypatch.context() as patch:
        patch.setattr(recall, "BLOCK", 7)
        truth = recall.exact_neighbors(QUERIES, ids, shards)
    assert truth.tolist() == exact(ids, shards, QUERIES)
    half = FlatIndex(DIM)
    half.add(ids[::2], shards.get(ids[::2]))
    expected = np.mean([(np.isin(row, ids[::2])).mean() for row in truth])
    assert recall.recall(half, QUERIES, truth) == pytest.approx(expected)
    assert (recall.exact_neighbors(QUERIES, ids[:3], shards) < 0).sum(axis=1).tolist() == [7] * len(QUERIES)


def test_auto_compares_all_until_that_is_slow_and_declines_what_misses(
    shards: ShardReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = RECIPES[nearest.AUTO_KIND].name
    with monkeypatch.context() as patch:
        patch.setattr(nearest, "AUTO_MAX_EXACT", 2_000)
        few = keep(tmp_path, shards.ids[:2_000], shards, {}, "auto")
        assert few == {"kind": "flat-f16", "file": few["file"]}
        many = keep(tmp_path, shards.ids[:2_001], shards, few, "auto")
        assert many["kind"] == kind and many["recall"] >= 0.95
        assert keep(tmp_path, shards.ids[:1_900], shards, many, "auto")["kind"] == kind
        assert keep(tmp_path, shards.ids[:1_000], shards, many, "auto")["kind"] == "flat-f16"

        n_measured = 0
        real = nearest.narrow

        def misses(index: ApproximateIndex, *rest: Any) -> float:
            nonlocal n_measured
            n_measured += 1
            return min(real(index, *rest), 0.9)

        patch.setattr(nearest, "narrow", misses)
        declined = keep(tmp_path, shards.ids[:2_001], shards, few, "auto")
        assert (declined["kind"], declined["declined"]["kind"], declined["declined"]["recall"]) == (
            "flat-f16",
            kind,
            0.9,
        )
        again = keep(tmp_path, shards.ids[:2_500], shards, declined, "auto")
        assert again["kind"] == "flat-f16" and again["declined"] == declined["declined"] and n_measured == 1
        keep(tmp_path, shards.ids[:3_100], shards, again, "auto")
        assert n_measured == 2
        asked = keep(tmp_path, shards.ids[:3_100], shards, again, "hnsw")  # who asks for a kind gets it, and its recall
        assert (asked["kind"], asked["recall"]) == ("hnsw-sq8", 0.9) and "declined" not in asked


def test_without_a_sample_the_kind_stays(shards: ShardReader, tmp_path: Path) -> None:
    ids = shards.ids[:N]
    before = keep(tmp_path, ids, shards, {}, "hnsw")
    wanted = SearchKind("ivf")
    for live in (ids[50:], ids[1_500:]):  # changed, and built anew
        after = bring_up_to_date(tmp_path, "b.faiss", live, shards, before, wanted, None)
        assert (after["kind"], after["value"]) == ("hnsw-sq8", before["value"])
        assert share_found(open_nearest(tmp_path, after, shards), live, shards) > 0.94
    assert bring_up_to_date(tmp_path, "c.faiss", ids, shards, {}, wanted, None)["kind"] == "flat-f16"


def test_an_index_described_by_an_older_version_is_read(shards: ShardReader, tmp_path: Path) -> None:
    ids = shards.ids[:50]
    keep(tmp_path, ids, shards, {}, "flat")
    old = {"kind": "flat-f16", "file": "ann-000000.faiss"}
    assert share_found(open_nearest(tmp_path, old, shards), ids, shards) > 0.99  # f16
    assert keep(tmp_path, ids, shards, old, "auto") == old


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations(KINDS, 2)))
def test_a_file_of_another_kind_is_refused(kind: str, other: str, shards: ShardReader, tmp_path: Path) -> None:
    ids = shards.ids[:1_000]
    built(other, ids, shards).save(tmp_path / "a.faiss")
    with pytest.raises(IndexCorrupt, match=f"holds no {RECIPES[kind].name}"):
        ApproximateIndex.load(RECIPES[kind], tmp_path / "a.faiss", DIM)
    with pytest.raises(IndexCorrupt, match="32 dimensions, not 16"):
        ApproximateIndex.load(RECIPES[other], tmp_path / "a.faiss", 16)
    data = (tmp_path / "a.faiss").read_bytes()
    for cut in (0, 20, len(data) // 3, len(data) - 9):
        (tmp_path / "b.faiss").write_bytes(data[:cut])
        with pytest.raises(IndexCorrupt, match="damaged"):
            ApproximateIndex.load(RECIPES[other], tmp_path / "b.faiss", DIM)
    with pytest.raises(FileNotFoundError):
        ApproximateIndex.load(RECIPES[other], tmp_path / "c.faiss", DIM)


def test_a_sample_is_of_a_few_words_of_each_passage(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = [" ".join(f"w{i}x{j}" for j in range(40)) for i in range(50)] + ["short", ""]
    asked: list[str] = []
    monkeypatch.setattr(toy, "embed_queries", lambda texts: asked.extend(texts) or np.zeros((len(texts), 1)))
    assert len(encode_stretches(toy, passages)) == 52
    assert all(part in passage for part, passage in zip(asked, passages, strict=True))
    lengths = [len(part.split()) for part in asked[:50]]
    assert 1 <= min(lengths) < max(lengths) <= MAX_STRETCH and asked[50:] == ["short", ""]
    first, asked[:] = list(asked), []
    encode_stretches(toy, passages)
    assert asked == first


def test_the_command_line_knows_all_kinds() -> None:
    assert options.KINDS == nearest.KINDS


def test_one_query_is_searched_on_one_thread() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    for n_queries, expected in ((1, 1), (2, before)):
        with pytest.raises(ValueError, match="stop"), threads_for(n_queries):
            assert faiss.omp_get_max_threads() == expected
            raise ValueError("stop")
        assert faiss.omp_get_max_threads() == before
