"""Files to documents: one function a format, chosen by suffix, else by content.

`load` reads a file in this process. `LoaderPool` does the same in worker processes with memory and time limits.
`find_files` lists what there is to read under a folder.
"""

from __future__ import annotations

from semsearch.loaders.discovery import Found, find_files
from semsearch.loaders.formats import LOADERS, TABLE_LOADERS, load
from semsearch.loaders.pool import LoaderPool

__all__ = ["LOADERS", "TABLE_LOADERS", "Found", "LoaderPool", "find_files", "load"]
