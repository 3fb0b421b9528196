"""Real models, run: the packaged MiniLM and tiny checkpoints, against sentence-transformers itself."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, load_embedder, load_reranker
from semsearch.encoders.models import find_model
from semsearch.encoders.openvino_runtime import OpenVinoEmbedder, OpenVinoReranker, choose_precision
from semsearch.encoders.tokenized import TokenizedEmbedder
from semsearch.encoders.torch_runtime import TorchEmbedder, TorchReranker
from semsearch.errors import IndexIncompatible, InvalidInput, ModelError
from semsearch.ranking.blending import blend
from semsearch.store.info import inspect_index
from semsearch.types import Reranker
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


RUNTIMES = {
    "openvino": functools.partial(OpenVinoEmbedder, precision="f32"),
    "torch": functools.partial(TorchEmbedder, precision="f32"),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("prompts", [None, {"query": "query: ", "passage": "passage: "}])
def test_vectors_are_those_of_sentence_transformers(
    tmp_path: Path, runtime: str, family: str, pooling: str, prompts: dict[str, str] | None
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_bi_encoder(tmp_path / "m", family=family, pooling=pooling, prompts=prompts)
    ours: TokenizedEmbedder = RUNTIMES[runtime](find_model(str(folder)))
    theirs = SentenceTransformer(str(folder), device="cpu")
    texts = [*TEXTS, "river stone " * 100]  # the last is cut
    for embed, kind in ((ours.embed_documents, "passage: "), (ours.embed_queries, "query: ")):
        prompt = kind if prompts else ""
        expected = theirs.encode([prompt + t for t in texts], normalize_embeddings=True)
        rows = embed(texts)
        assert rows.dtype == np.float32 and rows.shape == (6, 32) == (6, ours.dim)
        assert np.allclose(rows, expected, atol=2e-5)
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert np.allclose(embed(texts[:1]), expected[:1], atol=2e-5)
    many = [f"{'stone ' * (i % 37)}river {i}" for i in range(300)]  # several batches, out of order
    assert np.allclose(ours.embed_documents(many)[::17], [ours.embed_documents([t])[0] for t in many[::17]], atol=2e-5)
    assert ours.embed_documents([]).shape == (0, 32)
    assert (ours.description["pooling"], ours.max_tokens) == (pooling, 64 - 2 - (2 if prompts else 0))


@pytest.mark.parametrize("precision", ["f32", "full"])
def test_a_query_has_the_same_vector_beside_any_others(precision: str) -> None:
    embedder = load_embedder(precision=precision)
    queries = [*TEXTS, *PASSAGES.values(), "why", "how do rivers and streams carve valleys? " * 12]
    alone = np.concatenate([embedder.embed_queries([query]) for query in queries])
    together, turned = embedder.embed_queries(queries), embedder.embed_queries(queries[::-1])[::-1]
    apart = max(np.abs(rows - alone).max() for rows in (together, turned))
    has_tiles = "amx_tile" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else True
    assert apart <= (2e-3 if has_tiles and embedder.description["precision"] == "bf16" else 0)


@pytest.mark.parametrize("runtime", [OpenVinoReranker, TorchReranker])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("activation", [None, "torch.nn.modules.linear.Identity"])
def test_a_cross_encoder_scores_pairs_as_sentence_transformers_does(
    tmp_path: Path, runtime: Callable[..., Reranker], family: str, activation: str | None
) -> None:
    from sentence_transformers import CrossEncoder

    folder = write_cross_encoder(tmp_path / "c", family=family, activation=activation)
    ours, theirs = runtime(find_model(str(folder)), precision="f32"), CrossEncoder(str(folder), device="cpu")
    texts = [*TEXTS, "a river and a stone. " * 30]
    scores = ours.score("river?", texts)
    assert scores.dtype == np.float32 and ours.score("river?", []).shape == (0,)
    assert np.allclose(scores, theirs.predict([("river?", t) for t in texts]), atol=2e-5)


def test_the_searcher_orders_by_the_reranker(tmp_path: Path) -> None:
    folder = str(write_cross_encoder(tmp_path / "c"))
    scores = load_reranker(folder).score("river?", TEXTS)
    build_index([Document(str(i), t) for i, t in enumerate(TEXTS)], model=str(write_bi_encoder(tmp_path / "b")))
    with Searcher.open(reranker=folder) as searcher:
        hits = searcher.search("river?", k=5)
    read = load_reranker(folder).score("river?", [h.chunk.text for h in hits]).tolist()
    assert [h.scores.rerank for h in hits] == pytest.approx(read, abs=1e-5)
    joined = blend([h.scores.fused or 0.0 for h in hits], read, first_stage_weight=0.2)
    assert [h.score for h in hits] == pytest.approx(sorted(joined.tolist(), reverse=True), abs=1e-5)
    (tmp_path / "c" / "semsearch.json").write_text('{"first_stage_weight": 0.0}')
    with Searcher.open(reranker=folder) as searcher:
        hits = searcher.search("river?", k=5)
    assert [h.scores.rerank for h in hits] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    (tmp_path / "c" / "semsearch.json").write_text('{"first_stage_weight": 2}')
    with pytest.raises(ModelError, match=r"first_stage_weight is 2.0; it must lie in \[0, 1\]"):
        Searcher.open(reranker=folder)


def test_int8_vectors_are_near_and_of_their_own_kind() -> None:
    exact, rounded = load_embedder(precision="f32"), load_embedder(precision="int8")
    a, b = (e.embed_documents(list(PASSAGES.values())) for e in (exact, rounded))
    cosines = (a * b).sum(axis=1)
    assert cosines.min() > 0.97 and cosines.mean() > 0.99 and not np.allclose(a, b, atol=1e-5)
    assert exact.fingerprint != rounded.fingerprint
    build_index([Document(i, t) for i, t in PASSAGES.items()], precision="int8")
    with Searcher.open() as searcher:  # queries of an int8 index are encoded in int8
        hit = searcher.search("who wrote this line", k=1)[0]
        assert hit.document.id == "blame"
        assert hit.scores.dense == pytest.approx(
            float(rounded.embed_queries(["who wrote this line"])[0] @ b[2]), abs=1e-5
        )
    assert build_index([Document("more", "Another text.")]).chunks.encoded == 1  # goes on in int8
    with pytest.raises(IndexIncompatible, match=r"in int8 .* in f32"):
        build_index([Document("x", "y")], embedder=exact)
    assert inspect_index().precision == "int8"


@pytest.mark.parametrize(
    ("precision", "said"), [("fp4", "auto, full, f32, bf16, int8"), ("bf16", "does not compute in bf16")]
)
def test_precisions_that_cannot_be_had(precision: str, said: str) -> None:
    if precision == choose_precision("auto"):
        pytest.skip("this processor computes in bf16")
    with pytest.raises(InvalidInput, match=said):
        load_embedder(precision=precision)


def test_graphs_are_kept_and_a_broken_one_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = str(write_bi_encoder(tmp_path / "m"))
    expected = load_embedder(folder).embed_queries(["river"])
    kept = list((tmp_path / "cache").rglob("model.xml"))
    assert len(kept) == 1
    with monkeypatch.context() as patch:
        patch.setattr("semsearch.encoders.bert_graph.build_bi_encoder", lambda *_, **__: pytest.fail("built again"))
        assert np.array_equal(load_embedder(folder).embed_queries(["river"]), expected)
    kept[0].write_text("broken")
    assert np.array_equal(load_embedder(folder).embed_queries(["river"]), expected)


def test_a_cache_that_lost_its_graph_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = str(write_bi_encoder(tmp_path / "m"))
    expected = load_embedder(folder).embed_queries(["river"])
    (graph,) = (tmp_path / "cache").rglob("model.xml")
    left = graph.parents[1] / ".new-left"
    left.mkdir()
    os.utime(left, (0, 0))
    graph.unlink()
    assert np.array_equal(load_embedder(folder).embed_queries(["river"]), expected)
    assert graph.is_file() and not left.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert np.array_equal(load_embedder(folder).embed_queries(["river"]), expected)


def test_graphs_that_nothing_uses_any_more_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two, three = (str(write_bi_encoder(tmp_path / str(n), n_positions=n)) for n in (64, 72, 80))
    load_embedder(one).embed_queries(["river"])
    (first,) = (path.parent for path in (tmp_path / "cache").rglob("model.xml"))
    os.utime(first, (0, 0))
    assert load_embedder(one).embed_queries(["river"]).size  # it is in use
    load_embedder(two).embed_queries(["river"])
    assert first.is_dir()
    os.utime(first / "used", (0, 0))
    load_embedder(three).embed_queries(["river"])
    assert not first.exists()
    assert len(list((tmp_path / "cache").rglob("model.xml"))) == 2


def test_padding_may_reach_beyond_a_models_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write_bi_encoder(tmp_path / "m"))
    long = ["river stone " * 100, "river"]  # the first is cut to 64 tokens, as many as there are positions
    expected = OpenVinoEmbedder(find_model(folder), precision="f32").embed_documents(long)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("semsearch.encoders.bert_graph.LENGTH_STEP", 24)
    monkeypatch.setattr("semsearch.encoders.openvino_runtime.LENGTH_STEP", 24)
    rows = OpenVinoEmbedder(find_model(folder), precision="f32").embed_documents(long)
    assert np.allclose(rows, expected, atol=1e-5)


def test_without_openvino_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semsearch.encoders.find_spec", lambda name: None)
    assert isinstance(load_embedder(), TorchEmbedder)
    with pytest.raises(InvalidInput, match="'int8' is OpenVINO's"):
        load_embedder(precision="int8")
    with pytest.raises(InvalidInput, match="'f16' is for GPUs"):
        load_embedder(precision="f16")


def test_a_query_imports_no_torch(own_folder: Path) -> None:
    build_index([Document(i, t) for i, t in PASSAGES.items()])
    script = """
        import sys
        from semsearch import Searcher
        with Searcher.open() as searcher:
            assert searcher.search("who wrote this line")[0].document.id == "blame"
        heavy = {"torch", "transformers", "sentence_transformers", "sqlite_utils", "click", "rich"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_models_that_cannot_do_the_work_are_refused(tmp_path: Path, runtime: str) -> None:
    classifier = find_model(str(write_cross_encoder(tmp_path / "c", n_labels=3)))
    with pytest.raises(ModelError, match="3 labels"):
        {"openvino": OpenVinoReranker, "torch": TorchReranker}[runtime](classifier)
    broken = write_bi_encoder(tmp_path / "d")
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="cannot be"):
        RUNTIMES[runtime](find_model(str(broken))).embed_queries(["x"])
    with pytest.raises(InvalidInput, match="'warp' cannot be used here"):
        load_embedder(device="warp").embed_queries(["x"])


