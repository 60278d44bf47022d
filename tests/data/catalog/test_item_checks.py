"""Items of an API that were not asked for, and hrefs that mean no file at a server."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from shapely import box
from shapely.geometry import mapping

from salibi_data.catalog.dates import parse_dates
from salibi_data.catalog.item_checks import remote_href
from salibi_data.catalog.providers import Catalog, load_catalog
from salibi_data.catalog.search import CatalogSearch, search
from salibi_data.sources.read import resolve_href
from salibi_data.store.errors import CatalogError, ReadError
from tests.support.services.hosts import BOUNDS, OddApi, Query, naip_item
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from pathlib import Path

    from salibi_data.catalog.scenes import Scene

pytestmark = pytest.mark.usefixtures("no_pauses")

NAIP = load_catalog("planetary-computer")


def catalog(api: OddApi) -> Catalog:
    return replace(NAIP, url=api.url, signing="none")


def scenes_of(api: OddApi, dates: str | None = None) -> list[Scene]:
    return search(catalog(api), "naip", BOUNDS, None if dates is None else parse_dates(dates))


def without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in names}


def test_items_of_another_collection_are_left_out_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = [naip_item(f"other-{n}", n, collection="commercial") for n in range(5)]
    linked = without(naip_item("linked", 6), "collection")
    linked["links"] = [{"rel": "collection", "href": "https://a.org/stac/collections/commercial"}]
    with serve(OddApi([*others, naip_item("right"), linked], filters=False)) as api:
        assert [scene.id for scene in scenes_of(api)] == ["right"]
        # Whether the query was lost by POST alone is asked once.
        assert [method for method, _ in api.searches] == ["POST", "GET", "GET", "GET"]
    (record,) = [record for record in caplog.records if "not used" in record.message]
    assert "6 of another collection (first: other-0 of commercial)" in record.message


def test_an_answer_of_other_collections_alone_is_an_error() -> None:
    others = [naip_item(f"other-{n}", n, collection="commercial") for n in range(5)]
    with (
        serve(OddApi(others, filters=False)) as api,
        pytest.raises(
            CatalogError, match=r"answers with 5 items of other collections \(commercial\)"
        ),
    ):
        scenes_of(api)


@pytest.mark.parametrize("methods", [("POST", "GET"), ("POST",)])
def test_one_item_that_was_asked_for_may_come_after_many_others(methods: tuple[str, ...]) -> None:
    others = [naip_item(f"other-{n}", n % 9, collection="commercial") for n in range(9)]

    async def refuse(request: web.Request, query: Query) -> web.StreamResponse | None:
        return None if request.method in methods else web.Response(status=405)

    with serve(OddApi([*others, naip_item("right")], filters=False, answer=refuse)) as api:
        assert [scene.id for scene in scenes_of(api)] == ["right"]


def test_a_catalog_of_others_is_not_read_to_its_end() -> None:
    others = [naip_item(f"other-{n}", n % 9, collection="commercial") for n in range(500)]
    with (
        serve(OddApi(others, filters=False)) as api,
        pytest.raises(CatalogError, match=r"63 items of other collections .* and 0 of its own"),
    ):
        scenes_of(api)
    assert len(api.searches) < 50


def test_a_filter_that_is_lost_by_post_is_stated_by_get() -> None:
    items = [naip_item("other", collection="commercial"), naip_item("right")]

    async def lose(request: web.Request, query: Query) -> web.StreamResponse | None:
        if request.method == "GET":
            return None
        return web.json_response({"type": "FeatureCollection", "features": items[:1], "links": []})

    with serve(OddApi(items, answer=lose)) as api:
        assert [scene.id for scene in scenes_of(api)] == ["right"]


def test_an_item_that_states_no_collection_is_believed() -> None:
    with serve(OddApi([without(naip_item("bare"), "collection")], filters=False)) as api:
        assert [scene.id for scene in scenes_of(api)] == ["bare"]


def test_items_without_a_geometry_are_named(caplog: pytest.LogCaptureFixture) -> None:
    placeless = [naip_item(f"placeless-{n}", n) | {"geometry": None} for n in range(3)]
    with serve(OddApi([naip_item("right"), *placeless], filters=False)) as api:
        assert [scene.id for scene in scenes_of(api)] == ["right"]
    assert "3 without a geometry (first: placeless-0)" in caplog.text


def test_a_box_or_dates_that_an_api_ignores_are_checked(caplog: pytest.LogCaptureFixture) -> None:
    far = naip_item("far") | {
        "geometry": mapping(box(10, 50, 11, 51)),
        "bbox": [-180, -90, 180, 90],
    }
    # Its box touches the bounds, and its footprint does not: an API may compare either.
    west, south, east, north = BOUNDS
    triangle = [(west - 1, south - 1), (east + 1, south - 1), (west - 1, north + 0.05)]
    geometry = {"type": "Polygon", "coordinates": [[*triangle, triangle[0]]]}
    corner = naip_item("corner") | {"geometry": geometry}
    early = naip_item("early", datetime="2021-07-15T16:00:00Z")
    with serve(OddApi([naip_item("right"), far, corner, early], filters=False)) as api:
        assert [one.id for one in scenes_of(api, "2022-01-01/2022-12-31")] == ["right"]
    assert "1 outside the dates (first: early)" in caplog.text
    assert "1 outside the bounds (first: far)" in caplog.text


@pytest.mark.parametrize(
    ("times", "is_found"),
    [
        ({"datetime": "2022-07-15T16:00:00Z"}, True),
        ({"datetime": "2022-07-14T23:59:59Z"}, False),
        ({"datetime": None, "start_datetime": "2022-07-15T00:00:00Z"}, True),
        ({"datetime": None, "start_datetime": "2022-07-14T00:00:00Z"}, False),
        # APIs compare the whole range; a scene belongs to the day of its own time.
        (
            {
                "datetime": "2022-07-14T23:59:59Z",
                "start_datetime": "2022-07-14T23:59:50Z",
                "end_datetime": "2022-07-15T00:00:10Z",
            },
            False,
        ),
    ],
)
def test_a_scene_belongs_to_its_day(times: dict[str, Any], is_found: bool, caplog: Any) -> None:
    with serve(OddApi([naip_item("a", **times)], filters=False)) as api:
        assert bool(scenes_of(api, "2022-07-15/2022-07-15")) == is_found
    assert ("outside the dates" in caplog.text) == (not is_found and "end_datetime" not in times)


def test_one_item_on_two_pages_is_one_scene_in_any_order(caplog: pytest.LogCaptureFixture) -> None:
    first, again = naip_item("a"), naip_item("a")
    again["assets"]["image"]["href"] += "?sig=OTHER"  # signed anew for the second page
    other = naip_item("a", gsd=0.3)
    answers = []
    items = [first, again, naip_item("b", 1), other]
    with serve(OddApi(items, page_items=1)) as api:
        for permuted in itertools.permutations(items):
            api.items = list(permuted)
            answers.append(scenes_of(api))
    assert all(answer == answers[0] for answer in answers)
    assert [scene.id for scene in answers[0]] == ["a", "b"]
    assert "1 items of one id differ in content, such as a" in caplog.text


UNUSABLE = [
    "file:///data/a.tif",
    "FILE:///data/a.tif",
    "file:a.tif",
    "C:\\data\\a.tif",
    "c:/data/a.tif",
    "..\\a.tif",
    "\\\\host\\share\\a.tif",
    "/vsimem/a.tif",
    "/vsizip//data/a.zip/a.tif",
    "~/a.tif",
    "ftp://host/a.tif",
    "http://[::1/a.tif",
    "http:",
]


@pytest.mark.parametrize("href", UNUSABLE)
def test_a_remote_item_means_no_local_file(href: str, caplog: pytest.LogCaptureFixture) -> None:
    bare = naip_item("a")
    bare["assets"]["image"]["href"] = href
    with serve(OddApi([bare, naip_item("b", 1)])) as api:
        finder = CatalogSearch(catalog(api), required_assets={"naip": ("image",)})
        assert [scene.id for scene in finder.find("naip", BOUNDS, None)] == ["b"]
    assert "1 with an href that is no address at a server" in caplog.text


@pytest.mark.parametrize("href", [*UNUSABLE, "a.tif", "./a.tif", "/data/a.tif", "../../a.tif"])
def test_a_path_in_a_plan_of_an_api_is_never_opened(href: str) -> None:
    with pytest.raises(ReadError, match="no address at a server"):
        resolve_href(NAIP, href)


@pytest.mark.parametrize(
    ("own", "href", "expected"),
    [
        ("/items/1/a.json", "./a.tif", "/items/1/a.tif"),
        ("/items/1/a.json", "../b%20c.tif", "/items/b%20c.tif"),
        ("/items/1/a.json", "b c.tif", "/items/1/b%20c.tif"),
        ("/items/1/a.json", "größe.tif", "/items/1/gr%C3%B6%C3%9Fe.tif"),
        ("/items/my%20own/a.json", "a.tif?v=2", "/items/my%20own/a.tif?v=2"),
        ("/items/1/a.json", "/data/a.tif", "/data/a.tif"),
        ("/items/1/a.json", "../../../../../etc/a.tif", "/etc/a.tif"),
        ("../items/a.json", "a.tif", "/items/a.tif"),
        (None, "data/a.tif", "/data/a.tif"),
    ],
)
def test_hrefs_are_relative_to_the_items_own_link(
    own: str | None, href: str, expected: str
) -> None:
    one = naip_item("a")
    one["assets"]["image"]["href"] = href
    with serve(OddApi([one])) as api:
        if own is not None:
            link = own if own.startswith(".") else api.url + own
            one["links"] = [{"rel": "root", "href": "/"}, {"rel": "self", "href": link}]
        (scene,) = scenes_of(api)
        assert scene.hrefs["image"] == api.url + expected
        assert resolve_href(catalog(api), scene.hrefs["image"]) == scene.hrefs["image"]


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "abfs", "abfss", "https", "HTTPS", "S3"])
def test_addresses_stay(scheme: str) -> None:
    href = f"{scheme}://place/folder/a.tif"
    assert remote_href(href, "http://host/item.json") == href.replace(scheme, scheme.lower())
    base = f"{scheme.lower()}://place/items/item.json"
    assert remote_href("../folder/a.tif", base) == href.replace(scheme, scheme.lower())


SEGMENTS = st.sampled_from(["..", ".", "a", "b.tif", "c%20d", "e%2F", ""])


@given(st.lists(SEGMENTS, min_size=1, max_size=6).map("/".join))
def test_relative_hrefs_follow_the_rules_of_urls(href: str) -> None:
    base = "http://host:81/one/two/item.json?x=1"
    expected = urljoin(base, href) if href.strip() else None
    assert remote_href(href, base) == expected


STRANGE: list[dict[str, Any]] = [
    {"assets": [{"href": "a.tif"}]},
    {"assets": {"image": "a.tif"}},
    {"assets": {"image": {"href": 5}}},
    {"assets": {}},
    {"assets": {"image": {"href": None}}},
    {"assets": {"image": None}},
    {"links": "none"},
    {"links": [None, {"rel": "self"}, {"rel": "self", "href": 7}]},
    {"properties": []},
    {"id": ""},
    {"id": 7},
    {"collection": ["naip"]},
]


@pytest.mark.parametrize("odd", STRANGE, ids=str)
def test_strange_items_end_nothing(odd: dict[str, Any]) -> None:
    with serve(OddApi([naip_item("a") | odd, naip_item("b", 1)], filters=False)) as api:
        finder = CatalogSearch(catalog(api), required_assets={"naip": ("image",)})
        ids = [scene.id for scene in finder.find("naip", BOUNDS, None)]
    assert ids == (["a", "b"] if "links" in odd else ["b"])


def test_nan_in_an_answer_is_kept_out_of_the_cache(tmp_path: Path) -> None:
    one = naip_item("a", gsd=math.nan, **{"eo:cloud_cover": math.nan})
    with serve(OddApi([one])) as api:
        CatalogSearch(catalog(api), tmp_path).find("naip", BOUNDS, None)
        (kept,) = tmp_path.iterdir()
        assert "NaN" not in kept.read_text()
        (scene,) = CatalogSearch(catalog(api), tmp_path).find("naip", BOUNDS, None)
    assert scene.id == "a"
    assert len(api.searches) == 1
