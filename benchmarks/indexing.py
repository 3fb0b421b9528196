"""Time to index a folder, beside encoding the very same passages and nothing else.

Indexes the folder given as argument, or the documents under SEMSEARCH_SHARED, or the project's own. The share is what
indexing reaches of the encoder's own speed: what loading, cutting, SQLite, tantivy and FAISS cost shows as the rest.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import _quality
import _report

from semsearch import build_index, load_embedder
from semsearch.store.metadata import Store

ROUNDS = 1  # some minutes with a real folder; more for a small one
PROJECT = Path(__file__).parents[1]


def main() -> None:
    data = _quality.shared_data()
    source = [Path(a) for a in sys.argv[1:]] or [data / "docs" if data else PROJECT / "semsearch"]
    embedder = load_embedder()
    embedder.embed_documents(["warm up"] * 100)
    index_s: list[float] = []
    encode_s: list[float] = []
    again_s: list[float] = []
    n_encoded, peak_mb = 0, 0.0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            report = build_index(source, index=index, embedder=embedder)
            again_s.append(build_index(source, index=index, embedder=embedder).elapsed_s)
            store = Store(index)
            texts = [row[0] for row in store.query("SELECT DISTINCT text FROM chunks")]
            store.close()
        n_encoded = report.chunks.encoded
        index_s.append(report.elapsed_s)
        if not peak_mb:  # before anything but indexing took memory
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        embedder.embed_documents(texts)
        encode_s.append((time.perf_counter() - start) * n_encoded / len(texts))
    encode, index_all = statistics.median(encode_s), statistics.median(index_s)
    row: dict[str, object] = {
        "precision": embedder.description["precision"],
        "passages encoded": n_encoded,
        "indexing, passages/s": n_encoded / index_all,
        "encoder alone, passages/s": n_encoded / encode,
        "share": encode / index_all,
        "second run s": statistics.median(again_s),
        "peak MB": peak_mb,
    }
    _report.write("indexing", [row], files=report.files.seen)


if __name__ == "__main__":
    main()
