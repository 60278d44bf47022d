"""Check that images fit a model: its bands, in its order and units, at a fitting GSD.

A model encodes any tensor of the right shape; these checks are for callers who can describe their
images. GSD: ground sample distance, in metres per pixel.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.models.config import ModelConfig

STORED: Final = "stored"
"""Units of values as a store keeps them: whole numbers 0..255, 0 = nodata."""

GSD_FACTOR: Final = 8.0
"""Factor by which images may be finer or coarser than those of the training, unless any GSD is allowed."""

_CHECKED_FIELDS: Final = ("bands", "units", "gsd_m", "any_gsd")


def check_input(
    config: ModelConfig,
    modality: str,
    *,
    bands: Sequence[str] | None = None,
    units: str | None = None,
    gsd_m: float | None = None,
    any_gsd: bool = False,
) -> None:
    """Refuse images that differ from those of a model's training; ``None`` is not checked.

    Args:
        config: configuration of the model, ``model.config``.
        modality: modality whose encoder will see the images.
        bands: names of the bands, in the order of the array.
        units: units of the array's values: :data:`STORED`, or the modality's own where these are
            equal (``display``). Values in dB or reflectance are converted by
            :meth:`~salibi_model.models.base.PretrainModel.encode` where it is given their units.
        gsd_m: metres on the ground per pixel.
        any_gsd: whether to accept images that are more than :data:`GSD_FACTOR` times finer or
            coarser than those of the training. The model scales distances, but has not seen
            objects of such sizes in pixels.

    Raises:
        UsageError: no such modality, or bands, units or ground sample distance that differ.
    """
    expected = config[modality]
    if bands is not None:
        _check_bands(expected, tuple(bands))
    if units is not None:
        _check_units(expected, units)
    if gsd_m is not None:
        check_gsd(config, modality, gsd_m, any_gsd=any_gsd)


def check_expected(config: ModelConfig, expect: Mapping[str, Mapping[str, Any]]) -> None:
    """Apply :func:`check_input` to several modalities.

    Args:
        config: configuration of the model.
        expect: description of the caller's images by modality: ``{"lores": {"bands": ("red",
            "green", "blue"), "units": "display", "gsd_m": 10.0}}``.

    Raises:
        UsageError: as :func:`check_input`; or a description has other fields.
    """
    if not isinstance(expect, Mapping) or not all(
        isinstance(fields, Mapping) for fields in expect.values()
    ):
        raise UsageError(
            f"expect is {expect!r}; give a mapping by modality, as "
            '{"lores": {"bands": ("red", "green", "blue")}}.'
        )
    for modality, fields in expect.items():
        unknown = [name for name in fields if name not in _CHECKED_FIELDS]
        if unknown:
            raise UsageError(
                f"images of {modality!r} are described by {', '.join(_CHECKED_FIELDS)}; got "
                f"{', '.join(map(repr, unknown))}."
            )
        check_input(config, modality, **fields)


def check_gsd(config: ModelConfig, modality: str, gsd_m: float, *, any_gsd: bool = False) -> None:
    """Refuse a ground sample distance that is not a number above 0, or far from the training's.

    Args:
        config: configuration of the model.
        modality: modality of the images.
        gsd_m: metres on the ground per pixel.
        any_gsd: whether to accept any number above 0.

    Raises:
        UsageError: it is no number above 0; or it differs from the modality's metres per pixel in
            training by a factor of more than :data:`GSD_FACTOR`.
    """
    if not (math.isfinite(gsd_m) and gsd_m > 0):
        raise UsageError(f"the ground sample distance is {gsd_m} m; expected a number above 0.")
    mismatch = None if any_gsd else gsd_mismatch(config, modality, gsd_m)
    if mismatch is not None:
        raise UsageError(
            f"{mismatch}, take another modality, or allow any (--any-gsd; any_gsd=True)."
        )


def gsd_mismatch(config: ModelConfig, modality: str, gsd_m: float) -> str | None:
    """Describe how a ground sample distance differs from the training's, and what would fit.

    Returns:
        The beginning of a sentence; ``None`` where the distance is within a factor of
        :data:`GSD_FACTOR`, or the training's is not known.
    """
    trained_m = trained_gsd_m(config, modality)
    if trained_m is None or 1 / GSD_FACTOR <= gsd_m / trained_m <= GSD_FACTOR:
        return None
    factor = gsd_m / trained_m
    difference = f"{factor:.3g} times coarser" if factor > 1 else f"{1 / factor:.3g} times finer"
    return (
        f"images of {gsd_m:.4g} m per pixel are {difference} than those that {modality!r} was trained on "
        f"({trained_m:.4g} m): resample them to between {trained_m / GSD_FACTOR:.3g} and "
        f"{trained_m * GSD_FACTOR:.3g} m"
    )


def trained_gsd_m(config: ModelConfig, modality: str) -> float | None:
    """Give the mean metres per pixel of a modality's training images; ``None`` where not known."""
    base_m = config.base_gsd_m
    return None if base_m is None else base_m * config[modality].gsd_ratio


def has_identity_scale(modality: Modality) -> bool:
    """Tell whether stored values are the physical ones: offset 0, scale 1."""
    return all(scale == 1 for scale in modality.scale) and not any(modality.offset)


def _check_bands(expected: Modality, bands: tuple[str, ...]) -> None:
    actual_names = tuple(band.lower() for band in bands)
    expected_names = tuple(band.lower() for band in expected.bands)
    if actual_names == expected_names:
        return
    requirement = f"{expected.name!r} takes the bands {', '.join(expected.bands)}"
    if sorted(actual_names) == sorted(expected_names):
        raise UsageError(
            f"{requirement} in this order; got {', '.join(bands)}. Reorder the array's first axis "
            "of bands."
        )
    missing = [band for band in expected_names if band not in actual_names]
    without = f" (without {', '.join(missing)})" if missing else ""
    raise UsageError(
        f"{requirement}; got {', '.join(bands) or 'none'}{without}. Give exactly those."
    )


def _check_units(expected: Modality, units: str) -> None:
    units = "display" if units.lower() == "uint8" else units
    if units.lower() == STORED or (
        units.lower() == expected.units.lower() and has_identity_scale(expected)
    ):
        return
    if units.lower() == expected.units.lower():
        formula = ", ".join(
            f"{band}: ({units} - {offset:g}) / {scale:g}"
            for band, offset, scale in zip(
                expected.bands, expected.offset, expected.scale, strict=True
            )
        )
        raise UsageError(
            f"{expected.name!r} takes values as stored, 1..255 and 0 for nodata, not {units}: "
            f"convert them first ({formula}; rounded, clipped), or have encode(..., units={units!r}) "
            "do so."
        )
    raise UsageError(
        f"{expected.name!r} was trained on {expected.units}, stored as 0..255; got {units!r}. "
        f"Convert the values to {expected.units}, or take a model that was trained on {units}."
    )
