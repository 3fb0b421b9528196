"""Rankings of documents, as evaluation wants them, from an index that ranks passages."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from semsearch.encoders.models import cache_folder
from semsearch.errors import InvalidInput
from semsearch.evaluation.collections import MAX_NAMED, Collection
from semsearch.evaluation.measures import Search
from semsearch.indexing import build_index
from semsearch.reports import IndexReport, Progress
from semsearch.search_options import MAX_K, RankingOptions
from semsearch.searching import Searcher
from semsearch.types import Embedder

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["JudgedNames", "collection_path", "document_ranking", "index_collection", "judged_names", "with_names"]

LOCK_WAIT_S = 60.0  # for another process that brings the same collection up to date


def document_ranking(
    searcher: Searcher, query: str, k: int, **options: Unpack[RankingOptions]
) -> list[tuple[str, float]]:
    """Rank documents by their best passage.

    With a reranker the first documents are rescored, as for a user who asks for ten; the others follow in the order of
    the first stage.

    Args:
        searcher: an open index.
        query: the query's text.
        k: number of documents.
        options: how passages are scored, as for `Searcher.search`.

    Returns:
        At most k (`Document.id`, score), best first.

    Raises:
        InvalidInput, ModelError, IndexCorrupt: as `Searcher.search` does.
    """
    hits = searcher.search(query, k=k, per_document=1, fold=False, **options)
    return [(hit.document.id, hit.score) for hit in hits]


def index_collection(
    collection: Collection,
    embedder: Embedder,
    *,
    truncate: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> IndexReport:
    """Bring the index of a collection up to date; it is kept in the cache folder, so the next time is quick.

    Args:
        collection: what to index.
        embedder: the model.
        truncate: take of each document what the model reads at once, as most published figures do, not all of it.
        progress: called with what is being done.

    Raises:
        InvalidInput: the cache folder may not be written to.
        IndexLocked: another process has been writing to it for a minute.
        ModelError: the model cannot be run.
    """

    def show(state: Progress) -> None:
        if progress is not None:
            progress(replace(state, files_total=max(collection.n_documents, state.files_done)))

    path = collection_path(collection, embedder, truncate=truncate)
    _check_writable(path)
    documents = collection.documents()
    if truncate:
        documents = (replace(document, text=_beginning(document.text, embedder)) for document in documents)
    return build_index(documents, index=path, embedder=embedder, wait_s=LOCK_WAIT_S, progress=show)


def _check_writable(path: Path) -> None:
    """Raise InvalidInput where an index in the cache folder cannot be made or written to."""
    reason = "permission denied"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.access(path if path.exists() else path.parent, os.W_OK):
            return
    except OSError as error:
        reason = error.strerror or str(error)
    raise InvalidInput(
        f"encoded collections are kept in {path.parent}, which cannot be written to ({reason}); set XDG_CACHE_HOME to "
        "a folder that can"
    )


def _beginning(text: str, embedder: Embedder) -> str:
    """As much of a text as the model reads at once."""
    spans = embedder.token_spans([text])[0]
    return text if len(spans) <= embedder.max_tokens else text[: spans[embedder.max_tokens - 1, 1]]


def collection_path(collection: Collection, embedder: Embedder, *, truncate: bool = False) -> Path:
    """The index of these documents by this model; what else decides about it, `build_index` looks after."""
    key = f"{collection.digest} {embedder.fingerprint} {embedder.max_tokens}{' truncated' if truncate else ''}"
    return cache_folder() / "collections" / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class JudgedNames:
    """How documents of an index are called in judgments.

    Attributes:
        of: judged id by `Document.id`, of documents that are judged.
        missing: judged ids that no document answers to.
    """

    of: dict[str, str]
    missing: tuple[str, ...]


def judged_names(judged: Iterable[str], documents: Iterable[tuple[str, str]]) -> JudgedNames:
    """Match judged ids with documents: by id, else by the end of their path, such as `guide/start.md`.

    All documents of one file, such as the rows of a table, answer to the end of its path.

    Args:
        judged: ids in the judgments.
        documents: (`Document.id`, `Document.source`) of all documents.

    Raises:
        InvalidInput: an id fits several files, or two ids fit one document.
    """
    by_id: dict[str, list[str]] = {}
    by_end: dict[str, dict[str, list[str]]] = {}  # end of a path to path to document ids
    wanted = {name for name in judged if name}
    lengths = {name.count("/") + 1 for name in wanted}
    for document_id, source in documents:
        if document_id in wanted:
            by_id[document_id] = [document_id]
        paths = [path.replace("\\", "/").split("/") for path in (document_id, source)]
        for end in {"/".join(parts[-n:]) for parts in paths for n in lengths} & wanted:
            by_end.setdefault(end, {}).setdefault(source or document_id, []).append(document_id)
    names: dict[str, str] = {}
    missing = []
    for name in sorted(wanted):
        files = by_end.get(name, {})
        if name not in by_id and len(files) > 1:
            raise InvalidInput(
                f"the judged document {name} fits {len(files)} files: {', '.join(sorted(files)[:MAX_NAMED])}; "
                "write more of the path"
            )
        found = by_id.get(name) or [document_id for ids in files.values() for document_id in ids]
        for document_id in found:
            if document_id in names:
                raise InvalidInput(
                    f"{names[document_id]} and {name} are one document, {document_id}; use one name in the judgments"
                )
            names[document_id] = name
        if not found:
            missing.append(name)
    return JudgedNames(names, tuple(missing))


def with_names(search: Search, names: JudgedNames) -> Search:
    """The search with documents called as they are judged; of several with one name the best counts."""

    def renamed(query: str, k: int) -> Sequence[tuple[str, float]]:
        n_asked = k
        while True:
            found = search(query, n_asked)
            best: dict[str, float] = {}
            for document_id, score in found:
                best.setdefault(names.of.get(document_id, document_id), score)
            if len(best) >= k or len(found) < n_asked or n_asked >= MAX_K:
                return list(best.items())[:k]
            n_asked = min(4 * n_asked, MAX_K)  # documents that share a name have used the places up

    return renamed
