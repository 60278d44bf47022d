"""Metres per pixel of georeferenced rasters, held against PROJ's own projections and formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform as to_crs

from salibi_data.store.errors import UsageError
from salibi_model.data.pixel_size import dataset_pixel_m, pixel_m
from tests.support.data.real_catalogs import NAIP, OPERA, PUNJAB, REAL, needs_real

SHAPE = (128, 256)


def around(x, y, step_x, step_y=None):
    """The transform of a raster of ``SHAPE`` whose centre is at (x, y)."""
    step_y = step_x if step_y is None else step_y
    return Affine(step_x, 0, x - step_x * SHAPE[1] / 2, 0, -step_y, y + step_y * SHAPE[0] / 2)


def by_projection(transform, crs, shape):
    """The oracle: the pixel's corners in an equal-area projection of the ellipsoid, made for it."""
    middle = transform @ (shape[1] / 2, shape[0] / 2)
    lon, lat = (values[0] for values in to_crs(crs, "OGC:CRS84", [middle[0]], [middle[1]]))
    corners = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    at = [transform @ (shape[1] / 2 + i, shape[0] / 2 + j) for i, j in corners]
    local = f"+proj=laea +lat_0={lat!r} +lon_0={lon!r} +datum=WGS84 +units=m"
    x, y = map(np.array, to_crs(crs, local, *zip(*at, strict=True)))
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2) ** 0.5


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32617", around(680_000, 4_207_000, 1.0)),
        ("EPSG:32617", around(500_000, 9_000_000, 60.0)),
        ("EPSG:3857", around(-8_500_000, 5_000_000, 4.7)),
        ("EPSG:4326", around(73.3, 30.4, 1e-4, 9e-5)),
        ("EPSG:4326", around(180.0, -17.0, 1e-3)),
        ("EPSG:4269", around(-66.0, 18.2, 5e-6)),
        ("EPSG:2263", around(980_000, 200_000, 0.5)),
        ("EPSG:3413", around(0.0, 0.0, 1000.0)),
        ("EPSG:32617", Affine.translation(680_000, 4_207_000) @ Affine.rotation(30)),
    ],
    ids=[
        "utm",
        "utm-north",
        "mercator",
        "degrees",
        "antimeridian",
        "nad83",
        "feet",
        "pole",
        "rotated",
    ],
)
def test_a_pixel_has_the_area_that_an_equal_area_projection_gives_it(crs, transform):
    expected = by_projection(transform, crs, SHAPE)
    assert pixel_m(transform, crs, SHAPE) == pytest.approx(expected, rel=1e-6)


@given(zoom=st.integers(8, 19), lat=st.floats(-75, 75), lon=st.floats(-179, 179))
def test_web_mercator_follows_the_tile_formula(zoom, lat, lon):
    step = 2 * math.pi * 6378137 / 256 / 2**zoom
    x = math.radians(lon) * 6378137
    y = math.asinh(math.tan(math.radians(lat))) * 6378137
    expected = 156543.03 * math.cos(math.radians(lat)) / 2**zoom
    size_m = pixel_m(around(x, y, step), "EPSG:3857", SHAPE)
    assert size_m == pytest.approx(expected, rel=0.008)
    if abs(lat) > 30:
        assert size_m == pytest.approx(expected, rel=0.004)


def test_degrees_at_60_north_are_half_as_wide_as_high():
    """A degree of latitude is 111.41 km there, one of longitude 55.80 km."""
    assert pixel_m(around(25, 60, 0.001), "EPSG:4326", SHAPE) == pytest.approx(
        math.sqrt(111.412 * 55.800), rel=1e-4
    )


def test_feet_are_converted():
    metres = pixel_m(around(300_000, 60_000, 1.0), "EPSG:32118", SHAPE)
    feet = pixel_m(around(300_000 * 3937 / 1200, 60_000 * 3937 / 1200, 1.0), "EPSG:2263", SHAPE)
    assert feet / metres == pytest.approx(1200 / 3937, rel=1e-7)


def test_it_is_measured_at_the_centre():
    """A tall Mercator raster: its ground pixel is that of its middle, not of a corner."""
    step = 10_000.0
    tall = Affine(step, 0, 0, 0, -step, 8_000_000)
    low, high = (pixel_m(tall, "EPSG:3857", (rows, 1)) for rows in (1600, 2))
    assert low == pytest.approx(step, rel=0.005)
    assert high < 0.6 * step


@needs_real
def test_real_rasters():
    """UTM scale factors: 0.9996 (1 + E^2 / 2 R^2), E metres from the central meridian."""
    with rasterio.open(NAIP) as dataset:
        east = dataset.transform.c + dataset.width / 2 - 500_000
        scale = 0.9996 * (1 + (east / 6_371_000) ** 2 / 2)
        assert dataset_pixel_m(dataset) == pytest.approx(1 / scale, rel=1e-5)
    assert dataset_pixel_m(str(NAIP)) == pytest.approx(1 / scale, rel=1e-5)
    assert dataset_pixel_m(REAL / "naip/m_3211605_ne_11_060_20200415.tif") == pytest.approx(
        0.6, rel=0.005
    )
    assert dataset_pixel_m(min(OPERA.glob("*.tif"))) == pytest.approx(30, rel=0.001)
    assert dataset_pixel_m(REAL / "s2_patagonia/s2_patagonia_6band_10m.tif") == pytest.approx(
        10, rel=0.001
    )


@needs_real
def test_real_rasters_in_degrees():
    """Sentinel-2 bands of 10, 20 and 60 m, resampled to degrees by their publisher."""
    folder = next((PUNJAB / "s2_l2a").iterdir())
    fine, half, sixth = (dataset_pixel_m(folder / f"{band}.tif") for band in ("B2", "B5", "B1"))
    assert fine == pytest.approx(10, rel=0.03)
    assert half / fine == pytest.approx(2, rel=1e-4)
    assert sixth / fine == pytest.approx(6, rel=1e-4)


@pytest.mark.parametrize("crs", [None, "", rasterio.CRS()])
def test_no_crs_is_refused(crs):
    with pytest.raises(UsageError, match=r"no coordinate reference system.*gsd_ratio"):
        pixel_m(Affine.identity(), crs, SHAPE)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32611", around(1e12, 1e12, 1.0)),
        ("EPSG:4326", around(200.0, 95.0, 1e-3)),
        ('LOCAL_CS["drawing",UNIT["metre",1]]', around(0, 0, 1.0)),
        ("+proj=longlat +R=3396190 +no_defs", around(10, 10, 1e-3)),
        ("nonsense", around(0, 0, 1.0)),
        ("EPSG:32611", around(math.nan, 0, 1.0)),
    ],
    ids=["outside", "beyond-pole", "local", "mars", "nonsense", "nan"],
)
def test_what_has_no_place_on_earth_is_refused(crs, transform):
    with pytest.raises(UsageError, match="no longitude and latitude"):
        pixel_m(transform, crs, SHAPE)


def test_pixels_without_area_are_refused():
    with pytest.raises(UsageError, match="no area"):
        pixel_m(Affine(1, 0, 500_000, 0, 0, 4_000_000), "EPSG:32617", SHAPE)


def test_files_without_place_are_refused_by_name(tmp_path):
    path = tmp_path / "plain.png"
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="PNG", width=8, height=8, count=1, dtype="uint8") as image,
    ):
        image.write(np.ones((1, 8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"plain\.png: .*no coordinate reference system"):
        dataset_pixel_m(path)
    with pytest.raises(UsageError, match=r"absent\.tif cannot be read"):
        dataset_pixel_m(tmp_path / "absent.tif")
