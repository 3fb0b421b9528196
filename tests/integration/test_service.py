"""The service as a process, asked by whom it does not expect."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from semsearch import Document, Searcher, build_index
from semsearch.server import gate
from semsearch.server.protocol import MAX_CONNECTIONS
from semsearch.server.run import _listen
from semsearch.server.service import Service
from semsearch.server.settings import Settings
from tests.serving import LOOPBACK, allow_loopback, served
from tests.toy import ToyEmbedder

PROJECT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
TOKEN = "open-sesame"
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    allow_loopback(monkeypatch)


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "harbour"
    texts = ["the lighthouse keeper trims the lamp", "gulls cry over the quay", "nets dry in the sun"]
    build_index([Document(f"d{n}", text) for n, text in enumerate(texts)], index=path, embedder=ToyEmbedder())
    return path


class Running:
    """A service's process, and how to ask it."""

    def __init__(self, process):
        self.process = process
        address = process.stdout.readline()
        assert address, process.stderr.read()
        self.port = int(address.rstrip().rstrip("/").rpartition(":")[2])

    def connect(self):
        return http.client.HTTPConnection(LOOPBACK, self.port, timeout=PATIENCE_S)

    def ask(self, path, method="GET", body=None, headers=None):
        with contextlib.closing(self.connect()) as connection:
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, data, {**(JSON if data else {}), **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def hits(self, text):
        status, body, _ = self.ask(f"/search?q={text}&k=1")
        assert status == 200, body
        return [hit["document_id"] for hit in json.loads(body)["hits"]]

    def send(self, raw):
        """What comes back for these bytes, until the service ends the connection."""
        with socket.create_connection((LOOPBACK, self.port), timeout=PATIENCE_S) as connection:
            got = []
            with contextlib.suppress(ConnectionError):
                connection.sendall(raw)
            with contextlib.suppress(ConnectionError):
                got.extend(iter(lambda: connection.recv(65536), b""))
            return b"".join(got)

    def is_alive(self):
        return self.ask("/health")[0] == 200

    def peak_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@contextlib.contextmanager
def serving(index, *, seconds=0.0, **settings):
    command = [sys.executable, "-m", "tests.serve_toy", str(index), json.dumps(settings), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def in_thread(work):
    """Begin some work; `join` gives its result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def join():
        thread.join(PATIENCE_S)
        return found[0]

    return join


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    index = tmp_path_factory.mktemp("asked") / "harbour"
    build_index([Document("d0", "the keeper trims the lamp")], index=index, embedder=ToyEmbedder())
    with pytest.MonkeyPatch.context() as patch, serving(index, cors_origins=["https://notes.example"]) as running:
        allow_loopback(patch)
        yield running


class TestWhoMayAsk:
    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "a b", "[::1"])
    def test_a_foreign_host_is_refused(self, running, host):
        assert running.ask("/search?q=lamp", headers={"Host": host})[0] in {400, 421}
        assert running.is_alive()

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8765"])
    def test_its_own_names_are_known(self, running, host):
        assert running.ask("/search?q=lamp", headers={"Host": host})[0] == 200

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "https://localhost.evil.example", "http://localhost:1"]
    )
    @pytest.mark.parametrize("method", ["GET", "OPTIONS"])
    def test_a_foreign_origin_is_refused(self, running, origin, method):
        status, body, headers = running.ask("/search?q=lamp", method, headers={"Origin": origin})
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers
        assert b"lamp" not in body

    def test_a_page_of_another_site_cannot_embed_an_answer(self, running):
        given = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert running.ask("/search?q=lamp", headers=given)[0] == 403

    def test_its_own_page_may_ask(self, running):
        assert running.ask("/search?q=lamp", headers={"Origin": f"http://{LOOPBACK}:{running.port}"})[0] == 200

    def test_a_named_origin_may_ask_and_read(self, running):
        origin = {"Origin": "https://notes.example"}
        assert running.ask("/search", "OPTIONS", headers=origin)[0] == 204
        status, _, headers = running.ask("/search?q=lamp", headers=origin)
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://notes.example")

    @pytest.mark.parametrize(
        "path",
        [
            "/../../../../etc/passwd",
            "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/page.css/../../app.py",
            "//etc/passwd",
            "/page.css%00.html",
            "/..%5c..%5capp.py",
            "/documents/..%2f..%2fetc%2fpasswd",
            "/search/../app.py",
        ],
    )
    def test_no_other_file_is_served(self, running, path):
        answer = running.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.split()[1] in {b"404", b"422"}
        assert b"root:" not in answer
        assert b"import" not in answer

    def test_the_page_may_load_nothing_from_elsewhere(self, running):
        status, body, headers = running.ask("/")
        assert status == 200
        assert b"page.js" in body
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"

    def test_unknown_methods_are_told_the_known_ones(self, running):
        status, _, headers = running.ask("/search", "PATCH")
        assert status == 405
        assert set(headers["Allow"].split(", ")) <= {"GET", "POST"}

    def test_nothing_is_written_unless_it_may_be(self, running):
        for path, method, body in (
            ("/index/documents", "POST", {"documents": [{"id": "x", "text": "x"}]}),
            ("/index/documents", "DELETE", {"ids": ["d0"]}),
            ("/index/sync", "POST", None),
        ):
            assert running.ask(path, method, body)[0] == 403
        assert running.hits("lamp") == ["d0"]


class TestLimits:
    def test_large_bodies_are_refused_without_being_kept(self, index):
        with serving(index, writable=True) as running:
            before = running.peak_bytes()
            head = "POST /index/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            assert b" 413 " in running.send(f"{head}Content-Length: 100000000\r\n\r\n".encode()).splitlines()[0]
            part = b"10000\r\n" + 0x10000 * b"a" + b"\r\n"
            answer = running.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + 1600 * part)
            assert not answer or b" 413 " in answer.splitlines()[0]  # what comes before a reset may be lost
            assert running.peak_bytes() - before < 60e6
            assert running.is_alive()

    def test_slow_clients_are_let_go(self, index):
        with serving(index, receive_timeout_s=0.5) as running:
            assert b" 408 " in running.send(b"").splitlines()[0]
            assert b" 408 " in running.send(b"GET /search?q=lamp HTTP/1.1\r\nHost: loc").splitlines()[0]
            head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
            assert b" 408 " in running.send(head).splitlines()[0]
            assert running.is_alive()

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (f"/search?q={8001 * 'a'}", None),
            ("/search?q=a&k=1001", None),
            ("/search?q=a&context=501", None),
            (f"/search?q=a&where={4001 * 'a'}", None),
            ("/search", {"queries": 65 * ["a"]}),
            ("/search", {"queries": []}),
            ("/search", {"q": "a", "k": 10**400}),
        ],
    )
    def test_sizes_are_bounded(self, running, path, body):
        status, answer, _ = running.ask(path, "GET" if body is None else "POST", body)
        assert status in {400, 422}
        assert json.loads(answer)["error"]["message"]

    def test_a_full_queue_says_when_to_come_again(self, index):
        with serving(index, seconds=2.0, n_threads=1, max_waiting=1) as running:
            first = [in_thread(lambda: running.ask("/search?q=slowly")) for _ in range(6)]
            statuses = [join() for join in first]
            assert {status for status, _, _ in statuses} == {200, 503}
            refused = next(headers for status, _, headers in statuses if status == 503)
            assert int(refused["Retry-After"]) >= 1
            assert running.hits("lamp") == ["d0"]

    def test_an_answer_that_takes_too_long_is_given_up(self, index):
        with serving(index, seconds=3.0, timeout_s=0.5) as running:
            assert running.ask("/search?q=slowly")[0] == 504
            assert running.is_alive()

    def test_nobody_waits_for_what_was_given_up(self, index):
        """Neither for the rest of a batch whose time is over, nor for what was asked by clients that hung up."""
        batch = {"queries": [f"slowly {n}" for n in range(64)], "k": 3}  # eight times a second in the encoder
        with serving(index, seconds=1.0, timeout_s=2.5, n_threads=1) as running:
            assert running.ask("/search", "POST", batch)[0] == 504
            assert running.hits("lamp") == ["d0"]
            body = json.dumps(batch).encode()
            head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            for request in (head + body, b"GET /search?q=slowly+one HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                for _ in range(4):
                    with socket.create_connection((LOOPBACK, running.port)) as connection:
                        connection.sendall(request)
                        time.sleep(0.1)
            assert running.hits("lamp") == ["d0"]
            assert b'status="499"' in running.ask("/metrics")[1]

    def test_idle_connections_make_room(self, index):
        with serving(index) as running, contextlib.ExitStack() as stack:
            idle = [
                stack.enter_context(socket.create_connection((LOOPBACK, running.port)))
                for _ in range(MAX_CONNECTIONS + 100)
            ]
            assert running.hits("lamp") == ["d0"]
            assert idle[0].recv(1) == b""  # the oldest
            idle[-1].setblocking(False)
            with pytest.raises(BlockingIOError):
                idle[-1].recv(1)

    def test_a_sync_takes_no_parameters(self, index):
        with serving(index, writable=True) as running:
            assert running.ask("/index/sync", "POST", {"paths": ["/etc"]})[0] == 400
            assert running.ask("/index/sync", "POST", {})[0] == 200

    def test_fields_are_those_that_can_be_counted(self, index):
        metadata = {"": "empty", "x" * 300: "long", "colour": "red"}
        with serving(index, writable=True) as running:
            assert (
                running.ask(
                    "/index/documents", "POST", {"documents": [{"id": "e", "text": "a", "metadata": metadata}]}
                )[0]
                == 200
            )
            fields = json.loads(running.ask("/index")[1])["fields"]
            assert "colour" in fields and not {"", "x" * 300} & set(fields)
            asked = "&".join(f"key={name}" for name in fields)
            assert running.ask(f"/facets?{asked}")[0] == 200

    def test_what_is_no_request_is_refused_like_any(self, running):
        for sent in (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + 200_000 * b"a"):
            head, _, body = running.send(sent).partition(b"\r\n\r\n")
            assert b" 400 " in head.splitlines()[0] and json.loads(body)["error"]["message"]


# A service in a process in which OpenTelemetry collects: prints what it was told of one request.
TRACED = """
import http.client, sys
from opentelemetry import trace
from semsearch.server.service import Service
from semsearch.server.settings import Settings
from tests.serving import LOOPBACK, served
from tests.toy import ToyEmbedder

class Collector(trace.TracerProvider):
    def get_tracer(self, name, *args, **kwargs):
        return Tracer(name)

class Tracer(trace.NoOpTracer):
    def __init__(self, name):
        self.name = name
    def start_span(self, name, *args, **kwargs):
        print("span", self.name, name, kwargs.get("attributes"))
        return super().start_span(name)

trace.set_tracer_provider(Collector())
with served(Service(sys.argv[1], embedder=ToyEmbedder()), Settings()) as port:
    connection = http.client.HTTPConnection(LOOPBACK, port)
    connection.request("GET", "/search?q=secret+lamp")
    print(connection.getresponse().status)
"""


def test_no_collector_is_told_of_requests(index):
    pytest.importorskip("opentelemetry", reason="FastAPI is one that does not know it")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
    command = [sys.executable, "-c", TRACED, str(index)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "200\n"


class TestToken:
    def test_without_it_only_the_page_is_answered(self, index):
        with serving(index, token=TOKEN) as running:
            for path in ("/search?q=lamp", "/index", "/metrics", "/openapi.json", "/documents/1"):
                status, _, headers = running.ask(path)
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
            assert running.ask("/search?q=lamp", headers={"Authorization": "Bearer wrong"})[0] == 401
            for scheme, status in (("Bearer", 200), ("bearer", 200), ("Basic", 401), ("", 401)):
                given = {"Authorization": f"{scheme} {TOKEN}".strip()}
                assert running.ask("/search?q=lamp", headers=given)[0] == status
            assert running.ask("/")[0] == 200
            assert running.ask("/", "HEAD")[:2] == (200, b"")
            assert running.is_alive()


class TestAgents:
    """MCP over HTTP, by the SDK's own client."""

    @staticmethod
    def talk(running, use, headers=None):
        async def talked():
            async with (
                httpx2.AsyncClient(headers=headers, trust_env=False) as http_client,
                streamable_http_client(f"http://{LOOPBACK}:{running.port}/mcp", http_client=http_client) as streams,
                ClientSession(*streams) as session,
            ):
                await session.initialize()
                return await use(session)

        return anyio.run(talked)

    def test_they_find_what_others_find(self, index):
        async def use(session):
            names = {tool.name for tool in (await session.list_tools()).tools}
            found = await session.call_tool("search", {"query": "lamp", "k": 1})
            chunk_id = found.structured_content["passages"][0]["chunk_id"]
            context = await session.call_tool("get_context", {"chunk_id": chunk_id})
            refused = await session.call_tool("search", {"query": "lamp", "index": "/etc"})
            return names, found.structured_content, context.structured_content["text"], refused

        with serving(index) as running:
            names, found, context, refused = self.talk(running, use)
            assert names == {"search", "get_context", "list_indexes", "similar"}
            assert found["index"] == "harbour"
            assert [p["text"] for p in found["passages"]] == [context] == ["the lighthouse keeper trims the lamp"]
            assert refused.is_error and "harbour" in refused.content[0].text
            shutil.rmtree(index)
            gone = self.talk(running, lambda session: session.call_tool("search", {"query": "lamp"}))
            assert gone.is_error and "there is no index" in gone.content[0].text
            assert str(index.parent) not in gone.content[0].text
            build_index([Document("other", "another lamp")], index=index, embedder=ToyEmbedder())
            assert self.talk(running, use)[1]["passages"][0]["text"] == "another lamp"
            counts = running.ask("/metrics")[1].decode()
            assert 'method="POST",route="/mcp",status="200"' in counts
            assert running.ask("/mcp")[0] == 405  # no stream that would last as long as the client does
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(PATIENCE_S) == 0

    def test_a_token_is_asked_for(self, index):
        async def use(session):
            return await session.call_tool("search", {"query": "lamp"})

        with serving(index, token=TOKEN) as running:
            given = {"Authorization": f"Bearer {TOKEN}"}
            assert self.talk(running, use, given).structured_content["passages"]
            assert running.ask("/mcp", "POST", {"jsonrpc": "2.0", "method": "ping", "id": 1})[0] == 401

    @pytest.mark.parametrize(("header", "status"), [("Origin", 403), ("Host", 421)])
    def test_pages_of_other_sites_are_not_answered(self, running, header, status):
        accepted = {"Accept": "application/json, text/event-stream"}
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "search", "arguments": {"query": "lamp"}},
        }
        for path in ("/mcp", "/mcp/"):
            assert b"keeper" in running.ask(path, "POST", call, accepted)[1]
        foreign = {**accepted, header: "http://evil.example" if header == "Origin" else "evil.example"}
        refused, body, _ = running.ask("/mcp", "POST", call, foreign)
        assert refused == status and b"keeper" not in body

    def test_they_wait_with_all_others(self, index):
        async def use(session):
            async with anyio.create_task_group() as group:
                results = []

                async def call():
                    results.append(await session.call_tool("search", {"query": "slowly"}))

                for _ in range(4):
                    group.start_soon(call)
            return results

        with serving(index, seconds=2.0, n_threads=1, max_waiting=1) as running:
            results = self.talk(running, use)
            told = [result.content[0].text for result in results if result.is_error]
            assert 0 < len(told) < 4 and all("too many requests" in text for text in told)


