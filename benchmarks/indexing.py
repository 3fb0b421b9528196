"""Time to index, beside encoding the same chunks with plain sentence-transformers, alternated in one run.

Indexes the folder given as argument, or the project's own documents. The share is the encoder's part of the time:
what loading, chunking, SQLite, tantivy and FAISS add shows as the rest.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import _report

from semsearch import Searcher, build_index
from semsearch.encoders.models import find_model

ROUNDS = 3
PROJECT = Path(__file__).parents[1]


def main() -> None:
    from sentence_transformers import SentenceTransformer

    source = [Path(a) for a in sys.argv[1:]] or [
        PROJECT / "README.md",
        PROJECT / "ARCHITECTURE.md",
        PROJECT / "semsearch",
    ]
    peer = SentenceTransformer(str(find_model().path), device="cpu")
    index_s: list[float] = []
    encode_s: list[float] = []
    again_s: list[float] = []
    n_chunks = 0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            report = build_index(source, index=Path(folder) / "index")
            again = build_index(source, index=Path(folder) / "index")
            with Searcher.open(Path(folder) / "index") as searcher:
                hits = searcher.search("a", k=10_000, mode="dense", per_document=0)
        texts = list({hit.chunk.text for hit in hits})
        start = time.perf_counter()
        peer.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        encode_s.append(time.perf_counter() - start)
        index_s.append(report.elapsed_s)
        again_s.append(again.elapsed_s)
        n_chunks = len(texts)
    encode, index = statistics.median(encode_s), statistics.median(index_s)
    row: dict[str, object] = {
        "chunks": n_chunks,
        "index chunks/s": n_chunks / index,
        "sentence-transformers encode chunks/s": n_chunks / encode,
        "share": encode / index,
        "second run s": statistics.median(again_s),
    }
    _report.write("indexing", [row])


if __name__ == "__main__":
    main()
