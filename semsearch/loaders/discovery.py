"""Which files there are under a folder: hidden and ignored ones left out, links followed once, oddities reported."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsearch.errors import InvalidInput

__all__ = ["IGNORE_FILES", "Found", "find_files"]

IGNORE_FILES = (".gitignore", ".semsearchignore")
"""Files of gitignore patterns, the later ones stronger."""

_SKIPPED_FOLDERS = frozenset(("node_modules", "__pycache__"))


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read, or one that cannot be.

    Attributes:
        path: the file, or the folder that could not be listed.
        reason: why it will not be read, in words for the user; None when it can be.
    """

    path: Path
    reason: str | None = None


def find_files(root: Path, *, globs: Sequence[str] = (), excludes: Sequence[str] = ()) -> Iterator[Found]:
    """List the files under `root`, in the same order each time: depth first by name, links after everything else.

    Left out without a word: hidden folders, `node_modules`, `__pycache__`, and what `.gitignore`, `.semsearchignore`
    or `.git/info/exclude` exclude; the ignore files of the folders above count up to the top of the git repository
    around `root`, unless they exclude `root` itself. Links are followed once, to what was not found elsewhere.

    Args:
        root: a folder, or a single file, which no pattern excludes.
        globs: gitignore-style patterns relative to `root` (`*.md`, `guides/**`); a file must match one
            when any are given.
        excludes: patterns of the same style; files and folders that match are left out.

    Raises:
        InvalidInput: `root` does not exist, or a pattern is malformed.
    """
    wanted, unwanted = _spec(globs), _spec(excludes)
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise InvalidInput(f"{root}: {error.strerror or error}") from error
    if stat.S_ISDIR(mode):
        yield from _Walk(root, wanted if globs else None, unwanted).run()
    else:
        yield Found(root, None if stat.S_ISREG(mode) else "not a regular file")


def _spec(patterns: Sequence[str]) -> Any:
    from pathspec import GitIgnoreSpec  # here: importing the loaders stays instant

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise InvalidInput(f"malformed pattern among {', '.join(patterns)}: {error}") from error


def _ignore_spec(paths: Sequence[Path]) -> Any | None:
    """The patterns of ignore files as one spec; None when there are none. Malformed patterns match nothing."""
    from pathspec import GitIgnoreSpec

    lines: list[str] = []
    for path in paths:
        try:
            lines += path.read_text("utf-8-sig", errors="surrogateescape").splitlines()
        except OSError:
            continue
    patterns: list[Any] = []
    for line in lines:
        try:
            patterns += GitIgnoreSpec.from_lines([line]).patterns
        except ValueError:
            continue
    return GitIgnoreSpec(patterns) if patterns else None


@dataclass(frozen=True, slots=True)
class _Rules:
    """The patterns of one folder, and those of the folders around it."""

    folder: str
    spec: Any
    outer: _Rules | None

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Ask the nearest folder's patterns first; the first that has a say decides."""
        rules: _Rules | None = self
        while rules is not None:
            relative = os.path.relpath(path, rules.folder).replace(os.sep, "/")
            verdict = rules.spec.check_file(relative + "/" * is_folder).include
            if verdict is not None:
                return bool(verdict)
            rules = rules.outer
        return False


