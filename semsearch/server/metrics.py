"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Mapping

__all__ = ["Metrics"]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Requests by route and status, and how long they took. Its methods belong to the event loop."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._sums_s: Counter[str] = Counter()

    def count(self, method: str, route: str, status: int, elapsed_s: float) -> None:
        """Count a request that was answered."""
        method = method if method in METHODS else "other"
        self._requests[method, route, status] += 1
        buckets = self._buckets.setdefault(route, [0] * (len(BOUNDS_S) + 1))
        buckets[bisect.bisect_left(BOUNDS_S, elapsed_s)] += 1
        self._sums_s[route] += elapsed_s  # type: ignore[assignment]

    def text(self, gauges: Mapping[str, tuple[str, float]], counters: Mapping[str, tuple[str, float]]) -> str:
        """All counts, with gauges and counters of others: name to (help, value)."""
        return "\n".join([*self._lines(gauges, counters), ""])

    def _lines(
        self, gauges: Mapping[str, tuple[str, float]], counters: Mapping[str, tuple[str, float]]
    ) -> Iterator[str]:
        yield from _head("semsearch_requests_total", "Requests by method, route and status.", "counter")
        for (method, route, status), n in sorted(self._requests.items()):
            yield f'semsearch_requests_total{{method="{method}",route="{route}",status="{status}"}} {n}'
        name = "semsearch_request_seconds"
        yield from _head(name, "Time from a request's last byte to its answer.", "histogram")
        for route, buckets in sorted(self._buckets.items()):
            n = 0
            for bound, count in zip((*BOUNDS_S, "+Inf"), buckets, strict=True):
                n += count
                yield f'{name}_bucket{{route="{route}",le="{bound}"}} {n}'
            yield f'{name}_sum{{route="{route}"}} {self._sums_s[route]:.6f}'
            yield f'{name}_count{{route="{route}"}} {n}'
        for kind, values in (("gauge", gauges), ("counter", counters)):
            for key, (what, value) in values.items():
                yield from _head(key, what, kind)
                yield f"{key} {value:g}"


def _head(name: str, what: str, kind: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
