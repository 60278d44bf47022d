"""Positions of a tile's pixels in a source raster: exact at nodes, linear between them.

Coordinates are (column, row) of the source, whole numbers at the edges of its pixels. Nodes are at
fixed places of each tile, so that no pixel depends on which other tiles are warped with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.tiles import MERCATOR_EDGE_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.sources.georeference import SceneRaster
    from salibi_data.store.tiles import PixelGrid

    Floats = NDArray[np.float64]

MAX_NODE_SPACING_PX: Final = 32
"""Most pixels between two nodes."""

STEPS_PER_PX: Final = 65_536
"""Steps per source pixel to which nodes are rounded, so that coordinates are equal to the last digit in
every window of a file from which a tile may be read."""

MAX_ERROR_PX: Final = 0.01
"""Largest error of linear interpolation, in source pixels; GDAL warps tiles that exceed it."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Nodes of one tile."""

    x: Floats
    """Source columns, shape (K + 1, K + 1) with K even; [0, 0] is the tile's upper left corner."""
    y: Floats
    """Source rows, of the same shape."""
    tile_px: int
    """Pixels per edge of the tile."""

    @property
    def error_px(self) -> float:
        """Estimated error of linear interpolation between the nodes, in source pixels.

        It is a quarter of the error with every other node left out, since halving the distance
        quarters the error. Infinite where a node has no position in the source's CRS.
        """
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            return float("inf")
        return max(_bend(nodes) for nodes in (self.x, self.x.T, self.y, self.y.T)) / 4

    @property
    def shrink_factor(self) -> float:
        """Source pixels per edge of a pixel in the middle of the tile; above 1 the warp shrinks."""
        middle = len(self.x) // 2
        here, below, right = (middle, middle), (middle + 1, middle), (middle, middle + 1)
        x_down, x_right = self.x[below] - self.x[here], self.x[right] - self.x[here]
        y_down, y_right = self.y[below] - self.y[here], self.y[right] - self.y[here]
        area = abs(x_right * y_down - x_down * y_right)
        return float(np.sqrt(area)) * (len(self.x) - 1) / self.tile_px

    @property
    def is_nearly_upright(self) -> bool:
        """Whether rows and columns run along the source's, up to 14 degrees (slope 1 : 4)."""
        along = min(np.diff(self.x, axis=1).min(), np.diff(self.y, axis=0).min())
        across = max(np.abs(np.diff(self.x, axis=0)).max(), np.abs(np.diff(self.y, axis=1)).max())
        return bool(along > 4 * across)

    def is_within(self, num_rows: int, num_columns: int) -> bool:
        """Return whether a source of this size contains the whole tile."""
        return bool(
            min(self.x.min(), self.y.min()) >= 0
            and self.x.max() < num_columns
            and self.y.max() < num_rows
        )

    def relative_to(self, column: int, row: int) -> Lattice:
        """Return the same nodes for a source whose first pixel is at ``column``, ``row`` of this."""
        return Lattice(x=self.x - column, y=self.y - row, tile_px=self.tile_px)

    def centres(self) -> tuple[Floats, Floats]:
        """Return source columns and rows of the pixels' centres, each of shape (tile_px, tile_px)."""
        centre, _ = _weights(self.tile_px, len(self.x))
        return centre @ self.x @ centre.T, centre @ self.y @ centre.T

    def strip_edges(self, num_columns: int, *, strips: int) -> Floats:
        """Return the source rows at which the edges of strips cross the middles of source columns.

        Args:
            num_columns: columns of the source.
            strips: strips per row of pixels.

        Returns:
            Shape (tile_px * strips + 1, num_columns).
        """
        _, edge = _weights(self.tile_px * strips, len(self.x))
        middles = np.arange(num_columns, dtype=np.float64) + 0.5
        crossings = [
            _interpolate_extended(middles, x, y) for x, y in zip(self.x, self.y, strict=True)
        ]
        rows: Floats = edge @ np.stack(crossings)
        return rows

    def pixel_sides(self, *, strips: int) -> Floats:
        """Return the source columns of pixels' sides at half the height of each strip.

        Args:
            strips: strips per row of pixels.

        Returns:
            Shape (tile_px * strips, tile_px + 1).
        """
        centre, _ = _weights(self.tile_px * strips, len(self.x))
        _, edge = _weights(self.tile_px, len(self.x))
        return centre @ self.x @ edge.T


