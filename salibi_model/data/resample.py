"""Images at another number of pixels, with places that were not observed kept apart. Pure functions.

The rule is that of the stores themselves (``docs/format.md``): a pixel that grows is the mean over
its area, as a coarser sensor would see it; pixels that shrink are interpolated between. SAR is
averaged in power, as decibels do not add.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from salibi_data.store.schema import Modality

LEAST_VALID = 0.5
"""Share of a result's weight that must have been observed for it to be valid."""

_ROUNDING = 1e-4
"""How far a sum of weights in float32 may stay below its true value."""

DECIBEL = "dB"


def resample(
    values: Float[Tensor, "batch bands rows cols"],
    valid: Bool[Tensor, "batch bands rows cols"],
    shape: tuple[int, int],
) -> tuple[
    Float[Tensor, "batch bands new_rows new_cols"], Bool[Tensor, "batch bands new_rows new_cols"]
]:
    """Bring images to ``shape``; first and last pixel keep the outer edges of the image.

    Along each axis a pixel of the result is the mean over what it covers where there become
    fewer, and linear between the two nearest centres where there become more (beyond the outermost
    centres: that pixel). Values that are not valid have no weight.

    Args:
        values: of any units in which a mean makes sense.
        valid: where there was an observation.
        shape: rows and columns wanted.

    Returns:
        Values, 0 where not valid, and whether at least half of their weight was valid.
    """
    if bool(valid.all()):
        return _along_both(values, shape), valid.new_ones((*valid.shape[:2], *shape))
    weights = _along_both(valid.to(values.dtype), shape)
    weighted = _along_both(values.masked_fill(~valid, 0.0), shape)
    observed = weights >= LEAST_VALID - _ROUNDING
    return torch.where(observed, weighted / weights.clamp(min=_ROUNDING), 0.0), observed


def resample_stored(
    images: UInt8[Tensor, "batch bands rows cols"], modality: Modality, shape: tuple[int, int]
) -> UInt8[Tensor, "batch bands new_rows new_cols"]:
    """Bring images in a store's units to ``shape``, as :func:`resample` does.

    Nodata stays apart from values: no value is mixed with it, and none is rounded to it.
    Modalities in decibels are averaged in linear power. Images of that shape already are given
    back as they are.
    """
    if tuple(images.shape[2:]) == shape:
        return images
    values, valid = resample(_linear(images, modality), images != modality.nodata, shape)
    stored = _stored(values, modality).round().clamp(0, 255)
    stored = torch.where(stored == modality.nodata, _beside(modality.nodata), stored)
    return torch.where(valid, stored, modality.nodata).to(torch.uint8)


def _linear(images: Tensor, modality: Modality) -> Tensor:
    """Stored values in units that may be averaged: their own, or power where they are decibels."""
    if modality.units != DECIBEL:
        return images.float()
    # In double precision: beside a bright pixel, what rounding adds to its weight outshines the dark.
    values = images.double()
    return torch.pow(10.0, (values * _per_band(modality.scale) + _per_band(modality.offset)) / 10.0)


def _stored(values: Tensor, modality: Modality) -> Tensor:
    if modality.units != DECIBEL:
        return values
    # Where nothing is valid the power is 0, which has no logarithm.
    decibel = 10.0 * values.clamp(min=torch.finfo(values.dtype).tiny).log10()
    return (decibel - _per_band(modality.offset)) / _per_band(modality.scale)


def _per_band(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers).reshape(-1, 1, 1)


def _beside(nodata: int) -> float:
    """The stored value next to nodata, for a valid one that would be rounded to it."""
    return nodata + 1.0 if nodata < 255 else nodata - 1.0  # noqa: PLR2004


def _along_both(values: Tensor, shape: tuple[int, int]) -> Tensor:
    rows, cols = values.shape[2:]
    if shape[0] < rows:
        values = _means(rows, shape[0]).to(values.dtype) @ values
    if shape[1] < cols:
        values = values @ _means(cols, shape[1]).T.to(values.dtype)
    if tuple(values.shape[2:]) == shape:
        return values
    return F.interpolate(values, shape, mode="bilinear", align_corners=False)


@lru_cache(maxsize=1024)
def _means(old: int, new: int) -> Float[Tensor, "new old"]:
    """Give the share that each of ``old`` pixels has in each of fewer ``new`` along one axis."""
    step = old / new
    starts = torch.arange(new, dtype=torch.float64)[:, None] * step
    pixels = torch.arange(old)
    covered = torch.minimum(starts + step, pixels + 1) - torch.maximum(starts, pixels)
    return (covered.clamp(min=0) / step).float()
