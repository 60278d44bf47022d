"""Where the pixels of a tile lie in a source: exactly at nodes, and straight between them.

A node costs a projection, a place between four nodes a few multiplications. Nodes belong to the
tile, so no pixel depends on which tiles are beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.grid import MERCATOR_EDGE_M, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from salibi_data.grid import PixelGrid
    from salibi_data.read import Source

SPACING_PX: Final = 32
"""Pixels of a tile between two nodes, at most."""

STEPS_PER_PX: Final = 65_536
"""Nodes are rounded to a power of two of a source pixel: all that is interpolated between them is
exact in float64 then, on every processor, and errors of the projection's last digits are gone."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Places of one tile's nodes in a source, evenly spaced from edge to edge of the tile.

    Both arrays have shape (rows of nodes, columns of nodes).
    """

    tile: TileXYZ
    tile_px: int
    columns: NDArray[np.float64]
    """From the left edge of the source, in its pixels; 0.5 is the middle of the first."""
    rows: NDArray[np.float64]
    """From its upper edge."""

    @property
    def bent_px(self) -> float:
        """How far in source pixels a place between nodes may be from where it is taken to be.

        Going straight over two intervals misses the node between by so much; over one interval it
        is a quarter of that, for the curve is smooth. Infinite where a node has no place.
        """
        if not (np.isfinite(self.columns).all() and np.isfinite(self.rows).all()):
            return float("inf")
        misses = [
            np.abs(np.diff(nodes, n=2, axis=axis)).max() / 2
            for nodes in (self.columns, self.rows)
            for axis in (0, 1)
        ]
        return float(max(misses)) / 4

    @property
    def scale(self) -> float:
        """Source pixels along the edge of a pixel, by area; above 1 the tile shrinks its source."""
        across = self.columns[[0, 0, -1], [0, -1, 0]], self.rows[[0, 0, -1], [0, -1, 0]]
        (c0, c1, c2), (r0, r1, r2) = across
        area = abs((c1 - c0) * (r2 - r0) - (c2 - c0) * (r1 - r0))
        return float(np.sqrt(area)) / self.tile_px

    def places(
        self, rows_px: NDArray[np.float64], columns_px: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns and rows in the source of places in the tile, shape (rows, columns) each.

        Args:
            rows_px: from the tile's upper edge, in its pixels; 0.5 is the middle of the first.
            columns_px: from its left edge.
        """
        down, across = self.weights(rows_px), self.weights(columns_px).T
        return down @ self.columns @ across, down @ self.rows @ across

    def weights(self, places_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of every node in a place, (places, nodes): two that are not zero, of sum 1."""
        at = places_px * ((len(self.rows) - 1) / self.tile_px)
        return np.clip(1 - np.abs(at[:, None] - np.arange(len(self.rows))), 0, None)


@cache
def centres(tile_px: int) -> NDArray[np.float64]:
    """Middles of a tile's pixels, from its edge."""
    return np.arange(tile_px) + 0.5


@cache
def edges(tile_px: int) -> NDArray[np.float64]:
    """Edges of a tile's pixels: one more than there are pixels."""
    return np.arange(tile_px + 1.0)


def lattices(source: Source, grid: PixelGrid) -> Iterator[Lattice]:
    """The lattice of every tile of ``grid``, row by row.

    Args:
        source: with a transform.
        grid: of whole tiles.
    """
    num = max(2, -(-grid.tile_px // SPACING_PX))
    columns, rows = _nodes(source, grid, num)
    for row in range(grid.num_rows):
        for column in range(grid.num_columns):
            part = np.s_[row * num : (row + 1) * num + 1, column * num : (column + 1) * num + 1]
            yield Lattice(
                tile=TileXYZ(grid.left + column, grid.top + row, grid.zoom),
                tile_px=grid.tile_px,
                columns=columns[part],
                rows=rows[part],
            )


def _nodes(source: Source, grid: PixelGrid, num: int) -> tuple[Any, Any]:
    """Places in the source of all nodes, ``num`` intervals a tile; not finite where there is none."""
    from rasterio.transform import Affine
    from rasterio.warp import transform

    step_m = grid.pixel_m * grid.tile_px / num
    # Counted from the world's corner, so that a node is the same number in every grid.
    x = (grid.left * num + np.arange(grid.num_columns * num + 1)) * step_m - MERCATOR_EDGE_M
    y = MERCATOR_EDGE_M - (grid.top * num + np.arange(grid.num_rows * num + 1)) * step_m
    xs, ys = (places.ravel() for places in np.meshgrid(x, y))
    there = np.array(transform("EPSG:3857", source.crs, xs, ys))
    to_pixel = ~Affine(*source.transform)
    with np.errstate(invalid="ignore"):  # places that have no projection are infinite
        columns = to_pixel.a * there[0] + to_pixel.b * there[1] + to_pixel.c
        rows = to_pixel.d * there[0] + to_pixel.e * there[1] + to_pixel.f
    shape = len(y), len(x)
    return tuple(np.rint(p * STEPS_PER_PX).reshape(shape) / STEPS_PER_PX for p in (columns, rows))
