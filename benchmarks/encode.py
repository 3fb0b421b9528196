"""Passages encoded a second by runtime and precision, beside plain sentence-transformers (and txtai, where installed).

All are alternated in one run. The texts are passages of the documents under SEMSEARCH_SHARED, or of the project's own
files. Beside the speed stand the cosine to the vectors of sentence-transformers, the share of what the processor
reaches in a plain matrix product of that precision, and, with SEMSEARCH_SHARED, mean nDCG@10 over five collections,
with queries encoded in full precision, as a searcher does. `--speed-only` leaves out the last, which takes long.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _quality
import _report
import numpy as np

from semsearch import Document, load_embedder
from semsearch.chunking import ChunkSettings, split
from semsearch.encoders.models import find_model
from semsearch.encoders.torch_runtime import TorchEmbedder
from semsearch.errors import InvalidInput
from semsearch.types import FloatArray

N_TEXTS = 256
ROUNDS = 7
PROJECT = Path(__file__).parents[1]
BASE = "sentence-transformers f32"


def passages() -> list[str]:
    """Evenly drawn chunks of real text."""
    data = _quality.shared_data()
    folder = data / "docs" if data else PROJECT
    paths = sorted(p for suffix in ("md", "txt", "rst") for p in folder.rglob(f"*.{suffix}") if ".venv" not in p.parts)
    embedder = load_embedder()
    settings = ChunkSettings(embedder.max_tokens, embedder.max_tokens // 5)
    chunks: list[str] = []
    for path in paths[:: max(1, len(paths) // 100)]:
        document = Document(str(path), path.read_text(encoding="utf-8", errors="replace"))
        chunks += [chunk.text for chunk in split(document, embedder.token_spans, settings)]
    return chunks[:: max(1, len(chunks) // N_TEXTS)][:N_TEXTS]


def matrix_products() -> dict[str, Callable[[], Any]]:
    """Products of 2,048 cubed on all cores, by precision."""
    import torch

    a, i = torch.ones(2_048, 2_048), torch.ones(2_048, 2_048, dtype=torch.int8)
    b = a.bfloat16()
    return {"f32": lambda: a @ a, "bf16": lambda: b @ b, "int8": lambda: torch._int_mm(i, i)}


def model_flops(n_tokens: list[int]) -> float:
    """Operations of MiniLM over texts of n tokens: in each of 6 layers 12 h² a token, and 2 n h for attention."""
    h, layers = 384, 6
    return sum(2.0 * layers * n * (12 * h * h + 2 * n * h) for n in n_tokens)


def encoders() -> dict[str, tuple[str, Callable[[list[str]], FloatArray]]]:
    """(precision, encoder of passages) by name of the runtime."""
    from sentence_transformers import SentenceTransformer

    files = find_model()
    peer = SentenceTransformer(str(files.path), device="cpu")
    found: dict[str, tuple[str, Callable[[list[str]], FloatArray]]] = {
        BASE: ("f32", lambda t: peer.encode(t, normalize_embeddings=True, show_progress_bar=False))
    }
    if importlib.util.find_spec("txtai"):
        from txtai.embeddings import Embeddings

        txtai = Embeddings(path=str(files.path), method="sentence-transformers")
        found["txtai f32"] = ("f32", lambda t: np.asarray(txtai.batchtransform(t), dtype=np.float32))
    for precision in ("f32", "bf16", "int8"):
        try:
            found[f"semsearch {precision}"] = (
                precision,
                load_embedder(precision=precision, device="cpu").embed_documents,
            )
        except InvalidInput as error:
            print(error)
    torch_auto = TorchEmbedder(files, device="cpu")
    found[f"semsearch {torch_auto.precision}, torch"] = torch_auto.precision, torch_auto.embed_documents
    return found


def main() -> None:
    texts, runtimes, products = passages(), encoders(), matrix_products()
    vectors = {name: encode(texts) for name, (_, encode) in runtimes.items()}  # also warms up
    seconds: dict[str, list[float]] = {name: [] for name in [*runtimes, *products]}
    for _ in range(ROUNDS):
        for name, call in [*((n, lambda e=e: e(texts)) for n, (_, e) in runtimes.items()), *products.items()]:
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    lengths = [len(spans) + 2 for spans in load_embedder().token_spans(texts)]
    rows: list[dict[str, object]] = []
    for name, (precision, _) in runtimes.items():
        cosines = (vectors[name] * vectors[BASE]).sum(axis=1)
        peak = 2 * 2_048**3 / min(seconds[precision])
        row: dict[str, object] = {
            "runtime": name,
            "passages/s": len(texts) / median[name],
            "tokens/s": sum(lengths) / median[name],
            "times": median[BASE] / median[name],
            "mean cosine": float(np.mean(cosines)),
            "least cosine": float(np.min(cosines)),
            "share of the processor's peak": model_flops(lengths) / median[name] / peak,
        }
        rows.append(row)
    data = _quality.shared_data()
    if data and "--speed-only" not in sys.argv:
        full, rounded = load_embedder(device="cpu", precision="full"), load_embedder(device="cpu", precision="f32")
        for row, (name, (_, encode)) in zip(rows, runtimes.items(), strict=True):
            row["nDCG@10"] = None
            if name.startswith("semsearch") and "torch" not in name:
                queries = rounded if name == "semsearch f32" else full
                scores = _quality.ndcg_by_collection(data, encode, [queries.embed_queries])[0]
                row["nDCG@10"] = float(np.mean(scores))
                row["by collection"] = dict(zip(_quality.CORE, scores, strict=True))
                print(name, row["nDCG@10"], row["by collection"], file=sys.stderr)
    _report.write("encode", rows, texts=len(texts), mean_tokens=sum(lengths) / len(lengths))


if __name__ == "__main__":
    main()
