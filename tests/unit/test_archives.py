"""An index in one file."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from semsearch import Document, Searcher, build_index
from semsearch.cli import cli
from semsearch.errors import IndexLocked, IndexNotFound, InvalidInput
from semsearch.store.archives import export_index, import_index
from semsearch.store.files import writer_lock
from tests.toy import ToyEmbedder


@pytest.fixture
def archive(toy: ToyEmbedder) -> Path:
    for edition in range(3):  # some shards, some segments
        documents = [Document(f"d{edition}{i}", f"A river and stone {i} of {edition}.") for i in range(5)]
        build_index(documents, index="ours", embedder=toy)
    return export_index("ours", "ours.tar")


def hits(index: str, toy: ToyEmbedder) -> list[tuple[str, float]]:
    with Searcher.open(index, embedder=toy) as searcher:
        return [(hit.document.id, hit.score) for hit in searcher.search("stone 3", fold=False)]


def test_an_imported_index_answers_and_grows_as_the_exported_one(archive: Path, toy: ToyEmbedder) -> None:
    expected = hits("ours", toy)
    shutil.rmtree("indexes")
    path = import_index(archive, "theirs")
    assert path == Path("indexes/theirs").absolute() and hits("theirs", toy) == expected
    n_encoded = toy.n_encoded
    again = [Document("new name", "A river and stone 3 of 1."), Document("new", "Something new.")]
    assert build_index(again, index="theirs", embedder=toy).chunks.encoded == 1  # vectors came with it
    assert toy.n_encoded == n_encoded + 1
    assert [p.stat().st_mode & 0o777 for p in (path, path / "store.db")] == [0o700, 0o600]


def test_it_holds_nothing_of_this_machine(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert {(m.uid, m.uname, m.gname, m.mode) for m in members} == {(0, "", "", 0o600)}
    assert {m.name.split("/")[0].split("-")[0] for m in members} == {"store.db", "vectors", "ann", "lexical"}


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "vectors/../../evil", "vectors/000000.npy.tmp", "other.txt"])
def test_an_archive_with_anything_else_is_refused(archive: Path, name: str) -> None:
    with tarfile.open(archive, "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InvalidInput, match="belongs to no index"):
        import_index(archive, "theirs")
    assert [p.name for p in Path("indexes").iterdir()] == ["ours"]


def test_links_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open("bad.tar", "w") as tar:
            member = tarfile.TarInfo("store.db")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        with pytest.raises(InvalidInput, match=r"store\.db"):
            import_index("bad.tar", "theirs")
    assert not Path("indexes/theirs").exists()


@pytest.mark.parametrize("content", [b"", b"no archive" * 500, None])
def test_files_that_are_no_archives(archive: Path, content: bytes | None) -> None:
    data = archive.read_bytes()[:-200_000] if content is None else content  # cut off
    Path("bad.tar").write_bytes(data)
    with pytest.raises(InvalidInput, match="semsearch export"):
        import_index("bad.tar", "theirs")
    assert not Path("indexes/theirs").exists()


def test_what_is_there_is_kept(archive: Path, toy: ToyEmbedder) -> None:
    expected = hits("ours", toy)
    with pytest.raises(InvalidInput, match="exists already"):
        import_index(archive, "ours")
    with pytest.raises(IndexNotFound):
        export_index("none", "none.tar")
    with pytest.raises(InvalidInput, match="does not exist"):
        export_index("ours", "no/such/folder.tar")
    before = archive.read_bytes()
    with writer_lock(Path("indexes/ours")), pytest.raises(IndexLocked):
        export_index("ours", archive)
    assert archive.read_bytes() == before and hits("ours", toy) == expected
    assert not Path("indexes/none").exists()


def test_the_commands(archive: Path, toy: ToyEmbedder) -> None:
    runner = CliRunner()
    done = runner.invoke(cli, ["export", "x.tar", "--index", "ours", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["size_bytes"] == Path("x.tar").stat().st_size
    done = runner.invoke(cli, ["import", "x.tar", "--index", "theirs"])
    assert done.exit_code == 0 and "theirs is ready" in done.stdout
    assert hits("theirs", toy) == hits("ours", toy)
    done = runner.invoke(cli, ["import", "x.tar", "--index", "theirs"])
    assert done.exit_code == 2 and done.stderr.startswith("semsearch: error: ")
