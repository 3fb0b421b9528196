"""Test collections in BEIR's layout, and a user's own queries and judgments, read line by line.

    FOLDER/corpus.jsonl or corpus.jsonl.gz   {"_id": "d1", "title": "may be missing", "text": "..."} a line
    FOLDER/queries.jsonl                     {"_id": "q1", "text": "..."} a line
    FOLDER/qrels/SPLIT.tsv                   query-id <tab> corpus-id <tab> score, a header first

Layout: Thakur et al., "BEIR", NeurIPS 2021 Datasets and Benchmarks, arXiv:2104.08663.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from semsearch.errors import InvalidInput
from semsearch.types import Document, storable

__all__ = ["Collection", "Qrels", "read_collection", "read_qrels", "read_queries"]

Qrels = Mapping[str, Mapping[str, int]]  # query id to document id to grade; relevant from 1

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
MAX_NAMED = 5  # ids or files named in one error


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries and the judgments of one split.

    Attributes:
        folder: where it lies.
        split: which judgments.
        queries: text by query id, of all splits.
        qrels: grades by query id and document id, of this split.
        n_documents: documents that have a text and an id.
        digest: of these documents, in hex; the same however the file is compressed.
    """

    folder: Path
    split: str
    queries: Mapping[str, str]
    qrels: Qrels
    n_documents: int
    digest: str

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    def documents(self) -> Iterator[Document]:
        """Its documents in order, the title the first paragraph of the text, as on a page, and known as the title."""
        return _documents(_corpus_path(self.folder))


def read_collection(folder: str | Path, split: str = "test") -> Collection:
    """Read a collection, all of it but the documents, which are only checked.

    Documents without a text or with an empty id are left out, since nothing could find them; of several with one id
    the first counts.

    Raises:
        InvalidInput: a file or the split is missing, or a line cannot be read; the text names it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder; give one with {CORPUS}, {QUERIES} and {QRELS}/<split>.tsv")
    corpus, queries_path = _corpus_path(folder), _either(folder / QUERIES)
    if queries_path is None:
        raise InvalidInput(f'{folder} has no {QUERIES}; it holds one {{"_id": ..., "text": ...}} a line')
    queries, qrels = read_queries(queries_path), read_qrels(_split_path(folder, split))
    digest, n_documents = hashlib.blake2b(digest_size=16), 0
    for document in _documents(corpus):
        n_documents += 1
        digest.update(json.dumps([document.id, document.text]).encode("ascii"))
    if not n_documents:
        raise InvalidInput(f"{corpus} holds no document with an _id and a text")
    return Collection(folder, split, queries, qrels, n_documents, digest.hexdigest())


def read_queries(path: str | Path) -> dict[str, str]:
    """Query texts by id, from JSON lines with `_id` and `text`; of several with one id the first counts.

    Raises:
        InvalidInput: the file is missing, or a line cannot be read.
    """
    queries: dict[str, str] = {}
    for number, row in _json_lines(Path(path)):
        query_id = _string(row, "_id", path, number)
        if query_id:
            queries.setdefault(query_id, _string(row, "text", path, number))
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgments from lines of query id, document id and grade between tabs, with or without a header.

    A grade from 1 on is relevant, the more the better; 0 is judged and not relevant. Of several grades for one pair the
    last counts.

    Raises:
        InvalidInput: the file is missing, a line cannot be read, or nothing is judged relevant.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(Path(path)):
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != 3:
            raise InvalidInput(
                f"{path}, line {number}: {len(cells)} columns; write query-id, corpus-id and score with tabs between"
            )
        try:
            grade = int(cells[2])
        except ValueError:
            if not qrels and number == 1:
                continue  # the header
            raise InvalidInput(
                f"{path}, line {number}: the score {cells[2]!r} is not a whole number; write 0, 1, 2, ..."
            ) from None
        qrels.setdefault(storable(cells[0]), {})[storable(cells[1])] = grade
    if not any(grade > 0 for grades in qrels.values() for grade in grades.values()):
        raise InvalidInput(f"{path} judges no document relevant, with a score of 1 or more; nothing can be measured")
    return qrels


def _either(path: Path) -> Path | None:
    """The file, or the same compressed; None when there is neither."""
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)


def _corpus_path(folder: Path) -> Path:
    found = _either(folder / CORPUS)
    if found is None:
        raise InvalidInput(
            f'{folder} has neither {CORPUS} nor {CORPUS}.gz; write one {{"_id": ..., "title": ..., "text": ...}} a line'
        )
    return found


def _split_path(folder: Path, split: str) -> Path:
    splits = {path.stem: path for path in sorted((folder / QRELS).glob("*.tsv"))}
    if not splits:
        raise InvalidInput(
            f"{folder / QRELS} holds no judgments, such as test.tsv with lines of query-id, corpus-id, score"
        )
    if split not in splits:
        raise InvalidInput(f"{folder} has no split {split!r}; it has: {', '.join(splits)}")
    return splits[split]


def _documents(path: Path) -> Iterator[Document]:
    seen: set[str] = set()
    for number, row in _json_lines(path):
        document_id, title, text = (_string(row, name, path, number) for name in ("_id", "title", "text"))
        whole = "\n\n".join(part for part in (title, text) if part.strip())
        if document_id and whole and document_id not in seen:
            seen.add(document_id)
            yield Document(id=document_id, text=whole, title=title.strip())


def _string(row: Mapping[str, Any], name: str, path: str | Path, number: int) -> str:
    """A value as a string; one that is missing or null is empty, but for the id."""
    value = row.get(name)
    if name == "_id":
        if "_id" not in row:
            raise InvalidInput(f"{path}, line {number}: there is no _id; each line needs one")
        value = str(value) if isinstance(value, int) else value
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{path}, line {number}: {name} is {type(value).__name__}, not a string")
    return storable(value)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path}, line {number}: not JSON ({error}); mend or drop the line") from error
        if not isinstance(row, dict):
            raise InvalidInput(f'{path}, line {number}: not a JSON object; write {{"_id": ..., "text": ...}}')
        yield number, row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    number = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}, line {number}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInput(f"{path}, after line {number}: damaged gzip data ({error}); fetch the file again") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
