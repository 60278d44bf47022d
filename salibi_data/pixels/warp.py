"""From source pixels to tile pixels: warped tile by tile, then dB, then 8 bit.

Arrays are (bands, rows, columns) float32 with NaN where there is no observation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.pixels import resample_gdal as gdal_warp
from salibi_data.pixels import resample_opencv as remap
from salibi_data.pixels.lattice import MOST_ERROR_PX, lattices
from salibi_data.store.errors import GridError
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Units
    from salibi_data.catalog.variants import ModalityRecipe
    from salibi_data.pixels.lattice import Lattice
    from salibi_data.sources.read import Source

_REACH_PX: Final = 3
"""Source pixels beyond a tile that are looked at: its rows are aslant, and bilinear needs one more."""

POWER_FLOOR: Final = 1e-10
"""Least power whose logarithm is taken: -100 dB, below any sensor's noise."""


def warp(
    source: Source,
    grid: PixelGrid,
    *,
    tiles: Collection[TileXYZ] | None = None,
    categorical: bool = False,
) -> NDArray[np.float32]:
    """``source`` on the pixels of ``grid``, tile by tile: no pixel depends on its tile's neighbours.

    Enlarging is bilinear; shrinking averages every source pixel by the area it shares with the
    new one, so that nothing aliases; classes take the nearest.

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
    from salibi_data.sources.gdal import usable

    with usable(source.where, "Check its CRS and transform, or leave its scene out."):
        if source.transform is None:
            return gdal_warp.warp(source, grid, categorical=categorical)
        warped = np.full((len(source.values), *grid.shape), np.nan, dtype=np.float32)
        for (row, column), lattice in lattices(source, grid).items():
            tile = TileXYZ(grid.left + column, grid.top + row, grid.zoom)
            if tiles is not None and tile not in tiles:
                continue
            pixels = _tile(source, tile, lattice, categorical=categorical)
            if pixels is not None:
                warped[(slice(None), *grid.window(tile))] = pixels
        return warped


def _tile(
    source: Source, tile: TileXYZ, lattice: Lattice, *, categorical: bool
) -> NDArray[np.float32] | None:
    """The pixels of one tile; None where the source does not reach it."""
    num_rows, num_columns = source.values.shape[1:]
    if lattice.error_px <= MOST_ERROR_PX:
        rows, columns = _reach(lattice.y, num_rows), _reach(lattice.x, num_columns)
        if len(rows) == 0 or len(columns) == 0:
            return None
        values = source.values[:, rows.start : rows.stop, columns.start : columns.stop]
        near = lattice.moved(columns.start, rows.start)
        kernel = _kernel(values, near, source.largest_whole, categorical=categorical)
        if kernel is not None:
            return kernel(values, near)
    alone = PixelGrid.around([tile], tile_px=lattice.tile_px)
    return gdal_warp.warp(source, alone, categorical=categorical)


def _kernel(
    values: NDArray[np.float32],
    lattice: Lattice,
    largest_whole: float | None,
    *,
    categorical: bool,
) -> Callable[[NDArray[np.float32], Lattice], NDArray[np.float32]] | None:
    """How to look up a tile's pixels; None where GDAL has to."""
    longest_px = max(values.shape[1:])
    if longest_px > remap.LARGEST_PX:
        return None
    if categorical:
        return remap.nearest
    if lattice.factor <= 1:
        return remap.bilinear
    exact = largest_whole is not None and largest_whole * longest_px < remap.EXACT_BELOW
    return remap.average if exact and lattice.is_nearly_upright else None


def _reach(nodes: NDArray[np.float64], count: int) -> range:
    """The rows, or columns, of a source that a tile needs."""
    first, last = int(np.floor(nodes.min())), int(np.ceil(nodes.max()))
    return range(max(0, first - _REACH_PX), min(count, last + _REACH_PX))


def mosaic(layers: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One layer of those pixels that the first of some layers has; at least one layer."""
    first, *others = layers
    filled = first.copy()
    for layer in others:
        lacking = np.isnan(filled).any(axis=0)
        if not lacking.any():
            break
        np.copyto(filled, layer, where=lacking)
    return filled


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
