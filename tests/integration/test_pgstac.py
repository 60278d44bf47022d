"""Searches of a real STAC API, by POST and by GET, against a plain loop over all its items."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import shapely
from shapely.geometry import shape

from salibi_data.catalog.dates import Interval, parse_dates
from salibi_data.catalog.providers import Catalog, Sensor, load_catalog
from salibi_data.catalog.scenes import NODATA_MARGIN_PERCENT
from salibi_data.catalog.search import search

if TYPE_CHECKING:
    from salibi_data.store.tiles import Bounds
    from tests.support.services.pgstac import LoadedApi

pytestmark = pytest.mark.integration

WORLD = (-180.0, -90.0, 180.0, 90.0)
SEARCHES = 12
PAGE = 250
SENSORS = [
    ("planetary-computer", "sentinel-1"),
    ("planetary-computer", "sentinel-2"),
    ("planetary-computer", "naip"),
    ("earth-search", "sentinel-2"),
]
both_methods = pytest.mark.parametrize("method", ["POST", "GET"])
each_sensor = pytest.mark.parametrize(("provider", "sensor"), SENSORS)


def catalog_of(loaded: LoadedApi, provider: str, method: str) -> Catalog:
    return replace(load_catalog(provider), url=loaded.api.url, search_method=method)


def brute_force(
    items: Iterable[dict[str, Any]], sensor: Sensor, bounds: Bounds, dates: Interval | None
) -> set[str]:
    """Ids that a search must find, by the rules as they are written in the catalog's TOML."""
    area = shapely.box(*bounds)
    items_within = []
    for item in items:
        properties = item["properties"]
        if item["collection"] != sensor.collection:
            continue
        if not shape(item["geometry"]).intersects(area):
            continue
        if dates is not None and not dates[0] <= acquired(item) <= dates[1]:
            continue
        if any(properties.get(name) is None for name in sensor.group_by):
            continue
        if all(meets(properties.get(name), value) for name, value in sensor.require.items()):
            items_within.append(item)
    return {
        item["id"]
        for item in items_within
        if not any(supersedes(sensor, o, item) for o in items_within)
    }


def meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return value is not None and all(entry in value for entry in wanted)
    return bool(value == wanted)


def supersedes(sensor: Sensor, other: dict[str, Any], item: dict[str, Any]) -> bool:
    """Whether ``other`` is a newer processing of the same acquisition."""
    rule = sensor.latest
    if rule is None or other is item:
        return False
    own, its = item["properties"], other["properties"]
    same = all(own.get(name) is not None and own[name] == its.get(name) for name in rule.of)
    # Where they show other ground, they are two datastrips of a tile, and both are kept.
    shares = [p.get(sensor.nodata_cover or "") or 0.0 for p in (own, its)]
    same = same and abs(shares[0] - shares[1]) <= NODATA_MARGIN_PERCENT
    return same and (its[rule.by], other["id"]) > (own[rule.by], item["id"])


def acquired(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["properties"]["datetime"]).astimezone(UTC)


def random_search(
    items: list[dict[str, Any]], chance: random.Random
) -> tuple[Bounds, Interval | None]:
    """A box of any size about an item; in two of three an interval near another's time, too."""
    centre = shape(chance.choice(items)["geometry"]).centroid
    east, north = (10 ** chance.uniform(-1.5, 1.6) for _ in range(2))
    bounds = (
        max(-180.0, centre.x - east),
        max(-90.0, centre.y - north),
        min(180.0, centre.x + east),
        min(90.0, centre.y + north),
    )
    if chance.random() < 1 / 3:
        return bounds, None
    first = acquired(chance.choice(items)) - timedelta(days=10 ** chance.uniform(-1, 2))
    return bounds, (first, first + timedelta(days=10 ** chance.uniform(0, 3)))


@both_methods
@each_sensor
def test_random_searches_find_what_a_plain_loop_finds(
    loaded_api: LoadedApi, provider: str, sensor: str, method: str
) -> None:
    catalog = catalog_of(loaded_api, provider, method)
    description = catalog.sensors[sensor]
    chance = random.Random(f"{provider} {sensor}")
    items = [item for item in loaded_api.items if item["collection"] == description.collection]
    sizes = []
    for _ in range(SEARCHES):
        bounds, dates = random_search(items, chance)
        ids = [scene.id for scene in search(catalog, sensor, bounds, dates)]
        assert len(ids) == len(set(ids))
        assert set(ids) == brute_force(items, description, bounds, dates), (bounds, dates)
        sizes.append(len(ids))
    assert max(sizes) > 50  # some find much,
    assert sum(size > 0 for size in sizes) > SEARCHES // 2  # few are empty,
    assert min(sizes) < len(items) // 10  # and some are narrow


@both_methods
@each_sensor
def test_all_pages_are_read(loaded_api: LoadedApi, provider: str, sensor: str, method: str) -> None:
    catalog = catalog_of(loaded_api, provider, method)
    description = catalog.sensors[sensor]
    expected = brute_force(loaded_api.items, description, WORLD, None)
    before = loaded_api.api.requests(method)
    scenes = search(catalog, sensor, WORLD, None)
    pages = loaded_api.api.requests(method) - before
    assert {scene.id for scene in scenes} == expected
    assert len(scenes) == len(expected)
    assert len(expected) > (1000 if provider == "planetary-computer" else 500)
    assert pages >= len(expected) / PAGE
    times = [(scene.acquired_utc, scene.id) for scene in scenes]
    assert times == sorted(times)


@both_methods
def test_a_scene_that_began_before_the_dates_belongs_to_its_datetime(
    loaded_api: LoadedApi, method: str
) -> None:
    """Radar items state a range of 25 s, too, which the API compares instead of their datetime."""
    catalog = catalog_of(loaded_api, "planetary-computer", method)
    description = catalog.sensors["sentinel-1"]
    wanted = brute_force(loaded_api.items, description, WORLD, None)
    item = next(item for item in loaded_api.items if item["id"] in wanted)
    bounds = shape(item["geometry"]).bounds
    for ends, expected in ((acquired(item), True), (acquired(item) - timedelta(seconds=1), False)):
        dates = (ends - timedelta(days=1), ends)
        assert item["properties"]["start_datetime"] < ends.isoformat()
        ids = {scene.id for scene in search(catalog, "sentinel-1", bounds, dates)}
        assert ids == brute_force(loaded_api.items, description, bounds, dates)
        assert (item["id"] in ids) is expected


@both_methods
def test_a_day_without_scenes_is_an_empty_list(loaded_api: LoadedApi, method: str) -> None:
    catalog = catalog_of(loaded_api, "planetary-computer", method)
    assert search(catalog, "naip", WORLD, parse_dates("1990-01-01/1990-01-02")) == []


@both_methods
def test_as_few_as_asked_for(loaded_api: LoadedApi, method: str) -> None:
    catalog = catalog_of(loaded_api, "planetary-computer", method)
    before = loaded_api.api.requests(method)
    assert 0 < len(search(catalog, "naip", WORLD, None, max_items=3)) <= 3
    assert loaded_api.api.requests(method) - before == 1


@each_sensor
def test_both_methods_give_the_same_scenes(
    loaded_api: LoadedApi, provider: str, sensor: str
) -> None:
    collection = load_catalog(provider).sensors[sensor].collection
    item = next(entry for entry in loaded_api.items if entry["collection"] == collection)
    bounds = shape(item["geometry"]).bounds
    by_post, by_get = (
        search(catalog_of(loaded_api, provider, method), sensor, bounds, None)
        for method in ("POST", "GET")
    )
    assert by_post == by_get
    assert by_post
