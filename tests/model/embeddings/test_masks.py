"""Pixels that were not observed, in any of the ways that a raster says so: the same embedding."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.embeddings.embed import embed
from tests.support.model.embedded import noise, raster, rows_of
from tests.support.model.nano import nano_model

HOLE = np.zeros((64, 64), bool)
HOLE[:20, :30] = True
IMAGE = np.maximum(noise(64, 64), 2)
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint, tmp_path_factory):
    """The embedding of an 8-bit raster with 0 tagged as nodata in the hole."""
    folder = tmp_path_factory.mktemp("tagged")
    path = raster(folder / "x.tif", np.where(HOLE, 0, IMAGE).astype(np.uint8), nodata=0)
    embed(checkpoint, [path], out=folder / "E", modalities=("lores",))
    rows = rows_of(folder / "E", "lores")
    assert rows["valid_fraction"] == pytest.approx([1 - HOLE.mean()])
    return rows["embedding"]


FLOATS = IMAGE.astype(np.float32)
# A value that says nothing by itself.
FILLED = np.where(HOLE, 1, IMAGE).astype(np.uint8)
TOP = HOLE & (np.arange(64) < 5)[:, None]
"""Part of the hole that is marked in another way than the rest."""
ALPHA = np.where(HOLE, 0, 255).astype(np.uint8)[None]
ALPHA_BELOW = np.where(HOLE & ~TOP, 0, 255).astype(np.uint8)[None]
STORED = {"units": "stored"}
WITH_ALPHA = {"photometric": "RGB", "alpha": "YES"}

MARKED = {
    "nan in floats": (np.where(HOLE, np.nan, FLOATS), {}, STORED),
    "--nodata nan": (np.where(HOLE, np.nan, FLOATS), {}, STORED | {"nodata": np.nan}),
    "--nodata -9999": (np.where(HOLE, -9999, FLOATS), {}, STORED | {"nodata": -9999.0}),
    "--nodata with few digits": (
        np.where(HOLE, np.finfo(np.float32).min, FLOATS),
        {},
        STORED | {"nodata": -3.4028235e38},
    ),
    "tagged nan": (np.where(HOLE, np.nan, FLOATS), {"nodata": np.nan}, STORED),
    "--nodata beside a tag": (
        np.where(TOP, -2, np.where(HOLE, -1, IMAGE.astype(np.int16))),
        {"nodata": -1},
        STORED | {"nodata": -2.0},
    ),
    "mask": (FILLED, {"mask": ~HOLE}, {}),
    "external mask": (FILLED, {"mask": ~HOLE, "internal": "NO"}, {}),
    "mask and nodata": (np.where(TOP, 0, FILLED), {"mask": ~HOLE | TOP, "nodata": 0}, {}),
    "alpha": (np.concatenate([FILLED, ALPHA]), WITH_ALPHA, {}),
    "alpha and nodata": (
        np.concatenate([np.where(TOP, 0, FILLED), ALPHA_BELOW]),
        WITH_ALPHA | {"nodata": 0},
        {},
    ),
    "alpha of floats": (np.concatenate([FILLED, ALPHA]).astype(np.float32), WITH_ALPHA, STORED),
}
"""A raster whose hole is marked in one way: values, how it is written, and options it needs."""


@pytest.mark.filterwarnings("ignore::rasterio.errors.NodataShadowWarning")
@pytest.mark.parametrize("kind", MARKED)
def test_what_was_not_observed_is_left_out(checkpoint, expected, tmp_path, kind):
    values, profile, options = MARKED[kind]
    profile = dict(profile)
    mask, internal = profile.pop("mask", None), profile.pop("internal", "YES")
    path = raster(tmp_path / "x.tif", values, **profile)
    if mask is not None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    names = {"bands": ("red", "green", "blue"), "modalities": ("lores",), **options}
    for repeat in range(2):  # again: the second call finds the first one's embeddings
        result = embed(checkpoint, [path], out=tmp_path / "E", **names)
        assert result.already_complete == bool(repeat)
    rows = rows_of(tmp_path / "E", "lores")
    assert rows["valid_fraction"] == pytest.approx([1 - HOLE.mean()])
    assert np.allclose(rows["embedding"], expected, atol=1e-5)


@pytest.mark.parametrize("nodata", [None, 255])
def test_an_alpha_band_that_is_a_measurement_masks_nothing(checkpoint, tmp_path, nodata):
    """As in NAIP, whose fourth band is near infrared; the file or the user says so."""
    image = np.minimum(noise(64, 64, bands=4), 250)
    image[3, :20] = 0  # dark water
    options = {"photometric": "RGB", "alpha": "YES", "nodata": nodata}
    paths = [raster(tmp_path / f"{k}.tif", image, **options) for k in range(2)]
    with rasterio.open(paths[0], "r+") as file:
        file.descriptions = ("red", "green", "blue", "nir")
    with rasterio.open(paths[0]) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    common = {"modalities": ("lores",)}
    embed(checkpoint, paths[:1], out=tmp_path / "D", **common)
    embed(
        checkpoint, paths[1:], out=tmp_path / "N", bands=("red", "green", "blue", "nir"), **common
    )
    embed(checkpoint, paths[1:], out=tmp_path / "A", **common)
    shares = {name: float(rows_of(tmp_path / name, "lores")["valid_fraction"][0]) for name in "DNA"}
    assert shares == pytest.approx({"D": 1.0, "N": 1.0, "A": 1 - 20 / 64})


@pytest.mark.parametrize(
    ("values", "nodata", "words"),
    [
        (IMAGE, -9999.0, r"--nodata -9999 is no value of uint8, whole numbers 0 to 255"),
        (IMAGE, 256.0, r"--nodata 256 is no value of uint8"),
        (IMAGE, 0.5, r"--nodata 0\.5 is no value of uint8"),
        (IMAGE, float("nan"), r"--nodata nan is no value of uint8"),
        (IMAGE.astype(np.uint16), -1.0, r"--nodata -1 is no value of uint16.* 0 to 65535"),
        (IMAGE.astype(np.float32), 1e39, r"--nodata 1e\+39 is beyond float32"),
    ],
)
def test_a_nodata_value_that_no_pixel_can_have_is_refused(
    checkpoint, tmp_path, values, nodata, words
):
    path = raster(tmp_path / "x.tif", values)
    with pytest.raises(UsageError, match=rf"x\.tif: {words}"):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), nodata=nodata)


def test_a_raster_of_nothing_but_nan_is_refused(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", np.full((3, 64, 64), np.nan, np.float32))
    options = {"modalities": ("lores",), "bands": ("red", "green", "blue"), "units": "stored"}
    with pytest.raises(UsageError, match="nothing is observed"):
        embed(checkpoint, [path], out=tmp_path / "E", **options)
