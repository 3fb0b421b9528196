"""Foreign exceptions, said in words for the user. The one place where they become `LoadError`."""

from __future__ import annotations

import zipfile
from pathlib import Path

from semsearch.errors import LoadError, MissingExtra
from semsearch.loaders.decoding import is_binary

__all__ = ["explain"]

KINDS = {
    ".docx": "Word document",
    ".docm": "Word document",
    ".pptx": "PowerPoint presentation",
    ".pptm": "PowerPoint presentation",
    ".odt": "OpenDocument text",
    ".epub": "EPUB book",
    ".pdf": "PDF",
    ".ipynb": "Jupyter notebook",
}
_OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def explain(error: BaseException, path: Path) -> LoadError:
    """Make a `LoadError` of whatever a loader or its library raised over `path`."""
    if isinstance(error, LoadError):
        return error
    if isinstance(error, MissingExtra):
        return LoadError(str(error), retry=True)
    if isinstance(error, MemoryError):
        return LoadError("needs more memory than there is")
    if isinstance(error, RecursionError):
        return LoadError("nested too deeply")
    if isinstance(error, OSError) and error.errno is not None:
        return _explain_os_error(error)
    kind = KINDS.get(path.suffix.lower())
    if kind:
        return _explain_container(kind, path)
    detail = " ".join(str(error).split())[:200]
    return LoadError(f"cannot be read: {type(error).__name__}" + (f": {detail}" if detail else ""))


def _explain_os_error(error: OSError) -> LoadError:
    if isinstance(error, PermissionError):
        return LoadError("permission denied", retry=True)
    if isinstance(error, FileNotFoundError):
        return LoadError("no longer there", retry=True)
    if isinstance(error, IsADirectoryError):
        return LoadError("a folder, not a file", skipped=True)
    return LoadError(f"cannot be read: {error.strerror or error}", retry=True)


def _explain_container(kind: str, path: Path) -> LoadError:
    """Tell a damaged file of a kind from a file of another kind under that kind's name."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        return _explain_os_error(error)
    article = "an" if kind[0] in "AEIOU" else "a"
    if kind == "PDF" and b"%PDF-" in head[:1024]:
        return LoadError("truncated or damaged PDF")
    if kind == "Jupyter notebook" and head.lstrip()[:1] == b"{":
        return LoadError("damaged Jupyter notebook")
    if kind not in ("PDF", "Jupyter notebook"):
        if head.startswith(_OLE2):
            return LoadError(f"is not {article} {kind} (it is password-protected, or in the old Office format)")
        if head.startswith(b"PK\x03\x04") and _is_damaged_zip(path):
            return LoadError(f"truncated or damaged {kind}")
    return LoadError(f"is not {article} {kind} (it looks like {_looks_like(head)})")


def _is_damaged_zip(path: Path) -> bool:
    """True when the file cannot be listed, or lists the parts an Office or EPUB file has."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return True
    return bool(names & {"[Content_Types].xml", "mimetype", "content.xml", "META-INF/container.xml"})


def _looks_like(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, what in (
        (b"%pdf-", "a PDF"),
        (b"pk\x03\x04", "a zip archive"),
        (b"{\\rtf", "an RTF document"),
        (b"<!doctype html", "a web page"),
        (b"<html", "a web page"),
        (b"<?xml", "XML"),
    ):
        if start.startswith(mark):
            return what
    return "binary data" if is_binary(head) else "plain text"
