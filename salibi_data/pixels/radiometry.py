"""Arithmetic on the values of tile pixels: mosaics, units, valid and cloudy shares, 8-bit storage.

Arrays are (bands, rows, columns) float32 with NaN where there is no observation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Units
    from salibi_data.catalog.variants import ModalityRecipe

MIN_POWER: Final = 1e-10
"""Least power whose logarithm is taken: -100 dB, below any sensor's noise."""


def mosaic(layers: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Fill the missing pixels of the first layer from the following ones, in order.

    Args:
        layers: at least one array of shape (bands, rows, columns), all on the same pixels.
    """
    first, *others = layers
    filled = first.copy()
    for layer in others:
        lacking = np.isnan(filled).any(axis=0)
        if not lacking.any():
            break
        np.copyto(filled, layer, where=lacking)
    return filled


def valid_fraction(values: NDArray[np.float32]) -> float:
    """Return the share of pixels that are observed in every band, 0..1."""
    return float(np.isfinite(values).all(axis=0).mean())


def cloud_fraction(classes: NDArray[np.float32], cloudy: Iterable[int]) -> float:
    """Return the share of a tile's pixels that are cloudy or of unknown class, 0..1.

    Args:
        classes: shape (1, rows, columns); NaN where the mask has no pixel.
        cloudy: class numbers that count as cloudy.
    """
    return float((np.isin(classes, list(cloudy)) | np.isnan(classes)).mean())


def convert_units(values: NDArray[np.float32], source: Units, target: Units) -> NDArray[np.float32]:
    """Convert physical units: the same ones, or linear power to dB.

    Power becomes dB only here, after resampling: an average of dB values is not that of the power.

    Raises:
        GridError: the conversion is unknown.
    """
    if source == target:
        return values
    if (source, target) == ("power", "dB"):
        return 10 * np.log10(np.maximum(values, np.float32(MIN_POWER)))
    raise GridError(f"no conversion from {source} to {target}; give the modality units {source!r}.")


def quantise(values: NDArray[np.float32], recipe: ModalityRecipe) -> NDArray[np.uint8]:
    """Convert physical values to stored bytes.

    ``1 + 254 * (value - low) / (high - low)``, rounded and clipped to 1..255. NaN becomes 0, the
    nodata value. The original code wraps the brightest radar pixels to 0; here they stay 255.

    Args:
        values: shape (bands, rows, columns), in the recipe's units.
        recipe: modality with the range (low, high) of each band.
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
