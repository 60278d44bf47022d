"""Which scenes make a sample."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import mercantile
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from shapely import box, union_all
from shapely.geometry import mapping, shape

from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import load_variant
from salibi_data.plans.scene_selection import choose
from salibi_data.store.tiles import Tiles, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from salibi_data.plans.picks import CellSelection, SceneChoice

MICRO, CATALOG = load_variant("micro"), load_catalog("planetary-computer")
TILE = TileXYZ(*mercantile.tile(-92.45, 42.0, 17))
WEST, SOUTH, EAST, NORTH = mercantile.bounds(*TILE)
MIDDLE = (WEST + EAST) / 2
WHOLE = (WEST - 0.01, SOUTH - 0.01, EAST + 0.01, NORTH + 0.01)
LEFT = (WEST - 0.01, SOUTH - 0.01, MIDDLE + 1e-5, NORTH + 0.01)
RIGHT = (MIDDLE - 1e-5, SOUTH - 0.01, EAST + 0.01, NORTH + 0.01)
JULY = datetime(2022, 7, 15, 16, tzinfo=UTC)


def scene(
    sensor: str, name: str, when: datetime, area: Sequence[float] = WHOLE, **properties: Any
) -> Scene:
    return Scene(
        id=name,
        sensor=sensor,
        acquired_utc=when,
        footprint=mapping(box(*area)),
        hrefs={},
        properties=properties,
    )


def naip(name: str, year: int, area: Sequence[float] = WHOLE) -> Scene:
    return scene("naip", name, JULY.replace(year=year), area, **{"naip:year": str(year)})


def s2(name: str, days: float, cloud: float, area: Sequence[float] = WHOLE) -> Scene:
    when = JULY + timedelta(days=days)
    properties = {"eo:cloud_cover": cloud, "s2:datatake_id": f"take{days}"}
    return scene("sentinel-2", name, when, area, **properties)


def s1(name: str, days: float, orbit: int, area: Sequence[float] = WHOLE) -> Scene:
    when = JULY + timedelta(days=days)
    return scene("sentinel-1", name, when, area, **{"sat:absolute_orbit": orbit})


def pick(*scenes: Scene) -> tuple[list[SceneChoice], dict[str, int]]:
    grouped: dict[str, list[Scene]] = {"naip": [], "sentinel-2": [], "sentinel-1": []}
    for one in scenes:
        grouped[one.sensor].append(one)
    picks = choose(tiles(TILE), finder(grouped), MICRO, CATALOG)
    return picks.choices(), dict(picks.lost)


def tiles(*some: TileXYZ) -> Tiles:
    x, y = (np.array([tile[axis] for tile in some], dtype=np.int64) for axis in (0, 1))
    return Tiles(zoom=17, x=x, y=y)


def finder(grouped: dict[str, list[Scene]]) -> Callable[..., list[Scene]]:
    """As a catalog answers: what lies within the intervals, in the order it was put in."""

    def find(sensor: str, intervals: Sequence[Any] | None) -> list[Scene]:
        return [
            one
            for one in grouped[sensor]
            if intervals is None or any(a <= one.acquired_utc <= b for a, b in intervals)
        ]

    return find


def ids(choices: list[SceneChoice], sensor: str) -> list[str]:
    return [one.id for one in choices[0].scenes[sensor]]


S2, S1 = s2("s2", 3, 1.0), s1("s1", 2, 44483)


def test_all_pixels_of_a_sample_come_from_one_naip_year() -> None:
    """The newest year covers only half the tile: the older one, which covers it, is taken."""
    choices, _ = pick(
        naip("old", 2021),
        naip("new-left", 2022, LEFT),
        replace(S2, acquired_utc=JULY.replace(year=2021)),
        s1("s1", -365, 1),
    )
    assert ids(choices, "naip") == ["old"]


def test_quads_of_one_year_cover_a_tile_together() -> None:
    choices, _ = pick(naip("a", 2022, LEFT), naip("b", 2022, RIGHT), S2, S1)
    assert sorted(ids(choices, "naip")) == ["a", "b"]


def test_halves_of_different_years_are_not_mixed() -> None:
    choices, lost = pick(naip("a", 2021, LEFT), naip("b", 2022, RIGHT), S2, S1)
    assert not choices
    assert lost == {"naip": 1}


def test_a_quad_that_adds_nothing_is_not_read() -> None:
    choices, _ = pick(naip("whole", 2022), naip("left", 2022, LEFT), S2, S1)
    assert ids(choices, "naip") == ["whole"]


def test_the_newest_year_is_preferred() -> None:
    choices, _ = pick(naip("old", 2020), naip("new", 2022), S2, S1)
    assert ids(choices, "naip") == ["new"]


def test_the_least_cloudy_sentinel_2_near_naips_date_is_taken() -> None:
    far_but_clear = s2("far", 90, 0.0)
    choices, _ = pick(
        naip("n", 2022),
        s2("cloudy", 1, 40.0),
        s2("clear", -50, 2.0),
        far_but_clear,
        s1("s1", -48, 1),
    )
    assert ids(choices, "sentinel-2") == ["clear"]


def test_without_a_scene_near_enough_the_tile_is_lost() -> None:
    choices, lost = pick(naip("n", 2022), s2("far", 90, 0.0), S1)
    assert not choices
    assert lost == {"sentinel-2": 1}


def test_the_nearest_pass_to_sentinel_2_is_taken() -> None:
    choices, _ = pick(naip("n", 2022), S2, s1("before", -2, 1), s1("after", 5, 2))
    assert ids(choices, "sentinel-1") == ["after"]


def test_one_pass_means_one_orbit_direction() -> None:
    """The nearest scene covers half; its other half is of another pass, so a third is taken."""
    choices, _ = pick(
        naip("n", 2022), S2, s1("near", 3, 1, LEFT), s1("other", 3.5, 2, RIGHT), s1("whole", 9, 3)
    )
    assert ids(choices, "sentinel-1") == ["whole"]


def test_scenes_of_one_pass_fill_each_other() -> None:
    choices, _ = pick(naip("n", 2022), S2, s1("a", 3, 1, LEFT), s1("b", 3.001, 1, RIGHT))
    assert ids(choices, "sentinel-1") == ["a", "b"]


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_scenes_does_not_matter(seed: int) -> None:
    scenes = [
        *(naip(f"n{k}", 2022, area) for k, area in enumerate([LEFT, RIGHT, LEFT, RIGHT])),
        *(s2(f"s{k}", 3, 1.0) for k in range(3)),
        *(s1(f"r{k}", 3, 7) for k in range(3)),
    ]
    expected, _ = pick(*scenes)
    shuffled = scenes[:]
    random.Random(seed).shuffle(shuffled)
    # Ties go to the lower id, whatever order a provider answers in.
    assert pick(*shuffled)[0] == expected
    assert ids(expected, "sentinel-2") == ["s0"]


def around(count: int) -> list[TileXYZ]:
    return [TileXYZ(TILE.x + k % 8, TILE.y + k // 8, 17) for k in range(count)]


def area(first: TileXYZ, last: TileXYZ, margin: float = 1e-4) -> tuple[float, ...]:
    west, _, _, north = mercantile.bounds(*first)
    _, south, east, _ = mercantile.bounds(*last)
    return west - margin, south - margin, east + margin, north + margin


def test_few_scenes_serve_many_tiles() -> None:
    """A scene over everything beats one that is a little clearer over a single tile."""
    every = around(32)
    wide = area(every[0], every[-1])
    grouped = {
        "naip": [naip("n", 2022, wide)],
        "sentinel-2": [s2("wide", 3, 2.0, wide), s2("narrow", 4, 1.0, area(every[9], every[9]))],
        "sentinel-1": [s1("r", 2, 1, wide)],
    }
    picks = choose(tiles(*every), finder(grouped), MICRO, CATALOG)
    assert {c.scenes["sentinel-2"][0].id for c in picks.choices()} == {"wide"}
    # Where it is much clearer, it is worth a scene more.
    grouped["sentinel-2"][0] = s2("wide", 3, 40.0, wide)
    picks = choose(tiles(*every), finder(grouped), MICRO, CATALOG)
    assert [c.tile for c in picks.choices() if c.scenes["sentinel-2"][0].id == "narrow"] == [
        every[9]
    ]


def plainly(every: Sequence[TileXYZ], grouped: dict[str, list[Scene]]) -> dict[TileXYZ, bool]:
    """Which tiles can be made, decided tile by tile with nothing but unions."""
    scenes_by_tile = {}
    for tile in every:
        outline = box(*mercantile.bounds(*tile)).buffer(-1e-12)
        groups: dict[str, list[Scene]] = {}
        for one in grouped["naip"]:
            groups.setdefault(one.properties["naip:year"], []).append(one)
        unions = [union_all([shape(one.footprint) for one in each]) for each in groups.values()]
        scenes_by_tile[tile] = any(union.covers(outline) for union in unions)
    return scenes_by_tile


@given(st.data())
def test_exactly_the_tiles_that_one_year_covers_are_chosen(data: st.DataObject) -> None:
    every = around(24)
    west, south, east, north = area(every[0], every[-1], margin=0.0)
    steps = st.integers(0, 12)

    def quad(number: int) -> Scene:
        x0, x1 = sorted((data.draw(steps), data.draw(steps)))
        y0, y1 = sorted((data.draw(steps), data.draw(steps)))
        corners = (
            west + (east - west) * x0 / 12 - 1e-5,
            south + (north - south) * y0 / 12 - 1e-5,
            west + (east - west) * x1 / 12 + 1e-5,
            south + (north - south) * y1 / 12 + 1e-5,
        )
        return naip(f"n{number}", 2021 + data.draw(st.integers(0, 1)), corners)

    wide = area(every[0], every[-1])
    grouped = {
        "naip": [quad(number) for number in range(data.draw(st.integers(0, 6)))],
        "sentinel-2": [s2("a", 3, 1.0, wide), s2("b", -362, 1.0, wide)],
        "sentinel-1": [s1("c", 2, 1, wide), s1("d", -363, 2, wide)],
    }
    picks = choose(tiles(*every), finder(grouped), MICRO, CATALOG)
    expected = plainly(every, grouped)
    assert {c.tile for c in picks.choices()} == {tile for tile, whole in expected.items() if whole}
    assert len(picks.tiles) + sum(picks.lost.values()) == len(every)
    for choice in picks.choices():
        assert len({one.properties["naip:year"] for one in choice.scenes["naip"]}) == 1


def test_clouds_over_the_tile_decide_when_they_are_scored() -> None:
    """The granule that is clear as a whole has its clouds over one of the two tiles."""
    every = around(2)
    wide = area(every[0], every[-1])
    grouped = {
        "naip": [naip("n", 2022, wide)],
        "sentinel-2": [s2("clear", 3, 1.0, wide), s2("cloudy", 5, 60.0, wide)],
        "sentinel-1": [s1("r", 2, 1, wide)],
    }
    asked: list[str] = []

    def cloudiness(_sensor: str, scenes: Sequence[Scene], at: Any) -> Any:
        asked.append(scenes[0].id)
        over = {"clear": [0.9, 0.0], "cloudy": [0.0, 0.7]}[scenes[0].id]
        return np.array(over, dtype=np.float32)[at]

    picks: CellSelection = choose(
        tiles(*every), finder(grouped), MICRO, CATALOG, cloudiness=cloudiness
    )
    assert [c.scenes["sentinel-2"][0].id for c in picks.choices()] == ["cloudy", "clear"]
    assert picks.cloud_fraction.tolist() == [0.0, 0.0]
    assert asked == ["clear", "cloudy"]

    def always(_sensor: str, _scenes: Sequence[Scene], at: Any) -> Any:
        return np.ones(len(at), dtype=np.float32)

    overcast = choose(tiles(*every), finder(grouped), MICRO, CATALOG, cloudiness=always)
    assert (len(overcast.tiles), overcast.lost) == (0, {"clouds": 2})
