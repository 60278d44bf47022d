"""Makes reproducible random patterns of the ground: smooth fields and periodic textures.

A :class:`SmoothField` is a function of position, not an image: a place has the same value in every
window and at every pixel size. All sensors of the sample catalog therefore see the same ground.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]

_PADDING = 4
"""Extra coefficients on each side, so that the spline's four taps stay inside the grid."""


@dataclass(frozen=True, kw_only=True)
class SmoothField:
    """Cubic B-spline surface over local metres (x east, y north)."""

    coefficients: Floats
    """Spline coefficients, shape (rows, columns); row 0 is the southernmost."""
    spacing_m: float
    """Distance between coefficients; the finest detail is about twice as long."""

    def sample(self, x_m: npt.NDArray[np.float64], y_m: npt.NDArray[np.float64]) -> Floats:
        """Return the values at all ``y_m`` by all ``x_m``, shape (len(y_m), len(x_m))."""
        column, x_weights = _spline_taps(x_m / self.spacing_m + _PADDING)
        row, y_weights = _spline_taps(y_m / self.spacing_m + _PADDING)
        first, last = int(row.min()) - 1, int(row.max()) + 3
        strip = self.coefficients[first:last]
        across = strip[:, column - 1] * x_weights[0]
        for k in range(1, 4):
            across += strip[:, column + k - 1] * x_weights[k]
        row = row - first
        # Rows last: summing contiguous rows of the large array is four times as fast as columns.
        values = across[row - 1] * y_weights[0][:, None]
        for k in range(1, 4):
            values += across[row + k - 1] * y_weights[k][:, None]
        return np.asarray(values, dtype=np.float32)

    def nodes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return local x of the columns and local y of the rows of coefficients, in metres."""
        rows, columns = self.coefficients.shape
        return (
            (np.arange(columns, dtype=np.float64) - _PADDING) * self.spacing_m,
            (np.arange(rows, dtype=np.float64) - _PADDING) * self.spacing_m,
        )

    def slopes(self) -> tuple[SmoothField, SmoothField]:
        """Return the slopes (rise over run) towards the east and towards the north, as fields."""
        slopes: list[Floats] = [
            np.asarray(np.gradient(self.coefficients, self.spacing_m, axis=axis), dtype=np.float32)
            for axis in (1, 0)
        ]
        east, north = (
            SmoothField(coefficients=slope, spacing_m=self.spacing_m) for slope in slopes
        )
        return east, north


def _spline_taps(position: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.intp], list[Floats]]:
    """Return the index below each position and the weights of the four nearest coefficients.

    The weights are the uniform cubic B-spline's (Unser 1999, Splines: A Perfect Fit for Signal and
    Image Processing).
    """
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
    """Return a field of zeros that can be sampled anywhere in 0..width_m by 0..height_m."""
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
    """Return a random field of mean 0 and standard deviation 1: a sum of octaves.

    Args:
        rng: source of the randomness.
        width_m: extent eastwards.
        height_m: extent northwards.
        octaves: weight of each octave by its spacing in metres. The finest sets the grid.
    """
    finest = min(octaves)
    field = empty_field(width_m=width_m, height_m=height_m, spacing_m=finest)
    x_m, y_m = field.nodes()
    # The padding of the finest grid lies outside 0..width_m; shifted octaves cover it as well.
    offset_m = _PADDING * finest
    total = np.zeros_like(field.coefficients)
    for spacing_m, weight in sorted(octaves.items(), reverse=True):
        octave = empty_field(
            width_m=width_m + 3 * offset_m, height_m=height_m + 3 * offset_m, spacing_m=spacing_m
        )
        noise = rng.standard_normal(octave.coefficients.shape, dtype=np.float32)
        octave = SmoothField(coefficients=noise, spacing_m=spacing_m)
        total += weight * _standardise(octave.sample(x_m + offset_m, y_m + offset_m))
    return SmoothField(coefficients=_standardise(total), spacing_m=finest)


def _standardise(values: Floats) -> Floats:
    """Return the values shifted and scaled to mean 0 and standard deviation 1."""
    centred = values - values.mean(dtype=np.float64)
    return np.asarray(centred / centred.std(dtype=np.float64), dtype=np.float32)


def periodic_texture(rng: np.random.Generator, *, size_px: int, slope: float) -> Floats:
    """Return a square texture that repeats without a seam, mean 0 and standard deviation 1.

    Its power spectrum falls as frequency ** -slope: 0 is white noise, 1 is grainy, 2 is cloudy.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size_px, size_px)))
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None, :])
    frequency[0, 0] = np.inf
    texture = np.fft.irfft2(spectrum * frequency ** (-slope / 2), s=(size_px, size_px))
    return _standardise(texture.astype(np.float32))


def tile_texture(texture: Floats, *, row: int, column: int, shape: tuple[int, int]) -> Floats:
    """Return a window of the endlessly repeated texture; its top left pixel is (row, column)."""
    size_px = texture.shape[0]
    rows = (row + np.arange(shape[0])) % size_px
    columns = (column + np.arange(shape[1])) % size_px
    return np.asarray(texture[rows][:, columns])
