"""Resizes images whose pixels may be unobserved. Pure functions.

The rule is that of the stores themselves (``docs/format.md``): larger pixels are means over their
area, as a coarser sensor would see it; smaller pixels are interpolated. SAR is averaged in power,
as decibels do not add.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from salibi_data.store.schema import Modality

MIN_VALID_WEIGHT = 0.5
"""Share of a result's weight that must be valid for the result to be valid."""

_ROUNDING = 1e-4
"""Largest error of a sum of weights in float32."""

DECIBEL = "dB"


def resample(
    values: Float[Tensor, "batch bands rows cols"],
    valid: Bool[Tensor, "batch bands rows cols"],
    shape: tuple[int, int],
) -> tuple[
    Float[Tensor, "batch bands new_rows new_cols"], Bool[Tensor, "batch bands new_rows new_cols"]
]:
    """Resize images to ``shape``; the outer edges of the image stay where they are.

    Along each axis, a pixel of the result is the mean over the pixels it covers if there are fewer
    afterwards, and linear between the two nearest centres if there are more (beyond the outermost
    centres: constant). Values that are not valid have no weight.

    Args:
        values: images in any units in which a mean makes sense.
        valid: ``True`` where there is an observation.
        shape: (rows, columns) of the result.

    Returns:
        Values, 0 where not valid; and ``True`` where at least half of their weight was valid.
    """
    if bool(valid.all()):
        return _along_both(values, shape), valid.new_ones((*valid.shape[:2], *shape))
    weights = _along_both(valid.to(values.dtype), shape)
    weighted = _along_both(values.masked_fill(~valid, 0.0), shape)
    observed = weights >= MIN_VALID_WEIGHT - _ROUNDING
    return torch.where(observed, weighted / weights.clamp(min=_ROUNDING), 0.0), observed


def resample_stored(
    images: UInt8[Tensor, "batch bands rows cols"], modality: Modality, shape: tuple[int, int]
) -> UInt8[Tensor, "batch bands new_rows new_cols"]:
    """Resize images in stored values to ``shape``, as :func:`resample` does.

    Nodata is neither mixed into values nor the result of rounding one. Modalities in decibels are
    averaged in linear power. Images that have the shape already are returned unchanged.
    """
    if tuple(images.shape[2:]) == shape:
        return images
    values, valid = resample(_linear(images, modality), images != modality.nodata, shape)
    stored = _stored(values, modality).round().clamp(0, 255)
    stored = torch.where(stored == modality.nodata, _next_to(modality.nodata), stored)
    return torch.where(valid, stored, modality.nodata).to(torch.uint8)


def _linear(images: Tensor, modality: Modality) -> Tensor:
    """Convert stored values to units that may be averaged: their own, or power instead of decibels."""
    if modality.units != DECIBEL:
        return images.float()
    # Double precision: a bright pixel times the rounding error of its weight in float32 would be
    # more than all of a dark neighbour.
    values = images.double()
    return torch.pow(10.0, (values * _per_band(modality.scale) + _per_band(modality.offset)) / 10.0)


def _stored(values: Tensor, modality: Modality) -> Tensor:
    """Convert back to the scale of stored values, not yet rounded."""
    if modality.units != DECIBEL:
        return values
    # Where nothing is valid the power is 0, which has no logarithm.
    decibel = 10.0 * values.clamp(min=torch.finfo(values.dtype).tiny).log10()
    return (decibel - _per_band(modality.offset)) / _per_band(modality.scale)


def _per_band(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers).reshape(-1, 1, 1)


def _next_to(nodata: int) -> float:
    """Return the stored value next to nodata, for a valid value that would be rounded to nodata."""
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
    """Return the share of each of ``old`` pixels in each of fewer ``new`` ones, along one axis."""
    step = old / new
    starts = torch.arange(new, dtype=torch.float64)[:, None] * step
    pixels = torch.arange(old)
    covered = torch.minimum(starts + step, pixels + 1) - torch.maximum(starts, pixels)
    return (covered.clamp(min=0) / step).float()
