"""The examples for RAG frameworks in README.md run as they stand there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

os.environ |= {"LANGSMITH_TRACING": "false", "HAYSTACK_TELEMETRY_ENABLED": "false"}
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
FRAMEWORKS = {"langchain": "langchain_core", "haystack": "haystack", "llamaindex": "llama_index.core"}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_example_runs(name: str) -> None:
    pytest.importorskip(FRAMEWORKS[name], reason=f"{name} is not installed")
    (code,) = [block for block in BLOCKS if f"semsearch.integrations.{name} import" in block]
    assert "\nassert " in code
    exec(compile(code, f"README.md ({name})", "exec"), {"__name__": "example"})
