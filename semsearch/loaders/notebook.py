"""Jupyter notebooks: Markdown cells as they are, code in fences, the beginning of text outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semsearch.errors import LoadError
from semsearch.loaders.base import TextBuilder, clean_metadata, read_text, text_document
from semsearch.loaders.markdown import first_title, markdown_outline
from semsearch.types import Document

__all__ = ["load_notebook"]

_MAX_OUTPUT_LINES = 20
_MAX_OUTPUT_CHARS = 1_000


def load_notebook(path: Path) -> Document:
    """A notebook; the title is its metadata's, else its first heading of level 1.

    Raises:
        LoadError: not JSON, not a notebook, or without any text.
    """
    try:
        notebook = json.loads(read_text(path))
    except ValueError as error:
        raise LoadError("is not a Jupyter notebook (it is not valid JSON)") from error
    cells = _cells(notebook)
    if cells is None:
        raise LoadError("is not a Jupyter notebook (it holds no cells)")
    metadata = notebook.get("metadata") if isinstance(notebook.get("metadata"), Mapping) else {}
    language = _language(metadata)
    builder = TextBuilder()
    for cell in cells:
        source = _joined(cell.get("source", cell.get("input")))
        if cell.get("cell_type") == "code":
            builder.add(_fenced(source, language))
            for output in _outputs(cell):
                builder.add(_fenced(output, "text"))
        else:
            builder.add(source)
    text = builder.text()
    outline = list(markdown_outline(text))
    title = metadata.get("title")
    return text_document(
        path,
        text,
        title=title if isinstance(title, str) and title.strip() else first_title(outline),
        outline=outline,
        metadata=clean_metadata({"language": language} if language else {}),
    )


def _cells(notebook: Any) -> list[Mapping[str, Any]] | None:
    """The cells of format 4, or of the first work sheet of format 3; None when it is no notebook."""
    if not isinstance(notebook, Mapping):
        return None
    cells = notebook.get("cells")
    sheets = notebook.get("worksheets")
    if cells is None and isinstance(sheets, list) and sheets and isinstance(sheets[0], Mapping):
        cells = sheets[0].get("cells")
    return [cell for cell in cells if isinstance(cell, Mapping)] if isinstance(cells, list) else None


def _language(metadata: Mapping[str, Any]) -> str:
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        section = metadata.get(key)
        if isinstance(section, Mapping) and isinstance(section.get(name), str):
            return str(section[name])
    return ""


def _joined(source: Any) -> str:
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _fenced(code: str, language: str) -> str:
    """Code between fences longer than any in it; nothing for blank code."""
    code = code.strip("\n")
    if not code.strip():
        return ""
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{language}\n{code}\n{fence}"


def _outputs(cell: Mapping[str, Any]) -> Iterator[str]:
    """Printed text and plain results, cut short; pictures, HTML and tracebacks are left out."""
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if not isinstance(output, Mapping):
            continue
        data = output.get("data")
        plain = data.get("text/plain") if isinstance(data, Mapping) else output.get("text")
        lines = _joined(plain)[:_MAX_OUTPUT_CHARS].split("\n")
        yield "\n".join(lines[:_MAX_OUTPUT_LINES])
