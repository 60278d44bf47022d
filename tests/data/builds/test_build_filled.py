"""Samples whose planned scenes leave pixels unseen are made of the next scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salibi_data.builds.build import build
from salibi_data.builds.status import status
from salibi_data.inspection.verify import verify
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.errors import SelectionError
from tests.support.catalogs import made_catalogs as made
from tests.support.catalogs.made_catalogs import PX, TILE_PX, item
from tests.support.data import samples

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NO_GROUPS = "[]"


def without(pixels: NDArray[np.uint8], columns: slice) -> NDArray[np.uint8]:
    """Pixels that are missing in some columns of pixels."""
    empty = pixels.copy()
    empty[:, :, columns] = 0
    return empty


def scene(
    folder: Path, name: str, seed: int, missing: slice | None = None, **more: Any
) -> dict[str, Any]:
    """An item over the square whose file lacks some columns of pixels."""
    pixels = made.values(seed)
    if missing is not None:
        pixels = without(pixels, missing)
    return item(name, made.write_tif(folder / f"{name}.tif", pixels), **{"scene": name, **more})


EAST, WEST = slice(PX // 2, PX), slice(0, PX // 2)
INSIDE = slice(PX // 2 + 100, PX)
"""Begins within the third column of tiles."""


def test_another_date_replaces_the_scene_where_it_is_empty(tmp_path: Path) -> None:
    """Groups are never mixed: the tile on the edge is of the second scene alone."""
    first, second = (
        scene(tmp_path, "a", 1, INSIDE),
        scene(tmp_path, "b", 2, cloud=8, day="2021-07-01"),
    )
    report = build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, first, second))
    assert (report.num_samples, report.dropped, report.replaced) == (16, {}, {"one": 8})
    expected = made.values(1)
    expected[:, :, EAST] = made.values(2)[:, :, EAST]
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)
    assert made.items_by_column(tmp_path / "s.zarr") == {
        0: {("a",)},
        1: {("a",)},
        2: {("b",)},
        3: {("b",)},
    }
    for row in made.rows_of(tmp_path / "s.zarr"):
        is_second = row["one_items"] == ["b"]
        assert row["one_acquired"].month == (7 if is_second else 6)
        assert row["one_hrefs"][0].endswith("b.tif" if is_second else "a.tif")
        assert row["one_planned_items"] == (["a"] if is_second else None)
    assert verify(tmp_path / "s.zarr", against_source=16, catalog=str(tmp_path / "provider.toml"))


def test_scenes_without_groups_fill_pixel_by_pixel(tmp_path: Path) -> None:
    first, second = scene(tmp_path, "a", 1, INSIDE), scene(tmp_path, "b", 2, WEST, cloud=8)
    build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, first, second, group_by=NO_GROUPS))
    expected = made.values(1)
    expected[:, :, INSIDE] = made.values(2)[:, :, INSIDE]
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)
    assert made.items_by_column(tmp_path / "s.zarr") == {
        0: {("a",)},
        1: {("a",)},
        2: {("a", "b")},
        3: {("b",)},
    }


@pytest.mark.parametrize("min_valid", [0.0, 0.5])
def test_gaps_that_a_variant_accepts_are_filled_within_the_group(
    tmp_path: Path, min_valid: float
) -> None:
    """The third column has 100 of 256 columns of pixels by the first scene, the fourth none."""
    items = [
        scene(tmp_path, "a", 1, INSIDE, take="x"),
        scene(tmp_path, "b", 2, slice(PX // 2 + 120, PX), cloud=4, take="x"),
        scene(tmp_path, "c", 3, cloud=8, take="y"),
    ]
    arguments = made.write_catalog(tmp_path, *items, group_by='["take"]', min_valid=min_valid)
    assert build(tmp_path / "s.zarr", **arguments).num_samples == 16
    expected = made.values(1)
    expected[:, :, EAST] = made.values(3)[:, :, EAST]
    if min_valid == 0:
        middle = slice(PX // 2, PX // 2 + TILE_PX)
        expected[:, :, middle] = 0
        for seed, end in ((2, 120), (1, 100)):
            part = slice(PX // 2, PX // 2 + end)
            expected[:, :, part] = made.values(seed)[:, :, part]
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)
    used = made.items_by_column(tmp_path / "s.zarr")
    assert used[2] == ({("a", "b")} if min_valid == 0 else {("c",)})
    assert used[0] == {("a",)}


def test_three_scenes_that_claim_the_square_and_see_a_third_each(tmp_path: Path) -> None:
    third = PX // 3
    parts = [slice(0, third), slice(third, 2 * third), slice(2 * third, PX)]
    items, expected = [], np.zeros((2, PX, PX), np.uint8)
    for seed, part in enumerate(parts):
        pixels = np.zeros_like(expected)
        pixels[:, :, part] = expected[:, :, part] = made.values(seed)[:, :, part]
        path = made.write_tif(tmp_path / f"{seed}.tif", pixels)
        items.append(item(f"s{seed}", path, cloud=seed, take="x"))
    arguments = made.write_catalog(tmp_path, *items, group_by='["take"]')
    assert build(tmp_path / "s.zarr", **arguments).num_samples == 16
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), expected)


def test_a_footprint_over_other_ground_costs_no_sample(tmp_path: Path) -> None:
    elsewhere = made.write_tif(tmp_path / "far.tif", made.values(1), x=made.X + 400)
    far, near = item("far", elsewhere, scene="far"), scene(tmp_path, "near", 2, cloud=8)
    report = build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, far, near))
    assert report.num_samples == 16
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), made.values(2))


def test_status_says_which_samples_were_filled_and_from_where(tmp_path: Path) -> None:
    first, second = scene(tmp_path, "a", 1, INSIDE), scene(tmp_path, "b", 2, cloud=8)
    arguments = made.write_catalog(tmp_path, first, second, min_valid=0.9)
    build(tmp_path / "s.zarr", **arguments)
    facts = status(tmp_path / "s.zarr")
    assert facts["replaced_by_sensor"] == {"one": 8}
    row = {"sensor": "one", "planned": ["a"], "used": ["b"]}
    columns = (made.X + 2, made.X + 3)
    tiles = {f"17/{x}/{made.Y + y}" for x in columns for y in range(made.EDGE)}
    assert {each["tile"] for each in facts["replaced"]} == tiles
    assert all({**each, "tile": ""} == {**row, "tile": ""} for each in facts["replaced"])
    log = (tmp_path / "s.zarr.log.jsonl").read_text().splitlines()
    (block,) = (entry for line in log if (entry := json.loads(line))["event"] == "block")
    assert sorted(each["tile"] for each in block["replaced"]) == sorted(tiles)
    shown = samples.run("status", str(tmp_path / "s.zarr")).stdout
    assert "samples made of other scenes than planned: 8 one" in shown


def test_samples_that_no_scene_sees_are_dropped_and_counted(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, name, seed, EAST, cloud=seed) for seed, name in enumerate("abc")]
    arguments = made.write_catalog(tmp_path, *scenes)
    report = build(tmp_path / "s.zarr", **arguments)
    assert (report.num_samples, report.dropped, report.replaced) == (8, {"nodata": 8}, {})
    # Nothing was replaced, so the store is that of the plan without alternatives.
    planned = plan(**arguments)
    assert planned.digest != planned.full_digest
    assert build(tmp_path / "s.zarr", plan=planned).was_complete
    for path in tmp_path.glob("?.tif"):
        made.write_tif(path, np.zeros((2, PX, PX), np.uint8))
    with pytest.raises(SelectionError, match="all 16 planned samples were dropped"):
        build(tmp_path / "none.zarr", **arguments)


def test_the_order_of_items_and_the_workers_change_no_byte(tmp_path: Path) -> None:
    scenes = [
        scene(tmp_path, "a", 1, EAST, take="x"),
        scene(tmp_path, "b", 2, slice(600, 700), cloud=1, take="y"),
        scene(tmp_path, "c", 3, slice(650, PX), cloud=1, take="y"),
        scene(tmp_path, "d", 4, cloud=20, take="z"),
    ]
    trees = []
    for number in range(2):
        scenes.reverse()
        arguments = made.write_catalog(tmp_path, *scenes, group_by='["take"]')
        store = tmp_path / f"{number}.zarr"
        build(store, **arguments, workers=1 + number)
        trees.append(samples.tree(store))
    assert trees[0] == trees[1]
    # b lacks 600 to 700, which c fills up to 650 only: the third column is of d.
    assert made.items_by_column(store) == {
        0: {("a",)},
        1: {("a",)},
        2: {("d",)},
        3: {("b",)},
    }


def test_a_scene_that_is_gone_is_a_failure_and_no_reason_for_the_next(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, name, seed, EAST, cloud=seed) for seed, name in enumerate("ab")]
    scenes.append(scene(tmp_path, "c", 7, cloud=20))
    arguments = made.write_catalog(tmp_path, *scenes)
    build(tmp_path / "whole.zarr", **arguments)
    (tmp_path / "b.tif").rename(tmp_path / "gone")
    plan(**arguments, output=tmp_path / "plan.parquet")
    failed = samples.run(
        "build", "--plan", str(tmp_path / "plan.parquet"), "-o", str(tmp_path / "s.zarr")
    )
    assert failed.returncode == 1
    assert "b.tif" in failed.stderr
    (tmp_path / "gone").rename(tmp_path / "b.tif")
    assert build(tmp_path / "s.zarr", plan=tmp_path / "plan.parquet").num_samples == 16
    assert samples.tree(tmp_path / "s.zarr") == samples.tree(tmp_path / "whole.zarr")


def test_scenes_that_nobody_needs_are_not_opened(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, name, seed, cloud=seed) for seed, name in enumerate("ab")]
    (tmp_path / "b.tif").unlink()
    report = build(tmp_path / "s.zarr", **made.write_catalog(tmp_path, *scenes))
    assert (report.num_samples, report.failures) == (16, ())
    assert "one_planned_items" not in made.rows_of(tmp_path / "s.zarr")[0]


def test_a_plan_without_alternatives_builds_as_before(tmp_path: Path) -> None:
    """As plans of versions that did not foresee any."""
    first, second = scene(tmp_path, "a", 1, EAST), scene(tmp_path, "b", 2, cloud=8)
    arguments = made.write_catalog(tmp_path, first, second)
    planned = replace(plan(**arguments), alternatives={}, spare_scenes={})
    report = build(tmp_path / "s.zarr", plan=planned)
    assert (report.num_samples, report.dropped) == (8, {"nodata": 8})
    assert planned.full_digest == planned.digest
    assert Plan.read(planned.path).digest == planned.digest


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=4),
    st.booleans(),
)
def test_a_sample_is_lost_only_if_no_scene_is_left(
    tmp_path_factory: pytest.TempPathFactory, seen: list[list[bool]], grouped: bool
) -> None:
    """Scenes see some quarters of each tile; those of one group fill each other, in their order."""
    folder = tmp_path_factory.mktemp("drawn")
    quarter = np.arange(PX) % TILE_PX // (TILE_PX // 4)
    scenes, files = [], []
    for number, quarters in enumerate(seen):
        pixels = made.values(number) * np.array(quarters, np.uint8)[quarter]
        files.append(pixels)
        path = made.write_tif(folder / f"{number}.tif", pixels)
        scenes.append(item(f"s{number}", path, cloud=10 * number, take=str(number % 2)))
    groups = [files[0::2], files[1::2]] if grouped else [files]
    mosaics = []
    for group in groups:
        mosaic = np.zeros_like(files[0])
        for pixels in group:
            mosaic = np.where(mosaic == 0, pixels, mosaic)
        mosaics.append(mosaic)
    expected = next((mosaic for mosaic in mosaics if mosaic.all()), None)
    group_by = '["take"]' if grouped else NO_GROUPS
    arguments = made.write_catalog(folder, *scenes, group_by=group_by)
    if expected is None:
        with pytest.raises(SelectionError, match="dropped"):
            build(folder / "s.zarr", **arguments)
        return
    assert build(folder / "s.zarr", **arguments).num_samples == 16
    assert np.array_equal(made.square_of(folder / "s.zarr"), expected)


def test_a_build_with_failures_says_what_it_filled_so_far(tmp_path: Path) -> None:
    first, second = scene(tmp_path, "a", 1, EAST), scene(tmp_path, "b", 2, cloud=8)
    beside = made.write_tif(tmp_path / "c.tif", made.values(3), x=made.X + made.EDGE)
    third = item("c", beside, columns=(made.EDGE, 2 * made.EDGE), scene="c")
    arguments = made.write_catalog(tmp_path, first, second, third)
    west, south, east, north = arguments["bounds_lonlat"]
    arguments["bounds_lonlat"] = (west, south, 2 * east - west, north)
    beside.rename(tmp_path / "gone")
    report = build(tmp_path / "s.zarr", **arguments)
    assert (report.num_samples, len(report.failures)) == (16, 1)
    facts = status(tmp_path / "s.zarr")
    assert (facts["replaced_by_sensor"], len(facts["replaced"])) == ({"one": 8}, 8)
    assert facts["replaced"][0].keys() == {"tile", "sensor", "planned", "used"}
    (tmp_path / "gone").rename(beside)
    assert build(tmp_path / "s.zarr", **arguments).num_samples == 32
    again = status(tmp_path / "s.zarr")
    by_tile = [sorted(each["replaced"], key=lambda row: row["tile"]) for each in (facts, again)]
    assert by_tile[0] == by_tile[1]
