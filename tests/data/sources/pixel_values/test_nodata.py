"""Missing values: of the catalog's TOML, the file or the item, and numbers that nothing measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.catalog.providers import Product
from salibi_data.sources.pixel_values.nodata import in_type
from tests.support.catalogs import made_rasters as made
from tests.support.catalogs.made_rasters import PX, disc, textured

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def filled(dtype: str, *values: float) -> NDArray[Any]:
    """Noise whose pixels outside of a disc are filled, each row with the next of the values."""
    with np.errstate(over="ignore"):
        pixels = textured().astype(dtype)
        for number, value in enumerate(values):
            rows = np.arange(PX)[:, None] % len(values) == number
            pixels[:, rows & ~disc()] = np.array(value).astype(dtype)
    return pixels


@pytest.mark.parametrize(
    ("dtype", "fills", "stated", "tag"),
    [
        ("uint8", (255,), 255, None),
        ("uint8", (255,), None, 255),
        ("uint8", (0, 255), [0, 255], None),
        ("uint8", (0,), 0, 255),  # the TOML's counts, not the file's
        ("int16", (-32768, -9999, 0), [-9999, 0.0, -32768], None),
        ("uint16", (65535,), [-9999, 65535], None),
        ("float32", (np.nan,), None, None),
        ("float32", (np.nan,), 0, None),
        ("float32", (np.nan,), np.nan, np.nan),
        ("float32", (np.nan, np.inf, -np.inf), None, None),
        ("float32", (-3.4028234663852886e38,), -3.4e38, None),
        ("float32", (-3.4028234663852886e38,), None, -3.4028234663852886e38),
        ("float32", (0.1,), 0.1, None),
        ("float32", (9.969209968386869e36,), None, None),
        ("float64", (-1.7976931348623157e308,), None, None),
        ("float64", (-9999.0, np.nan), [-9999], None),
    ],
)
def test_what_is_stated_and_what_is_no_number_is_missing(
    tmp_path: Path, dtype: str, fills: tuple[float, ...], stated: Any, tag: float | None
) -> None:
    pixels = filled(dtype, *fills)
    made.write(tmp_path / "a.tif", pixels, nodata=tag)
    raster = made.read(tmp_path / "a.tif", nodata=stated)
    assert np.array_equal(made.observed(raster), disc())
    assert np.array_equal(raster.values[:, disc()], pixels[:, disc()])
    assert raster.warnings == ()


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999), ("uint8", 256), ("int16", 0.5)])
def test_a_value_that_the_type_cannot_hold_marks_nothing_and_is_named(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    pixels = textured().astype(dtype)
    made.write(tmp_path / "a.tif", pixels)
    raster = made.read(tmp_path / "a.tif", nodata=nodata)
    assert np.array_equal(raster.values, pixels)
    (warning,) = raster.warnings
    assert f"nodata {nodata:g} of the catalog's TOML cannot occur among its {dtype}" in warning


def test_each_band_has_a_value_of_its_own(tmp_path: Path) -> None:
    pixels = textured()
    pixels[:, ~disc()] = [[1], [2], [3]]
    pixels[1][disc()], pixels[2][disc()] = 1, 2
    made.write(tmp_path / "a.tif", pixels)
    band = """<VRTRasterBand dataType="Byte" band="{k}"><NoDataValue>{k}</NoDataValue><SimpleSource>
      <SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{k}</SourceBand>
      </SimpleSource></VRTRasterBand>"""
    geotransform = ",".join(map(repr, made.transform().to_gdal()))
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="{PX}" rasterYSize="{PX}"><SRS>EPSG:3857</SRS>'
        f"<GeoTransform>{geotransform}</GeoTransform>"
        f"{''.join(band.format(k=k) for k in (1, 2, 3))}</VRTDataset>"
    )
    raster = made.read(tmp_path / "a.vrt", nodata_bands="all")
    assert np.array_equal(made.observed(raster), disc())


def test_the_items_value_counts_where_neither_the_toml_nor_the_file_has_one(
    tmp_path: Path,
) -> None:
    declared = {"declared": {"image": ({"nodata": 255},)}}
    made.write(tmp_path / "bare.tif", filled("uint8", 255))
    made.write(tmp_path / "tagged.tif", filled("uint8", 255), nodata=0)
    bare, tagged = tmp_path / "bare.tif", tmp_path / "tagged.tif"
    assert np.array_equal(made.observed(made.read(bare, scene=declared)), disc())
    assert made.observed(made.read(bare, scene=declared, nodata=())).all()
    assert made.observed(made.read(tagged, scene=declared)).all()


def test_power_of_zero_and_below_was_never_measured(tmp_path: Path) -> None:
    power = np.random.default_rng(0).gamma(4, 0.03, (1, PX, PX)).astype(np.float32) + 0.001
    power[:, ~disc()] = 0
    power[0, :3], power[0, 3:6], power[0, 6:9] = -32768, -0.001, 1e-10
    made.write(tmp_path / "a.tif", power, nodata=-32768)
    for nodata in (None, -32768):
        raster = made.read(tmp_path / "a.tif", (1,), units="power", nodata=nodata)
        assert np.array_equal(made.observed(raster), power[0] > 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        decibel = 10 * np.log10(power)
    decibel[0, ~disc()] = -np.inf
    made.write(tmp_path / "db.tif", decibel)
    raster = made.read(tmp_path / "db.tif", (1,), units="dB")
    assert np.array_equal(made.observed(raster), np.isfinite(decibel[0]) & (power[0] > 1e-9))


@given(
    value=st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**40), 2**40)),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]),
)
def test_a_value_in_a_type_is_what_a_file_of_it_holds_or_nothing(value: float, dtype: str) -> None:
    number = in_type(value, np.dtype(dtype))
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            rounded = np.array(value, np.float64).astype(dtype)
        assert number == rounded if np.isfinite(rounded) else number is None
    else:
        limits = np.iinfo(dtype)
        holds = limits.min <= value <= limits.max and value == int(value)
        assert number == value if holds else number is None
        assert number is None or number.dtype == dtype


@pytest.mark.parametrize("nodata", ["none", [0, "footprint"], True, [np.nan]])
def test_what_is_no_missing_value_is_refused(nodata: Any) -> None:
    with pytest.raises(ValueError, match=r"nodata is .*; expected a finite number or 'footprint'"):
        Product(units="display", bands={}, nodata=nodata)
