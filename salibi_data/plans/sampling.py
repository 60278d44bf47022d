"""Random sampling of tiles, in an order that depends on each tile alone.

A plan is made before pixels are read, and filters drop some of its tiles for clouds or missing
pixels. To end with exactly the number of samples that a variant aims at, a plan holds a reserve. A
build reads the tiles in rounds, in the order of their sampling hashes, until enough tiles have passed
the filters, and keeps the first of these. The result depends on the plan alone, and not on the order
in which workers finish.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.tiles import tile_ids

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SURVIVING_SHARE: Final = 0.85
"""Share of planned tiles expected to pass the pixel filters; assumed, not measured yet.

Scenes are ranked by the cloud cover of the granule, and the best within 60 days of NAIP is mostly
below 5 %. But clouds are clustered: about one tile in ten of such granules may exceed the allowed 10 %.
The rest are edges of scenes whose pixels end a little inside their footprints.
"""

RESERVE_SHARE: Final = 0.5
"""Share of the target that a plan holds in reserve; enough while two tiles in three pass.

A reserve costs nothing unless it is needed.
"""

ROUND_SHARE: Final = 0.05
"""Share of the target read per extra round; bounds over-reading."""

_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def sampling_hash(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.uint64]:
    """Hash each tile to a 64-bit number, unique within the zoom; shape (N,).

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijection.
    """
    mixed = tile_ids(zoom, x, y).astype(np.uint64)
    for shift, factor in zip((30, 27), _MIX, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def num_planned(target: int) -> int:
    """Largest number of tiles in a plan, the reserve included."""
    return math.ceil(target * (1 + RESERVE_SHARE))


def expected_reads(target: int) -> int:
    """Number of tiles that a build is expected to read until ``target`` of them have passed."""
    rounds = math.ceil((target / SURVIVING_SHARE - target) / _round_size(target))
    return target + rounds * _round_size(target)


def rounds_of(ranks: NDArray[np.int64], target: int | None) -> NDArray[np.int64]:
    """Round in which each tile is read: 0 for the target, then 1, 2, ... for the reserve.

    Args:
        ranks: rank of each tile by its sampling hash, from 0; shape (N,).
        target: number of samples wanted; None for all tiles.
    """
    if target is None:
        return np.zeros_like(ranks)
    return np.maximum(0, 1 + (ranks - target) // _round_size(target))


def _round_size(target: int) -> int:
    return math.ceil(target * ROUND_SHARE)
