"""Which loader reads which file, and the boundary where all that can go wrong becomes a `LoadError`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from semsearch.errors import LoadError
from semsearch.loaders.decoding import decode
from semsearch.loaders.failures import explain
from semsearch.loaders.markdown import load_markdown
from semsearch.loaders.notebook import load_notebook
from semsearch.loaders.office import load_docx, load_pptx
from semsearch.loaders.opendocument import load_epub, load_odt
from semsearch.loaders.pdf import load_pdf
from semsearch.loaders.source_code import CODE_SUFFIXES, load_code, load_python, load_shell
from semsearch.loaders.tables import load_csv, load_json, load_jsonl, load_tsv
from semsearch.loaders.text import TEXT_LOADERS, load_text
from semsearch.loaders.web import load_html
from semsearch.types import Document

__all__ = ["LOADERS", "TABLE_LOADERS", "load"]

LOADERS: dict[str, Callable[[Path], Document]] = {
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"), load_markdown),
    **TEXT_LOADERS,
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), load_html),
    **dict.fromkeys((".py", ".pyi", ".pyw"), load_python),
    **dict.fromkeys((".sh", ".bash", ".zsh", ".ksh"), load_shell),
    **dict.fromkeys(CODE_SUFFIXES, load_code),
    ".ipynb": load_notebook,
    ".pdf": load_pdf,
    ".docx": load_docx,
    ".docm": load_docx,
    ".pptx": load_pptx,
    ".pptm": load_pptx,
    ".odt": load_odt,
    ".epub": load_epub,
}
"""Lower-case suffix to the function that makes the file's one document; other suffixes are told by content."""

TABLE_LOADERS: dict[str, Callable[[Path, str | None], Iterator[Document]]] = {
    ".csv": load_csv,
    ".tsv": load_tsv,
    ".tab": load_tsv,
    ".jsonl": load_jsonl,
    ".ndjson": load_jsonl,
    ".json": load_json,
}
"""Lower-case suffix to the function that makes a document of each row; it is given the text column's name."""

_OLD_FORMATS = {
    ".doc": "old Word format: save it as .docx",
    ".ppt": "old PowerPoint format: save it as .pptx",
    ".xls": "spreadsheet: export it as .csv",
    ".xlsx": "spreadsheet: export it as .csv",
    ".ods": "spreadsheet: export it as .csv",
    ".rtf": "RTF is not supported: save it as .docx or .odt",
    ".mobi": "Kindle format: convert it to .epub",
    ".azw3": "Kindle format: convert it to .epub",
    ".djvu": "DjVu is not supported: convert it to PDF",
}
_ZIP_MEMBERS = (
    ("word/document.xml", load_docx),
    ("ppt/presentation.xml", load_pptx),
    ("META-INF/container.xml", load_epub),
    ("content.xml", load_odt),
)
_SHEBANGS = ((b"python", load_python), (b"sh", load_shell))
_HTML_START = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)
_HEAD_BYTES = 65_536


def load(path: Path, *, text_column: str | None = None) -> Iterator[Document]:
    r"""Read a file in this process; rows of tables are streamed, everything else is one document.

    Args:
        path: the file; upper and lower-case suffixes are equal.
        text_column: column of tables that holds the text; None takes the likeliest.

    Yields:
        Documents with id `str(path)`, or `path#row=N` for the N-th data row of a table. Their text has "\n" line ends,
        no NUL and no lone surrogate.

    Raises:
        LoadError: the file cannot be read. `skipped` is True when there is nothing to read (empty, blank, binary,
            unsupported), `retry` when the cause lies outside the file. Rows may have been yielded before.
    """
    try:
        yield from _load(path, text_column)
    except (Exception, RecursionError) as error:
        failure = explain(error, path)
        if failure is error:
            raise
        raise failure from error


def _load(path: Path, text_column: str | None) -> Iterator[Document]:
    suffix = path.suffix.lower()
    if suffix in TABLE_LOADERS:
        yield from TABLE_LOADERS[suffix](path, text_column)
    elif suffix in _OLD_FORMATS:
        raise LoadError(_OLD_FORMATS[suffix], skipped=True)
    else:
        yield (LOADERS.get(suffix) or _loader_by_content(path))(path)


def _loader_by_content(path: Path) -> Callable[[Path], Document]:
    """Choose by the first bytes, for text files and unknown suffixes.

    Raises:
        LoadError: it is empty or binary.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise LoadError("empty file", skipped=True)
    if head.startswith(b"%PDF-"):
        return load_pdf
    if head.startswith(b"PK\x03\x04"):
        return _loader_by_members(path)
    if head.startswith(b"#!"):
        command = head.split(b"\n", 1)[0]
        return next((loader for mark, loader in _SHEBANGS if mark in command), load_text)
    if _HTML_START.match(decode(head)):
        return load_html
    return load_text


def _loader_by_members(path: Path) -> Callable[[Path], Document]:
    """Tell the kind of a zip container by what is in it."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    for member, loader in _ZIP_MEMBERS:
        if member in names:
            return loader
    raise LoadError("binary file (a zip archive)", skipped=True)
