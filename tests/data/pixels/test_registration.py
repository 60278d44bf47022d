"""The shift between two images: known shifts of a real aerial image, and what spoils the measure.

The coarse image is the aerial one moved by a fraction of a pixel, averaged over 10 m as a sensor
does, and enlarged bilinearly, as Sentinel-2 is on a tile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from salibi_data.pixels.registration import Shift, shift_m
from tests.support.data import real_catalogs
from tests.support.data.real_catalogs import needs_real

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

GSD_M = 10
CROP = slice(60, 60 + 256), slice(120, 120 + 256)
TEXTURED = 0.6
"""Peak that these images reach where they are the same scene."""


def moved(image: Floats, east_px: float, north_px: float) -> Floats:
    spectrum = ndimage.fourier_shift(np.fft.fft2(image), (-north_px, east_px))
    return np.fft.ifft2(spectrum).real


def enlarged_from_10_m(image: Floats) -> Floats:
    """Averaged over 10 x 10 pixels, and enlarged again: pixel centres stay where they are."""
    rows, columns = (size // GSD_M * GSD_M for size in image.shape)
    boxes = image[:rows, :columns].reshape(rows // GSD_M, GSD_M, columns // GSD_M, GSD_M)
    row, column = ((np.arange(size) + 0.5) / GSD_M - 0.5 for size in (rows, columns))
    at = np.meshgrid(row, column, indexing="ij")
    return ndimage.map_coordinates(boxes.mean(axis=(1, 3)), at, order=1, mode="nearest")


def measured(moving: Floats, fixed: Floats) -> Shift:
    return shift_m(moving[CROP], fixed[CROP], pixel_m=1.0, native_gsd_m=GSD_M)


def error_m(shift: Shift, east_m: float, north_m: float) -> float:
    return math.hypot(shift.east_m - east_m, shift.north_m - north_m)


@pytest.fixture(scope="module")
def naip() -> Floats:
    """Four bands, one metre."""
    with rasterio.open(real_catalogs.NAIP) as dataset:
        return dataset.read().astype(np.float64)


SHIFTS = [(0.0, 0.0), (0.4, -0.7), (3.3, -2.1), (-7.5, 4.2), (12.3, 9.9), (-25.0, 18.0)]


@needs_real
@pytest.mark.parametrize(("east_m", "north_m"), SHIFTS)
def test_a_known_shift_is_found_to_a_tenth_of_a_native_pixel(
    naip: Floats, east_m: float, north_m: float
) -> None:
    grey = naip[:3].mean(axis=0)
    shift = measured(enlarged_from_10_m(moved(grey, east_m, north_m)), grey)
    assert error_m(shift, east_m, north_m) < 0.8
    assert TEXTURED < shift.peak <= 1


@needs_real
def test_a_blur_alone_moves_nothing(naip: Floats) -> None:
    grey = ndimage.gaussian_filter(naip[0], 4.5)
    shift = shift_m(moved(grey, 2.0, -3.0)[CROP], naip[0][CROP], pixel_m=1.0, native_gsd_m=GSD_M)
    assert error_m(shift, 2.0, -3.0) < 0.2
    assert shift.peak > 0.98


@needs_real
@pytest.mark.parametrize(
    "altered",
    [lambda x: -x, lambda x: x**0.4, lambda x: 3e-4 * x - 0.1, lambda x: 255 - x**1.2],
    ids=["inverted", "gamma", "gain", "inverted with gamma"],
)
def test_contrast_does_not_matter_much(naip: Floats, altered: object) -> None:
    assert callable(altered)
    grey = naip[:3].mean(axis=0)
    coarse = np.maximum(enlarged_from_10_m(moved(grey, -7.5, 4.2)), 1)
    shift = measured(altered(coarse), grey)
    assert error_m(shift, -7.5, 4.2) < 1.0
    assert shift.peak > TEXTURED


@needs_real
def test_another_band_is_trusted_less(naip: Floats) -> None:
    """Near-infrared against visible: some contrasts turn over, others do not, and the peak says so.

    Red against green is as good as the same band.
    """
    coarse = [enlarged_from_10_m(moved(band, 3.3, -2.1)) for band in naip]
    same, green, infrared = (measured(coarse[band], naip[0]) for band in (0, 1, 3))
    assert error_m(green, 3.3, -2.1) < 1.0
    assert green.peak > TEXTURED
    assert infrared.peak < 0.75 * same.peak


@needs_real
def test_missing_pixels_cost_accuracy_but_do_not_mislead(naip: Floats) -> None:
    grey = naip[:3].mean(axis=0)
    coarse = enlarged_from_10_m(moved(grey, 3.3, -2.1))
    coarse[60:110, 120:220] = np.nan
    shift = measured(coarse, grey)
    assert error_m(shift, 3.3, -2.1) < 1.5
    grey[60:200, 120:] = np.nan
    assert math.isnan(measured(coarse, grey).east_m)


@pytest.mark.parametrize("level", [0.0, 1.0, 117.0, 1e-3])
def test_a_flat_image_says_nothing(level: float) -> None:
    texture = np.random.default_rng(0).normal(size=(256, 256))
    for pair in ((np.full((256, 256), level), texture), (texture, np.full((256, 256), level))):
        shift = shift_m(*pair, pixel_m=1.0, native_gsd_m=GSD_M)
        assert math.isnan(shift.east_m)
        assert math.isnan(shift.north_m)
        assert shift.peak == 0


def test_unrelated_images_have_a_low_peak() -> None:
    chance = np.random.default_rng(1)
    peaks = [
        shift_m(
            *(ndimage.gaussian_filter(chance.normal(size=(256, 256)), 4) for _ in range(2)),
            pixel_m=1.0,
            native_gsd_m=GSD_M,
        ).peak
        for _ in range(20)
    ]
    assert max(peaks) < 0.4


def test_an_image_too_small_for_its_pixels_says_nothing() -> None:
    texture = np.random.default_rng(2).normal(size=(32, 32))
    assert shift_m(texture, texture, pixel_m=1.0, native_gsd_m=GSD_M).peak == 0


def test_images_of_different_sizes_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="expected the same"):
        shift_m(np.zeros((8, 8)), np.zeros((8, 9)), pixel_m=1.0, native_gsd_m=GSD_M)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-12, 12),
    st.floats(-12, 12),
    st.floats(0.3, 5.0),
    st.integers(0, 2**32 - 1),
)
def test_any_texture_any_shift_any_pixel(
    east_px: float, north_px: float, pixel_m: float, seed: int
) -> None:
    """Metres follow the pixel's size, east is right, north is up, and swapping turns the sign."""
    texture = np.random.default_rng(seed).normal(size=(400, 400))
    texture = ndimage.gaussian_filter(texture, 4, mode="wrap")
    other = moved(texture, east_px, north_px)
    inner = slice(72, -72), slice(72, -72)
    forward = shift_m(other[inner], texture[inner], pixel_m=pixel_m, native_gsd_m=10 * pixel_m)
    assert error_m(forward, east_px * pixel_m, north_px * pixel_m) < 0.5 * pixel_m
    back = shift_m(texture[inner], other[inner], pixel_m=pixel_m, native_gsd_m=10 * pixel_m)
    assert error_m(back, -forward.east_m, -forward.north_m) < 0.5 * pixel_m
