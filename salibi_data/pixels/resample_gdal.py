"""Warps by GDAL, for sources whose pixels lie on no plain grid and for sums that would not be exact.

What is ours here is the choice of kernel, and the bound on GDAL's error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.sources.control_points import ControlPoints
    from salibi_data.sources.read import Source
    from salibi_data.store.tiles import PixelGrid

SUPERSAMPLING: Final = 2
"""When shrinking, each pixel is the mean of 2 x 2 area averages: GDAL's average takes the upright
box around a pixel's two corners, and on a grid turned against ours (UTM is, by up to 2 degrees)
smaller boxes follow the turned pixel better. ``benchmarks/data/shrinking.py`` has the figures."""


def warp(source: Source, grid: PixelGrid, *, categorical: bool) -> NDArray[np.float32]:
    """``source`` on the pixels of ``grid``; :func:`salibi_data.pixels.warp.warp` says what it is to be.

    Returns:
        Shape (bands, *grid.shape); NaN where the source has no observation.

    Source: GDAL's warper (https://gdal.org/en/stable/api/gdalwarp_cpp.html).
    """
    if categorical:
        return _reproject(source, grid, "nearest")
    if shrinking_factor(source, grid) <= 1:
        return _reproject(source, grid, "bilinear")
    finer = replace(grid, tile_px=grid.tile_px * SUPERSAMPLING)
    averaged = _reproject(source, finer, "average")
    bands, (rows, columns), k = len(averaged), grid.shape, SUPERSAMPLING
    boxes = averaged.reshape(bands, rows, k, columns, k)
    shrunk: NDArray[np.float32] = boxes.mean(axis=(2, 4), dtype=np.float32)
    return shrunk


def _reproject(source: Source, grid: PixelGrid, kernel: str) -> NDArray[np.float32]:
    """One warp per column of tiles.

    Along a row GDAL looks up where few pixels lie and goes straight between them, to 0.125 source
    pixels, and rasterio's ``reproject`` (1.4) takes no other bound. Over one tile's
    width at zoom 17 that is 0.003 at most; over a block's, pixels would depend on which tiles are
    beside them.
    """
    warped = np.full((len(source.values), *grid.shape), np.nan, dtype=np.float32)
    # GDAL is three times faster where it need not look for missing pixels.
    nodata = np.nan if np.isnan(source.values).any() else None
    for column in range(grid.num_columns):
        strip = replace(grid, left=grid.left + column, num_columns=1)
        left = column * grid.tile_px
        warped[:, :, left : left + grid.tile_px] = _strip(source, strip, kernel, nodata)
    return warped


def _strip(
    source: Source, grid: PixelGrid, kernel: str, nodata: float | None
) -> NDArray[np.float32]:
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.warp import reproject

    warped = np.full((len(source.values), *grid.shape), np.nan, dtype=np.float32)
    reproject(
        source.values,
        warped,
        src_crs=source.crs,
        src_nodata=nodata,
        dst_transform=Affine(*grid.transform),
        dst_crs="EPSG:3857",
        dst_nodata=nodata,
        init_dest_nodata=False,  # it is all NaN already
        resampling=Resampling[kernel],
        num_threads=1,
        **_geolocation(source),
    )
    return warped


def _geolocation(source: Source) -> dict[str, Any]:
    from rasterio.transform import Affine

    if source.transform is not None:
        return {"src_transform": Affine(*source.transform)}
    points = cast("ControlPoints", source.control_points)
    # GDAL would take a polynomial, which passes by the points that terrain moves.
    return {"gcps": points.to_gdal(), "SRC_METHOD": "GCP_TPS"}


def shrinking_factor(source: Source, grid: PixelGrid) -> float:
    """Source pixels along the edge of one pixel of ``grid``, at its centre; above 1 it shrinks."""
    from rasterio.transform import Affine
    from rasterio.warp import transform

    west, south, east, north = grid.bounds_3857
    x, y = (west + east) / 2, (south + north) / 2
    xs, ys = transform("EPSG:3857", source.crs, [x, x + grid.pixel_m, x], [y, y, y + grid.pixel_m])
    if source.transform is not None:
        to_pixel = ~Affine(*source.transform)
        (c0, r0), (c1, r1), (c2, r2) = (to_pixel @ xy for xy in zip(xs, ys, strict=True))
    else:
        points = cast("ControlPoints", source.control_points)
        (c0, c1, c2), (r0, r1, r2) = points.to_pixels(xs, ys)
    return float(np.sqrt(abs((c1 - c0) * (r2 - r0) - (c2 - c0) * (r1 - r0))))
