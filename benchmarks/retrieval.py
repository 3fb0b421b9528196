"""Questions on a folder of documents: share answered in the top 5, by mode, beside plain sentence-transformers.

The peer is the script people write first: text files cut every 1,000 characters, encoded by the same model, ranked by
cosine in numpy. Reads `data/docs` and `data/docs_queries.jsonl` under SEMSEARCH_SHARED. Indexing them takes minutes the
first time; the index is kept.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import _report
import numpy as np

from semsearch import Searcher, build_index
from semsearch.encoders.models import find_model

TEXT_SUFFIXES = {".md", ".txt", ".rst", ".html", ".py", ".sh", ".yaml"}
PIECE_CHARS = 1_000


def plain_script(docs: Path) -> Callable[[str], Sequence[str]]:
    """Paths by cosine of their best piece, without semsearch; the vectors are kept beside the results."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model().path), device="cpu")
    pieces = []
    for path in sorted(p for p in docs.rglob("*") if p.suffix in TEXT_SUFFIXES and p.is_file()):
        text = path.read_text(encoding="utf-8", errors="ignore")
        pieces += [(str(path), text[i : i + PIECE_CHARS]) for i in range(0, len(text), PIECE_CHARS)]
    kept = _report.RESULTS.parent / "cache" / f"plain-{len(pieces)}.npy"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, model.encode([text for _, text in pieces], normalize_embeddings=True, show_progress_bar=True))
    vectors = np.load(kept, allow_pickle=False)

    def ask(query: str) -> list[str]:
        order = np.argsort(-(vectors @ model.encode(query, normalize_embeddings=True)))
        return [pieces[i][0] for i in order[:5]]

    return ask


def measure(
    name: str, lang: str, rows: list[dict[str, object]], ask: Callable[[str], Sequence[str]]
) -> dict[str, object]:
    found, seconds = [], []
    for row in rows:
        start = time.perf_counter()
        paths = ask(str(row["query"]))[:5]
        seconds.append(time.perf_counter() - start)
        answers = tuple(str(f) for f in row["files"])  # type: ignore[attr-defined]
        rank = next((i for i, p in enumerate(paths, 1) if p.endswith(answers)), 0)
        found.append(1 / rank if rank else 0.0)
    return {
        "retriever": name,
        "lang": lang,
        "questions": len(found),
        "success@5": sum(f > 0 for f in found) / len(found),
        "mrr@5": statistics.mean(found),
        "median query ms": statistics.median(seconds) * 1e3,
    }


def main() -> None:
    shared = os.environ.get("SEMSEARCH_SHARED")
    if not shared:
        print("skipped: SEMSEARCH_SHARED does not name the folder with the evaluation data", file=sys.stderr)
        return
    data = Path(shared) / "data"
    questions = [json.loads(line) for line in (data / "docs_queries.jsonl").read_text(encoding="utf-8").splitlines()]
    index = _report.RESULTS.parent / "cache" / "docs-index"
    report = build_index(data / "docs", index=index)
    print(f"{report.files.seen} files, {report.chunks.total} chunks, {report.elapsed_s:.0f} s", file=sys.stderr)
    plain = plain_script(data / "docs")
    rows = []
    with Searcher.open(index) as searcher:
        searcher.search("warm up")
        for lang in ("en", "zh"):
            asked = [q for q in questions if q["lang"] == lang]
            rows.append(measure("sentence-transformers + numpy", lang, asked, plain))
            for mode in ("dense", "lexical", "hybrid"):

                def ask(query: str, mode: str = mode) -> list[str]:
                    return [h.document.source for h in searcher.search(query, k=5, mode=mode)]

                rows.append(measure(f"semsearch {mode}", lang, asked, ask))
    _report.write("retrieval", rows)


if __name__ == "__main__":
    main()
