"""Inputs that cannot be embedded: one clear line before the work."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

import salibi_model
from salibi_data.store.errors import StoreError, UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.embeddings.embed import embed
from tests.support.model.embedded import noise, raster, rows_of
from tests.support.model.nano import nano_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


# -- refusals


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (noise(64, 64), {}, "could be any of lores, hires_4x.*--modality"),
        (noise(64, 64, bands=1), {}, r"has the bands gray.*the model takes \(sar: vv, vh;"),
        (noise(64, 64, bands=2), {"modalities": ("sar",)}, "it lacks vv, vh.*--bands"),
        (noise(64, 64), {"bands": ("red", "green")}, r"red, green, rest.*--bands"),
        (noise(64, 64), {"bands": ("r", "g", "b", "n")}, "names 4 bands.*the file has 3"),
        (noise(64, 64), {"bands": ("red", "red", "blue")}, "a band twice"),
        (noise(64, 64).astype(np.uint16), {}, r"values are uint16.*'lores'.*display.*--units"),
        (noise(64, 64).astype(np.float32), {}, "values are float32.*--units"),
        (noise(64, 64).astype(np.uint16) * 9, {"units": "stored"}, "whole numbers 0..255; got"),
        (noise(64, 64) / np.float32(256), {"units": "stored"}, "whole numbers 0..255; got float32"),
        (noise(64, 64) / np.float32(256), {"units": "display"}, "hardly for display.*--scale 255"),
        (noise(64, 64).astype(np.uint16) * 9, {"units": "display"}, "display are 0..255; got from"),
        (noise(64, 64), {"units": "dB"}, "cannot be brought to the display.*stored, uint8"),
        (noise(64, 64), {"window_px": 50}, "do not divide.*such as 64"),
        (noise(64, 64).astype(np.complex64), {"units": "display"}, "expected real numbers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_the_work(checkpoint, tmp_path, values, options, words):
    names = ("red", "green", "blue") if len(values) == 3 else ()
    path = raster(tmp_path / "x.tif", values, names=names)
    named = {"modalities": ("lores",)} if "take" not in words and "any of" not in words else {}
    with pytest.raises(UsageError, match=words) as caught:
        embed(checkpoint, [path], out=tmp_path / "E", **{**named, **options})
    assert "x.tif" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("make", "units", "words"),
    [
        (lambda db: 10 ** (db / 10), "dB", "hardly in dB.*--units power"),
        (lambda db: db, "linear", "hardly power.*--units dB"),
        (lambda db: 1000 * 10 ** (db / 20), "linear", "calibrate"),
        (lambda db: db * 100, "dB", "hardly in dB.*calibrate"),
    ],
)
def test_radar_in_other_units_than_said_is_refused(checkpoint, tmp_path, make, units, words):
    decibel = np.random.default_rng(0).normal(-12, 3, (2, 64, 64))
    path = raster(tmp_path / "s.tif", make(decibel).astype(np.float32), names=("vv", "vh"))
    with pytest.raises(UsageError, match=words):
        embed(checkpoint, [path], out=tmp_path / "E", units=units)


def test_a_gsd_far_from_the_training_is_refused_unless_wanted(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", noise(64, 64), transform=Affine(60, 0, 480_000, 0, -60, 4e6))
    options = {"modalities": ("lores",), "out": tmp_path / "E"}
    with pytest.raises(
        UsageError, match=r"60\.\d+ m per pixel are 16\.\d times coarser.*\(3.7 m\)"
    ):
        embed(checkpoint, [path], **options)
    assert embed(checkpoint, [path], any_gsd=True, **options).num_rows == {"lores": 1}


def test_what_is_no_input_is_refused(checkpoint, small_store, tmp_path):
    (tmp_path / "notes.txt").write_text("no raster")
    for location, words in (("notes.txt", "cannot be read as a raster"), ("absent.tif", "raster")):
        with pytest.raises(UsageError, match=words):
            embed(checkpoint, [tmp_path / location], out=tmp_path / "E")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="no Zarr group is there"):
        embed(checkpoint, [tmp_path / "folder"], out=tmp_path / "E")
    with pytest.raises(UsageError, match="nothing to embed"):
        embed(checkpoint, [], out=tmp_path / "E")
    with pytest.raises(UsageError, match="no modality 'hires'"):
        embed(checkpoint, [small_store], out=tmp_path / "E", modalities=("hires",))


def test_a_raster_without_any_observation_is_refused(checkpoint, tmp_path):
    path = raster(tmp_path / "x.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    with pytest.raises(UsageError, match="nothing is observed in any of 1 images"):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",))
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_raster_keeps_what_was_embedded(checkpoint, tmp_path, monkeypatch):
    from salibi_model.embeddings import writer as embed_store

    monkeypatch.setattr(embed_store, "_PART_ROWS", 4)
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    for path in (good, bad):
        raster(path, noise(512, 512), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    bad.write_bytes(content)
    options = {"modalities": ("lores",), "window_px": 64, "out": tmp_path / "E"}
    with pytest.raises(StoreError, match=r"bad\.tif cannot be read at row \d+, column \d+"):
        embed(checkpoint, [good, bad], **options)
    assert not (tmp_path / "E").exists()


def test_tokens_of_images_of_several_sizes_are_refused(checkpoint, tmp_path):
    paths = [raster(tmp_path / f"{edge}.tif", noise(edge, edge)) for edge in (64, 80)]
    options = {"out": tmp_path / "E", "modalities": ("lores",), "tokens": True}
    with pytest.raises(UsageError, match=r"--tokens.*64.tif has 64x64 px; .*80.tif has 80x80 px"):
        embed(checkpoint, paths, **options)
    paths.append(raster(tmp_path / "another.tif", noise(64, 64)))
    with pytest.raises(UsageError, match=r"80.tif has 80x80 px, where most \(2 of 3\)") as caught:
        embed(checkpoint, paths, **options)
    assert "64.tif" not in str(caught.value)


def test_secrets_of_an_address_are_not_told(checkpoint, tmp_path):
    url = "http://user:secret@127.0.0.1:9/x.tif?sig=secret"
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:9/x\.tif cannot be read") as caught:
        embed(checkpoint, [url], out=tmp_path / "E")
    assert "secret" not in str(caught.value)


# -- models that do not know their metres


def test_a_model_without_metres_needs_a_ratio(tmp_path):
    folder = tmp_path / "model"
    save_model(nano_model().eval(), folder, training={})
    path = raster(tmp_path / "x.tif", noise(64, 64))
    options = {"modalities": ("lores",), "out": tmp_path / "E"}
    with pytest.raises(UsageError, match=r"x\.tif: this model does not know.*--gsd-ratio"):
        embed(folder, [path], **options)
    embed(folder, [path], gsd_ratio=2.0, **options)
    with rasterio.open(path) as dataset, torch.inference_mode():
        images = torch.from_numpy(dataset.read())[None]
        _, vector = salibi_model.load(folder).encode(images, "lores", 2.0)
    assert np.allclose(rows_of(tmp_path / "E", "lores")["embedding"], vector, atol=1e-5)
