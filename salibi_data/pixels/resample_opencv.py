"""Resample one tile with OpenCV: nearest, bilinear, or the average over the area of each pixel.

A pixel is observed where its centre lies in an observed source pixel. Missing source pixels have no
weight in its value. GDAL has the same rule for bilinear warps.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.pixels.lattice import Floats, Lattice

    Pixels = NDArray[np.float32]

MAX_SOURCE_PX: Final = 32_000
"""Most rows and columns of a source: OpenCV's ``remap`` is limited to 16-bit sizes."""

_ONE_STRIP_PX: Final = 2.0
"""Source pixels per pixel from which on one strip per row of pixels is exact enough when averaging: a
pixel's sides are taken for upright over the height of a strip, and the error relates to its width."""

EXACT_SUM_LIMIT: Final = 2**24
"""Limit below which sums of whole numbers are exact in float32, which has 24 bits of precision."""


def nearest(values: Pixels, lattice: Lattice) -> Pixels:
    """Take the source pixel in which each pixel's centre lies.

    Args:
        values: shape (bands, rows, columns).
        lattice: nodes of the tile in the same source.

    Returns:
        Shape (bands, tile_px, tile_px); NaN where there is no observed source pixel.
    """
    x, y = lattice.centres()
    num_rows, num_columns = values.shape[1:]
    nearest_values = values[:, _index(y, num_rows), _index(x, num_columns)]
    return _mask(nearest_values, _outside(lattice, x, y, num_rows, num_columns))


def bilinear(values: Pixels, lattice: Lattice) -> Pixels:
    """Interpolate bilinearly between the four nearest source pixels.

    Args:
        values: shape (bands, rows, columns).
        lattice: nodes of the tile in the same source.

    Returns:
        Shape (bands, tile_px, tile_px); NaN where the centre is in no observed source pixel.
    """
    x, y = lattice.centres()
    # Here 0.5 is the middle of the first pixel; for OpenCV's remap it is 0.
    at = (x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32)
    missing = np.isnan(values[0])
    if not missing.any():
        interpolated = np.stack([_interpolate(band, *at) for band in values])
        return _mask(interpolated, _outside(lattice, x, y, *missing.shape))
    # Dividing by the interpolated weights keeps missing pixels from darkening their neighbours.
    weight = _interpolate((~missing).astype(np.float32), *at)
    sums = [_interpolate(np.where(missing, np.float32(0), band), *at) for band in values]
    with np.errstate(invalid="ignore", divide="ignore"):
        return _mask(np.stack(sums) / weight, _unobserved(missing, lattice, x, y))


def average(values: Pixels, lattice: Lattice) -> Pixels:
    """Average over the area that each pixel covers.

    Rows of pixels are divided into strips. Each source column is averaged between the two edges of a
    strip, which cross it obliquely; then these averages along the strip, between the two sides of
    each pixel. Both averages are differences of cumulative sums at fractional positions. A pixel's
    sides are taken for upright over the height of a strip, so the tile must be nearly upright in the
    source (:attr:`Lattice.is_nearly_upright`).

    Args:
        values: shape (bands, rows, columns), whole numbers whose sums stay below
            :data:`EXACT_SUM_LIMIT`.
        lattice: nodes of the tile in the same source.

    Returns:
        Shape (bands, tile_px, tile_px); NaN where the centre is in no observed source pixel.

    Source: Crow, "Summed-area tables for texture mapping" (SIGGRAPH 1984), here in two passes.
    """
    missing = np.isnan(values[0])
    areas = _Areas(lattice, *missing.shape)
    if not missing.any():
        means = np.stack([areas.mean(band) for band in values])
        x, y = lattice.centres()
        return _mask(means, _outside(lattice, x, y, *missing.shape))
    weight = areas.mean((~missing).astype(np.float32))
    sums = [areas.mean(np.where(missing, np.float32(0), band)) for band in values]
    with np.errstate(invalid="ignore", divide="ignore"):
        return _mask(np.stack(sums) / weight, _unobserved(missing, lattice, *lattice.centres()))


