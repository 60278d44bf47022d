"""Sentinel-2 offsets that a baseline promises, checked against the dark pixels of a scene."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from salibi_data.catalog.providers import Catalog, Product, catalog_from_dict, load_catalog
from salibi_data.catalog.scenes import Scene
from salibi_data.sources import http
from salibi_data.sources.read import read_asset
from salibi_data.sources.sentinel2_offset import MIN_PIXELS, offset_warning
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data import real_catalogs
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.data.tiles import tiles_within
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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
    verdict = judged(punjab(name), applied=True)
    assert verdict is not None
    assert "removed already" in verdict


@needs_real
def test_an_offset_that_the_baseline_does_not_tell_is_seen_in_dark_blue() -> None:
    verdict = judged(patagonia(1), applied=False)
    assert verdict is not None
    assert "-0.1 were still to be added" in verdict


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
    catalog = replace(load_catalog("earth-search"), kind="static", url="/nowhere/catalog.json")
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
        messages, cost = [], []
        for tiles in (FEW_TILES[:4], FEW_TILES[4:8], FEW_TILES):
            before = http.counters()
            messages += warnings_of(
                f"{server.url}/red.tif", PixelGrid.around(tiles), baseline="05.10"
            )
            cost.append((http.counters() - before).bytes)
    assert len(messages) == 3
    assert len(set(messages)) == 1
    assert messages[0].startswith(
        "scene-1 (baseline 05.10), band red: an offset of -0.1 is implied"
    )
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
    verdict = judged(numbers[numbers > 0], applied=baseline == "05.10")
    assert (verdict is not None) == doubted
    grid = PixelGrid.around(FEW_TILES)
    messages = warnings_of(str(tmp_path / "red.tif"), grid, baseline=baseline)
    assert bool(messages) == doubted


def test_a_large_file_without_overviews_is_judged_by_its_windows(tmp_path: Path) -> None:
    write_scene(tmp_path / "red.tif", 500, overviews=False)
    path = str(tmp_path / "red.tif")
    assert warnings_of(path, PixelGrid.around(FEW_TILES), baseline="05.10") == ()
    larger = [TileXYZ(FEW_TILES[0].x // 4 + i, FEW_TILES[0].y // 4, 15) for i in range(2)]
    messages = {warnings_of(path, PixelGrid.around([tile]), baseline="05.10") for tile in larger}
    assert len(messages) == 1
    assert "removed already" in str(messages)
