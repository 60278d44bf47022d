"""Pixels of one tile out of a source: nearest, bilinear, or the average of the area they cover.

A pixel is observed where its centre lies in a source pixel that is observed; what is missing counts
for nothing beside what is not. That is GDAL's rule for bilinear warps. OpenCV does the lookups.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.pixels.lattice import Floats, Lattice

    Pixels = NDArray[np.float32]

LARGEST_PX: Final = 32_000
"""Rows and columns of a source that OpenCV still looks up."""

_TALL_PX: Final = 2.0
"""Source pixels from which on one strip a row of pixels is enough when averaging: a strip's height is
what the slant of a pixel's sides is told by, beside the pixel's own width."""

EXACT_BELOW: Final = 2**24
"""Sums of whole numbers are exact in 32 bits below."""


def nearest(values: Pixels, lattice: Lattice) -> Pixels:
    """The source pixel in which each centre lies, (bands, tile_px, tile_px); NaN where none is."""
    x, y = lattice.centres()
    num_rows, num_columns = values.shape[1:]
    found = values[:, _number(y, num_rows), _number(x, num_columns)]
    return _without_lost(found, _outside(lattice, x, y, num_rows, num_columns))


def bilinear(values: Pixels, lattice: Lattice) -> Pixels:
    """Weighted means of the four nearest source pixels, (bands, tile_px, tile_px)."""
    x, y = lattice.centres()
    at = (x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32)
    missing = np.isnan(values[0])
    if not missing.any():
        found = np.stack([_looked_up(band, *at) for band in values])
        return _without_lost(found, _outside(lattice, x, y, *missing.shape))
    weight = _looked_up((~missing).astype(np.float32), *at)
    sums = [_looked_up(np.where(missing, np.float32(0), band), *at) for band in values]
    with np.errstate(invalid="ignore", divide="ignore"):
        return _without_lost(np.stack(sums) / weight, _lost(missing, lattice, x, y))


def average(values: Pixels, lattice: Lattice) -> Pixels:
    """Means over the area that each pixel covers, (bands, tile_px, tile_px).

    Rows of pixels are cut into strips. Source columns are averaged between the edges of each strip,
    which cross them aslant; then these averages along the strip, between the sides of pixels. Both by
    differences of sums, at fractions of pixels. The grid is nearly upright in the source
    (:attr:`Lattice.is_nearly_upright`): a pixel's sides are taken for upright over a strip's height.

    Args:
        values: (bands, rows, columns), whole numbers whose sums stay below :data:`EXACT_BELOW`.
        lattice: of the tile.
    """
    missing = np.isnan(values[0])
    areas = _Areas(lattice, *missing.shape)
    if not missing.any():
        found = np.stack([areas.mean(band) for band in values])
        x, y = lattice.centres()
        return _without_lost(found, _outside(lattice, x, y, *missing.shape))
    weight = areas.mean((~missing).astype(np.float32))
    sums = [areas.mean(np.where(missing, np.float32(0), band)) for band in values]
    with np.errstate(invalid="ignore", divide="ignore"):
        return _without_lost(np.stack(sums) / weight, _lost(missing, lattice, *lattice.centres()))


class _Areas:
    """The areas that the pixels of a tile cover in planes of one size."""

    def __init__(self, lattice: Lattice, num_rows: int, num_columns: int) -> None:
        self._strips = strips = 1 if lattice.factor >= _TALL_PX else 2
        ends = np.clip(lattice.strip_edges(num_columns, strips=strips), 0, num_rows)
        sides = np.clip(lattice.pixel_sides(strips=strips), 0, num_columns)
        self._ends, self._sides = ends.astype(np.float32), sides.astype(np.float32)
        self._heights = np.diff(self._ends, axis=0)
        self._sizes = self._joined(np.diff(self._sides, axis=1))
        columns, rows = (np.arange(n, dtype=np.float32) for n in (num_columns, len(sides)))
        self._columns = np.ascontiguousarray(np.broadcast_to(columns, ends.shape))
        self._rows = np.ascontiguousarray(np.broadcast_to(rows[:, None], sides.shape))

    def mean(self, plane: Pixels) -> Pixels:
        """The mean of a plane over each; no number where one has no height or width."""
        with np.errstate(invalid="ignore", divide="ignore"):
            strips = np.diff(_looked_up(_sums_down(plane), self._columns, self._ends), axis=0)
            strips /= self._heights
            strips[self._heights == 0] = 0
            sums = np.zeros((len(strips), plane.shape[1] + 1), np.float32)
            np.cumsum(strips, axis=1, out=sums[:, 1:])
            pixels = self._joined(np.diff(_looked_up(sums, self._sides, self._rows), axis=1))
            pixels /= self._sizes
        return pixels

    def _joined(self, strips: Pixels) -> Pixels:
        """The strips of each row of pixels added up."""
        if self._strips == 1:
            return strips
        joined: Pixels = strips.reshape(-1, self._strips, strips.shape[1]).sum(axis=1)
        return joined


def _sums_down(plane: Pixels) -> Pixels:
    """Sums of all rows above each, (rows + 1, columns)."""
    sums = np.zeros((len(plane) + 1, plane.shape[1]), np.float32)
    for row, values in enumerate(plane):  # faster than a sum down columns of an array in rows
        np.add(sums[row], values, out=sums[row + 1])
    return sums


def _without_lost(found: Pixels, lost: NDArray[np.bool_] | None) -> Pixels:
    if lost is not None:
        found[:, lost] = np.nan
    return found


def _lost(missing: NDArray[np.bool_], lattice: Lattice, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which centres are in no observed source pixel."""
    num_rows, num_columns = missing.shape
    lost = missing[_number(y, num_rows), _number(x, num_columns)]
    outside = _outside(lattice, x, y, num_rows, num_columns)
    return lost if outside is None else lost | outside


def _outside(
    lattice: Lattice, x: Floats, y: Floats, num_rows: int, num_columns: int
) -> NDArray[np.bool_] | None:
    """Which centres are in no source pixel at all; None where the nodes show that each is."""
    if lattice.is_within(num_rows, num_columns):
        return None
    outside: NDArray[np.bool_] = (x < 0) | (x >= num_columns) | (y < 0) | (y >= num_rows)
    return outside


def _number(at: Floats, count: int) -> NDArray[np.int64]:
    """Numbers of the source pixels that coordinates are in; of the outermost for those outside."""
    return np.clip(np.floor(at).astype(np.int64), 0, count - 1)


def _looked_up(plane: Pixels, x: Pixels, y: Pixels) -> Pixels:
    """Bilinear lookups of one plane, whole numbers at its pixels' centres; its edge goes on outside."""
    cv = _opencv()
    found: Pixels = cv.remap(plane, x, y, cv.INTER_LINEAR, borderMode=cv.BORDER_REPLICATE)
    return found


@cache
def _opencv() -> Any:
    """OpenCV, on the calling thread alone: workers are processes, one per core."""
    import cv2

    cv2.setNumThreads(1)
    return cv2
