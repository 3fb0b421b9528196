"""The command line: each command parses, calls one line of the library, and prints."""

from __future__ import annotations

from semsearch.cli.commands import cli, main

__all__ = ["cli", "main"]
