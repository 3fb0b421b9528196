"""Word and PowerPoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semsearch.loaders.archives import check_container, parse_xml
from semsearch.loaders.base import TextBuilder, import_extra, one_line
from semsearch.types import Document

__all__ = ["load_docx", "load_pptx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING_NAME = re.compile(r"(?:heading|überschrift|titre|título|titolo|kop|rubrik|заголовок|标题|標題|見出し)\s*(\d)$")
_TITLE_NAMES = frozenset(("title", "titel", "标题", "標題", "表題"))
_SKIPPED = frozenset(
    f"{_W}{name}" for name in ("del", "moveFrom", "instrText", "delText", "rPr", "pPr", "footnoteReference")
) | {"{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}
_MAX_STYLE_DEPTH = 20


def load_docx(path: Path) -> Document:
    """A Word document: paragraphs, tables (one line a row) and footnotes in order; heading styles to the outline.

    Raises:
        LoadError: empty, blank, or a zip bomb. Errors of python-docx, zipfile and lxml pass through.
    """
    check_container(path)
    docx = import_extra("docx", "python-docx")
    document = docx.Document(str(path))
    writer = _WordWriter(_word_styles(document))
    writer.write(document.element.body)
    writer.write_notes(document)
    properties = document.core_properties
    metadata = {
        key: value
        for key, value in (("author", properties.author), ("date", properties.modified or properties.created))
        if value and value != "python-docx"
    }
    outline = writer.builder.outline
    first = outline[0].title if outline and outline[0].start == 0 else ""
    title = (properties.title or "").strip() or writer.title or first
    return writer.builder.document(path, title=title, metadata=metadata)


def _word_styles(document: Any) -> dict[str, tuple[str, int]]:
    """Style id to (lower-case name, heading level; 0 when it is no heading)."""
    elements = {style.get(f"{_W}styleId"): style for style in document.styles.element.iter(f"{_W}style")}

    def level_of(style: Any, depth: int = 0) -> int:
        name = style.find(f"{_W}name")
        match = _HEADING_NAME.match((name.get(f"{_W}val") or "").lower() if name is not None else "")
        if match:
            return int(match.group(1))
        outline = style.find(f"{_W}pPr/{_W}outlineLvl")
        if outline is not None:
            return _outline_level(outline)
        base = style.find(f"{_W}basedOn")
        parent = elements.get(base.get(f"{_W}val")) if base is not None else None
        return level_of(parent, depth + 1) if parent is not None and depth < _MAX_STYLE_DEPTH else 0

    styles = {}
    for style_id, style in elements.items():
        name = style.find(f"{_W}name")
        styles[style_id] = ((name.get(f"{_W}val") or "").lower() if name is not None else "", level_of(style))
    return styles


def _outline_level(element: Any) -> int:
    """The level an outlineLvl element gives, from 1; 0 for body text."""
    value = element.get(f"{_W}val") or ""
    return int(value) + 1 if value.isdigit() and int(value) < 9 else 0


class _WordWriter:
    """Writes a Word body; `title` is the paragraph in the Title style."""

    def __init__(self, styles: dict[str, tuple[str, int]]) -> None:
        self.builder = TextBuilder()
        self.title = ""
        self._styles = styles
        self._gap = 2

    def write(self, parent: Any) -> None:
        for element in parent:
            if element.tag == f"{_W}p":
                self._paragraph(element)
            elif element.tag == f"{_W}tbl":
                self._table(element)
            elif element.tag == f"{_W}sdt":
                content = element.find(f"{_W}sdtContent")
                if content is not None:
                    self.write(content)
            elif element.tag in (f"{_W}ins", f"{_W}moveTo", f"{_W}customXml"):
                self.write(element)

    def _paragraph(self, paragraph: Any) -> None:
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        name, level = self._styles.get(style.get(f"{_W}val") if style is not None else "", ("", 0))
        own_level = paragraph.find(f"{_W}pPr/{_W}outlineLvl")
        level = _outline_level(own_level) if own_level is not None else level
        text = _word_text(paragraph)
        if name.startswith("toc ") or not text.strip():
            return
        if name in _TITLE_NAMES or level:
            self.builder.heading(text, level or 1)
            self.title = self.title or (one_line(text) if name in _TITLE_NAMES else "")
            self._gap = 2
        elif paragraph.find(f"{_W}pPr/{_W}numPr") is not None or name.startswith("list "):
            self.builder.add(f"- {one_line(text)}", gap=self._gap)
            self._gap = 1
        else:
            is_code = "code" in name or "preformatted" in name
            self.builder.add(text.strip("\n") if is_code else text.strip(), gap=2)
            self._gap = 2

    def _table(self, table: Any) -> None:
        self._gap = 2
        for row in table.iter(f"{_W}tr"):
            cells = [one_line(" ".join(_word_text(p) for p in cell.iter(f"{_W}p"))) for cell in row.iter(f"{_W}tc")]
            if any(cells):
                self.builder.add(" | ".join(cells), gap=self._gap)
                self._gap = 1
        self._gap = 2

    def write_notes(self, document: Any) -> None:
        for relation in document.part.rels.values():
            if relation.is_external or not relation.reltype.endswith(("/footnotes", "/endnotes")):
                continue
            for note in parse_xml(relation.target_part.blob):
                if note.get(f"{_W}type") is None:
                    self.builder.add(one_line(" ".join(_word_text(p) for p in note.iter(f"{_W}p"))))


def _word_text(paragraph: Any) -> str:
    """A paragraph's visible text: links and insertions with it, deletions and field codes without."""
    parts: list[str] = []
    stack = [iter(paragraph)]
    while stack:
        element = next(stack[-1], None)
        if element is None:
            stack.pop()
        elif element.tag == f"{_W}t":
            parts.append(element.text or "")
        elif element.tag in (f"{_W}br", f"{_W}cr"):
            parts.append("\n")
        elif element.tag == f"{_W}tab":
            parts.append("\t")
        elif element.tag == f"{_W}noBreakHyphen":
            parts.append("-")
        elif element.tag not in _SKIPPED:
            stack.append(iter(element))
    return "".join(parts)


