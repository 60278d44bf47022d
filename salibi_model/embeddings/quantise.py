"""From what a file holds to what a model takes: stored values, 1..255, and 0 for nodata.

The reverse of a store's ``physical = offset + scale * stored``. Pure functions on arrays.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.compatibility import STORED, has_identity_scale

LINEAR: Final = "linear"
"""Units of radar power (gamma0, sigma0) before the logarithm."""

_DISPLAY: Final = "display"
_DB: Final = "dB"
_HIGHEST: Final = 255

_MOST_DB: Final = 40.0
_MOST_POWER: Final = 50.0
_MOST_REFLECTANCE: Final = 2.0
"""Medians beyond which values are no backscatter or reflectance, but something not yet scaled."""


def choose_units(modality: Modality, units: str | None, dtype: str) -> str:
    """Settle in which units a file's values are.

    Args:
        modality: whose encoder is to see them.
        units: as the user has them; ``None`` is enough for 8-bit values of a ``display`` modality.
        dtype: of the file.

    Raises:
        UsageError: they are needed and not given, or are none that can be converted.
    """
    possible = _possible(modality)
    if units is None:
        if dtype == "uint8" and modality.units == _DISPLAY:
            return _DISPLAY
        raise UsageError(
            f"the values are {dtype}, and the model's {modality.name!r} was trained on "
            f"{modality.units}: say with --units what they are, one of {', '.join(possible)}."
        )
    for known in possible:
        if units.lower() == known.lower():
            return known
    raise UsageError(
        f"values in {units!r} cannot be brought to the {modality.units} of {modality.name!r}; "
        f"expected one of {', '.join(possible)}."
    )


def to_stored(
    values: Shaped[np.ndarray, "*batch bands rows cols"],
    modality: Modality,
    units: str,
    *,
    valid: Bool[np.ndarray, "*batch bands rows cols"] | None = None,
) -> UInt8[np.ndarray, "*batch bands rows cols"]:
    """Convert values to a modality's stored form: rounded, and valid ones kept off nodata.

    Args:
        values: the modality's bands, in its order.
        modality: whose scale, offset and nodata to use.
        units: :data:`STORED`, the modality's own, or for radar :data:`LINEAR`.
        valid: what was observed; by default everything finite.

    Returns:
        1..255 where valid, the modality's nodata elsewhere: also where a value is not finite, or a
        power not above 0. Values as stored come back as they are.

    Raises:
        UsageError: values ``stored`` are no whole numbers 0..255, or those for ``display`` lie
            outside of 0..255.
    """
    observed = np.ones(values.shape, np.bool_) if valid is None else valid
    if units == STORED:
        return _as_stored(values, observed, modality)
    if values.dtype == np.uint8 and has_identity_scale(modality):
        return np.where(observed, np.maximum(values, 1), modality.nodata).astype(np.uint8)
    physical = values.astype(np.float64)
    if units == LINEAR:
        observed = observed & (physical > 0)
        physical = 10 * np.log10(physical, where=observed, out=np.zeros_like(physical))
    observed = observed & np.isfinite(physical)
    _check_display(physical[observed], modality)
    shape = (len(modality.bands), 1, 1)
    offset, scale = (np.reshape(part, shape) for part in (modality.offset, modality.scale))
    steps = np.rint((np.where(observed, physical, offset) - offset) / scale)
    stored = np.clip(steps, 1, _HIGHEST)
    return np.where(observed, stored, modality.nodata).astype(np.uint8)


def check_plausible(values: Float32[np.ndarray, " values"], modality: Modality, units: str) -> None:
    """Refuse values that are hardly in the units they are said to be in.

    Meant for many valid values from all over a file; a single small window may be odd.

    Raises:
        UsageError: they are not; says what they look like.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    low, median, high = (float(value) for value in np.percentile(finite, (1, 50, 99)))
    found = f"the values, from {low:.4g} to {high:.4g}, are hardly"
    if units == _DB and low >= 0:
        raise UsageError(
            f"{found} in dB, which are mostly below 0. Power before the logarithm is --units "
            "linear; values as in a store are --units stored."
        )
    if units == _DB and abs(median) > _MOST_DB:
        raise UsageError(f"{found} in dB; calibrate them, or give their --scale and --offset.")
    if units == LINEAR and low < 0 and median < 0:
        raise UsageError(f"{found} power, which is above 0. After the logarithm it is --units dB.")
    if units == LINEAR and median > _MOST_POWER:
        raise UsageError(
            f"{found} power, which is about 0.001 to 1; calibrate them, or give their --scale."
        )
    if units == "reflectance" and abs(median) > _MOST_REFLECTANCE:
        raise UsageError(
            f"{found} reflectance, which is about 0 to 1: give the --scale and --offset of the "
            "file's numbers (Sentinel-2 L2A of today: --scale 0.0001 --offset -0.1)."
        )
    if units == _DISPLAY and modality.scale[0] == 1 and 0 < high <= 1:
        raise UsageError(f"{found} for display, which are 0..255: give --scale 255.")


def _possible(modality: Modality) -> tuple[str, ...]:
    own = () if modality.units == "raw" else (modality.units,)
    return (STORED, *own, LINEAR) if modality.units == _DB else (STORED, *own)


def _as_stored(
    values: Shaped[np.ndarray, "..."], observed: Bool[np.ndarray, "..."], modality: Modality
) -> UInt8[np.ndarray, "..."]:
    if values.dtype != np.uint8:
        seen = values[observed]
        whole = np.isfinite(seen).all() and (seen == np.rint(seen)).all()
        if len(seen) and not (whole and seen.min() >= 0 and seen.max() <= _HIGHEST):
            raise UsageError(
                f"values as stored are whole numbers 0..255; got {values.dtype} {_extent(seen)}. "
                "Say what they are with --units."
            )
    return np.where(observed, values, modality.nodata).astype(np.uint8)


def _check_display(seen: Shaped[np.ndarray, " values"], modality: Modality) -> None:
    if modality.units == _DISPLAY and len(seen) and (seen.min() < 0 or seen.max() > _HIGHEST):
        raise UsageError(
            f"values for display are 0..255; got {_extent(seen)}. Bring them there with --scale "
            "and --offset, as the images of the training were."
        )


def _extent(seen: Shaped[np.ndarray, " values"]) -> str:
    if not np.isfinite(seen).all():
        return "with some that are not finite"
    return f"from {seen.min():g} to {seen.max():g}"
