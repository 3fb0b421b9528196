"""Which vector index there is, from what `meta.ann` says of it, and how it follows the vectors that chunks have.

`meta.ann` names the `kind` and the `file`. Of an approximate kind it also keeps `value`, how widely it searches,
`recall` at that value and `asked`, the number of vectors at which these were `measured_at`, and `trained_at`.
`declined` is what `auto` tried last and found wanting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import IndexCorrupt
from semsearch.store.ann import FlatIndex
from semsearch.store.approximate import RECIPES, ApproximateIndex, Recipe, RescoredIndex
from semsearch.store.recall import exact_neighbors, narrow
from semsearch.store.vectors import ShardReader
from semsearch.types import FloatArray, IntArray, VectorIndex

__all__ = ["KINDS", "SAMPLE_SIZE", "SearchKind", "bring_up_to_date", "open_nearest"]

KINDS = ("auto", "flat", *RECIPES)
DEFAULT_RECALL = 0.98

# Comparing all takes 2.1 ms at 50,000 vectors of 384 components and 4.5 ms at 90,000, beside some 5 ms for the rest of
# a query without its encoding. Above, `ivfpq`: at 1,000,000 it finds 0.97 in a millisecond, in 69 bytes a vector.
AUTO_MAX_EXACT = 50_000
AUTO_KIND = "ivfpq"
MIN_APPROXIMATE = 1_000  # vectors; fewer are compared one by one whatever was asked
SAMPLE_SIZE = 300  # queries; the standard error of their mean recall is some 0.004
MAX_DEAD_SHARE = 0.2  # of an index's vectors, before it is built anew without them
GROWTH_TO_MEASURE = 1.5  # times as many vectors as when recall was measured, and it is measured again
GROWTH_TO_TRAIN = 4.0  # times as many as it was trained for, and it is built anew
BLOCK = 65_536  # vectors added at a time

AnyIndex = FlatIndex | ApproximateIndex


@dataclass(frozen=True, slots=True)
class SearchKind:
    """What a user wants: a kind of `KINDS`, and the least recall@10 of one that is approximate, in (0, 1]."""

    kind: str = "auto"
    recall: float = DEFAULT_RECALL


def open_nearest(folder: Path, about: Mapping[str, Any], vectors: ShardReader) -> VectorIndex:
    """The index that `meta.ann` describes, to be searched.

    Raises:
        IndexCorrupt: it is damaged.
        FileNotFoundError: it is gone.
    """
    index = _load(folder, about, vectors.dim, to_change=False)
    if isinstance(index, FlatIndex):
        return index
    return RescoredIndex(index, vectors)


def bring_up_to_date(
    folder: Path,
    name: str,
    live: IntArray,
    vectors: ShardReader,
    before: Mapping[str, Any],
    wanted: SearchKind,
    sample: Callable[[], FloatArray] | None,
) -> dict[str, Any]:
    """Make or change the index so that it holds the vectors with these ids, of the kind that is wanted, in a new file.

    Args:
        folder: of the index.
        name: of the new file; nothing is written where nothing differs.
        live: int64 (n,) ids, ascending.
        vectors: which has them all.
        before: `meta.ann` of what there is; empty for nothing, or nothing that can be used.
        wanted: the kind and the recall.
        sample: gives float32 (q, dim) vectors of queries as they may come, on which recall is measured. Without it no
            other kind is chosen, and nothing measured.

    Returns:
        `meta.ann` of what there is now.
    """
    kind = _kind(before, wanted, len(live), can_measure=sample is not None)
    index = _kept(folder, before, live, vectors.dim) if kind == _kind_of(before) else None
    about = {"trained_at": len(live)} if index is None else {k: v for k, v in before.items() if k != "file"}
    is_same = index is not None and np.array_equal(np.sort(index.ids), live)
    index = index or _empty(kind, live, vectors)
    index.remove(np.setdiff1d(index.ids, live, assume_unique=True))
    new = np.setdiff1d(live, index.ids, assume_unique=True)
    for first in range(0, len(new), BLOCK):
        index.add(new[first : first + BLOCK], vectors.get(new[first : first + BLOCK]))
    if isinstance(index, ApproximateIndex):
        index.value = before.get("value", index.value)
        if sample is not None and _is_to_measure(about, wanted, len(live)):
            queries = sample()
            reached = narrow(index, vectors, queries, exact_neighbors(queries, live, vectors), wanted.recall)
            about |= {"recall": reached, "asked": wanted.recall, "measured_at": len(live)}
            if wanted.kind == "auto" and reached < wanted.recall:
                declined = {"kind": index.kind, **about}
                return bring_up_to_date(folder, name, live, vectors, {"declined": declined}, wanted, sample)
        about |= {"kind": index.kind, "parameter": index.recipe.parameter, "value": index.value}
    else:
        about = {"kind": index.kind, **({"declined": before["declined"]} if "declined" in before else {})}
    if is_same:
        return {**about, "file": before["file"]}
    index.save(folder / name)
    return {**about, "file": name}


def _kept(folder: Path, before: Mapping[str, Any], live: IntArray, dim: int) -> AnyIndex | None:
    """The index there is, to be changed; None where it is damaged, or to be built anew for what it has become."""
    if len(live) > GROWTH_TO_TRAIN * before.get("trained_at", len(live)):
        return None
    try:
        index = _load(folder, before, dim, to_change=True)
    except (IndexCorrupt, FileNotFoundError):
        return None
    n_dead = index.n_dead + len(np.setdiff1d(index.ids, live, assume_unique=True))
    can_remove = isinstance(index, FlatIndex)
    return index if can_remove or n_dead <= MAX_DEAD_SHARE * (len(index) + index.n_dead) else None


def _kind(before: Mapping[str, Any], wanted: SearchKind, n: int, *, can_measure: bool) -> str:
    """The kind to have, of `KINDS` but `auto`."""
    now = _kind_of(before)
    if n < MIN_APPROXIMATE:
        return "flat"
    if not can_measure:
        return now or "flat"
    if wanted.kind != "auto":
        return wanted.kind
    if n <= AUTO_MAX_EXACT / (2 if now in RECIPES else 1):  # no back and forth about one size
        return "flat"
    declined = before.get("declined")
    if declined and n < GROWTH_TO_MEASURE * declined["measured_at"] and wanted.recall >= declined["asked"]:
        return "flat"
    return AUTO_KIND


def _kind_of(about: Mapping[str, Any]) -> str | None:
    """The kind in a user's words; None for none that is built today."""
    names = {FlatIndex.kind: "flat", **{recipe.name: kind for kind, recipe in RECIPES.items()}}
    return names.get(about.get("kind", ""))


def _is_to_measure(about: Mapping[str, Any], wanted: SearchKind, n: int) -> bool:
    return about.get("asked") != wanted.recall or n > GROWTH_TO_MEASURE * about["measured_at"]


def _empty(kind: str, live: IntArray, vectors: ShardReader) -> AnyIndex:
    if kind == "flat":
        return FlatIndex(vectors.dim)
    recipe: Recipe = RECIPES[kind]
    drawn = np.random.default_rng(0).choice(live, recipe.n_training(len(live)), replace=False)
    return ApproximateIndex.train(recipe, vectors.get(np.sort(drawn)), len(live))


def _load(folder: Path, about: Mapping[str, Any], dim: int, *, to_change: bool) -> AnyIndex:
    path, kind = folder / about["file"], _kind_of(about)
    if kind in RECIPES:
        return ApproximateIndex.load(RECIPES[kind], path, dim, about.get("value"), to_change=to_change)
    return FlatIndex.load(path, dim, to_change=to_change)
