"""Observed numbers of a whole file, from its smallest overview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.sources.pixel_values.masks import masked, overview_shape
from salibi_data.sources.pixel_values.nodata import is_missing, is_no_number
from salibi_data.sources.pixel_values.scaling import is_eight_bit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Product
    from salibi_data.sources.pixel_values.scaling import Scaling


def observed_numbers(
    dataset: Any, index: int, *, nodata: Iterable[float], named: Collection[int] = (), stated: bool
) -> NDArray[np.float32] | None:
    """Return digital numbers of a whole file's observed pixels, from its smallest overview.

    Averages of 32 x 32 pixels are less extreme than the pixels.

    Args:
        dataset: open rasterio dataset.
        index: number of the band, from 1.
        nodata: missing values of the band.
        named: numbers of all bands that the product names.
        stated: whether the catalog's TOML states the missing values.

    Returns:
        Shape (num,); None where the file is large and has no small overview.
    """
    shape = overview_shape(dataset, index)
    if shape is None:
        return None
    raw = dataset.read(index, out_shape=shape)
    missing = np.zeros(shape, bool) | is_no_number(raw) | is_missing(raw, nodata)
    hidden = masked(dataset, [index], named=named, stated=stated, out_shape=shape)
    if hidden is not None:
        missing |= hidden
    observed = ~missing
    # Some writers average missing and valid pixels in overviews, so drop the neighbours of missing.
    padded = np.pad(observed, 1, constant_values=True)
    inner = observed & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    with np.errstate(over="ignore"):
        numbers: NDArray[np.float32] = raw[inner].astype(np.float32)
    return numbers


def whole_bands(
    dataset: Any,
    indexes: Sequence[int],
    product: Product,
    scaling: Scaling,
    *,
    nodata: Sequence[tuple[float, ...]],
    named: Collection[int],
) -> list[NDArray[np.float32] | None]:
    """Return observed numbers of whole bands where a window may mislead; None for all others.

    A dark window of a 16-bit image looks like a rendering in 8 bits.

    Args:
        dataset: open rasterio dataset.
        indexes: numbers of the bands, from 1.
        product: product of the file.
        scaling: scaling of the bands; scaled values are judged by their windows alone.
        nodata: missing values of each band.
        named: numbers of all bands that the product names.
    """
    is_unclear = product.units == "display" and not is_eight_bit(dataset, indexes)
    # The mask of a footprint is made for the file's own grid, not for an overview's.
    if not is_unclear or not scaling.changes_nothing or product.nodata == "footprint":
        return [None] * len(indexes)
    stated = product.nodata is not None
    return [
        observed_numbers(dataset, index, nodata=values, named=named, stated=stated)
        for index, values in zip(indexes, nodata, strict=True)
    ]
