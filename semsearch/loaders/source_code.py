"""Program sources: the text as it stands, with classes and functions as its outline."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from semsearch.loaders.base import lines_with_offsets, one_line, read_text, text_document
from semsearch.types import Document, Heading

__all__ = ["CODE_SUFFIXES", "code_outline", "load_code", "load_python", "load_shell", "python_outline"]

CODE_SUFFIXES = (
    ".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".java", ".kt", ".kts", ".scala", ".go",
    ".rs", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cs", ".swift", ".rb", ".php", ".lua", ".jl",
    ".r", ".pl", ".pm", ".dart", ".ex", ".exs", ".erl", ".hs", ".ml", ".clj", ".groovy", ".vue", ".svelte",
    ".zig", ".nim", ".m", ".sql", ".proto", ".graphql",
)  # fmt: skip

_MAX_INDENT = 8
_MODIFIERS = (
    r"(?:(?:export|default|declare|public|private|protected|internal|static|final|abstract|async|override|sealed|"
    r"open|data|inline|unsafe|partial|pub(?:\([^)]*\))?|const|extern(?:\s*\"C\")?)\s+)*"
)
_DEFINITION = re.compile(
    rf"^(?P<indent>[ \t]*){_MODIFIERS}"
    r"(?P<kind>class|interface|struct|enum|trait|impl|protocol|object|record|module|namespace|mod|defmodule|"
    r"function\*?|func|fn|fun|def|defp|sub|message|service|type)\b\s*"
    r"(?:<[^>]*>\s*)?(?:\([^)]*\)\s*)?(?P<name>[A-Za-z_$][\w$.:]*[!?]?)"
)
_SQL_DEFINITION = re.compile(
    r"^\s*create\s+(?:or\s+replace\s+)?(?:temp(?:orary)?\s+)?(?:unique\s+)?(?:table|view|function|procedure|trigger|index)"
    r"\s+(?:if\s+not\s+exists\s+)?([\w.\"`\[\]]+)",
    re.IGNORECASE,
)
_C_FUNCTION = re.compile(
    r"^(?!(?:return|else|typedef|case|goto|using)\b)[A-Za-z_][\w\s*&:<>,~]*?\b(~?\w[\w:~]*)\s*\([^;]*$"
)
_C_SUFFIXES = frozenset((".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".m"))
_C_NO_FUNCTIONS = frozenset(("if", "for", "while", "switch", "defined", "sizeof"))
_SHELL_FUNCTION = re.compile(
    r"^[ \t]*(?:function\s+([\w:.-]+)\s*(?:\(\s*\))?|([A-Za-z_][\w:.-]*)\s*\(\s*\))\s*(?:\{|\(|$|#)"
)


def load_python(path: Path) -> Document:
    """Python source; the title is the first line of the module's docstring."""
    text = read_text(path)
    tree = _parse(text)
    if tree is None:
        return text_document(path, text, outline=code_outline(text))
    docstring = ast.get_docstring(tree) or ""
    title = docstring.strip().split("\n")[0]
    return text_document(path, text, title=title, outline=python_outline(text, tree))


def load_code(path: Path) -> Document:
    """Source of another language; lines that open a class, function or table at low indentation are its headings."""
    text = read_text(path)
    return text_document(path, text, outline=code_outline(text, path.suffix.lower()))


def load_shell(path: Path) -> Document:
    """Shell script; its functions are the headings."""
    text = read_text(path)
    outline = [
        Heading(start, 1, match.group(1) or match.group(2))
        for start, line in lines_with_offsets(text)
        if (match := _SHELL_FUNCTION.match(line))
    ]
    return text_document(path, text, outline=outline)


def _parse(text: str) -> ast.Module | None:
    """The syntax tree, or None for what today's Python cannot parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody's source are not ours to report
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def python_outline(text: str, tree: ast.Module) -> Iterator[Heading]:
    """Classes, and functions outside functions, where their first decorator or `def` line begins."""
    line_starts = [start for start, _ in lines_with_offsets(text)]
    stack: list[tuple[ast.stmt, int]] = [(node, 1) for node in reversed(tree.body)]
    while stack:
        node, level = stack.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first_line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield Heading(line_starts[first_line - 1], level, node.name)
            if isinstance(node, ast.ClassDef):
                stack.extend((child, level + 1) for child in reversed(node.body))
        elif isinstance(node, ast.If | ast.Try):
            inner = [*node.body, *(s for h in getattr(node, "handlers", ()) for s in h.body), *node.orelse]
            stack.extend((child, level) for child in reversed(inner))


def code_outline(text: str, suffix: str = "") -> Iterator[Heading]:
    """Definitions found line by line; a deeper indentation than the definition before it is a level down."""
    indents: list[int] = []
    for start, line in lines_with_offsets(text):
        if suffix == ".sql":
            match = _SQL_DEFINITION.match(line)
            if match:
                yield Heading(start, 1, match.group(1).strip('"`[]'))
            continue
        match = _DEFINITION.match(line)
        name, indent = "", 0
        if match:
            name, indent = match.group("name").rstrip(":"), len(match.group("indent").expandtabs(4))
        elif suffix in _C_SUFFIXES and (match := _C_FUNCTION.match(line)) and match.group(1) not in _C_NO_FUNCTIONS:
            name = match.group(1)
        if not name or indent > _MAX_INDENT:
            continue
        while indents and indents[-1] >= indent:
            indents.pop()
        indents.append(indent)
        yield Heading(start, len(indents), one_line(name))
