"""Builds of masked files, and of files that contradict their item or the catalog's TOML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from salibi_data import build
from salibi_data.store.errors import ReadError
from tests.support.catalogs import made_catalogs as made
from tests.support.catalogs.made_catalogs import PX
from tests.support.data import samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def sixteen_bit(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    return made.write_tif(folder / "wrong.tif", pixels.astype(np.uint16) * 40)


def fractions(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    return made.write_tif(folder / "wrong.tif", (pixels / 255).astype(np.float32))


def one_band(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    return made.write_tif(folder / "wrong.tif", pixels[:1])


def same(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    return made.write_tif(folder / "wrong.tif", pixels)


WRONG = [
    (sixteen_bit, {}, r"uint16 values in the range 40 to 10200, and units 'display' hold 0\.\.255"),
    (fractions, {}, r"float32 values in the range 0\.00392157 to 1, and units 'display' hold"),
    (one_band, {}, r"has 1 band, and the catalog's TOML names 'green' as band 2"),
    (same, {"proj__shape": [PX, 7]}, rf"has {PX} x {PX} pixels, and its item declares {PX} x 7"),
]


@pytest.mark.parametrize(("write", "properties", "expected"), WRONG)
def test_the_next_scene_takes_the_place_of_one_that_is_contradicted(
    tmp_path: Path,
    write: Callable[[Path, NDArray[np.uint8]], Path],
    properties: dict[str, object],
    expected: str,
) -> None:
    first = made.item("first", write(tmp_path, made.values(1)), scene="A", **properties)
    second_file = made.write_tif(tmp_path / "second.tif", made.values(2))
    second = made.item("second", second_file, scene="B", cloud=8, proj__shape=[PX, PX])
    arguments = made.write_catalog(tmp_path, first, second)
    build(tmp_path / "s.zarr", **arguments)
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), made.values(2))
    alone = made.write_catalog(tmp_path, first)
    with pytest.raises(ReadError, match=rf"asset 'image' of first at wrong\.tif.*{expected}"):
        build(tmp_path / "alone.zarr", **alone)
    done = samples.run(
        *("build", "--variant", alone["variant"], "--catalog", alone["catalog"]),
        *("-o", str(tmp_path / "alone.zarr")),
        *("--bbox", ",".join(map(str, alone["bounds_lonlat"]))),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "asset 'image' of first at wrong.tif" in line


def test_masked_pixels_are_nodata_in_the_store_and_no_others(tmp_path: Path) -> None:
    pixels, visible = made.values(1), np.zeros((PX, PX), bool)
    visible[:, PX // 3 :] = True
    path = made.write_tif(tmp_path / "a.tif", pixels)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "r+") as dataset,
    ):
        dataset.write_mask(visible)
    arguments = made.write_catalog(tmp_path, made.item("a", path, scene="A"), min_valid=0.0)
    build(tmp_path / "s.zarr", **arguments)
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), pixels * visible)
