"""What the adapters share, and what importing them costs."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from semsearch import Searcher, build_index
from semsearch.errors import InvalidInput
from semsearch.integrations.kept import KeptIndex
from semsearch.integrations.originals import PARENT, Original, keep, restore
from tests.checkpoints import write_bi_encoder
from tests.toy import ToyEmbedder

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


def test_what_is_kept_beside_a_document_is_not_for_filters(toy: ToyEmbedder) -> None:
    metadata = {"year": 2020, "deep": {"__own": "x", "shown": "y"}}
    build_index([keep("a", "A text.", metadata, {"more": [1, None]}, parent="p")], embedder=toy)
    with Searcher.open(embedder=toy) as searcher:
        (document,) = searcher.documents(where={PARENT: "p", "deep.shown": "y"})
        assert restore(document) == Original("a", "A text.", metadata, {"more": [1, None]})
        with pytest.raises(InvalidInput, match=r"modified, _parent, deep.shown, year"):
            searcher.search("text", where={"deep.__own": "x"})


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_a_store_gives_as_many_as_were_asked_for(toy: ToyEmbedder, mode: str) -> None:
    kept = KeptIndex("kept", embedder=toy)
    assert kept.search("river", 3, {}) == [] == kept.documents() and kept.count() == kept.remove(None) == 0
    kept.write([keep(str(i), text, {}) for i, text in enumerate(["river stone", "cloud", "engine", "engine"])])
    hits = kept.search("river", 4, {"mode": mode})
    assert hits[0].document.id == "0" and [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert len(hits) == (4 if mode == "hybrid" else 1)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True) and hits[-1].score >= 0


def test_an_index_that_is_made_anew_is_opened_anew(toy: ToyEmbedder) -> None:
    kept = KeptIndex("kept", embedder=toy)
    kept.write([keep("before", "the lamp of the lighthouse", {})])
    assert [hit.document.id for hit in kept.search("lamp", 1, {})] == ["before"]
    shutil.rmtree(kept.path)
    assert (kept.search("lamp", 1, {}), kept.count()) == ([], 0)
    build_index([keep("after", "another lamp", {})], index="kept", embedder=toy)
    assert [hit.document.id for hit in kept.search("lamp", 1, {})] == ["after"]


def test_an_index_is_opened_and_a_model_loaded_once(toy: ToyEmbedder) -> None:
    kept = KeptIndex("kept", embedder=toy)
    kept.write([keep("a", "river", {})])
    with kept.searcher() as searcher:
        kept.write([keep("b", "stone", {})])
        with kept.searcher() as same:
            assert same is searcher and kept.count() == 2
        kept.close()
        with kept.searcher() as other:
            assert other is not searcher and [d.id for d in kept.documents()] == ["a", "b"]
    own = KeptIndex("own")
    assert own.embedder() is own.embedder()


@pytest.mark.parametrize("first", ["write", "search"])
def test_a_store_goes_on_writing_where_its_index_was_replaced_by_one_of_another_model(tmp_path, first: str) -> None:
    models = [str(write_bi_encoder(tmp_path / pooling, pooling=pooling)) for pooling in ("mean", "cls")]
    build_index([keep("a", "A river.", {})], index=tmp_path / "index", model=models[0])
    kept = KeptIndex(tmp_path / "index")
    if first == "write":
        kept.write([keep("b", "A stone.", {})])
    else:
        kept.search("river", 1, {})
    shutil.rmtree(tmp_path / "index")
    build_index([keep("a", "A river.", {})], index=tmp_path / "index", model=models[1])
    kept.write([keep("c", "A cloud.", {})])
    assert {hit.document.id for hit in kept.search("river", 3, {})} == {"a", "c"}
