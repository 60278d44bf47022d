"""Values that contradict the units of the catalog's TOML are refused; extremes of nature are not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.sources.pixel_values.value_range import contradicts
from salibi_data.store.errors import ReadError
from tests.support.catalogs import made_rasters as made
from tests.support.catalogs.made_rasters import PX, disc, textured

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RANDOM = np.random.default_rng(0)
POWER = RANDOM.gamma(4, 0.03, (PX, PX)) + 0.001
REFLECTANCE = RANDOM.uniform(0.01, 0.4, (PX, PX))
IMAGE = textured(1)[0].astype(float)


def partly(values: NDArray[Any], share: float, value: float) -> NDArray[Any]:
    """Values of which a share is another one."""
    return np.where(np.random.default_rng(1).random(values.shape) < share, value, values)


REFUSED = [
    ("display", "uint16", IMAGE * 40, "0..255"),
    ("display", "uint16", IMAGE * 8, "0..255"),
    ("display", "int16", IMAGE - 128, "0..255"),
    ("display", "int8", IMAGE - 128, "0..255"),
    ("display", "uint32", IMAGE * 1e6, "0..255"),
    ("display", "float32", IMAGE / 255, "0..255"),
    ("display", "float32", np.where(disc(), IMAGE / 255, 0), "0..255"),
    ("display", "float64", IMAGE / 127 - 1, "0..255"),
    ("display", "float32", IMAGE * 40, "0..255"),
    ("display", "complex64", IMAGE, "complex"),
    ("reflectance", "uint16", REFLECTANCE * 1e4, "0..1"),
    ("reflectance", "uint16", REFLECTANCE * 1e4 + 1000, "0..1"),
    ("reflectance", "uint8", IMAGE, "0..1"),
    ("reflectance", "float32", REFLECTANCE * 100, "0..1"),
    ("reflectance", "float32", partly(REFLECTANCE, 0.3, -9999), "0..1"),
    ("reflectance", "float32", partly(REFLECTANCE, 0.3, -0.9999), "0..1"),
    ("reflectance", "float32", REFLECTANCE - 1, "0..1"),
    ("reflectance", "complex128", REFLECTANCE, "complex"),
    ("power", "float32", 10 * np.log10(POWER), "above 0"),
    ("power", "float32", 10 * np.log10(POWER) + 10, "above 0"),
    ("power", "int16", 1000 * np.log10(POWER), "above 0"),
    ("power", "uint16", np.sqrt(POWER) * 600, "above 0"),
    ("power", "uint8", IMAGE, "above 0"),
    ("power", "complex64", POWER, "complex"),
    ("dB", "float32", POWER, "decibels"),
    ("dB", "float32", partly(POWER, 0.3, 0), "decibels"),
    ("dB", "int16", 1000 * np.log10(POWER), "decibels"),
    ("dB", "uint8", IMAGE, "decibels"),
    ("dB", "complex64", POWER, "complex"),
]


@pytest.mark.parametrize(("units", "dtype", "values", "holds"), REFUSED)
def test_values_that_the_units_cannot_hold_are_refused_in_one_line(
    tmp_path: Path, units: str, dtype: str, values: NDArray[Any], holds: str
) -> None:
    made.write(tmp_path / "a.tif", values[None].astype(dtype))
    with pytest.raises(ReadError) as caught:
        made.read(tmp_path / "a.tif", (1,), units=units)
    message = str(caught.value)
    assert caught.value.kind == "unusable"
    assert "\n" not in message
    for word in ("a.tif", "scene-1", "'image'", "band 'b1'", dtype, f"units {units!r}", holds):
        assert word in message
    if "complex" not in dtype:
        found = re.search(r"range (\S+) to (\S+), and", message)
        assert found is not None
        stored = values.astype(dtype).astype(np.float32)
        low, high = (float(f"{edge:.6g}") for edge in (stored.min(), stored.max()))
        assert (float(found[1]), float(found[2])) == (low, high)


ACCEPTED = [
    ("display", "uint16", IMAGE),
    ("display", "int16", IMAGE),
    ("display", "float32", IMAGE),
    ("display", "float32", partly(IMAGE, 0.009, 258)),  # resampled before
    ("display", "float32", IMAGE * 0),
    ("display", "uint8", (IMAGE > 128).astype(float)),
    ("reflectance", "float32", REFLECTANCE),
    ("reflectance", "float32", REFLECTANCE + 1.2),  # cloud and snow
    ("reflectance", "float32", partly(REFLECTANCE, 0.3, 2.5)),  # glint
    ("reflectance", "float32", REFLECTANCE / 100 - 0.01),  # water
    ("reflectance", "float32", REFLECTANCE * 0),
    ("power", "float32", POWER),
    ("power", "float32", partly(POWER, 0.02, 5000)),  # ships
    ("power", "float32", POWER * 40),  # a city
    ("power", "float32", POWER / 1e4),  # calm water
    ("power", "float32", partly(POWER, 0.6, 0)),
    ("power", "float32", partly(POWER, 0.6, -0.01)),  # noise that was subtracted
    ("power", "float32", partly(partly(POWER, 0.4, -9999), 0.4, -32768)),
    ("dB", "float32", 10 * np.log10(POWER)),
    ("dB", "float32", 10 * np.log10(POWER * 40)),
    ("dB", "float32", partly(10 * np.log10(POWER), 0.6, -9999)),
]


@pytest.mark.parametrize(("units", "dtype", "values"), ACCEPTED)
def test_bright_dark_and_filled_windows_are_read(
    tmp_path: Path, units: str, dtype: str, values: NDArray[Any]
) -> None:
    values = values.astype(dtype)
    made.write(tmp_path / "a.tif", values[None])
    raster = made.read(tmp_path / "a.tif", (1,), units=units)
    floor = {"power": 0, "dB": -100}.get(units, -np.inf)
    assert np.array_equal(made.observed(raster), values > floor)
    assert np.array_equal(raster.values[0][values > floor], values[values > floor])


def test_a_few_fills_among_floats_for_display_are_missing_and_overshoot_is_not(
    tmp_path: Path,
) -> None:
    """Rare fills refuse nothing, and black or white in place of them would be an observation."""
    values = np.where(IMAGE == 0, 1, IMAGE).astype("float32")
    values[3, 5:8], values[40, 7], values[60, 9:11] = (-9999, 65535, -100), -32768, (-12.5, 270)
    made.write(tmp_path / "a.tif", values[None])
    raster = made.read(tmp_path / "a.tif", (1,))
    right = np.ones(values.shape, bool)
    right[3, 5:8] = right[40, 7] = False
    assert np.array_equal(made.observed(raster), right)


def test_what_is_hidden_or_missing_is_not_judged(tmp_path: Path) -> None:
    values = np.where(disc(), IMAGE, 65535)[None].astype("uint16")
    made.write(tmp_path / "masked.tif", values, visible=disc())
    made.write(tmp_path / "filled.tif", values)
    for name, nodata in (("masked", None), ("filled", 65535)):
        raster = made.read(tmp_path / f"{name}.tif", (1,), nodata=nodata)
        assert np.array_equal(made.observed(raster), disc())
    with pytest.raises(ReadError, match="uint16 values in the range 1 to 65535"):
        made.read(tmp_path / "filled.tif", (1,))


def test_classes_have_no_range(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", (IMAGE * 40)[None].astype("uint16"))
    raster = made.read(tmp_path / "a.tif", (1,), categorical=True)
    assert raster.values.max() > 255


def test_a_dark_window_of_a_16_bit_image_is_judged_by_the_whole(tmp_path: Path) -> None:
    """Else the samples of a lake would be kept while their neighbours fail."""
    dark = np.concatenate([IMAGE, IMAGE, IMAGE * 40], axis=1)[None].astype("uint16")
    made.write(tmp_path / "a.tif", dark)
    with pytest.raises(ReadError, match=rf"in the range 1 to {dark.max()}, "):
        made.read(tmp_path / "a.tif", (1,))


@given(
    values=st.lists(st.floats(-1e3, 1e6, width=32), min_size=1, max_size=20),
    units=st.sampled_from(["power", "dB", "reflectance", "display"]),
)
def test_a_few_odd_pixels_refuse_nothing(values: list[float], units: Any) -> None:
    healthy = {"power": 0.1, "dB": -10.0, "reflectance": 0.2, "display": 9.0}[units]
    numbers = np.array([*values, *[healthy] * 21], np.float32)
    assert not contradicts(numbers, units)


@given(
    factor=st.floats(2.5, 200),
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(1, 5000),
)
def test_raw_numbers_are_refused_however_small_the_window(
    factor: float, seed: int, num: int
) -> None:
    """A few pixels of counts in the hundreds are no reflectance, and no image of 8 bits."""
    counts = np.random.default_rng(seed).uniform(110, 255, num).astype(np.float32) * factor
    assert contradicts(counts, "reflectance")
    assert contradicts(counts, "display")
