"""Choose one sample per tile out of several stores. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Keep = Literal["first", "newest", "clearest"]

KEEP: Final = ("first", "newest", "clearest")
"""Rules that choose one of several samples of a tile: that of the first store; the one acquired last
by any sensor; the one with the least clouds. Among equals the first store's is chosen."""


@dataclass(frozen=True, kw_only=True)
class SampleRows:
    """Samples of several stores, each by the number of its store and its row there."""

    source: NDArray[np.int64]
    """Number of the store of each sample, shape (N,)."""
    row: NDArray[np.int64]
    """Row of each sample in its store, shape (N,)."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> SampleRows:
        """Return the samples at some positions, or where a mask is true."""
        return replace(self, source=self.source[which], row=self.row[which])


@dataclass(frozen=True, kw_only=True)
class TileUnion:
    """One sample for each tile of several stores, and the duplicates."""

    kept: SampleRows
    """Samples that the merged store contains, in the order of tile ids."""
    dropped: SampleRows
    """Duplicates that it does not contain, in the order of tile ids."""
    kept_index: NDArray[np.int64]
    """Position in ``kept`` of the sample on the same tile, for each dropped one."""


def unite_tiles(
    ids: Sequence[NDArray[np.int64]], ranks: Sequence[NDArray[np.float64]]
) -> TileUnion:
    """Choose one sample for each tile: that of the lowest rank, among equals the first store's.

    Args:
        ids: tile ids of each store's samples, unique within the store.
        ranks: ranks of each store's samples, as from :func:`rank_samples`.
    """
    source = np.repeat(np.arange(len(ids)), [len(of_store) for of_store in ids])
    row = np.concatenate([np.arange(len(of_store)) for of_store in ids])
    tile_id = np.concatenate(ids)
    order = np.lexsort((source, np.concatenate(ranks), tile_id))
    samples = SampleRows(source=source[order], row=row[order])
    is_best = np.diff(tile_id[order], prepend=-1) != 0
    return TileUnion(
        kept=samples.take(is_best),
        dropped=samples.take(~is_best),
        kept_index=np.cumsum(is_best)[~is_best] - 1,
    )


def rank_samples(
    keep: Keep, acquired: NDArray[np.int64], cloud_fraction: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Rank the samples of a store by a rule; the lowest rank is the best, shape (N,).

    Args:
        keep: one of :data:`KEEP`.
        acquired: seconds since 1970 per sensor, shape (N, sensors).
        cloud_fraction: shape (N,); NaN, which means unknown, ranks last.
    """
    if keep == "newest":
        latest: NDArray[np.float64] = acquired.max(axis=1).astype(np.float64)
        return -latest  # UNKNOWN_TIME is the smallest integer, so it ranks last
    if keep == "clearest":
        return np.nan_to_num(cloud_fraction.astype(np.float64), nan=np.inf)
    return np.zeros(len(acquired))


def same_dates(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pairs of samples have the same times for every sensor, unknown ones included.

    Args:
        ours: seconds since 1970, shape (N, sensors).
        theirs: times of the other samples, of the same shape.

    Returns:
        Shape (N,).
    """
    same: NDArray[np.bool_] = (ours == theirs).all(axis=1)
    return same
