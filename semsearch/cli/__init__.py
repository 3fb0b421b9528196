"""The command line: each command parses, calls one line of the library, and prints."""

from __future__ import annotations

from semsearch.cli.archives import export, import_
from semsearch.cli.commands import cli, main
from semsearch.cli.completion import completion
from semsearch.cli.mcp import mcp
from semsearch.cli.train import train
from semsearch.cli.tune import tune
from semsearch.cli.verify import verify
from semsearch.cli.watch import watch

__all__ = ["cli", "main"]

cli.add_command(train)
cli.add_command(tune)
cli.add_command(export)
cli.add_command(import_)
cli.add_command(verify)
cli.add_command(watch)
cli.add_command(mcp)
cli.add_command(completion)
