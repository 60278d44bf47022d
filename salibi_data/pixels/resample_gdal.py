"""Resample by GDAL: rasters with control points, and averages that float32 sums would round.

This module chooses the kernel and bounds GDAL's error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.sources.georeference import ControlPoints, SceneRaster
    from salibi_data.store.tiles import PixelGrid

SUPERSAMPLING: Final = 2
"""Subpixels per edge when shrinking: each pixel is the mean of 2 x 2 area averages. GDAL averages over
the upright box around a pixel's corners; where the source grid is rotated against ours (UTM, by up to
2 degrees) smaller boxes follow the pixel better. ``benchmarks/data/shrinking.py`` has the figures."""


def warp(raster: SceneRaster, grid: PixelGrid, *, categorical: bool) -> NDArray[np.float32]:
    """Resample a raster to the pixels of a grid, as :func:`salibi_data.pixels.warp.warp` specifies.

    Args:
        raster: a window around the grid, with a transform or control points.
        grid: pixels of whole tiles, in EPSG:3857.
        categorical: whether values are classes.

    Returns:
        Shape (bands, *grid.shape); NaN where the raster has no observation.

    Source: GDAL's warper (https://gdal.org/en/stable/api/gdalwarp_cpp.html).
    """
    if categorical:
        return _reproject(raster, grid, "nearest")
    if shrink_factor(raster, grid) <= 1:
        return _reproject(raster, grid, "bilinear")
    finer = replace(grid, tile_px=grid.tile_px * SUPERSAMPLING)
    averaged = _reproject(raster, finer, "average")
    bands, (rows, columns), k = len(averaged), grid.shape, SUPERSAMPLING
    boxes = averaged.reshape(bands, rows, k, columns, k)
    shrunk: NDArray[np.float32] = boxes.mean(axis=(2, 4), dtype=np.float32)
    return shrunk


def _reproject(raster: SceneRaster, grid: PixelGrid, kernel: str) -> NDArray[np.float32]:
    """Warp each column of tiles separately.

    GDAL transforms few pixels of a row exactly and interpolates the others linearly, with an error
    of up to 0.125 source pixels; rasterio's ``reproject`` (1.4) accepts no other bound. Over the
    width of one tile at zoom 17 the error is 0.003 at most. Over several tiles it would be larger
    and make pixels depend on which tiles are warped together.
    """
    warped = np.full((len(raster.values), *grid.shape), np.nan, dtype=np.float32)
    # GDAL is three times faster when it need not test for missing pixels.
    nodata = np.nan if np.isnan(raster.values).any() else None
    for column in range(grid.num_columns):
        strip = replace(grid, left=grid.left + column, num_columns=1)
        left = column * grid.tile_px
        warped[:, :, left : left + grid.tile_px] = _reproject_strip(raster, strip, kernel, nodata)
    return warped


def _reproject_strip(
    raster: SceneRaster, grid: PixelGrid, kernel: str, nodata: float | None
) -> NDArray[np.float32]:
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.warp import reproject

    warped = np.full((len(raster.values), *grid.shape), np.nan, dtype=np.float32)
    reproject(
        raster.values,
        warped,
        src_crs=raster.crs,
        src_nodata=nodata,
        dst_transform=Affine(*grid.transform),
        dst_crs="EPSG:3857",
        dst_nodata=nodata,
        init_dest_nodata=False,  # all NaN already
        resampling=Resampling[kernel],
        num_threads=1,
        **_placement_arguments(raster),
    )
    return warped


def _placement_arguments(raster: SceneRaster) -> dict[str, Any]:
    from rasterio.transform import Affine

    if raster.transform is not None:
        return {"src_transform": Affine(*raster.transform)}
    points = cast("ControlPoints", raster.control_points)
    # GDAL's default is a polynomial, which misses the points displaced by terrain.
    return {"gcps": points.to_gdal(), "SRC_METHOD": "GCP_TPS"}


def shrink_factor(raster: SceneRaster, grid: PixelGrid) -> float:
    """Return the source pixels per edge of a pixel at the grid's centre; above 1 the warp shrinks."""
    from rasterio.transform import Affine
    from rasterio.warp import transform

    west, south, east, north = grid.bounds_3857
    x, y = (west + east) / 2, (south + north) / 2
    xs, ys = transform("EPSG:3857", raster.crs, [x, x + grid.pixel_m, x], [y, y, y + grid.pixel_m])
    if raster.transform is not None:
        to_pixel = ~Affine(*raster.transform)
        (c0, r0), (c1, r1), (c2, r2) = (to_pixel @ xy for xy in zip(xs, ys, strict=True))
    else:
        points = cast("ControlPoints", raster.control_points)
        (c0, c1, c2), (r0, r1, r2) = points.to_pixels(xs, ys)
    return float(np.sqrt(abs((c1 - c0) * (r2 - r0) - (c2 - c0) * (r1 - r0))))
