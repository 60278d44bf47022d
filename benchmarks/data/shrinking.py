"""Compare shrunk pixels of Salibi and of GDAL with a plain average of the source.

Claim: on a source that is rotated against Web Mercator, sums within a pixel's own edges are nearer to
the plain average than GDAL's axis-aligned boxes, both one box per pixel and 2 x 2. The oracle samples
every pixel 60 x 60 times.

Run: python -m benchmarks.data.shrinking [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import mercantile
import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from benchmarks._lib.machine import describe
from benchmarks._lib.side_by_side import by_form, parser, report, table
from salibi_data.pixels import resample_gdal, warp
from salibi_data.sources.georeference import SceneRaster
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEGREES_OFF = 2.8  # of the zone's central meridian; grids differ by 2 degrees at 45 N


def plain_average(source: SceneRaster, grid: PixelGrid, samples: int) -> NDArray[np.float64]:
    """Average the source under each pixel over ``samples`` x ``samples`` nearest values."""
    rows, columns = grid.shape
    west, _, _, north = grid.bounds_3857
    step = grid.pixel_m / samples
    x = west + (np.arange(columns * samples) + 0.5) * step
    y = north - (np.arange(rows * samples) + 0.5) * step
    xs, ys = transform("EPSG:3857", source.crs, *(a.ravel() for a in np.meshgrid(x, y)))
    column, row = ~Affine(*source.transform) @ (np.array(xs), np.array(ys))
    values = source.values[0][np.floor(row).astype(int), np.floor(column).astype(int)]
    return values.reshape(rows, samples, columns, samples).mean(axis=(1, 3), dtype=np.float64)


def turned_source(tile: TileXYZ, *, feature_px: int) -> SceneRaster:
    """Make black and white squares at 0.6 m in UTM 15N, over a tile far from the meridian."""
    west, south, east, north = PixelGrid.around([tile]).bounds_3857
    xs, ys = transform(
        "EPSG:3857", "EPSG:32615", [west, east, west, east], [north, north, south, south]
    )
    left, top = min(xs) - 12, max(ys) + 12
    size = int((max(xs) - left + 12) / 0.6)
    squares = np.random.default_rng(0).choice([0.0, 255.0], (size // feature_px + 1,) * 2)
    values = np.kron(squares, np.ones((feature_px, feature_px)))[:size, :size]
    return SceneRaster(
        values=values[None].astype(np.float32),
        transform=(0.6, 0.0, left, 0.0, -0.6, top),
        crs=CRS.from_epsg(32615).to_wkt(),
        integer_bound=255,
    )


def main() -> None:
    """Print the worst and the mean error of each way."""
    arguments = parser(__doc__).parse_args()
    samples, features_px = by_form(
        arguments, full=(60, (1, 4, 16)), quick=(60, (1, 4, 16)), smallest=(4, (4,))
    )
    tile = TileXYZ(*mercantile.tile(-93 + DEGREES_OFF, 45, 17))
    rows = []
    for feature_px in features_px:
        source = turned_source(tile, feature_px=feature_px)
        for tile_px in (64, 128):
            grid = PixelGrid.around([tile], tile_px=tile_px)
            oracle = plain_average(source, grid, samples)
            shrunk_images = [warp.warp(source, grid)[0]]
            for supersampling in (2, 1):
                with patch.object(resample_gdal, "SUPERSAMPLING", supersampling):
                    shrunk_images.insert(0, resample_gdal.warp(source, grid, categorical=False)[0])
            errors = [np.abs(pixels - oracle) for pixels in shrunk_images]
            figures = [f"{figure:.2f}" for e in errors for figure in (e.max(), e.mean())]
            factor = resample_gdal.shrink_factor(source, grid)
            rows.append([f"{feature_px} px", f"{factor:.2f}", *figures])
    ways = ("GDAL, one box", "GDAL, 2 x 2 boxes", "ours")
    head = ["features", "shrink", *(f"{way}: {what}" for way in ways for what in ("worst", "mean"))]
    machine = describe("rasterio", "numpy", "opencv-python-headless")
    lines = [machine, "", "Errors of 255.", *table(head, rows)]
    report(arguments.report, "Shrunk pixels against a plain average", lines)


if __name__ == "__main__":
    main()
