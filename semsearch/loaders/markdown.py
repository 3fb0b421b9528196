"""Markdown: front matter to metadata, headings outside code to the outline, the body on the lines of the file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semsearch.errors import LoadError
from semsearch.loaders.base import clean_metadata, import_extra, lines_with_offsets, one_line, read_text, text_document
from semsearch.types import Document, Heading

__all__ = ["first_title", "load_markdown", "markdown_outline", "markdown_words"]

_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(?P<yaml>.*?\n)??(?:---|\.\.\.)[ \t]*(?:\n|\Z)|\+\+\+[ \t]*\n(?P<toml>.*?\n)??\+\+\+[ \t]*(?:\n|\Z)",
    re.DOTALL,
)
_MAX_FRONT_MATTER_CHARS = 65_536
_KEY = re.compile(r"[^\W\d][\w.-]*:(?:[ \t]|$)")
_BELOW_A_KEY = re.compile(r"[ \t]+\S|[-#\])}]|[ \t]*$")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})([^`]*)$")
_NOT_A_PARAGRAPH = re.compile(r"[ \t]*(?:$|[>|#]|[-*+][ \t]|\d+[.)][ \t]|```|~~~|<)| {4}|\t")
_ANCHOR = re.compile(r"[ \t]*\{[ \t]*[#.:][^{}]*\}[ \t]*$")
_IMAGE = re.compile(r"!\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->")
_CODE = re.compile(r"(`+)[ ]?(.+?)[ ]?\1")
_EMPHASIS = re.compile(r"(\*{1,3}|~~)(?=\S)(.+?)(?<=\S)\1|(?<![\w_])(_{1,3})(?=\S)(.+?)(?<=\S)\3(?![\w_])")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


def load_markdown(path: Path) -> Document:
    """Markdown; the title is the front matter's, else the first heading of level 1."""
    front_matter, text = split_front_matter(read_text(path))
    outline = list(markdown_outline(text))
    title = front_matter.get("title")
    return text_document(
        path,
        text,
        title=title if isinstance(title, str) and title.strip() else first_title(outline),
        outline=outline,
        metadata=front_matter,
    )


def first_title(outline: list[Heading]) -> str:
    """The first heading of level 1, or ""."""
    return next((heading.title for heading in outline if heading.level == 1), "")


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Part front matter in YAML (between `---`) or TOML (`+++`) from the body; what is no mapping stays in the body.

    Values that are not valid YAML, such as a title with a colon, are taken as they are written.

    Returns:
        The values, and the body after as many empty lines as the front matter had, so that lines keep their numbers.
    """
    match = _FRONT_MATTER.match(text, 0, _MAX_FRONT_MATTER_CHARS)
    written = match.group("yaml") or match.group("toml") if match else None
    if not match or not written or not written.strip():
        return {}, text
    try:
        values = _yaml_values(written) if match.group("yaml") else _toml_values(written)
        if not isinstance(values, dict):
            return {}, text
        return clean_metadata(values), "\n" * match.group().count("\n") + text[match.end() :]
    except (LoadError, ValueError, RecursionError):
        return {}, text


def _toml_values(front_matter: str) -> dict[str, Any]:
    """A mapping; ValueError where it is no valid TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(front_matter)


def _yaml_values(front_matter: str) -> Any:
    yaml = import_extra("yaml", "PyYAML")
    try:
        return yaml.safe_load(front_matter)
    except (yaml.YAMLError, ValueError):
        return _values_one_by_one(front_matter, yaml)


def _values_one_by_one(front_matter: str, yaml: Any) -> dict[str, Any] | None:
    """Values of a mapping of which not all can be read, those as text; None where a line belongs to no key."""
    entries: list[list[str]] = []
    for line in front_matter.splitlines():
        if _KEY.match(line):
            entries.append([line])
        elif entries and _BELOW_A_KEY.match(line):
            entries[-1].append(line)
        elif line.strip() and not line.startswith("#"):
            return None
    values: dict[str, Any] = {}
    for lines in entries:
        name, _, written = "\n".join(lines).partition(":")
        try:
            values.update(yaml.safe_load("\n".join(lines)))
        except (yaml.YAMLError, ValueError):
            values[name] = written.strip()
    return values


def markdown_outline(text: str) -> Iterator[Heading]:
    """Yield the ATX (`## Title`) and underlined headings outside code fences."""
    fence = ""
    above_start, above = 0, ""
    for start, line in lines_with_offsets(text):
        match = _FENCE.match(line)
        if fence:
            if match and match.group(1).startswith(fence) and not match.group(2).strip():
                fence = ""
            above = ""
            continue
        if match:
            fence, above = match.group(1), ""
            continue
        if match := _ATX.match(line):
            if title := markdown_words(match.group(2) or ""):
                yield Heading(start, len(match.group(1)), title)
            above = ""
            continue
        if (match := _SETEXT.match(line)) and not _NOT_A_PARAGRAPH.match(above):
            if title := markdown_words(above):
                yield Heading(above_start, 1 if match.group(1)[0] == "=" else 2, title)
            above = ""
            continue
        above_start, above = start, line


def markdown_words(title: str) -> str:
    """A heading's words without anchors, links, tags, code marks and emphasis."""
    title = _ANCHOR.sub("", title)
    kept: list[str] = []

    def keep(words: str) -> str:
        """Put what is to be taken literally out of reach of the patterns below."""
        kept.append(words)
        return f"\x00{len(kept) - 1}\x00"

    title = _CODE.sub(lambda match: keep(match.group(2)), title)
    title = _ESCAPE.sub(lambda match: keep(match.group(1)), title)
    title = _LINK.sub(r"\1", _IMAGE.sub(r"\1", title))
    title = _TAG.sub("", title)
    title = _EMPHASIS.sub(lambda match: match.group(2) or match.group(4), title)
    title = re.sub("\x00(\\d+)\x00", lambda match: kept[int(match.group(1))], title)
    return one_line(title)
