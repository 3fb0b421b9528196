"""Training for real: tiny random checkpoints, a few steps, seconds."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semsearch.training.data import TrainingData
from semsearch.training.runs import Training, train_embedder
from semsearch.training.settings import Settings
from tests.checkpoints import write_bi_encoder

WORDS = ["river", "stone", "cloud", "query", "passage", "the"]
SETTINGS = Settings(
    epochs=2, batch_size=4, learning_rate=2e-3, warmup=0.1, weight_decay=0.01, max_length=32, negatives=1, positives=1,
    loss="mnr", seed=3, precision="f32", device="cpu",
)  # fmt: skip


def collection(n_queries: int = 20) -> TrainingData:
    """Words that mean each other: a query names one, its passage the other."""
    letters = "abcdefghijklmnopqrst"
    return TrainingData(
        source="made up",
        queries={f"q{i:02}": f"{letters[i]} river" for i in range(n_queries)},
        texts=[f"stone {letters[(i * 7) % 20]}{letters[i]} cloud" for i in range(20)],
        contexts=[""] * 20,
        owners=[f"p{i:02}" for i in range(20)],
        qrels={f"q{i:02}": {f"p{i:02}": 1 + i % 2} for i in range(n_queries)},
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bi_encoder(tmp_path_factory.mktemp("base") / "tiny"))


def training(base: str, output: str | Path = "out", **more: Any) -> Training:
    settings = replace(SETTINGS, **{k: more.pop(k) for k in list(more) if hasattr(SETTINGS, k)})
    return Training(output=Path(output), settings=settings, base=base, held_out=0.3, **more)


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class Watcher:
    """Counts what it is told, and sends Ctrl-C at a step."""

    def __init__(self, interrupt_at: int = 0) -> None:
        self.interrupt_at = interrupt_at
        self.seen: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.seen.append((what, done, total))
        if what == "training" and done == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)


def test_embedder_smoke(base):
    report = train_embedder(collection(), training(base, alpha=1.1))
    assert report
