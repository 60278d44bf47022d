"""How far shrunk pixels are from a plain average of the source: by GDAL's boxes, and by two passes.

Claim: on a source that is turned against Web Mercator, averages in two passes (``salibi_data.remap``)
are as near as GDAL's on a grid twice as fine, or nearer, and those nearer than GDAL's upright
boxes. The oracle samples every pixel 60 x 60 times.

Run: python benchmarks/shrinking.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import mercantile
import numpy as np
from machine import describe
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from salibi_data import align
from salibi_data.grid import PixelGrid, TileXYZ
from salibi_data.read import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES = 60
DEGREES_OFF = 2.8  # of the zone's central meridian; grids differ by 2 degrees at 45 N


def plain_average(source: Source, grid: PixelGrid) -> NDArray[np.float64]:
    """Mean of the source under each pixel, by dense nearest sampling."""
    rows, columns = grid.shape
    west, _, _, north = grid.bounds_3857
    step = grid.pixel_m / SAMPLES
    x = west + (np.arange(columns * SAMPLES) + 0.5) * step
    y = north - (np.arange(rows * SAMPLES) + 0.5) * step
    xs, ys = transform("EPSG:3857", source.crs, *(a.ravel() for a in np.meshgrid(x, y)))
    column, row = ~Affine(*source.transform) @ (np.array(xs), np.array(ys))
    values = source.values[0][np.floor(row).astype(int), np.floor(column).astype(int)]
    return values.reshape(rows, SAMPLES, columns, SAMPLES).mean(axis=(1, 3), dtype=np.float64)


def turned_source(tile: TileXYZ, *, feature_px: int) -> Source:
    """Black and white squares at 0.6 m in UTM 15N, over a tile far from the meridian."""
    west, south, east, north = PixelGrid.around([tile]).bounds_3857
    xs, ys = transform(
        "EPSG:3857", "EPSG:32615", [west, east, west, east], [north, north, south, south]
    )
    left, top = min(xs) - 12, max(ys) + 12
    size = int((max(xs) - left + 12) / 0.6)
    squares = np.random.default_rng(0).choice([0.0, 255.0], (size // feature_px + 1,) * 2)
    values = np.kron(squares, np.ones((feature_px, feature_px)))[:size, :size]
    return Source(
        values=values[None].astype(np.float32),
        transform=(0.6, 0.0, left, 0.0, -0.6, top),
        crs=CRS.from_epsg(32615).to_wkt(),
    )


def main() -> None:
    """Print the worst and the mean error of the three ways."""
    print(describe("rasterio", "numpy"))
    tile = TileXYZ(*mercantile.tile(-93 + DEGREES_OFF, 45, 17))
    print("features  shrink   worst and mean of: plain boxes, 2 x 2 boxes, two passes")
    for feature_px in (1, 4, 16):
        source = turned_source(tile, feature_px=feature_px)
        for tile_px in (64, 128):
            grid = PixelGrid.around([tile], tile_px=tile_px)
            oracle = plain_average(source, grid)
            errors = []
            for supersampling in (1, 2):
                with patch.object(align, "SUPERSAMPLING", supersampling):
                    errors.append(np.abs(align.by_gdal(source, grid)[0] - oracle))
            errors.append(np.abs(align.warp(source, grid)[0] - oracle))
            figures = "   ".join(f"{error.max():12.2f} {error.mean():6.3f}" for error in errors)
            factor = align.shrinking_factor(source, grid)
            print(f"{feature_px:5d} px  {factor:6.2f}   {figures}")


if __name__ == "__main__":
    main()
