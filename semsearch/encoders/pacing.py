"""How fast a model reads on this machine: measured once, kept in the cache folder.

What counts is the processor's time, not the clock's: a machine that was busy at the first query is not taken for slow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from semsearch.encoders.models import cache_folder
from semsearch.encoders.sample_texts import MEASURING_TEXTS

__all__ = ["n_within", "tokens_per_s"]

_measuring = threading.Lock()  # two models at once would find each other slow
N_TEXTS = 16  # of the sample, a few batches
N_RUNS = 3  # the quickest counts: others had company


def tokens_per_s(
    key: str, read: Callable[[Sequence[str]], object], lengths: Callable[[Sequence[str]], list[int]]
) -> float:
    """Tokens that a model reads in a second.

    The first call on a machine measures it on sample texts; what it found is kept, so that the same query is given the
    same work every time.

    Args:
        key: names the model, its precision and device.
        read: makes the model read texts.
        lengths: counts tokens of texts.
    """
    with _measuring:
        return _tokens_per_s(key, read, lengths)


def _tokens_per_s(
    key: str, read: Callable[[Sequence[str]], object], lengths: Callable[[Sequence[str]], list[int]]
) -> float:
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    digest = hashlib.blake2b(
        f"{key} {n_cores} {platform.machine()} {_processor()}".encode(), digest_size=16
    ).hexdigest()
    kept = cache_folder() / "speed" / f"{digest}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        speed = float(json.loads(kept.read_text(encoding="utf-8"))["tokens_per_s"])
        if speed > 0:
            return speed
    texts = MEASURING_TEXTS[:N_TEXTS]
    read(texts)  # what is loaded and compiled at the first text is not counted
    speed = sum(lengths(texts)) / min(_seconds(lambda: read(texts), n_cores or 1) for _ in range(N_RUNS))
    with contextlib.suppress(OSError):  # a cache that cannot be written is one that is not used
        _keep(kept, {"model": key, "n_cores": n_cores, "tokens_per_s": speed})
    return speed


def _processor() -> str:
    """The processor's name, where the system tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    return platform.processor()


def n_within(lengths: Sequence[int], budget_s: float, speed: float) -> int:
    """How many texts of these lengths, in tokens, from the first on, are read in so many seconds; one at least."""
    n_tokens = 0
    for n, length in enumerate(lengths):
        n_tokens += length
        if n and n_tokens > budget_s * speed:
            return n
    return len(lengths)


def _seconds(work: Callable[[], object], n_cores: int) -> float:
    """How long a piece of work takes where all cores are free for it."""
    start, used = time.perf_counter(), time.process_time()
    work()
    elapsed, used = time.perf_counter() - start, time.process_time() - used
    is_on_processor = used > elapsed / 10  # else it ran on a GPU, or waited
    return min(elapsed, used / n_cores) if is_on_processor else elapsed


def _keep(path: Path, value: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)