def tile_lattices(raster: SceneRaster, grid: PixelGrid) -> dict[tuple[int, int], Lattice]:
    """Compute the nodes of each tile of a grid, by (row, column) of the tile in it.

    Args:
        raster: source raster with a transform.
        grid: pixels of whole tiles, in EPSG:3857.
    """
    from rasterio.transform import Affine
    from rasterio.warp import transform

    if raster.transform is None:
        raise ValueError("a source with control points has no lattice")
    cells = _num_cells(grid.tile_px)
    step_m = grid.pixel_m * grid.tile_px / cells
    # Each node is computed from its own number, so that it is equal in every grid that contains it.
    x = (grid.left * cells + np.arange(grid.num_columns * cells + 1)) * step_m - MERCATOR_EDGE_M
    y = MERCATOR_EDGE_M - (grid.top * cells + np.arange(grid.num_rows * cells + 1)) * step_m
    xs, ys = (values.ravel() for values in np.meshgrid(x, y))
    xs, ys = (np.asarray(values) for values in transform("EPSG:3857", raster.crs, xs, ys))
    shape = len(y), len(x)
    columns, rows = (
        # Rounding removes differences in the last bits between grids, and windows, of one file.
        np.rint(values * STEPS_PER_PX).reshape(shape) / STEPS_PER_PX
        for values in ~Affine(*raster.transform) @ (xs, ys)
    )
    tiles = {}
    for row in range(grid.num_rows):
        for column in range(grid.num_columns):
            nodes = np.s_[
                row * cells : (row + 1) * cells + 1, column * cells : (column + 1) * cells + 1
            ]
            tiles[row, column] = Lattice(x=columns[nodes], y=rows[nodes], tile_px=grid.tile_px)
    return tiles


def _bend(nodes: Floats) -> float:
    """Return the largest distance of every other row of nodes from the mean of its neighbours."""
    return float(np.abs(nodes[1::2] - (nodes[:-2:2] + nodes[2::2]) / 2).max())


def _num_cells(tile_px: int) -> int:
    """Return the number of cells between nodes along a tile's edge, an even one."""
    # Even, because the error estimate compares every other node with its neighbours.
    return 2 * -(-tile_px // (2 * MAX_NODE_SPACING_PX))


@lru_cache(maxsize=16)
def _weights(num: int, num_nodes: int) -> tuple[Floats, Floats]:
    """Return the weights of nodes at the middles and ends of ``num`` equal steps along an edge.

    Returns:
        Shapes (num, num_nodes) and (num + 1, num_nodes).
    """
    nodes = np.arange(num_nodes)
    steps_per_cell = num / (num_nodes - 1)
    middles, ends = np.arange(num) + 0.5, np.arange(num + 1)
    middle, end = (
        np.maximum(0, 1 - np.abs(steps[:, None] / steps_per_cell - nodes))
        for steps in (middles, ends)
    )
    return middle, end


def _interpolate_extended(at: Floats, x: Floats, y: Floats) -> Floats:
    """Interpolate y at some x linearly, x ascending; the end segments extend beyond the ends."""
    # np.interp clamps outside its range, so the end segments are made long enough beforehand.
    ends = 2 * len(x)
    x = np.concatenate([[x[0] - ends * (x[1] - x[0])], x, [x[-1] + ends * (x[-1] - x[-2])]])
    y = np.concatenate([[y[0] - ends * (y[1] - y[0])], y, [y[-1] + ends * (y[-1] - y[-2])]])
    line: Floats = np.interp(at, x, y)
    return line
