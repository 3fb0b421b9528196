"""`semsearch watch` as a process, with the real model."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PATIENCE_S = 120.0


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_what_it_indexed_and_ends_when_interrupted(tmp_path, signalled):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "sea.txt").write_text("The lighthouse keeper trims the lamp at dusk.\n")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "semsearch", "watch", str(folder), "--index", str(tmp_path / "index"), "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        impatient = threading.Timer(PATIENCE_S, process.kill)
        impatient.start()
        first = json.loads(process.stdout.readline())
        assert first["files"]["indexed"] == 1
        told = [process.stderr.readline() for _ in range(2)]
        assert "  1 indexed; 1 passage encoded, 1 in the index (" in told[0]
        assert told[1] == f"semsearch: watching {folder}; Ctrl-C ends it\n"
        (folder / "bread.txt").write_text("Knead the dough until it is smooth.\n")
        (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
        seen = []
        while sum(report["files"]["indexed"] for report in seen) < 1:
            seen.append(json.loads(process.stdout.readline()))
        process.send_signal(signalled)
        _, told = process.communicate()
        impatient.cancel()
    assert process.returncode == 130
    assert "semsearch: interrupted" in told and "Traceback" not in told
    query = [
        sys.executable,
        "-m",
        "semsearch",
        "query",
        "dough",
        "--index",
        str(tmp_path / "index"),
        "--format",
        "paths",
    ]
    found = subprocess.run(query, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[0] == str(folder / "bread.txt")


def test_the_first_run_that_fails_is_an_error(tmp_path):
    command = [sys.executable, "-m", "semsearch", "watch", "--index", str(tmp_path / "none")]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "name a folder" in done.stderr and "Traceback" not in done.stderr