def load_pptx(path: Path) -> Document:
    """A presentation: one page a slide, the slide's title as heading, then text, tables and speaker's notes.

    Raises:
        LoadError: empty, blank, or a zip bomb. Errors of python-pptx, zipfile and lxml pass through.
    """
    check_container(path)
    pptx = import_extra("pptx", "python-pptx")
    presentation = pptx.Presentation(str(path))
    builder = TextBuilder()
    for slide in presentation.slides:
        builder.page()
        title = slide.shapes.title
        if title is not None and title.has_text_frame:
            builder.heading(title.text_frame.text, 1)
        for shape in _shapes(slide.shapes):
            if title is None or shape.shape_id != title.shape_id:
                _write_shape(builder, shape)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            builder.add(slide.notes_slide.notes_text_frame.text)
    properties = presentation.core_properties
    title = (properties.title or "").strip()
    own_title = "" if title.lower() == "powerpoint presentation" else title
    first = builder.outline[0].title if builder.outline and builder.outline[0].start == 0 else ""
    metadata = {"author": properties.author} if properties.author else {}
    return builder.document(path, title=own_title or first, metadata=metadata)


def _shapes(shapes: Any) -> Iterator[Any]:
    """All shapes in order, those of groups too."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        else:
            yield shape


def _write_shape(builder: TextBuilder, shape: Any) -> None:
    if getattr(shape, "has_table", False) and shape.has_table:
        gap = 2
        for row in shape.table.rows:
            cells = [one_line(cell.text) for cell in row.cells]
            if any(cells):
                builder.add(" | ".join(cells), gap=gap)
                gap = 1
    elif shape.has_text_frame:
        builder.add("\n".join(p.text.replace("\v", "\n") for p in shape.text_frame.paragraphs if p.text.strip()))
