"""Indexes of every format that was released, in `tests/compat`, are opened by today's code.

`python -m tests.unit.test_compat` adds one of today's format; to be done when a release has a new one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from semsearch import Document, Searcher, build_index, export_index, import_index
from semsearch.store.schema import FORMAT_VERSION
from semsearch.verifying import verify
from tests.toy import ToyEmbedder

FOLDER = Path(__file__).parents[1] / "compat"
DOCUMENTS = [
    Document("a", "The mill stands by the river.\n\nIts wheel turns slowly.", title="Mills", metadata={"year": 1850}),
    Document("b", "A violin lies on the garden wall. 上传文件", metadata={"lang": "en", "tags": ["music", "garden"]}),
]


def test_today_is_among_them() -> None:
    assert (FOLDER / f"format-{FORMAT_VERSION}.tar").is_file()


@pytest.mark.parametrize("archive", sorted(FOLDER.glob("*.tar")), ids=lambda path: path.stem)
def test_an_index_of_a_released_format_is_sound_and_goes_on(archive: Path, toy: ToyEmbedder) -> None:
    path = import_index(archive, "old")
    assert build_index(DOCUMENTS, index=path, embedder=toy).chunks.encoded == 0
    assert verify(path, deep=True, embedder=toy).is_sound
    with Searcher.open(path, embedder=toy) as searcher:
        for mode in ("dense", "lexical", "hybrid"):
            assert searcher.search("river mill wheel", mode=mode)[0].document == DOCUMENTS[0]
        (hit,) = searcher.search("garden", where='tags = "music"')
        assert hit.document == DOCUMENTS[1]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        build_index(DOCUMENTS, index=index, embedder=ToyEmbedder())
        export_index(index, FOLDER / f"format-{FORMAT_VERSION}.tar")
