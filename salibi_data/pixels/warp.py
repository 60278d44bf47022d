"""Warp a scene's raster to a grid of tiles, each tile independently of the others.

Arrays are (bands, rows, columns) float32 with NaN where there is no observation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.pixels import resample_gdal, resample_opencv
from salibi_data.pixels.lattice import MAX_ERROR_PX, tile_lattices
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from salibi_data.pixels.lattice import Lattice
    from salibi_data.sources.georeference import SceneRaster

_REACH_PX: Final = 3
"""Source pixels used beyond a tile's nodes: its rows are oblique, and bilinear needs one more."""


def warp(
    raster: SceneRaster,
    grid: PixelGrid,
    *,
    tiles: Collection[TileXYZ] | None = None,
    categorical: bool = False,
) -> NDArray[np.float32]:
    """Resample a raster to the pixels of a grid, tile by tile, so that tiles do not depend on others.

    Enlarging is bilinear. Shrinking averages the source pixels by the area that they share with
    the new one, which prevents aliasing. Classes take the nearest source pixel.

    Args:
        raster: a window around the grid, in any CRS.
        grid: pixels of whole tiles, in EPSG:3857.
        tiles: tiles of the grid to fill, None for all; the content of the others is undefined.
        categorical: whether values are classes.

    Returns:
        Shape (bands, *grid.shape); NaN where the raster has no observation.

    Raises:
        ReadError: the raster's CRS cannot be transformed to the grid's; of kind ``unusable``.
    """
    from salibi_data.sources.gdal import translate_gdal_errors

    with translate_gdal_errors(
        raster.where, "Check its CRS and transform, or leave its scene out."
    ):
        if raster.transform is None:
            return resample_gdal.warp(raster, grid, categorical=categorical)
        warped = np.full((len(raster.values), *grid.shape), np.nan, dtype=np.float32)
        for (row, column), lattice in tile_lattices(raster, grid).items():
            tile = TileXYZ(grid.left + column, grid.top + row, grid.zoom)
            if tiles is not None and tile not in tiles:
                continue
            pixels = _warp_tile(raster, tile, lattice, categorical=categorical)
            if pixels is not None:
                warped[(slice(None), *grid.window(tile))] = pixels
        return warped


def _warp_tile(
    raster: SceneRaster, tile: TileXYZ, lattice: Lattice, *, categorical: bool
) -> NDArray[np.float32] | None:
    """Return the pixels of one tile; None where the raster does not reach it."""
    num_rows, num_columns = raster.values.shape[1:]
    if lattice.error_px <= MAX_ERROR_PX:
        rows, columns = _reach(lattice.y, num_rows), _reach(lattice.x, num_columns)
        if len(rows) == 0 or len(columns) == 0:
            return None
        values = raster.values[:, rows.start : rows.stop, columns.start : columns.stop]
        near = lattice.relative_to(columns.start, rows.start)
        kernel = _choose_kernel(values, near, raster.integer_bound, categorical=categorical)
        if kernel is not None:
            return kernel(values, near)
    tile_grid = PixelGrid.around([tile], tile_px=lattice.tile_px)
    return resample_gdal.warp(raster, tile_grid, categorical=categorical)


def _choose_kernel(
    values: NDArray[np.float32],
    lattice: Lattice,
    integer_bound: float | None,
    *,
    categorical: bool,
) -> Callable[[NDArray[np.float32], Lattice], NDArray[np.float32]] | None:
    """Choose the function that resamples a tile; None where GDAL has to do it."""
    longest_px = max(values.shape[1:])
    if longest_px > resample_opencv.MAX_SOURCE_PX:
        return None
    if categorical:
        return resample_opencv.nearest
    if lattice.shrink_factor <= 1:
        return resample_opencv.bilinear
    exact = (
        integer_bound is not None and integer_bound * longest_px < resample_opencv.EXACT_SUM_LIMIT
    )
    return resample_opencv.average if exact and lattice.is_nearly_upright else None


def _reach(nodes: NDArray[np.float64], count: int) -> range:
    """Return the rows, or columns, of a raster that a tile needs."""
    first, last = int(np.floor(nodes.min())), int(np.ceil(nodes.max()))
    return range(max(0, first - _REACH_PX), min(count, last + _REACH_PX))
