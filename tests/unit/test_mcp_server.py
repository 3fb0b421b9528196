"""The tools that agents get, asked through the SDK's in-memory client; an index of the toy encoder."""

from __future__ import annotations

import gc
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client

from semsearch import Document, Searcher, build_index
from semsearch.errors import IndexNotFound, InvalidInput, MissingExtra
from semsearch.mcp_server import MAX_ANSWER, MAX_CONTEXT, MAX_PASSAGE, Indexes, _without_paths, create_server
from tests.toy import ToyEmbedder

WORDS = ["river", "violin", "kettle", "lantern", "harbour", "ledger", "crust", "onion"]
LONG = "\n".join(f"Line {n} of the long {WORDS[n % 8]} chronicle." for n in range(600))


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    toy, index = ToyEmbedder(), tmp_path_factory.mktemp("indexes") / "toy"
    documents = [Document(f"d{i}", f"The {word} number {i}.", title=word) for i, word in enumerate(WORDS * 3)]
    chronicle = Document("chronicle", LONG, title="T" * 1_000, source="/data/chronicle.txt", metadata={"lang": "en"})
    build_index([*documents, chronicle], index=index, embedder=toy)
    with Searcher.open(index, embedder=toy) as opened:
        yield opened


def ask(indexes: Indexes, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Client(create_server(indexes)) as client:
            return await use(client)

    return anyio.run(run)


def call(indexes: Indexes, tool: str, **arguments: Any) -> Any:
    return ask(indexes, lambda client: client.call_tool(tool, arguments))


def answer(indexes: Indexes, tool: str, **arguments: Any) -> dict[str, Any]:
    result = call(indexes, tool, **arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content  # for clients without structured output
    return dict(result.structured_content)


def refusal(indexes: Indexes, tool: str, **arguments: Any) -> str:
    result = call(indexes, tool, **arguments)
    assert result.is_error
    return str(result.content[0].text)


@pytest.fixture
def served(searcher: Searcher) -> Indexes:
    return Indexes(opened={"toy": searcher})


def test_tools_say_what_they_do_and_change_nothing(served: Indexes) -> None:
    tools = ask(served, lambda client: client.list_tools()).tools
    assert {tool.name for tool in tools} == {"search", "get_context", "list_indexes", "similar"}
    for tool in tools:
        assert tool.description and tool.annotations.read_only_hint
        assert tool.output_schema["type"] == "object"
        assert all("description" in value or "$ref" in value for value in tool.input_schema["properties"].values())
    search = next(tool for tool in tools if tool.name == "search")
    assert search.input_schema["required"] == ["query"]
    assert search.input_schema["properties"]["k"]["maximum"] == 50


@pytest.mark.parametrize("options", [{}, {"mode": "lexical"}, {"mode": "dense", "k": 3}, {"where": 'lang = "en"'}])
def test_search_finds_what_a_searcher_finds(served: Indexes, searcher: Searcher, options: dict[str, Any]) -> None:
    found = answer(served, "search", query="violin", **options)
    expected = searcher.search("violin", **{"k": 8, **options})
    assert expected
    assert [(p["chunk_id"], p["score"]) for p in found["passages"]] == [(h.chunk.id, h.score) for h in expected]
    assert [p["rank"] for p in found["passages"]] == list(range(1, len(expected) + 1))
    assert found["index"] == "toy" and found["note"] == ""
    assert found["passages"][0]["text"] == expected[0].chunk.text


def test_nothing_found_is_said(served: Indexes) -> None:
    found = answer(served, "search", query="zzzz", mode="lexical")
    assert found["passages"] == [] and found["note"] == "nothing was found"


def test_similar_finds_what_a_searcher_finds(served: Indexes, searcher: Searcher) -> None:
    chunk_id = searcher.search("violin", k=1)[0].chunk.id
    found = answer(served, "similar", chunk_id=chunk_id, k=5)
    assert [p["chunk_id"] for p in found["passages"]] == [h.chunk.id for h in searcher.similar(chunk_id, k=5)]


@pytest.mark.parametrize("lines", [0, 5, 200])
def test_context_is_the_lines_around_a_passage(served: Indexes, searcher: Searcher, lines: int) -> None:
    chunk = searcher.search("line 300 of the long chronicle", k=1, where='lang = "en"')[0].chunk
    found = answer(served, "get_context", chunk_id=chunk.id, lines=lines)
    first, last = found["line_start"], found["line_end"]
    assert (first, last) == (chunk.line_start - lines, chunk.line_end + lines)
    assert found["text"].strip("\n").split("\n") == LONG.split("\n")[first - 1 : last]
    assert not found["is_cut"] and found["path"] == "/data/chronicle.txt"


def test_answers_are_bounded(toy: ToyEmbedder) -> None:
    rows = "\n".join("river " * 600 + str(n) for n in range(8))
    toy.max_tokens = 5_000
    documents = [Document(f"d{i}", f"{i} " + rows, title="T" * 5_000) for i in range(60)]
    build_index(documents, index="long", embedder=toy)
    with Searcher.open("long", embedder=toy) as searcher:
        served = Indexes(opened={"long": searcher})
        few = answer(served, "search", query="river", k=2)["passages"]
        assert all(p["is_cut"] and len(p["text"]) <= MAX_PASSAGE + 10 and p["text"].endswith("[…]") for p in few)
        many = answer(served, "search", query="river", k=50)["passages"]
        assert len(many) > 20
        assert sum(len(p["text"]) for p in many) <= MAX_ANSWER + 10 * len(many)
        assert all(len(p["title"]) < 400 for p in many)
        context = answer(served, "get_context", chunk_id=few[0]["chunk_id"], lines=200)
        assert context["is_cut"] and len(context["text"]) <= MAX_CONTEXT
        chunk, document = searcher.passage(few[0]["chunk_id"])
        assert chunk.text[:MAX_CONTEXT] in context["text"]
        shown = document.text.split("\n")[context["line_start"] - 1 : context["line_end"]]
        assert context["text"].strip("\n") in "\n".join(shown)


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("search", {"query": "x", "k": 51}, "less than or equal to 50"),
        ("search", {"query": ""}, "at least 1 character"),
        ("search", {"query": "x" * 5_000}, "at most 4000 characters"),
        ("search", {"query": "x", "mode": "magic"}, "'hybrid', 'dense' or 'lexical'"),
        ("search", {"query": "x", "where": "colour = 1"}, "no document has a field 'colour'"),
        ("search", {"query": "x", "where": "lang = "}, "character 8 (its end): give a value"),
        ("search", {}, "Field required"),
        ("get_context", {"chunk_id": 10**9}, "has no passage 1000000000"),
        ("get_context", {"chunk_id": 10**30}, "has no passage 1000"),
        ("get_context", {"chunk_id": 1, "lines": 201}, "less than or equal to 200"),
        ("similar", {"chunk_id": -1}, "has no passage -1"),
        ("search", {"query": "x", "index": "other"}, "there is no index 'other'; there are: toy"),
        ("search", {"query": "x", "index": "../../etc"}, "there is no index"),
        ("search", {"query": "x", "index": "indexes/toy"}, "there is no index"),
    ],
)
def test_what_is_wrong_is_told(served: Indexes, tool: str, arguments: dict[str, Any], told: str) -> None:
    assert told in refusal(served, tool, **arguments)


