"""The seal of `store.db`: its checksum, written when the last writer was done, in a file beside it.

While a writer is at work the seal says so; if that is still what it says when nobody writes, the writer was cut off,
and the database is judged by what SQLite and the checksums in it say, not by its bytes.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from semsearch.errors import IndexCorrupt
from semsearch.store.checksums import checksum_file, checksum_record
from semsearch.store.files import DATABASE, write_atomically

__all__ = ["SEAL", "Sums", "break_seal", "broken_files", "read_seal", "seal"]

SEAL = "store.sum"
SEALED = (DATABASE, f"{DATABASE}-wal")  # the log is there as long as a reader has kept it from being copied back

Sums = dict[str, tuple[int, str]]


def break_seal(path: Path) -> None:
    """Note that somebody is about to write."""
    _write(path, None)


def seal(path: Path, known: Sums | None = None) -> None:
    """Note what the database is like now, or what is `known` of it because nothing was written."""
    _write(path, measure(path) if known is None else known)


def measure(path: Path) -> Sums:
    """Size and checksum of each file of the database that is there and not empty."""
    sums: Sums = {}
    for name in SEALED:
        with contextlib.suppress(FileNotFoundError):
            size, checksum = checksum_file(path / name)
            if size:
                sums[name] = (size, checksum.hex())
    return sums


def read_seal(path: Path) -> Sums | None:
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
    sums = json.loads(text)
    return None if sums is None else {name: (size, checksum) for name, (size, checksum) in sums.items()}


def broken_files(path: Path, sums: Sums) -> list[str]:
    """Names of the database's files that are not what was noted."""
    now = measure(path)
    return sorted(name for name in {*now, *sums} if now.get(name) != sums.get(name))


def _write(path: Path, sums: Sums | None) -> None:
    text = json.dumps(sums)
    data = f"{text}\n{checksum_record([text]).hex()}\n".encode("ascii")
    write_atomically(path / SEAL, lambda stream: stream.write(data))
