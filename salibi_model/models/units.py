"""Units of pixels, and their conversion to the stored values that a model takes: 1..255, 0 = nodata.

:func:`to_stored` is the inverse of a store's ``physical = offset + scale * stored``. Pure functions on
arrays; :mod:`salibi_model.models.stored_images` applies them to a model's images.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.compatibility import STORED, has_identity_scale
from salibi_model.models.config import ModelConfig

RAW_UNITS: Final = "raw"
"""Units of a converted model's modalities: whatever its authors' pixels were."""
DISPLAY: Final = "display"
"""Units of pixels for display: 0..255, where 0 is black."""
REFLECTANCE: Final = "reflectance"
"""Units of surface reflectance, about 0..1."""
DN: Final = "dn"
"""Units of Sentinel-2's numbers: reflectance divided by :data:`DN_SCALE`, 0 where nothing was observed.

Without the offset of 1000 that the products have since processing baseline 04.00."""
DN_SCALE: Final = 1e-4
"""Reflectance per Sentinel-2 number, the inverse of the products' ``QUANTIFICATION_VALUE``."""
DECIBEL: Final = "dB"
"""Units of radar backscatter after the logarithm."""
POWER: Final = "power"
"""Units of radar backscatter (gamma0, sigma0) before the logarithm."""

UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "stored": STORED,
        "uint8": DISPLAY,
        "display": DISPLAY,
        "reflectance": REFLECTANCE,
        "dn": DN,
        "db": DECIBEL,
        "power": POWER,
        "linear": POWER,
    }
)
"""Units by the names that a user may give, in upper or lower case."""

_OFFERED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        DISPLAY: ("stored", "uint8"),
        REFLECTANCE: ("stored", "reflectance", "dn"),
        DECIBEL: ("stored", "dB", "power"),
        RAW_UNITS: ("stored", "uint8"),
    }
)
"""Names of the units that can be converted, by the units of the modality."""

MAX_STORED: Final = 255
"""Highest stored value."""

_MAX_MEDIAN_DB: Final = 40.0
"""Largest plausible median, as a magnitude, of backscatter in dB; beyond it, values are not
calibrated."""
_MAX_MEDIAN_POWER: Final = 50.0
"""Largest plausible median of linear backscatter."""
_MAX_MEDIAN_REFLECTANCE: Final = 2.0
"""Largest plausible median of reflectance; beyond it, values are not scaled."""
_LOWEST: Final[Mapping[str, float]] = MappingProxyType(
    {DECIBEL: -100.0, REFLECTANCE: -100.0, DN: -7000.0}
)
"""Values below which a hundredth of the pixels is a mark of nodata: -9999 and -32768 are usual."""
_MIN_REFLECTANCE: Final = -0.5
"""Lowest plausible reflectance: atmospheric correction gives values slightly below 0."""


def highest_value(config: ModelConfig, modality: Modality) -> float:
    """Return the highest value of a pixel that a modality's encoder takes: 255, or 1 for CROMA's weights.

    CROMA's release was trained on values of 0..1 (Fuller et al. 2023), all others on 8-bit values.
    """
    is_croma = modality.units == RAW_UNITS and config.architecture == "croma"
    return 1.0 if is_croma else float(MAX_STORED)


def offered_units(modality: Modality) -> tuple[str, ...]:
    """Return the names of the units that can be converted to a modality's stored values."""
    return _OFFERED.get(modality.units, ("stored", modality.units))


