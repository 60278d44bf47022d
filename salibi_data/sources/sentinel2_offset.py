"""Check that Sentinel-2 pixels agree with the offset that their processing baseline implies.

ESA adds 1000 to Sentinel-2's digital numbers from baseline 04.00 on. Some files state a baseline but
not its offset (providers "harmonise" them), or the reverse; their dark pixels show it. The check
warns and changes nothing: bright desert or haze can look like an offset where there is none.

Source: "Sentinel-2 Products Specification Document" (S2-PDGS-TAS-DI-PSD), ``RADIO_ADD_OFFSET``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.sources.pixel_values.overviews import observed_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Band, OffsetRule, Product
    from salibi_data.catalog.scenes import Scene

MIN_PIXELS: Final = 10_000
"""Valid pixels needed for a verdict: 1 km by 1 km at 10 m, or a tenth of a scene's overview."""

NEGATIVE_REFLECTANCE: Final = -0.02
"""Corrected reflectance below this is far below zero: a real scene at low sun (Patagonia) has one
such pixel in a thousand in red, its worst band."""

MAX_NEGATIVE_SHARE: Final = 0.01
"""Share of such pixels from which on an offset cannot have been in the file."""

DARK_QUANTILES: Final = 0.001, 0.01, 0.5
"""Quantiles that are examined for an offset that the baseline does not imply: the floor, the dark
pixels and the middle."""

DARK_REFLECTANCE: Final = 0.015
"""Highest reflectance of dark pixels of a visible band: water, shadow, dense forest."""

MIDDLE_REFLECTANCE: Final = 0.04
"""Median below which a window consists mostly of such pixels, in a visible band."""

_verdicts: Final[dict[tuple[Any, ...], str | None]] = {}
"""Cached results for bands of whole scenes: a build reads a scene in many blocks."""
_MAX_VERDICTS: Final = 10_000


def offset_warnings(
    dataset: Any,
    raw: NDArray[Any],
    valid: NDArray[np.bool_],
    scene: Scene,
    product: Product,
    bands: Sequence[Band],
    *,
    nodata: Sequence[tuple[float, ...]],
) -> tuple[str, ...]:
    """Return what contradicts the offset that the scene's baseline implies, one sentence per band.

    Args:
        dataset: open rasterio dataset.
        raw: digital numbers of a window, shape (bands, rows, columns).
        valid: which pixels of the window were observed, shape (rows, columns).
        scene: scene of the file.
        product: product of the file; without a rule for offsets there are no warnings.
        bands: bands of ``raw``.
        nodata: missing values of each band.
    """
    rule = product.offset_from
    if rule is None:
        return ()
    names = {band: name for name, band in product.bands.items()}
    warnings = []
    for row, band in enumerate(bands):
        if names.get(band) in rule.dark_bands:
            warning = _band_warning(
                dataset, raw[row][valid], scene, product, rule, band, nodata=nodata[row]
            )
            baseline = scene.properties.get(rule.property)
            if warning is not None:
                warnings.append(f"{scene.id} (baseline {baseline}), band {names[band]}: {warning}")
    return tuple(warnings)


def _band_warning(
    dataset: Any,
    window: NDArray[Any],
    scene: Scene,
    product: Product,
    rule: OffsetRule,
    band: Band,
    *,
    nodata: tuple[float, ...],
) -> str | None:
    """Judge a band by the whole scene's overview, or by the window where there is no small one."""
    applied = rule.applies(scene.properties)
    key = (scene.id, scene.hrefs[band.asset], band, rule, product.scale, applied)
    if key in _verdicts:
        return _verdicts[key]
    # The mask of a footprint is made for the file's own grid, not for an overview's.
    numbers = (
        None
        if product.nodata == "footprint"
        else observed_numbers(
            dataset, band.index, nodata=nodata, stated=product.nodata_values is not None
        )
    )
    warning = offset_warning(
        window.astype(np.float32) if numbers is None else numbers,
        scale=product.scale,
        offset=rule.offset,
        applied=applied,
    )
    if numbers is not None:
        if len(_verdicts) >= _MAX_VERDICTS:
            _verdicts.clear()
        _verdicts[key] = warning
    return warning


def offset_warning(
    numbers: NDArray[np.float32], *, scale: float, offset: float, applied: bool
) -> str | None:
    """Return what contradicts the offset that was, or was not, applied to a band.

    Args:
        numbers: digital numbers of the valid pixels of one band that is dark nearly everywhere,
            shape (num,).
        scale: reflectance per digital number.
        offset: reflectance that the baseline's rule adds where it applies; below zero.
        applied: whether the rule applies to the scene's baseline.

    Returns:
        A sentence without figures of these pixels, so that it is the same for all windows of a
        scene; None where nothing contradicts the rule, or there are too few pixels.
    """
    if numbers.size < MIN_PIXELS:
        return None
    corrected = numbers * np.float32(scale) + np.float32(offset)
    if applied:
        share = float((corrected < NEGATIVE_REFLECTANCE).mean())
        if share < MAX_NEGATIVE_SHARE:
            return None
        return (
            f"an offset of {offset:g} is implied by the baseline, but would put more than "
            f"{MAX_NEGATIVE_SHARE:.0%} of the pixels below reflectance {NEGATIVE_REFLECTANCE:g}: it "
            "seems to be removed already"
        )
    floor, dark, middle = (float(level) for level in np.quantile(corrected, DARK_QUANTILES))
    if floor < 0 or dark > DARK_REFLECTANCE or middle > MIDDLE_REFLECTANCE:
        return None
    return (
        "no offset is implied by the baseline, but the darkest pixels are as bright as if "
        f"{offset:g} were still to be added"
    )
