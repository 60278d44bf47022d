"""Class-per-folder images: found, split, brought to one size, and read to their true values."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.evals.datasets.image_folders import _random_split
from salibi_model.evals.datasets.labelled import LabelledImages
from salibi_model.evals.datasets.open import open_all, open_labelled
from tests.support.data.real_catalogs import REAL, needs_real

if TYPE_CHECKING:
    from salibi_model.evals.datasets.labelled import LabelledImages

SPLITS = ("train", "validation", "test")
EUROSAT = REAL / "labelled" / "eurosat_rgb_few"
UC_MERCED = REAL / "labelled" / "ucmerced_landuse_few"

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
RGBN = (*RGB, ColorInterp.undefined)

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # of the writers below
)


def pixels(seed: int, shape: tuple[int, ...] = (12, 16, 3), dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, shape).astype(dtype)


def png(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def tif(path: Path, values: np.ndarray, **profile: object) -> Path:
    """Write a GeoTIFF of (bands, rows, cols)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptions = profile.pop("descriptions", None)
    colours = profile.pop("colours", None)
    shape = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, **shape, **profile) as file:
        if descriptions:
            file.descriptions = descriptions
        if colours:
            file.colorinterp = colours
        file.write(values)
    return path


def data_set(root: Path, classes: Mapping[str, int]) -> Path:
    """PNG images, as many of each class as told."""
    for k, (name, num) in enumerate(classes.items()):
        for number in range(num):
            png(root / name / f"{name}_{number}.png", pixels(100 * k + number))
    return root


def names(data: LabelledImages, split: str) -> list[str]:
    return [data._paths[k].name for k in data.split_indices(split)]


# What is read


def test_images_read_as_pillow_shows_them(tmp_path: Path) -> None:
    root = data_set(tmp_path / "few", {"forest": 3, "airplane": 4})
    data = open_labelled(root, gsd_m=2.5)
    assert (data.name, data.task, data.gsd_m) == ("few", "classification", 2.5)
    assert data.classes == ("airplane", "forest")
    assert data.bands == ("red", "green", "blue")
    everything = range(7)
    images = data.read(everything, ["blue", "red"])
    assert images.dtype == np.float32
    for k, label in zip(everything, data.labels(everything), strict=True):
        path = data._paths[k]
        assert path.parent.name == data.classes[label]
        expected = np.asarray(Image.open(path)).transpose(2, 0, 1)[[2, 0]]
        np.testing.assert_array_equal(images[k], expected)


def test_multispectral_16_bit_files_keep_their_values_and_say_their_gsd(tmp_path: Path) -> None:
    where = {
        "crs": "EPSG:32631",
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000),
        "nodata": 0,
    }
    for label in ("a", "b"):
        for k in range(3):
            values = pixels(k, (13, 8, 8), "uint16") * 40
            values[2, 1, 1] = 0
            tif(tmp_path / label / f"{k}.tif", values, **where)
    data = open_labelled(tmp_path)
    assert data.bands == tuple(f"band{k}" for k in range(1, 14))
    assert data.gsd_m == pytest.approx(10, rel=1e-3)
    image = data.read([0], ["band3"])[0, 0]
    with rasterio.open(data._paths[0]) as file:
        expected = file.read(3).astype(np.float32)
    assert np.argwhere(np.isnan(image)).tolist() == [[1, 1]]
    expected[1, 1] = np.nan
    np.testing.assert_array_equal(image, expected)


