"""Computes outlines of windows in longitude and latitude, across the antimeridian and poles too.

In GeoParquet and GeoJSON (RFC 7946, section 3.1.9) longitudes lie within 180 degrees of Greenwich,
and a polygon that crosses the antimeridian is cut there into two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine
    from shapely.geometry.base import BaseGeometry

_LONG_M: Final = 100_000.0
"""Edge from which on a straight line in degrees deviates by half a pixel or more: with 256 px,
``edge ** 2 / (8 * 6371 km)``."""

_POINTS: Final = 32
"""Points along a long edge, so many that longitudes of neighbours differ by less than 180 degrees,
except at a pole."""

_FULL_TURN, _HALF_TURN, _POLE = 360.0, 180.0, 90.0


def outlines(
    windows: Sequence[tuple[int, int, int, int]], transform: Affine, crs: Any, *, pixel_m: float
) -> list[BaseGeometry]:
    """Return the polygons of windows of a raster, in longitude and latitude (OGC:CRS84).

    Args:
        windows: (row, column, rows, columns) of each window.
        transform: affine transform from pixel (column, row) to the coordinates of ``crs``, with
            any rotation.
        crs: anything that rasterio reads.
        pixel_m: approximate metres per pixel.

    Returns:
        Polygons, or multipolygons where the antimeridian cuts one.

    Raises:
        UsageError: a window lies where the CRS is not defined.
    """
    longest_px = max(max(window[2:]) for window in windows)
    points = _POINTS if longest_px * pixel_m >= _LONG_M else 1
    cols, rows = np.concatenate([_ring(window, points) for window in windows], axis=1)
    x = transform.a * cols + transform.b * rows + transform.c
    y = transform.d * cols + transform.e * rows + transform.f
    lon, lat = (np.split(part, len(windows)) for part in _lon_lat(crs, x, y))
    return [outline(*ring) for ring in zip(lon, lat, strict=True)]


def outline(lon: np.ndarray, lat: np.ndarray) -> BaseGeometry:
    """Close a ring of points to a polygon between longitudes -180 and 180.

    Neighbouring points must be less than 180 degrees of longitude apart. A ring around the Earth
    encloses the nearer pole.

    Args:
        lon: longitudes in degrees, of any turn.
        lat: latitudes in degrees.
    """
    import shapely

    # Not with the package antimeridian: it rounds crossings to 1e-7 degrees, and makes an invalid
    # polygon of a global raster from 0 to 360 degrees east.
    unrolled = np.unwrap(np.append(lon, lon[0]), period=_FULL_TURN)
    heights = np.append(lat, lat[0])
    if abs(unrolled[-1] - unrolled[0]) > _HALF_TURN:
        pole = np.copysign(_POLE, lat.mean())
        unrolled = np.append(unrolled, unrolled[[-1, 0]])
        heights = np.append(heights, [pole, pole])
    polygon = shapely.Polygon(np.stack([unrolled, heights], axis=1))
    west, _, east, _ = polygon.bounds
    first, last = (int((edge + _HALF_TURN) // _FULL_TURN) for edge in (west, east))
    if first == last:
        return _moved(polygon, first)
    parts = [
        _moved(shapely.intersection(polygon, _turn(number)), number)
        for number in range(first, last + 1)
    ]
    return shapely.union_all([part for part in parts if part.area > 0])


def _ring(window: tuple[int, int, int, int], points: int) -> np.ndarray:
    """Return columns and rows (2, 4 * points) of points around a window's edges."""
    row, col, rows, cols = window
    share = np.arange(points) / points
    across, down = np.zeros(points), np.ones(points)
    x = np.concatenate([share, down, 1 - share, across])
    y = np.concatenate([across, share, down, 1 - share])
    return np.stack([col + cols * x, row + rows * y])


def _turn(number: int) -> BaseGeometry:
    """Return the rectangle of all longitudes of one turn around the Earth."""
    import shapely

    middle = number * _FULL_TURN
    return shapely.box(middle - _HALF_TURN, -_POLE, middle + _HALF_TURN, _POLE)


def _moved(polygon: BaseGeometry, turns: int) -> BaseGeometry:
    import shapely

    if not turns:
        return polygon
    return shapely.transform(polygon, lambda points: points - (turns * _FULL_TURN, 0))


def _lon_lat(crs: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError
    from rasterio.warp import transform as to_crs

    try:
        lon, lat = map(np.array, to_crs(crs, "OGC:CRS84", x, y))
    except (CRSError, CPLE_BaseError):
        lon = lat = np.array([np.nan])
    if not (np.isfinite(lon) & (np.abs(lat) <= _POLE + 1e-9)).all():
        raise UsageError(
            "some of its windows reach beyond where its coordinate reference system is defined; "
            "cut it to what is on Earth (gdalwarp -t_srs EPSG:4326 -te ...)."
        )
    return lon, np.clip(lat, -_POLE, _POLE)
