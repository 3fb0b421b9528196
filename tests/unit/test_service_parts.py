"""The parts of the service, one by one."""

import asyncio
import logging
import os
import platform
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, closing

import numpy as np
import pytest

from semsearch import Document, Searcher, build_index, running
from semsearch.errors import InvalidInput
from semsearch.server import app as apps
from semsearch.server import gate as gates
from semsearch.server import writing
from semsearch.server.batching import BatchingTokenEmbedder, batching
from semsearch.server.bodies import json_bytes
from semsearch.server.changes import ChangesHere, Stopped
from semsearch.server.gate import Busy, Gate, TookTooLong
from semsearch.server.guard import Guard
from semsearch.server.metrics import Metrics
from semsearch.server.origins import Origins, is_loopback
from semsearch.server.run import check
from semsearch.server.service import Service
from semsearch.server.settings import Settings
from semsearch.server.writing import Writer
from semsearch.types import TokenEmbedder
from tests.toy import ToyEmbedder

PATIENCE_S = 30.0


class Held(ToyEmbedder):
    """Encodes when it is let, and remembers how many texts it got at once."""

    def __init__(self):
        super().__init__()
        self.begun, self.go, self.sizes = threading.Event(), threading.Event(), []

    def embed_queries(self, texts):
        self.sizes.append(len(texts))
        self.begun.set()
        assert self.go.wait(PATIENCE_S)
        if any("broken" in text for text in texts):
            raise RuntimeError("broken")
        return super().embed_queries(texts)


def encode_beside(embedder, texts):
    """Each text in a thread of its own, all but the first while that is being encoded."""
    found = {}

    def encode(text):
        try:
            found[text] = embedder.embed_queries([text])[0]
        except RuntimeError as error:
            found[text] = error

    held = embedder._embedder
    threads = [threading.Thread(target=encode, args=(text,)) for text in texts]
    threads[0].start()
    assert held.begun.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    while len(embedder._waiting) < len(texts) - 1:
        assert threads[0].is_alive()
    held.go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    return found


class TestBatching:
    def test_what_waits_is_encoded_together_and_alike(self):
        embedder, texts = batching(Held()), [f"text {n}" for n in range(40)]
        found = encode_beside(embedder, texts)
        np.testing.assert_array_equal([found[text] for text in texts], ToyEmbedder().embed_queries(texts))
        assert embedder._embedder.sizes == [1, 8, 8, 8, 8, 7]
        assert (embedder.n_batches, embedder.n_queries) == (6, 40)

    def test_a_failure_reaches_those_of_its_batch_and_no_other(self):
        found = encode_beside(batching(Held()), ["first", "second", "broken"])
        assert isinstance(found["second"], RuntimeError)
        assert isinstance(found["broken"], RuntimeError)
        np.testing.assert_array_equal(found["first"], ToyEmbedder().embed_queries(["first"])[0])

    def test_who_leads_a_batch_does_not_wait_for_those_of_others(self):
        class Slow(ToyEmbedder):
            begun, go = threading.Event(), {"mine": threading.Event(), "other": threading.Event()}

            def embed_queries(self, texts):
                self.begun.set()
                assert self.go[texts[0]].wait(PATIENCE_S)
                return super().embed_queries(texts)

        held = Slow()
        embedder = batching(held)
        mine, other = (threading.Thread(target=embedder.embed_queries, args=([text],)) for text in held.go)
        mine.start()
        assert held.begun.wait(PATIENCE_S)
        other.start()
        while not embedder._waiting:
            assert other.is_alive()
        held.go["mine"].set()
        mine.join(PATIENCE_S / 2)
        is_answered = not mine.is_alive()
        held.go["other"].set()
        for thread in (mine, other):
            thread.join(PATIENCE_S)
        assert is_answered and not other.is_alive()

    def test_what_is_expected_is_encoded_once_and_ahead(self):
        embedder = batching(Held())
        embedder._embedder.go.set()
        texts = ["same", "same", "other", 500 * "long "]
        with embedder.expecting(texts), embedder.expecting(["same"]):
            rows = [embedder.embed_queries([text])[0] for text in texts]
        np.testing.assert_array_equal(rows, ToyEmbedder().embed_queries(texts))
        assert embedder.n_queries == 3
        assert embedder._expected == {}
        assert embedder.embed_queries(["same", "other"]).shape == (2, embedder.dim)

    def test_tokens_are_told_apart_as_by_the_embedder(self):
        class Tokens(ToyEmbedder):
            precision, device = "f32", "cpu"

            def token_vectors(self, texts, *, queries=False):
                return [self.embed_queries([text]) for text in texts]

        assert isinstance(batching(Tokens()), BatchingTokenEmbedder)
        assert isinstance(batching(Tokens()), TokenEmbedder)
        assert not isinstance(batching(ToyEmbedder()), TokenEmbedder)


