"""Files that are not what their item or the catalog's TOML says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from salibi_data.store.errors import ReadError
from tests.support.catalogs import made_rasters as made
from tests.support.catalogs.made_rasters import PX, textured

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_lacks_a_band_names_it(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", textured())
    assert made.read(tmp_path / "a.tif", named=4).values.shape[0] == 3
    expected = r"asset 'image' of scene-1 at \S+a\.tif has 3 bands, .* 'b4' as band 4\."
    with pytest.raises(ReadError, match=expected) as caught:
        made.read(tmp_path / "a.tif", (1, 4))
    assert caught.value.kind == "unusable"


@pytest.mark.parametrize("shape", [(100, 200), (PX, PX + 1), (2 * PX, 2 * PX)])
def test_a_file_of_another_shape_than_the_items_is_refused(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    made.write(tmp_path / "a.tif", textured())
    expected = (
        rf"scene-1 at \S+a\.tif has 64 x 64 pixels, .* {shape[0]} x {shape[1]} \(proj:shape\)"
    )
    with pytest.raises(ReadError, match=expected) as caught:
        made.read(tmp_path / "a.tif", scene={"shapes": {"image": shape}})
    assert caught.value.kind == "unusable"


def test_a_shape_counts_in_either_order_and_for_its_own_asset(tmp_path: Path) -> None:
    wide = np.concatenate([textured(), textured()], axis=2)
    made.write(tmp_path / "a.tif", wide)
    for shapes in ({"image": (PX, 2 * PX)}, {"image": (2 * PX, PX)}, {"other": (1, 1)}, {}):
        made.read(tmp_path / "a.tif", scene={"shapes": shapes})


def test_row_numbers_of_a_colour_table_are_no_brightness(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", textured(1))
    with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
        dataset.write_colormap(1, {k: (255 - k, k, 7, 255) for k in range(256)})
    with pytest.raises(ReadError, match=r"'b1' holds row numbers of it.*-expand rgb"):
        made.read(tmp_path / "a.tif", (1,))
    with pytest.raises(ReadError, match=r"has 1 band with a colour table, .* 'b2' as band 2 and"):
        made.read(tmp_path / "a.tif")
    classes = made.read(tmp_path / "a.tif", (1,), categorical=True)
    assert np.array_equal(classes.values, textured(1))


def test_a_gray_colour_table_changes_nothing(tmp_path: Path) -> None:
    made.write(tmp_path / "a.tif", textured(1))
    with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
        dataset.write_colormap(1, {k: (k, k, k, 255) for k in range(256)})
    assert np.array_equal(made.read(tmp_path / "a.tif", (1,)).values, textured(1))
