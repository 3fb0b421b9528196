"""Shards and FAISS against plain numpy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsearch.errors import IndexCorrupt, IndexLocked, InvalidInput
from semsearch.store import ann, vectors
from semsearch.store.ann import FlatIndex
from semsearch.store.files import index_path, write_atomically, writer_lock
from semsearch.store.vectors import ShardReader, remove_unnamed, shard_files, write_shard
from semsearch.types import FloatArray, IntArray

DIM = 16


def unit_rows(n: int, seed: int = 0) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def exact(ids: IntArray, rows: FloatArray, query: FloatArray, k: int) -> list[tuple[int, float]]:
    """The oracle: of vectors in f16, as the index holds them."""
    scores = rows.astype(np.float16).astype(np.float32) @ query
    order = np.lexsort((ids, -scores))[:k]
    return [(int(ids[i]), float(scores[i])) for i in order]


@pytest.fixture
def built() -> tuple[IntArray, FloatArray, FlatIndex]:
    ids = np.arange(500, dtype=np.int64) * 3 + 7
    rows = unit_rows(500)
    index = FlatIndex(DIM)
    index.add(ids[:200], rows[:200])
    index.add(ids[200:], rows[200:])
    return ids, rows, index


def test_search_agrees_with_exact_inner_product(built: tuple[IntArray, FloatArray, FlatIndex]) -> None:
    ids, rows, index = built
    queries = unit_rows(20, seed=1)
    found = index.search(queries, 10)
    assert found.ids.dtype == np.int64 and found.scores.dtype == np.float32
    for i, query in enumerate(queries):
        expected = exact(ids, rows, query, 10)
        assert found.ids[i].tolist() == [e[0] for e in expected]
        assert found.scores[i] == pytest.approx([e[1] for e in expected], abs=1e-6)


def test_removed_vectors_are_not_found(built: tuple[IntArray, FloatArray, FlatIndex]) -> None:
    ids, rows, index = built
    index.remove(ids[1::2])
    index.remove(np.empty(0, dtype=np.int64))
    assert sorted(index.ids.tolist()) == ids[::2].tolist()
    query = unit_rows(1, seed=9)
    assert index.search(query, 9).ids[0].tolist() == [e[0] for e in exact(ids[::2], rows[::2], query[0], 9)]


def test_search_among_allowed_ids(built: tuple[IntArray, FloatArray, FlatIndex]) -> None:
    ids, rows, index = built
    allowed = ids[::7]
    query = unit_rows(1, seed=2)
    found = index.search(query, 5, allowed)
    assert found.ids[0].tolist() == [e[0] for e in exact(allowed, rows[::7], query[0], 5)]


def test_fewer_vectors_than_asked_for() -> None:
    index = FlatIndex(DIM)
    assert index.search(unit_rows(2), 3).ids.tolist() == [[-1] * 3] * 2
    rows = unit_rows(2)
    index.add(np.array([5, 4], dtype=np.int64), rows[[0, 0]])
    found = index.search(rows[:1], 4)
    assert found.ids.tolist() == [[4, 5, -1, -1]]  # a tie goes to the smaller id
    assert found.scores[0, 2:].tolist() == [-np.inf, -np.inf]


def test_saved_index_answers_the_same(built: tuple[IntArray, FloatArray, FlatIndex], tmp_path: Path) -> None:
    _, _, index = built
    index.save(tmp_path / "a.faiss")
    again, query = FlatIndex.load(tmp_path / "a.faiss", DIM), unit_rows(3, seed=4)
    assert len(again) == len(index)
    assert again.search(query, 9).ids.tolist() == index.search(query, 9).ids.tolist()


class OneGpu:
    """Stands in for faiss-gpu's functions: an index with the limits of one on a GPU and its own order of ties."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_room: bool = True) -> None:
        import faiss

        self.n_copies = 0
        self.n_searches = 0
        self.has_room = has_room
        self._busy = threading.Lock()
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", self._copied, raising=False)
        monkeypatch.setattr(ann, "GPU_MIN_VECTORS", 100)
        monkeypatch.setattr(ann, "GPU_MIN_COMPARED", 2_000)

    def _copied(self, resources: object, device: int, index: Any) -> OneGpu:
        import faiss

        if not self.has_room:
            raise RuntimeError("Error in void faiss::gpu::StandardGpuResourcesImpl::allocMemory: out of memory")
        assert device == 0
        self.n_copies += 1
        self._index = faiss.clone_index(index)
        return self

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        assert k <= 2_048 and self._busy.acquire(blocking=False)
        self.n_searches += 1
        scores, ids = self._index.search(queries, k)
        time.sleep(0.001)  # lets another thread come in
        self._busy.release()
        order = np.lexsort((-ids, -scores), axis=1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def test_a_gpu_gives_what_the_cpu_gives(
    built: tuple[IntArray, FloatArray, FlatIndex], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ids, rows, index = built
    index.add(np.array([1, 9_000], dtype=np.int64), rows[[3, 3]])  # ties
    ids, rows = np.append(ids, [1, 9_000]), np.concatenate((rows, rows[[3, 3]]))
    queries = np.concatenate((unit_rows(20, seed=1), rows[[3]]))
    on_cpu = index.search(queries, 10)
    gpu = OneGpu(monkeypatch)
    on_gpu = index.search(queries, 10)
    assert (gpu.n_copies, gpu.n_searches) == (1, 1)
    assert np.array_equal(on_gpu.ids, on_cpu.ids) and np.allclose(on_gpu.scores, on_cpu.scores, atol=1e-6)
    for i, query in enumerate(queries):
        expected = exact(ids, rows, query, 10)
        assert on_gpu.ids[i].tolist() == [e[0] for e in expected]
        assert on_gpu.scores[i] == pytest.approx([e[1] for e in expected], abs=1e-6)
    index.save(tmp_path / "a.faiss")  # the CPU's
    assert FlatIndex.load(tmp_path / "a.faiss", DIM).search(queries, 10).ids.tolist() == on_cpu.ids.tolist()


def test_what_a_gpu_cannot_do_is_done_on_the_cpu(
    built: tuple[IntArray, FloatArray, FlatIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, rows, index = built
    gpu, queries = OneGpu(monkeypatch), unit_rows(20, seed=1)
    assert index.search(queries, 5, ids[::7]).ids[0].tolist() == [
        e[0] for e in exact(ids[::7], rows[::7], queries[0], 5)
    ]
    index.add(np.arange(10_000, 12_500, dtype=np.int64), unit_rows(2_500, seed=3))
    assert (index.search(queries, 2_500).ids >= 0).all() and gpu.n_copies == 0
    assert (index.search(queries, 2_048).ids >= 0).all() and gpu.n_searches == 1


def test_the_gpu_waits_until_it_pays_and_forgets_what_changed(
    built: tuple[IntArray, FloatArray, FlatIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, rows, index = built
    gpu, query = OneGpu(monkeypatch), unit_rows(1, seed=2)
    for n_copies in (0, 0, 0, 1, 1):  # 2,000 vectors are compared with the fourth query
        index.search(query, 3)
        assert gpu.n_copies == n_copies
    best = index.search(query, 1).ids[0]
    index.remove(best)
    for _ in range(5):
        assert index.search(query, 1).ids[0].tolist() == [exact(ids[ids != best], rows[ids != best], query[0], 1)[0][0]]
    index.add(np.array([5], dtype=np.int64), query)
    assert [index.search(query, 1).ids[0, 0] for _ in range(5)] == [5] * 5 and gpu.n_copies == 3
    index.remove(ids[50:])
    n_searches = gpu.n_searches
    assert index.search(unit_rows(2_000), 1).ids[0, 0] == ids[0] and gpu.n_searches == n_searches  # too few vectors


def test_a_gpu_without_room_is_left_alone(
    built: tuple[IntArray, FloatArray, FlatIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, rows, index = built
    gpu, queries = OneGpu(monkeypatch, has_room=False), unit_rows(20, seed=1)
    for _ in range(2):
        assert index.search(queries, 3).ids[0].tolist() == [e[0] for e in exact(ids, rows, queries[0], 3)]
    gpu.has_room = True
    index.search(queries, 3)
    assert gpu.n_copies == 0


def test_threads_take_turns_on_a_gpu(
    built: tuple[IntArray, FloatArray, FlatIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, index = built
    queries = unit_rows(20, seed=1)
    expected = index.search(queries, 10).ids
    gpu = OneGpu(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: index.search(queries, 10).ids, range(40)))
    assert all(np.array_equal(ids, expected) for ids in found) and (gpu.n_copies, gpu.n_searches) == (1, 40)


def test_products_of_rows_in_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 7)
    rows = unit_rows(60)
    ids = np.arange(60, dtype=np.int64) * 2
    for name, (start, end) in {"000000": (0, 9), "000001": (9, 10), "000002": (10, 60)}.items():
        write_shard(tmp_path, name, ids[start:end], rows[start:end])
    shards = ShardReader(tmp_path, ["000000", "000001", "000002"], DIM)
    query = unit_rows(1, seed=2)[0]
    for chosen in ([], [0], [59], list(range(60)), [*range(3, 20, 2), 41, 58]):
        found = shards.products(ids[chosen], query)
        assert found.dtype == np.float32 and np.array_equal(found, shards.products(ids[chosen], query.astype(float)))
        np.testing.assert_allclose(found, (rows @ query)[chosen], atol=1e-6)
    with pytest.raises(IndexCorrupt, match="1 chunks have no vector"):
        shards.products(np.array([0, 3]), query)


@pytest.mark.parametrize("value", [-1.0, np.nan, -np.inf, 0.0])
def test_rows_are_compared_with_checksums_when_they_are_first_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    rows, ids, compared = unit_rows(30), np.arange(30, dtype=np.int64), list[int]()
    write_shard(tmp_path, "000000", ids[:12], rows[:12])
    write_shard(tmp_path, "000001", ids[12:], rows[12:])
    checksum = vectors.checksum_rows
    monkeypatch.setattr(vectors, "checksum_rows", lambda i, r: (compared.extend(i.tolist()), checksum(i, r))[1])
    shards, query = ShardReader(tmp_path, ["000000", "000001"], DIM), rows[17]
    shards.products(ids[5:20], query)
    assert compared == list(range(5, 20))
    shards.products(ids[3:20], query)
    assert compared == [*range(5, 20), 3, 4]
    damaged = np.load(tmp_path / "000001.npy", mmap_mode="r+")
    damaged[17 - 12] = value
    damaged.flush()
    with pytest.raises(IndexCorrupt, match="1 vectors in"):
        ShardReader(tmp_path, ["000000", "000001"], DIM).products(ids[5:20], query)
    if np.isnan(value):  # what was known is not compared again, but this is read by `get`, as it comes first
        assert shards.products(ids[5:20], query)[17 - 5] == np.inf


def test_damaged_or_foreign_faiss_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.faiss"
    FlatIndex(DIM).save(path)
    with pytest.raises(IndexCorrupt, match="16 dimensions, not 8"):
        FlatIndex.load(path, 8)
    for damage in (b"", b"nonsense" * 10, path.read_bytes()[:20]):
        path.write_bytes(damage)
        with pytest.raises(IndexCorrupt, match="--rebuild"):
            FlatIndex.load(path, DIM)


def test_shards_give_rows_by_id_in_any_order(tmp_path: Path) -> None:
    ids, rows = np.arange(1, 91, dtype=np.int64) * 2, unit_rows(90)
    for name, part in (("000000", slice(0, 30)), ("000001", slice(30, 31)), ("000002", slice(31, 90))):
        write_shard(tmp_path / "vectors", name, ids[part], rows[part])
    reader = ShardReader(tmp_path / "vectors", ["000000", "000001", "000002"], DIM)
    order = np.random.default_rng(0).permutation(90)
    assert len(reader) == 90 and np.array_equal(reader.get(ids[order]), rows[order])
    for wrong in (0, 3, 1_000):
        with pytest.raises(IndexCorrupt, match="1 chunks have no vector"):
            reader.get(np.array([2, wrong], dtype=np.int64))


def test_broken_shards_are_refused(tmp_path: Path) -> None:
    folder, ids = tmp_path / "vectors", np.arange(3, dtype=np.int64)
    write_shard(folder, "000000", ids, unit_rows(3))
    with pytest.raises(IndexCorrupt, match=r"not float32 \(3, 8\)"):
        ShardReader(folder, ["000000"], 8)
    (folder / "000000.npy").write_bytes((folder / "000000.npy").read_bytes()[:100])
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        ShardReader(folder, ["000000"], DIM)
    write_shard(folder, "000000", ids[::-1].copy(), unit_rows(3))
    with pytest.raises(IndexCorrupt, match="ascend"):
        ShardReader(folder, ["000000"], DIM)


def test_leftover_files_are_removed(tmp_path: Path) -> None:
    for name in ("000000", "000001"):
        write_shard(tmp_path / "v", name, np.arange(2, dtype=np.int64), unit_rows(2))
    (tmp_path / "v" / "000002.npy.tmp").write_bytes(b"x")
    remove_unnamed(tmp_path / "v", ["000001"])
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == sorted(shard_files("000001"))


def test_atomic_write_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, lambda stream: stream.write(b"old") and None)

    def fail(stream: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old" and not list(tmp_path.glob("*.tmp"))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from semsearch.store.files import writer_lock\n"
        f"with writer_lock(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(IndexLocked, match=f"pid {other.pid}"), writer_lock(tmp_path):
            pass
        other.kill()
    with writer_lock(tmp_path):  # a holder that was killed holds nothing
        pass


def test_a_writer_may_be_waited_for(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from semsearch.store.files import writer_lock\n"
        f"with writer_lock(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(0.5)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(IndexLocked, match="--wait SECONDS"), writer_lock(tmp_path, 0.01):
            pass
        with writer_lock(tmp_path, 60):
            assert (tmp_path / "writer.lock").read_text() == str(os.getpid())


def test_where_an_index_lies(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index_path("notes") == own_folder / "indexes" / "notes"
    assert index_path("./notes") == own_folder / "notes"
    assert index_path(Path("notes")) == own_folder / "notes"
    monkeypatch.setenv("SEMSEARCH_HOME", "/somewhere")
    assert index_path() == Path("/somewhere/indexes/default")
    for wrong in ("", "a b", ".hidden", "x" * 101, "a*"):
        with pytest.raises(InvalidInput, match="name of an index"):
            index_path(wrong)
    with pytest.raises(InvalidInput, match="3 is neither the name nor the folder of an index"):
        index_path(3)  # type: ignore[arg-type]
    assert os.sep == "/" and index_path("/abs/x") == Path("/abs/x")
    with pytest.raises(InvalidInput, match=r"'/abs/\\udcff' is not UTF-8"):
        index_path(os.fsdecode(b"/abs/\xff"))
    monkeypatch.setenv("SEMSEARCH_HOME", os.fsdecode(b"/some\xff"))
    with pytest.raises(InvalidInput, match="not UTF-8"):
        index_path("notes")
