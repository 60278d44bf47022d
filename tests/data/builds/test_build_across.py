"""Stores across 180 degrees: samples on both sides, whichever way files and areas are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
import zarr
from rasterio.transform import Affine
from shapely.geometry import box, mapping

from salibi_data import build
from tests.support.data.tiles import tiles_within

if TYPE_CHECKING:
    from pathlib import Path

ZOOM = 13
SOUTH, NORTH = 51.0, 51.1
CATALOG = """
name = "across"
title = "across"
kind = "static"
url = "catalog.json"
[sensors.naip]
collection = "naip"
licence = "none"
attribution = "none"
[sensors.naip.products.image]
units = "display"
nodata = "footprint"
bands.red = { asset = "image" }
"""
VARIANT = f"""
name = "across"
summary = "one sensor"
base_zoom = {ZOOM}
[[selection]]
sensor = "naip"
rank = ["newest"]
[quality]
min_valid_fraction = 1.0
[split]
validation_share = 0.0
test_share = 0.0
[[modality]]
name = "image"
sensor = "naip"
product = "image"
bands = ["red"]
units = "display"
"""
CUT = mapping(box(179.7, 50.9, 180, 51.2).union(box(-180, 50.9, -179.7, 51.2)))


def written(folder: Path, footprint: Any, west: float) -> Path:
    """A catalog of one image of 0.5 degrees; its longitudes begin at ``west``, its footprint is any."""
    folder.mkdir()
    rows, columns = np.mgrid[0:400, 0:600]
    values = np.rint(128 + 50 * np.sin(columns / 11) + 50 * np.cos(rows / 7)).astype("uint8")
    options = {"driver": "GTiff", "count": 1, "height": 400, "width": 600, "dtype": "uint8"}
    transform = Affine(0.001, 0, west, 0, -0.001, 51.25)
    with rasterio.open(
        folder / "a.tif", "w", crs="EPSG:4326", transform=transform, tiled=True, **options
    ) as dataset:
        dataset.write(values, 1)
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "collection": "naip",
        "geometry": footprint,
        "bbox": [-180, 50.9, 180, 51.2],
        "properties": {"datetime": "2022-07-01T16:00:00Z"},
        "links": [],
        "assets": {"image": {"href": "a.tif"}},
    }
    (folder / "a.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": "./a.json"}]
    content = {
        "type": "Catalog",
        "id": "c",
        "stac_version": "1.0.0",
        "description": "-",
        "links": links,
    }
    (folder / "catalog.json").write_text(json.dumps(content))
    (folder / "c.toml").write_text(CATALOG)
    (folder / "v.toml").write_text(VARIANT)
    return folder


def built(folder: Path, **area: Any) -> tuple[Any, Any]:
    """Tiles and images of the store, in order of the tiles."""
    build(
        folder / "out.zarr", variant=str(folder / "v.toml"), catalog=str(folder / "c.toml"), **area
    )
    store = zarr.open_group(folder / "out.zarr", mode="r")
    tiles, images = store["tile"][:], store["image"][:]
    order = np.lexsort(tiles.T)
    return tiles[order], images[order]


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = written(tmp_path_factory.mktemp("across") / "cut", CUT, 179.7)
    return built(folder, bounds_lonlat=(179.8, SOUTH, -179.8, NORTH))


def test_samples_lie_on_both_sides(right: tuple[Any, Any]) -> None:
    tiles, images = right
    sides = (179.8, SOUTH, 180.0, NORTH), (-180.0, SOUTH, -179.8, NORTH)
    expected = {(t.z, t.x, t.y) for side in sides for t in tiles_within(side, ZOOM)}
    assert set(map(tuple, tiles.tolist())) == expected
    assert {0, 2**ZOOM - 1} <= set(tiles[:, 1].tolist())
    assert (images > 0).all()


@pytest.mark.parametrize(
    ("footprint", "west", "bounds"),
    [
        (mapping(box(179.7, 50.9, -179.7, 51.2)), -180.3, (179.8, SOUTH, 180.2, NORTH)),
        (mapping(box(179.7, 50.9, 180.3, 51.2)), 179.7, None),
        (
            mapping(box(-180.3, 50.9, -179.7, 51.2).reverse()),
            -180.3,
            (-180.2, SOUTH, -179.8, NORTH),
        ),
    ],
)
def test_the_store_does_not_depend_on_how_longitudes_are_written(
    footprint: Any, west: float, bounds: Any, right: tuple[Any, Any], tmp_path: Path
) -> None:
    area: dict[str, Any] = {"bounds_lonlat": bounds}
    if bounds is None:
        area = {"aoi": tmp_path / "area.json"}
        area["aoi"].write_text(json.dumps(mapping(box(179.8, SOUTH, -179.8, NORTH))))
    tiles, images = built(written(tmp_path / "as", footprint, west), **area)
    np.testing.assert_array_equal(tiles, right[0])
    np.testing.assert_array_equal(images, right[1])
