"""Observed numbers of a whole file, from its smallest overview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.sources.pixel_values.masks import masked, overview_shape
from salibi_data.sources.pixel_values.nodata import is_missing, is_no_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray


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
