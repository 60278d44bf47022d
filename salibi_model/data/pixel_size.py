"""Measures the ground that a pixel of a georeferenced raster covers, in metres.

The result is the ``gsd_m`` of :meth:`salibi_model.models.base.PretrainModel.encode`.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine
    from numpy.typing import NDArray

SEMI_MAJOR_M: Final = 6_378_137.0
"""Semi-major axis of the WGS 84 ellipsoid, in metres (NGA.STND.0036, table 3.1)."""
FLATTENING: Final = 1 / 298.257_223_563
"""Flattening of the WGS 84 ellipsoid (the same table)."""

_POLE_DEG: Final = 90.0


def pixel_m(transform: Affine, crs: Any, shape: tuple[int, int]) -> float:
    """Return the edge of a pixel at a raster's centre, in metres on the ground.

    Two lines, one pixel long, cross at the centre along the raster's axes; their ends are
    projected to longitude and latitude and from there to the WGS 84 ellipsoid. The result is the
    edge of a square of the same ground area as the pixel: the geometric mean of its two edges
    where they meet at right angles. Pixels in degrees are oblong on the ground (half as wide as
    high at 60 degrees north); a model takes one number, this one, and an image whose shape matters
    should be warped to square pixels first.

    For Web Mercator pixels of zoom z the result is within 0.8 % of the tile formula for a sphere,
    ``156543.03 * cos(latitude) / 2 ** z``.

    Args:
        transform: affine transform from pixel (column, row) to the coordinates of ``crs``.
        crs: anything that rasterio reads: a CRS, ``"EPSG:32617"``, WKT; in metres, feet or
            degrees.
        shape: (rows, columns).

    Raises:
        UsageError: there is no CRS, it is not one of the Earth, or the centre lies outside of
            its area of definition.
    """
    if not crs:
        raise UsageError(
            "the raster has no coordinate reference system, so the metres per pixel cannot be "
            "derived; give gsd_m or gsd_ratio, or georeference it (gdal_translate -a_srs)."
        )
    half = 0.5
    column, row = shape[1] / 2, shape[0] / 2
    pixels = [
        (column - half, row),
        (column + half, row),
        (column, row - half),
        (column, row + half),
    ]
    # By hand: affine's operator for points differs between its versions.
    x = [transform.a * i + transform.b * j + transform.c for i, j in pixels]
    y = [transform.d * i + transform.e * j + transform.f for i, j in pixels]
    left, right, upper, lower = _on_ellipsoid(*_lon_lat(crs, x, y))
    area_m2 = float(np.linalg.norm(np.cross(right - left, lower - upper)))
    if not area_m2 > 0:
        raise UsageError(
            f"the raster's transform {tuple(transform)[:6]} gives pixels no area; "
            "give gsd_m or gsd_ratio instead."
        )
    return math.sqrt(area_m2)


def dataset_pixel_m(source: str | Path | Any) -> float:
    """Return the edge of a pixel of a raster file, or of a dataset that rasterio has opened.

    Raises:
        UsageError: the file cannot be read, or as :func:`pixel_m`.
    """
    if not isinstance(source, str | Path):
        return pixel_m(source.transform, source.crs, source.shape)
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    try:
        with warnings.catch_warnings():
            # `pixel_m` raises an error that says more.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(source) as dataset:
                return dataset_pixel_m(dataset)
    except RasterioIOError as error:
        raise UsageError(f"{source} cannot be read as a raster: {error}.") from error
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


def _lon_lat(
    crs: Any, x: Sequence[float], y: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Transform coordinates to degrees of longitude and latitude."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError
    from rasterio.warp import transform as to_crs

    try:
        lon, lat = map(np.array, to_crs(crs, "OGC:CRS84", x, y))
    except (CRSError, CPLE_BaseError) as error:
        raise UsageError(_outside_message(crs, x, y)) from error
    # GDAL returns infinity where a projection is undefined, and does not check degrees at all.
    if not (np.isfinite(lon) & (np.abs(lat) <= _POLE_DEG)).all():
        raise UsageError(_outside_message(crs, x, y))
    return lon, lat


def _outside_message(crs: Any, x: Sequence[float], y: Sequence[float]) -> str:
    text = " ".join(str(crs).split())[:60]
    return (
        f"the raster's centre, ({np.mean(x):g}, {np.mean(y):g}) in {text}, has no longitude and "
        "latitude; check its transform and CRS, or give gsd_m or gsd_ratio."
    )


def _on_ellipsoid(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return points on the ellipsoid as (x, y, z) in metres from the Earth's centre (ECEF).

    A chord is shorter than its arc by one part in 10^9 over a kilometre; in return the poles and
    the antimeridian need no special case.
    """
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    squared_eccentricity = FLATTENING * (2 - FLATTENING)
    normal = SEMI_MAJOR_M / np.sqrt(1 - squared_eccentricity * np.sin(lat) ** 2)
    return np.stack(
        [
            normal * np.cos(lat) * np.cos(lon),
            normal * np.cos(lat) * np.sin(lon),
            normal * (1 - squared_eccentricity) * np.sin(lat),
        ],
        axis=-1,
    )
