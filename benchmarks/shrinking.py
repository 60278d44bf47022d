"""How far shrunk pixels are from a plain average of the source: ours, and GDAL's averages.

Claim: sums between a pixel's own edges are nearer to the plain average than GDAL's upright boxes, be they
one a pixel or 2 x 2, on a source that is turned against Web Mercator. The oracle samples every pixel
60 x 60 times.

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

from salibi_data import align, gdal_warp
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
        largest_whole=255,
    )


def main() -> None:
    """Print the worst and the mean error of each way."""
    print(describe("rasterio", "numpy", "opencv-python-headless"))
    tile = TileXYZ(*mercantile.tile(-93 + DEGREES_OFF, 45, 17))
    print("worst and mean error, of 255")
    print("features  shrink    GDAL, one box     GDAL, 2 x 2 boxes            ours")
    for feature_px in (1, 4, 16):
        source = turned_source(tile, feature_px=feature_px)
        for tile_px in (64, 128):
            grid = PixelGrid.around([tile], tile_px=tile_px)
            oracle = plain_average(source, grid)
            found = [align.warp(source, grid)[0]]
            for supersampling in (2, 1):
                with patch.object(gdal_warp, "SUPERSAMPLING", supersampling):
                    found.insert(0, gdal_warp.warp(source, grid, categorical=False)[0])
            errors = [np.abs(pixels - oracle) for pixels in found]
            figures = "   ".join(f"{error.max():10.2f} {error.mean():6.3f}" for error in errors)
            factor = gdal_warp.shrinking_factor(source, grid)
            print(f"{feature_px:5d} px  {factor:6.2f}   {figures}")


if __name__ == "__main__":
    main()
