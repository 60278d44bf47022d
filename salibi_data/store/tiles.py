"""XYZ tiles: ids and Hilbert order, bounds, ground size of pixels, rectangles of tiles.

All geometry is in the Web Mercator square (EPSG:3857), where a tile is a square and the ratio
between zooms is exactly a power of two. Axis order is (x, y) = (east, north) for
coordinates and (rows, columns) for pixels; row 0 is the northernmost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from salibi_data.store.errors import GridError, UsageError
from salibi_data.store.schema import TILE_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_M: Final = 6378137.0
"""Semi-major axis of WGS 84, in metres: radius of the sphere of EPSG:3857."""

MERCATOR_EDGE_M: Final = math.pi * EARTH_RADIUS_M
"""Half the edge of the EPSG:3857 square, in projected metres."""

HALF_TURN: Final = 180.0
"""Degrees of longitude on either side of Greenwich."""

MAX_LONGITUDE: Final = 540.0
"""Largest longitude that is read, on either side: maps that repeat the world draw on its copies."""

MAX_ZOOM: Final = 26
"""Highest zoom whose tile ids fit a signed 64-bit integer with room to spare."""


class TileXYZ(NamedTuple):
    """A tile of the XYZ scheme; a tuple as mercantile takes it."""

    x: int
    """Column, from the west."""
    y: int
    """Row, from the north."""
    z: int
    """Zoom."""


Bounds = tuple[float, float, float, float]
"""West, south, east, north; in degrees or in metres, as the name that has this type says."""


def mercator_pixel_m(zoom: int) -> float:
    """Edge of a pixel at ``zoom`` in projected metres of EPSG:3857 (not ground metres)."""
    return math.ldexp(2 * MERCATOR_EDGE_M / TILE_PX, -zoom)


def ground_gsd_m(zoom: int, y: ArrayLike) -> NDArray[np.float64]:
    """Ground metres per pixel at the centres of tiles: ``156543.03392 cos(latitude) / 2^zoom``.

    Args:
        zoom: zoom of all the tiles.
        y: tile rows, shape (N,).

    Returns:
        Metres per pixel, shape (N,).

    Source: the XYZ scheme on the sphere of EPSG:3857. The value varies by 38 % over the
    continental U.S.; the ratio between two zooms is the same everywhere.
    """
    north_m = MERCATOR_EDGE_M * (1 - (2 * np.asarray(y, np.float64) + 1) / 2**zoom)
    gsd_m: NDArray[np.float64] = mercator_pixel_m(zoom) / np.cosh(north_m / EARTH_RADIUS_M)
    return gsd_m


def tile_ids(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.int64]:
    """PMTiles ids of tiles at one zoom: positions along the Hilbert curve, after all lower zooms.

    Args:
        zoom: zoom of all the tiles, at most :data:`MAX_ZOOM`.
        x: tile columns, shape (N,).
        y: tile rows, shape (N,).

    Returns:
        Ids, shape (N,), int64.

    Raises:
        GridError: a zoom or a tile outside the grid.

    Source: PMTiles version 3 specification, "Tile ID".
    """
    if not 0 <= zoom <= MAX_ZOOM:
        raise GridError(f"zoom {zoom} is outside 0..{MAX_ZOOM}; choose a zoom in that range.")
    x_left, y_left = np.array(x, dtype=np.int64), np.array(y, dtype=np.int64)
    num_tiles = 1 << zoom
    if np.any((x_left < 0) | (x_left >= num_tiles) | (y_left < 0) | (y_left >= num_tiles)):
        raise GridError(f"a tile lies outside the {num_tiles} x {num_tiles} grid of zoom {zoom}.")
    position = np.zeros_like(x_left)
    side = num_tiles >> 1
    while side > 0:
        right, lower = (x_left & side) > 0, (y_left & side) > 0
        position += side * side * ((3 * right) ^ lower)
        flipped = ~lower & right
        x_left = np.where(flipped, side - 1 - (x_left & (side - 1)), x_left & (side - 1))
        y_left = np.where(flipped, side - 1 - (y_left & (side - 1)), y_left & (side - 1))
        x_left, y_left = np.where(lower, x_left, y_left), np.where(lower, y_left, x_left)
        side >>= 1
    return position + first_tile_id(zoom)


def tiles_of(zoom: int, ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of tiles from their ids at one zoom: the inverse of :func:`tile_ids`.

    Args:
        zoom: zoom of all the tiles.
        ids: PMTiles ids, shape (N,).

    Returns:
        Columns and rows, each of shape (N,).

    Raises:
        GridError: an id is of another zoom.
    """
    position = np.array(ids, dtype=np.int64) - first_tile_id(zoom)
    if np.any((position < 0) | (position >= 1 << (2 * zoom))):
        raise GridError(f"a tile id is not one of zoom {zoom}.")
    x, y = np.zeros_like(position), np.zeros_like(position)
    for level in range(zoom):
        side = 1 << level
        right, lower = (position >> 1) & 1, (position ^ (position >> 1)) & 1
        flipped = (lower == 0) & (right == 1)
        x, y = np.where(flipped, side - 1 - x, x), np.where(flipped, side - 1 - y, y)
        x, y = np.where(lower, x, y), np.where(lower, y, x)
        x, y = x + side * right, y + side * lower
        position >>= 2
    return x, y


