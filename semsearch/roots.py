"""The folders and files an index was made from: which of them a run is about, and what lies under them now."""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput
from semsearch.loaders.discovery import find_files
from semsearch.store.checksums import HASH_BYTES
from semsearch.store.metadata import FileState
from semsearch.store.writing import StoreWriter

__all__ = [
    "Look",
    "Root",
    "choose_roots",
    "covers",
    "file_state",
    "gone_reason",
    "has_same_stat",
    "look",
    "remembered_roots",
]

RACY_NS = 2_000_000_000  # a file changed this shortly before it was read may change again within one clock tick


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or file, absolute, and how it is to be read; `is_changed` when it is read otherwise than last time."""

    path: str
    globs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    text_column: str | None = None
    is_changed: bool = False

    @property
    def how(self) -> dict[str, Any]:
        """How it is to be read, as `meta.roots` has it."""
        return {"globs": list(self.globs), "excludes": list(self.excludes), "text_column": self.text_column}


@dataclass(frozen=True, slots=True)
class Look:
    """What lies under some roots.

    Attributes:
        found: files to read, in order, and the root each is read by.
        left_out: files and folders that are not read, with reasons.
        gone: roots that are not there.
    """

    found: dict[str, Root]
    left_out: dict[str, str]
    gone: list[Root]


def covers(folder: str, path: str) -> bool:
    """Whether a path is a folder or lies under it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def remembered_roots(meta: Mapping[str, Any]) -> dict[str, Root]:
    """The roots of an index, by path in order, from its meta values."""
    return {
        path: Root(path, tuple(how["globs"]), tuple(how["excludes"]), how["text_column"])
        for path, how in sorted(meta.get("roots", {}).items())
    }


def choose_roots(
    store: StoreWriter,
    named: Sequence[str],
    *,
    globs: Sequence[str] | None,
    excludes: Sequence[str] | None,
    text_column: str | None,
    everything: bool,
) -> list[Root]:
    """The named roots, read as is asked or else as last time; with `everything`, those that are remembered as well.

    Raises:
        InvalidInput: options without a root they are for.
    """
    known = remembered_roots(store.meta)
    if not named and (globs is not None or excludes is not None or text_column is not None):
        raise InvalidInput(
            "patterns and a text column belong to a folder: name it, as in semsearch index FOLDER --glob ..."
        )
    chosen = {}
    for path in named:
        before = known.get(path, Root(path))
        column = before.text_column if text_column is None else text_column
        chosen[path] = replace(
            before,
            globs=before.globs if globs is None else tuple(globs),
            excludes=before.excludes if excludes is None else tuple(excludes),
            text_column=column,
            is_changed=column != before.text_column,
        )
    return [*chosen.values(), *(root for path, root in known.items() if everything and path not in chosen)]


def look(roots: Iterable[Root]) -> Look:
    """List what lies under the roots.

    Raises:
        InvalidInput: a pattern is malformed.
    """
    found: dict[str, Root] = {}
    left_out: dict[str, str] = {}
    gone = []
    for root in roots:
        if not os.path.lexists(root.path):
            gone.append(root)
            continue
        for item in find_files(Path(root.path), globs=root.globs, excludes=root.excludes):
            if item.reason is None:
                found.setdefault(str(item.path), root)
            else:
                left_out[os.fsencode(item.path).decode("utf-8", "replace")] = item.reason
    return Look(found, {path: reason for path, reason in left_out.items() if path not in found}, gone)


def gone_reason(root: Root, index: Path) -> str:
    """What to tell of a root that is not there."""
    command = f"semsearch remove {shlex.quote(root.path)} --index {shlex.quote(str(index))}"
    return f"is no longer there; what was read from it stays until: {command}"


def file_state(path: str) -> FileState:
    """What a file is like now, its bytes read; without a hash, so that it is read again, where it cannot be."""
    checked_ns = time.time_ns()
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    try:
        with Path(path).open("rb") as stream:
            stat = os.fstat(stream.fileno())
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:
        return FileState(path, -1, -1, None, "indexed", "", checked_ns)
    return FileState(path, stat.st_size, stat.st_mtime_ns, digest.digest(), "indexed", "", checked_ns)


def has_same_stat(path: str, before: FileState) -> bool:
    """Whether a file has the size and time it had when it was seen, and these can be believed."""
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    is_settled = before.mtime_ns < before.checked_ns - RACY_NS
    return is_settled and (stat.st_size, stat.st_mtime_ns) == (before.size, before.mtime_ns)
