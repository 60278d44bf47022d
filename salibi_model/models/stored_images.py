"""Converts the images that a user gives a model, and refuses those in other units than it takes.

A model encodes any tensor of the right shape, and its vectors of images in 0..1, z-scores or dB mean
nothing. :func:`check_stored` recognises such images by a sample of their pixels.
"""

import math
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.compatibility import STORED
from salibi_model.models.units import (
    DISPLAY,
    MAX_STORED,
    RAW_UNITS,
    UNITS,
    check_plausible,
    choose_units,
    offered_units,
    to_stored,
)

_NUM_SAMPLED: Final = 4096
"""Number of pixels that images are judged by."""
_MIN_SAMPLED_EDGE, _MAX_SAMPLED_EDGE = 4, 64
"""Rows and columns that are sampled of each band of each image."""
_MIN_OBSERVED_SHARE: Final = 0.02
"""Share of pixels other than 0 below which an image may be the resampled rim of an empty one."""
_MAX_OUTSIDE_SHARE: Final = 0.01
"""Share of pixels that may lie outside of the range: bicubic resampling overshoots at edges."""
_BELOW_VALID: Final = 0.9
"""Lowest value that is taken for a stored one: valid pixels are 1 or more, up to rounding."""
_MAX_BELOW_SHARE: Final = 0.25
"""Share of pixels between 0 and that from which on an image is in other units."""
_MAX_FRACTION_SHARE: Final = 0.1
"""Share of fractions above which an image that nowhere exceeds 1 is one of 0..1."""


def as_tensor(images: object, device: torch.device) -> Tensor | None:
    """Return a tensor as it is, and numbers in a NumPy array on the device; ``None`` of anything else."""
    if isinstance(images, np.ndarray) and images.dtype.kind in "biufc":
        # Copied: a tensor cannot share a read-only array, or one of another byte order.
        native = np.ascontiguousarray(images, images.dtype.newbyteorder("="))
        return torch.tensor(native, device=device)
    return images if isinstance(images, Tensor) else None


def images_to_stored(
    images: Shaped[Tensor, "batch bands rows cols"],
    modality: Modality,
    units: str,
    *,
    highest: float = float(MAX_STORED),
    check: bool = True,
) -> Shaped[Tensor, "batch bands rows cols"]:
    """Convert images in a user's units to stored values; NaN becomes nodata.

    Computed in double precision on the CPU, so that the same pixels give the same stored values as
    from a raster, whatever the device.

    Args:
        images: the modality's bands, in its order.
        modality: modality whose encoder takes the images.
        units: a key of :data:`~salibi_model.models.units.UNITS`, in upper or lower case.
        highest: highest value that a pixel may have, from :func:`~salibi_model.models.units.highest_value`.
        check: whether to refuse values that are implausible in these units.

    Returns:
        Stored values, uint8. Images in units ``stored`` keep their type, and values between
        whole numbers; so do those of a model that takes its authors' pixels.

    Raises:
        UsageError: the units cannot be converted, or the values do not fit them.
    """
    known = choose_units(modality, units, str(images.dtype))
    if known == STORED:
        if images.is_floating_point():
            images = images.masked_fill(images.isnan(), modality.nodata)
        is_display = UNITS.get(units.lower()) == DISPLAY
        return images * (highest / MAX_STORED) if is_display and highest != MAX_STORED else images
    host = images.detach().cpu()
    values = (host.float() if _is_half(host.dtype) else host).numpy()
    try:
        if check:
            check_plausible(_sampled(images).ravel(), modality, known)
        elif known == DISPLAY:
            values = values.clip(0, MAX_STORED)
        stored = to_stored(values, modality, known)
    except UsageError as error:
        raise UsageError(f"images of {modality.name!r}: {error}") from None
    return torch.from_numpy(stored).to(images.device)


def check_finite(images: Shaped[Tensor, "batch bands rows cols"], modality: Modality) -> None:
    """Refuse images with values that are not finite.

    Raises:
        UsageError: a value is NaN or infinite.
    """
    if images.is_floating_point() and not bool(images.isfinite().all()):
        raise UsageError(
            f"the images have values that are not finite; nodata is {modality.nodata} here, and NaN "
            'where their units are named (units="stored").'
        )


def check_stored(
    images: Shaped[Tensor, "batch bands rows cols"], modality: Modality, highest: float
) -> None:
    """Refuse images whose values cannot be stored ones, by a sample of their pixels.

    Integers must lie in the range; 8-bit ones do. Of floating values, a hundredth may lie outside,
    as bicubic resampling overshoots, and values between whole numbers are right; but valid pixels
    are 1 or more, so an image with many values below that is one of 0..1, reflectance, power, or
    normalised. An image without a pixel other than nodata is right.

    Args:
        images: images with finite values.
        modality: modality whose encoder takes the images.
        highest: highest value that a pixel may have, from :func:`~salibi_model.models.units.highest_value`.

    Raises:
        UsageError: the values of an image cannot be stored ones.
    """
    if images.dtype == torch.uint8 and highest == MAX_STORED:
        return
    values = _sampled(images)
    is_wrong = find_foreign(values, highest, is_float=images.is_floating_point())
    if is_wrong.any():
        seen = values[is_wrong]
        dtype = str(images.dtype).removeprefix("torch.")
        raise UsageError(_refusal(modality, highest, dtype, float(seen.min()), float(seen.max())))


