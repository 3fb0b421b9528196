"""An index in one file."""

from __future__ import annotations

import errno
import io
import json
import random
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from semsearch import Document, Searcher, build_index
from semsearch.cli import cli
from semsearch.errors import IndexCorrupt, IndexLocked, IndexNotFound, IndexUnwritable, InvalidInput
from semsearch.store.archives import export_index, import_index
from semsearch.store.checksums import checksum_record
from semsearch.store.files import writer_lock
from semsearch.store.sealing import seal
from semsearch.verifying import verify
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
    assert {m.name.split("/")[0].split("-")[0] for m in members} == {
        "store.db", "store.sum", "vectors", "ann", "lexical",
    }  # fmt: skip


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


def test_sparse_files_are_refused() -> None:
    """They unpack to more than they take."""
    sparse = tarfile.TarInfo("store.db")
    sparse.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[386 : 386 + 24] = b"%011o\0%011o\0" % (0, 0)  # one piece of nothing
    header[483:495] = b"%011o\0" % (1 << 30)  # of a gibibyte
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    members = [bytes(header)]
    for pieces in ("0,0", "x,y"):
        in_pax = tarfile.TarInfo("store.db")
        in_pax.pax_headers = {"GNU.sparse.size": str(1 << 30), "GNU.sparse.map": pieces}
        members.append(in_pax.tobuf(tarfile.PAX_FORMAT))
    for member in members:
        Path("bad.tar").write_bytes(member + bytes(10_240))
        with pytest.raises(InvalidInput, match=r"store\.db|not an archive"):
            import_index("bad.tar", "theirs")
    assert not Path("indexes/theirs").exists()


def test_no_damaged_archive_is_taken_for_a_sound_one(archive: Path, toy: ToyEmbedder) -> None:
    data, expected = archive.read_bytes(), hits("ours", toy)
    with tarfile.open(archive) as tar:
        starts = [member.offset for member in tar.getmembers()]
    choose, n_refused = random.Random(1), 0
    cut = [data[:start] for start in starts] + [data[: tar.offset + 512]]
    cut.append(data[: tar.offset] + b"x" * 512 + bytes(10_240))  # where a member should be
    flips = [choose.randrange(len(data)) for _ in range(40)] + [start + choose.randrange(512) for start in starts]
    flipped = [data[:at] + bytes([data[at] ^ 1 << choose.randrange(8)]) + data[at + 1 :] for at in flips]
    for damaged in [*cut, *flipped]:
        Path("bad.tar").write_bytes(damaged)
        try:
            path = import_index("bad.tar", "theirs")
        except InvalidInput as error:
            assert "theirs" not in str(error)  # nothing of it is left to be looked at
            n_refused += 1
            continue
        assert damaged in flipped and verify(path, embedder=toy).is_sound and hits("theirs", toy) == expected
        shutil.rmtree(path)
    assert n_refused > len(cut) + 0.8 * len(flipped)
    assert [p.name for p in Path("indexes").iterdir()] == ["ours"]


def rename_lexical(connection: sqlite3.Connection, victim: Path) -> None:
    set_meta(connection, "lexical", str(victim))


def rename_nearest(connection: sqlite3.Connection, victim: Path) -> None:
    set_meta(connection, "ann", {"kind": "flat-f16", "file": f"../../{victim.name}/precious.npy"})


def rename_shard(connection: sqlite3.Connection, victim: Path) -> None:
    connection.execute("UPDATE shards SET name = ?", [f"{victim}/precious"])


def name_a_file_more(connection: sqlite3.Connection, victim: Path) -> None:
    connection.execute("INSERT INTO checksums VALUES ('lexical-000001/../../../precious.npy', 0, x'00')")


def set_meta(connection: sqlite3.Connection, key: str, value: object) -> None:
    row = (key, json.dumps(value))
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value, checksum) VALUES (?, ?, ?)", (*row, checksum_record(row))
    )


@pytest.mark.parametrize("part", ["ann", "lexical", "vectors"])
def test_an_archive_without_checksums_is_refused(toy: ToyEmbedder, part: str) -> None:
    index = build_index([Document("d", "A river and stone.")], index="ours", embedder=toy).index
    connection = sqlite3.connect(index / "store.db")
    with connection:
        connection.execute("DELETE FROM checksums WHERE path GLOB ?", [f"{part}*"])
    connection.close()
    seal(index)
    with pytest.raises(InvalidInput, match="is damaged"):
        import_index(export_index(index, "bad.tar"), "theirs")


@pytest.mark.parametrize("name", [rename_lexical, rename_nearest, rename_shard, name_a_file_more])
def test_no_index_reaches_files_elsewhere(toy: ToyEmbedder, name: Callable[[sqlite3.Connection, Path], None]) -> None:
    """Whoever wrote it, and however it got there."""
    victim = Path("victim").absolute()
    victim.mkdir()
    (victim / "precious.npy").write_bytes(b"precious")
    index = build_index([Document("d", "A river and stone.")], index="ours", embedder=toy).index
    connection = sqlite3.connect(index / "store.db")
    with connection:
        name(connection, victim)
    connection.close()
    seal(index)
    for ask in (
        lambda: Searcher.open(index, embedder=toy),
        lambda: build_index([Document("e", "Another.")], index=index, embedder=toy),
        lambda: export_index(index, "evil.tar"),
    ):
        with pytest.raises(IndexCorrupt, match="no file of an index"):
            ask()
    assert not verify(index, embedder=toy).is_sound
    unmended = Path(shutil.copytree(index, "unmended"))
    verify(index, repair=True, embedder=toy)
    assert (victim / "precious.npy").read_bytes() == b"precious"
    with tarfile.open("evil.tar", "w") as tar:
        for file in sorted(p for p in unmended.rglob("*") if p.is_file()):
            if (at := file.relative_to(unmended).as_posix()).startswith(
                ("store.db", "store.sum", "vectors/", "ann", "lexical")
            ):
                tar.add(file, at)
    with pytest.raises(InvalidInput):
        import_index("evil.tar", "theirs")
    assert (victim / "precious.npy").read_bytes() == b"precious"


def test_without_room_it_is_told_what_to_do(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(IndexUnwritable, match="make room"):
        import_index(archive, "theirs")
    assert [p.name for p in Path("indexes").iterdir()] == ["ours"]


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