class TestGate:
    def test_so_many_wait_and_no_more(self):
        async def scenario():
            gate, go = Gate(n_threads=1, max_waiting=2, timeout_s=PATIENCE_S), threading.Event()
            tasks = [asyncio.create_task(gate.run(lambda n=n: go.wait(PATIENCE_S) and n)) for n in range(3)]
            await asyncio.sleep(0)
            assert gate.n_waiting == 2
            with pytest.raises(Busy):
                await gate.run(lambda: None)
            go.set()
            assert await asyncio.gather(*tasks) == [0, 1, 2]
            await asyncio.sleep(0.1)
            assert await gate.run(lambda: "again") == "again"
            gate.close()

        asyncio.run(scenario())

    def test_what_takes_too_long_is_given_up_and_its_place_kept(self):
        async def scenario():
            gate, go = Gate(n_threads=1, max_waiting=0, timeout_s=0.05), threading.Event()
            with pytest.raises(TookTooLong):
                await gate.run(lambda: go.wait(PATIENCE_S))
            with pytest.raises(Busy):
                await gate.run(lambda: None)
            go.set()
            gate.close()

        asyncio.run(scenario())

    def test_what_is_kept_is_done_and_its_failure_told(self, caplog):
        async def scenario():
            gate, go, done = Gate(n_threads=1, max_waiting=1, timeout_s=0.05), threading.Event(), threading.Event()

            def work():
                go.wait(PATIENCE_S)
                done.set()
                raise ValueError("a full disk")

            with pytest.raises(TookTooLong):
                await gate.run(work, keep=True)
            go.set()
            assert await asyncio.to_thread(done.wait, PATIENCE_S)
            gate._pool.shutdown(wait=True)

        with caplog.at_level(logging.ERROR, logger="semsearch.server"):
            asyncio.run(scenario())
        assert "a full disk" in caplog.text


class TestOrigins:
    @pytest.mark.parametrize(
        ("bound", "host", "is_known"),
        [
            ("127.0.0.1", "localhost:8765", True),
            ("127.0.0.1", "[::1]:8765", True),
            ("127.0.0.1", "localhost.", True),
            ("127.0.0.1", "192.168.1.2", False),
            ("127.0.0.1", "localhost:port", False),
            ("127.0.0.1", "user@localhost", False),
            ("127.0.0.1", "localhost/x", False),
            ("0.0.0.0", "192.168.1.2:80", True),
            ("0.0.0.0", "[fe80::1]", True),
            ("0.0.0.0", socket.gethostname(), True),
            ("0.0.0.0", "evil.example", False),
            ("192.168.1.2", "192.168.1.2:8765", True),
            ("192.168.1.2", "localhost", False),
            ("192.168.1.2", "search.example", True),
        ],
    )
    def test_hosts(self, bound, host, is_known):
        allowed = ["search.example"] if bound == "192.168.1.2" else []
        assert Origins(bound, allowed_hosts=allowed).knows_host([host]) is is_known

    @pytest.mark.parametrize(
        ("client", "server", "status"), [(None, ["/run/x.sock", None], 200), (*2 * [["127.0.0.1", 9]], 421)]
    )
    def test_only_by_the_users_own_socket_the_host_and_the_token_do_not_matter(self, client, server, status):
        sent = []

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(message):
            sent.append(message)

        settings = Settings(host="192.168.1.2", token="secret")
        guard = Guard(app, settings, Origins(settings.host), Metrics(), open_paths=frozenset())
        scope = {"type": "http", "method": "POST", "path": "/search", "headers": [(b"host", b"localhost")]}
        asyncio.run(guard({**scope, "client": client, "server": server}, receive, send))
        assert sent[0]["status"] == status

    def test_one_host_is_named(self):
        assert not Origins("127.0.0.1").knows_host([])
        assert not Origins("127.0.0.1").knows_host(["localhost", "localhost"])

    @pytest.mark.parametrize(
        ("host", "is_ours"),
        [
            ("127.0.0.1", True),
            ("127.3.2.1", True),
            ("::1", True),
            ("localhost", True),
            ("0.0.0.0", False),
            ("a.b", False),
        ],
    )
    def test_loopback(self, host, is_ours):
        assert is_loopback(host) is is_ours

    @pytest.mark.parametrize("token", ["two words", "ümlaut", "line\nend"])
    def test_tokens_that_no_header_holds(self, token):
        with pytest.raises(InvalidInput):
            check(Settings(token=token))