def first_tile_id(zoom: int) -> int:
    """PMTiles id of the first tile of a zoom: the number of tiles of all lower zooms."""
    return int(((1 << (2 * zoom)) - 1) // 3)


def hilbert_order(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.int64]:
    """Positions that sort tiles of one zoom along the Hilbert curve, shape (N,).

    Neighbours on the ground stay close in this order. The children of one parent follow each other,
    in the order of the parents.
    """
    order: NDArray[np.int64] = np.argsort(tile_ids(zoom, x, y), kind="stable")
    return order


def tile_bounds(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """West, south, east, north in degrees (OGC:CRS84) of tiles of one zoom, shape (N, 4)."""
    columns, rows = np.asarray(x, np.float64), np.asarray(y, np.float64)
    edges = np.stack([columns, rows + 1, columns + 1, rows], axis=-1) / 2.0**zoom
    bounds = np.empty_like(edges)
    bounds[:, 0::2] = edges[:, 0::2] * 360 - HALF_TURN
    bounds[:, 1::2] = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * edges[:, 1::2]))))
    return bounds


def tile_outlines(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.object_]:
    """Outlines of tiles of one zoom: shapely polygons in degrees (OGC:CRS84), shape (N,)."""
    from shapely import box

    outlines: NDArray[np.object_] = box(*tile_bounds(zoom, x, y).T)
    return outlines


