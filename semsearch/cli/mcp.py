"""The command that serves agents."""

from __future__ import annotations

import os
import signal

import click

from semsearch.cli import options
from semsearch.cli.door import INTERRUPTED
from semsearch.cli.options import examples

__all__ = ["mcp"]


@click.command(
    epilog=examples(
        "semsearch mcp                        all named indexes; 'default' unless the agent names another",
        "semsearch mcp --index work --index ~/notes/index",
        "claude mcp add documents -- semsearch mcp --index work",
    )
)
@click.option(
    "--index",
    "-i",
    "indexes",
    metavar="NAME",
    multiple=True,
    shell_complete=options.known_indexes,
    help="An index that agents may ask, and no other: a name or the path of an index folder. Repeatable. "
    "[default: all in ./indexes, or in $SEMSEARCH_HOME/indexes where that is set]",
)
def mcp(indexes: tuple[str, ...]) -> None:
    """Serve agents that speak MCP, on stdin and stdout.

    Their tools are search, get_context, list_indexes and similar; nothing can be changed through them, and no file is
    read but the indexes.
    """
    from semsearch.mcp_server import Indexes, serve_stdio

    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # a thread reads stdin and would be waited for
    serve_stdio(Indexes(indexes))