class _Areas:
    """Areas that the pixels of a tile cover in source planes of one size."""

    def __init__(self, lattice: Lattice, num_rows: int, num_columns: int) -> None:
        self._strips = strips = 1 if lattice.shrink_factor >= _ONE_STRIP_PX else 2
        ends = np.clip(lattice.strip_edges(num_columns, strips=strips), 0, num_rows)
        sides = np.clip(lattice.pixel_sides(strips=strips), 0, num_columns)
        self._ends, self._sides = ends.astype(np.float32), sides.astype(np.float32)
        self._heights = np.diff(self._ends, axis=0)
        self._sizes = self._add_strips(np.diff(self._sides, axis=1))
        columns, rows = (np.arange(n, dtype=np.float32) for n in (num_columns, len(sides)))
        self._columns = np.ascontiguousarray(np.broadcast_to(columns, ends.shape))
        self._rows = np.ascontiguousarray(np.broadcast_to(rows[:, None], sides.shape))

    def mean(self, plane: Pixels) -> Pixels:
        """Return the mean of a plane over each area; NaN where an area has no height or width."""
        with np.errstate(invalid="ignore", divide="ignore"):
            strips = np.diff(_interpolate(_column_sums(plane), self._columns, self._ends), axis=0)
            strips /= self._heights
            # 0 / 0 gives NaN, which the cumulative sum would carry to all later columns.
            strips[self._heights == 0] = 0
            sums = np.zeros((len(strips), plane.shape[1] + 1), np.float32)
            np.cumsum(strips, axis=1, out=sums[:, 1:])
            pixels = self._add_strips(np.diff(_interpolate(sums, self._sides, self._rows), axis=1))
            pixels /= self._sizes
        return pixels

    def _add_strips(self, strips: Pixels) -> Pixels:
        """Add up the strips of each row of pixels."""
        if self._strips == 1:
            return strips
        sums: Pixels = strips.reshape(-1, self._strips, strips.shape[1]).sum(axis=1)
        return sums


def _column_sums(plane: Pixels) -> Pixels:
    """Return the sums of all rows above each, shape (rows + 1, columns)."""
    sums = np.zeros((len(plane) + 1, plane.shape[1]), np.float32)
    for row, values in enumerate(plane):  # faster than np.cumsum(axis=0) on a C-ordered array
        np.add(sums[row], values, out=sums[row + 1])
    return sums


def _mask(values: Pixels, missing: NDArray[np.bool_] | None) -> Pixels:
    if missing is not None:
        values[:, missing] = np.nan
    return values


def _unobserved(
    missing: NDArray[np.bool_], lattice: Lattice, x: Floats, y: Floats
) -> NDArray[np.bool_]:
    """Return which centres are in no observed source pixel."""
    num_rows, num_columns = missing.shape
    unobserved = missing[_index(y, num_rows), _index(x, num_columns)]
    outside = _outside(lattice, x, y, num_rows, num_columns)
    return unobserved if outside is None else unobserved | outside


def _outside(
    lattice: Lattice, x: Floats, y: Floats, num_rows: int, num_columns: int
) -> NDArray[np.bool_] | None:
    """Return which centres are outside the source; None where the nodes show that none is."""
    if lattice.is_within(num_rows, num_columns):
        return None
    outside: NDArray[np.bool_] = (x < 0) | (x >= num_columns) | (y < 0) | (y >= num_rows)
    return outside


def _index(at: Floats, count: int) -> NDArray[np.int64]:
    """Return the index of the source pixel at each coordinate, clipped to the outermost ones."""
    return np.clip(np.floor(at).astype(np.int64), 0, count - 1)


def _interpolate(plane: Pixels, x: Pixels, y: Pixels) -> Pixels:
    """Interpolate one plane bilinearly; whole coordinates are its pixels' centres, edges extend."""
    cv = _opencv()
    values: Pixels = cv.remap(plane, x, y, cv.INTER_LINEAR, borderMode=cv.BORDER_REPLICATE)
    return values


@cache
def _opencv() -> Any:
    """Return OpenCV, set to the calling thread alone: workers are processes, one per core."""
    import cv2

    cv2.setNumThreads(1)
    return cv2
