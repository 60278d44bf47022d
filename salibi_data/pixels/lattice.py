"""Where the pixels of a tile lie in a source: exact at nodes, straight lines between them.

Coordinates are (column, row) of the source, whole numbers at the edges of its pixels. Nodes are tied
to the tile's own corners, so that no pixel depends on which other tiles are warped with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.tiles import MERCATOR_EDGE_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.sources.read import Source
    from salibi_data.store.tiles import PixelGrid

    Floats = NDArray[np.float64]

NODE_PX: Final = 32
"""Most pixels between nodes."""

STEPS_PER_PX: Final = 65_536
"""Nodes are rounded to so many parts of a source pixel: in whatever window of a file a tile is looked
up, the last digits of coordinates are the same."""

MOST_ERROR_PX: Final = 0.01
"""Source pixels that straight lines may be off by; GDAL warps a tile of which they are more."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Nodes of one tile."""

    x: Floats
    """Source columns, (K + 1, K + 1), K even; from the tile's upper left corner."""
    y: Floats
    """Source rows, likewise."""
    tile_px: int

    @property
    def error_px(self) -> float:
        """About how far straight lines between the nodes are off, in source pixels.

        Seen from the nodes in between when every other one is left out: halving the distance
        quarters the error. Infinite where a node has no place in the source.
        """
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            return float("inf")
        return max(_bend(nodes) for nodes in (self.x, self.x.T, self.y, self.y.T)) / 4

    @property
    def factor(self) -> float:
        """Source pixels along the edge of a pixel, in the middle of the tile; above 1 it shrinks."""
        middle = len(self.x) // 2
        here, below, right = (middle, middle), (middle + 1, middle), (middle, middle + 1)
        x_down, x_right = self.x[below] - self.x[here], self.x[right] - self.x[here]
        y_down, y_right = self.y[below] - self.y[here], self.y[right] - self.y[here]
        area = abs(x_right * y_down - x_down * y_right)
        return float(np.sqrt(area)) * (len(self.x) - 1) / self.tile_px

    @property
    def is_nearly_upright(self) -> bool:
        """Whether its rows and columns run along the source's, to some degrees."""
        along = min(np.diff(self.x, axis=1).min(), np.diff(self.y, axis=0).min())
        across = max(np.abs(np.diff(self.x, axis=0)).max(), np.abs(np.diff(self.y, axis=1)).max())
        return bool(along > 4 * across)

    def is_within(self, num_rows: int, num_columns: int) -> bool:
        """Whether a source of that size holds all of the tile."""
        return bool(
            min(self.x.min(), self.y.min()) >= 0
            and self.x.max() < num_columns
            and self.y.max() < num_rows
        )

    def moved(self, column: int, row: int) -> Lattice:
        """The same nodes in a source that begins at a column and a row of this one."""
        return Lattice(x=self.x - column, y=self.y - row, tile_px=self.tile_px)

    def centres(self) -> tuple[Floats, Floats]:
        """Source columns and rows of the pixels' centres, each (tile_px, tile_px)."""
        centre, _ = _weights(self.tile_px, len(self.x))
        return centre @ self.x @ centre.T, centre @ self.y @ centre.T

    def strip_edges(self, num_columns: int, *, strips: int) -> Floats:
        """Source rows at which the edges of strips cross the middles of source columns.

        Args:
            num_columns: of the source.
            strips: in which a row of pixels is cut.

        Returns:
            Shape (tile_px * strips + 1, num_columns).
        """
        _, edge = _weights(self.tile_px * strips, len(self.x))
        middles = np.arange(num_columns, dtype=np.float64) + 0.5
        crossed = [_through(middles, x, y) for x, y in zip(self.x, self.y, strict=True)]
        rows: Floats = edge @ np.stack(crossed)
        return rows

    def pixel_sides(self, *, strips: int) -> Floats:
        """Source columns of pixels' sides, half-way down each strip: (tile_px * strips, tile_px + 1)."""
        centre, _ = _weights(self.tile_px * strips, len(self.x))
        _, edge = _weights(self.tile_px, len(self.x))
        return centre @ self.x @ edge.T


def lattices(source: Source, grid: PixelGrid) -> dict[tuple[int, int], Lattice]:
    """The nodes of each tile of a grid, by its row and column there.

    Args:
        source: one with a transform.
        grid: the tiles.
    """
    from rasterio.transform import Affine
    from rasterio.warp import transform

    if source.transform is None:
        raise ValueError("a source with control points has no lattice")
    cells = _num_cells(grid.tile_px)
    step_m = grid.pixel_m * grid.tile_px / cells
    # Each node from its own number, so that it is the same in every grid that has it.
    x = (grid.left * cells + np.arange(grid.num_columns * cells + 1)) * step_m - MERCATOR_EDGE_M
    y = MERCATOR_EDGE_M - (grid.top * cells + np.arange(grid.num_rows * cells + 1)) * step_m
    xs, ys = (values.ravel() for values in np.meshgrid(x, y))
    xs, ys = (np.asarray(values) for values in transform("EPSG:3857", source.crs, xs, ys))
    shape = len(y), len(x)
    columns, rows = (
        np.rint(values * STEPS_PER_PX).reshape(shape) / STEPS_PER_PX
        for values in ~Affine(*source.transform) @ (xs, ys)
    )
    found = {}
    for row in range(grid.num_rows):
        for column in range(grid.num_columns):
            part = np.s_[
                row * cells : (row + 1) * cells + 1, column * cells : (column + 1) * cells + 1
            ]
            found[row, column] = Lattice(x=columns[part], y=rows[part], tile_px=grid.tile_px)
    return found


def _bend(nodes: Floats) -> float:
    """How far every other row of nodes is off a straight line between its neighbours."""
    return float(np.abs(nodes[1::2] - (nodes[:-2:2] + nodes[2::2]) / 2).max())


def _num_cells(tile_px: int) -> int:
    """Cells between nodes along a tile's edge: an even number."""
    return 2 * -(-tile_px // (2 * NODE_PX))


@lru_cache(maxsize=16)
def _weights(num: int, num_nodes: int) -> tuple[Floats, Floats]:
    """What each node counts for at the middles of steps (num, nodes), and at their ends (num + 1, nodes)."""
    nodes = np.arange(num_nodes)
    steps_per_cell = num / (num_nodes - 1)
    middles, ends = np.arange(num) + 0.5, np.arange(num + 1)
    middle, end = (
        np.maximum(0, 1 - np.abs(at[:, None] / steps_per_cell - nodes)) for at in (middles, ends)
    )
    return middle, end


def _through(at: Floats, x: Floats, y: Floats) -> Floats:
    """A line through points, x ascending, at some x; it goes straight on beyond its ends."""
    ends = 2 * len(x)
    x = np.concatenate([[x[0] - ends * (x[1] - x[0])], x, [x[-1] + ends * (x[-1] - x[-2])]])
    y = np.concatenate([[y[0] - ends * (y[1] - y[0])], y, [y[-1] + ends * (y[-1] - y[-2])]])
    line: Floats = np.interp(at, x, y)
    return line
