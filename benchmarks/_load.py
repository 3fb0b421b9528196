"""Clients of an HTTP service on the loopback interface: closed loops, and arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

HOST = "127.0.0.1"


@dataclass
class Load:
    """What clients saw.

    Attributes:
        latencies_s: of answers with status 200.
        statuses: of all answers; 0 for connections that broke.
        elapsed_s: from the first request to the last answer.
    """

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    @property
    def qps(self) -> float:
        return len(self.latencies_s) / self.elapsed_s

    def ms(self, share: float) -> float:
        """A quantile of the latencies, in milliseconds."""
        return float(np.quantile(self.latencies_s, share)) * 1e3

    def row(self) -> dict[str, float]:
        return {"QPS": self.qps, "p50 ms": self.ms(0.5), "p95 ms": self.ms(0.95), "p99 ms": self.ms(0.99)}


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, target: str) -> tuple[int, bytes]:
        return await self.send(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

    async def post(self, target: str, body: bytes) -> tuple[int, bytes]:
        head = f"POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        return await self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """(status, body); status 0 where the connection broke."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(HOST, self._port, limit=1 << 24)
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            n_bytes = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            return int(lines[0].split()[1]), await reader.readexactly(n_bytes)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(port: int, targets: Iterator[str], n_clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it was answered."""
    load, start = Load(), time.perf_counter()

    async def ask() -> None:
        client = Client(port)
        while time.perf_counter() - start < seconds:
            began = time.perf_counter()
            status, _ = await client.get(next(targets))
            load.statuses[status] += 1
            if status == 200:
                load.latencies_s.append(time.perf_counter() - began)
        client.close()

    await asyncio.gather(*(ask() for _ in range(n_clients)))
    load.elapsed_s = time.perf_counter() - start
    return load


async def open_loop(port: int, targets: Iterator[str], rate: float, seconds: float, *, n_clients: int = 64) -> Load:
    """Requests arrive at random, so many a second, answered or not; latencies count from the arrival."""
    load, start = Load(), time.perf_counter()
    free: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(n_clients):
        free.put_nowait(Client(port))

    async def ask(due: float) -> None:
        client = await free.get()
        status, _ = await client.get(next(targets))
        load.statuses[status] += 1
        if status == 200:
            load.latencies_s.append(time.perf_counter() - due)
        free.put_nowait(client)

    gaps = random.Random(7)
    due, asked = start, []
    while due - start < seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asked.append(asyncio.create_task(ask(due)))
        due += gaps.expovariate(rate)
    await asyncio.gather(*asked)
    load.elapsed_s = time.perf_counter() - start
    while not free.empty():
        free.get_nowait().close()
    return load


def distinct_queries(texts: list[str], n: int = 100_000) -> Iterator[str]:
    """Queries of four to nine words that stand together in a text, none twice."""
    chooser = random.Random(11)
    words = [text.split() for text in texts]
    words = [ws for ws in words if len(ws) > 12]
    seen: set[str] = set()
    for _ in itertools.repeat(None, 50 * n):
        of_text = chooser.choice(words)
        at = chooser.randrange(len(of_text) - 9)
        query = " ".join(of_text[at : at + chooser.randrange(4, 10)])
        if query not in seen:
            seen.add(query)
            yield query
