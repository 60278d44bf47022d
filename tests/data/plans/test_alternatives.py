"""What a plan foresees for tiles that turn out to lack pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from salibi_data.plans.picks import MAX_SETS
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.errors import PlanError, SelectionError
from tests.support.catalogs import made_catalogs as made
from tests.support.catalogs.made_catalogs import item
from tests.support.data import samples

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE: Any = "no-file.tif"
"""Planning opens no file."""


def foreseen(planned: Plan, column: int) -> set[tuple[Any, ...]]:
    """Sets of ids of the tiles of a column, the chosen set first."""
    return {
        tuple(each.ids for each in choice.alternatives.get("one", ()))
        for choice in planned.choices()
        if choice.tile.x == made.X + column
    }


def test_fillers_of_the_group_come_before_other_groups(tmp_path: Path) -> None:
    items = [
        item("y2", NOWHERE, take="y", cloud=30),
        item("z", NOWHERE, take="z", cloud=20),
        item("x3", NOWHERE, take="x", cloud=9, columns=(0, 1)),
        item("x2", NOWHERE, take="x", cloud=7),
        item("y1", NOWHERE, take="y", cloud=11),
        item("x1", NOWHERE, take="x", cloud=1),
    ]
    planned = plan(**made.write_catalog(tmp_path, *items, group_by='["take"]'))
    sets = [(("x1",), ("x2", "x3")), (("y1",), ("y2",)), (("z",), ())]
    assert foreseen(planned, 0) == foreseen(planned, 3) == {tuple(sets)}
    assert set(planned.scenes["one"]) == {"x1"}
    assert set(planned.spare_scenes["one"]) == {"x2", "x3", "y1", "y2", "z"}
    assert [choice.scenes["one"][0].id for choice in planned.choices()] == ["x1"] * 16


def test_the_number_of_sets_is_bounded(tmp_path: Path) -> None:
    items = [item(f"s{k:02}", NOWHERE, scene=k, cloud=k * 5) for k in range(MAX_SETS + 3)]
    planned = plan(**made.write_catalog(tmp_path, *items))
    (sets,) = foreseen(planned, 0)
    assert [ids[0] for ids, _ in sets] == [f"s{k:02}" for k in range(MAX_SETS)]


@pytest.mark.parametrize("unknown", [None, "n/a", float("nan"), -1.0])
def test_a_scene_that_states_much_nodata_ranks_behind_equals(
    tmp_path: Path, unknown: object
) -> None:
    def chosen(*items: dict[str, Any]) -> str:
        planned = plan(**made.write_catalog(tmp_path, *items))
        (choice, *_) = planned.choices()
        return choice.scenes["one"][0].id

    half = item("half", NOWHERE, scene="a", cloud=1, s2__nodata_pixel_percentage=50)
    whole = item("whole", NOWHERE, scene="b", cloud=3, s2__nodata_pixel_percentage=0)
    cloudy = item("whole", NOWHERE, scene="b", cloud=12, s2__nodata_pixel_percentage=0)
    unstated = item("half", NOWHERE, scene="a", cloud=1, s2__nodata_pixel_percentage=unknown)
    assert chosen(half, whole) == "whole"
    # Where it is much clearer it is used as far as it goes.
    assert chosen(half, cloudy) == "half"
    assert chosen(unstated, whole) == "half"


def test_a_footprint_that_admits_its_nodata_ranks_as_ever(tmp_path: Path) -> None:
    half = item("half", NOWHERE, scene="a", cloud=1, columns=(0, 2), s2__nodata_pixel_percentage=45)
    whole = item("whole", NOWHERE, scene="b", cloud=6, s2__nodata_pixel_percentage=0)
    planned = plan(**made.write_catalog(tmp_path, half, whole))
    by_column = {c.tile.x - made.X: c.scenes["one"][0].id for c in planned.choices()}
    assert by_column == {0: "half", 1: "half", 2: "whole", 3: "whole"}


def test_within_a_group_whole_scenes_are_preferred(tmp_path: Path) -> None:
    items = [
        item("half", NOWHERE, s2__nodata_pixel_percentage=60, columns=(-1, 4)),
        item("whole", NOWHERE, s2__nodata_pixel_percentage=0, columns=(0, 4)),
    ]
    planned = plan(**made.write_catalog(tmp_path, *items, group_by="[]"))
    assert foreseen(planned, 0) == {((("whole",), ("half",)),)}


def test_no_scene_is_foreseen_in_two_splits(tmp_path: Path) -> None:
    """Two clusters, each with scenes of its own, and one scene over both."""
    far = 400
    items = [
        item("west", NOWHERE, scene="a"),
        item("east", NOWHERE, scene="b", columns=(far, far + 4)),
        item("both", NOWHERE, scene="c", cloud=20, columns=(0, far + 4)),
        item("filler", NOWHERE, scene="a", cloud=30, columns=(0, far + 4)),
    ]
    arguments = made.write_catalog(
        tmp_path, *items, split='split_by = "scenes"\nvalidation_share = 0.5\ntest_share = 0.0'
    )
    west, south, east, north = arguments.pop("bounds_lonlat")
    tile = (east - west) / made.EDGE
    outlines = [
        [[x, south], [x + 4 * tile, south], [x + 4 * tile, north], [x, north], [x, south]]
        for x in (west, west + far * tile)
    ]
    shapes = '{"type": "MultiPolygon", "coordinates": %s}' % [[ring] for ring in outlines]
    (tmp_path / "aoi.geojson").write_text(shapes)
    planned = plan(**arguments, aoi=tmp_path / "aoi.geojson")
    splits: dict[str, set[int]] = {}
    codes = planned.table(["split"])["split"].to_pylist()
    for choice, split in zip(planned.choices(), codes, strict=True):
        scenes = {scene.id for scene in choice.scenes["one"]}
        scenes |= {s.id for each in choice.alternatives.get("one", ()) for s in each.all_scenes}
        for name in scenes:
            splits.setdefault(name, set()).add(split)
    assert set(splits) == {"west", "east", "both", "filler"}
    assert {len(each) for each in splits.values()} == {1}
    assert splits["west"] != splits["east"]


def test_items_that_lack_an_asset_are_named_in_one_line(tmp_path: Path) -> None:
    items = [item(f"odd{k}", NOWHERE, scene=f"o{k}") for k in range(7)]
    for odd in items:
        odd["assets"] = {"thumbnail": odd["assets"]["image"]}
    good = item("good", NOWHERE, scene="g", cloud=30)
    arguments = made.write_catalog(tmp_path, *items, good)
    planned = plan(**arguments)
    expected = "one items left out, which lack asset image: odd0, odd1, odd2, odd3, odd4 and 2 more"
    assert planned.warnings == [expected]
    assert {choice.scenes["one"][0].id for choice in planned.choices()} == {"good"}
    shown = samples.run(
        *("plan", "--variant", arguments["variant"], "--catalog", arguments["catalog"]),
        *("--bbox", ",".join(map(str, made.bounds_lonlat())), "-o", str(tmp_path / "p.parquet")),
    )
    assert f"warning: {expected}" in shown.stderr.splitlines()
    with pytest.raises(SelectionError, match=expected):
        plan(**made.write_catalog(tmp_path, *items))


def test_rows_that_name_unknown_sets_are_no_plan(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = [item("a", NOWHERE, scene="a"), item("b", NOWHERE, scene="b", cloud=10)]
    plan(**made.write_catalog(tmp_path, *items), output=tmp_path / "plan.parquet")
    table = pq.read_table(tmp_path / "plan.parquet")
    number = table.column_names.index("one_alternatives")
    wrong = pa.array([[0, 7]] * 16, pa.list_(pa.int32()))
    pq.write_table(
        table.set_column(number, "one_alternatives", wrong),
        tmp_path / "plan.parquet",
        store_schema=False,
    )
    with pytest.raises(PlanError):
        Plan.read(tmp_path / "plan.parquet")
