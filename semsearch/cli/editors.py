"""Opens a hit in the user's editor, at its line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from semsearch.cli.places import file_line
from semsearch.errors import InvalidInput

if TYPE_CHECKING:
    from semsearch.types import Hit

__all__ = ["editor_command", "open_in_editor"]

# How editors are told a line, by the name of their program.
PLUS = ("+{line}", "{path}")
COLON = ("{path}:{line}",)
GOTO = ("-g", "{path}:{line}")
LINE = ("--line", "{line}", "{path}")
LINE_ARGUMENTS = {
    **dict.fromkeys(("vi", "vim", "nvim", "gvim", "mvim", "view", "nano", "pico", "emacs", "emacsclient"), PLUS),
    **dict.fromkeys(("gedit", "gnome-text-editor", "joe", "kak", "mcedit", "mg", "micro", "ne"), PLUS),
    **dict.fromkeys(("code", "code-insiders", "codium", "vscodium", "cursor", "windsurf"), GOTO),
    **dict.fromkeys(("atom", "helix", "hx", "lapce", "subl", "sublime_text", "zed", "zeditor"), COLON),
    **dict.fromkeys(("kate", "idea", "pycharm", "webstorm", "goland", "clion"), LINE),
    "mate": ("-l", "{line}", "{path}"),
}
USUAL = ("editor", "nano", "vim", "vi")


def editor_command(path: str, line: int | None) -> list[str]:
    """The editor's program and its arguments; the line is left out where the editor is not known to take one.

    Raises:
        InvalidInput: no editor is named or found.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        program = shlex.split(named)
    except ValueError as error:
        raise InvalidInput(f"the editor {named!r} cannot be read ({error}); set VISUAL or EDITOR anew") from error
    if not program:
        program = next(([name] for name in USUAL if shutil.which(name)), [])
    if not program or shutil.which(program[0]) is None:
        what = f"the editor {program[0]!r} is not installed" if program else "no editor is known"
        raise InvalidInput(f"{what}; name one, as in: export EDITOR=nano")
    name = Path(program[0]).stem.lower()
    if name == "editor":  # a name for another program
        name = Path(os.path.realpath(shutil.which("editor") or "")).stem.split(".")[0]
    form = LINE_ARGUMENTS.get(name, ("{path}",)) if line is not None else ("{path}",)
    return [*program, *(part.format(path=path, line=line) for part in form)]


def open_in_editor(hit: Hit) -> int:
    """Let the user edit the file of a hit; returns the editor's exit status.

    Raises:
        InvalidInput: the hit is in no file that is still there, or there is no editor.
    """
    path = hit.document.source
    if not Path(path).is_absolute() or not Path(path).is_file():
        raise InvalidInput(f"hit {hit.rank}, {path or hit.document.id}, is not a file that could be opened here")
    with _terminal() as stdin:
        return subprocess.call(editor_command(path, file_line(hit)), stdin=stdin)


@contextmanager
def _terminal() -> Iterator[IO[bytes] | None]:
    """The terminal, for an editor to be typed into, also where stdin held the query; None leaves stdin as it is."""
    if sys.stdin is None or sys.stdin.isatty():
        yield None
        return
    try:
        terminal = Path("/dev/tty").open("rb")  # noqa: SIM115 - closed below
    except OSError:
        yield None
        return
    with terminal:
        yield terminal
