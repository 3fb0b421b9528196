"""Texts and JSON made fit to be printed; no terminal library is needed for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from semsearch.answers import strict_json

__all__ = ["clean", "clean_line", "echo_json", "number", "short_path"]

# Control characters could drive the terminal, bidirectional overrides reorder text, surrogates have no encoding.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that a terminal shows and does not obey: line ends and tabs stay, other control characters go."""
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def clean_line(text: str) -> str:
    """The same on one line: white space of any kind becomes single blanks."""
    return clean(" ".join(text.split()))


def short_path(path: str | Path) -> str:
    """The path as one would type it: relative when it lies under the working folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def number(n: int, noun: str) -> str:
    """So many of something: `1 passage`, `2,000 passages`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def echo_json(value: Mapping[str, Any]) -> None:
    """Print one object as strict JSON in UTF-8, whatever the locale.

    Characters that could drive a terminal, and the surrogates that stand for bytes of ill-named files, are escaped.
    """
    text = json.dumps(strict_json(value), ensure_ascii=False, allow_nan=False)
    text = _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    click.echo(text.encode("utf-8", errors="backslashreplace"))
