"""Run files as TREC has them, `query Q0 document rank score tag` a line, for other tools to read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from semsearch.errors import InvalidInput
from semsearch.evaluation.measures import Run
from semsearch.store.files import write_atomically

__all__ = ["read_run", "write_run"]


def write_run(path: str | Path, run: Run, *, tag: str = "semsearch") -> None:
    """Write a run file.

    Scores are written as float32, lowered by the least that makes a difference where they do not fall from one rank to
    the next: tools that sort by them keep this order.

    Args:
        path: the file, replaced if it is there.
        run: (document id, score) by query id, best first. Some other tools cannot read document ids with blanks.
        tag: a name for the run, without blanks.

    Raises:
        InvalidInput: an id cannot stand in such a file.
    """
    if tag.split() != [tag]:
        raise InvalidInput(f"the tag {tag!r} of a run must be one word")
    lines = []
    for query_id, found in run.items():
        if query_id.split() != [query_id]:
            raise InvalidInput(f"the query id {query_id!r} cannot stand in a run file: it must be one word")
        last = np.float32(np.inf)
        for rank, (document_id, score) in enumerate(found, start=1):
            if not document_id or document_id != document_id.strip() or len(document_id.splitlines()) != 1:
                raise InvalidInput(f"the document id {document_id!r} cannot stand in a run file: name it otherwise")
            last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf), dtype=np.float32))
            lines.append(f"{query_id} Q0 {document_id} {rank} {last!s} {tag}\n")
    write_atomically(Path(path), lambda stream: stream.writelines(line.encode("utf-8") for line in lines))


def read_run(path: str | Path) -> dict[str, list[tuple[str, float]]]:
    """Read a run file, best first by score, ties by the rank written, then by line.

    Raises:
        InvalidInput: the file is missing, a line cannot be read, or a document occurs twice for a query.
    """
    rows: dict[str, list[tuple[float, int, str]]] = {}
    seen: set[tuple[str, str]] = set()
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not a run file: it is not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            query_id, _, rest = line.split(maxsplit=2)
            document_id, rank, score, _ = rest.rsplit(maxsplit=3)
            row = (-float(score), int(rank), document_id)
        except ValueError:
            raise InvalidInput(
                f"{path}, line {number}: {line[:80]!r} is not of a run file; write: query Q0 document rank score tag"
            ) from None
        if math.isnan(row[0]) or (query_id, document_id) in seen:
            what = "the score is not a number" if math.isnan(row[0]) else f"{document_id} is there twice for {query_id}"
            raise InvalidInput(f"{path}, line {number}: {what}; drop the line")
        seen.add((query_id, document_id))
        rows.setdefault(query_id, []).append(row)
    if not rows:
        raise InvalidInput(f"{path} is empty; write lines of: query Q0 document rank score tag")
    return {
        query_id: [(document_id, -negated) for negated, _, document_id in sorted(found, key=lambda row: row[:2])]
        for query_id, found in rows.items()
    }
