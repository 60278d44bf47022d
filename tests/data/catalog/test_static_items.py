"""Catalogs on disk whose hrefs are written in other ways, and whose items are not all valid."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shapely.geometry import shape

from salibi_data.catalog.providers import Catalog, load_catalog
from salibi_data.catalog.search import search
from salibi_data.sources.read import resolve_href
from salibi_data.store.errors import CatalogError
from tests.support.services.hosts import BOUNDS, naip_item

if TYPE_CHECKING:
    from salibi_data.catalog.scenes import Scene

Item = dict[str, Any]


def catalog(path: Path) -> Catalog:
    return replace(load_catalog("planetary-computer"), kind="static", url=str(path))


def scenes_of(path: Path) -> list[Scene]:
    return search(catalog(path), "naip", BOUNDS, None)


def write_tree(folder: Path, *items: Any, kind: str = "Catalog") -> Path:
    """``catalog.json``, and the items in a folder of another name each."""
    links = []
    for number, content in enumerate(items):
        path = folder / f"item {number}" / "item.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        links.append({"rel": "item", "href": f"./item%20{number}/item.json"})
    root: Item = {"type": kind, "id": "naip", "stac_version": "1.0.0", "description": "x"}
    if kind == "Collection":
        extent = {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None] * 2]},
        }
        root |= {"license": "none", "extent": extent}
    (folder / "catalog.json").write_text(json.dumps(root | {"links": links}))
    return folder / "catalog.json"


def with_href(name: str, href: str) -> Item:
    one = naip_item(name)
    one["assets"]["image"]["href"] = href
    return one


@pytest.mark.parametrize(
    "file", ["a.tif", "a b.tif", "100%.tif", "a%20b.tif", "größe.tif", "a#1?.tif"]
)
@pytest.mark.parametrize("writing", ["path", "encoded", "absolute", "file", "file encoded"])
def test_an_href_means_the_file_that_it_names(tmp_path: Path, file: str, writing: str) -> None:
    folder = tmp_path / "of%20all" / "item 0"
    folder.mkdir(parents=True)
    (folder / file).touch()
    href = {
        "path": f"./{file}",
        "encoded": f"./{quote(file)}",
        "absolute": str(folder / file),
        "file": (folder / file).as_uri(),
        "file encoded": f"file://localhost{quote(str(folder / file))}",
    }[writing]
    path = write_tree(folder.parent, with_href("a", href))
    (scene,) = scenes_of(path)
    # Relative to the catalog's folder, so that a plan does not depend on its place.
    assert scene.hrefs["image"] == f"item 0/{file}"
    assert Path(resolve_href(catalog(path), scene.hrefs["image"])) == folder / file


def test_files_elsewhere_and_addresses_stay_as_they_are(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a.tif"
    hrefs = [
        "https://a.org/a%20b.tif",
        "s3://bucket/a b.tif",
        str(elsewhere),
        "/vsizip//a.zip/a.tif",
    ]
    items = [with_href(str(number), href) for number, href in enumerate(hrefs)]
    scenes = scenes_of(write_tree(tmp_path / "catalog", *items))
    assert [scene.hrefs["image"] for scene in scenes] == hrefs


INVALID: list[Any] = [
    None,
    [],
    {"properties": None},
    {"properties": {"datetime": "yesterday", "naip:year": "2022"}},
    {"assets": None},
    {"assets": [{"href": "a.tif"}]},
    {"assets": {"image": "a.tif"}},
    {"geometry": {"type": "Polygon", "coordinates": []}},
    {"links": 5},
    {"stac_version": None},
    {"stac_version": "0.1", "stac_extensions": "eo"},
]


@pytest.mark.parametrize("odd", INVALID, ids=str)
def test_an_invalid_item_does_not_end_the_catalog(tmp_path: Path, odd: Any) -> None:
    strange = naip_item("strange") | odd if isinstance(odd, dict) else odd
    scenes = scenes_of(write_tree(tmp_path, strange, naip_item("right")))
    assert "right" in {scene.id for scene in scenes} <= {"right", "strange"}


def test_an_item_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write_tree(tmp_path, naip_item("a"), naip_item("b"))
    (tmp_path / "item 1" / "item.json").write_text('{"id": ')
    with pytest.raises(CatalogError, match=r"item 1/item\.json is no JSON"):
        scenes_of(path)
    (tmp_path / "item 1" / "item.json").unlink()
    with pytest.raises(CatalogError, match=r"item%201/item\.json"):
        scenes_of(path)


def test_an_item_without_a_collection_is_of_the_one_above_it(tmp_path: Path) -> None:
    bare = {name: value for name, value in naip_item("bare").items() if name != "collection"}
    assert scenes_of(write_tree(tmp_path / "a", bare)) == []
    (scene,) = scenes_of(write_tree(tmp_path / "b", bare, kind="Collection"))
    assert scene.id == "bare"


def test_two_items_of_one_id_are_one_scene_in_any_order(tmp_path: Path, caplog: Any) -> None:
    items = [naip_item("a", gsd=0.6), naip_item("a", gsd=0.3), naip_item("a", gsd=0.6)]
    answers = [
        scenes_of(write_tree(tmp_path / str(number), *items[number:], *items[:number]))
        for number in range(3)
    ]
    assert len(answers[0]) == 1
    assert answers[0] == answers[1] == answers[2]
    assert caplog.text.count("items of one id differ") == 3


def write_parquet(path: Path, *items: Item, links: bool = True, **columns: Any) -> Path:
    rows = [
        {
            "id": one["id"],
            "collection": one["collection"],
            "geometry": one.get("wkb", shape(one["geometry"]).wkb),
            "assets": {"image": {"href": one["assets"]["image"]["href"], "title": None}},
            "naip:year": "2022",
        }
        | ({"links": one["links"]} if links else {})
        for one in items
    ]
    table = pa.Table.from_pylist(rows)
    time = pa.array([1_625_155_200_123_456_789] * len(rows), pa.timestamp("ns", "UTC"))
    table = table.append_column("datetime", columns.get("datetime", time))
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".PARQUET", ".geoparquet"])
def test_stac_geoparquet_is_read_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    (scene,) = scenes_of(
        write_parquet(tmp_path / f"items{suffix}", with_href("a", "./b/a%20b.tif"))
    )
    # Nanoseconds are cut off: Python's times have microseconds.
    assert scene.acquired_utc == datetime(2021, 7, 1, 16, 0, 0, 123456, tzinfo=UTC)
    assert scene.hrefs == {"image": "b/a%20b.tif"}


def test_hrefs_in_stac_geoparquet_are_relative_to_an_own_link_that_is_remote(
    tmp_path: Path,
) -> None:
    hrefs = {
        "./a%20b.tif": "https://a.org/items/a%20b.tif",
        "s3://bucket/a.tif": "s3://bucket/a.tif",
        (tmp_path / "c.tif").as_uri(): "c.tif",
        str(tmp_path / "d.tif"): "d.tif",
    }
    items = [with_href(str(number), href) for number, href in enumerate(hrefs)]
    for one in items:
        one["links"] = [{"rel": "self", "href": "https://a.org/items/a.json"}]
    scenes = scenes_of(write_parquet(tmp_path / "items.parquet", *items))
    assert [scene.hrefs["image"] for scene in scenes] == list(hrefs.values())
    for one in items:
        one["links"] = [{"rel": "self", "href": "/home/me/items/a.json"}]
    local = scenes_of(write_parquet(tmp_path / "local.parquet", *items))
    assert [scene.hrefs["image"] for scene in local] == ["a%20b.tif", *list(hrefs.values())[1:]]


def test_a_row_without_a_geometry_that_can_be_read_is_left_out(tmp_path: Path, caplog: Any) -> None:
    items = [naip_item("strange") | {"wkb": b"\x01nothing"}, naip_item("right")]
    scenes = scenes_of(write_parquet(tmp_path / "items.parquet", *items, links=False))
    assert [scene.id for scene in scenes] == ["right"]
    assert "item strange cannot be used" in caplog.text


def test_items_may_begin_with_a_byte_order_mark_and_are_named_where_they_are_no_json(
    tmp_path: Path,
) -> None:
    path = write_tree(tmp_path, naip_item("é"))
    (item,) = tmp_path.glob("item*/item.json")
    item.write_text(json.dumps(naip_item("é"), ensure_ascii=False), encoding="utf-8-sig")
    assert [scene.id for scene in scenes_of(path)] == ["é"]
    item.write_text(json.dumps(naip_item("é"), ensure_ascii=False), encoding="latin-1")
    with pytest.raises(CatalogError, match=r"item 0/item\.json is no JSON"):
        scenes_of(path)


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    path = write_tree(tmp_path, naip_item("a"))
    content = json.loads(path.read_text())
    content["links"] += [{"rel": "child", "href": name} for name in ("catalog.json", "b.json")]
    path.write_text(json.dumps(content))
    links = [{"rel": "child", "href": "./catalog.json"}]
    (tmp_path / "b.json").write_text(json.dumps(content | {"id": "b", "links": links}))
    assert [scene.id for scene in scenes_of(path)] == ["a"]
