"""Source pixels looked up where a tile's pixels lie, by OpenCV: bilinear, or averaged by area.

Arrays are (bands, rows, columns) float32. Both give what GDAL's kernels give, several times
faster: coordinates come from a :class:`~salibi_data.lattice.Lattice`, lookups are SIMD.

OpenCV 5 is needed: OpenCV 4 rounds the place of a lookup to 1/32 of a pixel, which on a hard edge
is 8 of 255. Equal bits on all x86-64 processors with AVX2; others may differ in the last digit of
a float32.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.lattice import Lattice

MOST_TURNED: Final = 0.1
"""Slope of a tile's rows in its source up to which averages are taken in two passes; UTM against
Web Mercator is turned by 0.06 at most."""

MOST_ROUNDED: Final = 1e-3
"""Of the mean: as much as sums in float32 may be wrong by."""


def bilinear(values: NDArray[np.float32], lattice: Lattice) -> NDArray[np.float32]:
    """A tile between the source pixels' middles.

    A pixel is observed where the source pixel that its middle lies in is; it is the mean of those
    of the four pixels around it that are observed, as weighted.

    Args:
        values: the source, shape (bands, rows, columns); NaN in every band alike.
        lattice: of the tile.

    Returns:
        Shape (bands, tile_px, tile_px); NaN where there is no observation.

    Source: GDAL's ``GWKBilinearResample4Sample``, whose rules these are.
    """
    part, left, top = _around(values, lattice)
    if not part.size:
        return np.full((len(values), lattice.tile_px, lattice.tile_px), np.nan, np.float32)
    x, y = lattice.places(rows="middles", columns="middles")
    x -= left + 0.5  # now 0 is the middle of the part's first pixel
    y -= top + 0.5
    if _inside(lattice, values.shape, margin=0.5) and not np.isnan(part[0]).any():
        return _looked_up(part, x, y)
    return _bilinear_of_observed(part, x, y)


def _bilinear_of_observed(
    part: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    observed = ~np.isnan(part[0])
    rows, columns = observed.shape
    column, row = (np.floor(places + 0.5).astype(np.intp) for places in (x, y))
    seen = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    seen[seen] = observed[row[seen], column[seen]]
    weight = _looked_up(observed[None].astype(np.float32), x, y)[0]
    sums = _looked_up(np.where(observed, part, np.float32(0)), x, y)
    weight[~seen] = np.nan
    means: NDArray[np.float32] = sums / weight
    return means


def _around(values: NDArray[np.float32], lattice: Lattice) -> tuple[NDArray[np.float32], int, int]:
    """The part of a source that lookups of a tile touch, and the column and row where it begins.

    Coordinates in a small part are small numbers, so that float32 holds them to 1e-5 pixels.
    """
    rows, columns = values.shape[1:]
    left, top = (max(0, int(nodes.min()) - 1) for nodes in (lattice.columns, lattice.rows))
    right = max(left, min(columns, int(lattice.columns.max()) + 2))
    bottom = max(top, min(rows, int(lattice.rows.max()) + 2))
    return values[:, top:bottom, left:right], left, top


def _inside(lattice: Lattice, shape: tuple[int, ...], *, margin: float = 0) -> bool:
    """Whether a tile lies in a source of that shape, so far from its edges."""
    return all(
        nodes.min() >= margin and nodes.max() <= size - margin
        for nodes, size in ((lattice.rows, shape[1]), (lattice.columns, shape[2]))
    )


def _looked_up(part: NDArray[np.float32], x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float32]:
    """Bilinear lookups; 0 outside."""
    cv2 = _opencv()
    x, y = (np.ascontiguousarray(places, np.float32) for places in (x, y))
    found = np.empty((len(part), *x.shape), np.float32)
    for band, values in enumerate(part):
        found[band] = cv2.remap(
            values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
    return found


def average(values: NDArray[np.float32], lattice: Lattice) -> NDArray[np.float32] | None:
    """A tile of means over the source pixels under each pixel, each by the area that is under it.

    Two passes, each exact for pixels that are even squares: along every source column the mean
    between two of the tile's row edges, then along every row the mean between two column edges. A
    pixel so has its slanted upper and lower edges, and upright sides through their middles.

    Args:
        values: the source, shape (bands, rows, columns).
        lattice: of the tile.

    Returns:
        Shape (bands, tile_px, tile_px), or None where this is not exact: at the source's edge,
        where something is missing, for a source turned too far, or where few pixels are so much
        brighter than the rest that sums in float32 would lose these.

    Source: E. Catmull and A. R. Smith, "3-D transformations of images in scanline order", 1980;
    F. Crow, "Summed-area tables for texture mapping", 1984.
    """
    if not (_upright(lattice) and _inside(lattice, values.shape)):
        return None
    part, left, top = _around(values, lattice)
    row_edges = _row_edges(lattice, left, part.shape[2]) - top
    if row_edges.min() < 0 or row_edges.max() > part.shape[1]:
        return None  # a slanted row leaves the part where no pixel of the tile is
    column_edges, _ = lattice.places(rows="middles", columns="edges")
    strips = _means_down(part, row_edges)
    return None if strips is None else _means_across(strips, column_edges - left)


def _upright(lattice: Lattice) -> bool:
    """Whether columns run to the right and rows down, nearly."""
    across = [np.diff(nodes, axis=1) for nodes in (lattice.columns, lattice.rows)]
    down = [np.diff(nodes, axis=0) for nodes in (lattice.rows, lattice.columns)]
    return all(
        along.min() > 0 and np.abs(aside / along).max() <= MOST_TURNED
        for along, aside in (across, down)
    )


def _row_edges(lattice: Lattice, left: int, num_columns: int) -> NDArray[np.float64]:
    """Rows where the edges of the tile's rows cross the middles of so many source columns."""
    # Beyond the tile's sides they go straight on: a slanted row ends at another column.
    x_nodes, y_nodes = (
        np.pad(nodes, ((0, 0), (1, 1)), mode="reflect", reflect_type="odd")
        for nodes in (lattice.columns, lattice.rows)
    )
    middles = np.arange(left, left + num_columns) + 0.5
    at_nodes = [np.interp(middles, x, y) for x, y in zip(x_nodes, y_nodes, strict=True)]
    crossings: NDArray[np.float64] = lattice.weights("edges") @ np.array(at_nodes)
    return crossings


