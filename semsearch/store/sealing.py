"""The seal of `store.db`: its checksum, written when the last writer was done, in a file beside it.

While a writer is at work the seal says so; if that is still what it says when nobody writes, the writer was cut off,
and the database is judged by what SQLite and the checksums in it say, not by its bytes. A repair that was cut off is
damage. Beside the checksum lies a copy of `meta`, without which nothing of a damaged database could be kept.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semsearch.errors import IndexCorrupt
from semsearch.store.checksums import checksum_file, checksum_record
from semsearch.store.files import DATABASE, write_atomically

__all__ = ["SEAL", "MetaRows", "Seal", "break_seal", "broken_files", "read_seal", "restore_seal", "seal"]

SEAL = "store.sum"
SEALED = (DATABASE, f"{DATABASE}-wal")  # the log is there as long as a reader has kept it from being copied back

Sums = dict[str, tuple[int, str]]
MetaRows = Sequence[tuple[str, str, bytes]]  # key, value and checksum


@dataclass(frozen=True, slots=True)
class Seal:
    """Size and checksum of the database's files, by name, and the rows of `meta`, when the last writer was done."""

    sums: Sums
    meta: MetaRows = ()

    @property
    def is_of_repair(self) -> bool:
        """Whether it stands for a repair that is at work, or was cut off and has to be done again."""
        return not self.sums


def break_seal(path: Path, *, by_repair: MetaRows | None = None) -> None:
    """Note that somebody is about to write; with the rows of `meta`, that what he leaves if cut off is damage."""
    _write(path, None if by_repair is None else Seal({}, by_repair))


def seal(path: Path, meta: MetaRows = ()) -> None:
    """Note what the database is like now, and its `meta`."""
    _write(path, Seal(measure(path), meta))


def restore_seal(path: Path, before: Seal) -> None:
    """Note again what is known of the database, as nothing was written."""
    _write(path, before)


def measure(path: Path) -> Sums:
    """Size and checksum of each file of the database that is there and not empty."""
    sums: Sums = {}
    for name in SEALED:
        with contextlib.suppress(FileNotFoundError):
            size, checksum = checksum_file(path / name)
            if size:
                sums[name] = (size, checksum.hex())
    return sums


def read_seal(path: Path) -> Seal | None:
    """What was noted; None when the last writer was cut off.

    Raises:
        FileNotFoundError: there is no seal.
        IndexCorrupt: it is damaged.
    """
    try:
        text, _, checksum = (path / SEAL).read_text(encoding="ascii").rstrip("\n").partition("\n")
        if checksum_record([text]).hex() != checksum:
            raise ValueError
    except ValueError as error:
        raise IndexCorrupt(f"{path / SEAL} is damaged") from error
    noted = json.loads(text)
    if noted is None:
        return None
    files, meta = (noted["files"], noted["meta"]) if "files" in noted else (noted, [])  # before format 6 nothing else
    sums = {name: (size, checksum) for name, (size, checksum) in files.items()}
    return Seal(sums, [(key, value, bytes.fromhex(checksum)) for key, value, checksum in meta])


def broken_files(path: Path, known: Seal) -> list[str]:
    """Names of the database's files that are not what was noted."""
    now = measure(path)
    return sorted(name for name in {*now, *known.sums} if now.get(name) != known.sums.get(name))


def _write(path: Path, noted: Seal | None) -> None:
    rows = [(key, value, checksum.hex()) for key, value, checksum in noted.meta] if noted else []
    text = json.dumps({"files": noted.sums, "meta": rows} if noted else None)
    data = f"{text}\n{checksum_record([text]).hex()}\n".encode("ascii")
    write_atomically(path / SEAL, lambda stream: stream.write(data))
