"""Which scene is next: scenes without usable pixels, sensors near each other, clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from salibi_data.builds.build import build
from salibi_data.inspection.verify import verify
from salibi_data.plans.planner import plan
from salibi_data.store.errors import ReadError
from salibi_data.store.open import open_store
from tests.support.catalogs import made_catalogs as made
from tests.support.catalogs.made_catalogs import PX, item
from tests.support.data import samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

EAST, WEST = slice(PX // 2, PX), slice(0, PX // 2)


def image(folder: Path, name: str, seed: int, missing: slice | None = None) -> Path:
    pixels = made.values(seed)
    if missing is not None:
        pixels[:, :, missing] = 0
    return made.write_tif(folder / f"{name}.tif", pixels)


def without_crs(path: Path) -> Path:
    with rasterio.open(path) as dataset:
        pixels, profile = dataset.read(), dataset.profile
    with rasterio.open(path, "w", **{**profile, "crs": None}) as dataset:
        dataset.write(pixels)
    return path


def without_a_band(path: Path) -> Path:
    return made.write_tif(path, made.values(1)[:1])


def in_16_bit(path: Path) -> Path:
    return made.write_tif(path, made.values(1).astype(np.uint16) * 100)


def unchanged(path: Path) -> Path:
    return path


@pytest.mark.parametrize(
    ("spoil", "declared", "words"),
    [
        (without_crs, None, "has no CRS"),
        (without_a_band, None, "has 1 band"),
        (in_16_bit, None, "uint16 values in the range"),
        (unchanged, [PX, PX // 2], "declares 1024 x 512"),
    ],
)
def test_a_scene_without_usable_pixels_is_left_out_and_named_once(
    tmp_path: Path, spoil: Callable[[Path], Path], declared: list[int] | None, words: str
) -> None:
    odd = spoil(image(tmp_path, "odd", 1))
    shape = {} if declared is None else {"proj__shape": declared}
    items = [
        item("odd", odd, scene="odd", **shape),
        item("next", image(tmp_path, "next", 2), cloud=8, scene="next"),
    ]
    arguments = made.write_catalog(tmp_path, *items)
    report = build(tmp_path / "s.zarr", **arguments)
    assert (report.num_samples, report.replaced, report.failures) == (16, {"one": 16}, ())
    (warning,) = report.warnings
    assert warning.startswith("one odd is left out where it was planned: ")
    assert words in warning
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), made.values(2))
    shown = samples.run(
        *("build", "--variant", arguments["variant"], "--catalog", arguments["catalog"]),
        *("--bbox", ",".join(map(str, made.bounds_lonlat())), "-o", str(tmp_path / "t.zarr")),
    )
    assert shown.returncode == 0
    assert [line for line in shown.stderr.splitlines() if "odd" in line] == [f"warning: {warning}"]


def test_without_a_next_scene_the_block_fails_as_such(tmp_path: Path) -> None:
    items = [
        item("odd", without_crs(image(tmp_path, "odd", 1)), scene="odd"),
        item("half", image(tmp_path, "half", 2, EAST), cloud=8, scene="half"),
    ]
    with pytest.raises(ReadError, match=r"of odd at .*odd\.tif has no CRS"):
        build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, *items))


def test_a_scene_that_others_cover_is_not_missed(tmp_path: Path) -> None:
    """Two scenes of a group cover the square by their footprints; the usable one sees it all."""
    items = [
        item("odd", without_crs(image(tmp_path, "odd", 1)), columns=(0, 3), scene="x"),
        item("whole", image(tmp_path, "whole", 2), columns=(1, 4), scene="x"),
    ]
    report = build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, *items))
    assert report.num_samples == 16
    assert made.items_by_column(tmp_path / "s.zarr") == {
        column: {("whole",)} for column in range(4)
    }


def two_sensors(folder: Path, *days: str, near_days: float) -> tuple[dict, NDArray[np.uint8]]:
    """``one``: June 1, empty in the east, and June 8; ``two`` at some days, in their order."""
    items = [
        item("a", image(folder, "a", 1, EAST), scene="a"),
        item("b", image(folder, "b", 2), day="2021-06-08", cloud=8, scene="b"),
    ]
    for seed, day in enumerate(days, start=3):
        path = image(folder, day, seed)
        items.append(item(day, path, sensor="two", day=day, cloud=10 * seed, scene=day))
    expected = made.values(1)
    expected[:, :, EAST] = made.values(2)[:, :, EAST]
    return made.write_catalog(folder, *items, near_days=near_days), expected


def test_a_sensor_near_another_stays_near_the_scene_that_is_used(tmp_path: Path) -> None:
    arguments, expected = two_sensors(tmp_path, "2021-05-25", "2021-06-10", near_days=10)
    assert build(tmp_path / "s.zarr", **arguments).num_samples == 16
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)
    # May 25 is within ten days of June 1, and not of June 8.
    other = made.values(3)
    other[:, :, EAST] = made.values(4)[:, :, EAST]
    assert np.array_equal(made.square_of(tmp_path / "s.zarr", "two"), other)
    for row in made.rows_of(tmp_path / "s.zarr"):
        is_west = row["x"] < made.X + 2
        assert row["two_days_after_one"] == (-7 if is_west else 2)
        assert row["one_items"] == (["a"] if is_west else ["b"])
    group = open_store(tmp_path / "s.zarr")[0]
    days = np.diff(group["acquired"][:], axis=1)[:, 0] / 86_400
    assert set(days.tolist()) == {-7, 2}
    verify(tmp_path / "s.zarr")


def test_a_scene_that_leaves_none_to_the_next_sensor_is_not_used(tmp_path: Path) -> None:
    arguments, _ = two_sensors(tmp_path, "2021-05-25", near_days=10)
    planned = plan(**arguments)
    assert not planned.spare_scenes["one"]
    report = build(tmp_path / "s.zarr", plan=planned)
    assert (report.num_samples, report.dropped) == (8, {"nodata": 8})
    (tmp_path / "wide").mkdir()
    arguments, _ = two_sensors(tmp_path / "wide", "2021-05-25", near_days=14)
    assert build(tmp_path / "wide.zarr", **arguments).num_samples == 16


def test_two_sensors_that_lack_different_halves(tmp_path: Path) -> None:
    items = [
        item("a", image(tmp_path, "a", 1, EAST), scene="a"),
        item("b", image(tmp_path, "b", 2), cloud=8, scene="b"),
        item("p", image(tmp_path, "p", 3, WEST), sensor="two", scene="p"),
        item("q", image(tmp_path, "q", 4), sensor="two", cloud=8, scene="q"),
    ]
    report = build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, *items))
    assert (report.num_samples, report.replaced) == (16, {"one": 8, "two": 8})
    for name, west, east in (("one", 1, 2), ("two", 4, 3)):
        expected = made.values(west)
        expected[:, :, EAST] = made.values(east)[:, :, EAST]
        assert np.array_equal(made.square_of(tmp_path / "s.zarr", name), expected)


def masked(folder: Path, name: str, seed: int, missing: slice | None, classes: int, **more: object):
    mask = made.write_tif(folder / f"{name}-mask.tif", np.full((1, PX, PX), classes, np.uint8))
    return item(name, image(folder, name, seed, missing), mask=mask, scene=name, **more)


def test_clouds_are_scored_on_filled_tiles(tmp_path: Path) -> None:
    """The mask has no pixels where the image has none; unknown classes count as cloudy."""
    half, classes = image(tmp_path, "half", 1, EAST), np.full((1, PX, PX), 4, np.uint8)
    classes[:, :, EAST] = 0
    mask = made.write_tif(tmp_path / "half-mask.tif", classes)
    items = [
        item("half", half, mask=mask, take="x"),
        masked(tmp_path, "whole", 2, None, 4, cloud=8, take="x"),
    ]
    arguments = made.write_catalog(tmp_path, *items, more=made.MASK, group_by='["take"]')
    report = build(tmp_path / "s.zarr", **arguments, max_cloud=0.1)
    assert (report.num_samples, report.dropped) == (16, {})
    expected = made.values(1)
    expected[:, :, EAST] = made.values(2)[:, :, EAST]
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)


@pytest.mark.parametrize("max_cloud", [None, 0.1])
def test_a_cloudy_scene_fills_nothing(tmp_path: Path, max_cloud: float | None) -> None:
    """Whether clouds are scored while planning or not."""
    items = [
        masked(tmp_path, "a", 1, EAST, 4),
        masked(tmp_path, "b", 2, None, 9, cloud=8),
        masked(tmp_path, "c", 3, None, 4, cloud=16),
    ]
    arguments = made.write_catalog(tmp_path, *items, more=made.MASK)
    report = build(tmp_path / "s.zarr", **arguments, max_cloud=max_cloud)
    assert (report.num_samples, report.dropped) == (16, {})
    expected = made.values(1)
    expected[:, :, EAST] = made.values(3)[:, :, EAST]
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)
    assert not open_store(tmp_path / "s.zarr")[0]["cloud_fraction"][:].any()
    if max_cloud is not None:
        planned = [row["planned_cloud_fraction"] for row in made.rows_of(tmp_path / "s.zarr")]
        assert np.isnan(planned).sum() == 8