def test_minilm_finds_by_meaning_with_exact_scores() -> None:
    from sentence_transformers import SentenceTransformer

    ours = load_embedder(precision="f32")
    build_index([Document(i, t) for i, t in PASSAGES.items()], embedder=ours)
    theirs = SentenceTransformer(str(find_model().path), device="cpu")
    rows = theirs.encode(list(PASSAGES.values()), normalize_embeddings=True)
    with Searcher.open(embedder=ours) as searcher:
        for query, answer in (
            ("put away uncommitted work", "stash"),
            ("who wrote this line", "blame"),
            ("which change broke it", "bisect"),
            ("can one read while another writes", "wal"),
        ):
            hits = searcher.search(query, k=1_000, mode="dense", per_document=0, rerank=False)
            scores = rows @ theirs.encode(query, normalize_embeddings=True)
            order = np.argsort(-scores)
            assert [h.document.id for h in hits] == [list(PASSAGES)[i] for i in order]
            assert [h.score for h in hits] == pytest.approx(scores[order].tolist(), abs=1e-4)
            assert hits[0].document.id == answer
            mark = searcher.highlight(query, hits[:1])[0]
            assert 0 <= mark.sentence[0] < mark.sentence[1] <= len(hits[0].chunk.text)


def test_long_texts_are_covered_and_never_truncated() -> None:
    embedder = load_embedder()
    text = "\n\n".join(f"Paragraph {i} speaks of matter {i}. " * 12 for i in range(40)) + "\n\nThe needle is here."
    build_index([Document("long", text)], embedder=embedder)
    with Searcher.open(embedder=embedder) as searcher:
        hits = searcher.search("where is the needle", k=100, mode="dense", per_document=0)
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
        str(home / ".cache" / "semsearch"),
        str(Path(sys.prefix).resolve()),
        str(Path(sys.base_prefix).resolve()),
        sys.prefix,
        str(find_model().path),
        str(Path(__file__).parents[2] / "semsearch"),
        "/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib", str(temporary),
    )  # fmt: skip
    strangers = [p for p in done.stdout.splitlines() if not p.startswith(allowed)]
    assert strangers == []
    assert {p.relative_to(home).parts[:2] for p in home.rglob("*") if p.is_file()} == {(".cache", "semsearch")}
    assert not [p for p in temporary.rglob("*") if p.is_file()]  # torch makes an empty folder there
