"""What a service is told at its start, and the limits of what it takes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "MAX_CONTEXT_LINES",
    "MAX_DEPTH",
    "MAX_DOCUMENTS",
    "MAX_FACETS",
    "MAX_FIELD_CHARS",
    "MAX_HITS",
    "MAX_HITS_OF_BATCH",
    "MAX_QUERIES",
    "MAX_QUERY_CHARS",
    "MAX_VALUES",
    "MAX_WHERE_CHARS",
    "Settings",
]

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8765

MAX_HITS = 1_000  # of one query
MAX_QUERIES = 64  # of one request
MAX_HITS_OF_BATCH = 6_400  # of all its queries together
MAX_QUERY_CHARS = 8_000
MAX_WHERE_CHARS = 4_000
MAX_CONTEXT_LINES = 500
MAX_FACETS = 16
MAX_FIELD_CHARS = 200  # of the name of a facet
MAX_VALUES = 10_000  # of a facet, where their number is limited
MAX_DOCUMENTS = 1_000  # of one request
MAX_DEPTH = 20  # of values in their metadata


@dataclass(frozen=True, slots=True)
class Settings:
    """How a service behaves.

    Attributes:
        host, port: where it listens; port 0 is any that is free.
        token: what requests must carry as `Authorization: Bearer`; "" for none.
        allowed_hosts: names by which requests may call the service beside those of where it listens.
        cors_origins: pages of other origins that may read answers.
        writable: whether requests may change the index.
        max_waiting: requests that wait for a free thread before others are turned away.
        timeout_s: a request's time from its last byte to its answer, in seconds.
        receive_timeout_s: the time that its bytes may take to arrive, in seconds.
        max_body_bytes: of a request that asks.
        max_write_bytes: of a request that brings documents.
        n_threads: requests that are worked on at a time; 0 for as many as there are cores.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    writable: bool = False
    max_waiting: int = 64
    timeout_s: float = 10.0
    receive_timeout_s: float = 10.0
    max_body_bytes: int = 1 << 20
    max_write_bytes: int = 16 << 20
    n_threads: int = 0
