"""How other processes of the same user find the service of an index: a Unix socket in a folder that is theirs alone.

A service that listens there is the one: nobody else can put a socket into the folder, and one whose process has gone
refuses connections. Its name is made of the index's place and the version, so that only the same searches are asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semsearch import __version__

__all__ = ["ask", "listening"]

MAX_PATH_BYTES = 100  # of a Unix socket's path; systems take 104 to 108
BACKLOG = 128
HEALTH_TIMEOUT_S = 0.5  # of a service that is well, whatever it is asked
ANSWER_TIMEOUT_S = 15.0
HOST = "localhost"


@contextlib.contextmanager
def listening(index: Path) -> Iterator[socket.socket | None]:
    """A socket that others find by the index, while the context lasts.

    None where there can be none: on systems without Unix sockets, or where another service has this index already.
    """
    place = _socket_path(index, make=True)
    if place is None or _is_taken(place):
        yield None
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        place.unlink(missing_ok=True)
        listener.bind(str(place))
        place.chmod(0o600)
        listener.listen(BACKLOG)
        mine = place.stat().st_ino
    except OSError:
        listener.close()
        yield None
        return
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            if place.stat().st_ino == mine:
                place.unlink()


def ask(index: Path, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the service of an index answers to POST /search; None where there is none, or it does not.

    One that was stopped, or hangs, is found out before it is asked.
    """
    place = _socket_path(index)
    if place is None or not place.exists():
        return None
    connection = _UnixConnection(place)
    try:
        connection.request("GET", "/health")
        health = connection.getresponse()
        health.read()
        if health.status != http.HTTPStatus.OK or connection.sock is None:
            return None
        connection.sock.settimeout(ANSWER_TIMEOUT_S)
        body = json.dumps(question).encode()
        connection.request("POST", "/search", body, {"Content-Type": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        return dict(json.loads(answer.read())) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, place: Path) -> None:
        super().__init__(HOST, timeout=HEALTH_TIMEOUT_S)
        self._place = place

    def connect(self) -> None:
        """Connect to the socket in place of the host."""
        self.sock = _connected(self._place, HEALTH_TIMEOUT_S)


def _connected(place: Path, timeout_s: float) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(timeout_s)
        found.connect(str(place))
    except BaseException:
        found.close()
        raise
    return found


def _is_taken(place: Path) -> bool:
    """Whether somebody listens there, perhaps without answering now, as one that has a full queue."""
    try:
        _connected(place, 1.0).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


def _socket_path(index: Path, *, make: bool = False) -> Path | None:
    """Where the service of an index listens; None where no such place can be trusted or is wanted to be made."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    folder = _folder()
    if make:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        facts = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077
    key = hashlib.blake2b(f"{__version__} {index.resolve()}".encode("utf-8", "surrogateescape"), digest_size=12)
    place = folder / f"{key.hexdigest()}.sock"
    return place if is_ours and len(os.fsencode(place)) <= MAX_PATH_BYTES else None


def _folder() -> Path:
    """The user's own folder for what lives as long as a process."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and Path(given).is_dir():
        return Path(given) / "semsearch"
    return Path(tempfile.gettempdir()) / f"semsearch-{os.getuid()}"
