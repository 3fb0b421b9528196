"""Which hosts and origins a request may name, so that no page of another site reads an index through the browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["Origins", "is_loopback"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a service that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Origins:
    """Names of the service, and pages of other origins that may ask."""

    def __init__(self, host: str, *, allowed_hosts: Iterable[str] = (), cors_origins: Iterable[str] = ()) -> None:
        """Take the names.

        Args:
            host: where the service listens. Bound to all addresses, any IP address and this machine's names will do;
                a name that a page rebinds to them will not.
            allowed_hosts: other names, such as that of a proxy.
            cors_origins: such as `https://notes.example`.
        """
        self._takes_any_address = host in {"", "0.0.0.0", "::"}
        names = {host, *allowed_hosts}
        names |= set(LOOPBACK) if is_loopback(host) or self._takes_any_address else set()
        names |= {socket.gethostname(), socket.gethostname().split(".")[0]} if self._takes_any_address else set()
        self._names = {name.lower().strip("[]") for name in names if name}
        self.cors = frozenset(origin.lower().rstrip("/") for origin in cors_origins)

    def knows_host(self, hosts: list[str]) -> bool:
        """Whether a request's Host headers are one, which names the service."""
        if len(hosts) != 1:
            return False
        name = _name(hosts[0])
        return name is not None and (name in self._names or (self._takes_any_address and _is_address(name)))

    def takes(self, origins: list[str], host: str) -> bool:
        """Whether a request with these Origin headers may be answered: its own page, or one that is named."""
        if not origins:
            return True
        origin = origins[0].lower()
        return len(origins) == 1 and (origin in self.cors or origin.partition("://")[2] == host.lower())


def _name(authority: str) -> str | None:
    """The host of `host:port`, lower case and without brackets; None where it is neither a name nor an address."""
    try:
        parts = urlsplit(f"//{authority}")
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    is_bare = not (parts.path or parts.query or parts.fragment or "@" in authority)
    return parts.hostname.rstrip(".") if is_bare and parts.hostname else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
