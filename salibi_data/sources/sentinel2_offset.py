"""Do the pixels agree with the offset that a scene's processing baseline implies?

ESA adds 1000 to Sentinel-2's digital numbers from baseline 04.00 on. Some files carry a baseline
and not its offset (providers "harmonise" them), or the reverse; their dark pixels give them away.
The check warns and changes nothing: bright desert or haze can look like an offset that is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PIXELS: Final = 10_000
"""Valid pixels needed to judge: 1 km by 1 km at 10 m, or a tenth of a scene's overview."""

OVERVIEW_MOST_PX: Final = 1024
"""Longest edge of an overview to judge by: about a megabyte."""

NEGATIVE_REFLECTANCE: Final = -0.02
"""Corrected reflectance below this is far below zero: a real scene at low sun (Patagonia) has one
such pixel in a thousand in red, the worst of its bands."""

NEGATIVE_SHARE: Final = 0.01
"""Share of such pixels at which an offset cannot have been in the file."""

DARKEST: Final = 0.001, 0.01, 0.5
"""Shares of the pixels whose levels are looked at for an offset that nobody claims: the floor, the
dark pixels and the middle."""

DARK_REFLECTANCE: Final = 0.015
"""Dark pixels of a visible band (water, shadow, dense forest) are at most this."""

MIDDLE_REFLECTANCE: Final = 0.04
"""A window whose middle is darker than this in a visible band is mostly such pixels."""


def offset_warning(
    numbers: NDArray[np.float32], *, scale: float, offset: float, applied: bool
) -> str | None:
    """What contradicts the offset that was, or was not, applied to a band.

    Args:
        numbers: digital numbers of the valid pixels of one band that is dark nearly everywhere,
            shape (num,).
        scale: reflectance per digital number.
        offset: reflectance that the baseline's rule adds where it applies; below zero.
        applied: whether the scene's baseline says that it applies.

    Returns:
        A sentence without figures of these pixels, so that it is the same for all windows of a
        scene; None where nothing speaks against the rule or there are too few pixels.
    """
    if numbers.size < MIN_PIXELS:
        return None
    corrected = numbers * np.float32(scale) + np.float32(offset)
    if applied:
        share = float((corrected < NEGATIVE_REFLECTANCE).mean())
        if share < NEGATIVE_SHARE:
            return None
        return (
            f"an offset of {offset:g} is implied by the baseline, but would put more than "
            f"{NEGATIVE_SHARE:.0%} of the pixels below reflectance {NEGATIVE_REFLECTANCE:g}: it "
            "seems to be removed already"
        )
    floor, dark, middle = (float(level) for level in np.quantile(corrected, DARKEST))
    if floor < 0 or dark > DARK_REFLECTANCE or middle > MIDDLE_REFLECTANCE:
        return None
    return (
        "no offset is implied by the baseline, but the darkest pixels are as bright as if "
        f"{offset:g} were still to be added"
    )


def overview_numbers(
    dataset: Any, index: int, *, nodata: float | None
) -> NDArray[np.float32] | None:
    """Digital numbers of a whole file's valid pixels, from its smallest overview.

    Averages of 32 x 32 pixels are less extreme than the pixels are: they raise no alarm that the
    pixels would not, and show an offset of 0.1 as well.

    Args:
        dataset: open rasterio dataset.
        index: number of the band, from 1.
        nodata: the missing value, if there is one.

    Returns:
        Shape (num,); None where the file is large and has no small overview.
    """
    factor = max(dataset.overviews(index), default=1)
    height, width = (-(-edge // factor) for edge in dataset.shape)
    if max(height, width) > OVERVIEW_MOST_PX:
        return None
    numbers: NDArray[np.float32] = dataset.read(index, out_shape=(height, width)).astype(np.float32)
    observed = np.isfinite(numbers)
    if nodata is not None:
        observed &= numbers != nodata
    # Beside missing pixels lie averages of both, if whoever wrote the file did not look.
    seen = np.pad(observed, 1, constant_values=True)
    inner = seen[1:-1, 1:-1] & seen[:-2, 1:-1] & seen[2:, 1:-1] & seen[1:-1, :-2] & seen[1:-1, 2:]
    valid: NDArray[np.float32] = numbers[inner]
    return valid
