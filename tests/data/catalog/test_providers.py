"""The shipped providers against real items of theirs, and the dark pixels against the baselines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from salibi_data.catalog.providers import Catalog, Product, Sensor, catalog_from_dict, load_catalog
from salibi_data.catalog.scenes import Scene, scene_from_item
from salibi_data.catalog.variants import check_fit, load_variant
from salibi_data.sources import http
from salibi_data.sources.read import read_asset
from salibi_data.sources.sentinel2_offset import MIN_PIXELS, offset_warning
from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data import real_catalogs
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.data.servers import RangeServer, serve
from tests.support.data.tiles import tiles_within

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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
    found = []
    for item in items_of("earth-search", "sentinel-2"):
        seen = 1 - item["properties"]["s2:nodata_pixel_percentage"] / 100
        for name in assets:
            asset = item["assets"][name]
            rows, columns = asset["proj:shape"]
            num = rows * columns * len(asset["raster:bands"]) * seen
            found.append(asset["file:size"] / num)
    assert rule.bytes_per_px == pytest.approx(np.mean(found), rel=0.33)


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


# The dark-pixel check.


def patagonia(band: int) -> NDArray[np.float32]:
    """Digital numbers that carry the offset: water, shadow and steppe at low sun."""
    with rasterio.open(REAL / "s2_patagonia" / "s2_patagonia_6band_10m.tif") as dataset:
        return dataset.read(band).ravel().astype(np.float32)


def punjab(name: str) -> NDArray[np.float32]:
    """Digital numbers of baseline 02.14, which carry none: fields and bare soil."""
    folder = next((real_catalogs.PUNJAB / "s2_l2a").iterdir())
    with rasterio.open(folder / f"{name}.tif") as dataset:
        return dataset.read(1).ravel().astype(np.float32)


def judged(numbers: NDArray[np.float32], *, applied: bool) -> str | None:
    return offset_warning(numbers, scale=1e-4, offset=-0.1, applied=applied)


@needs_real
@pytest.mark.parametrize("band", [1, 2, 3, 4, 5, 6])
def test_real_numbers_with_the_offset_agree_with_their_baseline(band: int) -> None:
    assert judged(patagonia(band), applied=True) is None


@needs_real
@pytest.mark.parametrize("name", ["B2", "B3", "B4", "B8", "B11", "B12"])
def test_real_numbers_without_the_offset_agree_with_their_baseline(name: str) -> None:
    assert judged(punjab(name), applied=False) is None


@needs_real
@pytest.mark.parametrize("name", ["B2", "B3", "B4"])
def test_an_offset_that_was_removed_already_is_seen(name: str) -> None:
    told = judged(punjab(name), applied=True)
    assert told is not None
    assert "removed already" in told


@needs_real
def test_an_offset_that_the_baseline_does_not_tell_is_seen_in_dark_blue() -> None:
    told = judged(patagonia(1), applied=False)
    assert told is not None
    assert "-0.1 were still to be added" in told


@needs_real
def test_few_pixels_are_not_judged() -> None:
    assert judged(punjab("B2")[:9_999], applied=True) is None
    assert judged(patagonia(1)[:9_999], applied=False) is None


@given(st.floats(0.16, 0.6), st.floats(0.0, 0.2), st.booleans(), st.integers(0, 2**32 - 1))
def test_bright_scenes_are_never_judged(
    level: float, spread: float, applied: bool, seed: int
) -> None:
    """Snow, desert and cloud without a dark pixel say nothing about an offset."""
    chance = np.random.default_rng(seed)
    reflectance = level + spread * chance.random(10_000)
    numbers = reflectance * 10_000 + (1_000 if applied else 0)
    assert judged(numbers.astype(np.float32), applied=applied) is None


PUNJAB_SCENE = "S2B_T43RCP"


def punjab_read(baseline: str) -> tuple[str, ...]:
    """Warnings of reading blue as of that baseline, through the shipped rules."""
    folder = next((real_catalogs.PUNJAB / "s2_l2a").iterdir())
    content = load_catalog("planetary-computer").to_dict()
    content |= {"kind": "static", "url": "catalog.json", "signing": "none"}
    catalog: Catalog = catalog_from_dict(content, where="test", folder=folder)
    with rasterio.open(folder / "B2.tif") as dataset:
        bounds = transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds)
    scene = Scene(
        id=PUNJAB_SCENE,
        sensor="sentinel-2",
        acquired_utc=datetime(2020, 6, 4, 5, 46, 39, tzinfo=UTC),
        footprint=mapping(box(*bounds)),
        hrefs={"B02": str(folder / "B2.tif")},
        properties={"s2:processing_baseline": baseline},
    )
    product: Product = catalog.sensors["sentinel-2"].products["reflectance"]
    grid = PixelGrid.around(tiles_within(bounds, 16))
    source = read_asset(catalog, scene, "B02", product, [product.bands["blue"]], grid)
    assert source is not None
    return source.warnings


@needs_real
def test_reading_hands_the_doubt_on_with_scene_band_and_baseline() -> None:
    assert punjab_read("02.14") == ()
    (doubt,) = punjab_read("05.10")
    assert doubt.startswith(f"{PUNJAB_SCENE} (baseline 05.10), band blue: an offset of -0.1")


FEW_TILES = [TileXYZ(21120 + i % 4, 50320 + i // 4, 17) for i in range(8)]
"""A build's block has fewer pixels of Sentinel-2 than are needed to judge."""


