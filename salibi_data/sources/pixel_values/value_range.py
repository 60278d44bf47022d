"""Values that physical units cannot hold: raw counts, logarithms, 16-bit renderings, fractions.

A file whose values contradict the units of the catalog's TOML is refused; cut off at the range of
storage it would be a white or a black image. Bright targets, noise, snow and glint are no
contradiction, so limits are far outside of what sensors measure, or hold for most pixels of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Units

MAX_ODD_PIXELS: Final = 20
MAX_ODD_SHARE: Final = 0.01
"""Most impossible values of a window that is not refused, as a number or as a share; they count as
missing."""

MIN_PIXELS: Final = 400
"""Pixels needed to judge a window by what is usual: 20 x 20."""

MOST: Final = 0.5
NEARLY_ALL: Final = 0.99
"""Shares of a window's pixels."""

MAX_NEGATIVE_POWER: Final = -0.5
"""Power below this is no noise that was subtracted, but a fill, or a logarithm."""

MAX_NEGATIVE_SHARE: Final = 0.1
"""Share of such values that differ from which on a window of power is one of logarithms."""

DISPLAY_WITH_OVERSHOOT: Final = (-64.0, 319.0)
"""Least and largest value of an 8-bit image that was resampled by a cubic or a Lanczos filter: these
overshoot a step by less than a quarter."""

MAX_OF_FRACTIONS: Final = 2.0
"""Largest value of fractions of 0..1 that were resampled."""

MAX_FILLS: Final = 8
"""Most different values that are taken for fills; a signal has more."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Values of one physical unit."""

    text: str
    """What the units hold, for messages."""
    floor: float = -np.inf
    """Values up to this one were never measured, but filled in: power 0, or 1e-10 in place of it for the
    sake of a logarithm, which is -100 dB."""
    possible: tuple[float, float]
    """Least and largest value that a sensor measures."""
    usual: tuple[float, float]
    """Least and largest value of most pixels of a window."""


LIMITS: Final[Mapping[Units, Limits]] = {
    "power": Limits(
        text="linear backscatter, above 0 and mostly below 30",
        floor=1e-10,
        possible=(0.0, 1e6),
        usual=(0.0, 30.0),
    ),
    "dB": Limits(
        text="decibels, mostly negative and from -60 to 40",
        floor=-100.0,
        possible=(-100.0, 100.0),
        usual=(-60.0, 40.0),
    ),
    "reflectance": Limits(
        text="0..1, little more on clouds and snow",
        possible=(-0.25, 10.0),
        usual=(-0.25, 2.0),
    ),
    "display": Limits(text="0..255", possible=(-0.5, 255.5), usual=(-0.5, 255.5)),
}
"""Limits by units. The least reflectance of Landsat is -0.2, the largest of Sentinel-2 is 6.6; -0.9999
is a fill."""


def check_values(
    observed: NDArray[np.float32],
    units: Units,
    *,
    whole: NDArray[np.float32] | None,
    dtype: np.dtype[Any],
    where: str,
) -> None:
    """Refuse a band whose values its units cannot hold.

    Args:
        observed: physical values of the observed pixels of a window of one band, shape (num,).
        units: units that the catalog's TOML states.
        whole: the same of the whole file, by which it is judged as well; None: the window alone.
        dtype: type of the file's numbers, for the message.
        where: name of the file and the band in messages.

    Raises:
        ReadError: they cannot be; of kind ``unusable``.
    """
    for values in (observed, whole):
        # A dark window of a whole that has all of 0..255 is no rendering as fractions.
        judged_by_fractions = values is whole or whole is None
        if values is not None and contradicts(values, units, by_fractions=judged_by_fractions):
            raise ReadError(
                f"{where} has {dtype} values in the range {values.min():.6g} to {values.max():.6g}, "
                f"and units {units!r} hold {LIMITS[units].text}. Set scale and offset of the "
                "product in the catalog's TOML, its nodata where these are fills, or other units.",
                kind="unusable",
            )


def never_measured(values: NDArray[np.float32], units: Units) -> NDArray[np.bool_] | np.bool_:
    """Return where physical values were filled in, or are impossible; False where they are NaN.

    Under ``display`` a value is only where resampling cannot have led to it.
    """
    limits = LIMITS[units]
    low, high = DISPLAY_WITH_OVERSHOOT if units == "display" else limits.possible
    absent: NDArray[np.bool_] = (values <= limits.floor) | (values < low) | (values > high)
    return absent


def contradicts(values: NDArray[np.float32], units: Units, *, by_fractions: bool = True) -> bool:
    """Return whether values contradict their units.

    Args:
        values: physical values of observed pixels of one band, shape (num,), finite.
        units: units that the catalog's TOML states.
        by_fractions: whether to test for a rendering as fractions of 0..1.
    """
    if values.size == 0:
        return False
    limits = LIMITS[units]
    if values.min() < limits.floor and _is_another_signal(values, units):
        return True
    values = values[values > limits.floor]
    odd = _num_outside(values, limits.possible)
    if odd > max(MAX_ODD_PIXELS, MAX_ODD_SHARE * values.size) or 0 < odd == values.size:
        return True
    if values.size < MIN_PIXELS:
        return False
    if _num_outside(values, limits.usual) > MOST * values.size:
        return True
    return (units == "dB" and _is_linear_power(values)) or (
        units == "display" and by_fractions and _is_fractions(values)
    )


def _num_outside(values: NDArray[np.float32], limits: tuple[float, float]) -> int:
    low, high = limits
    if values.size == 0 or (values.min() >= low and values.max() <= high):
        return 0  # as nearly always: two passes without temporary arrays
    return int(np.count_nonzero((values < low) | (values > high)))


def _is_another_signal(values: NDArray[np.float32], units: Units) -> bool:
    """Return whether values below the floor are no fills but measurements: dB, or scaled dB."""
    if units == "power":
        below, share = values[values < MAX_NEGATIVE_POWER], MAX_NEGATIVE_SHARE
    else:
        below, share = values[values < LIMITS[units].floor], MOST
    is_frequent = below.size > max(MAX_ODD_PIXELS, share * values.size)
    return is_frequent and np.unique(below).size > MAX_FILLS


def _is_linear_power(values: NDArray[np.float32]) -> bool:
    """Return whether dB values are such as power has: never negative, mostly below 1."""
    num_positive = np.count_nonzero(values >= 0)
    return bool(
        num_positive > NEARLY_ALL * values.size
        and np.count_nonzero(values < 1) > MOST * values.size
    )


def _is_fractions(values: NDArray[np.float32]) -> bool:
    """Return whether a rendering is one of fractions, 0..1; black pixels do not count."""
    values = values[values != 0]
    if values.size < MIN_PIXELS or values.max() > MAX_OF_FRACTIONS:
        return False
    inside = (values > 0) & (values <= 1)
    return bool(inside.mean() > NEARLY_ALL and (inside & (values < 1)).mean() > MOST)
