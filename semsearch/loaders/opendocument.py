"""OpenDocument text and EPUB books: zip containers of XML, read with zipfile alone."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from semsearch.errors import LoadError
from semsearch.loaders.archives import open_container, parse_xml
from semsearch.loaders.base import TextBuilder, one_line
from semsearch.loaders.web import append_html, decode_html
from semsearch.types import Document

__all__ = ["load_epub", "load_odt"]

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"
_SKIPPED = frozenset(
    (f"{_TEXT}tracked-changes", f"{_TEXT}table-of-content", f"{_TEXT}alphabetical-index", f"{_TEXT}note-citation",
     f"{_TEXT}sequence-decls", f"{_OFFICE}annotation", f"{_OFFICE}forms")
)  # fmt: skip
_MAX_BLANKS = 100


def load_odt(path: Path) -> Document:
    """An OpenDocument text: headings, paragraphs, lists and tables (one line a row) in order.

    Raises:
        LoadError: empty, blank, encrypted or a zip bomb. Errors of zipfile and lxml pass through.
    """
    with open_container(path) as archive:
        content = parse_xml(archive.read("content.xml"))
        meta = parse_xml(archive.read("meta.xml")) if "meta.xml" in archive.namelist() else None
    body = content.find(f"{_OFFICE}body/{_OFFICE}text")
    if body is None:
        raise LoadError("is not an OpenDocument text (another kind of OpenDocument file)")
    builder = TextBuilder()
    # Most paragraphs have an automatic style; what they are meant to be is the name of its parent.
    styles = {
        style.get(f"{_STYLE}name") or "": style.get(f"{_STYLE}parent-style-name") or ""
        for style in content.iterfind(f"{_OFFICE}automatic-styles/{_STYLE}style")
    }
    _write_odt(builder, body, styles)
    found = {name: _first_text(meta, f"{_DC}{name}") for name in ("title", "creator", "date", "language")}
    title = found.pop("title") or next((heading.title for heading in builder.outline if heading.level == 1), "")
    return builder.document(path, title=title, metadata={key: value for key, value in found.items() if value})


def _write_odt(builder: TextBuilder, body: Any, styles: dict[str, str]) -> None:
    """Write blocks with an explicit stack; entries are (element, depth of lists around it)."""
    stack = [(element, 0) for element in reversed(body)]
    before = ""  # the kind of the block before: items and lines of code stand close together
    while stack:
        element, depth = stack.pop()
        tag = element.tag
        if not isinstance(tag, str) or tag in _SKIPPED:
            continue
        name = element.get(f"{_TEXT}style-name") or ""
        style = styles.get(name, name)
        if tag == f"{_TEXT}h" or (tag == f"{_TEXT}p" and style == "Title"):
            level = element.get(f"{_TEXT}outline-level") or "1"
            builder.heading(_odt_text(element), int(level) if level.isdigit() else 1)
            before = "heading"
        elif tag == f"{_TEXT}p":
            text = _odt_text(element)
            kind = "item" if depth else "code" if "Preformatted" in style else "paragraph"
            if text.strip():
                marker = "  " * (depth - 1) + "- " if depth else ""
                is_close = kind == before != "paragraph"
                builder.add(marker + (text if kind == "code" else text.strip()), gap=1 if is_close else 2)
                before = kind
        elif tag == f"{_TABLE}table":
            _write_odt_table(builder, element)
            before = "table"
        else:
            inner = depth + (tag == f"{_TEXT}list")
            stack.extend((child, inner) for child in reversed(element))


def _write_odt_table(builder: TextBuilder, table: Any) -> None:
    gap = 2
    for row in table.iter(f"{_TABLE}table-row"):
        cells = [
            one_line(" ".join(_odt_text(block) for block in cell.iter(f"{_TEXT}p", f"{_TEXT}h")))
            for cell in row.iter(f"{_TABLE}table-cell")
        ]
        if any(cells):
            builder.add(" | ".join(cells), gap=gap)
            gap = 1


def _odt_text(element: Any) -> str:
    """The text of a paragraph, its blanks, tabs and line breaks written out."""
    parts = [element.text or ""]
    for child in element:
        if child.tag == f"{_TEXT}s":
            count = child.get(f"{_TEXT}c") or "1"
            parts.append(" " * min(int(count) if count.isdigit() else 1, _MAX_BLANKS))
        elif child.tag == f"{_TEXT}tab":
            parts.append("\t")
        elif child.tag == f"{_TEXT}line-break":
            parts.append("\n")
        elif child.tag == f"{_TEXT}note":
            parts.append(f" ({one_line(_odt_text(child))}) ")
        elif isinstance(child.tag, str) and child.tag not in _SKIPPED:
            parts.append(_odt_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _first_text(root: Any, tag: str) -> str:
    """The words of the first `tag` under `root`, or ""."""
    found = next(root.iter(tag), None) if root is not None else None
    return one_line(found.text or "") if found is not None else ""


def load_epub(path: Path) -> Document:
    """An EPUB book: its chapters in reading order, tables of contents left out.

    Raises:
        LoadError: empty, blank, protected or a zip bomb. Errors of zipfile and lxml pass through.
    """
    builder = TextBuilder()
    with open_container(path) as archive:
        names = set(archive.namelist())
        if "META-INF/rights.xml" in names or "META-INF/sinf.xml" in names:
            raise LoadError("encrypted: protected by digital rights management")
        container = parse_xml(archive.read("META-INF/container.xml"))
        package_name = next(
            element.get("full-path") for element in container.iter() if str(element.tag).endswith("}rootfile")
        )
        package = parse_xml(archive.read(package_name))
        for name in _chapters(package, posixpath.dirname(package_name)):
            if name in names:
                append_html(builder, decode_html(archive.read(name)))
    found = {
        name: _first_text(package, f"{_DC}{name}") for name in ("title", "creator", "date", "language", "publisher")
    }
    title = found.pop("title")
    return builder.document(path, title=title, metadata={key: value for key, value in found.items() if value})


def _chapters(package: Any, folder: str) -> list[str]:
    """Member names of the spine's pages in order."""
    items = {item.get("id"): item for item in package.iter(f"{_OPF}item")}
    chapters = []
    for reference in package.iter(f"{_OPF}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        if "html" in (item.get("media-type") or ""):
            chapters.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href") or ""))))
    return chapters
