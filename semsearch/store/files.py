"""Where an index lies, how its files get there whole, and who may write."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from semsearch.errors import IndexLocked, InvalidInput

__all__ = [
    "DATABASE",
    "LOCK",
    "PART",
    "absolute_path",
    "command",
    "find_indexes",
    "index_path",
    "open_private",
    "write_atomically",
    "writer_lock",
]

DATABASE = "store.db"
LOCK = "writer.lock"
# A file beside the database, by its path in the index. A database that names any other is not one of ours: who may have
# sent it to us must not have us read, write or delete elsewhere.
PART = re.compile(r"vectors/\d{6,}(\.ids|\.sums)?\.npy|ann-\d{6,}\.faiss|lexical(-\d{6,})?/[\w.-]*\w", flags=re.ASCII)
LOCK_POLL_S = 0.2


def index_path(index: str | Path = "default") -> Path:
    """The folder of an index: `indexes/<name>` under the working folder or SEMSEARCH_HOME, or the folder itself.

    Args:
        index: a name of letters, digits, `.`, `_` and `-`, or a path, told apart by its separator.

    Raises:
        InvalidInput: neither a usable name nor a path, or a path that is not UTF-8.
    """
    if not isinstance(index, str | os.PathLike):
        raise InvalidInput(f"{index!r} is neither the name nor the folder of an index; give a str or a Path")
    text = os.fspath(index)
    if isinstance(index, Path) or os.sep in text or (os.altsep and os.altsep in text) or text in {".", ".."}:
        return _in_utf8(Path(text).expanduser().absolute())
    if not re.fullmatch(r"[\w][\w.-]{0,99}", text):
        raise InvalidInput(
            f"{text!r} cannot be the name of an index: use letters, digits, '.', '_' and '-', or give a path with a '/'"
        )
    return _in_utf8(_root() / text)


def _in_utf8(folder: Path) -> Path:
    """A folder whose path every library that opens its files can be told."""
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(f"{str(folder)!r} is not UTF-8, as the path of an index has to be; choose another") from None
    return folder


def absolute_path(path: str | Path) -> str:
    """The absolute path of a file or folder, `~` and `..` resolved but links kept as they are named."""
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - Path.resolve would follow links


def find_indexes() -> list[Path]:
    """The named indexes, in order of name."""
    return sorted(p.parent for p in _root().glob(f"*/{DATABASE}"))


def _root() -> Path:
    return Path(os.environ.get("SEMSEARCH_HOME") or ".").expanduser().absolute() / "indexes"


def command(words: str, path: Path) -> str:
    """A semsearch command for the index in a folder, as short as it can be."""
    if path == index_path("default"):
        return f"semsearch {words}"
    name = path.name if path.parent == index_path("default").parent else str(path)
    return f"semsearch {words} --index {shlex.quote(name)}"


def open_private(path: Path, mode: str) -> BinaryIO:
    """Open a file that, if it is made, only its owner may read."""
    stream = open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    return cast(BinaryIO, stream)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there whole or not at all, whatever happens: temporary name, fsync, rename, fsync."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open_private(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writer_lock(folder: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the right to write to an index; the system lets it go when the process ends, however it ends.

    Args:
        folder: of the index.
        wait_s: seconds to wait for another process that holds it.

    Raises:
        IndexLocked: another process holds it, still.
    """
    deadline = time.monotonic() + wait_s
    with open_private(folder / LOCK, "a+b") as stream:
        try:
            while not _is_locked(stream, may_wait=time.monotonic() < deadline):
                time.sleep(LOCK_POLL_S)
        except OSError as error:
            stream.seek(0)
            holder = stream.read(20).decode("ascii", "replace").strip() or "unknown"
            raise IndexLocked(
                f"the index {folder} is being written by another process (pid {holder}). Try again when it has "
                "finished, or let it be waited for: --wait SECONDS"
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()).encode())
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def _is_locked(stream: BinaryIO, *, may_wait: bool) -> bool:
    """Try to take the lock; raises OSError where another has it and it is no use to wait."""
    try:
        _lock(stream)
    except OSError:
        if not may_wait:
            raise
        return False
    return True


def _lock(stream: BinaryIO) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
