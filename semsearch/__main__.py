"""`python -m semsearch` is the command `semsearch`."""

from __future__ import annotations

from semsearch.cli import main

if __name__ == "__main__":  # parser processes import this module again
    main()
