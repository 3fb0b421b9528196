"""Reranking: pairs a second and the time for 30 passages, beside sentence-transformers' CrossEncoder.

All are alternated in one run. The cross-encoder is MiniLM's with an untrained head, which takes as long as a trained
one; late interaction uses the bi-encoder's own weights, and is timed once more with what an index can keep of the
passages' tokens. Passages are those of `encode.py`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _report
import numpy as np
from encode import passages

from semsearch import load_embedder, load_reranker
from semsearch.encoders.late_interaction import Kept, LateInteraction
from semsearch.encoders.models import find_model
from semsearch.errors import InvalidInput
from semsearch.token_keeping import embed_with_codes
from semsearch.types import FloatArray

QUERY = "how do I return a file to the state of an earlier commit"
N_PAIRS = 120
N_CANDIDATES = 30
ROUNDS = 5
BASE = "sentence-transformers CrossEncoder f32"


def cross_encoder(folder: Path) -> Path:
    """MiniLM with a classification head of fixed random weights."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = str(find_model().path)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def rerankers(folder: Path, texts: list[str]) -> dict[str, Callable[[list[str]], FloatArray]]:
    """Scores of texts for QUERY, by runtime."""
    from sentence_transformers import CrossEncoder

    peer = CrossEncoder(str(folder), device="cpu")
    found: dict[str, Callable[[list[str]], FloatArray]] = {
        BASE: lambda texts: peer.predict([(QUERY, text) for text in texts], batch_size=32, show_progress_bar=False)
    }
    for precision in ("f32", "bf16", "int8"):
        try:
            ours = load_reranker(str(folder), device="cpu", precision=precision)
        except InvalidInput:  # this processor lacks it
            continue
        found[f"semsearch cross-encoder {precision}"] = lambda texts, ours=ours: ours.score(QUERY, texts)
    embedder = load_embedder(device="cpu", precision="full")
    # One that has read nothing yet each time: vectors of passages are kept.
    found["semsearch late interaction"] = lambda texts: LateInteraction.of(embedder).score(QUERY, texts)
    codes = dict(zip(texts, embed_with_codes(load_embedder(device="cpu"), texts)[1], strict=True))

    def from_codes(texts: list[str]) -> FloatArray:
        return LateInteraction.of(embedder).score(QUERY, texts, [Kept(len(text), codes[text]) for text in texts])

    found["semsearch late interaction, kept tokens"] = from_codes
    return found


def main() -> None:
    texts = passages()[:N_PAIRS]
    with tempfile.TemporaryDirectory() as name:
        compared = rerankers(cross_encoder(Path(name)), texts)
        scores = {runtime: np.asarray(score(texts)).ravel() for runtime, score in compared.items()}  # warms up, too
        for score in compared.values():
            score(texts[:N_CANDIDATES])
        many: dict[str, list[float]] = {runtime: [] for runtime in compared}
        few: dict[str, list[float]] = {runtime: [] for runtime in compared}
        for _ in range(ROUNDS):
            for runtime, score in compared.items():
                for part, seconds in ((texts, many), (texts[:N_CANDIDATES], few)):
                    start = time.perf_counter()
                    score(part)
                    seconds[runtime].append(time.perf_counter() - start)
    rates = {runtime: len(texts) / statistics.median(seconds) for runtime, seconds in many.items()}
    rows: list[dict[str, object]] = [
        {
            "reranker": runtime,
            "pairs/s": rates[runtime],
            "times": rates[runtime] / rates[BASE],
            "correlation": float(np.corrcoef(scores[runtime], scores[BASE])[0, 1]) if "late" not in runtime else None,
            "30 passages, ms": statistics.median(few[runtime]) * 1e3,
        }
        for runtime in compared
    ]
    lengths = [len(spans) for spans in load_embedder().token_spans(texts)]
    _report.write("rerank", rows, pairs=len(texts), mean_passage_tokens=float(np.mean(lengths)))


if __name__ == "__main__":
    main()
