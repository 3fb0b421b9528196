"""What holds for every command: exit status, errors in one line, closed pipes, and quiet libraries."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from semsearch.cli.output import clean
from semsearch.errors import SemsearchError

__all__ = ["FOUND", "INTERRUPTED", "NONE_FOUND", "TROUBLE", "Door", "prepare_process"]

FOUND, NONE_FOUND, TROUBLE, INTERRUPTED = 0, 1, 2, 130  # as grep; 128 + SIGINT, as shells do

DEBUG_VARIABLE = "SEMSEARCH_DEBUG"
KEPT = {
    "index": ": the work done so far is kept, and the next run goes on from there",
    "watch": ": what changed since the last line above is read by the next run",
    "train": ": the same command with --resume goes on from the last checkpoint",
}
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",  # for the parser processes
    "TOKENIZERS_PARALLELISM": "true",  # stated, so that it does not warn about being guessed
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class Door(click.Group):
    """A group whose commands are listed in the order they were added, and whose errors are meant for users."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use, as they were added."""
        return list(self.commands)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options before the command; `--help` and `--version` print here."""
        with _closed_pipe_is_fine():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and turn what it raises into a line on stderr and an exit status."""
        try:
            with _closed_pipe_is_fine():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except SemsearchError as error:
            _fail(str(error), error)
        except KeyboardInterrupt:
            click.echo(f"\nsemsearch: interrupted{KEPT.get(ctx.invoked_subcommand or '', '')}", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            _fail(_told(error), error)
        except Exception as error:
            _fail(
                f"unexpected {type(error).__name__}: {error}\n"
                f"This is a fault of semsearch. {DEBUG_VARIABLE}=1 before the command shows where; please report it.",
                error,
            )


def prepare_process() -> None:
    """Let Ctrl-C end the process in order, a second one at once, and keep other libraries' warnings off the terminal.

    Only for a process that is ours alone.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows "?"
    if os.environ.get(DEBUG_VARIABLE):
        return
    import logging
    import warnings

    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints what nobody handles


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Break off what is under way, once: Python would go down with threads that still compute, and abort."""
    signal.signal(signal.SIGINT, _leave)
    sys.unraisablehook = lambda _: None  # of what was broken off, as it is cleared away: it would show a traceback
    raise KeyboardInterrupt


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End at once, with the cursor that a progress bar has hidden."""
    if os.isatty(2):
        os.write(2, b"\r\x1b[?25h\n")
    os._exit(INTERRUPTED)


def _told(error: OSError) -> str:
    """What the system says of a path."""
    if isinstance(error, IsADirectoryError) and error.filename:
        path = error.filename2 or error.filename  # of a file and its new name the second
        return f"{path} is a folder, where a file is wanted: move it away, or name another"
    return str(error)


def _fail(message: str, error: Exception) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError):
        _drop_output()  # such as a full disk: what is left in the buffer cannot be written at exit either
    click.echo(f"semsearch: error: {clean(message)}", err=True)
    sys.exit(TROUBLE)


@contextmanager
def _closed_pipe_is_fine() -> Iterator[None]:
    """End quietly when the reader of our output has gone: it got what it wanted."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        sys.exit(FOUND)


def _drop_output() -> None:
    """Let stdout lead nowhere, so that Python's own flush at exit finds nothing to complain about."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, AttributeError, ValueError):
        return  # no real stdout: closed, or replaced by a test
