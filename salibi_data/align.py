"""From source pixels to tile pixels: one warp per rectangle of tiles, then dB, then 8 bit.

Arrays are (bands, rows, columns) float32 with NaN where there is no observation. OpenCV looks the
pixels up, GDAL warps where that would not be exact; what is ours is the grid, the choice of kernel
and the mosaic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from salibi_data import remap
from salibi_data.errors import GridError
from salibi_data.grid import PixelGrid
from salibi_data.lattice import lattices

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

    from salibi_data.catalog import Units
    from salibi_data.control_points import ControlPoints
    from salibi_data.grid import TileXYZ
    from salibi_data.lattice import Lattice
    from salibi_data.read import Source
    from salibi_data.variant import ModalityRecipe

SUPERSAMPLING: Final = 2
"""When shrinking, each pixel is the mean of 2 x 2 area averages: GDAL's average takes the upright
box around a pixel's two corners, and on a grid turned against ours (UTM is, by up to 2 degrees)
smaller boxes follow the turned pixel better. ``benchmarks/shrinking.py`` has the figures."""

MOST_BENT_PX: Final = 0.01
"""Source pixels by which a pixel's place may be wrong; a tile that bends more is left to GDAL."""

POWER_FLOOR: Final = 1e-10
"""Least power whose logarithm is taken: -100 dB, below any sensor's noise."""


def warp(
    source: Source,
    grid: PixelGrid,
    *,
    tiles: Collection[TileXYZ] | None = None,
    categorical: bool = False,
) -> NDArray[np.float32]:
    """``source`` on the pixels of ``grid``.

    Enlarging is bilinear; shrinking averages every source pixel by the area it shares with the
    new one, so that nothing aliases; classes take the nearest. Every tile is the same in whatever
    grid it is.

    Args:
        source: a window around the grid.
        grid: of whole tiles.
        tiles: those of the grid that are asked for, None for all; of the others nothing is said.
        categorical: whether values are classes.

    Returns:
        Shape (bands, *grid.shape); NaN where the source has no observation.

    Raises:
        ReadError: the source cannot be placed on the grid.
    """
    from salibi_data.rasters import usable

    with usable(source.where, "Check its CRS and transform, or leave its scene out."):
        if categorical or source.transform is None:
            return by_gdal(source, grid, categorical=categorical)
        return _by_tiles(source, grid, tiles)


def _by_tiles(
    source: Source, grid: PixelGrid, tiles: Collection[TileXYZ] | None
) -> NDArray[np.float32]:
    """Tile by tile: by :mod:`salibi_data.remap` where it is exact, by GDAL elsewhere."""
    warped = np.full((len(source.values), *grid.shape), np.nan, dtype=np.float32)
    for lattice in lattices(source, grid):
        if tiles is not None and lattice.tile not in tiles:
            continue
        pixels = _remapped(source.values, lattice)
        if pixels is None:
            pixels = by_gdal(source, PixelGrid.around([lattice.tile], tile_px=grid.tile_px))
        warped[(slice(None), *grid.window(lattice.tile))] = pixels
    return warped


def _remapped(values: NDArray[np.float32], lattice: Lattice) -> NDArray[np.float32] | None:
    if lattice.bent_px > MOST_BENT_PX:
        return None
    if lattice.scale > 1:
        return remap.average(values, lattice)
    return remap.bilinear(values, lattice)


def by_gdal(source: Source, grid: PixelGrid, *, categorical: bool = False) -> NDArray[np.float32]:
    """``source`` on the pixels of ``grid`` by GDAL alone: where nothing else will do.

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


def mosaic(layers: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The first of the layers, its missing pixels filled with those of the second, and so on.

    Args:
        layers: shape (bands, rows, columns) each; at least one. They are left as they are.
    """
    first, *others = layers
    target = first.copy()
    for layer in others:
        np.copyto(target, layer, where=np.isnan(target).any(axis=0))
    return target


def valid_fraction(values: NDArray[np.float32]) -> float:
    """Share of the pixels that are observed in every band."""
    return float(np.isfinite(values).all(axis=0).mean())


def in_units(values: NDArray[np.float32], source: Units, target: Units) -> NDArray[np.float32]:
    """``values`` in the target's units. Power becomes dB here, after the warp and only here.

    Raises:
        GridError: no conversion is known.
    """
    if source == target:
        return values
    if (source, target) == ("power", "dB"):
        return 10 * np.log10(np.maximum(values, np.float32(POWER_FLOOR)))
    raise GridError(f"no conversion from {source} to {target}; give the modality units {source!r}.")


def quantise(values: NDArray[np.float32], recipe: ModalityRecipe) -> NDArray[np.uint8]:
    """Stored form: ``1 + 254 * (value - low) / (high - low)``, rounded and clipped to 1..255.

    NaN becomes 0, the nodata value, and no observed value does: the brightest stay 255 and the
    darkest 1, where the original code wraps the brightest radar pixels to 0.
    """
    scale = np.asarray(recipe.scale, dtype=np.float32)[:, None, None]
    offset = np.asarray(recipe.offset, dtype=np.float32)[:, None, None]
    steps = values - offset
    steps /= scale
    np.clip(np.rint(steps, out=steps), 1, 255, out=steps)
    missing = np.isnan(steps).any(axis=0)
    if missing.any():
        steps[:, missing] = 0
    return steps.astype(np.uint8)


def cloud_fraction(classes: NDArray[np.float32], cloudy: Iterable[int]) -> float:
    """Share of a tile's pixels whose class is one of ``cloudy``, or is not known.

    Args:
        classes: shape (1, rows, columns); NaN where the mask has no pixel.
        cloudy: class numbers.
    """
    return float((np.isin(classes, list(cloudy)) | np.isnan(classes)).mean())
