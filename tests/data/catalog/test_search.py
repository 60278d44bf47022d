"""Searches of a STAC API and of a static catalog, against a brute-force filter of the items."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from shapely import box

from salibi_data.catalog.dates import parse_dates
from salibi_data.catalog.providers import Catalog, load_catalog
from salibi_data.catalog.scenes import newest_processing, scene_from_item, strip_signature
from salibi_data.catalog.search import CatalogSearch, search
from salibi_data.store.errors import CatalogError, UsageError
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.services.servers import StacServer, matches, serve

WORLD = (-180.0, -90.0, 180.0, 90.0)
IOWA = (-92.5, 41.9, -92.4, 42.0)


def item(number: int, **properties: Any) -> dict[str, Any]:
    west = -92.5 + 0.01 * number
    ring = [[west, 41.9], [west + 0.02, 41.9], [west + 0.02, 42.0], [west, 42.0], [west, 41.9]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"scene-{number:03d}",
        "collection": "naip",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, 41.9, west + 0.02, 42.0],
        "properties": {
            "datetime": f"2022-07-{number % 28 + 1:02d}T16:00:00Z",
            "naip:year": "2022",
            "sat:absolute_orbit": 44483,
            "s2:datatake_id": "GS2A",
        }
        | properties,
        "links": [],
        "assets": {"image": {"href": f"https://example.com/{number}.tif?sv=2&sig=SECRET"}},
    }


def api(url: str, kind: str = "planetary-computer") -> Catalog:
    return replace(load_catalog(kind), url=url)


def test_an_api_search_returns_what_a_brute_force_filter_does() -> None:
    items = [item(n) for n in range(20)]
    dates = parse_dates("2022-07-03/2022-07-15")
    with serve(StacServer(items)) as server:
        scenes = search(api(server.url), "naip", IOWA, dates)
        pages = server.requests
    body = {"bbox": list(IOWA), "datetime": "/".join(time.isoformat() for time in dates)}
    expected = {one["id"] for one in items if matches(one, body)}
    assert {scene.id for scene in scenes} == expected
    assert 0 < len(expected) < 20
    assert pages > 1


def test_no_signature_is_kept() -> None:
    with serve(StacServer([item(1)])) as server:
        (scene,) = search(api(server.url), "naip", IOWA, None)
    assert scene.hrefs == {"image": "https://example.com/1.tif"}
    assert "SECRET" not in repr(scene)


@pytest.mark.parametrize(
    "href",
    [
        "https://a.blob.core.windows.net/c/x.tif?st=1&se=2&sp=rl&sig=abc%3D",
        "https://b.s3.amazonaws.com/x.tif?X-Amz-Algorithm=A&X-Amz-Signature=abc",
    ],
)
def test_signed_urls_lose_their_query(href: str) -> None:
    assert strip_signature(href) == href.split("?", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("href", "kept"),
    [
        ("https://me:SECRET@a.org/x.tif?version=3", "https://a.org/x.tif?version=3"),
        ("http://SECRET@a.org:8080/x@2.tif", "http://a.org:8080/x@2.tif"),
        ("s3://key:SECRET@bucket/x.tif", "s3://bucket/x.tif"),
    ],
)
def test_no_user_with_a_password_is_kept(href: str, kept: str) -> None:
    assert strip_signature(href) == kept


@pytest.mark.parametrize(
    "href",
    [
        "https://a.org/x@2.tif?version=3",
        "abfss://container@account/x.tif",
        "x:1@y/z.tif",
        "a b.tif",
    ],
)
def test_other_addresses_stay(href: str) -> None:
    assert strip_signature(href) == href


def test_throttling_is_waited_out() -> None:
    with serve(StacServer([item(1)], failures=[429, 503, 504])) as server:
        assert len(search(api(server.url), "naip", IOWA, None)) == 1
        assert server.requests == 4


def test_an_api_that_keeps_failing_is_one_clear_error(no_pauses: None) -> None:
    with (
        serve(StacServer([item(1)], failures=[500] * 100)) as server,
        pytest.raises(CatalogError, match="cannot be searched for naip"),
    ):
        search(api(server.url), "naip", IOWA, None)


def test_an_unreachable_catalog_is_one_clear_error(no_pauses: None) -> None:
    with pytest.raises(CatalogError, match=r"127\.0\.0\.1:9/ .*cannot be searched"):
        search(api("http://127.0.0.1:9/"), "naip", IOWA, None)


def test_a_sensor_the_catalog_lacks_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no sensor 'landsat'; it has sentinel-1"):
        search(load_catalog("planetary-computer"), "landsat", IOWA, None)


def test_only_scenes_with_the_required_properties_are_kept() -> None:
    good = {"sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"]}
    items = [
        item(1, **good),
        item(2, **good | {"sar:instrument_mode": "EW"}),
        item(3, **good | {"sar:polarizations": ["VV"]}),
        item(4),
    ]
    for one in items:
        one["collection"] = "sentinel-1-rtc"
    with serve(StacServer(items)) as server:
        scenes = search(api(server.url), "sentinel-1", IOWA, None)
    assert [scene.id for scene in scenes] == ["scene-001"]


def test_paging_that_ends_early_is_an_error_never_fewer_scenes(no_pauses: None) -> None:
    with (
        serve(StacServer([item(n) for n in range(20)], lost_pages=True)) as server,
        pytest.raises(CatalogError, match="paging ended after 3 of"),
    ):
        search(api(server.url), "naip", IOWA, None)


@pytest.mark.parametrize("body", ["<html>busy</html>", '{"type": "Feat', "[]"])
def test_an_answer_that_is_none_is_asked_for_again_then_one_clear_error(
    body: str, no_pauses: None
) -> None:
    with serve(StacServer([item(1)], bodies=[body, body])) as server:
        assert len(search(api(server.url), "naip", IOWA, None)) == 1
    with (
        serve(StacServer([item(1)], bodies=[body] * 9)) as server,
        pytest.raises(CatalogError, match="cannot be searched for naip"),
    ):
        search(api(server.url), "naip", IOWA, None)


ODD: list[Any] = [
    None,
    {"id": None},
    {"properties": {"datetime": None, "naip:year": "2022"}},
    {"properties": {"datetime": "yesterday", "naip:year": "2022"}},
    {"properties": None},
    {"assets": None},
    {"assets": {"image": {"title": "no address"}}},
    {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}},
    {"geometry": {"type": "Polygon", "coordinates": []}},
    {"geometry": "POLYGON"},
    {"geometry": {"type": "Point", "coordinates": [-92.45, 41.95]}},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_item_is_left_out_and_named_in_the_log(
    odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    strange = None if odd is None else item(2) | odd
    with serve(StacServer([item(1)], extra=[strange])) as server:
        scenes = search(api(server.url), "naip", IOWA, None)
    assert [scene.id for scene in scenes] == ["scene-001"]
    assert "cannot be used" in caplog.text


def test_a_scene_without_a_file_that_is_needed_is_left_out() -> None:
    bare = item(2)
    bare["assets"] = {"thumbnail": bare["assets"]["image"]}
    with serve(StacServer([item(1), bare])) as server:
        finder = CatalogSearch(api(server.url), required_assets={"naip": ("image",)})
        assert [scene.id for scene in finder.find("naip", IOWA, None)] == ["scene-001"]


def test_what_was_found_is_not_asked_for_again(tmp_path: Path) -> None:
    dates = [parse_dates("2022-07-03/2022-07-15")]
    with serve(StacServer([item(n) for n in range(20)])) as server:
        finder = CatalogSearch(api(server.url), tmp_path / "kept")
        first = finder.find("naip", IOWA, dates)
        asked = server.requests
        again = CatalogSearch(api(server.url), tmp_path / "kept").find("naip", IOWA, dates)
        assert (again, server.requests) == (first, asked)
        CatalogSearch(api(server.url), tmp_path / "kept").find("naip", IOWA, None)
        assert server.requests > asked  # another question
    kept = b"".join(path.read_bytes() for path in (tmp_path / "kept").iterdir())
    assert b"scene-003" in kept
    assert b"SECRET" not in kept


def test_several_times_are_searched_as_one(sample_toml: str) -> None:
    scenes = CatalogSearch(load_catalog(sample_toml)).find("sentinel-2", WORLD, None)
    times = [scene.acquired_utc for scene in scenes]
    some = [(times[0], times[0]), (times[-1], times[-1])]
    ids = {
        one.id for one in CatalogSearch(load_catalog(sample_toml)).find("sentinel-2", WORLD, some)
    }
    assert ids == {scene.id for scene in scenes if scene.acquired_utc in (times[0], times[-1])}


@needs_real
def test_a_stac_geoparquet_file_is_a_catalog_like_the_others(tmp_path: Path) -> None:
    file = REAL / "stac" / "rustac_100-sentinel-2-items.parquet"
    catalog = replace(load_catalog("planetary-computer"), kind="static", url=str(file))
    rows = pq.read_table(file).to_pylist()
    assert len(search(catalog, "sentinel-2", WORLD, None)) > 50
    west, south, east, north = shapely.from_wkb(rows[7]["geometry"]).bounds
    area = (west + 0.1, south + 0.1, east - 0.5, north - 0.5)
    expected = {
        row["id"] for row in rows if shapely.from_wkb(row["geometry"]).intersects(box(*area))
    }
    scenes = search(catalog, "sentinel-2", area, None)
    assert rows[7]["id"] in {scene.id for scene in scenes} <= expected
    assert all(scene.hrefs["visual"].startswith("https://") for scene in scenes)


def test_scenes_that_cannot_be_grouped_are_left_out() -> None:
    """Without a year or an orbit, scenes of different ones could be mixed in a sample."""
    items = [item(1), item(2, **{"naip:year": None}), item(3)]
    with serve(StacServer(items)) as server:
        scenes = search(api(server.url), "naip", IOWA, None)
    assert [scene.id for scene in scenes] == ["scene-001", "scene-003"]


def test_the_newest_of_reprocessed_duplicates_is_kept() -> None:
    when = {"datetime": "2022-07-19T17:08:59Z"}
    old = {"s2:mgrs_tile": "15TWG", "s2:generation_time": "2022-07-20T01:00:00Z"} | when
    items = [
        item(1, **old),
        item(2, **old | {"s2:generation_time": "2023-01-02T01:00:00Z"}),
        item(3, **old | {"s2:mgrs_tile": "15TVG"}),
        item(4, **when),  # states neither: nothing to compare it by
        item(5, **when),
    ]
    for one in items:
        one["collection"] = "sentinel-2-l2a"
    with serve(StacServer(items)) as server:
        scenes = search(api(server.url), "sentinel-2", IOWA, None)
    assert {scene.id[-1] for scene in scenes} == {"2", "3", "4", "5"}


@pytest.mark.parametrize(
    ("catalog", "tile"), [("planetary-computer", "s2:mgrs_tile"), ("earth-search", "grid:code")]
)
@pytest.mark.parametrize(
    ("ages_and_shares", "kept"),
    [
        # (year of processing, percent of nodata); the newest of what shows the same ground
        ([(2021, 3.0), (2023, 3.4)], {1}),
        ([(2023, 3.4), (2021, 3.0), (2022, 2.9)], {0}),
        ([(2021, 3.0), (2023, 94.0)], {0, 1}),
        ([(2023, 40.0), (2021, 60.0)], {0, 1}),
        ([(2021, 40.1), (2021, 59.8), (2023, 40.0), (2023, 60.0)], {2, 3}),
        ([(2021, None), (2023, 94.0)], {1}),
        ([(None, 3.0), (2021, 3.0)], {1}),
        ([(2021, 3.0), (None, 3.0)], {0}),
        ([(None, None), (None, None)], {1}),
    ],
)
def test_a_newer_processing_supersedes_what_shows_the_same_ground(
    catalog: str, tile: str, ages_and_shares: list[tuple[int | None, float | None]], kept: set[int]
) -> None:
    """Two datastrips of a datatake share tile and time; an item may not tell its age."""
    sensor = load_catalog(catalog).sensors["sentinel-2"]
    scenes = []
    for number, (year, share) in enumerate(ages_and_shares):
        properties = {
            "datetime": "2021-07-20T17:00:00Z",
            "s2:datatake_id": "take",
            tile: "15TWG",
            "s2:generation_time": None if year is None else f"{year}-01-02T01:00:00Z",
            "s2:nodata_pixel_percentage": share,
        }
        stated = {name: value for name, value in properties.items() if value is not None}
        scene = scene_from_item(
            sensor, {**item(number), "id": f"scene-{number}", "properties": stated}
        )
        assert scene is not None
        scenes.append(scene)
    remaining = newest_processing(sensor, scenes)
    assert {int(scene.id[-1]) for scene in remaining} == kept
    assert newest_processing(sensor, scenes[::-1]) == remaining[::-1]


def test_the_sample_catalog_is_searched_like_any_other(sample_toml: str) -> None:
    catalog = load_catalog(sample_toml)
    paths = sorted(Path(catalog.url).parent.glob("sentinel-2-l2a/*/*.json"))
    items = [json.loads(path.read_text()) for path in paths]
    dates = parse_dates("2022-01-01/2022-12-31")
    ids = {scene.id for scene in search(catalog, "sentinel-2", WORLD, dates)}
    times = {one["id"]: datetime.fromisoformat(one["properties"]["datetime"]) for one in items}
    in_2022 = {name for name, time in times.items() if time.year == 2022}
    assert ids < in_2022
    # One date was processed twice; the older processing is left out.
    assert {times[name] for name in ids} == {times[name] for name in in_2022}


def test_hrefs_of_a_local_catalog_are_relative(sample_toml: str) -> None:
    for scene in search(load_catalog(sample_toml), "naip", WORLD, None):
        assert not Path(scene.hrefs["image"]).is_absolute()


def test_a_broken_static_catalog_is_one_clear_error(tmp_path: Path) -> None:
    for content in (None, "not json", "{}"):
        path = tmp_path / "catalog.json"
        if content is not None:
            path.write_text(content)
        catalog = replace(load_catalog("sample"), kind="static", url=str(path))
        with pytest.raises(CatalogError, match="cannot be read"):
            search(catalog, "naip", WORLD, None)


@needs_real
@pytest.mark.parametrize(
    ("file", "sensor"),
    [
        ("naip-pc.json", "naip"),
        ("sentinel-1-rtc-pc.json", "sentinel-1"),
        ("sentinel-2-l2a-pc.json", "sentinel-2"),
    ],
)
def test_real_items_are_understood(file: str, sensor: str) -> None:
    items = json.loads((REAL / "stac" / file).read_text())
    with serve(StacServer(items)) as server:
        scenes = search(api(server.url), sensor, WORLD, None)
    assert scenes
    description = load_catalog("planetary-computer").sensors[sensor]
    for scene in scenes:
        assert "None" not in scene.group(description)
        assert scene.acquired_utc.tzinfo is UTC
        for product in description.products.values():
            assert {band.asset for band in product.bands.values()} <= set(scene.hrefs)


def test_dates_are_whole_days_in_utc() -> None:
    first, last = parse_dates("2022-07-01/2022-07-02")
    assert (first.isoformat(), last.isoformat()) == (
        "2022-07-01T00:00:00+00:00",
        "2022-07-02T23:59:59.999999+00:00",
    )


@pytest.mark.parametrize("text", ["2022", "2022-07-01", "a/b", "2022-07-02/2022-07-01", "a/b/c"])
def test_malformed_dates_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="dates"):
        parse_dates(text)
