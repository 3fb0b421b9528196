"""`python -m semsearch` is the command `semsearch`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; never returns."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as where a shell runs it in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while modules are loaded, nothing is under way
    from semsearch.cli import main as run

    run()


if __name__ == "__main__":  # parser processes import this module again
    main()
