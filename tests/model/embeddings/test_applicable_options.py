"""Options that nothing of the inputs uses are refused by name, and not recorded."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import zarr

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.embeddings.embed import embed
from salibi_model.embeddings.sources import MixedRastersWarning
from tests.support.model.embedded import noise, raster
from tests.support.model.nano import nano_model

OF_RASTERS = {
    "window_px": (64, "--window-px"),
    "stride_px": (32, "--stride"),
    "bands": (("red", "green", "blue"), "--bands"),
    "units": ("display", "--units"),
    "scale": (1.0, "--scale"),
    "offset": (0.0, "--offset"),
    "nodata": (0.0, "--nodata"),
    "gsd_m": (3.7, "--gsd-m"),
    "gsd_ratio": (1.0, "--gsd-ratio"),
    "any_gsd": (True, "--any-gsd"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


@pytest.mark.parametrize("name", OF_RASTERS)
def test_options_of_rasters_are_refused_for_a_store(checkpoint, small_store, tmp_path, name):
    value, flag = OF_RASTERS[name]
    with pytest.raises(UsageError, match=rf"{flag}.* applies to rasters, but") as caught:
        embed(checkpoint, [small_store], out=tmp_path / "E", **{name: value})
    assert name in str(caught.value).replace("-", "_")
    assert not list(tmp_path.iterdir())


def test_all_of_them_are_named_at_once(checkpoint, small_store, tmp_path):
    words = (
        r"--window-px \(window_px\) and --nodata apply to rasters, but the input is a Salibi store"
    )
    with pytest.raises(UsageError, match=words):
        embed(checkpoint, [small_store], out=tmp_path / "E", window_px=64, nodata=0.0)


def test_a_split_is_refused_for_rasters(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", noise(64, 64))
    with pytest.raises(UsageError, match="--split applies to Salibi stores, but no input is one"):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",), split="test")


def test_a_store_beside_a_raster_takes_the_options_of_either(checkpoint, small_store, tmp_path):
    path = raster(tmp_path / "x.tif", noise(128, 64))
    options = {"modalities": ("lores",), "split": "validation", "window_px": 64}
    result = embed(checkpoint, [small_store, path], out=tmp_path / "E", **options)
    assert result.num_rows == {"lores": 6 + 2}
    choices = zarr.open_group(tmp_path / "E", mode="r").attrs["salibi_embedding"]["choices"]
    assert (choices["split"], choices["window_px"], choices["bands"]) == ("validation", 64, [])


@pytest.mark.parametrize("options", [{"scale": 2.0}, {"offset": 1.0}])
def test_a_scale_of_values_that_are_taken_as_they_are_is_refused(checkpoint, tmp_path, options):
    path = raster(tmp_path / "x.tif", noise(64, 64).astype(np.float32))
    with pytest.raises(UsageError, match=f"--{next(iter(options))} would change nothing.*'stored'"):
        embed(
            checkpoint, [path], out=tmp_path / "E", modalities=("lores",), units="stored",
            bands=("red", "green", "blue"), **options,
        )  # fmt: skip


def test_any_gsd_is_refused_where_none_is_given(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", noise(64, 64))
    with pytest.raises(UsageError, match=r"--any-gsd.*--gsd-ratio"):
        embed(checkpoint, [path], out=tmp_path / "E", gsd_ratio=1.0, any_gsd=True)


def test_a_modality_named_twice_is_refused(checkpoint, small_store, tmp_path):
    with pytest.raises(UsageError, match="'lores' twice"):
        embed(checkpoint, [small_store], out=tmp_path / "E", modalities=("lores", "sar", "lores"))


def test_rasters_that_fail_are_counted_and_the_others_not_named(checkpoint, tmp_path):
    paths = [raster(tmp_path / f"good_{k}.tif", noise(64, 64)) for k in range(3)]
    odd = [raster(tmp_path / f"odd_{k}.tif", noise(64, 64, bands=1)) for k in range(5)]
    inputs = [odd[0], *paths, *odd[1:]]
    options = {"out": tmp_path / "E", "modalities": ("lores",)}
    with pytest.raises(UsageError, match=r"5 of 8 inputs.*odd_0.*odd_2\.tif and 2 more") as caught:
        embed(checkpoint, inputs, **options)
    assert "good" not in str(caught.value)
    with pytest.raises(UsageError, match=r"^\S+odd_0\.tif has the bands gray") as caught:
        embed(checkpoint, [odd[0], *paths], **options)
    assert "good" not in str(caught.value)
    assert not (tmp_path / "E").exists()


def test_a_folder_of_images_is_no_store(checkpoint, tmp_path):
    raster(tmp_path / "x.tif", noise(64, 64))
    with pytest.raises(UsageError, match=r"a folder of 1 images, not a store.*/\*\.tif"):
        embed(checkpoint, [tmp_path], out=tmp_path / "E")


def test_one_scale_for_whole_numbers_and_fractions_is_warned_of(checkpoint, tmp_path):
    whole = [raster(tmp_path / f"{k}.tif", noise(64, 64).astype(np.uint16)) for k in range(2)]
    odd = raster(tmp_path / "odd.tif", noise(64, 64) / np.float32(2))
    options = {"modalities": ("lores",), "bands": ("red", "green", "blue"), "units": "display"}
    words = r"odd\.tif has values of float32, where most \(2 of 3\) have values of uint16"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", MixedRastersWarning)
        embed(checkpoint, [odd, *whole], out=tmp_path / "E", scale=1.0, **options)
    assert [bool(re.search(words, str(each.message))) for each in told] == [True]
    embed(checkpoint, [odd, *whole], out=tmp_path / "F", **options)


def test_a_path_alone_is_no_list(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", noise(64, 64))
    with pytest.raises(UsageError, match="inputs is a list of paths"):
        embed(checkpoint, str(path), out=tmp_path / "E", modalities=("lores",))
