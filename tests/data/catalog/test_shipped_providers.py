"""The shipped providers against real items of theirs."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from salibi_data.catalog.providers import Sensor, load_catalog
from salibi_data.catalog.scenes import Scene, scene_from_item
from salibi_data.catalog.variants import check_fit, load_variant
from salibi_data.store.errors import UsageError
from tests.support.data.real_catalogs import REAL, needs_real

if TYPE_CHECKING:
    from pathlib import Path


STAC = REAL / "stac"


ITEMS = {
    ("planetary-computer", "naip"): "naip-pc.json",
    ("planetary-computer", "sentinel-1"): "sentinel-1-rtc-pc.json",
    ("planetary-computer", "sentinel-2"): "sentinel-2-l2a-pc.json",
    ("earth-search", "sentinel-1"): "es_v1__sentinel-1-grd__items.json",
    ("earth-search", "sentinel-2"): "es_v1__sentinel-2-c1-l2a__items.json",
}


SOURCES = pytest.mark.parametrize(("catalog", "sensor"), ITEMS)


def items_of(catalog: str, sensor: str) -> list[dict[str, Any]]:
    content = json.loads((STAC / ITEMS[catalog, sensor]).read_text())
    items: list[dict[str, Any]] = content["features"] if isinstance(content, dict) else content
    assert items
    return items


def sensor_of(catalog: str, sensor: str) -> Sensor:
    return load_catalog(catalog).sensors[sensor]


def scene_of(sensor: Sensor, item: dict[str, Any]) -> Scene | None:
    return scene_from_item(sensor, item)


@needs_real
@SOURCES
def test_real_items_are_of_the_collection_and_have_what_the_rules_name(
    catalog: str, sensor: str
) -> None:
    rules = sensor_of(catalog, sensor)
    for item in items_of(catalog, sensor):
        assert item["collection"] == rules.collection
        properties = item["properties"]
        assert not {*rules.used_properties, *rules.require} - set(properties)
        if set(rules.require.get("sar:polarizations", ())) <= set(
            properties.get("sar:polarizations", ())
        ):
            assert not set(rules.assets) - set(item["assets"])


@needs_real
@SOURCES
def test_real_items_become_scenes_unless_they_lack_a_polarisation(
    catalog: str, sensor: str
) -> None:
    rules = sensor_of(catalog, sensor)
    for item in items_of(catalog, sensor):
        scene = scene_of(rules, item)
        if item["properties"].get("sar:polarizations") == ["HH"]:
            assert scene is None  # over Antarctica and the Southern Ocean
            continue
        assert scene is not None
        assert set(scene.hrefs) == set(rules.assets)
        assert None not in scene.group(rules)
        assert scene.acquired_utc.tzinfo is UTC


@needs_real
def test_a_grd_item_with_both_polarisations_becomes_a_scene() -> None:
    """No real one of Earth Search is at hand: the HH item with its bands named VV and VH."""
    rules = sensor_of("earth-search", "sentinel-1")
    text = json.dumps(items_of("earth-search", "sentinel-1")[0])
    item = json.loads(text.replace("HH", "VV").replace("hh", "vv"))
    item["properties"]["sar:polarizations"] = ["VV", "VH"]
    item["assets"] |= {
        key.replace("vv", "vh"): {"href": asset["href"].replace("vv", "vh")}
        for key, asset in item["assets"].items()
    }
    scene = scene_of(rules, item)
    assert scene is not None
    assert set(scene.hrefs) == {"vv", "vh", "schema-calibration-vv", "schema-calibration-vh"}
    assert all(href.startswith("s3://") for href in scene.hrefs.values())
    assert rules.requester_pays == item["properties"]["storage:requester_pays"]
    assert rules.region == item["properties"]["storage:region"]
    for kept in ("proj:transform", "proj:shape"):  # invented, and transposed
        assert kept in item["properties"]
        assert kept not in scene.properties


@needs_real
def test_offset_scale_and_nodata_are_those_of_earth_searchs_items() -> None:
    """Of every reflectance band of every item: ``raster:bands`` is the provider's own statement."""
    product = sensor_of("earth-search", "sentinel-2").products["reflectance"]
    for item in items_of("earth-search", "sentinel-2"):
        for band in product.bands.values():
            stated = item["assets"][band.asset]["raster:bands"][0]
            assert product.scale == stated["scale"]
            assert product.nodata == stated["nodata"]
            assert product.offset_for(item["properties"]) == stated["offset"]
            assert (band.gsd_m or product.gsd_m) == stated["spatial_resolution"]


