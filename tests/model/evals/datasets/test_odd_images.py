"""Folders with images that are not like the others: named, counted, or warned of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.evals.datasets.class_folders import MixedImagesWarning
from salibi_model.evals.datasets.image_folders import LeftOutWarning
from salibi_model.evals.datasets.open import open_data, open_labelled

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # of the writers below
)
NAMES = tuple(f"{label}/{label}_{k}.png" for label in ("crop", "water") for k in range(4))
EDGE = 24


def pixels(seed: int, shape: tuple[int, ...] = (EDGE, EDGE, 3), dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, shape).astype(dtype)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight PNG images of two classes."""
    for k, name in enumerate(NAMES):
        (tmp_path / "few" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(k)).save(tmp_path / "few" / name)
    return tmp_path / "few"


def read_all(root: Path, **options: object) -> np.ndarray:
    """Every image, in an order that begins with the training images."""
    data = open_labelled(root, gsd_m=1.0, **options)
    return data.read(range(len(data._paths)), data.bands)


def to_gray(path: Path) -> None:
    with Image.open(path) as image:
        gray = image.convert("L")
    gray.save(path)


def to_other_size(path: Path) -> None:
    Image.fromarray(pixels(0, (2 * EDGE, EDGE, 3))).save(path)


def to_damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def to_empty(path: Path) -> None:
    path.write_bytes(b"")


def to_palette(path: Path) -> None:
    with Image.open(path) as image:
        palette = image.convert("P")
    palette.save(path)


def to_one_bit(path: Path) -> None:
    with Image.open(path) as image:
        bits = image.convert("1")
    bits.save(path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (to_gray, r"has 1 band \(gray\), where most \(7 of 8\) have 3 bands"),
        (to_other_size, r"has \(48, 24\) pixels; most images have \(24, 24\)"),
        (to_damaged, r"ends before its last chunk"),
        (to_empty, r"cannot be read as an image"),
        (to_palette, r"numbers of a colour table"),
        (to_one_bit, r"values of 1 bit"),
    ],
)
@pytest.mark.parametrize("odd", [NAMES[0], NAMES[3], NAMES[5]])
def test_the_odd_image_is_named_and_no_other(root: Path, odd: str, spoil, words: str) -> None:
    spoil(root / odd)
    with pytest.raises(StoreError, match=words) as caught:
        read_all(root)
    assert odd in str(caught.value)
    assert not [name for name in NAMES if name != odd and name in str(caught.value)]


def test_several_odd_images_are_counted_and_the_first_few_named(root: Path) -> None:
    for k in range(8, 13):
        Image.fromarray(pixels(k)).save(root / "crop" / f"crop_{k}.png")
    odd = [f"crop/crop_{k}.png" for k in range(4)]
    for name in odd:
        to_gray(root / name)
    with pytest.raises(StoreError, match=r"and 1 more have 1 band .*most \(9 of 13\)") as caught:
        read_all(root)
    assert len([name for name in odd if name in str(caught.value)]) == 3
    assert "water" not in str(caught.value)
    for name in odd:
        to_empty(root / name)
    with pytest.raises(StoreError, match=r"4 of the 13 images .*and 1 more\. .*cannot be read"):
        read_all(root)


def test_of_two_halves_each_is_named_with_its_number(root: Path) -> None:
    for name in NAMES[::2]:
        to_gray(root / name)
    with pytest.raises(StoreError) as caught:
        read_all(root)
    message = str(caught.value)
    assert "4 have 1 band (gray), such as" in message
    assert "4 have 3 bands (red, green, blue), such as" in message
    assert any(name in message for name in NAMES[::2])
    assert any(name in message for name in NAMES[1::2])


def test_an_odd_image_that_was_not_looked_at_first_is_named_when_read(tmp_path: Path) -> None:
    """Of many images the headers of a few are read at once."""
    for label in ("a", "b"):
        for k in range(60):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(pixels(k, (8, 8, 3))).save(tmp_path / label / f"{k:03}.png")
    opened = open_labelled(tmp_path, gsd_m=1.0)
    odd = opened._paths[1]  # two in three are passed over
    to_gray(odd)
    with pytest.raises(StoreError, match=rf"{odd.name} has 1 band .*most \(119 of 120\)"):
        read_all(tmp_path)


