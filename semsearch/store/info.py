"""What an index holds and how it was made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semsearch.store.files import index_path
from semsearch.store.metadata import Store
from semsearch.store.tokens import TOKENS

__all__ = ["FileEntry", "IndexInfo", "inspect_index", "list_documents", "list_files"]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index holds and how it was made; times are ISO 8601 in UTC."""

    path: Path
    model: str
    dim: int
    precision: str
    pooling: str
    max_tokens: int
    weights_sha256: str
    format_version: int
    documents: int
    files: int
    chunks: int
    vectors: int
    size_bytes: int
    token_bytes: int  # of `size_bytes`, what vectors of tokens take
    roots: tuple[str, ...]
    created: str
    updated: str
    ann_kind: str
    ann: dict[str, Any]  # of the vector index, as `IndexReport.ann`
    plan: dict[str, Any] | None  # how searches rank, as tuned, with what is known of the tuning

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**asdict(self), "path": str(self.path), "roots": list(self.roots)}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file the index knows, or a document that came from none.

    Attributes:
        path: absolute, or the document's id.
        title: of its first document; "" when it has none.
        documents, chunks: how many of each it gave.
        status: `indexed`, `skipped` or `failed`.
        reason: why it was not indexed.
    """

    path: str
    title: str
    documents: int
    chunks: int
    status: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def inspect_index(index: str | Path = "default") -> IndexInfo:
    """Describe an index; errors as for `Searcher.open`."""
    store = Store(index_path(index))
    try:
        with store.snapshot() as meta:
            model = meta["model"]
            n_chunks, n_vectors, n_documents, _ = store.counts()
            return IndexInfo(
                path=store.path,
                model=model["name"],
                dim=model["dim"],
                precision=model.get("precision", ""),
                pooling=model.get("pooling", ""),
                max_tokens=model["max_tokens"],
                weights_sha256=model.get("weights_sha256", ""),
                format_version=store.query("PRAGMA user_version")[0][0],
                documents=n_documents,
                files=store.query("SELECT count(*) FROM files WHERE status = 'indexed'")[0][0],
                chunks=n_chunks,
                vectors=n_vectors,
                size_bytes=sum(f.stat().st_size for f in store.path.rglob("*") if f.is_file()),
                token_bytes=sum(f.stat().st_size for f in store.path.glob(f"{TOKENS}*")),
                roots=tuple(sorted(meta["roots"])),
                created=meta["created"],
                updated=meta["updated"],
                ann_kind=meta["ann"]["kind"],
                ann={name: value for name, value in meta["ann"].items() if name != "file"},
                plan=meta.get("plan"),
            )
    finally:
        store.close()


def list_documents(index: str | Path = "default") -> list[tuple[str, str]]:
    """(`Document.id`, `Document.source`) of all documents, by id; errors as for `Searcher.open`."""
    store = Store(index_path(index))
    try:
        with store.snapshot():
            rows = store.query("SELECT key, source FROM documents WHERE visible = 1 ORDER BY key")
        return [(key, source) for key, source in rows]
    finally:
        store.close()


def list_files(index: str | Path = "default") -> list[FileEntry]:
    """What an index knows, in order of path; errors as for `Searcher.open`."""
    sql = """
        SELECT coalesce(d.path, d.key) AS place, min(d.title), count(DISTINCT d.id), count(c.id), 'indexed', ''
        FROM documents d LEFT JOIN chunks c ON c.document_id = d.id WHERE d.visible = 1 GROUP BY place
        UNION ALL SELECT path, '', 0, 0, status, reason FROM files WHERE status != 'indexed' ORDER BY 1
    """
    store = Store(index_path(index))
    try:
        with store.snapshot():
            return [FileEntry(*row) for row in store.query(sql)]
    finally:
        store.close()
