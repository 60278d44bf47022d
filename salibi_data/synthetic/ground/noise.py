"""Deterministic randomness over the ground: smooth fields and periodic textures.

A :class:`SmoothField` is a function of position, not an image: whatever the window and the pixel
size, the same place gets the same value. That is what keeps the sensors of the sample catalog on
one ground.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]

_PADDING = 4
"""Coefficients kept beyond each side, so that the four taps of the spline never leave the grid."""


@dataclass(frozen=True, kw_only=True)
class SmoothField:
    """A cubic B-spline surface over local ground metres (x east, y north)."""

    coefficients: Floats
    """(rows, columns); row 0 is the southernmost."""
    spacing_m: float
    """Distance between coefficients. Nothing finer than about twice this exists in the field."""

    def sample(self, x_m: npt.NDArray[np.float64], y_m: npt.NDArray[np.float64]) -> Floats:
        """Values on the grid of all ``y_m`` by all ``x_m``: shape (len(y_m), len(x_m))."""
        column, x_weights = _taps(x_m / self.spacing_m + _PADDING)
        row, y_weights = _taps(y_m / self.spacing_m + _PADDING)
        first, last = int(row.min()) - 1, int(row.max()) + 3
        strip = self.coefficients[first:last]
        across = strip[:, column - 1] * x_weights[0]
        for k in range(1, 4):
            across += strip[:, column + k - 1] * x_weights[k]
        row = row - first
        # Summing whole rows keeps the large array in contiguous copies: four times as fast.
        values = across[row - 1] * y_weights[0][:, None]
        for k in range(1, 4):
            values += across[row + k - 1] * y_weights[k][:, None]
        return np.asarray(values, dtype=np.float32)

    def nodes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Local x and y, in metres, of the columns and rows of coefficients."""
        rows, columns = self.coefficients.shape
        return (
            (np.arange(columns, dtype=np.float64) - _PADDING) * self.spacing_m,
            (np.arange(rows, dtype=np.float64) - _PADDING) * self.spacing_m,
        )

    def slopes(self) -> tuple[SmoothField, SmoothField]:
        """Slope towards the east and towards the north (rise over run), as fields."""
        slopes: list[Floats] = [
            np.asarray(np.gradient(self.coefficients, self.spacing_m, axis=axis), dtype=np.float32)
            for axis in (1, 0)
        ]
        east, north = (
            SmoothField(coefficients=slope, spacing_m=self.spacing_m) for slope in slopes
        )
        return east, north


def _taps(position: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.intp], list[Floats]]:
    """Index below each position and the four B-spline weights around it."""
    index = np.floor(position).astype(np.intp)
    t = position - index
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    return index, [weight.astype(np.float32) for weight in weights]


def empty_field(*, width_m: float, height_m: float, spacing_m: float) -> SmoothField:
    """A field of zeros that can be sampled anywhere in 0..width_m by 0..height_m."""
    shape = (
        int(np.ceil(height_m / spacing_m)) + 2 * _PADDING + 1,
        int(np.ceil(width_m / spacing_m)) + 2 * _PADDING + 1,
    )
    return SmoothField(coefficients=np.zeros(shape, dtype=np.float32), spacing_m=spacing_m)


def fractal_field(
    rng: np.random.Generator,
    *,
    width_m: float,
    height_m: float,
    octaves: Mapping[float, float],
) -> SmoothField:
    """Random field of zero mean and unit deviation.

    Args:
        rng: source of the randomness.
        width_m: extent eastwards.
        height_m: extent northwards.
        octaves: weight of each octave by its spacing in metres; the finest sets the grid.
    """
    finest = min(octaves)
    field = empty_field(width_m=width_m, height_m=height_m, spacing_m=finest)
    x_m, y_m = field.nodes()
    # The coarser grids start further out, so that they can be sampled on every node of this one.
    offset_m = _PADDING * finest
    total = np.zeros_like(field.coefficients)
    for spacing_m, weight in sorted(octaves.items(), reverse=True):
        octave = empty_field(
            width_m=width_m + 3 * offset_m, height_m=height_m + 3 * offset_m, spacing_m=spacing_m
        )
        noise = rng.standard_normal(octave.coefficients.shape, dtype=np.float32)
        octave = SmoothField(coefficients=noise, spacing_m=spacing_m)
        total += weight * _standardised(octave.sample(x_m + offset_m, y_m + offset_m))
    return SmoothField(coefficients=_standardised(total), spacing_m=finest)


def _standardised(values: Floats) -> Floats:
    """The values with mean 0 and standard deviation 1."""
    centred = values - values.mean(dtype=np.float64)
    return np.asarray(centred / centred.std(dtype=np.float64), dtype=np.float32)


def periodic_texture(rng: np.random.Generator, *, size_px: int, slope: float) -> Floats:
    """Square texture that repeats without a seam; power falls as frequency ** -slope.

    ``slope`` 0 is white noise, 1 is grainy, 2 is cloudy. Mean 0, standard deviation 1.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px)))
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :])
    frequency[0, 0] = np.inf
    texture = np.fft.irfft2(spectrum * frequency ** (-slope / 2), s=(size_px, size_px))
    return _standardised(texture.astype(np.float32))


def tiled(texture: Floats, *, row: int, column: int, shape: tuple[int, int]) -> Floats:
    """Window of an endlessly repeated texture whose top left pixel is (row, column)."""
    size_px = texture.shape[0]
    rows = (row + np.arange(shape[0])) % size_px
    columns = (column + np.arange(shape[1])) % size_px
    return np.asarray(texture[rows][:, columns])
