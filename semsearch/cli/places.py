"""Where a hit lies, in the words of terminals, editors and shells."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from semsearch.answers import hit_path

if TYPE_CHECKING:
    from semsearch.types import Hit

__all__ = ["file_line", "hyperlink", "row_of"]

# Formats whose text is taken out of a container: its line numbers are not the file's, so they are not shown.
CONVERTED = frozenset({".docx", ".epub", ".htm", ".html", ".ipynb", ".odt", ".pdf", ".pptx", ".xhtml"})


def row_of(hit: Hit) -> str:
    """What names the row of a table after its path, such as `#row=3`; "" for other documents."""
    path, document_id = hit_path(hit), hit.document.id
    return document_id[len(path) :] if document_id.startswith(f"{path}#") else ""


def file_line(hit: Hit) -> int | None:
    """The line of its file on which a passage begins, from 1; None where lines of the text are not those of a file."""
    path = hit_path(hit)
    is_converted = Path(path).suffix.lower() in CONVERTED
    return None if is_converted or hit.chunk.page is not None or row_of(hit) else hit.chunk.line_start


def hyperlink(hit: Hit) -> str | None:
    """A `file:` URL for a terminal that shows links; None where stdout is none, or the passage is in no file.

    Source: "Hyperlinks in terminal emulators", which asks for the host, as a terminal may be far from its programs. The
        line stands in the fragment, which only some terminals read and others take for part of the name.
    """
    path = hit.document.source
    if not Path(path).is_absolute() or not sys.stdout.isatty() or os.environ.get("TERM") in {None, "", "dumb", "linux"}:
        return None
    line = file_line(hit)
    reads_lines = os.environ.get("TERM") == "xterm-kitty" or os.environ.get("TERM_PROGRAM") == "iTerm.app"
    fragment = f"#{line}" if reads_lines and line is not None else ""
    return f"file://{quote(socket.gethostname())}{quote(os.fsencode(path))}{fragment}"
