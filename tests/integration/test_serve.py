"""`semsearch serve` as a user starts it, and `semsearch query` beside it: the real model."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from semsearch import Document, Searcher, build_index, running
from semsearch.cli import cli
from semsearch.errors import InvalidInput
from semsearch.processes import NICENESS
from semsearch.running import ask
from tests.serving import LOOPBACK, allow_loopback, is_there

PROJECT = Path(__file__).parents[2]
PAGES = {
    "git.md": "# Undo\n\nTo undo the last commit and keep its changes, use git reset --soft HEAD~1.\n",
    "bread.md": "# Bread\n\nKnead the dough until it is smooth, then let it rise in a warm place.\n",
    "pool.html": "<title>The swimming pool</title><p>It opens at nine in the morning.",
    "gulls.md": "# Gulls\n\nGulls cry over the harbour while the nets dry in the sun.\n",
}
ARGUMENTS = (
    ("undo a commit",),
    ("undo a commit", "--explain", "-k", "2"),
    ("when can I go swimming", "--explain", "-k", "1"),  # a word of it is in the title alone
    ("rising dough", "--mode", "dense", "--context", "3"),
    ("harbour", "--mode", "lexical", "--facet", "type"),
    ("harbour", "--where", "path ~ '**/gulls.md'", "--min-probability", "0"),
    ("xyzzy plugh", "--no-rerank"),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "pages").mkdir()
    for name, text in PAGES.items():
        (root / "pages" / name).write_text(text, encoding="utf-8")
    build_index(root / "pages", index=root / "index")
    return root / "index"


def command(*arguments):
    return [sys.executable, "-m", "semsearch", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def run(*arguments):
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=120)


@contextlib.contextmanager
def serving(index, *arguments):
    """A service's process that answers."""
    process = subprocess.Popen(
        command("serve", "--index", index, "--port", 0, *arguments),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        lines = [process.stderr.readline()]
        while "serving at http://127.0.0.1:" not in lines[-1]:
            assert process.poll() is None, "".join(lines)
            lines.append(process.stderr.readline())
        yield process
    finally:
        process.kill()
        process.communicate()


def without_time(answer):
    return {name: value for name, value in json.loads(answer).items() if name != "elapsed_ms"}


@pytest.fixture(scope="module")
def service(index):
    with serving(index) as process:
        yield process


def test_a_service_that_watches_follows_its_folders(tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "gulls.md").write_text(PAGES["gulls.md"], encoding="utf-8")
    build_index(pages, index=tmp_path / "index")
    with serving(tmp_path / "index", "--watch") as process:
        (pages / "bread.md").write_text(PAGES["bread.md"], encoding="utf-8")
        found = []
        for _ in range(600):  # a minute
            found = ask(tmp_path / "index", {"q": "kneading dough", "k": 1})["hits"]
            if found and Path(found[0]["path"]).name == "bread.md":
                break
            time.sleep(0.1)
        assert [Path(hit["path"]).name for hit in found] == ["bread.md"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def add(index, documents):
    """What the service answers to documents, with its head."""
    body = json.dumps({"documents": documents}).encode()
    head = f"Host: {LOOPBACK}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(running._socket_path(index)))
        connection.sendall(f"POST /index/documents HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_changes_its_index_and_ends_with_all_its_processes(tmp_path, sent):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "gulls.md").write_text(PAGES["gulls.md"], encoding="utf-8")
    build_index(tmp_path / "pages", index=tmp_path / "index")
    documents = [{"id": "b", "text": "Knead the dough until it is smooth."}]
    with serving(tmp_path / "index", "--writable", "--watch") as process:
        assert b'"indexed":1' in add(tmp_path / "index", documents)
        (hit,) = ask(tmp_path / "index", {"q": "kneading dough", "k": 1})["hits"]
        assert hit["document_id"] == "b"
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        both = {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}
        assert len(both) == 2
        many = [{"id": f"w{n}", "text": f"whale {n} sings of the sea " * 30} for n in range(1_000)]
        found = []
        changing = threading.Thread(target=lambda: found.append(add(tmp_path / "index", many)))
        changing.start()
        time.sleep(1.0)
        os.killpg(process.pid, sent)
        changing.join()
        assert found[0].startswith(b"HTTP/1.1 503") and b"send this change again" in found[0]
        assert process.wait(60) == 0
        told = process.stderr.read()
        assert "error" not in told and "Traceback" not in told
        assert not any(map(is_there, both))
    with Searcher.open(tmp_path / "index") as searcher:
        assert searcher.n_documents == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_what_watches_ends_with_the_service(index, sent):
    with serving(index, "--watch") as process:
        (child,) = children(process)
        assert os.getpriority(os.PRIO_PROCESS, child) == NICENESS
        process.send_signal(sent)
        process.wait(60)
        for _ in range(600):  # a minute
            if not is_there(child):
                break
            time.sleep(0.1)
        assert not is_there(child)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_it_is_told_when_nothing_watches_any_more(index):
    with serving(index, "--watch") as process:
        os.kill(children(process)[0], signal.SIGKILL)
        told = process.stderr.readline()
        while "no longer watched" not in told:
            assert told
            told = process.stderr.readline()
        assert told == "semsearch: error: the folders are no longer watched: its process ended with exit status -9\n"
        assert ask(index, {"q": "kneading dough", "k": 1})["hits"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_it_is_watched_on_where_nobody_reads_what_is_told(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "gulls.md").write_text(PAGES["gulls.md"], encoding="utf-8")
    build_index(tmp_path / "pages", index=tmp_path / "index")
    with serving(tmp_path / "index", "--watch") as process:
        process.stderr.close()
        for name in ("bread.md", "git.md"):
            (tmp_path / "pages" / name).write_text(PAGES[name], encoding="utf-8")
            found = 0
            for _ in range(600):  # a minute
                with Searcher.open(tmp_path / "index") as searcher:
                    found = len(searcher.documents([str(tmp_path / "pages" / name)]))
                if found:
                    break
                time.sleep(0.1)
            assert found == 1
        process.kill()
        process.wait()
        process.stderr = Path(os.devnull).open()  # noqa: SIM115 - `serving` reads and closes it


def test_nothing_to_watch_is_an_error(tmp_path):
    build_index([Document("a", "one")], index=tmp_path / "index")
    done = run("serve", "--watch", "--index", tmp_path / "index", "--port", 0)
    assert done.returncode == 2
    assert "remembers no folder that could be watched" in done.stderr and "Traceback" not in done.stderr


class TestQueryAsksIt:
    @pytest.mark.parametrize("arguments", ARGUMENTS)
    def test_with_the_same_answer(self, index, service, arguments):
        asked = run("query", *arguments, "--index", index, "--json")
        alone = run("query", *arguments, "--index", index, "--json", "--no-service")
        assert without_time(asked.stdout) == without_time(alone.stdout)
        assert asked.returncode == alone.returncode
        shown = [run("query", *arguments, "--index", index, *more) for more in ((), ("--no-service",))]
        assert shown[0].stdout == shown[1].stdout
        assert shown[0].stderr == shown[1].stderr

    @pytest.mark.parametrize(
        "more", [(), ("--explain", "-k", "1000"), ("--mode", "lexical", "--min-probability", "0.5")]
    )
    def test_with_the_same_answers_to_a_batch(self, index, service, more, tmp_path):
        queries = [*(f"{query} {n}" for n in range(6) for query in ("rising dough", "harbour")), "", "  ", "undo"]
        (tmp_path / "queries").write_text("\n".join(queries), encoding="utf-8")
        arguments = ("query", "--batch", tmp_path / "queries", "--index", index, *more)
        asked, alone = run(*arguments), run(*arguments, "--no-service")
        assert [without_time(line) for line in asked.stdout.splitlines()] == [
            without_time(line) for line in alone.stdout.splitlines()
        ]
        assert asked.stdout.count("\n") == len(queries) and asked.returncode == alone.returncode == 0

    def test_also_by_a_batch_as_long_as_it_answers(self, index, service, tmp_path, monkeypatch):
        def not_asked(*_, **__):
            raise InvalidInput("the index was opened")

        monkeypatch.setattr(Searcher, "open", not_asked)
        for name, text in (("few", "undo a commit\n\n"), ("long", "undo a commit\n" + 9_000 * "a")):
            (tmp_path / name).write_text(text, encoding="utf-8")
        answered = CliRunner().invoke(cli, ["query", "--batch", str(tmp_path / "few"), "--index", str(index)])
        assert [len(json.loads(line)["hits"]) > 0 for line in answered.stdout.splitlines()] == [True, False]
        refused = CliRunner().invoke(cli, ["query", "--batch", str(tmp_path / "long"), "--index", str(index)])
        assert (refused.exit_code, refused.stdout) == (2, "") and "the index was opened" in refused.stderr

    def test_and_it_was_asked(self, index, service):
        answer = ask(index, {"q": "undo a commit", "k": 1})
        assert answer is not None
        assert [Path(hit["path"]).name for hit in answer["hits"]] == ["git.md"]

    def test_and_not_for_another_index(self, index, service, tmp_path):
        (tmp_path / "page.md").write_text("A page about herons.\n", encoding="utf-8")
        build_index(tmp_path / "page.md", index=tmp_path / "other")
        assert ask(tmp_path / "other", {"q": "herons"}) is None

    def test_mistakes_are_told_as_without_it(self, index, service):
        asked = run("query", "gulls", "--index", index, "--where", "no ( sense")
        assert (asked.returncode, asked.stdout) == (2, "")
        assert asked.stderr == run("query", "gulls", "--index", index, "--where", "no ( sense", "--no-service").stderr


class TestAServiceThatIsGone:
    @pytest.fixture
    def index(self, tmp_path):  # one that no other service has
        (tmp_path / "git.md").write_text(PAGES["git.md"], encoding="utf-8")
        build_index(tmp_path / "git.md", index=tmp_path / "index")
        return tmp_path / "index"

    @pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
    def test_is_not_asked(self, index, sent, own_runtime_folder):
        before = set(own_runtime_folder.rglob("*.sock"))
        with serving(index) as process:
            process.send_signal(sent)
            process.wait(60)
        left = set(own_runtime_folder.rglob("*.sock")) - before
        assert len(left) == (1 if sent == signal.SIGKILL else 0)
        assert run("query", "undo a commit", "--index", index, "-k", 1).returncode == 0
        with serving(index):  # and its socket is taken over
            assert ask(index, {"q": "gulls"}) is not None

    def test_by_two_signals_at_once(self, index):
        with serving(index) as process:
            for sent in (signal.SIGTERM, signal.SIGINT):
                process.send_signal(sent)
            assert process.wait(60) == 0
            assert process.stderr.read() == ""

    def test_that_was_stopped_is_not_waited_for(self, index, monkeypatch):
        monkeypatch.setattr(running, "ANSWER_TIMEOUT_S", 3600.0)
        with serving(index) as process:
            process.send_signal(signal.SIGSTOP)
            asking = threading.Thread(target=ask, args=(index, {"q": "gulls"}), daemon=True)
            asking.start()
            asking.join(60)
            assert not asking.is_alive()


class TestItDoesNotStart:
    def test_without_an_index(self, tmp_path):
        done = run("serve", "--index", tmp_path / "none", "--port", 0)
        assert done.returncode == 2
        assert done.stderr.startswith("semsearch: error: there is no index in")

    def test_with_one_that_cannot_be_read(self, tmp_path):
        (tmp_path / "index").mkdir()
        (tmp_path / "index" / "store.db").write_bytes(b"not a database" * 100)
        done = run("serve", "--index", tmp_path / "index", "--port", 0)
        assert done.returncode == 2
        assert "is not a readable database" in done.stderr
        assert "Traceback" not in done.stderr

    def test_where_the_port_is_taken(self, index, monkeypatch):
        allow_loopback(monkeypatch)
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            done = run("serve", "--index", index, "--port", port)
        assert done.returncode == 2
        assert f"port {port} of 127.0.0.1 is taken" in done.stderr

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
    def test_on_a_network_without_a_token(self, index, host):
        done = run("serve", "--index", index, "--host", host, "--port", 0)
        assert done.returncode == 2
        assert "--token" in done.stderr