class _Walk:
    """One walk; `_seen` holds (device, inode) of folders listed and of files found through links or not."""

    def __init__(self, root: Path, wanted: Any | None, unwanted: Any) -> None:
        self._root = root
        self._wanted = wanted
        self._unwanted = unwanted
        self._seen_folders: set[tuple[int, int]] = set()
        self._seen_files: set[tuple[int, int]] = set()
        self._links: list[tuple[Path, _Rules | None]] = []

    def run(self) -> Iterator[Found]:
        yield from self._folder(self._root, _outer_rules(self._root))
        while self._links:
            links, self._links = self._links, []
            for path, rules in links:
                yield from self._link(path, rules)

    def _folder(self, top: Path, outer: _Rules | None) -> Iterator[Found]:
        """Walk a folder with an explicit stack; links are put aside."""
        stack: list[tuple[Path, _Rules | None]] = [(top, outer)]
        while stack:
            path, rules = stack.pop()
            try:
                status = path.lstat() if path != top else path.stat()
                is_folder = stat.S_ISDIR(status.st_mode)
                if is_folder:
                    if self._is_seen(self._seen_folders, status):
                        continue
                    names = sorted(os.listdir(path))  # noqa: PTH208 (names may be undecodable; Path objects cost)
            except OSError as error:
                yield Found(path, _reason(error))
                continue
            if not is_folder:
                yield from self._file(path, status)
                continue
            own = _ignore_spec([path / name for name in IGNORE_FILES if name in names])
            inner = _Rules(str(path), own, rules) if own else rules
            children = [(path / name, inner) for name in names if self._is_listed(path / name, inner)]
            stack.extend(reversed(children))

    def _is_listed(self, path: Path, rules: _Rules | None) -> bool:
        """Leave out what is hidden or ignored; put links aside."""
        try:
            mode = path.lstat().st_mode
        except OSError:
            return True  # reported when its turn comes
        is_link = stat.S_ISLNK(mode)
        is_folder = stat.S_ISDIR(mode) or (is_link and path.is_dir())
        if is_folder and (path.name.startswith(".") or path.name in _SKIPPED_FOLDERS):
            return False
        if not is_folder and path.name in IGNORE_FILES:
            return False
        if rules is not None and rules.ignores(str(path), is_folder):
            return False
        relative = path.relative_to(self._root).as_posix() + "/" * is_folder
        if self._unwanted.match_file(relative):
            return False
        if not is_folder and self._wanted is not None and not self._wanted.match_file(relative):
            return False
        if is_link:
            self._links.append((path, rules))
        return not is_link

    def _file(self, path: Path, status: os.stat_result) -> Iterator[Found]:
        if not stat.S_ISREG(status.st_mode):
            yield Found(path, "not a regular file")
            return
        self._seen_files.add((status.st_dev, status.st_ino))
        try:
            path.name.encode("utf-8")
        except UnicodeEncodeError:
            yield Found(path, "its name is not valid UTF-8")
            return
        yield Found(path, "hidden file" if path.name.startswith(".") else None)

    def _link(self, path: Path, rules: _Rules | None) -> Iterator[Found]:
        """Follow a link to what was not found before; never to a folder around the root."""
        try:
            status = path.stat()
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            is_broken = isinstance(error, FileNotFoundError)
            yield Found(path, "broken symbolic link" if is_broken else "symbolic link loop or unreadable target")
            return
        if stat.S_ISDIR(status.st_mode):
            if target not in (self._root.resolve(), *self._root.resolve().parents):
                yield from self._folder(path, rules)
        elif (status.st_dev, status.st_ino) not in self._seen_files:
            yield from self._file(path, status)

    @staticmethod
    def _is_seen(seen: set[tuple[int, int]], status: os.stat_result) -> bool:
        key = (status.st_dev, status.st_ino)
        if status.st_ino and key in seen:
            return True
        seen.add(key)
        return False


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    return "no longer there" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))


def _outer_rules(root: Path) -> _Rules | None:
    """The patterns of the folders above `root` in its git repository; none when they exclude `root` itself."""
    try:
        top = root.resolve()
    except (OSError, RuntimeError):
        return None
    chain = [top, *top.parents]
    repository = next((k for k, folder in enumerate(chain) if (folder / ".git").exists()), None)
    if repository is None:
        return None
    rules: _Rules | None = None
    for folder in reversed(chain[: repository + 1]):
        names = [folder / ".git/info/exclude"] if folder == chain[repository] else []
        if folder != top:
            names += [folder / name for name in IGNORE_FILES]
        if spec := _ignore_spec(names):
            rules = _Rules(str(folder), spec, rules)
        if folder != top and rules is not None and rules.ignores(str(chain[chain.index(folder) - 1]), True):
            return None
    return rules
