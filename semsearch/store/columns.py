"""What filters need of all documents of an index, in memory: the order of their values, and their passages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semsearch.store.metadata import Store
from semsearch.store.positions import Positions
from semsearch.types import IntArray

__all__ = ["COLUMN_BYTES", "Bound", "Column", "Places", "read_ids"]

COLUMN_BYTES = 16  # of each document in a column

_Value = str | int | float
Bound = tuple[str, _Value | None]  # =, <, <=, > or >=, and what values are compared with; none fits None


class Places:
    """Chunk and vector of every visible passage, by document, in memory: 16 bytes each, and 24 to 40 a document."""

    def __init__(self, store: Store) -> None:
        hidden = [row[0] for row in store.query("SELECT id FROM documents WHERE visible = 0")]
        sql = "SELECT group_concat(document_id), group_concat(id), group_concat(vector_id) FROM chunks"
        table = [read_ids([column]) for column in store.query(sql)[0]]
        order = np.argsort(table[0], kind="stable")
        order = order[~np.isin(table[0][order], hidden)] if hidden else order
        document_of, self._chunks, self._vectors = (column[order] for column in table)
        self.documents: IntArray
        self.documents, self._first = np.unique(document_of, return_index=True)
        self._positions = Positions(self.documents)
        self._n = np.diff(self._first, append=len(document_of))

    def count(self, documents: IntArray) -> IntArray:
        """int64 (n,) passages that each of these documents has; 0 for one that is not visible."""
        at, is_visible = self._positions.find(documents)
        n = np.zeros(len(documents), dtype=np.int64)
        n[is_visible] = self._n[at[is_visible]]
        return n

    def of(self, documents: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """(document, id, vector) of each passage of those of these documents that are visible, int64."""
        at, is_visible = self._positions.find(documents)
        at, documents = at[is_visible], documents[is_visible]
        if len(self._chunks) == len(self.documents):  # as where each row of a table is one
            return documents, self._chunks[at], self._vectors[at]
        n = self._n[at]
        ends = np.cumsum(n)
        rows = np.arange(int(n.sum())) + np.repeat(self._first[at] - (ends - n), n)
        return np.repeat(documents, n), self._chunks[rows], self._vectors[rows]


class Column:
    """The documents that have a value of one kind in a field, by value, in memory.

    SQLite says where a range begins and ends; what lies between is taken from here.
    """

    def __init__(self, store: Store, field: str, kind: int) -> None:
        sql = (
            "SELECT group_concat(document_id) FROM (SELECT document_id FROM field_values INDEXED BY field_values_value "
            "WHERE field = ? AND kind = ? ORDER BY value, document_id)"
        )
        documents = read_ids([store.query(sql, [field, kind])[0][0]])
        order = np.argsort(documents, kind="stable")
        ascending = documents[order]
        self._is_usable = bool(np.all(ascending[1:] > ascending[:-1]))  # no document has two values
        self._documents, self._order = (documents, order) if self._is_usable else (documents[:0], order[:0])
        self._key = [field, kind, int(ascending[-1])]  # what is staged meanwhile has larger ids

    @property
    def n_bytes(self) -> int:
        """In memory."""
        return COLUMN_BYTES * len(self._documents)

    def within(self, store: Store, bounds: Sequence[Bound]) -> IntArray | None:
        """The documents whose values are within all of some bounds, in no order; None where it cannot tell."""
        if not self._is_usable or any(value is None for _, value in bounds):
            return None
        starts = [self._first(store, _FROM[operator], value) for operator, value in bounds if operator in _FROM]
        ends = [self._first(store, _UNTIL[operator], value) for operator, value in bounds if operator in _UNTIL]
        if -1 in starts or -1 in ends:
            return None
        start, end = max(starts, default=0), min(ends, default=len(self._documents))
        return self._documents[start:end]

    def _first(self, store: Store, operator: str, value: _Value | None) -> int:
        """Where the first value stands that is more than this one, or not less; -1 where it is not known."""
        sql = (
            f"SELECT document_id FROM field_values INDEXED BY field_values_value WHERE field = ? AND kind = ? "
            f"AND document_id <= ? AND value {operator} ? ORDER BY value, document_id LIMIT 1"
        )
        found = store.query(sql, [*self._key, value])
        if not found:
            return len(self._documents)
        row = int(self._order[np.searchsorted(self._documents, found[0][0], sorter=self._order)])
        return row if self._documents[row] == found[0][0] else -1


# What the first value within a bound, and the first beyond it, is to it.
_FROM = {">": ">", ">=": ">=", "=": ">="}
_UNTIL = {"<": ">=", "<=": ">", "=": ">"}


def read_ids(texts: Sequence[str | None]) -> IntArray:
    """The numbers that SQLite's group_concat has written, int64."""
    text = ",".join(filter(None, texts))
    return np.fromstring(text, dtype=np.int64, sep=",") if text else np.empty(0, dtype=np.int64)
