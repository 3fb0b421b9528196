"""What a run tells its caller, while it goes on and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ChunkCounts", "FileCounts", "IndexReport", "Problem", "Progress", "RemoveReport"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not in the index, and why; `failed` tells one that could not be read from one left out."""

    path: str
    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class FileCounts:
    """Files, or documents where those were given; seen = indexed + unchanged + skipped + failed."""

    seen: int = 0
    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Chunks whose vectors this run made, those whose vectors were known, and all in the index after it."""

    encoded: int = 0
    reused: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run of `build_index` did.

    Attributes:
        ann: the vector index after it: its `kind`; where that is approximate its `parameter` and the `value` of it, the
            `recall` of the ten nearest that was `asked` and the one that was found when it was `measured_at` so many
            vectors; where `auto` tried another kind in vain, the same of that one in `declined`.
    """

    index: Path
    model: str
    files: FileCounts
    chunks: ChunkCounts
    elapsed_s: float
    problems: tuple[Problem, ...]
    ann: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The object that `semsearch index --json` prints."""
        return {
            "index": str(self.index),
            "files": asdict(self.files),
            "chunks": asdict(self.chunks),
            "ann": dict(self.ann),
            "elapsed_s": round(self.elapsed_s, 3),
            "problems": [{"path": p.path, "reason": p.reason} for p in self.problems],
        }


@dataclass(frozen=True, slots=True)
class RemoveReport:
    """What `remove` took out, and what it did not find."""

    index: Path
    documents: int
    chunks: int
    roots: tuple[str, ...]
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**asdict(self), "index": str(self.index), "roots": list(self.roots), "missing": list(self.missing)}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come; `path` is the file or document dealt with last."""

    files_done: int
    files_total: int
    chunks_done: int
    elapsed_s: float
    path: str
