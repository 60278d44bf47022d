"""Photographs to embed: turned as Pillow turns them, and refused where GDAL misreads them."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps
from rasterio.windows import Window

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.data.image_files import inspect_image
from salibi_model.embeddings.embed import embed
from tests.support.model.embedded import noise, raster, rows_of
from tests.support.model.nano import nano_model

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PLAIN = {"modalities": ("lores",), "gsd_m": 3.7}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


def photograph(path, number, shape=(96, 72)):
    """A gradient, which JPEG keeps, with an EXIF orientation."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([2 * rows, 3 * columns, rows + columns], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = number
    Image.fromarray(image).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("number", range(10))
def test_images_stand_as_pillow_turns_them(tmp_path, suffix, number):
    path = photograph(tmp_path / f"x.{suffix}", number)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1).astype(int)
    with rasterio.open(path) as dataset:
        turn, _ = inspect_image(dataset, path)
        whole = turn.apply(dataset.read())
        upright = turn.shape(*dataset.shape)
        row, column, rows, columns = turn.window_in_file((5, 7, 20, 11), upright)
        part = turn.apply(dataset.read(window=Window(column, row, columns, rows)))
    assert whole.shape == expected.shape == (3, *upright)
    assert np.abs(whole - expected).max() <= (8 if suffix == "jpg" else 0)
    np.testing.assert_array_equal(part, whole[:, 5:25, 7:18])


@pytest.mark.parametrize("number", [3, 6, 7])
def test_a_turned_photograph_is_embedded_upright(checkpoint, tmp_path, number):
    path = photograph(tmp_path / "turned.png", number)
    with Image.open(path) as image:
        ImageOps.exif_transpose(image).save(tmp_path / "upright.png")
    for name in ("turned", "upright"):
        options = PLAIN | {"out": tmp_path / name, "window_px": 64}
        embed(checkpoint, [tmp_path / f"{name}.png"], **options)
    turned, upright = (rows_of(tmp_path / name, "lores") for name in ("turned", "upright"))
    assert len(turned["window"]) == 4
    np.testing.assert_array_equal(turned["window"], upright["window"])
    np.testing.assert_array_equal(turned["embedding"], upright["embedding"])


def test_a_file_with_a_place_is_never_turned(checkpoint, tmp_path):
    photograph(tmp_path / "x.jpg", 6)
    (tmp_path / "x.jgw").write_text("4\n0\n0\n-4\n480000\n4000000\n")  # a world file
    raster(tmp_path / "place.tif", noise(96, 72))
    with rasterio.open(tmp_path / "x.jpg") as dataset:
        assert inspect_image(dataset, tmp_path / "x.jpg")[0].shape(*dataset.shape) == (96, 72)
    embed(checkpoint, [tmp_path / "x.jpg"], out=tmp_path / "E", **PLAIN)
    assert rows_of(tmp_path / "E", "lores")["window"].tolist() == [[0, 0, 96, 80]]


def as_mode(path, mode):
    Image.fromarray(noise(64, 64).transpose(1, 2, 0)).convert(mode).save(path)


def cut_off(path):
    as_mode(path, "RGB")
    path.write_bytes(path.read_bytes()[:-300])


def inverted(path):
    raster(path, noise(64, 64, bands=1), photometric="MINISWHITE")


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("x.png", lambda path: as_mode(path, "P"), "numbers of a colour table"),
        ("x.tif", lambda path: as_mode(path, "P"), "numbers of a colour table"),
        ("x.png", lambda path: as_mode(path, "1"), "values of 1 bit, 0 to 1"),
        ("x.tif", lambda path: as_mode(path, "LAB"), "colours as CIELAB"),
        ("x.tif", inverted, "0 for white"),
        ("x.png", cut_off, "cut off"),
        ("x.png", lambda path: path.touch(), "cannot be read as a raster .it is empty"),
        ("x.tif", lambda path: path.touch(), "cannot be read as a raster"),
    ],
)
def test_images_that_would_be_misread_are_refused(checkpoint, tmp_path, name, write, words):
    write(tmp_path / name)
    with pytest.raises(UsageError, match=rf"{name} .*{words}"):
        embed(checkpoint, [tmp_path / name], out=tmp_path / "E", bands=("red",), **PLAIN)
    assert not (tmp_path / "E").exists()


def test_a_truncated_jpeg_is_named(checkpoint, tmp_path):
    as_mode(tmp_path / "x.jpg", "RGB")
    content = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises((StoreError, UsageError), match=r"x\.jpg cannot be read at row 0"):
        embed(checkpoint, [tmp_path / "x.jpg"], out=tmp_path / "E", **PLAIN)


def test_a_transparent_or_printed_image_is_read_as_pillow_shows_it(checkpoint, tmp_path):
    image = Image.fromarray(np.maximum(noise(64, 64), 1).transpose(1, 2, 0))
    image.save(tmp_path / "rgb.png")
    image.convert("RGBA").save(tmp_path / "rgba.png")
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    names = ("rgb.png", "rgba.png", "cmyk.tif")
    embed(checkpoint, [tmp_path / name for name in names], out=tmp_path / "E", **PLAIN)
    rows = rows_of(tmp_path / "E", "lores")
    assert rows["valid_fraction"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(rows["embedding"][1:], rows["embedding"][[0, 0]], atol=1e-6)
