"""Defines the place of the sample catalog: tiles, projection, and local coordinates.

Local coordinates are metres east (x) and north (y) of the landscape's south-western corner, along
the axes of UTM zone 15 north (EPSG:32615).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from salibi_data.store.errors import UsageError

EPSG: Final = 32615
"""Code of the projection: UTM zone 15 north, metres."""
MGRS_TILE: Final = "15TWG"
"""Sentinel-2 tile of the landscape: 500..600 km east, 4600..4700 km north."""
TILE_ZOOM: Final = 15
COLUMNS: Final = 7
ROWS: Final = 6

_CENTRE_TILE: Final = (7970, 12164)
"""Column and row of the zoom-15 tile that contains the common corner of four NAIP quads."""
_QUAD_CORNER_LONLAT: Final = (-92.4375, 42.0)
_CENTRAL_MERIDIAN: Final = -93.0
_DOMAIN_MARGIN_M: Final = 1000.0
_SNAP_M: Final = 60
"""Step of the landscape's corners. A multiple of 0.6, 10 and 20 m, the pixels of all sensors, so
that a pixel of each starts at the origin."""

Bounds = tuple[float, float, float, float]


def tile_corner_lonlat(x: int, y: int, zoom: int = TILE_ZOOM) -> tuple[float, float]:
    """Longitude and latitude, in degrees (EPSG:4326), of an XYZ tile's north-western corner."""
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**zoom))))
    return x / 2**zoom * 360 - 180, lat


def area_bounds_lonlat(columns: int, rows: int) -> Bounds:
    """West, south, east, north, in degrees, of a block of zoom-15 tiles at the landscape's centre."""
    x, y = _CENTRE_TILE[0] - columns // 2, _CENTRE_TILE[1] - rows // 2
    west, north = tile_corner_lonlat(x, y)
    east, south = tile_corner_lonlat(x + columns, y + rows)
    return west, south, east, north


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Extent of the landscape and of the imaged area, in local metres."""

    origin_e: int
    """UTM easting of local (0, 0), the landscape's south-western corner, in metres."""
    origin_n: int
    """UTM northing of local (0, 0), in metres."""
    width_m: float
    height_m: float
    rotation_rad: float
    """Angle from true east to grid east."""
    area: Bounds
    """West, south, east, north of the box around the imaged tiles, in local metres."""
    quad_corner: tuple[float, float]
    """Local position at which four NAIP quarter quads meet."""

    def expanded_area(self, margin_m: float, snap_m: float) -> Bounds:
        """Return the imaged area with a margin, its edges moved out to multiples of ``snap_m``."""
        west, south, east, north = self.area
        return (
            math.floor((west - margin_m) / snap_m) * snap_m,
            math.floor((south - margin_m) / snap_m) * snap_m,
            math.ceil((east + margin_m) / snap_m) * snap_m,
            math.ceil((north + margin_m) / snap_m) * snap_m,
        )

    def to_utm(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Return UTM easting and northing in metres, rounded to millimetres."""
        return round(self.origin_e + x_m, 3), round(self.origin_n + y_m, 3)

    def ring_lonlat(self, corners: npt.NDArray[np.float64]) -> list[list[float]]:
        """Return the closed ring through local corners (num, 2) as [longitude, latitude] pairs.

        Each side gets seven intermediate points: a straight line in UTM is a curve in degrees.
        """
        closed = np.concatenate([corners, corners[:1]])
        fractions = np.linspace(0, 1, 9)[:-1, None, None]
        dense = closed[:-1] + fractions * np.diff(closed, axis=0)
        points = np.moveaxis(dense, 1, 0).reshape(-1, 2)
        points = np.concatenate([points, points[:1]])
        lon, lat = to_lonlat(points[:, 0] + self.origin_e, points[:, 1] + self.origin_n)
        return [[round(a, 7), round(b, 7)] for a, b in zip(lon, lat, strict=True)]


def to_lonlat(
    easting: npt.NDArray[np.float64], northing: npt.NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Return longitudes and latitudes, in degrees (EPSG:4326), of UTM positions in metres."""
    from rasterio.warp import transform

    lon, lat = transform(f"EPSG:{EPSG}", "EPSG:4326", list(easting), list(northing))
    return list(lon), list(lat)


def _to_utm_box(bounds_lonlat: Bounds) -> Bounds:
    """Return the UTM box that contains a longitude-latitude box with its curved sides."""
    from rasterio.warp import transform_bounds

    box = transform_bounds("EPSG:4326", f"EPSG:{EPSG}", *bounds_lonlat, densify_pts=21)
    return box[0], box[1], box[2], box[3]


def make_frame(columns: int = COLUMNS, rows: int = ROWS) -> Frame:
    """Return the frame of an area of ``columns`` by ``rows`` zoom-15 tiles.

    The landscape always covers the full area, so a smaller area shows part of the same ground.

    Raises:
        UsageError: the area is empty or larger than the landscape.
    """
    from rasterio.warp import transform

    if not (1 <= columns <= COLUMNS and 1 <= rows <= ROWS):
        raise UsageError(
            f"the sample area has 1..{COLUMNS} columns and 1..{ROWS} rows of zoom-15 tiles, "
            f"not {columns} x {rows}; choose a size within that."
        )
    full = _to_utm_box(area_bounds_lonlat(COLUMNS, ROWS))
    west, south = (
        math.floor((edge - _DOMAIN_MARGIN_M) / _SNAP_M) * _SNAP_M for edge in (full[0], full[1])
    )
    east, north = (
        math.ceil((edge + _DOMAIN_MARGIN_M) / _SNAP_M) * _SNAP_M for edge in (full[2], full[3])
    )
    area = _to_utm_box(area_bounds_lonlat(columns, rows))
    lon, lat = _QUAD_CORNER_LONLAT
    corner_e, corner_n = transform("EPSG:4326", f"EPSG:{EPSG}", [lon], [lat])
    # Meridian convergence to first order: the angle between true north and grid north.
    convergence = math.radians(lon - _CENTRAL_MERIDIAN) * math.sin(math.radians(lat))
    return Frame(
        origin_e=west,
        origin_n=south,
        width_m=float(east - west),
        height_m=float(north - south),
        rotation_rad=convergence,
        area=(area[0] - west, area[1] - south, area[2] - west, area[3] - south),
        quad_corner=(corner_e[0] - west, corner_n[0] - south),
    )
