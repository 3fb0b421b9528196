"""HTML: the main text without navigation, blocks on lines of their own, headings to the outline."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semsearch.loaders.base import TextBuilder, clean_text, import_extra, one_line, read_bytes
from semsearch.loaders.decoding import decode
from semsearch.types import Document

__all__ = ["append_html", "decode_html", "load_html"]

_DROPPED_TAGS = (
    "script, style, nav, noscript, template, svg, iframe, object, canvas, audio, video, map, select, textarea, "
    "button, datalist"
)
_CONTAINERS = frozenset(
    ("div", "ul", "ol", "dl", "table", "td", "aside", "header", "footer", "form", "p", "section", "details")
)
_NAVIGATION = re.compile(
    r"(?:.*[-_])?(?:nav|navbar|navheader|navfooter|navigation|nav[-_]?links|(?:main|sub|side|top|search)?menu|"
    r"(?:left|right|nav)?sidebar|sphinxsidebar|side[-_]?nav|breadcrumbs?|pagination|pager|toc|toctree|toc[-_]?tree|"
    r"table[-_]of[-_]contents|search[-_]?(?:box|bar|form)|skip[-_]?links?|cookie[-_]?(?:banner|notice|consent)|"
    r"share[-_]?(?:bar|buttons)|noprint|no-?search|no-?index|robots-nocontent|tagline|footer)",
    re.IGNORECASE,
)
_NAVIGATION_ROLES = frozenset(("navigation", "search", "banner", "contentinfo", "menu", "menubar", "complementary"))
_ADMONITION = re.compile(r"note|warning|tip|admonition|important|caution|info|danger|example|topic", re.IGNORECASE)
_PERMALINK = re.compile(
    r"(?:.*[-_ ])?(?:headerlink|anchor|anchorjs-link|permalink|header-anchor)(?: .*)?", re.IGNORECASE
)
_HEADING_TAGS = {f"h{level}": level for level in range(1, 7)}
_BLOCK_TAGS = frozenset(
    (
        *_HEADING_TAGS, "html", "body", "address", "article", "aside", "blockquote", "caption", "center", "dd",
        "details", "dialog", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header",
        "hgroup", "hr", "legend", "li", "main", "menu", "ol", "p", "section", "summary", "table", "tbody", "td",
        "tfoot", "th", "thead", "tr", "ul",
    )
)  # fmt: skip
_TIGHT_TAGS = frozenset(("li", "dt", "dd", "tr", "thead", "tbody", "tfoot"))
_MAX_CELL_CHARS = 2_000
_MAIN_SHARE = 0.5
_MAX_DROPPED_SHARE = 0.5

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]+)", re.IGNORECASE)
_PROGRAM = re.compile(r"<\?(?:php\b|=).*?\?>", re.IGNORECASE | re.DOTALL)
_XML_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([a-zA-Z0-9_:.-]+)", re.IGNORECASE)
# Browsers read these labels as the larger set; pages that declare them use its extra characters.
_LARGER_SETS = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932",
    "euc_kr": "cp949", "iso8859-9": "cp1254", "big5": "big5hkscs", "tis-620": "cp874",
}  # fmt: skip


def load_html(path: Path) -> Document:
    """A web page; the title is its `<title>`, else its first heading of level 1."""
    builder = TextBuilder()
    title = append_html(builder, decode_html(read_bytes(path)))
    return builder.document(path, title=title)


def decode_html(data: bytes) -> str:
    """Decode a page by its byte order mark, the encoding it declares when that fits, else by detection.

    Raises:
        LoadError: the bytes are no text.
    """
    if not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        match = _XML_ENCODING.search(data[:1024]) or _META_CHARSET.search(data[:4096])
        try:
            name = codecs.lookup(match.group(1).decode("ascii")).name if match else ""
            if name and not name.startswith("utf-16"):
                return data.decode(_LARGER_SETS.get(name, name))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)


def _without_programs(markup: str) -> str:
    """A page without the PHP in it, of which a parser would take what follows the first > for text."""
    end = markup.rfind("?>") + 2  # what is never closed is left to the parser
    return _PROGRAM.sub("", markup[:end]) + markup[end:] if end > 1 else markup


def append_html(builder: TextBuilder, markup: str) -> str:
    """Add a page's main text to `builder`.

    Args:
        builder: where the text goes; headings keep their levels.
        markup: the decoded page, or a fragment of one.

    Returns:
        The page's own title, or "".
    """
    lexbor = import_extra("selectolax.lexbor", "selectolax")
    markup = clean_text(_without_programs(markup))
    tree = lexbor.LexborHTMLParser(markup)
    title_node = tree.css_first("head > title") or tree.css_first("title")
    title = one_line(title_node.text()) if title_node else ""
    body = tree.body or tree.root
    if body is None:
        return title
    n_headings = len(builder.outline)
    length_before = builder.length
    _drop_boilerplate(body)
    _Writer(builder).write(_main_node(body))
    if builder.length == length_before:  # nothing but navigation: a page of links is all it is
        fresh = lexbor.LexborHTMLParser(markup)
        for node in fresh.css("script, style, noscript, template, svg"):
            node.decompose()
        if fresh.body is not None:
            _Writer(builder).write(fresh.body)
    own = builder.outline[n_headings:]
    return title or next((heading.title for heading in own if heading.level == 1), "")


def _text_length(node: Any) -> int:
    return len(node.text(deep=True) or "")


def _drop_boilerplate(body: Any) -> None:
    """Remove what is never text, then navigation, unless it would take most of the page along."""
    for node in body.css(_DROPPED_TAGS):
        node.decompose()
    n_chars = max(_text_length(body), 1)
    candidates = body.css("[role], [class], [id], [hidden], [aria-hidden=true], aside, header, footer, form, dir, menu")
    for node in candidates:
        if node.parent is not None and _is_boilerplate(node) and _text_length(node) <= _MAX_DROPPED_SHARE * n_chars:
            node.decompose()


def _is_boilerplate(node: Any) -> bool:
    tag, attributes = node.tag, node.attributes
    classes = (attributes.get("class") or "").split()
    if tag in ("html", "body", "main", "article") or tag in _HEADING_TAGS:
        return False
    if (attributes.get("role") or "").lower() in _NAVIGATION_ROLES or "hidden" in attributes:
        return not node.css_first("h1")
    if tag in ("footer", "form"):
        return True
    if tag == "header":
        return not node.css_first("h1")
    if tag == "aside":
        return not any(_ADMONITION.search(name) for name in classes)
    if tag == "a" or tag == "span":
        return any(_PERMALINK.fullmatch(name) for name in classes) and len((node.text() or "").strip()) <= 2
    if tag not in _CONTAINERS or (tag == "section" and not classes):
        return False
    names = classes if "section" in classes or tag == "section" else [*classes, attributes.get("id") or ""]
    return any(_NAVIGATION.fullmatch(name) for name in names)


def _main_node(body: Any) -> Any:
    """The element that holds the page's own text: main or a lone article, when most of the text is in it."""
    n_chars = max(_text_length(body), 1)
    for selector in ("main", "[role=main]", "article"):
        nodes = body.css(selector)
        if len(nodes) == 1 and _text_length(nodes[0]) >= _MAIN_SHARE * n_chars:
            return nodes[0]
    return body


