"""Compute pixels with rasterio or plain loops: the reference for the project's results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform

from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.sources.georeference import SceneRaster


def warped(
    path: Path, bands: list[int], tile: TileXYZ, tile_px: int = 256, *, all_valid: bool = False
) -> NDArray[np.float64]:
    """A tile as rasterio's warper gives it: bilinear, float, tight error, NaN outside.

    With ``all_valid``, the value that the file declares to be nodata is a value like any other.
    """
    grid = PixelGrid.around([tile], tile_px=tile_px)
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(
            dataset,
            crs="EPSG:3857",
            transform=Affine(*grid.transform),
            width=tile_px,
            height=tile_px,
            resampling=Resampling.bilinear,
            tolerance=0.001,
            dtype="float32",
            **({"src_nodata": None, "nodata": -9999} if all_valid else {"nodata": np.nan}),
        ) as vrt,
    ):
        return vrt.read(bands).astype(np.float64)


def in_pixels(
    source: SceneRaster, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows in the source of all places at these coordinates, each projected by itself."""
    xs, ys = transform("EPSG:3857", source.crs, *(a.ravel() for a in np.meshgrid(x, y)))
    return ~Affine(*source.transform) @ (np.array(xs), np.array(ys))


def plain_average(source: SceneRaster, grid: PixelGrid, samples: int = 60) -> NDArray[np.float64]:
    """Mean of the source pixels under each pixel of the grid, by dense nearest sampling."""
    rows, columns = grid.shape
    west, _, _, north = grid.bounds_3857
    step = grid.pixel_m / samples
    x = west + (np.arange(columns * samples) + 0.5) * step
    y = north - (np.arange(rows * samples) + 0.5) * step
    column, row = in_pixels(source, x, y)
    values = source.values[0][np.floor(row).astype(int), np.floor(column).astype(int)]
    dense = values.reshape(rows, samples, columns, samples).astype(np.float64)
    return dense.mean(axis=(1, 3))
