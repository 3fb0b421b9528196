"""Sizes and times past which a file is refused; they keep one hostile file from filling memory or stopping a run."""

from __future__ import annotations

__all__ = [
    "FILE_TIMEOUT_S",
    "MAX_COMPRESSION_RATIO",
    "MAX_FILE_BYTES",
    "MAX_METADATA_DEPTH",
    "MAX_METADATA_VALUES",
    "MAX_ROW_BYTES",
    "MAX_TABLE_BYTES",
    "MAX_TEXT_CHARS",
    "MAX_UNPACKED_BYTES",
    "MIN_BOMB_BYTES",
    "WORKER_MEMORY_BYTES",
    "readable_bytes",
]

MIB = 1024 * 1024

MAX_FILE_BYTES = 64 * MIB
"""Largest file that is read into memory whole."""

MAX_TABLE_BYTES = 4096 * MIB
"""Largest table; rows are streamed, so this bounds time and not memory."""

MAX_ROW_BYTES = 16 * MIB
"""Longest line of a JSON Lines file, and longest field of a CSV file."""

MAX_TEXT_CHARS = 64 * 1024 * 1024
"""Longest text one document may come to."""

MAX_UNPACKED_BYTES = 200 * MIB
"""Most that the members of a zip container (docx, pptx, odt, epub) may unpack to."""

MAX_COMPRESSION_RATIO = 200
"""Unpacked size over packed size; XML of real documents stays under about 60."""

MIN_BOMB_BYTES = 16 * MIB
"""Containers that unpack to less than this are harmless whatever their ratio."""

MAX_METADATA_DEPTH = 32
"""Lists and objects within one another in a document's metadata."""

MAX_METADATA_VALUES = 100_000
"""Values in one document's metadata; YAML aliases can make a short header exponentially large."""

FILE_TIMEOUT_S = 60.0
"""Longest a worker may stay silent over one file."""

WORKER_MEMORY_BYTES = 2048 * MIB
"""Address space of a worker process."""


def readable_bytes(n_bytes: int) -> str:
    """Write a size for people: `2.1 GiB`, `64 MiB`, `812 bytes`."""
    for unit, size in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)):
        if n_bytes >= size:
            number = n_bytes / size
            return f"{number:.0f} {unit}" if number >= 10 or number == int(number) else f"{number:.1f} {unit}"
    return f"{n_bytes} bytes"