class TestTheIndexMoves:
    def test_what_another_process_writes_is_found_at_once(self, index):
        with serving(index) as running:
            assert running.hits("zebra") != ["new"]
            build_index([Document("new", "a zebra crossing")], index=index, embedder=ToyEmbedder())
            assert running.hits("zebra") == ["new"]

    def test_an_index_in_its_place_is_opened(self, index):
        with serving(index) as running:
            assert running.hits("lamp") == ["d0"]
            shutil.rmtree(index)
            status, body, headers = running.ask("/search?q=lamp")
            assert (status, "Retry-After" in headers) == (503, True)
            assert str(index.parent).encode() not in body
            build_index([Document("other", "a lamp")], index=index, embedder=ToyEmbedder())
            assert running.hits("lamp") == ["other"]

    def test_writes_show_while_searches_go_on(self, index):
        with serving(index, writable=True) as running:
            written = threading.Event()
            statuses = []

            def read():
                while not written.is_set():
                    statuses.append(running.ask("/search?q=lamp")[0])

            reading = in_thread(read)
            for n in range(5):
                body = {"documents": [{"id": f"w{n}", "text": f"whale number {n}", "metadata": {"n": n}}]}
                assert running.ask("/index/documents", "POST", body)[0] == 200
            written.set()
            reading()
            assert set(statuses) == {200}
            assert len(running.ask("/search?q=whale&per_document=0&k=1000")[1]) > 0
            status, body, _ = running.ask("/index/documents", "DELETE", {"ids": ["w0", "never"]})
            assert (status, json.loads(body)["removed"], json.loads(body)["missing"]) == (200, 1, ["never"])
            assert running.ask("/search?q=whale&where=n%20=%200")[1].count(b"whale") == 1  # the query itself


