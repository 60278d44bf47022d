"""Check that Sentinel-2 pixels agree with the offset that their processing baseline implies.

ESA adds 1000 to Sentinel-2's digital numbers from baseline 04.00 on. Some files state a baseline but
not its offset (providers "harmonise" them), or the reverse; their dark pixels show it. The check
warns and changes nothing: bright desert or haze can look like an offset where there is none.

Source: "Sentinel-2 Products Specification Document" (S2-PDGS-TAS-DI-PSD), ``RADIO_ADD_OFFSET``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Band, OffsetRule, Product
    from salibi_data.catalog.scenes import Scene

MIN_PIXELS: Final = 10_000
"""Valid pixels needed for a verdict: 1 km by 1 km at 10 m, or a tenth of a scene's overview."""

MAX_OVERVIEW_PX: Final = 1024
"""Longest edge of an overview that is read for the check: about a megabyte."""

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
    nodata: float | None,
) -> tuple[str, ...]:
    """Return what contradicts the offset that the scene's baseline implies, one sentence per band.

    Args:
        dataset: open rasterio dataset.
        raw: digital numbers of a window, shape (bands, rows, columns).
        valid: which pixels of the window were observed, shape (rows, columns).
        scene: scene of the file.
        product: product of the file; without a rule for offsets there are no warnings.
        bands: bands of ``raw``.
        nodata: missing value, if there is one.
    """
    rule = product.offset_from
    if rule is None:
        return ()
    names = {band: name for name, band in product.bands.items()}
    warnings = []
    for row, band in enumerate(bands):
        if names.get(band) in rule.dark_bands:
            warning = _band_warning(
                dataset, raw[row][valid], scene, product, rule, band, nodata=nodata
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
    nodata: float | None,
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
        else overview_numbers(dataset, band.index, nodata=nodata)
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


def overview_numbers(
    dataset: Any, index: int, *, nodata: float | None
) -> NDArray[np.float32] | None:
    """Return digital numbers of a whole file's valid pixels, from its smallest overview.

    Averages of 32 x 32 pixels are less extreme than the pixels: they cause no warning that the
    pixels would not cause, and show an offset of 0.1 as well.

    Args:
        dataset: open rasterio dataset.
        index: number of the band, from 1.
        nodata: missing value, if there is one.

    Returns:
        Shape (num,); None where the file is large and has no small overview.
    """
    factor = max(dataset.overviews(index), default=1)
    height, width = (-(-edge // factor) for edge in dataset.shape)
    if max(height, width) > MAX_OVERVIEW_PX:
        return None
    numbers: NDArray[np.float32] = dataset.read(index, out_shape=(height, width)).astype(np.float32)
    observed = np.isfinite(numbers)
    if nodata is not None:
        observed &= numbers != nodata
    # Some writers average missing and valid pixels in overviews, so drop the neighbours of missing.
    padded = np.pad(observed, 1, constant_values=True)
    inner = observed & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    valid: NDArray[np.float32] = numbers[inner]
    return valid
