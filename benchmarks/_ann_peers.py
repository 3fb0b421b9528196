"""Vector search by other libraries: builds an index of the rows in a file, or searches it, and prints JSON.

    python _ann_peers.py build ENGINE FOLDER        # rows.npy in it; seconds, bytes
    python _ann_peers.py search ENGINE FOLDER       # questions.npy and nearest.npy in it; a line a parameter

Imports numpy and the library, nothing of ours, so that it runs in a Python that has those.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

M = 24  # links of a graph's nodes, as in ours
CONSTRUCTION = 80
EF = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
N_PROBE = (8, 16, 32, 64, 128, 256, 512)
REFINE = 20  # times ten candidates that LanceDB rescores
K = 10

Search = Callable[[np.ndarray], Any]


def searched(search: Search, questions: np.ndarray, nearest: np.ndarray) -> dict[str, float]:
    """Recall and times, one question after the other."""
    for question in questions[:100]:
        search(question)
    found, seconds, cpu = [], [], time.process_time()
    for question in questions:
        start = time.perf_counter()
        ids = search(question)
        seconds.append(time.perf_counter() - start)
        found.append(np.asarray(ids)[:K])
    cpu = time.process_time() - cpu
    ms = np.array(seconds) * 1e3
    return {
        "recall_at_10": float(np.mean([np.isin(n, f).mean() for n, f in zip(nearest, found, strict=True)])),
        "p50_ms": float(np.percentile(ms, 50)),
        "p95_ms": float(np.percentile(ms, 95)),
        "p99_ms": float(np.percentile(ms, 99)),
        "queries_per_s": len(ms) / float(ms.sum()) * 1e3,
        "cpu_ms": cpu / len(ms) * 1e3,
    }


def hnswlib(rows: np.ndarray, folder: Path) -> None:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=rows.shape[1])
    index.init_index(max_elements=len(rows), M=M, ef_construction=CONSTRUCTION)
    index.add_items(rows)
    index.save_index(str(folder / "hnswlib.bin"))


def search_hnswlib(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=dim)
    index.load_index(str(folder / "hnswlib.bin"))
    index.set_num_threads(1)
    for ef in EF:
        index.set_ef(ef)
        yield f"ef {ef}", lambda q: index.knn_query(q, k=K)[0][0]


def usearch(rows: np.ndarray, folder: Path, dtype: str) -> None:
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype=dtype, connectivity=M, expansion_add=CONSTRUCTION)
    index.add(np.arange(len(rows)), rows)
    index.save(str(folder / f"usearch-{dtype}.usearch"))


def search_usearch(folder: Path, dim: int, dtype: str) -> Iterator[tuple[str, Search]]:
    from usearch.index import Index

    index = Index(ndim=dim, metric="ip", dtype=dtype, connectivity=M, expansion_add=CONSTRUCTION)
    index.view(str(folder / f"usearch-{dtype}.usearch"))  # mapped into memory
    for ef in EF:
        index.expansion_search = ef
        yield f"ef {ef}", lambda q: index.search(q, K, threads=1).keys


def lancedb(rows: np.ndarray, folder: Path) -> None:
    import lancedb
    import pyarrow as pa

    table = None
    shutil.rmtree(folder / "lancedb", ignore_errors=True)  # of another run
    database = lancedb.connect(folder / "lancedb")
    for first in range(0, len(rows), 65_536):
        part = np.ascontiguousarray(rows[first : first + 65_536])
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), rows.shape[1])
        batch = pa.table({"id": np.arange(first, first + len(part)), "vector": vectors})
        if table is None:
            table = database.create_table("rows", batch)
        else:
            table.add(batch)
    lists = int(2 ** np.floor(np.log2(4 * np.sqrt(len(rows)))))
    table.create_index(
        metric="dot", index_type="IVF_PQ", num_partitions=lists, num_sub_vectors=rows.shape[1] // 4, num_bits=4
    )


def search_lancedb(folder: Path, dim: int) -> Iterator[tuple[str, Search]]:
    import lancedb

    table = lancedb.connect(folder / "lancedb").open_table("rows")
    for n_probe in N_PROBE:

        def search(q: np.ndarray, n_probe: int = n_probe) -> list[int]:
            query = table.search(q).distance_type("dot").nprobes(n_probe).refine_factor(REFINE).limit(K)
            return query.select(["id"]).to_arrow()["id"].to_pylist()

        yield f"nprobes {n_probe}, refine {REFINE}", search


def size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


ENGINES: dict[str, tuple[str, Callable[[np.ndarray, Path], None], Callable[[Path, int], Any], str]] = {
    "hnswlib": ("HNSW, float32", hnswlib, search_hnswlib, "hnswlib.bin"),
    "usearch-f16": (
        "HNSW, float16",
        lambda rows, folder: usearch(rows, folder, "f16"),
        lambda folder, dim: search_usearch(folder, dim, "f16"),
        "usearch-f16.usearch",
    ),
    "usearch-i8": (
        "HNSW, int8",
        lambda rows, folder: usearch(rows, folder, "i8"),
        lambda folder, dim: search_usearch(folder, dim, "i8"),
        "usearch-i8.usearch",
    ),
    "lancedb": ("IVF-PQ of 4 bits for 4, rescored", lancedb, search_lancedb, "lancedb/rows.lance/_indices"),
}


def main() -> None:
    what, name, given = sys.argv[1:]
    folder = Path(given)
    kind, build, search, kept = ENGINES[name]
    library = name.partition("-")[0]
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    about = {"engine": f"{library} {version(library)}", "kind": kind, "n_vectors": len(rows)}
    if what == "build":
        start, cpu = time.perf_counter(), time.process_time()
        build(rows, folder)
        about["build_s"], about["build_cpu_s"] = time.perf_counter() - start, time.process_time() - cpu
        about["bytes_per_vector"] = size(folder / kept) / len(rows)
        print(json.dumps(about))
        return
    questions, nearest = np.load(folder / "questions.npy"), np.load(folder / "nearest.npy")
    start = time.perf_counter()
    settings = search(folder, rows.shape[1])
    for label, ask in settings:
        opened = time.perf_counter() - start
        found = searched(ask, questions, nearest)
        print(json.dumps({**about, "setting": label, **found, "open_s": opened}), flush=True)
        if found["recall_at_10"] >= 0.985:
            return
        start = time.perf_counter()


if __name__ == "__main__":
    main()