def _means_down(
    values: NDArray[np.float32], borders: NDArray[np.float64]
) -> NDArray[np.float32] | None:
    """Means along the columns of ``values`` between borders that follow each other.

    Args:
        values: shape (bands, rows, columns).
        borders: from the upper edge, shape (n + 1, columns), increasing along axis 0.

    Returns:
        Shape (bands, n, columns); None where something is missing or rounding would show.
    """
    bands, rows, columns = values.shape
    sums = np.empty((bands, rows + 1, columns), np.float32)
    sums[:, 0] = 0
    for row in range(rows):  # many times faster than numpy's own sums along this axis
        np.add(sums[:, row], values[:, row], out=sums[:, row + 1])
    across = np.broadcast_to(np.arange(columns, dtype=np.float32), borders.shape)
    means = np.diff(_looked_up(sums, across, borders), axis=1)
    means /= np.diff(borders, axis=0).astype(np.float32)
    return means if _keeps_digits(sums, means) else None


def _keeps_digits(sums: NDArray[np.float32], means: NDArray[np.float32]) -> bool:
    """Whether running sums are exact beside the means that are made of them; False for NaN."""
    last, eps = sums[:, -1], np.finfo(np.float32).eps
    low, high = last.min(axis=1), last.max(axis=1)
    typical = np.abs(means.mean(axis=(1, 2)))
    return bool((np.maximum(high, -low) * eps <= MOST_ROUNDED * typical).all())


def _means_across(values: NDArray[np.float32], borders: NDArray[np.float64]) -> NDArray[np.float32]:
    """Means along the rows of ``values`` between borders, shape (rows, n + 1), as above."""
    bands, rows, columns = values.shape
    sums = np.zeros((bands, rows, columns + 1), np.float32)
    np.cumsum(values, axis=2, out=sums[:, :, 1:])
    down = np.broadcast_to(np.arange(rows, dtype=np.float32)[:, None], borders.shape)
    means = np.diff(_looked_up(sums, borders, down), axis=2)
    means /= np.diff(borders, axis=1).astype(np.float32)
    return means


@cache
def _opencv() -> Any:
    import cv2

    cv2.setNumThreads(1)  # workers are processes
    return cv2
