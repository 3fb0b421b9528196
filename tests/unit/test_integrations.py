"""What the adapters share, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = {"langchain": "langchain_core", "haystack": "haystack", "llamaindex": "llama_index"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_without_the_framework_the_error_names_the_command(module: str) -> None:
    code = f"""
import sys
sys.modules[{FRAMEWORKS[module]!r}] = None
import semsearch
try:
    import semsearch.integrations.{module}
except semsearch.SemsearchError as error:
    print(error)
"""
    assert f"pip install 'semsearch[{module}]'" in run(code)


def test_no_framework_is_imported_unasked() -> None:
    loaded = run("import sys, semsearch.integrations, semsearch.integrations.kept; print(*sys.modules)").split()
    assert not {*FRAMEWORKS.values(), "pydantic"} & set(loaded)