def test_only_named_indexes_are_served_if_any_is_named(toy: ToyEmbedder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    build_index([Document("a", "A violin.")], index=elsewhere, embedder=toy)
    for name in ("toy", "default"):
        build_index([Document("a", "A violin.")], index=name, embedder=toy)

    def names(indexes: Indexes) -> list[tuple[str, bool]]:
        return [(entry["name"], entry["is_default"]) for entry in answer(indexes, "list_indexes")["indexes"]]

    assert names(Indexes()) == [("default", True), ("toy", False)]
    assert "there is no index" in refusal(Indexes(), "search", query="x", index="elsewhere")
    assert "there is no index" in refusal(Indexes(), "search", query="x", index=str(elsewhere))
    only = Indexes([str(elsewhere), "toy"])
    assert names(only) == [("elsewhere", True), ("toy", False)]
    assert "there is no index 'default'" in refusal(only, "search", query="x", index="default")
    with pytest.raises(InvalidInput, match="the same name"):
        Indexes(["toy", str(tmp_path / "toy")])


def test_list_indexes_counts(searcher: Searcher) -> None:
    (entry,) = answer(Indexes([str(searcher.path)]), "list_indexes")["indexes"]
    assert entry["documents"] == 25 and entry["passages"] > 100
    assert entry["model"] == "toy-a" and re.match(r"\d{4}-", entry["updated"])


def test_an_index_that_is_made_anew_is_opened_anew(toy: ToyEmbedder, own_folder: Path) -> None:
    indexes = Indexes()
    for word in ("violin", "lantern"):
        shutil.rmtree(own_folder / "indexes", ignore_errors=True)
        build_index([Document("a", f"A {word} here.")], embedder=toy)
        found = answer(indexes, "search", query=word, mode="lexical")
        assert [p["text"] for p in found["passages"]] == [f"A {word} here."]
    indexes.close()


def test_without_an_index_agents_are_told(own_folder: Path) -> None:
    assert "there is no index yet" in refusal(Indexes(), "search", query="x")
    assert answer(Indexes(), "list_indexes") == {"indexes": []}
    with pytest.raises(IndexNotFound):
        Indexes().choose(None)


def test_damage_is_told_without_paths_of_the_machine(searcher: Searcher, own_folder: Path) -> None:
    copy = own_folder / "indexes" / "toy"
    shutil.copytree(searcher.path, copy)
    for file in next(copy.glob("lexical*")).iterdir():
        file.write_bytes(b"damaged")
    told = refusal(Indexes(["toy"]), "search", query="violin", mode="lexical")
    assert "is not what was written" in told and "semsearch verify --repair" in told
    assert str(own_folder) not in told
    (copy / "store.db").write_bytes(b"no database at all" * 500)
    (entry,) = answer(Indexes(["toy"]), "list_indexes")["indexes"]
    assert entry["documents"] == 0 and entry["note"] and str(own_folder) not in entry["note"]


def test_paths_are_cut_to_their_last_part() -> None:
    cut = partial(_without_paths, indexes=Indexes(["/a folder/toy"]))
    assert cut("/a folder/toy is damaged; /srv/x/.m.json too") == "toy is damaged; .m.json too"
    assert cut(r"see C:\Users\me\x, '~/notes/y'") == r"see x, 'y'"
    for kept in ('path ~ "guides/**" and a/b', "https://example.org/a/b", "1 / 2"):
        assert cut(kept) == kept


def test_a_fault_of_ours_shows_nothing_of_its_text(served: Indexes, searcher: Searcher, monkeypatch: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret of /home/user")

    monkeypatch.setattr(searcher, "search", fail)
    assert "secret" not in refusal(served, "search", query="violin")


def test_it_is_served_over_http(served: Indexes) -> None:
    server = create_server(served)
    app = server.streamable_http_app(stateless_http=True, json_response=True)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    call["params"] = {"name": "search", "arguments": {"query": "violin", "k": 1}}  # type: ignore[assignment]

    async def post() -> httpx.Response:
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
        transport = httpx.ASGITransport(app)
        async with server.session_manager.run(), httpx.AsyncClient(transport=transport) as client:
            return await client.post("http://127.0.0.1:8765/mcp", json=call, headers=headers)

    response = anyio.run(post)
    assert response.status_code == 200
    assert response.json()["result"]["structuredContent"]["passages"][0]["title"] == "violin"


def test_nothing_heavy_is_loaded_before_a_tool_is_called() -> None:
    code = """
import sys
from semsearch.mcp_server import Indexes, create_server
create_server(Indexes())
print([name for name in ("numpy", "faiss", "tantivy", "tokenizers", "openvino", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    monkeypatch.delitem(sys.modules, "semsearch.mcp_server")
    with pytest.raises(MissingExtra, match=r"pip install 'semsearch\[mcp\]'"):
        importlib.import_module("semsearch.mcp_server")
    assert gc.isenabled()