def test_counts_are_cumulative():
    metrics = Metrics()
    for elapsed_s in (0.001, 0.02, 99.0):
        metrics.count("GET", "/search", 200, elapsed_s)
    metrics.count("EVIL", "none", 405, 0.0)
    lines = metrics.text({"waiting": ("Those that wait.", 3)}, {}).splitlines()
    assert 'semsearch_requests_total{method="GET",route="/search",status="200"} 3' in lines
    assert 'semsearch_requests_total{method="other",route="none",status="405"} 1' in lines
    assert [line.split()[1] for line in lines if 'bucket{route="/search"' in line] == [*"11222222222", "3"]
    assert 'semsearch_request_seconds_sum{route="/search"} 99.021000' in lines
    assert lines[-3:] == ["# HELP waiting Those that wait.", "# TYPE waiting gauge", "waiting 3"]


def test_bodies_are_strict_json():
    assert json_bytes({"a": float("nan"), "b": "\udc80", "c": "ü"}) == '{"a":null,"b":"\\udc80","c":"ü"}'.encode()


class TestRunning:
    def test_a_second_service_leaves_the_first_its_place(self, tmp_path):
        with running.listening(tmp_path) as first:
            assert first is not None
            with running.listening(tmp_path) as second:
                assert second is None
            assert running._socket_path(tmp_path).exists()
        assert not running._socket_path(tmp_path).exists()

    def test_one_with_a_full_queue_keeps_its_place(self, tmp_path):
        place = running._socket_path(tmp_path, make=True)
        with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
            listener.bind(str(place))
            listener.listen(0)
            with pytest.raises(BlockingIOError):
                for _ in range(100):
                    waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                    waiting.settimeout(0)
                    waiting.connect(str(place))
            with running.listening(tmp_path) as second:
                assert second is None
            assert place.exists()
        place.unlink()

    def test_what_cannot_be_removed_from_its_place_stays(self, tmp_path):
        place = running._socket_path(tmp_path, make=True)
        place.mkdir()
        with running.listening(tmp_path) as listener:
            assert listener is None
        place.rmdir()

    def test_one_that_was_stopped_is_not_waited_for(self, tmp_path, monkeypatch):
        monkeypatch.setattr(running, "ANSWER_TIMEOUT_S", 10 * PATIENCE_S)
        answers = []
        with running.listening(tmp_path) as listener:  # nobody accepts what it is sent
            assert listener is not None
            asking = threading.Thread(target=lambda: answers.append(running.ask(tmp_path, {"q": "x"})), daemon=True)
            asking.start()
            asking.join(PATIENCE_S)
        assert answers == [None]

    @pytest.mark.parametrize("mode", [0o755, 0o777])
    def test_a_folder_that_others_may_enter_is_not_trusted(self, tmp_path, monkeypatch, mode):
        monkeypatch.setattr(running, "_folder", lambda: tmp_path / "open")
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(mode)
        with running.listening(tmp_path) as listener:
            assert listener is None

    def test_links_to_an_index_are_that_index(self, tmp_path):
        (tmp_path / "index").mkdir()
        (tmp_path / "link").symlink_to("index")
        assert running._socket_path(tmp_path / "link", make=True) == running._socket_path(tmp_path / "index")


