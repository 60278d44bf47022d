"""Scenes from items whose properties are unknown, or written in another way than the standard's."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import mercantile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import box
from shapely.geometry import mapping

from salibi_data.catalog.providers import LatestRule, OffsetRule, load_catalog
from salibi_data.catalog.scenes import Scene, newest_processing, scene_from_item
from salibi_data.catalog.variants import SelectionRule, load_variant
from salibi_data.plans.scene_selection import choose
from salibi_data.store.tiles import Tiles, TileXYZ

MICRO, CATALOG = load_variant("micro"), load_catalog("planetary-computer")
S2, NAIP = CATALOG.sensors["sentinel-2"], CATALOG.sensors["naip"]
TILE = TileXYZ(*mercantile.tile(-92.45, 42.0, 17))
TILES = Tiles(zoom=17, x=np.array([TILE.x]), y=np.array([TILE.y]))
WEST, SOUTH, EAST, NORTH = mercantile.bounds(*TILE)
FOOTPRINT = mapping(box(WEST - 0.01, SOUTH - 0.01, EAST + 0.01, NORTH + 0.01))
UNKNOWN: list[Any] = [
    None,
    math.nan,
    math.inf,
    -math.inf,
    "n/a",
    "",
    True,
    -1,
    100.5,
    "NaN",
    [3],
    {},
]
"""Values of a percentage that state nothing."""


def item(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "id": name,
        "geometry": FOOTPRINT,
        "properties": {"datetime": "2022-07-15T16:00:00Z", "s2:datatake_id": name} | properties,
        "assets": {"visual": {"href": "https://example.com/a.tif"}},
    }


def scene(name: str, **properties: Any) -> Scene:
    made = scene_from_item(S2, item(name, **properties))
    assert made is not None
    return made


def clearest(scenes: list[Scene]) -> str:
    """Scene that the rule "least cloud" chooses for one tile, out of scenes of one moment."""
    modality = next(one for one in MICRO.modalities if one.sensor == "sentinel-2")
    rule = SelectionRule(sensor="sentinel-2", rank=("cloud",))
    variant = replace(MICRO, selection=(rule,), modalities=(modality,))
    picked = choose(TILES, lambda *_: scenes, variant, CATALOG)
    (chosen,) = picked.choices()[0].scenes["sentinel-2"]
    return chosen.id


@pytest.mark.parametrize("unknown", UNKNOWN, ids=repr)
def test_an_unknown_cloud_cover_is_worse_than_any_known(unknown: Any) -> None:
    stated = {"a-unknown": unknown, "b-clouded": 100, "c-hazy": "60.5"}
    for count in (2, 3):
        for order in itertools.permutations(list(stated)[:count]):
            scenes = [scene(name, **{"eo:cloud_cover": stated[name]}) for name in order]
            assert clearest(scenes) == list(stated)[count - 1]


@given(
    st.lists(
        st.sampled_from(UNKNOWN) | st.floats(0, 100) | st.integers(0, 100), min_size=2, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_the_choice_depends_on_no_order(covers: list[Any], chance: Any) -> None:
    scenes = [scene(f"s{n}", **{"eo:cloud_cover": value}) for n, value in enumerate(covers)]
    known = [value for value in covers if not any(value is one for one in UNKNOWN)]
    best = clearest(scenes)
    if known:
        cover = covers[int(best[1:])]
        assert cover in known
        assert cover == min(known)
    chance.shuffle(scenes)
    assert clearest(scenes) == best


@pytest.mark.parametrize("unknown", UNKNOWN, ids=repr)
def test_numbers_that_are_none_do_not_get_into_a_plan(unknown: Any) -> None:
    made = scene("a", **{"eo:cloud_cover": unknown, "s2:nodata_pixel_percentage": unknown})
    json.dumps(made.to_dict(), allow_nan=False)
    assert not {"eo:cloud_cover", "s2:nodata_pixel_percentage"} & set(made.properties)


@pytest.mark.parametrize(
    ("stated", "gsd_m"),
    [(0.3, 0.3), ("1.0", 1.0), *((value, 0.6) for value in (math.nan, "n/a", 0, -1, True, None))],
)
def test_a_pixel_size_that_is_none_leaves_the_product_its_own(stated: Any, gsd_m: float) -> None:
    source = item("a", gsd=stated, **{"naip:year": "2021"})
    source["assets"] = {"image": {"href": "https://example.com/a.tif"}}
    made = scene_from_item(NAIP, source)
    assert made is not None
    assert NAIP.products["image"].native_gsd_m("red", made.properties) == gsd_m


def test_a_year_is_one_group_however_it_is_written() -> None:
    years = [2021, "2021", 2021.0, " 2021 ", "2021.0"]
    scenes = [scene_from_item(NAIP, item("a", **{"naip:year": year})) for year in years]
    assert {made.group(NAIP) for made in scenes if made is not None} == {("2021",)}
    assert None not in scenes


@pytest.mark.parametrize("year", [None, math.nan, math.inf, "", " "], ids=repr)
def test_an_item_without_a_group_is_left_out(year: Any) -> None:
    assert scene_from_item(NAIP, item("a", **{"naip:year": year})) is None


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2022-07-20T23:00:00-05:00", "2022-07-21T04:30:00Z"),
        ("2022-07-21T04:30:00.123456788Z", "2022-07-21T04:31:00Z"),
        (9, 10),
        ("9", 10),
        ("04.00", "10.00"),
        ("5.9", "5.10"),
        *((unknown, "2021-01-01T00:00:00Z") for unknown in (None, math.nan, "", "n/a")),
    ],
)
def test_the_newest_processing_is_kept_in_any_order(older: Any, newer: Any) -> None:
    sensor = replace(S2, latest=LatestRule(of=("datetime",), by="made"), nodata_cover=None)
    for names in (("a", "b"), ("b", "a")):
        sources = [
            item(names[0], made=older, datetime="2022-07-15T16:00:00Z"),
            item(names[1], made=newer, datetime="2022-07-15T16:00:00.000+00:00"),
        ]
        for order in itertools.permutations(sources):
            scenes = [made for one in order if (made := scene_from_item(sensor, one)) is not None]
            assert [made.id for made in newest_processing(sensor, scenes)] == [names[1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-06-01T17:00:00Z", datetime(2021, 6, 1, 17, tzinfo=UTC)),
        ("2021-06-01t17:00:00z", datetime(2021, 6, 1, 17, tzinfo=UTC)),
        ("2021-06-01T17:00:00", datetime(2021, 6, 1, 17, tzinfo=UTC)),
        ("2021-06-01 17:00:00 UTC", datetime(2021, 6, 1, 17, tzinfo=UTC)),
        ("2021-06-01T12:00:00-05:00", datetime(2021, 6, 1, 17, tzinfo=UTC)),
        ("2021-06-01T17:00:00.123456789Z", datetime(2021, 6, 1, 17, 0, 0, 123456, tzinfo=UTC)),
        ("2021-06-01", datetime(2021, 6, 1, tzinfo=UTC)),
    ],
)
def test_times_are_read_however_they_are_written(text: str, expected: datetime) -> None:
    assert scene("a", datetime=text).acquired_utc == expected
    assert scene("a", datetime=None, start_datetime=text).acquired_utc == expected


@pytest.mark.parametrize(
    "odd",
    [
        {"datetime": "0001-01-01T00:00:00+05:00"},
        {"datetime": 1622566800000},
        {"datetime": "2021-13-01T00:00:00Z"},
        {"datetime": math.nan},
        {"datetime": ["2021-06-01"]},
        {"datetime": None},
    ],
    ids=str,
)
def test_an_item_without_a_time_is_named(odd: dict[str, Any], caplog: Any) -> None:
    assert scene_from_item(S2, item("strange", **odd)) is None
    assert "item strange cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("baseline", "applies"),
    [(4, True), (4.0, True), ("N0400", True), ("0509", True), (" 05.10 ", True), ("N0214", False)]
    + [(value, False) for value in (3.01, "0301", None, math.nan, "n/a", "")],
)
def test_a_baseline_is_read_however_it_is_written(baseline: Any, applies: bool) -> None:
    rule = OffsetRule(property="s2:processing_baseline", at_least="04.00", offset=-0.1)
    assert rule.applies({"s2:processing_baseline": baseline}) == applies