def test_bands_are_named_by_the_files_or_the_user(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(3):
            described = ("B8", "B4") if k < 9 else None
            tif(tmp_path / "x" / label / f"{k}.tif", pixels(k, (2, 8, 8)), descriptions=described)
            tif(tmp_path / "y" / label / f"{k}.tif", pixels(k, (4, 8, 8)), colours=RGBN)
    assert open_labelled(tmp_path / "x", gsd_m=1.0).bands == ("b8", "b4")
    assert open_labelled(tmp_path / "y", gsd_m=1.0).bands == ("red", "green", "blue", "nir")
    named = open_labelled(tmp_path / "x", gsd_m=1.0, bands=("nir", "red"))
    np.testing.assert_array_equal(
        named.read([0], ["red"]), open_labelled(tmp_path / "x", gsd_m=1.0).read([0], ["b4"])
    )
    with pytest.raises(StoreError, match=r"has 2 bands where 3 are expected \(a, b, c\)"):
        open_labelled(tmp_path / "x", gsd_m=1.0, bands=("a", "b", "c"))


def test_a_fourth_band_that_gdal_calls_transparency_is_one_if_named(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(3):
            values = pixels(k, (4, 8, 8))
            values[3, 2, 5] = 0  # dark water
            tif(tmp_path / label / f"{k}.tif", values)
    assert open_labelled(tmp_path, gsd_m=1.0).bands == ("red", "green", "blue")
    named = open_labelled(tmp_path, gsd_m=1.0, bands=("red", "green", "blue", "nir"))
    image = named.read([0], ["nir", "red"])[0]
    with rasterio.open(named._paths[0]) as file:
        np.testing.assert_array_equal(image, file.read([4, 1]))


def test_transparent_pixels_are_no_measurement(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(3):
            values = pixels(k, (8, 8, 4))
            values[..., 3] = 255
            values[2, 3, 3] = 0
            png(tmp_path / label / f"{k}.png", values)
    data = open_labelled(tmp_path, gsd_m=1.0)
    assert data.bands == ("red", "green", "blue")
    image = data.read([0], data.bands)[0]
    assert np.argwhere(np.isnan(image[0])).tolist() == [[2, 3]]


def test_a_few_pixels_more_or_less_are_resampled(tmp_path: Path) -> None:
    """As UC Merced has them: 256 x 256, and some of 253 x 256."""
    root = data_set(tmp_path, {"a": 4, "b": 4})
    ramp = np.broadcast_to(np.linspace(20, 200, 17), (12, 17))[..., None].repeat(3, axis=2)
    odd = png(root / "a" / "odd.png", ramp.astype(np.uint8))
    data = open_labelled(root, gsd_m=1.0)
    assert data.read(range(9), ["red"]).shape == (9, 1, 12, 16)
    image = data.read([data._paths.index(odd)], ["red"])[0, 0]
    np.testing.assert_allclose(image[5], np.linspace(20, 200, 16), atol=8)
    png(odd, pixels(1, (12, 30, 3)))
    with pytest.raises(StoreError, match=r"odd.png has \(12, 30\) pixels; most .* \(12, 16\)"):
        open_labelled(root, gsd_m=1.0).read(range(9), ["red"])


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = open_labelled(data_set(tmp_path, {"a": 10, "b": 9}), gsd_m=1.0)
    train = data.read(data.split_indices("train"), ["green", "red"]).astype(np.float64)
    mean, std = data.statistics(["green", "red"])
    np.testing.assert_allclose(mean, train.mean((0, 2, 3)))
    np.testing.assert_allclose(std, train.std((0, 2, 3)))


def test_a_constant_band_can_be_divided_by(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(3):
            png(tmp_path / label / f"{k}.png", np.full((8, 8, 3), 77, np.uint8))
    mean, std = open_labelled(tmp_path, gsd_m=1.0).statistics(["red"])
    assert (mean[0], std[0]) == (77, 1)


# Splits


@given(num=st.integers(3, 60), seed=st.integers(0, 2**31))
def test_a_random_split_shares_nothing_and_leaves_nothing_out(num: int, seed: int) -> None:
    paths = [Path(f"r/c/{k}.png") for k in range(num)]
    found = _random_split({"c": paths}, seed, Path("r"))
    parts = [found[split]["c"] for split in SPLITS]
    assert sorted(sum(parts, [])) == sorted(paths)  # noqa: RUF017
    assert all(parts)
    assert abs(len(parts[1]) - 0.2 * num) <= 1
    assert len(parts[1]) == len(parts[2])
    assert found == _random_split({"c": paths[::-1]}, seed, Path("r"))


def test_the_split_depends_on_the_seed_and_not_on_the_place(tmp_path: Path) -> None:
    root = data_set(tmp_path / "one", {"a": 20, "b": 20})
    shutil.copytree(root, tmp_path / "other")
    first = open_labelled(root, gsd_m=1.0)
    again = open_labelled(tmp_path / "other", gsd_m=1.0)
    reseeded = open_labelled(root, gsd_m=1.0, seed=1)
    assert [names(first, each) for each in SPLITS] == [names(again, each) for each in SPLITS]
    assert names(first, "test") != names(reseeded, "test")
    assert first.digest == again.digest != reseeded.digest
    assert [np.bincount(first.labels(first.split_indices(each))).tolist() for each in SPLITS] == [
        [12, 12],
        [4, 4],
        [4, 4],
    ]


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders_are_kept(tmp_path: Path, validation: str) -> None:
    for folder, num in (("train", 3), (validation, 1), ("test", 2)):
        data_set(tmp_path / folder, {"a": num, "b": num})
    data = open_labelled(tmp_path, gsd_m=1.0)
    assert [len(data.split_indices(split)) for split in SPLITS] == [6, 2, 4]
    assert {data._paths[k].parts[-3] for k in data.split_indices("test")} == {"test"}


@pytest.mark.parametrize("above", [["Images"], ["UCMerced_LandUse", "Images"]])
def test_classes_may_lie_deeper(tmp_path: Path, above: list[str]) -> None:
    data_set(tmp_path.joinpath("merced", *above), {"a": 3, "b": 3})
    (tmp_path / "merced" / "readme.txt").write_text("of the publisher")
    data = open_labelled(tmp_path / "merced", gsd_m=1.0)
    assert (data.name, data.classes) == ("merced", ("a", "b"))
    assert [each.name for each in open_all(tmp_path / "merced", gsd_m=1.0)] == ["merced"]


# Mistakes


def test_no_georeference_asks_for_the_gsd(tmp_path: Path) -> None:
    data_set(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(UsageError, match=r"give it with --gsd-m, such as 10 for EuroSAT"):
        open_labelled(tmp_path)
    with pytest.raises(UsageError, match="above zero; got -1"):
        open_labelled(tmp_path, gsd_m=-1.0)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, "no images in folders named for their classes"),
        ({"a": 0, "b": 0}, "no images in folders named for their classes"),
        ({"a": 3, "b": 0}, r"b holds no images \(.jpeg"),
        ({"a": 3}, "one class alone, 'a'"),
        ({"a": 3, "b": 2}, "b holds 2 of the 3 images"),
    ],
)
def test_too_little_is_refused(tmp_path: Path, classes: dict[str, int], words: str) -> None:
    data_set(tmp_path, classes)
    for name in classes:
        (tmp_path / name).mkdir(exist_ok=True)
    with pytest.raises(UsageError, match=words):
        open_labelled(tmp_path, gsd_m=1.0)


def test_split_folders_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    data_set(tmp_path / "train", {"a": 2, "b": 2})
    data_set(tmp_path / "test", {"a": 2, "c": 2})
    with pytest.raises(UsageError, match="none for validation"):
        open_labelled(tmp_path, gsd_m=1.0)
    data_set(tmp_path / "val", {"a": 2, "b": 2})
    with pytest.raises(UsageError, match=r"test has classes that .*train lacks: c"):
        open_labelled(tmp_path, gsd_m=1.0)


def test_options_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    data_set(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(UsageError, match="is no GEO-Bench task, and only those have partitions"):
        open_labelled(tmp_path, gsd_m=1.0, partition="0.01x_train")


def test_different_numbers_of_bands_are_refused(tmp_path: Path) -> None:
    data_set(tmp_path, {"a": 3, "b": 3})
    png(tmp_path / "b" / "gray.png", pixels(1, (12, 16)))
    with pytest.raises(StoreError, match=r"gray\.png has 1 band \(gray\), where most \(6 of 7\)"):
        open_labelled(tmp_path, gsd_m=1.0)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    data_set(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b" / "b_1.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with pytest.raises(StoreError, match=r"b_1.png cannot be read as an image"):
        open_labelled(tmp_path, gsd_m=1.0)


def test_an_image_that_ends_early_is_named(tmp_path: Path) -> None:
    data_set(tmp_path, {"a": 3, "b": 3})
    path = tif(tmp_path / "b" / "cut.tif", pixels(1, (3, 12, 16)), colours=RGB)
    path.write_bytes(path.read_bytes()[:-200])
    data = open_labelled(tmp_path, gsd_m=1.0)
    with pytest.raises(StoreError, match=r"cut.tif cannot be read as an image"):
        data.read(range(7), ["red"])


def test_what_only_looks_like_an_image_is_not_opened(tmp_path: Path) -> None:
    """GDAL goes by content: a VRT called .png would have it read any other file, or a server."""
    data_set(tmp_path, {"a": 3, "b": 3})
    source = (tmp_path / "b" / "b_0.png").as_posix()
    (tmp_path / "b" / "b_1.png").write_text(
        '<VRTDataset rasterXSize="16" rasterYSize="12"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(StoreError, match=r"b_1.png cannot be read as an image"):
        open_labelled(tmp_path, gsd_m=1.0)


def test_an_image_of_nodata_alone_is_refused(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(3):
            tif(tmp_path / label / f"{k}.tif", np.zeros((3, 8, 8), np.uint8), nodata=0)
    with pytest.raises(StoreError, match="every pixel is nodata"):
        open_labelled(tmp_path, gsd_m=1.0).read([0], ["red"])


def test_a_colour_table_is_refused(tmp_path: Path) -> None:
    data_set(tmp_path, {"a": 3, "b": 3})
    Image.fromarray(pixels(0)).quantize(8).save(tmp_path / "a" / "a_0.png")
    with pytest.raises(StoreError, match="colour table"):
        open_labelled(tmp_path, gsd_m=1.0)


# Real files


@needs_real
@pytest.mark.parametrize(("source", "gsd_m"), [(EUROSAT, 10.0), (UC_MERCED, 0.3048)])
def test_real_images_read_as_pillow_shows_them(source: Path, gsd_m: float, tmp_path: Path) -> None:
    """The few there are, once per split."""
    classes = source / "Images" if (source / "Images").is_dir() else source
    for split in SPLITS:
        shutil.copytree(classes, tmp_path / split)
    data = open_labelled(tmp_path, gsd_m=gsd_m)
    assert data.classes == tuple(sorted(each.name for each in classes.iterdir()))
    indices = data.split_indices("test")
    for k, image in zip(indices, data.read(indices, data.bands), strict=True):
        expected = np.asarray(Image.open(data._paths[k])).transpose(2, 0, 1).astype(float)
        # Decoders of JPEG differ in how they spread the colours; those of TIFF do not.
        tolerance = 1.5 if data._paths[k].suffix == ".jpg" else 0
        assert np.abs(image - expected).mean() <= tolerance
    with pytest.raises(UsageError, match=r"holds [12] of the 3 images"):
        open_labelled(source, gsd_m=gsd_m)
