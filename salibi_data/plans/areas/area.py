"""Areas of candidate tiles: boxes or an outline, cut into cells that are planned one at a time.

Cells are in the order of the Hilbert curve, and so are the tiles within a cell. This gives the order
of the whole plan without a sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import (
    Span,
    Tiles,
    hilbert_order,
    spans_within,
    tile_bounds,
    tile_outlines,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.tiles import Bounds

CELL_ZOOM: Final = 9
"""Zoom of the cells that scenes are searched for: about 60 km wide, a few pages of items."""

MAX_CELL_LEVELS: Final = 8
"""Limit on the levels between a cell and its tiles: 256 x 256 tiles, which planning holds in memory."""

MAX_CELLS: Final = 20_000
"""Limit on the cells of an area: over three times the land of the continental U.S."""

_CHILDREN: Final = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
"""Offsets (column, row) of a tile's children from twice its own column and row."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area of candidate tiles."""

    boxes: tuple[Bounds, ...]
    """Boxes (west, south, east, north) in degrees; a candidate lies wholly within one of them."""
    outline: Any = None
    """Geometry (shapely) that candidates lie in as well; None for the boxes alone."""
    touching: bool = False
    """Whether a candidate only has to touch the outline; otherwise it lies wholly within."""

    def cells(self, zoom: int) -> list[Span]:
        """List the parent cells that hold candidates of a zoom; each is one tile of a lower zoom.

        Raises:
            UsageError: a box is no box, or the area is far too large.
        """
        levels = self._levels(zoom)
        spans = [span.parents(levels) for box in self.boxes for span in spans_within(box, zoom)]
        xy = self._descend(spans, zoom - levels)
        xy = xy[hilbert_order(zoom - levels, xy[:, 0], xy[:, 1])]
        return [Span(x, y, x + 1, y + 1) for x, y in xy.tolist()]

    def candidates(self, zoom: int, cell: Span) -> Tiles:
        """List the candidates in one cell, in the order of the Hilbert curve."""
        inside = cell.children(self._levels(zoom))
        spans = [span.cut(inside) for box in self.boxes for span in spans_within(box, zoom)]
        tiles = [np.stack(span.tiles(), axis=1) for span in spans if span.num_tiles]
        xy = np.concatenate(tiles or [np.empty((0, 2), np.int64)])
        if len(tiles) > 1:
            xy = np.unique(xy, axis=0)
        xy = xy[self._fits(zoom, xy)]
        xy = xy[hilbert_order(zoom, xy[:, 0], xy[:, 1])]
        return Tiles(zoom=zoom, x=xy[:, 0], y=xy[:, 1])

    def holds(self, tiles: Tiles) -> NDArray[np.bool_]:
        """Tell for each tile whether it is a candidate; shape (N,)."""
        spans = [span for box in self.boxes for span in spans_within(box, tiles.zoom)]
        xy = np.stack([tiles.x, tiles.y], axis=1)
        inside = np.zeros(len(xy), dtype=bool)
        for span in spans:
            inside |= _inside(span, xy)
        if self.outline is not None:
            inside[inside] = self._meets(tiles.zoom, xy[inside], touching=self.touching)
        return inside

    @staticmethod
    def _levels(zoom: int) -> int:
        return min(max(0, zoom - CELL_ZOOM), MAX_CELL_LEVELS)

    def _descend(self, spans: Sequence[Span], zoom: int) -> NDArray[np.int64]:
        """Find the tiles of some spans that touch the outline, from parents to children: (N, 2).

        The work grows with what the outline covers, and not with the box around its parts, which
        is the whole world for an area on both sides of the antimeridian.
        """
        xy = np.zeros((1 if spans else 0, 2), dtype=np.int64)
        for level in range(zoom + 1):
            if level > 0:
                xy = (2 * xy[:, None] + _CHILDREN).reshape(-1, 2)
            parents = {span.parents(zoom - level) for span in spans}
            xy = xy[np.any([_inside(span, xy) for span in parents], axis=0)] if parents else xy
            if self.outline is not None:
                xy = xy[self._meets(level, xy, touching=True)]
            if len(xy) > MAX_CELLS:
                crossing = [box for box in self.boxes if box[0] > box[2]]
                reason = (
                    f" (west > east in {crossing[0]}, so it crosses 180 degrees)"
                    if crossing
                    else ""
                )
                raise UsageError(
                    f"the area holds more than {MAX_CELLS:,} cells of zoom {zoom}{reason}; give a "
                    "smaller --bbox or --aoi."
                )
        return xy

    def _fits(self, zoom: int, xy: NDArray[np.int64]) -> Any:
        if self.outline is None or len(xy) == 0:
            return slice(None)
        return self._meets(zoom, xy, touching=self.touching)

    def _meets(self, zoom: int, xy: NDArray[np.int64], *, touching: bool) -> Any:
        import shapely

        shapely.prepare(self.outline)
        relation = shapely.intersects if touching else shapely.covers
        return relation(self.outline, tile_outlines(zoom, xy[:, 0], xy[:, 1]))


def _inside(span: Span, xy: NDArray[np.int64]) -> NDArray[np.bool_]:
    x, y = xy.T
    inside: NDArray[np.bool_] = (
        (x >= span.left) & (x < span.right) & (y >= span.top) & (y < span.bottom)
    )
    return inside


def bounds_of(tiles: Tiles) -> Bounds:
    """Bounds (west, south, east, north) in degrees around all tiles."""
    bounds = tile_bounds(tiles.zoom, tiles.x, tiles.y)
    west, south = bounds[:, :2].min(axis=0).tolist()
    east, north = bounds[:, 2:].max(axis=0).tolist()
    return west, south, east, north
