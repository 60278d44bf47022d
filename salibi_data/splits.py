"""Training, validation and test samples: by blocks of parent tiles, with a guard between them.

Neighbouring tiles look alike and share source pixels at their common edge, so a split drawn tile
by tile would let a model remember what it is tested on. Whole blocks go to one split, and a tile
that touches a block of another split is left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.grid import tile_ids
from salibi_data.schema import SPLITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.variant import Variant

_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_NEIGHBOURS: Final = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]


def assign(variant: Variant, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Split code of each tile at the variant's base zoom, from its block alone.

    Blocks follow the Hilbert curve, and block k takes the position ``frac(k * golden ratio)``:
    a low-discrepancy sequence, so that any compact area has nearly the shares asked for.

    Args:
        variant: gives the base zoom, the block size and the shares.
        x: tile columns, shape (N,).
        y: tile rows, shape (N,).

    Returns:
        Codes of :data:`salibi_data.schema.SPLITS`, shape (N,).
    """
    offset = variant.split_zoom_offset
    num_blocks = 1 << (variant.base_zoom - offset)
    # A neighbour of the outermost tile is over the edge: columns wrap around, rows do not.
    block_x = (np.asarray(x) >> offset) % num_blocks
    block_y = np.clip(np.asarray(y) >> offset, 0, num_blocks - 1)
    position = np.mod(tile_ids(variant.base_zoom - offset, block_x, block_y) * _GOLDEN, 1.0)
    codes = np.full(position.shape, SPLITS["train"], dtype=np.uint8)
    codes[position < variant.test_share + variant.validation_share] = SPLITS["validation"]
    codes[position < variant.test_share] = SPLITS["test"]
    return codes


def guarded(variant: Variant, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each tile may be used: none of its eight neighbours is in a split held back further.

    Test tiles are all kept; validation tiles that touch a test block, and training tiles that
    touch either, are not.
    """
    own = assign(variant, x, y)
    usable = np.ones(own.shape, dtype=bool)
    for dx, dy in _NEIGHBOURS:
        usable &= assign(variant, x + dx, y + dy) <= own
    return usable
