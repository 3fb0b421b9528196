"""The examples for RAG frameworks in README.md run as they stand there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

os.environ |= {"LANGSMITH_TRACING": "false", "HAYSTACK_TELEMETRY_ENABLED": "false"}
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = {
    framework: [
        code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if f".{framework} import" in code
    ]
    for framework in ("langchain",)
}


@pytest.mark.parametrize("framework", EXAMPLES)
def test_the_example_runs(framework: str) -> None:
    pytest.importorskip({"langchain": "langchain_core"}.get(framework, framework))
    (code,) = EXAMPLES[framework]
    assert "assert " in code
    exec(compile(code, f"README.md ({framework})", "exec"), {"__name__": "example"})