class _Writer:
    """Walks a tree without recursion and writes its blocks."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._inline: list[str] = []
        self._gap = 2
        self._marker = ""
        self._list_depth = 0
        self._heading_level = 0  # of the heading whose words are still to come

    def write(self, root: Any) -> None:
        """Write everything under `root`."""
        stack = [(root, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                self._leave(node.tag)
                continue
            tag = node.tag or "-instruction"  # <?php ... ?>
            if tag == "-text":
                self._inline.append(node.text(deep=False) or "")
            elif not tag.startswith(("-", "_", "!")) and not self._take_whole(node):
                self._enter(tag)
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(list(_children(node))))
        self._flush()

    def _take_whole(self, node: Any) -> bool:
        """Write elements that are one block whatever is in them."""
        tag = node.tag
        if tag == "pre":
            self._flush()
            self._builder.add((node.text() or "").expandtabs(8).strip("\n"), gap=2)
            self._gap, self._marker = 2, ""
        elif tag == "tr" and (cells := _row_cells(node)) is not None:
            self._flush()
            filled = [cell for cell in cells if cell]
            if filled:
                self._builder.add(" | ".join(cells) if len(filled) > 1 else filled[0], gap=self._gap)
                self._gap = 1
        elif tag == "img":
            alt = one_line(node.attributes.get("alt") or "")
            self._inline.append(f" {alt} " if len(alt) > 15 else "")
        else:
            return False
        return True

    def _enter(self, tag: str) -> None:
        if tag == "br" and self._heading_level:
            self._inline.append(" ")
        elif tag == "br":
            self._flush()
            self._gap = min(self._gap, 1)
        if tag not in _BLOCK_TAGS:
            return
        self._flush()
        if tag in _HEADING_TAGS:
            self._heading_level = _HEADING_TAGS[tag]
        elif tag in ("ul", "ol", "menu"):
            self._gap = 1 if self._list_depth else 2
            self._list_depth += 1
        elif tag == "li":
            self._marker = "  " * max(self._list_depth - 1, 0) + "- "
        elif tag in ("table", "dl"):
            self._gap = 2

    def _leave(self, tag: str) -> None:
        if tag not in _BLOCK_TAGS:
            return
        self._flush()
        if tag in _HEADING_TAGS:
            self._heading_level, self._gap = 0, 2
        elif tag in ("ul", "ol", "menu"):
            self._list_depth = max(self._list_depth - 1, 0)
            self._gap = 1 if self._list_depth else 2
        else:
            self._gap = 1 if tag in _TIGHT_TAGS else 2
        if tag == "li":
            self._marker = ""

    def _flush(self) -> None:
        """Write the inline text gathered so far as a block."""
        text = one_line("".join(self._inline))
        self._inline.clear()
        if text and self._heading_level:  # only its first block: an unclosed heading would swallow the page
            self._builder.heading(text, self._heading_level)
            self._heading_level, self._marker, self._gap = 0, "", 2
        elif text:
            is_item, self._marker = self._marker, ""
            self._builder.add(is_item + text, gap=self._gap)
            self._gap = 2


def _children(node: Any) -> Iterator[Any]:
    child = node.child
    while child is not None:
        yield child
        child = child.next


def _row_cells(row: Any) -> list[str] | None:
    """The cells' texts, or None when the table is there for layout and its cells hold whole passages."""
    if row.css_first("table, pre, h1, h2, h3, h4, h5, h6") is not None:
        return None
    cells = [one_line(cell.text(separator="") or "") for cell in _children(row) if cell.tag in ("td", "th")]
    return cells if all(len(cell) <= _MAX_CELL_CHARS for cell in cells) else None