class Span(NamedTuple):
    """A rectangle of tiles at one zoom; ``right`` and ``bottom`` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, other: Span) -> Span:
        """Intersection with another rectangle; it may be empty."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        return Span(
            left,
            top,
            max(left, min(self.right, other.right)),
            max(top, min(self.bottom, other.bottom)),
        )

    def parents(self, levels: int) -> Span:
        """Rectangle of the ancestors ``levels`` zooms lower that contain these tiles."""
        right, bottom = (self.right - 1 >> levels) + 1, (self.bottom - 1 >> levels) + 1
        return Span(self.left >> levels, self.top >> levels, right, bottom)

    def children(self, levels: int) -> Span:
        """Rectangle of the descendants ``levels`` zooms higher."""
        return Span(*(edge << levels for edge in self))

    @property
    def num_tiles(self) -> int:
        """Number of tiles."""
        return (self.right - self.left) * (self.bottom - self.top)

    def tiles(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Columns and rows of the tiles, each of shape (num_tiles,)."""
        x, y = np.meshgrid(np.arange(self.left, self.right), np.arange(self.top, self.bottom))
        return x.ravel().astype(np.int64), y.ravel().astype(np.int64)


def spans_within(bounds_lonlat: Bounds, zoom: int) -> list[Span]:
    """Rectangles of the tiles at ``zoom`` that lie entirely within ``bounds_lonlat`` (degrees).

    Two where the box crosses the antimeridian, none where no tile fits.

    Raises:
        UsageError: the box is empty or outside the world.
    """
    spans = [_span_within(box, zoom) for box in boxes_on_globe(bounds_lonlat)]
    return [span for span in spans if span.right > span.left and span.bottom > span.top]


def boxes_on_globe(bounds_lonlat: Bounds) -> list[Bounds]:
    """Boxes within -180..180 degrees of longitude that hold the same ground as a box.

    Args:
        bounds_lonlat: west, south, east, north in degrees. A box with west > east crosses the
            antimeridian (RFC 7946, section 5.2), and so does one from 170 to 190 degrees.

    Returns:
        The box itself, moved by whole turns, or its parts on both sides of the antimeridian.

    Raises:
        UsageError: the box is empty or outside the world.
    """
    west, south, east, north = bounds_lonlat
    turn = 2 * HALF_TURN
    width = east - west + (turn if west > east else 0)
    if not (
        max(abs(west), abs(east)) <= MAX_LONGITUDE
        and -HALF_TURN / 2 <= south < north <= HALF_TURN / 2
        and width > 0
    ):
        raise UsageError(
            f"bounds {bounds_lonlat} are not west, south, east, north in degrees with "
            "south < north; check their order."
        )
    if width >= turn:
        return [(-HALF_TURN, south, HALF_TURN, north)]
    # By multiples of a turn alone: a box that needs no move keeps its digits.
    west -= turn * math.floor((west + HALF_TURN) / turn)
    east -= turn * (math.ceil((east + HALF_TURN) / turn) - 1)
    if west < east:
        return [(west, south, east, north)]
    return [(west, south, HALF_TURN, north), (-HALF_TURN, south, east, north)]


def _span_within(bounds_lonlat: Bounds, zoom: int) -> Span:
    """Rectangle of the tiles within a box that does not cross; empty or reversed where none fits."""
    west, south, east, north = bounds_lonlat
    # Only tiles with every corner inside count: a partly covered tile would need nodata.
    left, top = _fractional_tile(west, north, zoom)
    right, bottom = _fractional_tile(east, south, zoom)
    slack = 1e-6  # share of a tile; allows for degrees rounded to ten decimals
    return Span(
        math.ceil(left - slack),
        math.ceil(top - slack),
        math.floor(right + slack),
        math.floor(bottom + slack),
    )


def _fractional_tile(lon: float, lat: float, zoom: int) -> tuple[float, float]:
    sin_lat = math.sin(math.radians(max(-85.051129, min(85.051129, lat))))
    north = math.atanh(sin_lat) / math.pi  # -1..1 over the square
    return (lon / 360 + 0.5) * 2**zoom, (0.5 - north / 2) * 2**zoom


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """Pixel grid of a rectangle of whole tiles, which one warp fills."""

    zoom: int
    """Zoom of the tiles."""
    left: int
    """Column of the westernmost tile."""
    top: int
    """Row of the northernmost tile."""
    num_columns: int
    """Number of tiles from west to east."""
    num_rows: int
    """Number of tiles from north to south."""
    tile_px: int = TILE_PX
    """Pixels along a tile's edge: 256, or 512 where the four children are read at once."""

    def __post_init__(self) -> None:
        if self.num_columns < 1 or self.num_rows < 1:
            raise GridError("a pixel grid needs at least one tile.")

    @classmethod
    def around(cls, tiles: Sequence[TileXYZ], *, tile_px: int = TILE_PX) -> PixelGrid:
        """Smallest grid that contains ``tiles``.

        Raises:
            GridError: they are not all of one zoom.
        """
        if len({tile.z for tile in tiles}) != 1:
            raise GridError("a pixel grid needs tiles of exactly one zoom.")
        left, top = min(t.x for t in tiles), min(t.y for t in tiles)
        return cls(
            zoom=tiles[0].z,
            left=left,
            top=top,
            num_columns=max(t.x for t in tiles) - left + 1,
            num_rows=max(t.y for t in tiles) - top + 1,
            tile_px=tile_px,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) in pixels."""
        return self.num_rows * self.tile_px, self.num_columns * self.tile_px

    @property
    def pixel_m(self) -> float:
        """Edge of a pixel in projected metres of EPSG:3857."""
        return mercator_pixel_m(self.zoom) * TILE_PX / self.tile_px

    @property
    def bounds_3857(self) -> Bounds:
        """(west, south, east, north) in projected metres."""
        tile_m = mercator_pixel_m(self.zoom) * TILE_PX
        west = self.left * tile_m - MERCATOR_EDGE_M
        north = MERCATOR_EDGE_M - self.top * tile_m
        return west, north - self.num_rows * tile_m, west + self.num_columns * tile_m, north

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients (a, b, c, d, e, f) from (column, row) to EPSG:3857."""
        west, _south, _east, north = self.bounds_3857
        return self.pixel_m, 0.0, west, 0.0, -self.pixel_m, north

    def window(self, tile: TileXYZ) -> tuple[slice, slice]:
        """Rows and columns of ``tile`` in an array of this grid.

        Raises:
            GridError: the tile is not in this grid.
        """
        row, column = tile.y - self.top, tile.x - self.left
        if tile.z != self.zoom or not (0 <= row < self.num_rows and 0 <= column < self.num_columns):
            raise GridError(f"tile {tile.z}/{tile.x}/{tile.y} is not in this rectangle.")
        edge = self.tile_px
        return slice(row * edge, (row + 1) * edge), slice(column * edge, (column + 1) * edge)


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles of one zoom."""

    zoom: int
    x: NDArray[np.int64]
    """Columns, shape (N,)."""
    y: NDArray[np.int64]
    """Rows, shape (N,)."""

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[Any]) -> Tiles:
        """Tiles at some positions (N,), or where a mask (N,) is true."""
        return replace(self, x=self.x[which], y=self.y[which])
