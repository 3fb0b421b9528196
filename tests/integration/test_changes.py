"""Changes that a service has made by a process of their own. A model with random weights, real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from semsearch import Searcher, build_index
from semsearch.errors import IndexCorrupt, IndexLocked, InvalidInput, LoadError, SemsearchError
from semsearch.processes import NICENESS, ChildProcess, as_error
from semsearch.server import changes as changing
from semsearch.server.changes import ChangesBeside, ChangesHere, Stopped
from semsearch.store.writing import StoreWriter
from tests.checkpoints import write_bi_encoder
from tests.serving import is_there

PROJECT = Path(__file__).parents[2]
PATIENCE_S = 60.0
WHALE = {"id": "whale", "text": "whales sing", "title": "Whales", "metadata": {"n": 1}}
# Makes a change, tells the pid of the process that made it, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from semsearch.server.changes import ChangesBeside
changes = ChangesBeside(Path(sys.argv[1]))
changes.make({})
print(changes._child.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def index(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "quay.txt").write_text("gulls cry over the quay")
    build_index(tmp_path / "docs", index=tmp_path / "index", model=str(write_bi_encoder(tmp_path / "model")))
    return tmp_path / "index"


@pytest.fixture
def beside(index):
    with contextlib.closing(ChangesBeside(index)) as changes:
        yield changes


def documents(index):
    with Searcher.open(index) as searcher:
        return {d.id: (d.text, d.title, d.metadata) for d in searcher.documents()}


def test_they_are_what_the_same_process_would_make(index, beside, tmp_path):
    quay = str(tmp_path / "docs" / "quay.txt")
    added = {"done": True, "indexed": 1, "unchanged": 0, "removed": 0, "problems": []}
    assert beside.make({"documents": [WHALE]}) == added
    assert documents(index)["whale"] == ("whales sing", "Whales", {"n": 1})
    Path(quay).write_text("gulls sleep")
    assert beside.make({}) == added
    assert documents(index)[quay][0] == "gulls sleep"
    assert beside.make({"ids": ["whale", "never"], "paths": []}) == {"done": True, "removed": 1, "missing": ["never"]}
    here = ChangesHere(index)
    assert here.make({"documents": [WHALE]}) == added
    assert here.make({})["unchanged"] == beside.make({})["unchanged"] == 1
    assert here.make({"ids": ["whale"], "paths": [quay]}) == {"done": True, "removed": 2, "missing": []}


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no priorities here")
def test_others_come_first(beside):
    beside.make({})
    assert os.getpriority(os.PRIO_PROCESS, beside._child.process.pid) == NICENESS


def test_errors_are_those_of_the_other_process(index, beside):
    with pytest.raises(InvalidInput, match="id"):
        beside.make({"documents": [{**WHALE, "id": ""}]})
    with StoreWriter.open(index), pytest.raises(IndexLocked, match="another process"):
        beside.make({"documents": [WHALE]})
    assert beside.make({"documents": [WHALE]})["done"]
    with pytest.raises(RuntimeError, match=r'(?s)in make.*change\["paths"\].*KeyError: .paths.'):
        beside.make({"ids": ["whale"]})


def test_errors_with_more_than_a_text_keep_it():
    assert str(as_error("IndexCorrupt", "torn")) == "torn"
    assert isinstance(as_error("IndexCorrupt", "torn"), IndexCorrupt)
    assert isinstance(as_error("LoadError", "bad"), LoadError) and str(as_error("LoadError", "bad")) == "bad"
    assert isinstance(as_error("MissingExtra", "install it"), SemsearchError)
    assert type(as_error("annotations", "x")) is type(as_error("OSError", "x")) is RuntimeError


def test_one_that_was_killed_is_replaced(index, beside):
    beside.make({})
    first = beside._child.process
    first.kill()
    first.wait()
    assert beside.make({"documents": [WHALE]})["indexed"] == 1
    assert beside._child.process.pid != first.pid


def test_a_death_within_a_change_is_told(beside):
    beside.make({})
    many = [{**WHALE, "id": f"w{n}", "text": f"whale {n} sings " * 40} for n in range(20_000)]
    threading.Timer(0.5, beside._child.process.kill).start()
    with pytest.raises(SemsearchError, match=r"ended with exit status -9; ask once more"):
        beside.make({"documents": many})
    assert beside.make({})["done"]


def test_its_end_breaks_a_change_off(index, beside):
    beside.make({})
    child = beside._child.process
    many = [{**WHALE, "id": f"w{n}", "text": f"whale {n} sings " * 40} for n in range(20_000)]
    threading.Timer(1.0, beside.end).start()
    with pytest.raises(Stopped, match="send this change again"):
        beside.make({"documents": many})
    assert child.wait(PATIENCE_S) == 0
    with pytest.raises(Stopped):
        beside.make({})
    assert len(documents(index)) == 1


def test_it_may_be_closed_within_a_change(index, beside):
    beside.make({})
    child = beside._child.process
    many = [{**WHALE, "id": f"w{n}", "text": f"whale {n} sings " * 40} for n in range(20_000)]
    threading.Timer(1.0, beside.close).start()
    with pytest.raises(Stopped):
        beside.make({"documents": many})
    assert child.wait(PATIENCE_S) == 0
    beside.close()
    assert len(documents(index)) == 1


def test_its_end_reaches_one_that_is_being_started(index, beside, monkeypatch):
    class Starting(ChildProcess):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            beside.end()

    monkeypatch.setattr(changing, "ChildProcess", Starting)
    with pytest.raises(Stopped):
        beside.make({"documents": [WHALE]})
    assert len(documents(index)) == 1


def test_signals_are_left_to_the_service(index, beside):
    beside.make({})
    for sent in (signal.SIGINT, signal.SIGTERM):
        beside._child.process.send_signal(sent)
    assert beside.make({"documents": [WHALE]})["indexed"] == 1


def test_it_goes_with_the_service(index):
    command = [sys.executable, "-c", PARENT, str(index)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    child = int(parent.stdout.readline())
    assert is_there(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + PATIENCE_S
    while is_there(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_there(child)
