"""Where the pixels of a tile lie in a source: exactly at nodes, and straight between them.

A node costs a projection, a place between four nodes a few multiplications. Nodes belong to the
tile, so no pixel depends on which tiles are beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np

from salibi_data.grid import MERCATOR_EDGE_M, TileXYZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.grid import PixelGrid
    from salibi_data.read import Source

    Places = NDArray[np.float64]
    Transform = tuple[float, float, float, float, float, float]

Along = Literal["middles", "edges"]
"""Along an axis of a tile: the middles of its pixels, or their edges, one more."""

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

    def places(self, *, rows: Along, columns: Along) -> tuple[Places, Places]:
        """Columns and rows in the source of the tile's pixels, or of their edges.

        Returns:
            Shape (rows, columns) each; edges are one more than pixels.
        """
        down, across = self.weights(rows), self.weights(columns).T
        return down @ self.columns @ across, down @ self.rows @ across

    def weights(self, along: Along) -> Places:
        """Share of every node in a place, (places, nodes): two that are not zero, of sum 1."""
        return _weights(along, self.tile_px, len(self.rows))


@cache
def _weights(along: Along, tile_px: int, num_nodes: int) -> Places:
    places_px = np.arange(tile_px) + 0.5 if along == "middles" else np.arange(tile_px + 1.0)
    at = places_px * ((num_nodes - 1) / tile_px)
    shares: Places = np.clip(1 - np.abs(at[:, None] - np.arange(num_nodes)), 0, None)
    return shares


def lattices(source: Source, grid: PixelGrid) -> tuple[Lattice, ...]:
    """The lattice of every tile of ``grid``, row by row.

    Args:
        source: with a transform.
        grid: of whole tiles.
    """
    return _lattices(source.crs, cast("Transform", source.transform), grid)


@lru_cache(maxsize=2)  # the files of a scene's bands follow each other, and mostly lie alike
def _lattices(crs: str, transform: Transform, grid: PixelGrid) -> tuple[Lattice, ...]:
    num = max(2, -(-grid.tile_px // SPACING_PX))
    columns, rows = _nodes(crs, transform, grid, num)
    made = []
    for row in range(grid.num_rows):
        for column in range(grid.num_columns):
            part = np.s_[row * num : (row + 1) * num + 1, column * num : (column + 1) * num + 1]
            made.append(
                Lattice(
                    tile=TileXYZ(grid.left + column, grid.top + row, grid.zoom),
                    tile_px=grid.tile_px,
                    columns=columns[part],
                    rows=rows[part],
                )
            )
    return tuple(made)


def _nodes(crs: str, transform: Transform, grid: PixelGrid, num: int) -> tuple[Places, Places]:
    """Places in the source of all nodes, ``num`` intervals a tile; not finite where there is none.

    Nodes are counted from the world's corner, so that one is the same number in every grid.
    """
    from rasterio import warp
    from rasterio.transform import Affine

    step_m = grid.pixel_m * grid.tile_px / num
    x = (grid.left * num + np.arange(grid.num_columns * num + 1)) * step_m - MERCATOR_EDGE_M
    y = MERCATOR_EDGE_M - (grid.top * num + np.arange(grid.num_rows * num + 1)) * step_m
    xs, ys = (places.ravel() for places in np.meshgrid(x, y))
    there = np.array(warp.transform("EPSG:3857", crs, xs, ys))
    to_pixel = ~Affine(*transform)
    with np.errstate(invalid="ignore"):  # places that have no projection are infinite
        columns = to_pixel.a * there[0] + to_pixel.b * there[1] + to_pixel.c
        rows = to_pixel.d * there[0] + to_pixel.e * there[1] + to_pixel.f
    shape = len(y), len(x)
    return _rounded(columns.reshape(shape)), _rounded(rows.reshape(shape))


def _rounded(places: Places) -> Places:
    rounded: Places = np.rint(places * STEPS_PER_PX) / STEPS_PER_PX
    return rounded