def test_bands_in_another_order_are_read_by_their_names(tmp_path: Path) -> None:
    names = ("red", "green", "blue")
    for label in ("a", "b"):
        for k in range(3):
            order = (2, 0, 1) if (label, k) == ("b", 1) else (0, 1, 2)
            (tmp_path / label).mkdir(exist_ok=True)
            path = tmp_path / label / f"{k}.tif"
            with rasterio.open(
                path, "w", driver="GTiff", count=3, height=8, width=8, dtype="uint8"
            ) as file:
                file.write(np.stack([np.full((8, 8), 10 * (band + 1), "uint8") for band in order]))
                file.descriptions = tuple(names[band] for band in order)
    data = open_labelled(tmp_path, gsd_m=1.0)
    for image in data.read(range(6), ("blue", "red")):
        assert image[:, 0, 0].tolist() == [30, 10]
    with rasterio.open(tmp_path / "a" / "2.tif", "r+") as file:
        file.descriptions = ("nir", "green", "blue")
    with pytest.raises(StoreError, match=r"a/2\.tif has 3 bands \(nir, green, blue\), where most"):
        read_all(tmp_path)


# What is left out


def test_files_left_out_are_counted_by_suffix(root: Path) -> None:
    for name in ("crop/notes.txt", "water/more.TXT", "crop/x.gif", "y.bmp", "water/z.png.aux.xml"):
        (root / name).write_text("of the publisher")
    words = r"few: left out 4 files: \.txt 2, (\.bmp 1, \.gif 1|\.gif 1, \.bmp 1)\. Images are"
    with pytest.warns(LeftOutWarning, match=words):
        assert len(read_all(root)) == 8


def test_folders_within_a_class_are_left_out_and_told(root: Path) -> None:
    shutil.copytree(root / "water", root / "crop" / "more")
    with pytest.warns(LeftOutWarning, match=r"left out 1 folder: crop/more\."):
        assert len(read_all(root)) == 8


