"""Converts physical values to the stored values that a model takes: 1..255, and 0 for nodata.

The inverse of a store's ``physical = offset + scale * stored``. Pure functions on arrays.
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
_MAX_STORED: Final = 255

_MAX_MEDIAN_DB: Final = 40.0
"""Largest plausible median, as a magnitude, of backscatter in dB; beyond it, values are not
calibrated."""
_MAX_MEDIAN_POWER: Final = 50.0
"""Largest plausible median of linear backscatter."""
_MAX_MEDIAN_REFLECTANCE: Final = 2.0
"""Largest plausible median of reflectance; beyond it, values are not scaled."""


def choose_units(modality: Modality, units: str | None, dtype: str) -> str:
    """Return the units of a file's values.

    Args:
        modality: modality whose encoder takes the values.
        units: units that the user gave; ``None`` is enough for 8-bit values of a ``display``
            modality.
        dtype: data type of the file.

    Raises:
        UsageError: units are needed and not given, or cannot be converted.
    """
    possible = _possible_units(modality)
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
    """Convert values to a modality's stored values: rounded, and clipped to 1..255.

    Args:
        values: the modality's bands, in its order.
        modality: modality that gives scale, offset and nodata.
        units: :data:`STORED`, the modality's own, or for radar :data:`LINEAR`.
        valid: ``True`` where a value is observed; by default everywhere.

    Returns:
        1..255 where valid; the modality's nodata elsewhere, and where a value is not finite or a
        power not above 0. Values in units ``stored`` are not changed.

    Raises:
        UsageError: values in units ``stored`` are not whole numbers 0..255, or values in units
            ``display`` lie outside of 0..255.
    """
    observed = np.ones(values.shape, np.bool_) if valid is None else valid
    if units == STORED:
        return _as_stored(values, observed, modality)
    # 8-bit pixels as they are, without a round trip through floats; 0 is nodata, so black is 1.
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
    stored = np.clip(steps, 1, _MAX_STORED)
    return np.where(observed, stored, modality.nodata).astype(np.uint8)


def check_plausible(values: Float32[np.ndarray, " values"], modality: Modality, units: str) -> None:
    """Refuse values that are implausible in the given units.

    Meant for many valid values from all over a file; a single small window may be unusual.

    Raises:
        UsageError: the values are implausible; the message says what units they may be in.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    # Percentiles, not extremes: a few broken pixels must not decide.
    low, median, high = (float(value) for value in np.percentile(finite, (1, 50, 99)))
    start = f"the values, from {low:.4g} to {high:.4g}, are hardly"
    if units == _DB and low >= 0:
        raise UsageError(
            f"{start} in dB, which are mostly below 0. Power before the logarithm is --units "
            "linear; values as in a store are --units stored."
        )
    if units == _DB and abs(median) > _MAX_MEDIAN_DB:
        raise UsageError(f"{start} in dB; calibrate them, or give their --scale and --offset.")
    if units == LINEAR and low < 0 and median < 0:
        raise UsageError(f"{start} power, which is above 0. After the logarithm it is --units dB.")
    if units == LINEAR and median > _MAX_MEDIAN_POWER:
        raise UsageError(
            f"{start} power, which is about 0.001 to 1; calibrate them, or give their --scale."
        )
    if units == "reflectance" and abs(median) > _MAX_MEDIAN_REFLECTANCE:
        raise UsageError(
            f"{start} reflectance, which is about 0 to 1: give the --scale and --offset of the "
            "file's numbers (Sentinel-2 L2A of today: --scale 0.0001 --offset -0.1)."
        )
    if units == _DISPLAY and modality.scale[0] == 1 and 0 < high <= 1:
        raise UsageError(f"{start} for display, which are 0..255: give --scale 255.")


def _possible_units(modality: Modality) -> tuple[str, ...]:
    own = () if modality.units == "raw" else (modality.units,)
    return (STORED, *own, LINEAR) if modality.units == _DB else (STORED, *own)


def _as_stored(
    values: Shaped[np.ndarray, "..."], observed: Bool[np.ndarray, "..."], modality: Modality
) -> UInt8[np.ndarray, "..."]:
    if values.dtype != np.uint8:
        used = values[observed]
        are_whole = np.isfinite(used).all() and (used == np.rint(used)).all()
        if len(used) and not (are_whole and used.min() >= 0 and used.max() <= _MAX_STORED):
            raise UsageError(
                f"values as stored are whole numbers 0..255; got {values.dtype} {_extent(used)}. "
                "Say what they are with --units."
            )
    return np.where(observed, values, modality.nodata).astype(np.uint8)


def _check_display(values: Shaped[np.ndarray, " values"], modality: Modality) -> None:
    if (
        modality.units == _DISPLAY
        and len(values)
        and (values.min() < 0 or values.max() > _MAX_STORED)
    ):
        raise UsageError(
            f"values for display are 0..255; got {_extent(values)}. Bring them there with --scale "
            "and --offset, as the images of the training were."
        )


def _extent(values: Shaped[np.ndarray, " values"]) -> str:
    if not np.isfinite(values).all():
        return "with some that are not finite"
    return f"from {values.min():g} to {values.max():g}"
