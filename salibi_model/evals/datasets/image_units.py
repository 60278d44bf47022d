"""Units of labelled images that do not state them: what a user names is converted, the rest is checked.

An evaluation standardises images by their own statistics, so units that differ by a factor and an
offset give the same features. What it cannot undo is a logarithm, a normalisation that differs by
image, and nodata that counts as a value; so a user names the units of what is neither of 8 bits nor
plausible in those of the training.
"""

from typing import Final

import numpy as np
from jaxtyping import Float32

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.evals.datasets.labelled import Indices, LabelledImages
from salibi_model.models.compatibility import STORED
from salibi_model.models.stored_images import find_foreign
from salibi_model.models.units import (
    DECIBEL,
    DISPLAY,
    DN,
    MAX_STORED,
    POWER,
    RAW_UNITS,
    REFLECTANCE,
    UNITS,
    check_plausible,
)

_CHECKED_IMAGES: Final = 8
"""Number of training images, evenly spread, whose values are checked."""
_CHECKED_EDGE: Final = 64
"""Largest number of rows and of columns of an image that are checked."""
_RADAR: Final = ("stored", "uint8", "db", "power")
_OPTICAL: Final = ("stored", "uint8", "reflectance", "dn")
_NAMES: Final = tuple(dict.fromkeys((*_RADAR, *_OPTICAL)))


def named_units(units: str) -> str:
    """Return the units that a user names.

    Raises:
        UsageError: there are no such units.
    """
    if units.lower() not in UNITS:
        raise UsageError(f"there are no units {units!r}; take one of {', '.join(_NAMES)}.")
    return UNITS[units.lower()]


def convert_named(
    images: Float32[np.ndarray, "images bands rows cols"], units: str | None
) -> Float32[np.ndarray, "images bands rows cols"]:
    """Convert power to dB, and make the nodata value of the units NaN."""
    if units == POWER:
        observed = images > 0
        decibel: Float32[np.ndarray, "images bands rows cols"] = np.full_like(images, np.nan)
        np.log10(images, where=observed, out=decibel)
        return 10 * decibel
    if units in (STORED, DN):
        return np.where(images == 0, np.float32(np.nan), images)
    return images


def check_units(data: LabelledImages, modality: Modality, bands: tuple[str, ...]) -> None:
    """Refuse images whose units are not known, or are not those that were named.

    Args:
        data: labelled images.
        modality: modality whose encoder is to take them.
        bands: the data's names of the modality's bands, in its order.

    Raises:
        UsageError: values are neither of 8 bits nor plausible in the modality's units, and none
            are named; or they do not fit those that are.
        StoreError: an image cannot be read.
    """
    if data.states_units:
        return
    values = data.unconverted(_spread(data), bands)
    steps = [-(-edge // _CHECKED_EDGE) for edge in values.shape[-2:]]
    values = values[..., :: steps[0], :: steps[1]]
    try:
        _check_values(values, modality, data.units)
    except UsageError as error:
        raise UsageError(f"{data.name}: {error}") from None


def _check_values(
    values: Float32[np.ndarray, "images bands rows cols"], modality: Modality, units: str | None
) -> None:
    finite = values[np.isfinite(values)]
    if units is None and _are_of_8_bits(values):
        return
    if units is None and modality.units in (REFLECTANCE, DECIBEL):
        try:
            check_plausible(finite, modality, modality.units)
        except UsageError:
            pass
        else:
            return
    names: tuple[str, ...] = _RADAR if modality.units == DECIBEL else _OPTICAL
    if modality.units == RAW_UNITS:
        names = _NAMES
    extent = f"values from {finite.min():.6g} to {finite.max():.6g}" if len(finite) else "no values"
    if units is None:
        is_raw = modality.units == RAW_UNITS
        trained = "0..255" if is_raw else f"{modality.units}, stored as 0..255"
        raise UsageError(
            f"the images have {extent}, and {modality.name!r} was trained on {trained}: say with "
            f"--units (units=) what they are, one of {', '.join(names)}. They are then standardised "
            "by their own statistics."
        )
    if units not in {UNITS[name] for name in names}:
        raise UsageError(
            f"images in {units} do not suit {modality.name!r}, which was trained on "
            f"{modality.units}; expected one of {', '.join(names)}."
        )
    check_plausible(finite, modality, units)
    if units in (STORED, DISPLAY) and not _are_of_8_bits(values):
        raise UsageError(
            f"the images have {extent}; in units {units} they lie within 0..255. Say with --units "
            f"(units=) what they are, one of {', '.join(names)}."
        )


def _are_of_8_bits(values: Float32[np.ndarray, "images bands rows cols"]) -> bool:
    flat = np.nan_to_num(values.reshape(len(values), -1))
    return not find_foreign(flat, float(MAX_STORED), is_float=True).any()


def _spread(data: LabelledImages) -> Indices:
    train = data.split_indices("train")
    positions = np.linspace(0, len(train) - 1, min(len(train), _CHECKED_IMAGES)).round()
    chosen: Indices = train[positions.astype(np.int64)]
    return chosen