@pytest.fixture
def writer(tmp_path):
    build_index([Document("a", "one")], index=tmp_path / "index", embedder=ToyEmbedder())
    return Writer(ChangesHere(tmp_path / "index", embedder=ToyEmbedder()))


def test_changes_wait_while_others_ask(writer, monkeypatch):
    monkeypatch.setattr(writing, "PAUSE", 1e9)
    answers, asked = iter([True, True, False]), []

    def is_asked():
        asked.append(next(answers))
        return asked[-1]

    writer.is_asked = is_asked
    writer.add([Document("b", "two")])
    assert asked == []
    writer.add([Document("c", "three")])
    assert asked == [True, True, False]


def test_a_change_waits_no_longer_than_it_has_to(writer, monkeypatch):
    monkeypatch.setattr(writing, "PAUSE", 1e9)
    monkeypatch.setattr(writing, "MAX_PAUSE_S", 0.1)
    writer.is_asked = lambda: True
    writer.add([Document("b", "two")])
    assert writer.add([Document("c", "three")])["done"]


def test_a_change_that_waits_is_given_up_when_the_service_ends(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PAUSE", 1e9)
    monkeypatch.setattr(writing, "MAX_PAUSE_S", PATIENCE_S)
    writer.is_asked = lambda: True
    with pytest.raises(InvalidInput):  # one that fails has its pause, too
        writer.add([Document("", "no id")])
    writer.end()
    with pytest.raises(Stopped, match="send this change again"):
        writer.remove(["a"], [])
    with Searcher.open(tmp_path / "index", embedder=ToyEmbedder()) as searcher:
        assert searcher.n_documents == 1


@pytest.mark.parametrize(("n_cores", "given", "expected"), [(1, 0, 2), (5, 0, 5), (5, 3, 3)])
def test_a_service_searches_with_one_thread_a_core(writer, tmp_path, monkeypatch, n_cores, given, expected):
    asked = []
    monkeypatch.setattr(apps, "n_cores", lambda: n_cores)
    monkeypatch.setattr(apps, "Gate", lambda **options: asked.append(options["n_threads"]) or Gate(**options))
    with closing(Service(tmp_path / "index", embedder=ToyEmbedder())) as service:
        apps.create_app(service, Settings(n_threads=given))
    assert asked == [expected, 1]  # and one that writes


def test_a_gate_is_used_while_somebody_waits_and_a_moment_after(monkeypatch):
    async def look():
        gate, go = Gate(n_threads=1, max_waiting=4, timeout_s=PATIENCE_S), threading.Event()
        seen = [gate.is_used()]
        waiting = [asyncio.create_task(gate.run(lambda: go.wait(PATIENCE_S))) for _ in range(2)]
        await asyncio.sleep(0)
        monkeypatch.setattr(gates, "MOMENT_S", 0.0)
        seen.append(gate.is_used())
        go.set()
        await asyncio.gather(*waiting)
        while gate._n_inside:
            await asyncio.sleep(0.01)
        seen.append(gate.is_used())
        monkeypatch.setattr(gates, "MOMENT_S", PATIENCE_S)
        seen.append(gate.is_used())
        gate.close()
        return seen

    assert asyncio.run(look()) == [False, True, False, True]


HEAPS = """
import ctypes, os, sys, threading
from semsearch.server.memory import bound_memory
if sys.argv[2] == "bounded":
    assert bound_memory()
libc, all_there = ctypes.CDLL(None), threading.Barrier(16)
libc.malloc.restype = ctypes.c_void_p
def allocate():
    all_there.wait()
    for _ in range(100):
        assert libc.malloc(1000)
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_threads_share_few_heaps(tmp_path):
    heaps = {}
    for how in ("bounded", "by default"):
        command = [sys.executable, "-c", HEAPS, str(tmp_path / how), how]
        subprocess.run(command, check=True)
        heaps[how] = (tmp_path / how).read_text().count("<heap nr=")
    assert heaps["bounded"] <= max(2, os.cpu_count()) < heaps["by default"]
