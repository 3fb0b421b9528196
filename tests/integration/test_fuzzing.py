"""A few hundred inputs of each fuzzing target, the same every time; `python -m tests.fuzzing` goes on from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is not installed; it is there for Linux on x86-64")
RUNS = 400
LIMITS = ("-max_len=1000", "-timeout=60", "-rss_limit_mb=4000")
TARGETS = (
    "filter", "query", ".md", ".rst", ".adoc", ".txt", ".html", ".csv", ".jsonl", ".json", ".ipynb", ".py", ".c",
    ".odt", ".epub",
)  # fmt: skip


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.fuzzing", *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)


@pytest.mark.parametrize("target", TARGETS)
def test_foreign_text_is_read_or_refused_in_words(target: str) -> None:
    done = fuzz(target, "corpus", f"-runs={RUNS}", "-seed=1", *LIMITS)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert int(re.search(r"Done (\d+) runs", done.stderr)[1]) >= RUNS


def test_every_target_is_run() -> None:
    done = fuzz("no such target", "corpus")
    assert done.returncode != 0 and done.stderr.splitlines()[-1].endswith(", ".join(TARGETS))
