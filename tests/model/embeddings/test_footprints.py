"""Outlines of windows on the Earth, against GDAL."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.warp import transform_geom

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.embeddings.embed import embed
from salibi_model.embeddings.footprints import outline, outlines
from tests.support.model.embedded import PLACE, UTM, noise, raster
from tests.support.model.nano import nano_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


# -- places


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, PLACE @ Affine.rotation(30)),
        ("EPSG:4326", Affine(1e-4, 0, 25, 0, -1e-4, 60)),
        ("EPSG:32601", Affine(10, 0, 150_000, 0, -10, 2_000_000)),
        ("EPSG:32660", Affine(100, 0, 820_000, 0, -100, 8_000_000)),
        ("EPSG:3832", Affine(10, 0, 3_339_584 - 1280, 0, -10, 1280)),
        ("EPSG:3031", Affine(30, 0, 500_000, 0, -30, 500_000)),
    ],
    ids=["rotated", "degrees", "utm-1", "utm-60", "antimeridian", "antarctica"],
)
def test_outlines_are_those_of_gdal(crs, transform):
    corners = [transform @ corner for corner in ((0, 0), (256, 0), (256, 256), (0, 256), (0, 0))]
    ring = {"type": "Polygon", "coordinates": [corners]}
    expected = shapely.geometry.shape(transform_geom(crs, "OGC:CRS84", ring))
    (outline,) = outlines([(0, 0, 256, 256)], transform, crs, pixel_m=10.0)
    assert outline.is_valid
    assert outline.geom_type == expected.geom_type
    assert outline.symmetric_difference(expected).area < 1e-6 * expected.area


def test_longitudes_beyond_half_a_turn_come_back():
    """A global raster from 0 to 360 degrees east: GDAL's warp leaves them as they are."""
    east = Affine(0.01, 0, 179, 0, -0.01, -17)
    (outline,) = outlines([(0, 0, 200, 200)], east, "EPSG:4326", pixel_m=1000.0)
    expected = shapely.union(shapely.box(179, -19, 180, -17), shapely.box(-180, -19, -179, -17))
    assert outline.symmetric_difference(expected).area < 1e-6
    far = Affine(0.01, 0, 200, 0, -0.01, -17)
    (outline,) = outlines([(0, 0, 200, 200)], far, "EPSG:4326", pixel_m=1000.0)
    assert outline.bounds == pytest.approx((-160, -19, -158, -17))
    whole = Affine(1.40625, 0, 0, 0, -0.703125, 90)
    (outline,) = outlines([(0, 0, 256, 256)], whole, "EPSG:4326", pixel_m=1e5)
    assert outline.area == pytest.approx(360 * 180)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90)])
def test_a_window_over_a_pole_covers_it(crs, pole):
    step = 100.0
    place = Affine(step, 0, -128 * step, 0, -step, 128 * step)
    (outline,) = outlines([(0, 0, 256, 256)], place, crs, pixel_m=step)
    assert outline.is_valid
    assert outline.covers(shapely.Point(12.3, pole))
    assert outline.bounds[0::2] == (-180, 180)
    assert abs(outline.bounds[1 if pole > 0 else 3]) == pytest.approx(89.83, abs=0.02)


def test_a_ring_without_a_pole_is_itself():
    lon, lat = np.array([10.0, 11, 11, 10]), np.array([50.0, 50, 49, 49])
    assert outline(lon, lat).equals(shapely.box(10, 49, 11, 50))


def test_a_raster_beyond_the_earth_is_refused(checkpoint, tmp_path):
    path = raster(
        tmp_path / "x.tif",
        noise(64, 64),
        crs="ESRI:54009",
        transform=Affine(5_000_000 / 64, 0, 16_000_000, 0, -5_000_000 / 64, 2_500_000),
    )
    with pytest.raises(
        UsageError, match=r"x\.tif: (some of its windows reach|the raster's centre)"
    ):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), any_gsd=True)