def write_scene(path: Path, level: int, *, overviews: bool = True, missing: float = 0.0) -> None:
    """A band of 20 km by 20 km whose western part may be missing; its pixels are all about alike."""
    num = 2048
    west, _, _, north = PixelGrid.around(FEW_TILES).bounds_3857
    numbers = np.random.default_rng(0).integers(level - 100, level + 100, (num, num))
    numbers[:, : int(missing * num)] = 0
    with rasterio.open(
        path,
        "w",
        driver="COG",
        dtype="uint16",
        count=1,
        width=num,
        height=num,
        crs="EPSG:3857",
        transform=from_origin(west - 12_000, north + 3_000, 10, 10),
        blocksize=256,
        compress="deflate",
        overviews="AUTO" if overviews else "NONE",
    ) as dataset:
        dataset.write(numbers.astype(np.uint16), 1)


def warnings_of(href: str, grid: PixelGrid, *, baseline: str) -> tuple[str, ...]:
    catalog = load_catalog("earth-search")
    product = catalog.sensors["sentinel-2"].products["reflectance"]
    scene = Scene(
        id="scene-1",
        sensor="sentinel-2",
        acquired_utc=datetime(2022, 6, 4, tzinfo=UTC),
        footprint={},
        hrefs={"red": href},
        properties={"s2:processing_baseline": baseline},
    )
    source = read_asset(catalog, scene, "red", product, [product.bands["red"]], grid)
    assert source is not None
    assert (source.values.size < MIN_PIXELS) == (grid.zoom == 17)
    return source.warnings


def test_a_scene_is_judged_by_all_of_it_once_and_cheaply(tmp_path: Path) -> None:
    write_scene(tmp_path / "red.tif", 500, missing=0.3)
    with serve(RangeServer(tmp_path)) as server:
        said, cost = [], []
        for tiles in (FEW_TILES[:4], FEW_TILES[4:8], FEW_TILES):
            before = http.counters()
            said += warnings_of(f"{server.url}/red.tif", PixelGrid.around(tiles), baseline="05.10")
            cost.append((http.counters() - before).bytes)
    assert len(said) == 3
    assert len(set(said)) == 1
    assert said[0].startswith("scene-1 (baseline 05.10), band red: an offset of -0.1 is implied")
    assert cost[0] - cost[1] < 400_000 < (tmp_path / "red.tif").stat().st_size / 10


@pytest.mark.parametrize(
    ("level", "baseline", "doubted"),
    [
        (500, "02.14", False),
        (1500, "05.10", False),
        (500, "05.10", True),
        (1130, "02.14", True),
    ],
)
@pytest.mark.parametrize("missing", [0.0, 0.5, 0.8])
def test_the_verdict_on_a_scene_is_that_on_its_pixels(
    tmp_path: Path, level: int, baseline: str, missing: float, *, doubted: bool
) -> None:
    """Averages of a pixel and of what is missing beside it are left out."""
    write_scene(tmp_path / "red.tif", level, missing=missing)
    with rasterio.open(tmp_path / "red.tif") as dataset:
        numbers = dataset.read(1).astype(np.float32)
    told = judged(numbers[numbers > 0], applied=baseline == "05.10")
    assert (told is not None) == doubted
    grid = PixelGrid.around(FEW_TILES)
    said = warnings_of(str(tmp_path / "red.tif"), grid, baseline=baseline)
    assert bool(said) == doubted


def test_a_large_file_without_overviews_is_judged_by_its_windows(tmp_path: Path) -> None:
    write_scene(tmp_path / "red.tif", 500, overviews=False)
    path = str(tmp_path / "red.tif")
    assert warnings_of(path, PixelGrid.around(FEW_TILES), baseline="05.10") == ()
    larger = [TileXYZ(FEW_TILES[0].x // 4 + i, FEW_TILES[0].y // 4, 15) for i in range(2)]
    said = {warnings_of(path, PixelGrid.around([tile]), baseline="05.10") for tile in larger}
    assert len(said) == 1
    assert "removed already" in str(said)
