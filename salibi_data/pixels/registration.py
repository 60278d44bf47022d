"""Measure the shift between two images of one place, by phase correlation of their common detail.

Made for enlarged Sentinel-2 against NAIP on the same tile, to measure how well the two collections
are aligned. Nothing is corrected by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_SHIFT_GSD: Final = 4.0
"""Longest shift in the search, in native pixels of the coarser image."""

MIN_VALID: Final = 0.75
"""Least share of pixels that are valid in both images."""

MIN_CONTRAST: Final = 1e-6
"""Least standard deviation of an image, relative to its mean; below it the image is flat."""

MIN_FREQUENCIES: Final = 30
"""Least number of frequencies in common; fewer agree by chance, whatever the images show."""

_COARSE_STEP: Final = 0.25
"""Step of the first search, in native pixels; the correlation's main lobe is two native pixels wide."""
_REFINEMENTS: Final = 4
"""Further searches, each around the last peak."""
_STEP_RATIO: Final = 5
"""Step of a search divided by that of the next one."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Displacement of the moving image's features from those of the fixed image."""

    east_m: float
    """Displacement to the east in ground metres; NaN where it cannot be measured."""
    north_m: float
    """Displacement to the north in ground metres; NaN where it cannot be measured."""
    peak: float
    """Share of the common detail that one shift explains, 0..1. Unrelated images reach 0.2 to 0.35
    by chance on 256 m of 10 m pixels; below 0.4 the shift there is meaningless."""


UNKNOWN_SHIFT: Final = Shift(east_m=math.nan, north_m=math.nan, peak=0.0)


def shift_m(moving: Floats, fixed: Floats, *, pixel_m: float, native_gsd_m: float) -> Shift:
    """Measure the shift of ``moving`` against ``fixed``.

    Only the phases of the spectra count, so gain, gamma and an inverted contrast have little effect.
    Only frequencies below the coarser image's Nyquist limit count, so its enlargement has none.
    On 256 m of real texture sampled at 10 m the error is about 0.4 m (median; 1.1 m at most).

    Args:
        moving: grey values, shape (rows, columns); NaN where missing.
        fixed: grey values on the same pixels, of the same shape.
        pixel_m: ground metres per pixel of both.
        native_gsd_m: native pixel of the coarser of the two, in metres.

    Returns:
        :data:`UNKNOWN_SHIFT` where an image is flat, or too much of it is missing.

    Raises:
        ValueError: the shapes differ.

    Source: Kuglin and Hines, "The phase correlation image alignment method" (1975); sub-pixel peak
    by a matrix Fourier transform, Guizar-Sicairos et al., "Efficient subpixel image registration
    algorithms", Optics Letters 33 (2008).
    """
    if moving.shape != fixed.shape:
        raise ValueError(f"images of {moving.shape} and {fixed.shape} pixels; expected the same")
    first = _correlate(moving, fixed, pixel_m, native_gsd_m)
    if math.isnan(first.east_m):
        return first
    # Measure again on the windows that show the same ground: detail that only one image shows pulls
    # the result towards zero.
    east_px, south_px = round(first.east_m / pixel_m), round(-first.north_m / pixel_m)
    remainder = _correlate(
        _crop(moving, south_px, east_px), _crop(fixed, -south_px, -east_px), pixel_m, native_gsd_m
    )
    return Shift(
        east_m=remainder.east_m + east_px * pixel_m,
        north_m=remainder.north_m - south_px * pixel_m,
        peak=remainder.peak,
    )


def _crop(image: Floats, rows: int, columns: int) -> Floats:
    """Remove the first rows and columns of an image, or for negative numbers the last ones."""
    upper = slice(rows, None) if rows >= 0 else slice(None, rows)
    left = slice(columns, None) if columns >= 0 else slice(None, columns)
    return image[upper, left]


def _correlate(moving: Floats, fixed: Floats, pixel_m: float, native_gsd_m: float) -> Shift:
    valid = np.isfinite(moving) & np.isfinite(fixed)
    if valid.mean() < MIN_VALID or _is_flat(moving[valid]) or _is_flat(fixed[valid]):
        return UNKNOWN_SHIFT
    # The images are real, so the other half of the columns' frequencies would be redundant.
    row_hz, column_hz = (
        frequencies(num, d=pixel_m)
        for frequencies, num in zip((np.fft.fftfreq, np.fft.rfftfreq), moving.shape, strict=True)
    )
    common = np.hypot(row_hz[:, None], column_hz[None, :]) < 0.5 / native_gsd_m
    common[0, 0] = False
    times = np.where(column_hz > 0, 2, 1)
    if (common * times).sum() < MIN_FREQUENCIES:
        return UNKNOWN_SHIFT
    used_rows, used_columns = common.any(axis=1), common.any(axis=0)
    cross = _spectrum(moving, valid, used_columns) * _spectrum(fixed, valid, used_columns).conj()
    phases = cross / np.maximum(np.abs(cross), np.finfo(float).tiny)
    phases[~common[:, used_columns]] = 0
    phases *= times[used_columns]
    return _peak(phases[used_rows], row_hz[used_rows], column_hz[used_columns], native_gsd_m)


def _is_flat(values: Floats) -> bool:
    return bool(values.std() <= MIN_CONTRAST * max(abs(float(values.mean())), 1e-30))


def _spectrum(
    image: Floats, valid: NDArray[np.bool_], used_columns: NDArray[np.bool_]
) -> NDArray[np.complex128]:
    """Return the windowed spectrum at the columns' frequencies that are used."""
    rows, columns = (np.hanning(num + 2)[1:-1] for num in image.shape)
    weight = rows[:, None] * columns[None, :] * valid
    level = np.sum(image * weight, where=valid) / weight.sum()
    along = np.fft.rfft(np.where(valid, image - level, 0) * weight, axis=1)[:, used_columns]
    spectrum: NDArray[np.complex128] = np.fft.fft(along, axis=0)
    return spectrum


def _peak(phases: NDArray[np.complex128], row_hz: Floats, column_hz: Floats, gsd_m: float) -> Shift:
    """Find the shift whose phase ramp explains most of ``phases``."""
    south, east = 0.0, 0.0
    reach, step = MAX_SHIFT_GSD * gsd_m, _COARSE_STEP * gsd_m
    explained_share = 0.0
    for _ in range(1 + _REFINEMENTS):
        offsets = np.arange(-reach, reach + step / 2, step)
        souths, easts = south + offsets, east + offsets
        down = np.exp(2j * np.pi * np.outer(souths, row_hz))
        across = np.exp(2j * np.pi * np.outer(column_hz, easts))
        # An inverted contrast turns every phase by half a circle, hence the absolute value.
        correlation = np.abs((down @ phases @ across).real)
        row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
        south, east = float(souths[row]), float(easts[column])
        explained_share = float(correlation[row, column]) / float(np.abs(phases).sum())
        reach, step = step, step / _STEP_RATIO
    return Shift(east_m=east, north_m=-south, peak=min(1.0, explained_share))