def test_what_systems_leave_behind_is_not_told(root: Path) -> None:
    shutil.copytree(root / "crop", root / "__MACOSX")
    shutil.copytree(root / "crop", root / ".cache")
    for name in ("._crop_0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "crop_0.png.aux.xml"):
        (root / "crop" / name).write_bytes(b"\0")
    Image.fromarray(pixels(9)).save(root / "crop" / "UPPER.PNG")
    data = open_labelled(root, gsd_m=1.0)
    assert data.classes == ("crop", "water")
    assert len(data._paths) == 9


def test_split_folders_beside_other_ones_are_told(root: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test", "extra"):
        shutil.copytree(root, tmp_path / "splits" / split)
    (tmp_path / "splits" / "train" / "crop" / "list.csv").write_text("")
    with pytest.warns(LeftOutWarning) as caught:
        open_labelled(tmp_path / "splits", gsd_m=1.0)
    told = " ".join(str(each.message) for each in caught)
    assert "left out 1 file: .csv 1." in told
    assert "left out 1 folder: extra." in told


def test_a_name_that_is_not_utf_8_is_named(root: Path) -> None:
    odd = os.fsdecode(os.fsencode(root) + b"/crop/caf\xe9.png")
    shutil.copy(root / NAMES[0], odd)
    with pytest.raises(StoreError, match=r"crop/caf\\xe9\.png has a name that is not UTF-8"):
        read_all(root)


def test_any_character_of_a_name_is_kept(root: Path) -> None:
    names = (
        "a?x=1.png",
        "a?x=2.png",
        "b#1.png",
        "50%.png",
        "a%20b.png",
        "é 日.png",
        "x\ny.png",
        "-.png",
    )
    for k, name in enumerate(names):
        Image.fromarray(pixels(20 + k)).save(root / "crop" / "new.png")
        (root / "crop" / "new.png").rename(root / "crop" / name)
    data = open_labelled(root, gsd_m=1.0)
    images = data.read(range(len(data._paths)), data.bands)
    for k, name in enumerate(names):
        image = images[data._paths.index(root / "crop" / name)]
        np.testing.assert_array_equal(image, pixels(20 + k).transpose(2, 0, 1))


# Kinds of images


def test_photographs_are_turned_as_pillow_turns_them(tmp_path: Path) -> None:
    for k in range(8):
        for label in ("a", "b"):
            exif = Image.Exif()
            exif[274] = k + 1
            (tmp_path / label).mkdir(exist_ok=True)
            image = Image.fromarray(pixels(k, (EDGE, EDGE - 1, 3)))
            image.save(tmp_path / label / f"{k}.png", exif=exif)
    data = open_labelled(tmp_path, gsd_m=1.0)
    assert data.read([0], data.bands).shape[-2:] in {(EDGE, EDGE - 1), (EDGE - 1, EDGE)}
    for path in data._paths:
        image = data._image(path, data.bands)
        with Image.open(path) as original:
            upright = np.asarray(ImageOps.exif_transpose(original)).transpose(2, 0, 1)
        if upright.shape == image.shape:
            np.testing.assert_array_equal(image, upright)


@pytest.mark.parametrize("by_class", [True, False])
def test_images_of_8_and_16_bits_are_warned_of(root: Path, by_class: bool) -> None:
    wide = [name for name in NAMES if name.startswith("water")] if by_class else [NAMES[2]]
    for name in wide:
        path = (root / name).with_suffix(".tif")
        (root / name).unlink()
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=EDGE, width=EDGE, dtype="uint16"
        ) as file:
            file.write(pixels(1, (3, EDGE, EDGE), "uint16") * 200)
    words = (
        r"images of 'water' have 16-bit values \(uint16\), images of 'crop' have 8-bit values "
        r"\(uint8\): the range of the values gives the class away"
        if by_class
        else r"crop_2\.tif has 16-bit values \(uint16\), where most \(7 of 8\) have 8-bit values"
    )
    with pytest.warns(MixedImagesWarning, match=words):
        open_labelled(root, gsd_m=1.0)


def test_a_type_that_comes_later_is_warned_of_when_read(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(60):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(pixels(k, (8, 8))).save(tmp_path / label / f"{k:03}.png")
    odd = open_labelled(tmp_path, gsd_m=1.0)._paths[1]
    Image.fromarray(pixels(1, (8, 8), "uint16")).save(odd)
    with pytest.warns(MixedImagesWarning, match=rf"{odd.name} has 16-bit values \(uint16\)"):
        read_all(tmp_path)


def test_formats_that_differ_by_class_are_warned_of(root: Path) -> None:
    for path in (root / "water").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
    words = "images of 'water' have the format JPEG, images of 'crop' have the format PNG"
    with pytest.warns(MixedImagesWarning, match=words):
        open_labelled(root, gsd_m=1.0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_modes_are_read_to_their_values(tmp_path: Path, mode: str) -> None:
    values = {"I;16": pixels(0, (8, 8), "uint16") * 200, "F": pixels(0, (8, 8)) / np.float32(7)}
    suffix = "tif" if mode == "F" else "png"
    for label in ("a", "b"):
        for k in range(3):
            (tmp_path / label).mkdir(exist_ok=True)
            image = Image.fromarray(values.get(mode, pixels(k, (8, 8, 3))))
            image = image if mode in values else image.convert(mode)
            image.save(tmp_path / label / f"{k}.{suffix}")
    data = open_labelled(tmp_path, gsd_m=1.0)
    for path, image in zip(data._paths, data.read(range(6), data.bands), strict=True):
        with Image.open(path) as original:
            shown = np.atleast_3d(np.asarray(original)).transpose(2, 0, 1)
        np.testing.assert_array_equal(image, shown[: len(data.bands)].astype(np.float32))


# Several folders


def test_folders_of_one_name_are_told_apart(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "other" / "few")
    paths = [str(root), str(tmp_path / "other" / "few")]
    assert [data.name for data in open_data(paths[:1], gsd_m=1.0)] == ["few"]
    names = [data.name for data in open_data(paths, gsd_m=1.0)]
    assert names == [f"{tmp_path.name}/few", "other/few"]
    with pytest.raises(UsageError, match="few is given twice"):
        open_data([paths[0], f"{paths[0]}/"], gsd_m=1.0)


@pytest.mark.parametrize("partition", ["default", "0.10x_train"])
def test_a_partition_is_refused_for_folders(root: Path, partition: str) -> None:
    with pytest.raises(UsageError, match=r"--partition applies to GEO-Bench tasks, but .*few"):
        open_labelled(root, gsd_m=1.0, partition=partition)
