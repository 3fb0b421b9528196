"""What a process keeps of the memory that it has given back."""

from __future__ import annotations

import ctypes
import os

__all__ = ["bound_memory"]

# Parameters of glibc's mallopt(3).
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGE_BYTES = 1_048_576  # blocks from which the system gets them back at once


def bound_memory() -> bool:
    """Have glibc, where it is that, keep one heap a core; to be called before other threads begin.

    By default threads have up to eight a core, and what those of past changes gave back stays in each: over 400 changes
    a service of 2,000 passages grew from 250 to 380 MB, and with this to 262.

    Returns:
        Whether it is glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    heaps = mallopt(M_ARENA_MAX, max(2, os.cpu_count() or 1))
    return bool(heaps and mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))
