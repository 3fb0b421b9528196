"""What a run tells its caller, while it goes on and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "Check",
    "ChunkCounts",
    "Damage",
    "FileCounts",
    "IndexReport",
    "Problem",
    "Progress",
    "RemoveReport",
    "SourceCounts",
    "VerifyReport",
]


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
            "elapsed_s": round(self.elapsed_s, 3),
            "problems": [{"path": p.path, "reason": p.reason} for p in self.problems],
            "ann": dict(self.ann),
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


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in an index that is not as it should be.

    Attributes:
        part: `database`, `passages`, `vectors`, `nearest neighbours`, `words`, `encoder` or `folder`.
        what: what is wrong, with the file.
        fix: the command that mends it, or what to do.
    """

    part: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: a part of the index, what was compared, what is wrong, what is worth knowing."""

    part: str
    compared: str
    damages: tuple[Damage, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Files under the index's folders compared with what the index holds of them."""

    unchanged: int = 0
    changed: int = 0
    new: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        index: its folder.
        checks: one a part, in order.
        mended: what was wrong before and was repaired.
        to_index: paths, or ids where there is none, of documents that were damaged and have to be indexed again.
        n_lost: how many more are gone, of which nothing tells what they were. The next run reads all files again; those
            that came from no file have to be given again.
        recall: mean share of the 10 nearest of exact search that the FAISS index finds; None where it was not measured.
        sources: None where the database cannot be read.
        elapsed_s: seconds.
    """

    index: Path
    checks: tuple[Check, ...]
    mended: tuple[Damage, ...]
    to_index: tuple[str, ...]
    n_lost: int
    recall: float | None
    sources: SourceCounts | None
    elapsed_s: float

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What is wrong now."""
        return tuple(damage for check in self.checks for damage in check.damages)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong now, or has gone."""
        return not self.damages and not self.to_index and not self.n_lost

    def as_dict(self) -> dict[str, Any]:
        """The object that `semsearch verify --json` prints."""
        return {
            "index": str(self.index),
            "sound": self.is_sound,
            "checks": [asdict(check) for check in self.checks],
            "mended": [asdict(damage) for damage in self.mended],
            "to_index": list(self.to_index),
            "n_lost": self.n_lost,
            "recall_at_10": self.recall,
            "sources": asdict(self.sources) if self.sources is not None else None,
            "elapsed_s": round(self.elapsed_s, 3),
        }
