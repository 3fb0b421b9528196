"""Plain text and the light mark-ups read as they stand: reStructuredText, AsciiDoc, LaTeX, Org."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from semsearch.loaders.base import lines_with_offsets, one_line, read_text, text_document
from semsearch.types import Document, Heading

__all__ = [
    "TEXT_LOADERS",
    "load_asciidoc",
    "load_latex",
    "load_org",
    "load_rst",
    "load_text",
    "numbered_outline",
    "plain_outline",
]

_UNDERLINES = "=-~^+\"'"
_RST_ADORNMENTS = "=-~^+\"'`#*:._<>"
_ASCIIDOC_UNDERLINES = "=-~^+"
_MAX_TITLE_CHARS = 120
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ,/&()'_-]{2,59}$")

_NUMBERED = re.compile(
    r"(?:(?P<number>\d{1,2}(?:\.\d{1,2}){1,4}\.?)[ \u3000]+|(?:Chapter|Appendix|Kapitel|Chapitre|Глава) \w{1,4}[.:] +|"
    r"第 ?[\d一二三四五六七八九十]{1,3} ?[章节節部篇][ \u3000.:：]*)(?:[^\W\d_]|[/\"“«(「]).{1,80}$"
)
_MIN_NUMBERED = 5

_RST_ROLE = re.compile(r":[\w:+.-]+:`([^`]*)`")
_RST_QUOTED = re.compile(r"``([^`]*)``|`([^`<]*?)(?:\s*<[^>]*>)?`_{0,2}|\|([^|]+)\|")
_RST_TARGET = re.compile(r"^(.*?)\s*<[^>]*>$")

_ASCIIDOC_TITLE = re.compile(r"(={1,6})[ \t]+(\S.*?)(?:[ \t]+=+)?[ \t]*$")
_ASCIIDOC_SIGNS = re.compile(
    r"^(?:\[\[[\w-]+\]\]|={1,5} \w.*|\[(?:verse|source\b[^\]]*|NOTE|listing)\]|include::.*)$", re.MULTILINE
)
_ASCIIDOC_LINK = re.compile(r"\b(?:https?|link|linkgit|mailto|xref):[^\s\[]*\[([^\]]+)\]")
_SIGNS_CHARS = 100_000
_ASCIIDOC_BLOCK = re.compile(r"(-{4,}|\.{4,}|={4,}|\+{4,}|\*{4,}|_{4,}|/{4,}|`{3,}|\|===)[ \t]*$")

_LATEX_SECTION = re.compile(r"^[ \t]*\\(part|chapter|section|subsection|subsubsection|paragraph)\*?(?:\[[^\]]*\])?\{")
_LATEX_LEVELS = {"part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5}
_LATEX_TITLE = re.compile(r"\\title(?:\[[^\]]*\])?\{")
_LATEX_COMMAND = re.compile(r"\\[a-zA-Z]+\*?|[{}~]")

_ORG_HEADING = re.compile(r"(\*+)[ \t]+(?:(?:TODO|DONE)[ \t]+)?(\S.*?)(?:[ \t]+:[\w@:]+:)?[ \t]*$")
_ORG_TITLE = re.compile(r"^#\+title:[ \t]*(.+)$", re.IGNORECASE | re.MULTILINE)


def load_text(path: Path) -> Document:
    """Plain text; underlined or capital lines are its headings, and a first line underlined with `=` its title."""
    text = read_text(path)
    is_asciidoc = len(_ASCIIDOC_SIGNS.findall(text, 0, _SIGNS_CHARS)) >= 2  # .txt is AsciiDoc's own old suffix
    outline = list(_asciidoc_outline(text)) if is_asciidoc else plain_outline(text)
    is_titled = outline and outline[0].level == 1 and not text[: outline[0].start].strip()
    title = outline[0].title if is_titled and len([h for h in outline if h.level == 1]) == 1 else ""
    return text_document(path, text, title=title, outline=outline)


def load_rst(path: Path) -> Document:
    """reStructuredText; directives stay as text."""
    text = read_text(path)
    outline = [
        Heading(start, level, title)
        for start, level, raw in underlined_titles(text, _RST_ADORNMENTS, overlines=True)
        if (title := rst_words(raw))
    ]
    return text_document(path, text, title=outline[0].title if outline else "", outline=outline)


def load_asciidoc(path: Path) -> Document:
    """AsciiDoc; `= Title` and two-line titles are its headings."""
    text = read_text(path)
    outline = list(_asciidoc_outline(text))
    title = next((heading.title for heading in outline if heading.level == 1), "")
    return text_document(path, text, title=title, outline=outline)


def load_latex(path: Path) -> Document:
    r"""LaTeX source; `\\section` and its kin are the headings."""
    text = read_text(path)
    outline = []
    for start, line in lines_with_offsets(text):
        match = _LATEX_SECTION.match(line)
        title = _latex_argument(text, start + match.end()) if match else ""
        if match and title:
            outline.append(Heading(start, _LATEX_LEVELS[match.group(1)], title))
    match = _LATEX_TITLE.search(text)
    return text_document(path, text, title=_latex_argument(text, match.end()) if match else "", outline=outline)


def load_org(path: Path) -> Document:
    """Org mode; lines that begin with stars are the headings."""
    text = read_text(path)
    outline = [
        Heading(start, len(match.group(1)), match.group(2))
        for start, line in lines_with_offsets(text)
        if (match := _ORG_HEADING.match(line))
    ]
    match = _ORG_TITLE.search(text)
    return text_document(path, text, title=match.group(1) if match else "", outline=outline)


def plain_outline(text: str) -> list[Heading]:
    """Headings of plain text: underlined lines, else numbered ones, else lines in capitals as in manual pages."""
    titles = [Heading(start, level, title) for start, level, title in underlined_titles(text, _UNDERLINES)]
    return titles or numbered_outline(text, apart=True) or _capital_outline(text)


def numbered_outline(text: str, *, apart: bool = False) -> list[Heading]:
    """Lines such as `4.11.5. Word lists`, `Chapter 3: Shells` and `第 3 章 概述`; a few could be anything.

    Args:
        text: the whole text.
        apart: take only lines with blank lines around them.
    """
    found = []
    lines = list(lines_with_offsets(text))
    for k, (start, line) in enumerate(lines):
        match = _NUMBERED.match(line)
        if not match or "…" in line or line.rstrip().endswith((",", ";")):
            continue
        around = (lines[k - 1][1] if k else "", lines[k + 1][1] if k + 1 < len(lines) else "")
        if not apart or not any(neighbour.strip() for neighbour in around):
            number = match.group("number") or ""
            found.append(Heading(start, number.rstrip(".").count(".") + 1, one_line(line)))
    return found if len(found) >= _MIN_NUMBERED else []


def underlined_titles(text: str, marks: str, *, overlines: bool = False) -> Iterator[tuple[int, int, str]]:
    """Yield (offset, level, title) of lines underlined with a run of one of `marks`.

    Levels count the kinds of underline in the order they appear. With `overlines` a title may have a line above it as
    well, which makes another kind; the section then begins at that line.
    """
    kinds: list[str] = []
    lines = list(lines_with_offsets(text))
    for k in range(1, len(lines)):
        start, title = lines[k - 1]
        mark = _adornment(lines[k][1], marks)
        if not mark or not _is_title(title.strip() if overlines else title) or _adornment(title, marks):
            continue
        above = lines[k - 2][1] if k >= 2 else ""
        is_overlined = overlines and _adornment(above, marks) == mark and len(above) >= len(title.rstrip()) - 2
        if not is_overlined and (above.strip() or title[0].isspace()):
            continue
        if abs(len(lines[k][1].rstrip()) - len(title.rstrip())) > 2 and not _fits(title, lines[k][1], overlines):
            continue
        kind = mark * 2 if is_overlined else mark
        if kind not in kinds:
            kinds.append(kind)
        yield lines[k - 2][0] if is_overlined else start, kinds.index(kind) + 1, one_line(title)


def _adornment(line: str, marks: str) -> str:
    """The mark a line consists of, or "" when it is no adornment."""
    line = line.rstrip()
    return line[0] if len(line) >= 2 and line[0] in marks and line == line[0] * len(line) else ""


def _fits(title: str, underline: str, may_be_longer: bool) -> bool:
    """Compare an underline with the columns a title takes: Chinese and Japanese characters take two."""
    n_columns = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in title.rstrip())
    excess = len(underline.rstrip()) - n_columns
    return abs(excess) <= 2 or (may_be_longer and excess > 0)


def _is_title(line: str) -> bool:
    stripped = line.strip()
    return (
        0 < len(stripped) <= _MAX_TITLE_CHARS
        and any(char.isalnum() for char in stripped)
        and not stripped.startswith(("[", "|", "..", "- ", "* ", "+ ", "<"))
    )


def _capital_outline(text: str) -> list[Heading]:
    """Lines in capitals at the margin between blank ones, as in manual pages; a lone one is no heading."""
    lines = list(lines_with_offsets(text))
    found = []
    for k, (start, line) in enumerate(lines):
        if not _CAPITALS.match(line.rstrip()) or (k and lines[k - 1][1].strip()):
            continue
        following = lines[k + 1][1] if k + 1 < len(lines) else ""
        if not following.strip() or following[0].isspace():
            found.append(Heading(start, 1, one_line(line)))
    return found if len(found) >= 2 else []


def rst_words(title: str) -> str:
    """A reStructuredText title without roles, quotes and targets."""

    def role_text(match: re.Match[str]) -> str:
        inner = match.group(1).lstrip("!")
        if inner.startswith("~"):
            inner = inner[1:].rpartition(".")[2]
        return _RST_TARGET.sub(r"\1", inner)

    title = _RST_ROLE.sub(role_text, title)
    title = _RST_QUOTED.sub(lambda match: match.group(1) or match.group(2) or match.group(3) or "", title)
    return one_line(title.replace("\\", "").replace("**", ""))


def _asciidoc_outline(text: str) -> Iterator[Heading]:
    """Headings outside delimited blocks."""
    lines = list(lines_with_offsets(text))
    fence = ""
    k = 0
    while k < len(lines):
        start, line = lines[k]
        below = lines[k + 1][1] if k + 1 < len(lines) else ""
        above = lines[k - 1][1].strip() if k else ""
        if fence:
            fence = "" if line.rstrip() == fence else fence
        elif match := _ASCIIDOC_TITLE.match(line):
            yield Heading(start, len(match.group(1)), asciidoc_words(match.group(2)))
        elif (
            (mark := _adornment(below, _ASCIIDOC_UNDERLINES))
            and _is_title(line)
            and (not above or above.startswith(("[", "//")))
            and _fits(line, below, False)
        ):
            yield Heading(start, _ASCIIDOC_UNDERLINES.index(mark) + 1, asciidoc_words(line))
            k += 1
        elif match := _ASCIIDOC_BLOCK.match(line):
            fence = match.group(1)
        k += 1


def asciidoc_words(title: str) -> str:
    """An AsciiDoc title without quotes, anchors and attribute marks."""
    title = _ASCIIDOC_LINK.sub(r"\1", title)
    title = re.sub(r"\[\[[^\]]*\]\]|\[[#.][^\]]*\]", "", title)
    return one_line(re.sub(r"[`*]|(?<!\w)_|_(?!\w)", "", title))


def _latex_argument(text: str, start: int) -> str:
    """The words of a braced argument that opens just before `start`, up to one paragraph long."""
    depth, end = 1, start
    limit = min(len(text), start + 400)
    while end < limit and depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return one_line(_LATEX_COMMAND.sub(" ", text[start : end - 1])) if not depth else ""


TEXT_LOADERS: dict[str, Callable[[Path], Document]] = {
    ".rst": load_rst,
    ".rest": load_rst,
    ".adoc": load_asciidoc,
    ".asciidoc": load_asciidoc,
    ".asc": load_asciidoc,
    ".tex": load_latex,
    ".ltx": load_latex,
    ".org": load_org,
}
