"""Chunks encoded a second by runtime and precision, beside plain sentence-transformers, alternated in one run.

The texts are passages of the documents under SEMSEARCH_SHARED, or of the project's own files. The cosine is to the
vectors of sentence-transformers; the share is of what the processor reaches in a plain float32 matrix product.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import _report
import numpy as np

from semsearch import Document, load_embedder
from semsearch.chunking import ChunkSettings, split
from semsearch.encoders.models import find_model
from semsearch.types import FloatArray

N_TEXTS = 256
ROUNDS = 5
PROJECT = Path(__file__).parents[1]


def passages() -> list[str]:
    """Evenly drawn chunks of real text."""
    shared = os.environ.get("SEMSEARCH_SHARED")
    folder = Path(shared) / "data" / "docs" if shared else PROJECT
    paths = sorted(p for suffix in ("md", "txt", "rst") for p in folder.rglob(f"*.{suffix}") if ".venv" not in p.parts)
    embedder = load_embedder()
    settings = ChunkSettings(embedder.max_tokens, embedder.max_tokens // 5)
    chunks: list[str] = []
    for path in paths[:: max(1, len(paths) // 100)]:
        document = Document(str(path), path.read_text(encoding="utf-8", errors="replace"))
        chunks += [chunk.text for chunk in split(document, embedder.token_spans, settings)]
    return chunks[:: max(1, len(chunks) // N_TEXTS)][:N_TEXTS]


def matrix_product_flops() -> float:
    """Operations a second of a 2,048 cubed float32 product on all cores."""
    import torch

    a = torch.ones(2_048, 2_048)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2 * 2_048**3 / min(seconds)


def model_flops(n_tokens: list[int]) -> float:
    """Operations of MiniLM over texts of n tokens: in each of 6 layers 12 h² a token, and 2 n h for attention."""
    h, layers = 384, 6
    return sum(2.0 * layers * n * (12 * h * h + 2 * n * h) for n in n_tokens)


def main() -> None:
    from sentence_transformers import SentenceTransformer

    texts = passages()
    peer = SentenceTransformer(str(find_model().path), device="cpu")
    runtimes: dict[str, Callable[[list[str]], FloatArray]] = {
        "sentence-transformers f32": lambda t: peer.encode(t, normalize_embeddings=True, show_progress_bar=False)
    }
    for precision in ("f32", "bf16", "int8"):
        try:
            runtimes[f"semsearch {precision}"] = load_embedder(precision=precision, device="cpu").embed_documents
        except ValueError as error:
            print(error)
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    vectors = {name: encode(texts) for name, encode in runtimes.items()}  # also warms up
    for _ in range(ROUNDS):
        for name, encode in runtimes.items():
            start = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - start)
    lengths = [len(spans) + 2 for spans in load_embedder().token_spans(texts)]
    flops, peak = model_flops(lengths), matrix_product_flops()
    base = "sentence-transformers f32"
    rows: list[dict[str, object]] = []
    for name in runtimes:
        cosines = (vectors[name] * vectors[base]).sum(axis=1)
        median = statistics.median(seconds[name])
        rows.append(
            {
                "runtime": name,
                "chunks/s": len(texts) / median,
                "tokens/s": sum(lengths) / median,
                "times": statistics.median(seconds[base]) / median,
                "mean cosine": float(np.mean(cosines)),
                "min cosine": float(np.min(cosines)),
                "share of f32 peak": flops / median / peak,
            }
        )
    _report.write("encode", rows)


if __name__ == "__main__":
    main()
