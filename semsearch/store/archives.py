"""A whole index in one file, to be moved to other machines: an uncompressed tar of what SQLite names, nothing else.

Uncompressed, because vectors hardly shrink and because then no archive unpacks to more than its own size.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from semsearch.errors import IndexCorrupt, IndexNotFound, InvalidInput
from semsearch.store.derived import LEXICAL, first_damage
from semsearch.store.files import DATABASE, PART, absolute_path, index_path, sync_folder, write_atomically
from semsearch.store.metadata import DATABASE_DAMAGE, Store, connect, is_unwritable, read_meta_rows
from semsearch.store.schema import check_format, migrate
from semsearch.store.sealing import SEAL, broken_files, read_seal, seal
from semsearch.store.tokens import TOKENS
from semsearch.store.vectors import shard_files
from semsearch.store.writing import StoreWriter, unwritable, write_ignore

__all__ = ["export_index", "import_index"]

BESIDE = {DATABASE, SEAL, TOKENS}  # what an index consists of but for its parts; other names are refused
BLOCK_BYTES = 1 << 20
MIN_END_BYTES = 2 * tarfile.BLOCKSIZE  # of zeros, by which a tar says that nothing is missing


def export_index(index: str | Path, archive: str | Path, *, wait_s: float = 0.0) -> Path:
    """Write an index to one file, with the vectors of all its passages, so that nobody has to encode them again.

    Args:
        index: its name, or the path of its folder.
        archive: the file; replaced if it is there.
        wait_s: seconds to wait for another process that is writing to the index.

    Returns:
        The absolute path of the file, which is there whole or not at all.

    Raises:
        IndexNotFound: there is no such index.
        IndexLocked: another process is writing to it.
    """
    path, target = index_path(index), Path(absolute_path(archive))
    Store(path).close()  # so that none is made where there is none
    if not target.parent.is_dir():
        raise InvalidInput(f"the folder {target.parent} does not exist; make it, or name another file")
    with StoreWriter.open(path, wait_s=wait_s) as store, tempfile.TemporaryDirectory(dir=path) as folder:
        copy, tokens = Path(folder) / DATABASE, Path(folder) / TOKENS
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            store.db.conn.backup(connection)
        seal(Path(folder), read_meta_rows(store.db.conn))
        try:
            with (
                contextlib.closing(sqlite3.connect(tokens)) as connection,
                contextlib.closing(connect(path, read_only=True, database=TOKENS)) as kept,
            ):
                kept.backup(connection)
        except (*DATABASE_DAMAGE, IndexCorrupt):  # there are none, or none that can be read
            tokens.unlink(missing_ok=True)
        names = list(_named(store))

        def write(stream: BinaryIO) -> None:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(copy, DATABASE, filter=_plain)
                tar.add(copy.with_name(SEAL), SEAL, filter=_plain)
                if tokens.exists():
                    tar.add(tokens, TOKENS, filter=_plain)
                for name in names:
                    tar.add(path / name, name, recursive=False, filter=_plain)

        write_atomically(target, write)
    return target


def import_index(archive: str | Path, index: str | Path) -> Path:
    """Make an index of what `export_index` wrote. It answers at once, without the files that it was made of.

    Args:
        archive: the file.
        index: a new name, or the path of a new folder.

    Returns:
        The folder of the index, which is there whole or not at all.

    Raises:
        InvalidInput: there is an index already, or the file is no such archive, or is damaged.
        IndexIncompatible: a newer semsearch wrote it.
        IndexUnwritable: there is no room for it.
    """
    path, source = index_path(index), Path(absolute_path(archive))
    if path.exists():
        raise InvalidInput(f"{path} exists already; name another index, or move that one away")
    if not source.is_file():
        raise InvalidInput(f"there is no file {source}")
    with unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))  # which only its owner may enter
        try:
            _unpack(source, folder)
            try:
                _check(folder)
            except IndexNotFound as error:
                raise InvalidInput(f"{source} holds no finished index; export it again") from error
            except (IndexCorrupt, FileNotFoundError, *DATABASE_DAMAGE) as error:
                if is_unwritable(error):
                    raise
                raise InvalidInput(f"{source} is damaged; copy it anew, or export it again") from error
            write_ignore(folder)
            with contextlib.closing(connect(folder, read_only=True)) as connection:
                meta = read_meta_rows(connection)
            seal(folder, meta)
            folder.rename(path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        sync_folder(path.parent)
    return path


def _check(folder: Path) -> None:
    """Bring what was unpacked to the current format, and make sure that it is an index, whole and undamaged.

    Raises:
        IndexNotFound: it was never finished.
        IndexCorrupt, FileNotFoundError, sqlite3.DatabaseError: it is damaged.
    """
    with contextlib.suppress(FileNotFoundError):  # there is none in archives of earlier versions
        sealed = read_seal(folder)
        if sealed is None or broken_files(folder, sealed):
            raise IndexCorrupt(f"{DATABASE} is not what was exported")
    _bring_up_to_date(folder)
    with contextlib.closing(Store(folder)) as store, store.snapshot() as meta:
        known = {row[0]: (row[1], row[2]) for row in store.query("SELECT path, size, checksum FROM checksums")}
        files = {f"vectors/{file}" for (name,) in store.query("SELECT name FROM shards") for file in shard_files(name)}
        missing = files.union([meta["ann"]["file"], f"{meta['lexical']}/meta.json"]) - known.keys()
        damaged = min(missing, default=None) or first_damage(folder, known)
        if damaged is not None:
            raise IndexCorrupt(f"{damaged} is not what was exported")


def _bring_up_to_date(folder: Path) -> None:
    """Make an older format the current one; what cannot be read is told by who opens it."""
    with contextlib.closing(connect(folder, read_only=False)) as connection, contextlib.suppress(*DATABASE_DAMAGE):
        if check_format(connection):
            migrate(connection)


def _named(store: StoreWriter) -> Iterator[str]:
    """Files of an index beside its database, relative to its folder."""
    for (name,) in store.rows("SELECT name FROM shards ORDER BY name"):
        yield from (f"vectors/{file}" for file in shard_files(name))
    if store.meta.get("ann"):
        yield store.meta["ann"]["file"]
    lexical = store.path / store.meta.get("lexical", LEXICAL)
    for file in sorted(lexical.iterdir()):
        name = f"{lexical.name}/{file.name}"
        if PART.fullmatch(name):
            yield name


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose files these are on this machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _unpack(source: Path, folder: Path) -> None:
    """Write the files of an archive into a folder, none outside it."""
    seen: set[str] = set()
    try:
        with tarfile.open(source, mode="r:") as tar:
            for member in tar:
                # A sparse one would unpack to more than it takes.
                is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
                is_known = member.name in BESIDE or PART.fullmatch(member.name)
                if not is_plain or not is_known or member.name in seen:
                    raise InvalidInput(
                        f"{source} holds {member.name!r}, which belongs to no index; it was not unpacked"
                    )
                seen.add(member.name)
                target = folder / member.name
                target.parent.mkdir(mode=0o700, exist_ok=True)
                with cast("IO[bytes]", tar.extractfile(member)) as stream, target.open("xb") as written:
                    shutil.copyfileobj(stream, written, BLOCK_BYTES)
                target.chmod(0o600)
            end = tar.offset
        with source.open("rb") as stream:
            stream.seek(end)
            left = source.stat().st_size - end
            while (block := stream.read(BLOCK_BYTES)) and not any(block):
                pass
        if block or left < MIN_END_BYTES:  # tarfile takes a member that it cannot read, and a file cut off, for the end
            raise InvalidInput(f"{source} is damaged, or was cut off; copy it anew, or export it again")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:  # ValueError: of its headers' numbers
        raise InvalidInput(f"{source} is not an archive that semsearch export wrote ({error})") from error
    if DATABASE not in seen:
        raise InvalidInput(f"{source} is not an archive that semsearch export wrote: it has no {DATABASE}")
