"""Scale, offset, nodata and shape that items declare, from STAC of any version to a plan and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shapely.geometry import shape

from salibi_data import build
from salibi_data.catalog.items.declared import band_of, declared_bands, declared_shapes
from salibi_data.catalog.providers import Band, CloudMask, OffsetRule, Product, Sensor, load_catalog
from salibi_data.catalog.scenes import Scene, scene_from_item
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.open import open_store
from tests.support.catalogs import made_catalogs as made
from tests.support.data import sample_items

if TYPE_CHECKING:
    from pathlib import Path

BANDS = {"red": Band(asset="image"), "nir": Band(asset="image", index=2)}


def sensor(**options: Any) -> Sensor:
    product = Product(**{"units": "reflectance", "bands": BANDS} | options)
    return Sensor(
        name="one", collection="", products={"image": product}, licence="", attribution=""
    )


@pytest.mark.parametrize(
    ("asset", "expected"),
    [
        ({}, None),
        ({"raster:bands": []}, None),
        ({"raster:bands": [{"scale": 1, "offset": 0.0}]}, None),
        ({"raster:bands": [{"scale": 1e-4}]}, ({"scale": 1e-4},)),
        (
            {"raster:bands": [{"scale": 0.5, "offset": -1}, {"nodata": 0}]},
            ({"scale": 0.5, "offset": -1}, {"nodata": 0}),
        ),
        (
            {"bands": [{"name": "r", "raster:scale": 0.5}, {"name": "n", "raster:offset": 2}]},
            ({"scale": 0.5}, {"offset": 2}),
        ),
        ({"raster:scale": 0.5, "nodata": 9}, ({"scale": 0.5, "nodata": 9},)),
        (
            {"raster:scale": 0.5, "bands": [{"name": "r"}, {"name": "n", "raster:scale": 1}]},
            ({"scale": 0.5}, {}),
        ),
        ({"raster:bands": [{"scale": None, "raster:scale": 0.5}]}, ({"scale": 0.5},)),
        ({"raster:bands": [{"scale": 0}, {"scale": "1e-4"}, {"scale": float("nan")}]}, None),
        ({"raster:bands": [{"nodata": "nan"}, {"nodata": "-inf"}, None, {"offset": True}]}, None),
        ({"raster:bands": "0.0001", "bands": 3}, None),
        ({"raster:bands": [{"scale": 10**400, "nodata": -(10**400)}]}, None),
    ],
)
def test_numbers_of_bands_are_read_by_version_1_and_2_of_the_extension(
    asset: dict[str, Any], expected: Any
) -> None:
    declared = declared_bands(sensor(), {"image": asset, "other": {"raster:scale": 7}, "bad": None})
    assert declared.get("image") == expected
    assert set(declared) <= {"image"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {"scale", "offset", "nodata"}),
        ({"nodata": 0}, {"scale", "offset"}),
        ({"scale": 1e-4}, {"nodata"}),
        ({"offset": -0.1, "nodata": "footprint"}, set()),
        ({"offset_from": OffsetRule(property="b", at_least="4", offset=-0.1)}, {"nodata"}),
    ],
)
def test_what_the_toml_states_is_not_kept(options: dict[str, Any], kept: set[str]) -> None:
    asset = {"raster:bands": [{"scale": 0.5, "offset": 1, "nodata": 3}]}
    (band,) = declared_bands(sensor(**options), {"image": asset}).get("image", ({},))
    assert set(band) == kept


def test_one_entry_holds_for_all_bands() -> None:
    assert band_of(({"scale": 0.5},), 3) == {"scale": 0.5}
    assert band_of(({"scale": 0.5}, {}), 3) == {}


@pytest.mark.parametrize(
    ("properties", "asset", "other", "expected"),
    [
        ({}, None, None, {}),
        ({"proj:shape": [10, 20]}, None, None, {"image": (10, 20)}),
        ({"proj:shape": [10, 20]}, [30, 40.0], None, {"image": (30, 40)}),
        ({"proj:shape": [10, 20]}, None, [30, 40], {}),
        ({"proj:shape": [10]}, [0, 5], [1.5, 2], {}),
        ({"proj:shape": "10"}, ["a", 5], None, {}),
    ],
)
def test_an_assets_shape_is_its_own_or_that_of_all(
    properties: Any, asset: Any, other: Any, expected: Any
) -> None:
    assets = {"image": {"proj:shape": asset}, "other": {"proj:shape": other}}
    item = {"properties": properties, "assets": assets}
    assert declared_shapes(sensor(), item) == expected


def test_shapes_of_coarser_bands_and_of_images_placed_by_points_are_not_the_items() -> None:
    item = {"properties": {"proj:shape": [10, 20]}, "assets": {"image": {}, "scl": {}}}
    coarse = {"swir": Band(asset="image", gsd_m=20.0)}
    assert declared_shapes(sensor(bands=coarse), item) == {}
    assert declared_shapes(sensor(geolocation="gcps", nodata=0), item) == {}
    with_clouds = replace(sensor(), clouds=CloudMask(asset="scl", cloudy=(9,)))
    assert declared_shapes(with_clouds, item) == {"image": (10, 20), "scl": (10, 20)}


def test_shapes_are_kept_in_plans_and_not_in_what_stores_and_digests_are_made_of(
    sample_catalog: Path,
) -> None:
    """Items of the sample declare what real ones do; stores of it keep their bytes."""
    catalog = load_catalog("planetary-computer")
    for name, collection in (("sentinel-2", "sentinel-2-l2a"), ("naip", "naip")):
        for _, item in sample_items.items(sample_catalog, collection):
            scene = scene_from_item(catalog.sensors[name], item)
            assert scene is not None
            assert scene.shapes
            assert not {"shapes", "declared"} & set(scene.to_dict())
            assert Scene.from_dict(name, scene.to_dict(with_shapes=True)) == scene


def scaled_item(folder: Path) -> tuple[dict[str, Any], Any]:
    """An item of 16-bit numbers, thirty times those of its rendering."""
    pixels = made.values(3)
    path = made.write_tif(folder / "a.tif", pixels.astype(np.uint16) * 30)
    item = made.item("a", path, scene="A", proj__shape=list(pixels.shape[1:]))
    item["assets"]["image"]["raster:bands"] = [{"scale": 1 / 30, "data_type": "uint16"}] * 2
    return item, pixels


@pytest.mark.parametrize("kind", ["tree", "geoparquet"])
def test_a_build_scales_by_what_the_items_of_a_catalog_declare(tmp_path: Path, kind: str) -> None:
    item, pixels = scaled_item(tmp_path)
    arguments = made.write_catalog(tmp_path, item)
    if kind == "geoparquet":
        row = {**item, **item["properties"], "geometry": shape(item["geometry"]).wkb}
        del row["properties"], row["links"]
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "items.parquet")
        provider = tmp_path / "provider.toml"
        provider.write_text(provider.read_text().replace("catalog.json", "items.parquet"))
    written = plan(**arguments, output=tmp_path / "plan.parquet")
    again = Plan.read(tmp_path / "plan.parquet")
    (scene,) = again.scenes["one"].values()
    assert scene == written.scenes["one"]["a"]
    assert scene.shapes == {"image": pixels.shape[1:]}
    assert again.digest == written.digest
    build(tmp_path / "s.zarr", plan=again)
    assert np.array_equal(made.square_of(tmp_path / "s.zarr"), pixels)
    assert open_store(tmp_path / "s.zarr")[0]["tile"].shape[0] == 16
    content = json.dumps(written.scenes["one"]["a"].to_dict())
    assert "declared" in content
