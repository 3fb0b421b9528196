"""Patterns of filters: of texts as in a shell, of paths by folders. No pattern takes long on any text."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

__all__ = ["literal_part", "path_matcher", "text_matcher"]

_WILD = re.compile(r"\[!?\]?[^\]]*\]|[*?\[/]")


def literal_part(pattern: str) -> str:
    """The longest piece that every match must hold; "" where there is none."""
    return max(_WILD.split(pattern.removeprefix("./")), key=len)


def text_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a whole text fits: `*` any characters, `?` one, `[abc]` and `[!abc]` one of these and none of these."""
    match = re.compile(fnmatch.translate(pattern)).match
    return lambda text: match(text) is not None


def path_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a path fits, folder by folder; `**` is any number of folders, or at the end all that lies below.

    A pattern that does not begin with "/" may begin at any folder; one that ends with "/" is all that lies below it.
    """
    parts = pattern.removeprefix("./").split("/")
    if len(parts) > 1 and parts[-1] == "":
        parts[-1] = "**"
    if len(parts) > 1 and parts[0] == "":
        parts = parts[1:]
    elif parts[0] != "**":
        parts = ["**", *parts]
    below = len(parts) > 1 and parts[-1] == "**"
    # What stands between `**`: the first block begins the path, the last ends it, the others lie in between, in order.
    blocks: list[list[Callable[[str], bool]]] = [[]]
    for part in parts[:-1] if below else parts:
        if part == "**":
            blocks.append([])
        else:
            blocks[-1].append(text_matcher(part))
    if below:
        blocks.append([text_matcher("*")])
    return lambda path: _fits(blocks, path.removeprefix("/").split("/"))


def _fits(blocks: Sequence[Sequence[Callable[[str], bool]]], folders: Sequence[str]) -> bool:
    first, *others = blocks
    if not _stands_at(first, folders, 0):
        return False
    if not others:
        return len(folders) == len(first)
    at = len(first)
    for block in others[:-1]:  # as early as possible leaves most for the rest
        while at + len(block) <= len(folders) and not _stands_at(block, folders, at):
            at += 1
        at += len(block)
    end = len(folders) - len(others[-1])
    return end >= at and _stands_at(others[-1], folders, end)


def _stands_at(block: Sequence[Callable[[str], bool]], folders: Sequence[str], at: int) -> bool:
    return len(folders) >= at + len(block) and all(fits(folders[at + i]) for i, fits in enumerate(block))