@needs_real
def test_the_flag_that_is_often_wrong_does_not_count() -> None:
    """Items of collection 0 say ``boa_offset_applied`` where their bands state an offset."""
    product = sensor_of("earth-search", "sentinel-2").products["reflectance"]
    items = json.loads((STAC / "es_v1__sentinel-2-l2a__items.json").read_text())["features"]
    flagged = [i for i in items if i["properties"].get("earthsearch:boa_offset_applied")]
    assert flagged
    for item in flagged:
        assert item["assets"]["red"]["raster:bands"][0]["offset"] == -0.1
        assert product.offset_for(item["properties"]) == -0.1


@needs_real
@pytest.mark.parametrize(
    ("assets", "product"),
    [(["visual"], "visual"), (["red", "nir", "rededge1", "swir16"], "reflectance"), (["scl"], "")],
)
def test_expected_bytes_are_those_of_real_files(assets: list[str], product: str) -> None:
    """``file:size`` over the pixels that hold data; a third either way is good enough to plan."""
    sensor = sensor_of("earth-search", "sentinel-2")
    rule = sensor.products[product] if product else sensor.clouds
    assert rule is not None
    assert rule.bytes_per_px is not None
    ratios = []
    for item in items_of("earth-search", "sentinel-2"):
        seen = 1 - item["properties"]["s2:nodata_pixel_percentage"] / 100
        for name in assets:
            asset = item["assets"][name]
            rows, columns = asset["proj:shape"]
            num = rows * columns * len(asset["raster:bands"]) * seen
            ratios.append(asset["file:size"] / num)
    assert rule.bytes_per_px == pytest.approx(np.mean(ratios), rel=0.33)


@needs_real
def test_pixel_sizes_are_those_of_planetary_computers_items() -> None:
    for item in items_of("planetary-computer", "sentinel-2"):
        sensor = sensor_of("planetary-computer", "sentinel-2")
        for product in sensor.products.values():
            for name, band in product.bands.items():
                stated = item["assets"][band.asset]["gsd"]
                assert product.native_gsd_m(name, item["properties"]) == stated
    naip = sensor_of("planetary-computer", "naip").products["image"]
    for item in items_of("planetary-computer", "naip"):
        assert naip.native_gsd_m("red", item["properties"]) == item["properties"]["gsd"]
        assert item["properties"]["proj:transform"][0] == pytest.approx(item["properties"]["gsd"])


@needs_real
def test_earth_searchs_naip_has_the_asset_and_the_order_of_bands() -> None:
    collection = json.loads((STAC / "es_v1__naip__collection.json").read_text())
    sensor = sensor_of("earth-search", "naip")
    assert sensor.collection == collection["id"]
    stated = collection["item_assets"]["image"]["eo:bands"]
    for name, band in sensor.products["image"].bands.items():
        assert stated[band.index - 1]["common_name"] == name
    assert sensor.requester_pays


def test_every_source_says_what_reading_it_takes() -> None:
    """Native pixel, compressed bytes and blocks, and prices where the requester pays."""
    for name in ("planetary-computer", "earth-search", "sample"):
        catalog = load_catalog(name)
        for sensor in catalog.sensors.values():
            for product in sensor.products.values():
                assert all(product.native_gsd_m(band, {}) for band in product.bands)
                assert product.bytes_per_px
                assert product.block_px in {256, 512, 1024}
            assert sensor.clouds is None or sensor.clouds.bytes_per_px
        pays = any(sensor.requester_pays for sensor in catalog.sensors.values())
        assert bool(catalog.prices.usd_per_gb) == pays


def test_clear_and_cloudy_classes_are_those_of_the_scene_classification() -> None:
    for name in ("planetary-computer", "earth-search"):
        mask = sensor_of(name, "sentinel-2").clouds
        assert mask is not None
        assert set(mask.cloudy) == {0, 1, 3, 8, 9, 10}
        assert not {4, 5, 6} & set(mask.cloudy)


def test_both_catalogs_give_the_same_reflectance_bands() -> None:
    bands = [
        set(sensor_of(name, "sentinel-2").products["reflectance"].bands)
        for name in ("planetary-computer", "earth-search")
    ]
    assert bands[0] == bands[1]
    assert len(bands[0]) == 10


@pytest.mark.parametrize("variant", ["small", "full", "micro"])
def test_a_variant_with_radar_needs_a_catalog_that_has_it(variant: str) -> None:
    check_fit(load_variant(variant), load_catalog("planetary-computer"))
    with pytest.raises(UsageError, match=r"only as GRD.*sentinel-1-rtc.*--allow-grd"):
        check_fit(load_variant(variant), load_catalog("earth-search"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('geolocation = "rpc"', "geolocation is 'rpc'"),
        ('nodata = "footprint"', "needs a nodata value of its own"),
        ('calibration.vh = ""\nbands.hh = { asset = "hh" }', r"no annotation for \['hh'\]"),
    ],
)
def test_a_faulty_product_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'extends = "earth-search"\n[sensors.sentinel-1.products.grd]\n{line}\n')
    with pytest.raises(UsageError, match=message):
        load_catalog(str(path))
