"""Which tiles a sample takes: by lot, in an order that depends on each tile alone.

A plan is made before pixels are read, and some of its tiles fall to clouds or missing pixels. To
end with exactly as many samples as a variant aims at, a plan holds a reserve. Building it goes
through the tiles in rounds, in the order of their lots, until enough have passed the filters, and
keeps the first of these. What is kept so depends on the plan alone, not on who read what when.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.tiles import tile_ids

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SURVIVING_SHARE: Final = 0.85
"""Of planned tiles, those expected to pass the filters of pixels; assumed, not yet measured.

Scenes are ranked by the cloud cover of the granule, and the best within 60 days of NAIP is mostly
below 5 %. But clouds come in heaps: of tiles in such granules about one in ten may have more than
the 10 % that are allowed. The rest are edges of scenes that lie a little inside their footprints.
"""

RESERVE_SHARE: Final = 0.5
"""Tiles a plan holds beyond the target. They cost nothing unless they are needed, and are enough
while two tiles in three pass."""

ROUND_SHARE: Final = 0.05
"""Tiles of the reserve that are read together, of the target: at most so many too many are read."""

_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def lot(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.uint64]:
    """A number per tile, shape (N,), that looks random and no other tile of the zoom has.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection.
    """
    mixed = tile_ids(zoom, x, y).astype(np.uint64)
    for shift, factor in zip((30, 27), _MIX, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def num_planned(target: int) -> int:
    """How many tiles a plan holds at most, the reserve included."""
    return math.ceil(target * (1 + RESERVE_SHARE))


def num_read(target: int) -> int:
    """How many tiles building is expected to read until ``target`` of them have passed."""
    rounds = math.ceil((target / SURVIVING_SHARE - target) / _round_size(target))
    return target + rounds * _round_size(target)


def rounds_of(ranks: NDArray[np.int64], target: int | None) -> NDArray[np.int64]:
    """The round in which each tile is read: 0 for as many as are wanted, then the reserve's.

    Args:
        ranks: place of each tile in the order of the lots, shape (N,), from 0.
        target: how many are wanted; None: all of them.
    """
    if target is None:
        return np.zeros_like(ranks)
    return np.maximum(0, 1 + (ranks - target) // _round_size(target))


def _round_size(target: int) -> int:
    return math.ceil(target * ROUND_SHARE)