def choose_units(modality: Modality, units: str | None, dtype: str) -> str:
    """Return the units of values.

    Args:
        modality: modality whose encoder takes the values.
        units: units that the user gave, a key of :data:`UNITS` in upper or lower case; ``None`` is
            enough for 8-bit values of a ``display`` modality.
        dtype: data type of the values.

    Returns:
        A value of :data:`UNITS`, or the modality's own units.

    Raises:
        UsageError: units are needed and not given, or cannot be converted.
    """
    offered = offered_units(modality)
    if units is None:
        if dtype == "uint8" and modality.units == DISPLAY:
            return DISPLAY
        raise UsageError(
            f"the values are {dtype}, and the model's {modality.name!r} was trained on "
            f"{modality.units}: say with --units what they are, one of {', '.join(offered)}."
        )
    by_name = {name.lower(): UNITS.get(name, name) for name in offered}
    canonical = UNITS.get(str(units).lower(), str(units).lower())
    for name, known in by_name.items():
        if canonical in (known, name):
            # 8-bit pixels are what such a model was trained on, and black is no nodata for it.
            return STORED if modality.units == RAW_UNITS else known
    raise UsageError(
        f"values in {units!r} cannot be brought to the {modality.units} of {modality.name!r}; "
        f"expected one of {', '.join(offered)}."
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
        units: units of the values, from :func:`choose_units`.
        valid: ``True`` where a value is observed; by default everywhere, and of Sentinel-2
            numbers where they are not 0.

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
    if values.dtype == np.uint8 and units == DISPLAY and has_identity_scale(modality):
        return np.where(observed, np.maximum(values, 1), modality.nodata).astype(np.uint8)
    physical = values.astype(np.float64)
    if units == POWER:
        observed = observed & (physical > 0)
        physical = 10 * np.log10(physical, where=observed, out=np.zeros_like(physical))
    if units == DN:
        observed = values != 0 if valid is None else observed
        physical = physical * DN_SCALE
    observed = observed & np.isfinite(physical)
    _check_display(physical[observed], modality)
    shape = (len(modality.bands), 1, 1)
    offset, scale = (np.reshape(part, shape) for part in (modality.offset, modality.scale))
    steps = np.rint((np.where(observed, physical, offset) - offset) / scale)
    stored = np.clip(steps, 1, MAX_STORED)
    return np.where(observed, stored, modality.nodata).astype(np.uint8)


def check_plausible(values: Float[np.ndarray, " values"], modality: Modality, units: str) -> None:
    """Refuse values that are implausible in the given units.

    Meant for many valid values from all over an image; a single small window may be unusual.

    Raises:
        UsageError: the values are implausible; the message says what units they may be in.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    # Percentiles, not extremes: a few broken pixels must not decide.
    low, median, high = (float(value) for value in np.percentile(finite, (1, 50, 99)))
    start = f"the values, from {low:.4g} to {high:.4g}, are hardly"
    _check_fill(low, median, units)
    if units == DECIBEL and low >= 0:
        raise UsageError(
            f"{start} in dB, which are mostly below 0. Power before the logarithm is "
            f"{_option(POWER)}; values as in a store are {_option(STORED)}."
        )
    if units == DECIBEL and abs(median) > _MAX_MEDIAN_DB:
        raise UsageError(f"{start} in dB; calibrate them (--scale, --offset).")
    if units == POWER and low < 0 and median < 0:
        raise UsageError(
            f"{start} power, which is above 0. After the logarithm it is {_option(DECIBEL)}."
        )
    if units == POWER and median > _MAX_MEDIAN_POWER:
        raise UsageError(f"{start} power, which is about 0.001 to 1; calibrate them (--scale).")
    if units == REFLECTANCE and abs(median) > _MAX_MEDIAN_REFLECTANCE:
        raise UsageError(
            f"{start} reflectance, which is about 0 to 1: Sentinel-2 numbers without an offset are "
            f"{_option(DN)}; others need scale and offset (Sentinel-2 L2A of today: --scale 0.0001 "
            "--offset -0.1)."
        )
    if units == REFLECTANCE and low < _MIN_REFLECTANCE:
        raise UsageError(f"{start} reflectance, which is about 0 to 1; undo what normalised them.")
    if units == DN and (high <= _MAX_MEDIAN_REFLECTANCE or low * DN_SCALE < _MIN_REFLECTANCE):
        raise UsageError(
            f"{start} Sentinel-2 numbers, which are 10,000 times the reflectance. The reflectance "
            f"itself, about 0 to 1, is {_option(REFLECTANCE)}."
        )
    is_fractional = bool((finite != np.rint(finite)).any())
    if units == DISPLAY and modality.scale[0] == 1 and 0 < high <= 1 and is_fractional:
        raise UsageError(f"{start} for display, which are 0..255: multiply by 255 (--scale 255).")


def _check_fill(low: float, median: float, units: str) -> None:
    """Refuse values of which a few mark nodata, which would be converted to the darkest pixel."""
    if units in _LOWEST and low < _LOWEST[units] <= median:
        raise UsageError(
            f"values such as {low:.6g} are hardly {units}; if they mark what was not observed, name "
            "them (--nodata), or make them NaN."
        )


def _option(units: str) -> str:
    """Return units as a user of the command, and of Python, gives them."""
    return f'--units {units} (units="{units}")'


def _as_stored(
    values: Shaped[np.ndarray, "..."], observed: Bool[np.ndarray, "..."], modality: Modality
) -> UInt8[np.ndarray, "..."]:
    if values.dtype != np.uint8:
        used = values[observed]
        are_whole = np.isfinite(used).all() and (used == np.rint(used)).all()
        if len(used) and not (are_whole and used.min() >= 0 and used.max() <= MAX_STORED):
            raise UsageError(
                f"values as stored are whole numbers 0..255; got {values.dtype} {_extent(used)}. "
                "Say what they are with --units."
            )
    return np.where(observed, values, modality.nodata).astype(np.uint8)


def _check_display(values: Shaped[np.ndarray, " values"], modality: Modality) -> None:
    if (
        modality.units == DISPLAY
        and len(values)
        and (values.min() < 0 or values.max() > MAX_STORED)
    ):
        raise UsageError(
            f"values for display are 0..255; got {_extent(values)}. Bring them there with --scale "
            "and --offset, as the images of the training were."
        )


def _extent(values: Shaped[np.ndarray, " values"]) -> str:
    if not np.isfinite(values).all():
        return "with some that are not finite"
    return f"from {values.min():g} to {values.max():g}"
