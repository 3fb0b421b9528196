"""Private semantic search over your own documents.

from semsearch import Searcher, build_index

build_index("docs")
with Searcher.open() as searcher:
for hit in searcher.search("how do I undo a commit?"):
print(hit.document.source, hit.chunk.line_start, hit.chunk.text)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semsearch.encoders import load_embedder, load_reranker
    from semsearch.errors import SemsearchError
    from semsearch.evaluation import document_ranking, evaluate
    from semsearch.indexing import build_index, remove
    from semsearch.reports import IndexReport
    from semsearch.searching import Searcher
    from semsearch.store.archives import export_index, import_index
    from semsearch.types import Chunk, Document, Duplicate, Heading, Hit, Scores

__version__ = "0.1.0"

__all__ = [
    "Chunk",
    "Document",
    "Duplicate",
    "Heading",
    "Hit",
    "IndexReport",
    "Scores",
    "Searcher",
    "SemsearchError",
    "build_index",
    "document_ranking",
    "evaluate",
    "export_index",
    "import_index",
    "load_embedder",
    "load_reranker",
    "remove",
]

_HOMES = {
    "Chunk": "types",
    "Document": "types",
    "Duplicate": "types",
    "Heading": "types",
    "Hit": "types",
    "IndexReport": "reports",
    "Scores": "types",
    "Searcher": "searching",
    "SemsearchError": "errors",
    "build_index": "indexing",
    "document_ranking": "evaluation",
    "evaluate": "evaluation",
    "export_index": "store.archives",
    "import_index": "store.archives",
    "load_embedder": "encoders",
    "load_reranker": "encoders",
    "remove": "indexing",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import semsearch` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'semsearch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"semsearch.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
