"""The folders and files an index was made from: which of them a run is about, and what lies under them now."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semsearch.errors import InvalidInput
from semsearch.loaders.discovery import find_files
from semsearch.store.writing import StoreWriter

__all__ = ["Look", "Root", "choose_roots", "covers", "gone_reason", "look", "remembered_roots"]


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or file, absolute, and how it is to be read; `is_changed` when it is read otherwise than last time."""

    path: str
    globs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    text_column: str | None = None
    is_changed: bool = False


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


def remembered_roots(store: StoreWriter) -> dict[str, Root]:
    """The roots of an index, by path."""
    rows = store.rows("SELECT path, globs, excludes, text_column FROM roots ORDER BY path")
    return {path: Root(path, tuple(json.loads(g)), tuple(json.loads(e)), column) for path, g, e, column in rows}


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
    known = remembered_roots(store)
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
