"""Items and assets of the sample catalog: valid STAC, and true of their rasters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rasterio
import rasterio.warp
import shapely

from tests.support.data.sample_items import NUM_ITEMS, items


@pytest.fixture
def catalog(sample_catalog: Path) -> Path:
    """The catalog all tests share."""
    return sample_catalog


def all_items(catalog: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for collection in NUM_ITEMS:
        yield from items(catalog, collection)


# The static catalog


def test_opens_with_pystac(catalog: Path):
    pystac = pytest.importorskip("pystac")
    root = pystac.Catalog.from_file(str(catalog / "catalog.json"))
    num_items = {child.id: len(list(child.get_items())) for child in root.get_children()}
    assert num_items == NUM_ITEMS
    for child in root.get_children():
        assert child.license == "CC0-1.0"
        for item in child.get_items():
            for asset in item.assets.values():
                assert Path(asset.get_absolute_href()).is_file()


def test_hrefs_are_relative_and_nothing_tells_of_the_machine(catalog: Path):
    for path in catalog.rglob("*.json"):
        text = path.read_text()
        content = json.loads(text)
        hrefs = [link["href"] for link in content["links"]]
        hrefs += [asset["href"] for asset in content.get("assets", {}).values()]
        assert all(href.startswith(".") for href in hrefs)
        assert all((path.parent / href).is_file() for href in hrefs)
        assert str(catalog) not in text


def test_property_names_are_those_of_the_real_items(catalog: Path):
    required = {
        "naip": {"naip:year", "naip:state", "gsd", "proj:epsg", "proj:centroid", "proj:bbox"},
        "sentinel-1-rtc": {
            "sat:orbit_state",
            "sat:relative_orbit",
            "sat:absolute_orbit",
            "sar:instrument_mode",
            "sar:polarizations",
            "start_datetime",
            "proj:transform",
        },
        "sentinel-2-l2a": {
            "eo:cloud_cover",
            "s2:mgrs_tile",
            "s2:processing_baseline",
            "s2:generation_time",
            "s2:nodata_pixel_percentage",
            "s2:high_proba_clouds_percentage",
            "proj:epsg",
        },
    }
    for _, item in all_items(catalog):
        assert required[item["collection"]] <= item["properties"].keys(), item["id"]


def test_every_asset_is_the_raster_its_item_describes(catalog: Path):
    for folder, item in all_items(catalog):
        for name, asset in item["assets"].items():
            properties = {**item["properties"], **asset}
            with rasterio.open(folder / asset["href"]) as source:
                where = f"{item['id']} {name}"
                assert source.crs.to_epsg() == properties["proj:epsg"], where
                assert list(source.shape) == properties["proj:shape"], where
                assert list(source.transform)[:6] == properties["proj:transform"][:6], where
                assert list(source.bounds) == pytest.approx(properties["proj:bbox"], abs=1e-6), (
                    where
                )


def test_every_asset_is_a_cog(catalog: Path):
    for folder, item in all_items(catalog):
        for asset in item["assets"].values():
            with rasterio.open(folder / asset["href"]) as source:
                assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert source.profile["tiled"]
                block = source.block_shapes[0][0]
                assert block in {256, 512}
                if max(source.shape) > block:
                    assert source.overviews(1), asset["href"]


def test_geometry_is_the_footprint(catalog: Path):
    """Reprojected back, the ring of NAIP and Sentinel-2 items is the raster's edge."""
    for folder, item in items(catalog, "naip") + items(catalog, "sentinel-2-l2a"):
        key = "image" if item["collection"] == "naip" else "B02"
        with rasterio.open(folder / item["assets"][key]["href"]) as source:
            back = rasterio.warp.transform_geom("EPSG:4326", source.crs, item["geometry"])
            ring, box = shapely.geometry.shape(back), shapely.box(*source.bounds)
        assert ring.symmetric_difference(box).area < 1e-3 * box.length * 10
        assert item["bbox"] == pytest.approx(shapely.geometry.shape(item["geometry"]).bounds)
