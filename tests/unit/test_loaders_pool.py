"""Worker processes: order, streams, limits, and no process left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semsearch.errors import InvalidInput, LoadError
from semsearch.loaders import LoaderPool, load, pool
from tests.unit.loaders_fixtures import pdf_bomb, write

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are those of POSIX")
proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to look at processes")


def slow_to_parse(path: Path) -> Path:
    """A file whose loading takes many seconds on any machine: nested tables, each row looked through for inner ones."""
    return write(path, "<table><tr><td>" * 300_000 + "x")


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def results(paths, **options):
    found = []
    with LoaderPool(**options) as workers:
        for path, documents in workers.load_all(paths):
            try:
                found.append((path.name, [document.text for document in documents]))
            except LoadError as error:
                found.append((path.name, error.reason))
    return found


def test_results_come_in_the_order_given_and_equal_those_of_load(tmp_path):
    paths = [
        write(tmp_path / f"{k}.md", f"# Title {k}\n\n" + "words " * (40_000 if k % 7 == 0 else 1)) for k in range(40)
    ]
    paths.append(write(tmp_path / "a.csv", "title,text\nA,one\nB,two\n"))
    seen = []
    with LoaderPool(2) as workers:
        for path, documents in workers.load_all(iter(paths)):
            seen.append(path)
            assert list(documents) == list(load(path))
    assert seen == paths


def test_errors_come_with_their_kind(tmp_path):
    paths = [write(tmp_path / "a.md", ""), tmp_path / "gone.md", write(tmp_path / "b.md", "fine")]
    kinds = []
    with LoaderPool(1) as workers:
        for _, documents in workers.load_all(paths):
            try:
                kinds.append(next(documents).text)
            except LoadError as error:
                kinds.append((error.reason, error.skipped, error.retry))
    assert kinds == [("empty file", True, False), ("no longer there", False, True), "fine"]


def test_rows_before_a_bad_line_arrive_and_then_the_error(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' * 500 + "{oops\n")
    with LoaderPool(1) as workers:
        stream = workers.load_all([path])
        _, documents = next(stream)
        taken = []
        with pytest.raises(LoadError, match="line 501"):
            taken.extend(document.id for document in documents)
    assert len(taken) <= 500


def test_the_text_column_reaches_the_workers(tmp_path):
    path = write(tmp_path / "a.csv", "text,note\nbody,remark\n")
    assert results([path], text_column="note") == [("a.csv", ["remark"])]


def test_a_large_table_is_streamed_through_a_bounded_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_MAX_BUFFERED_BYTES", 1_000_000)
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for k in range(6_000):
            file.write(json.dumps({"text": f"row {k} " + "words " * 80}) + "\n")
    others = [write(tmp_path / f"{k}.txt", "words " * 150_000) for k in range(3)]
    with LoaderPool(2) as workers:
        most = count = 0
        for _, documents in workers.load_all([path, *others]):
            for document in documents:
                most = max(most, workers._buffered_bytes)
                count += 1
                assert document.text.startswith(f"row {count - 1} ") or count > 6_000
    assert count == 6_003
    assert most < 4_000_000


def test_what_is_left_of_a_file_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_MAX_BUFFERED_BYTES", 1_000_000)
    big = write(tmp_path / "a.jsonl", ('{"text": "' + "x" * 500 + '"}\n') * 8_000)
    small = write(tmp_path / "b.md", "small")
    with LoaderPool(1) as workers:
        stream = workers.load_all([big, small])
        _, first = next(stream)
        assert next(first).id.endswith("#row=1")
        _, second = next(stream)
        assert [document.text for document in second] == ["small"]
        with pytest.raises(InvalidInput, match="too late"):
            list(first)


def test_workers_that_take_too_long_are_replaced(tmp_path):
    text = b"BT /F1 12 Tf (words) Tj ET\n" * 1_000
    paths = [
        slow_to_parse(tmp_path / "slow.html"),
        pdf_bomb(tmp_path / "many.pdf", text, n_repeats=10, n_pages=2_000),
        write(tmp_path / "b.md", "after"),
    ]
    assert results(paths, n_workers=2, timeout_s=1.0) == [
        ("slow.html", "took longer than 1 s"),
        ("many.pdf", "took longer than 1 s"),
        ("b.md", ["after"]),
    ]


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit the address space")
def test_workers_that_need_too_much_memory_are_replaced(tmp_path):
    wide = write(tmp_path / "wide.txt", "\U0001f600" + "x" * (40 << 20))  # 160 MiB: the first character widens all
    bomb = pdf_bomb(tmp_path / "bomb.pdf", b"BT /F1 12 Tf (words) Tj ET\n" * 4_000, n_repeats=300)
    assert bomb.stat().st_size < 300_000
    found = results([wide, bomb, write(tmp_path / "b.md", "after")], n_workers=2, memory_bytes=250 << 20)
    assert found == [
        ("wide.txt", "needs more than 250 MiB of memory"),
        ("bomb.pdf", "damaged, or needs more than 250 MiB of memory (the parser ended itself, exit code -6)"),
        ("b.md", ["after"]),
    ]


@posix
@proc
def test_a_worker_that_dies_is_replaced_and_its_file_reported(tmp_path):
    slow = slow_to_parse(tmp_path / "slow.html")
    before = children()
    with LoaderPool(1) as workers:
        stream = workers.load_all([write(tmp_path / "a.md", "x"), slow, write(tmp_path / "b.md", "after")])
        assert [d.text for d in next(stream)[1]] == ["x"]
        _, documents = next(stream)
        time.sleep(0.3)
        (victim,) = children() - before
        os.kill(victim, signal.SIGSEGV)
        with pytest.raises(LoadError, match=r"the parser crashed \(exit code -11\)"):
            list(documents)
        assert [d.text for d in next(stream)[1]] == ["after"]
    assert children() == before


@posix
@proc
def test_no_process_outlives_the_block(tmp_path):
    before = children()
    with pytest.raises(KeyboardInterrupt), LoaderPool(2) as workers:
        for _ in workers.load_all([slow_to_parse(tmp_path / f"{k}.html") for k in range(3)]):
            time.sleep(0.5)
            assert len(children() - before) == 2
            raise KeyboardInterrupt
    assert children() == before
    with pytest.raises(InvalidInput, match="closed"):
        next(workers.load_all([]))


@posix
@proc
def test_workers_end_when_their_parent_is_killed(tmp_path):
    slow_to_parse(tmp_path / "slow.html")
    script = (
        "import sys; from pathlib import Path; from semsearch.loaders import LoaderPool\n"
        "pool = LoaderPool(1); stream = pool.load_all([Path('slow.html')]); next(stream)\n"
        "import time\n"
        "while pool._lanes[0].worker is None: time.sleep(0.05)\n"
        "print(pool._lanes[0].worker.process.pid, flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as parent:
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    deadline = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_modules_in_the_working_folder_do_not_shadow_others(tmp_path, monkeypatch):
    for name in ("json", "csv", "semsearch", "selectolax", "numpy"):
        write(tmp_path / f"{name}.py", "raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert results([write(tmp_path / "a.html", "<p>x")]) == [("a.html", ["x"])]


def test_a_pool_needs_a_worker():
    with pytest.raises(InvalidInput, match="n_workers is 0"):
        LoaderPool(0)


def test_importing_the_loaders_is_light():
    code = (
        "import sys, semsearch.loaders; heavy = {'docx', 'pptx', 'pypdfium2', 'lxml', 'selectolax', 'yaml', "
        "'pathspec', 'torch', 'faiss', 'charset_normalizer'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
