"""`semsearch mcp` as agents start it: a process, its pipes, and the SDK's client."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client

from semsearch import build_index

PROJECT = Path(__file__).parents[2]
BREAD = "# Kitchen\n\n## Bread\n\nKnead the dough until it is smooth. Bake it until the crust is brown.\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    documents = tmp_path_factory.mktemp("documents")
    (documents / "bread.md").write_text(BREAD)
    (documents / "sea.txt").write_text("The lighthouse keeper trims the lamp at dusk.\n")
    build_index(documents, index=home / "indexes" / "default")
    build_index(documents / "sea.txt", index=home / "indexes" / "sea")
    return home


@pytest.fixture
def environment(home):
    return {**os.environ, "PYTHONPATH": str(PROJECT), "SEMSEARCH_HOME": str(home)}


def test_a_client_searches_reads_on_and_names_an_index(environment):
    async def talk():
        command = StdioServerParameters(command=sys.executable, args=["-m", "semsearch", "mcp"], env=environment)
        async with stdio_client(command) as streams, ClientSession(*streams) as session:
            started = await session.initialize()
            assert started.server_info.name == "semsearch" and "search" in started.instructions
            assert len((await session.list_tools()).tools) == 4
            calls = (
                ("search", {"query": "how to bake a loaf", "k": 1}),
                ("search", {"query": "how to bake a loaf", "index": "sea"}),
                ("list_indexes", {}),
                ("search", {"query": "loaf", "index": "/etc"}),
            )
            results = [await session.call_tool(name, arguments) for name, arguments in calls]
            chunk_id = results[0].structured_content["passages"][0]["chunk_id"]
            context = await session.call_tool("get_context", {"chunk_id": chunk_id})
            return [*results, context]

    found, nothing, indexes, refused, context = anyio.run(talk)
    (passage,) = found.structured_content["passages"]
    assert passage["path"].endswith("bread.md") and passage["heading"] == "Kitchen > Bread"
    assert 0.2 < passage["probability"] <= 1
    assert nothing.structured_content["passages"] == []
    assert nothing.structured_content["note"].startswith("nothing")
    assert [entry["name"] for entry in indexes.structured_content["indexes"]] == ["default", "sea"]
    assert refused.is_error
    assert passage["text"] in context.structured_content["text"]


def lines(*calls):
    first = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    messages = [
        {"id": 0, "method": "initialize", "params": first},
        {"method": "notifications/initialized"},
        *({"id": i, "method": method, "params": params} for i, (method, params) in enumerate(calls, 1)),
    ]
    return b"".join(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n" for message in messages)


def answers(process, n):
    return [json.loads(process.stdout.readline()) for _ in range(n)]


def start(environment, *command):
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *command], env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_nothing_but_protocol_reaches_stdout(environment):
    noisy = """
import os
from semsearch.cli import main
from semsearch.searching import Searcher
real = Searcher.search
def search(self, *args, **options):
    print("noise of Python", flush=True)
    os.write(1, b"noise of a library\\n")
    os.system("echo noise of a child")
    return real(self, *args, **options)
Searcher.search = search
main()
"""
    with start(environment, "-c", noisy, "mcp") as process:
        process.stdin.write(lines(("tools/call", {"name": "search", "arguments": {"query": "lighthouse"}})))
        process.stdin.write(b"this is no JSON\n")
        process.stdin.flush()
        first, found = answers(process, 2)
        rest, noise = process.communicate()  # stdin ends, and with it the server
    assert first["result"]["serverInfo"]["name"] == "semsearch"
    assert found["result"]["structuredContent"]["passages"]
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
    for of in (b"Python", b"a library", b"a child"):
        assert b"noise of " + of in noise
    assert process.returncode == 0


def test_an_interrupt_ends_it_quietly(environment):
    with start(environment, "-m", "semsearch", "mcp", "--index", "sea") as process:
        process.stdin.write(lines())
        process.stdin.flush()
        answers(process, 1)
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate()
    assert process.returncode == 130 and rest == b""
    assert b"Traceback" not in told


def test_an_index_that_is_not_there_is_told_to_agents(environment):
    with start(environment, "-m", "semsearch", "mcp", "--index", "nowhere") as process:
        process.stdin.write(lines(("tools/call", {"name": "search", "arguments": {"query": "x"}})))
        process.stdin.flush()
        _, refused = answers(process, 2)
        process.communicate()
    assert refused["result"]["isError"]
    assert "semsearch index" in refused["result"]["content"][0]["text"]
