"""Where the sample catalog lies: tiles, projection, and the local metres the landscape uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from salibi_data.store.errors import UsageError

EPSG: Final = 32615
"""UTM zone 15 north."""
MGRS_TILE: Final = "15TWG"
"""500..600 km east, 4600..4700 km north."""
TILE_ZOOM: Final = 15
COLUMNS: Final = 7
ROWS: Final = 6

_CENTRE_TILE: Final = (7970, 12164)
"""Zoom-15 tile that holds the corner of four NAIP quarter quads."""
_QUAD_CORNER_LONLAT: Final = (-92.4375, 42.0)
_CENTRAL_MERIDIAN: Final = -93.0
_DOMAIN_MARGIN_M: Final = 1000.0
_SNAP_M: Final = 60
"""Multiple of 0.6, 10 and 20 m: every sensor's pixel edges fall on the origin."""

Bounds = tuple[float, float, float, float]


def tile_corner_lonlat(x: int, y: int, zoom: int = TILE_ZOOM) -> tuple[float, float]:
    """North-western corner of an XYZ tile."""
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / 2**zoom))))
    return x / 2**zoom * 360 - 180, lat


def area_bounds_lonlat(columns: int, rows: int) -> Bounds:
    """West, south, east, north of a run of zoom-15 tiles about the centre of the landscape."""
    x, y = _CENTRE_TILE[0] - columns // 2, _CENTRE_TILE[1] - rows // 2
    west, north = tile_corner_lonlat(x, y)
    east, south = tile_corner_lonlat(x + columns, y + rows)
    return west, south, east, north


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The landscape's extent and the imaged area, in local metres from the origin."""

    origin_e: int
    origin_n: int
    """UTM position of local (0, 0), the south-western corner of the landscape."""
    width_m: float
    height_m: float
    rotation_rad: float
    """Angle from true east to grid east."""
    area: Bounds
    """West, south, east, north of the imaged area: the box around its tiles."""
    quad_corner: tuple[float, float]
    """Where four NAIP quarter quads meet."""

    def outward(self, margin_m: float, snap_m: float) -> Bounds:
        """The area grown by a margin, its edges moved outward to multiples of ``snap_m``."""
        west, south, east, north = self.area
        return (
            math.floor((west - margin_m) / snap_m) * snap_m,
            math.floor((south - margin_m) / snap_m) * snap_m,
            math.ceil((east + margin_m) / snap_m) * snap_m,
            math.ceil((north + margin_m) / snap_m) * snap_m,
        )

    def to_utm(self, x_m: float, y_m: float) -> tuple[float, float]:
        """UTM easting and northing, cleaned of the dust of binary fractions."""
        return round(self.origin_e + x_m, 3), round(self.origin_n + y_m, 3)

    def ring_lonlat(self, corners: npt.NDArray[np.float64]) -> list[list[float]]:
        """Closed ring in longitude and latitude through local corners (num, 2).

        Each side gets intermediate points: a straight line in UTM is not one in degrees.
        """
        closed = np.concatenate([corners, corners[:1]])
        parts = np.linspace(0, 1, 9)[:-1, None, None]
        dense = closed[:-1] + parts * np.diff(closed, axis=0)
        points = np.moveaxis(dense, 1, 0).reshape(-1, 2)
        points = np.concatenate([points, points[:1]])
        lon, lat = to_lonlat(points[:, 0] + self.origin_e, points[:, 1] + self.origin_n)
        return [[round(a, 7), round(b, 7)] for a, b in zip(lon, lat, strict=True)]


def to_lonlat(
    easting: npt.NDArray[np.float64], northing: npt.NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Longitude and latitude of UTM positions."""
    from rasterio.warp import transform

    lon, lat = transform(f"EPSG:{EPSG}", "EPSG:4326", list(easting), list(northing))
    return list(lon), list(lat)


def _to_utm_box(bounds_lonlat: Bounds) -> Bounds:
    """Box around a longitude-latitude box in UTM, its curved sides included."""
    from rasterio.warp import transform_bounds

    box = transform_bounds("EPSG:4326", f"EPSG:{EPSG}", *bounds_lonlat, densify_pts=21)
    return box[0], box[1], box[2], box[3]


def make_frame(columns: int = COLUMNS, rows: int = ROWS) -> Frame:
    """The frame of an area of ``columns`` by ``rows`` zoom-15 tiles.

    The landscape always covers the full area: a smaller one is a piece of the same ground.

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
    # Meridian convergence: grid north lies this far from true north.
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
