"""Coverage-guided fuzzing of what reads text that anybody may have written, by atheris.

    python -m tests.fuzzing TARGET CORPUS [libFuzzer's arguments, such as -max_total_time=600]

TARGET is a key of `SEEDS`. CORPUS is a folder: it gets the seeds, and what is found to lead elsewhere is kept there. An
input that fails is written to the working folder; naming it instead of CORPUS runs it alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["semsearch"]):
    from semsearch.chunking import ChunkSettings, split
    from semsearch.errors import InvalidInput, LoadError
    from semsearch.filters import parse
    from semsearch.indexing import build_index
    from semsearch.loaders.formats import load
    from semsearch.searching import Searcher
    from semsearch.types import Document
    from tests.toy import ToyEmbedder

Target = Callable[[bytes], None]

CHUNKS = ChunkSettings(max_tokens=20, min_tokens=3)
MAX_ROWS = 50
SEEDS: dict[str, list[str]] = {
    "filter": [
        'lang = "en" and year >= 2020 and path ~ "guides/**"',
        "not (a in ('x', 1, true) or metadata.b exists) and modified < 2024-05-01T10:00Z",
        r'title != "x\"y" or n = -1.5e3',
    ],
    "query": ['river "stone cloud" AND -forest title:x*~2 [a TO b]', "中文 Ünïcode one. Two!"],
    ".md": [
        "---\ntitle: A\n---\n# One\n\ntext\n\n- a\n- b\n\n```py\nx\n```\n\nTwo\n===\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    ],
    ".rst": [
        "=====\nTitle\n=====\n\n.. note:: a\n\nSection\n-------\n\n::\n\n  code\n\n* a\n* b\n\n+---+\n| a |\n+---+\n"
    ],
    ".adoc": ["= Title\n:toc:\n\n== Section\n\n----\ncode\n----\n\n|===\n|a |b\n|===\n"],
    ".txt": ["CHAPTER 1\n\nSome text. More!\n\n  1. a\n  2. b\n\fpage\n"],
    ".html": [
        "<!doctype html><meta charset=utf-8><title>T</title><nav>n</nav><main><h1>A</h1><p>b<br>c<ul><li>d</ul>"
        "<table><tr><td>e<td>f</table><pre>g</pre><?php h ?><!-- i --><svg><text>j</text></svg></main>"
    ],
    ".csv": ['id,title,text\n1,"a ""b""",hello world text\n2,c,"multi\nline"\n', "a;b\n1;2\n"],
    ".jsonl": ['{"id": 1, "text": "hello", "meta": {"a": [1, 2]}}\n{"id": 2, "text": "x", "n": 1e400}\n'],
    ".json": ['[{"id": 1, "text": "hello"}, {"text": "b"}]', '{"a": {"b": 1}}'],
    ".ipynb": [
        '{"cells": [{"cell_type": "markdown", "source": ["# T\\n", "x"]}, {"cell_type": "code", "source": "print(1)",'
        ' "outputs": [{"output_type": "stream", "text": ["1"]}]}], "metadata": {"kernelspec": {"language": "python"}},'
        ' "nbformat": 4}'
    ],
    ".py": [
        '"""Module."""\n\nclass A:\n    """Doc."""\n\n    async def f(self):\n        return 1\n\n\nx = """\n"""\n'
    ],
    ".c": ["/* a */\nstruct s { int x; };\n\nint main(void) {\n  return 0;\n}\n"],
    ".odt": [
        '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:text>'
        '<text:h text:outline-level="1">A</text:h><text:p>b<text:s text:c="3"/>c</text:p><text:list><text:list-item>'
        "<text:p>d</text:p></text:list-item></text:list></office:text></office:body></office:document-content>"
    ],
    ".epub": [
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        '<dc:title>A</dc:title></metadata><manifest><item id="a" href="a.html"/></manifest>'
        '<spine><itemref idref="a"/></spine></package>'
    ],
}
MEMBERS = {  # of containers: what the input becomes, and what stands beside it
    ".odt": ("content.xml", {"mimetype": "application/vnd.oasis.opendocument.text"}),
    ".epub": (
        "a.opf",
        {
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="a.opf"/></rootfiles></container>',
            "a.html": "<h1>A</h1><p>b",
        },
    ),
}


def check_filter(data: bytes) -> None:
    """A filter is refused in words, or printed as what reads the same."""
    with contextlib.suppress(InvalidInput):
        asked = parse(data.decode("utf-8", "surrogateescape"))
        assert parse(str(asked)) == asked


def query_check(folder: Path) -> Target:
    """Any query is answered."""
    texts = ("river stone cloud one", "another text of the forest AND OR NOT title:x", "中文 text. Of two sentences!")
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    build_index(documents, index=folder / "index", embedder=ToyEmbedder())
    searcher = Searcher.open(folder / "index", embedder=ToyEmbedder())

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for mode in ("lexical", "hybrid"):
            searcher.highlight(text, searcher.search(text, mode=mode, rerank=False))

    return check


def file_check(folder: Path, suffix: str) -> Target:
    """A file is read, and cut into passages that leave nothing out, or refused in words that tell what is wrong."""
    path = folder / f"file{suffix}"

    def check(data: bytes) -> None:
        path.write_bytes(_contained(data, suffix))
        try:
            for _, document in zip(range(MAX_ROWS), load(path), strict=False):
                check_document(document)
        except LoadError as error:
            if str(error).startswith("cannot be read:"):
                raise  # what no loader knew of

    return check


def check_document(document: Document) -> None:
    """What is promised of every document and its passages."""
    text = document.text
    assert not re.search("[\x00\r\ud800-\udfff]", text)
    json.dumps(document.metadata, allow_nan=False)
    assert all(text[heading.start :] for heading in document.outline)
    is_left_out = [not c.isspace() for c in text]
    for chunk in split(document, ToyEmbedder().token_spans, CHUNKS):
        assert text[chunk.start : chunk.end] == chunk.text
        is_left_out[chunk.start : chunk.end] = [False] * len(chunk.text)
    assert not any(is_left_out)


def _contained(data: bytes, suffix: str) -> bytes:
    if suffix not in MEMBERS:
        return data
    member, others = MEMBERS[suffix]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in {**others, member: data}.items():
            archive.writestr(name, content)
    return written.getvalue()


def main() -> None:
    """Fuzz until libFuzzer's arguments say it is enough, or something fails."""
    target, corpus, *arguments = sys.argv[1:]
    if target not in SEEDS:
        sys.exit(f"{target!r} is no target; there are {', '.join(SEEDS)}")
    if not Path(corpus).is_file():
        Path(corpus).mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(SEEDS[target]):
            (Path(corpus) / f"seed-{i}").write_text(seed, encoding="utf-8")
    folder = Path(tempfile.mkdtemp(prefix="fuzzing-"))  # libFuzzer ends the process without a word to Python
    named = {"filter": lambda: check_filter, "query": lambda: query_check(folder)}
    atheris.Setup([__file__, corpus, *arguments], named.get(target, lambda: file_check(folder, target))())
    atheris.Fuzz()


if __name__ == "__main__":
    main()
