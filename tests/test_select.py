"""Which scenes make a sample."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import mercantile
from hypothesis import given
from hypothesis import strategies as st
from shapely import box
from shapely.geometry import mapping

from salibi_data.catalog import load_catalog
from salibi_data.grid import TileXYZ
from salibi_data.search import Scene
from salibi_data.select import Choice, choose
from salibi_data.variant import load_variant

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


def pick(*scenes: Scene) -> tuple[list[Choice], dict[str, int]]:
    grouped: dict[str, list[Scene]] = {"naip": [], "sentinel-2": [], "sentinel-1": []}
    for one in scenes:
        grouped[one.sensor].append(one)
    choices, lost = choose([TILE], grouped, MICRO, CATALOG)
    return choices, dict(lost)


def ids(choices: list[Choice], sensor: str) -> list[str]:
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
