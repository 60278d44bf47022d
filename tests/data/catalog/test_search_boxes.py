"""Searches of boxes across 180 degrees and of longitudes beyond, of an API and of a catalog on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from shapely.geometry import box, mapping

from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.search import search
from tests.support.services.servers import StacServer, serve

if TYPE_CHECKING:
    from pathlib import Path

    from salibi_data.catalog.providers import Catalog
    from salibi_data.store.tiles import Bounds

FOOTPRINTS = {
    "east": mapping(box(179.2, 10, 179.8, 11)),
    "west": mapping(box(-179.8, 10, -179.2, 11)),
    "across": mapping(box(179.9, 10, -179.9, 11)),
    "from-zero": mapping(box(179.9, 10, 180.1, 11)),
    "greenwich": mapping(box(-0.5, 10, 0.5, 11)),
}
BOXES = [
    (179.0, 10.0, -179.0, 11.0),
    (179.0, 10.0, 181.0, 11.0),
    (-181.0, 10.0, -179.0, 11.0),
]


def item(name: str, geometry: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "naip",
        "geometry": geometry,
        "bbox": [-180, -90, 180, 90],
        "properties": {"datetime": "2022-07-01T16:00:00Z", "naip:year": "2022"},
        "links": [],
        "assets": {"image": {"href": f"https://example.com/{name}.tif"}},
    }


def names(catalog: Catalog, bounds: Bounds) -> set[str]:
    return {scene.id for scene in search(catalog, "naip", bounds, None)}


@pytest.mark.parametrize("bounds", BOXES)
def test_a_catalog_on_disk_has_the_scenes_of_both_sides(bounds: Bounds, tmp_path: Path) -> None:
    for name, geometry in FOOTPRINTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(item(name, geometry)))
    links = [{"rel": "item", "href": f"./{name}.json"} for name in FOOTPRINTS]
    content = {
        "type": "Catalog",
        "id": "c",
        "stac_version": "1.0.0",
        "description": "-",
        "links": links,
    }
    (tmp_path / "catalog.json").write_text(json.dumps(content))
    known = load_catalog("planetary-computer")
    catalog = replace(known, kind="static", url=str(tmp_path / "catalog.json"))
    assert names(catalog, bounds) == set(FOOTPRINTS) - {"greenwich"}
    assert names(catalog, (359.0, 10.0, 361.0, 11.0)) == {"greenwich"}
    assert names(catalog, (100.0, 10.0, 101.0, 11.0)) == set()


@pytest.mark.parametrize("bounds", BOXES)
def test_an_api_is_asked_for_each_side(bounds: Bounds) -> None:
    """A server that takes west > east for the box between them would answer with other scenes."""
    sides = {name: FOOTPRINTS[name] for name in ("east", "west", "greenwich")}
    with serve(StacServer([item(*each) for each in sides.items()])) as server:
        catalog = replace(load_catalog("planetary-computer"), url=server.url)
        assert names(catalog, bounds) == {"east", "west"}
