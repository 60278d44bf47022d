"""Tiles that several stores have, and what their splits make of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Keep = Literal["first", "newest", "clearest"]

KEEP: Final = ("first", "newest", "clearest")
"""Which of several samples of one tile is kept: that of the first store; the one that a sensor saw
last; the one with the least clouds. Ties go to the store that comes first."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """Samples of several stores, by the number of the store and the row in it."""

    source: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Picked:
        """Those at some positions, or where a mask is true."""
        return replace(self, source=self.source[which], row=self.row[which])


@dataclass(frozen=True, kw_only=True)
class Union:
    """Each tile once, and what is left out for it."""

    kept: Picked
    """In the order of the tiles' ids."""
    dropped: Picked
    """In the same order."""
    instead: NDArray[np.int64]
    """Of each dropped one the position in ``kept`` of the sample on its tile."""


def union(ids: Sequence[NDArray[np.int64]], ranks: Sequence[NDArray[np.float64]]) -> Union:
    """Each tile once: the sample of the least rank, and among equals that of the first store.

    Args:
        ids: of each store its samples' tile ids, each once.
        ranks: of each store its samples' ranks, as :func:`rank` gives them.
    """
    source = np.repeat(np.arange(len(ids)), [len(of_store) for of_store in ids])
    row = np.concatenate([np.arange(len(of_store)) for of_store in ids])
    tile_id = np.concatenate(ids)
    order = np.lexsort((source, np.concatenate(ranks), tile_id))
    every = Picked(source=source[order], row=row[order])
    best = np.diff(tile_id[order], prepend=-1) != 0
    return Union(
        kept=every.take(best),
        dropped=every.take(~best),
        instead=np.cumsum(best)[~best] - 1,
    )


def rank(
    keep: Keep, acquired: NDArray[np.int64], cloud_fraction: NDArray[np.float32]
) -> NDArray[np.float64]:
    """How little each sample of a store is wanted, (N,).

    Args:
        keep: one of :data:`KEEP`.
        acquired: seconds since 1970 per sensor, (N, S).
        cloud_fraction: (N,); NaN, which is not known, is wanted least.
    """
    if keep == "newest":
        latest: NDArray[np.float64] = acquired.max(axis=1).astype(np.float64)
        return -latest  # UNKNOWN_TIME is the least integer, so it comes last
    if keep == "clearest":
        return np.nan_to_num(cloud_fraction.astype(np.float64), nan=np.inf)
    return np.zeros(len(acquired))


def same_dates(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether samples (N, S) were seen at the same times by every sensor, unknown ones included."""
    same: NDArray[np.bool_] = (ours == theirs).all(axis=1)
    return same
