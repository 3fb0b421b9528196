"""What README.md says is what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_tables_are_those_of_the_benchmark_results() -> None:
    script = PROJECT / "benchmarks" / "_tables.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0
    assert (PROJECT / "README.md").read_text(encoding="utf-8").count("<!-- table ") == 13
