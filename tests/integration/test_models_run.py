"""Real models, run: the packaged MiniLM and tiny checkpoints, against sentence-transformers itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, load_embedder, load_reranker
from semsearch.encoders.models import find_model
from semsearch.errors import InvalidInput, ModelError
from tests.checkpoints import write_bi_encoder, write_cross_encoder

TEXTS = ["The river runs past a stone.", "cloud", "a stone, a cloud? " * 3, "Undo the last commit.", "上传文件"]
PASSAGES = {
    "stash": "Use git stash to record the current state of the working directory and go back to a clean one.",
    "bisect": "This command uses a binary search algorithm to find which commit introduced a bug.",
    "blame": "Annotates each line in the given file with information from the revision which last modified the line.",
    "worktree": "A repository can have several working trees, with more than one branch checked out at a time.",
    "wal": "Readers do not block writers and a writer does not block readers when the write-ahead log is in use.",
    "bread": "Knead the dough for ten minutes, let it rise, and bake it in a hot oven.",
}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("prompts", [None, {"query": "query: ", "passage": "passage: "}])
def test_vectors_are_those_of_sentence_transformers(
    tmp_path: Path, pooling: str, prompts: dict[str, str] | None
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_bi_encoder(tmp_path / "m", pooling=pooling, prompts=prompts)
    ours, theirs = load_embedder(str(folder), device="cpu"), SentenceTransformer(str(folder), device="cpu")
    for embed, kind in ((ours.embed_documents, "passage: "), (ours.embed_queries, "query: ")):
        prompt = kind if prompts else ""
        expected = theirs.encode([prompt + t for t in TEXTS], normalize_embeddings=True)
        rows = embed(TEXTS)
        assert rows.dtype == np.float32 and rows.shape == (5, 32) == (5, ours.dim)
        assert np.allclose(rows, expected, atol=1e-5)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (pooling, ours.dim) == (ours.description["pooling"], 32)
    assert ours.max_tokens == 64 - 2 - (2 if prompts else 0)  # [CLS], [SEP], and a prompt of two tokens
    assert ours.embed_documents([]).shape == (0, 32)


def test_a_cross_encoder_scores_pairs(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = write_cross_encoder(tmp_path / "c")
    ours, theirs = load_reranker(str(folder), device="cpu"), CrossEncoder(str(folder), device="cpu")
    scores = ours.score("river?", TEXTS)
    assert scores.dtype == np.float32 and ours.score("river?", []).shape == (0,)
    assert np.allclose(scores, theirs.predict([("river?", t) for t in TEXTS]), atol=1e-5)
    build_index([Document(str(i), t) for i, t in enumerate(TEXTS)], model=str(write_bi_encoder(tmp_path / "b")))
    with Searcher.open(reranker=str(folder)) as searcher:
        hits = searcher.search("river?", k=5)
    assert [h.score for h in hits] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)


def test_models_that_cannot_do_the_work_are_refused(tmp_path: Path) -> None:
    classifier = write_cross_encoder(tmp_path / "c", n_labels=3)
    with pytest.raises(ModelError, match="3 labels"):
        load_reranker(str(classifier))
    with pytest.raises(InvalidInput, match="'warp' cannot be used here"):
        load_embedder(str(write_bi_encoder(tmp_path / "b")), device="warp").embed_queries(["x"])
    broken = write_bi_encoder(tmp_path / "d")
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="cannot be run"):
        load_embedder(str(broken)).embed_queries(["x"])


def test_minilm_finds_by_meaning_with_exact_scores() -> None:
    from sentence_transformers import SentenceTransformer

    build_index([Document(i, t) for i, t in PASSAGES.items()])
    theirs = SentenceTransformer(str(find_model().path), device="cpu")
    rows = theirs.encode(list(PASSAGES.values()), normalize_embeddings=True)
    with Searcher.open() as searcher:
        for query, answer in (
            ("put away uncommitted work", "stash"),
            ("who wrote this line", "blame"),
            ("which change broke it", "bisect"),
            ("can one read while another writes", "wal"),
        ):
            hits = searcher.search(query, k=1_000, mode="dense", per_document=0)
            scores = rows @ theirs.encode(query, normalize_embeddings=True)
            order = np.argsort(-scores)
            assert [h.document.id for h in hits] == [list(PASSAGES)[i] for i in order]
            assert [h.score for h in hits] == pytest.approx(scores[order].tolist(), abs=1e-4)
            assert hits[0].document.id == answer
            mark = searcher.highlight(query, hits[0])
            assert 0 <= mark.sentence[0] < mark.sentence[1] <= len(hits[0].chunk.text)


def test_long_texts_are_covered_and_never_truncated() -> None:
    embedder = load_embedder()
    text = "\n\n".join(f"Paragraph {i} speaks of matter {i}. " * 12 for i in range(40)) + "\n\nThe needle is here."
    build_index([Document("long", text)], embedder=embedder)
    with Searcher.open(embedder=embedder) as searcher:
        hits = searcher.search("where is the needle", k=100, per_document=0)
    spans = embedder.token_spans([h.chunk.text for h in hits])
    assert max(map(len, spans)) <= embedder.max_tokens == 254
    assert "needle" in hits[0].chunk.text
    assert sum(len(h.chunk.text.split()) for h in hits) == len(text.split())


def test_nothing_is_read_or_written_or_asked_for_elsewhere(own_folder: Path) -> None:
    """A real run, in a process of its own whose audit hook records every file opened and refuses every socket."""
    script = """
        import os, sys
        opened = set()
        def watch(event, args):
            if event == "open" and isinstance(args[0], (str, bytes)):
                opened.add(os.path.abspath(os.fsdecode(args[0])))
            elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
                sys.exit(f"network: {event} {args}")
            elif event == "subprocess.Popen" and args[0] != sys.executable:
                opened.add(f"program {args[0]}")
        sys.addaudithook(watch)
        from semsearch import Searcher, build_index
        build_index("docs")
        with Searcher.open() as searcher:
            assert searcher.search("a question")
        for path in sorted(opened):
            print(path)
    """
    (own_folder / "docs").mkdir()
    (own_folder / "docs" / "a.md").write_text("# Title\n\nAn answer to a question.")
    home, temporary = own_folder / "home", own_folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env={"HOME": str(home), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    allowed = (
        str(own_folder / "docs"),
        str(own_folder / "indexes"),
        str(Path(sys.prefix).resolve()),
        str(Path(sys.base_prefix).resolve()),
        sys.prefix,
        str(find_model().path),
        str(Path(__file__).parents[2] / "semsearch"),
        "/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib", str(temporary),
    )  # fmt: skip
    strangers = [p for p in done.stdout.splitlines() if not p.startswith(allowed)]
    assert strangers == []
    assert list(home.iterdir()) == []
    assert not [p for p in temporary.rglob("*") if p.is_file()]  # torch makes an empty folder there