def test_changes_wait_for_the_searches_of_their_service(index, monkeypatch):
    monkeypatch.setattr(gate, "MOMENT_S", PATIENCE_S)
    service = Service(index, embedder=ToyEmbedder(), writable=True)
    with served(service, Settings(writable=True)) as port:
        assert not service.writer.is_asked()
        with contextlib.closing(http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", "/search?q=lamp")
            assert connection.getresponse().status == 200
        assert service.writer.is_asked()


def test_answers_are_sent_without_delay():
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio turns Nagle's algorithm off only there


class TestItsEnd:
    def test_a_second_interrupt_breaks_nothing_off(self, index):
        with serving(index, seconds=1.5) as running:
            asked = in_thread(lambda: running.ask("/search?q=slowly"))
            time.sleep(0.5)
            for _ in range(2):
                running.process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            assert asked()[0] == 200
            out, err = running.process.communicate(timeout=PATIENCE_S)
            assert (running.process.returncode, out, err) == (0, "ended\n", "")

    @pytest.mark.parametrize(("seconds", "timeout_s"), [(1.5, PATIENCE_S), (6.0, 3.0)])  # it stops in time, and later
    def test_a_change_is_given_up(self, index, seconds, timeout_s):
        with serving(index, seconds=seconds, writable=True, timeout_s=timeout_s) as running:
            documents = [{"id": f"w{n}", "text": f"whales sing slowly {n}", "metadata": {}} for n in range(600)]
            changed = in_thread(lambda: running.ask("/index/documents", "POST", {"documents": documents}))
            time.sleep(0.5)
            assert json.loads(running.ask("/index")[1])["writing"]
            running.process.send_signal(signal.SIGTERM)
            status, body, headers = changed()
            assert (status, "Retry-After" in headers) == (503, True)
            assert b"send this change again" in body
            running.process.communicate(timeout=PATIENCE_S)
        with Searcher.open(index, embedder=ToyEmbedder()) as searcher:
            assert searcher.n_documents == 3

    @pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
    def test_requests_in_flight_are_answered(self, index, sent):
        with serving(index, seconds=1.5) as running:
            asked = in_thread(lambda: running.ask("/search?q=slowly"))
            time.sleep(0.5)
            running.process.send_signal(sent)
            assert asked()[0] == 200
            out, err = running.process.communicate(timeout=PATIENCE_S)
            assert (running.process.returncode, out, err) == (0, "ended\n", "")