def find_foreign(
    values: Float[np.ndarray, "batch values"], highest: float, *, is_float: bool
) -> Bool[np.ndarray, " batch"]:
    """Find the images whose values cannot be stored ones; see :func:`check_stored`.

    Args:
        values: values of each image, or some of them; 0 where nothing was observed.
        highest: highest value that a pixel may have.
        is_float: whether values may lie between whole numbers.
    """
    if values.min() >= 0 and values.max() <= highest:
        # Nearly all images end here.
        is_valid = not is_float or highest != MAX_STORED
        if is_valid or (
            bool(((values == 0) | (values >= _BELOW_VALID)).all())
            and bool((values.max(axis=1) > 1).all())
        ):
            return np.zeros(len(values), np.bool_)
    is_foreign = _is_outside(values, highest, is_float=is_float)
    return is_foreign | _is_within_one(values) if is_float and highest == MAX_STORED else is_foreign


def _sampled(
    images: Shaped[Tensor, "batch bands rows cols"],
) -> Float[np.ndarray, "batch values"]:
    """Return pixels of each image on a regular grid; one transfer of some 16 KiB from a GPU."""
    batch, bands, *shape = images.shape
    edge = math.isqrt(_NUM_SAMPLED // (batch * bands))
    edge = min(max(edge, _MIN_SAMPLED_EDGE), _MAX_SAMPLED_EDGE)
    row_step, col_step = (-(-size // edge) for size in shape)
    # From half a step on, so that a border of nodata or of padding has no larger part.
    sample = images.detach()[:, :, row_step // 2 :: row_step, col_step // 2 :: col_step]
    # NumPy has no bfloat16.
    host = (sample.float() if _is_half(sample.dtype) else sample).cpu()
    return host.numpy().reshape(batch, -1).astype(np.float32)


def _is_half(dtype: torch.dtype) -> bool:
    return dtype in (torch.bfloat16, torch.float16)


def _is_outside(
    values: Float[np.ndarray, "batch values"], highest: float, *, is_float: bool
) -> Bool[np.ndarray, " batch"]:
    """Whether more of an image lies outside of 0..highest than resampling explains."""
    if not is_float:
        outside: Bool[np.ndarray, " batch"] = np.any((values < 0) | (values > highest), axis=1)
        return outside
    # Half a step of 8-bit values is what rounding brings back.
    margin = highest / MAX_STORED / 2
    beyond = (values < -margin) | (values > highest + margin)
    far = (values < -highest / 2) | (values > 1.5 * highest)
    observed = np.maximum((values != 0).sum(axis=1), 1)
    is_wrong: Bool[np.ndarray, " batch"] = far.any(axis=1) | (
        beyond.sum(axis=1) > _MAX_OUTSIDE_SHARE * observed
    )
    return is_wrong


def _is_within_one(values: Float[np.ndarray, "batch values"]) -> Bool[np.ndarray, " batch"]:
    """Whether an image lies mostly between -1 and 1, where stored values are only next to nodata."""
    size = np.abs(values)
    observed = (size > 0).sum(axis=1)
    shares = np.maximum(observed, 1)
    fractions = ((size > 0) & (np.abs(size - np.rint(size)) > 1e-3)).sum(axis=1) / shares  # noqa: PLR2004
    nowhere_more = (size.max(axis=1) <= 1) & (fractions > _MAX_FRACTION_SHARE)
    # Bright pixels exceed a reflectance of 1, and strong scatterers a power of 1.
    below = ((size > 0) & (size < _BELOW_VALID)).sum(axis=1) / shares
    is_wrong: Bool[np.ndarray, " batch"] = (observed >= _MIN_OBSERVED_SHARE * values.shape[1]) & (
        nowhere_more | (below > _MAX_BELOW_SHARE)
    )
    return is_wrong


def _refusal(modality: Modality, highest: float, dtype: str, low: float, high: float) -> str:
    """Write what was expected, what came, and what to do."""
    expected = "values as stored: 1..255, and 0 for nodata"
    if modality.units == RAW_UNITS:
        expected = f"those of the model's authors, 0..{highest:g}"
    named = [f'"{name}"' for name in offered_units(modality) if UNITS.get(name, name) != STORED]
    if low < -MAX_STORED:
        advice = "set what was not observed to 0, or to NaN with units= the values' own"
    elif modality.units not in (DISPLAY, RAW_UNITS):
        advice = f"have them converted by units={' or '.join(named)}, and undo other scaling"
    elif highest == 1:
        advice = 'have 8-bit pixels converted by units="uint8", or undo other scaling'
    elif low < 0:
        advice = "undo their normalisation, which the model does itself"
    elif high <= 1:
        advice = (
            "multiply 8-bit pixels of 0..1 by 255, and render reflectance as the training's images"
        )
    else:
        advice = "bring them to 0..255 as the images of the training were"
    return (
        f"images of {modality.name!r} are {dtype} from {low:.6g} to {high:.6g}; expected {expected} "
        f"(units {modality.units}): {advice}. check_values=False takes them as they are."
    )
