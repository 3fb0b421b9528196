"""Which indexes agents may ask. They name them; they never give a path."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from semsearch.errors import IndexNotFound, InvalidInput
from semsearch.store.files import find_indexes, index_path

if TYPE_CHECKING:
    from semsearch.reopening import CurrentSearcher
    from semsearch.searching import Searcher

__all__ = ["Indexes"]

MAX_INDEXES = 200


class Indexes:
    """The indexes that agents may ask, by name; each is opened when it is first asked. Safe to use from threads."""

    def __init__(
        self, named: Sequence[str] = (), *, opened: Mapping[str, Searcher | CurrentSearcher] | None = None
    ) -> None:
        """Say which they are.

        Args:
            named: names or folders of the only ones; the first is the default. Without any, all that `find_indexes`
                finds.
            opened: searchers that are open already, by name, in place of all others; the caller closes them.
        """
        self._named = {path.name: path for path in map(index_path, named)}
        if len(self._named) < len(set(map(index_path, named))):
            raise InvalidInput(f"two of the indexes {', '.join(named)} have the same name; serve them one by one")
        self._given = dict(opened or {})
        self._opened: dict[Path, CurrentSearcher] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All that may be asked, the default first."""
        if self._given or self._named:
            return list(self._given or self._named)
        names = [path.name for path in find_indexes()]
        return sorted(names, key=lambda name: (name != "default", name))[:MAX_INDEXES]

    def path(self, name: str) -> Path:
        """The folder of one of `names`."""
        return self._given[name].path if self._given else self._named.get(name) or index_path(name)

    def choose(self, name: str | None) -> str:
        """The name, if it is one of `names`; the default for None.

        Raises:
            IndexNotFound: it is none, or there is none.
        """
        names = self.names()
        if not names:
            raise IndexNotFound("there is no index yet; its user can make one with: semsearch index FOLDER")
        if name is None:
            return names[0]
        if name not in names:
            raise IndexNotFound(f"there is no index {name!r}; there are: {', '.join(names)}")
        return name

    @contextmanager
    def searcher(self, name: str) -> Iterator[Searcher]:
        """One of `names`, open while the context lasts.

        Raises:
            IndexNotFound, IndexCorrupt: as `Searcher.open`.
        """
        from semsearch.reopening import CurrentSearcher
        from semsearch.searching import Searcher

        found = self._given.get(name)
        if isinstance(found, Searcher):
            yield found
            return
        if found is None:
            path = self.path(name)
            with self._lock:
                found = self._opened.setdefault(path, CurrentSearcher(path, partial(Searcher.open, path)))
        with found.use() as searcher:
            yield searcher

    def close(self) -> None:
        """Close those that were opened here."""
        with self._lock:
            for opened in self._opened.values():
                opened.close()
            self._opened.clear()
