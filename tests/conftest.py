"""Every test has its own working folder and cannot reach a network."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.toy import ToyEmbedder

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as where a shell runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that processes of the tests can be interrupted


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Graphs that the tests make are kept for the session and thrown away with it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def own_runtime_folder() -> Iterator[Path]:
    """No test meets the services of whoever runs it. Short, as the paths of sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Indexes of a test land in its temporary folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("SEMSEARCH_HOME", raising=False)
    return work


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect anywhere but to a Unix socket fails the test."""
    real = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a connection to {address!r} was attempted")
        real(self, address)  # type: ignore[arg-type]

    def refuse_lookup(*args: object, **_: object) -> None:
        raise AssertionError(f"a look-up of {args[:2]!r} was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_lookup)


@pytest.fixture
def toy() -> ToyEmbedder:
    return ToyEmbedder()


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Evaluation data that is not part of the project."""
    folder = os.environ.get("SEMSEARCH_SHARED")
    if not folder:
        pytest.skip("SEMSEARCH_SHARED does not name the folder with the evaluation data")
    return Path(folder)
