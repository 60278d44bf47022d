"""Mosaics over two UTM zones, several scenes, years and passes, against a known ground.

Every source is drawn from one smooth function of longitude and latitude, plus a constant that tells
its group (datatake, year, pass) apart. A sample is right when all its pixels equal the function with
ONE group's constant: a seam, a mixed group, or a hole that was filled with nodata shows at once.

The zones' border, 102 degrees west, runs through the second of four columns of tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds
from shapely.geometry import box, mapping

from salibi_data import build
from salibi_data.store.open import open_store
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data.variants_toml import ALL_TRAIN, SAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.schema import Modality

    Floats = NDArray[np.float64]

ZOOM = 14
TILES = [TileXYZ(column, row, ZOOM) for row in (6200, 6201) for column in range(3548, 3552)]
AREA = (-102.045, 40.009, -101.95, 40.046)
"""Degrees; holds these tiles and no other."""
SOUTH, NORTH = 40.005, 40.055
PIXEL_M = 10.0
WEST_ZONE, EAST_ZONE = 32613, 32614

Box = tuple[float, float, float, float]


def ground(lon: Floats, lat: Floats) -> Floats:
    """Between 0.1 and 0.2, in waves of some 2 km."""
    return 0.15 + 0.03 * np.sin(lon * 280) + 0.02 * np.cos(lat * 330 + lon * 90)


@dataclass(frozen=True)
class Made:
    """One scene: where it has data, what its group adds to the ground, and what its item says."""

    name: str
    collection: str
    epsg: int
    bounds: Box
    adds: float
    acquired: datetime
    properties: dict[str, Any]
    holes: tuple[Box, ...] = ()
    """Without data, and the footprint says so."""
    secret_holes: tuple[Box, ...] = ()
    """Without data, and the footprint does not say so."""
    assets: tuple[str, ...] = field(default=("image",))


def day(number: int, year: int = 2022) -> datetime:
    return datetime(year, 6, number, 17, tzinfo=UTC)


WHOLE = (-102.06, SOUTH, -101.93, NORTH)
WEST = (-102.06, SOUTH, -102.003, NORTH)
EAST = (-102.012, SOUTH, -101.93, NORTH)
HOLE = (-102.035, 40.02, -102.028, 40.035)
SECRET = (-102.010, 40.02, -102.006, 40.03)

SCENES = [
    # One datatake in two zones; the western granule has a hole, which a third one fills.
    Made("S2-west", "s2", WEST_ZONE, WEST, 0.0, day(10), {"take": "a"}, (HOLE,), (SECRET,)),
    Made("S2-east", "s2", EAST_ZONE, EAST, 0.0, day(10), {"take": "a"}),
    Made("S2-fill", "s2", WEST_ZONE, (-102.045, SOUTH, -102.022, NORTH), 0.0, day(10), {"take": "a"}),
    # Nearer in time, but it covers the eastern tiles alone.
    Made("S2-other", "s2", EAST_ZONE, (-101.999, SOUTH, -101.93, NORTH), 0.2, day(5), {"take": "b"}),
    # 2021 everywhere, 2023 in the west alone, half a tile beyond the border of the zones.
    Made("NAIP-2021-w", "naip", WEST_ZONE, WEST, 0.0, day(15, 2021), {"year": "2021"}),
    Made("NAIP-2021-e", "naip", EAST_ZONE, EAST, 0.0, day(16, 2021), {"year": "2021"}),
    Made("NAIP-2023-w", "naip", WEST_ZONE, WEST, 0.3, day(15, 2023), {"year": "2023"}),
    # Descending in two slices that meet within a tile; ascending is nearer, over three columns.
    Made("S1-down-1", "s1", WEST_ZONE, (-102.06, 40.028, -101.93, NORTH), 0.0, day(14),
         {"orbit": 100, "sat:orbit_state": "descending"}, assets=("vv", "vh")),
    Made("S1-down-2", "s1", WEST_ZONE, (-102.06, SOUTH, -101.93, 40.031), 0.0, day(14),
         {"orbit": 100, "sat:orbit_state": "descending"}, assets=("vv", "vh")),
    Made("S1-up", "s1", EAST_ZONE, (-102.021, SOUTH, -101.93, NORTH), 0.2, day(7),
         {"orbit": 200, "sat:orbit_state": "ascending"}, assets=("vv", "vh")),
]  # fmt: skip

CATALOG = """
name = "two-zones"
title = "Drawn from a function"
kind = "static"
url = "catalog.json"

[sensors.sentinel-2]
collection = "s2"
licence = "CC0-1.0"
attribution = "none"
group_by = ["take"]
[sensors.sentinel-2.products.reflectance]
units = "reflectance"
nodata = 0
scale = 0.0001
bands.red = { asset = "image" }

[sensors.naip]
collection = "naip"
licence = "CC0-1.0"
attribution = "none"
group_by = ["year"]
[sensors.naip.products.image]
units = "display"
nodata = "footprint"
bands.red = { asset = "image" }

[sensors.sentinel-1]
collection = "s1"
licence = "CC0-1.0"
attribution = "none"
group_by = ["orbit"]
[sensors.sentinel-1.products.rtc]
units = "power"
nodata = -32768
bands.vv = { asset = "vv" }
bands.vh = { asset = "vh" }
"""

VARIANT = (
    """
name = "two-zones"
summary = "all three sensors"
base_zoom = 14

[[selection]]
sensor = "naip"
rank = ["newest"]
[[selection]]
sensor = "sentinel-2"
rank = ["time"]
near = "naip"
[[selection]]
sensor = "sentinel-1"
rank = ["time"]
near = "sentinel-2"
within_days = 10
"""
    + ALL_TRAIN
    + SAR
    + """
[[modality]]
name = "lores"
sensor = "sentinel-2"
product = "reflectance"
bands = ["red"]
units = "reflectance"
range = [[0.0, 0.5]]
[[modality]]
name = "hires"
sensor = "naip"
product = "image"
bands = ["red"]
units = "display"
"""
)

VH_BELOW_VV = 0.2


def draw(scene: Made, path: Path, asset: str) -> None:
    """Write the scene's COG, in its own zone, with data within its bounds alone."""
    west, south, east, north = transform_bounds("OGC:CRS84", f"EPSG:{scene.epsg}", *scene.bounds)
    columns, rows = (int(np.ceil(size / PIXEL_M)) + 4 for size in (east - west, north - south))
    # A grid that is no multiple of the pixel, as if from a mosaic of one's own.
    left, top = west - 1.7 * PIXEL_M, north + 2.3 * PIXEL_M
    x = left + (np.arange(columns) + 0.5) * PIXEL_M
    y = top - (np.arange(rows) + 0.5) * PIXEL_M
    flat = (a.ravel() for a in np.meshgrid(x, y))
    lon, lat = (
        np.array(a).reshape(rows, columns)
        for a in transform(f"EPSG:{scene.epsg}", "OGC:CRS84", *flat)
    )
    values = ground(lon, lat) + scene.adds
    seen = within(scene.bounds, lon, lat)
    for hole in (*scene.holes, *scene.secret_holes):
        seen &= ~within(hole, lon, lat)
    if scene.collection == "s2":
        pixels, nodata = np.where(seen, np.rint(values * 1e4), 0).astype(np.uint16), 0.0
    elif scene.collection == "naip":  # no nodata tag: black outside, as in the real quads
        pixels, nodata = np.where(seen, np.rint(values * 400), 0).astype(np.uint8), None
    else:
        power = values * (VH_BELOW_VV if asset == "vh" else 1)
        pixels, nodata = np.where(seen, power, -32768).astype(np.float32), -32768.0
    with rasterio.open(
        path,
        "w",
        driver="COG",
        width=columns,
        height=rows,
        count=1,
        dtype=pixels.dtype,
        crs=f"EPSG:{scene.epsg}",
        transform=from_origin(left, top, PIXEL_M, PIXEL_M),
        nodata=nodata,
        blocksize=256,
    ) as dataset:
        dataset.write(pixels, 1)


def within(bounds: Box, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
    west, south, east, north = bounds
    return (lon > west) & (lon < east) & (lat > south) & (lat < north)


def write_catalog(folder: Path) -> None:
    root = pystac.Catalog("two-zones", "drawn from a function")
    for scene in SCENES:
        inset = 2e-4  # two pixels: a footprint lies within the data
        footprint = box(*scene.bounds).buffer(-inset)
        for hole in scene.holes:
            footprint = footprint.difference(box(*hole).buffer(inset))
        item = pystac.Item(
            scene.name, mapping(footprint), list(footprint.bounds), scene.acquired, scene.properties
        )
        item.collection_id = scene.collection
        for asset in scene.assets:
            path = folder / f"{scene.name}-{asset}.tif"
            draw(scene, path, asset)
            item.add_asset(asset, pystac.Asset(str(path)))
        root.add_item(item)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    (folder / "catalog.toml").write_text(CATALOG)
    (folder / "variant.toml").write_text(VARIANT)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-zones")
    write_catalog(folder)
    build(
        folder / "out.zarr",
        variant=str(folder / "variant.toml"),
        catalog=str(folder / "catalog.toml"),
        bounds_lonlat=AREA,
    )
    return folder / "out.zarr"


def physical(images: NDArray[np.uint8], modality: Modality) -> Floats:
    """Stored values in units, as a plain formula; NaN for nodata."""
    values = (
        np.asarray(modality.offset)[:, None, None]
        + images * np.asarray(modality.scale)[:, None, None]
    )
    return np.where(images == 0, np.nan, values)


def ground_on(tile: TileXYZ) -> Floats:
    grid = PixelGrid.around([tile])
    west, _, _, north = grid.bounds_3857
    x = west + (np.arange(256) + 0.5) * grid.pixel_m
    y = north - (np.arange(256) + 0.5) * grid.pixel_m
    lon, lat = transform("EPSG:3857", "OGC:CRS84", *(a.ravel() for a in np.meshgrid(x, y)))
    return ground(np.array(lon), np.array(lat)).reshape(256, 256)


@dataclass(frozen=True)
class Seen:
    """What a tile holds: per group's constant the greatest distance from the function."""

    tile: TileXYZ
    apart: dict[float, float]

    @property
    def adds(self) -> float:
        """The constant that fits best."""
        return min(self.apart, key=self.apart.__getitem__)


def compared(store: Path, array: str, constants: list[float]) -> list[Seen]:
    """Every tile against the function, in units of one stored step."""
    group, attributes = open_store(store)
    modality = attributes.modalities[array]
    seen = []
    for sample, (z, x, y) in enumerate(group["tile"][:].tolist()):
        tile = TileXYZ(x, y, z)
        values = physical(group[array][sample], modality)
        assert np.isfinite(values).all()
        apart = {}
        for adds in constants:
            truth = in_store_units(array, ground_on(tile) + adds)
            steps = np.abs(values - truth) / np.asarray(modality.scale)[:, None, None]
            apart[adds] = float(steps.max())
        seen.append(Seen(tile, apart))
    return seen


def in_store_units(array: str, values: Floats) -> Floats:
    if array == "sar":
        return 10 * np.log10(np.stack([values, values * VH_BELOW_VV]))
    return values[None] * (400 if array == "hires" else 1)


def columns_of(seen: list[Seen], adds: float) -> set[int]:
    west = min(one.tile.x for one in seen)
    return {one.tile.x - west for one in seen if one.adds == adds}


def test_every_tile_of_the_area_is_there(store: Path) -> None:
    """None was lost at the zones' border, to a hole that another scene fills, or to a slice."""
    group, _ = open_store(store)
    tiles = {TileXYZ(x, y, z) for z, x, y in group["tile"][:].tolist()}
    assert tiles == set(TILES)
    assert group["valid_fraction"][:].min() == 1


def test_reflectance_has_no_seam_between_zones_and_scenes(store: Path) -> None:
    """Within a step of 0.002: half of one is rounding, the rest the curvature between pixels.

    The nearer datatake serves the tiles that it covers; those at the border take the other whole.
    """
    seen = compared(store, "lores", [0.0, 0.2])
    assert max(one.apart[one.adds] for one in seen) < 1
    assert columns_of(seen, 0.2) == {2, 3}
    assert columns_of(seen, 0.0) == {0, 1}


def test_all_pixels_of_a_sample_are_of_one_naip_year(store: Path) -> None:
    """The west takes 2023; the tile at the border has it in part, and is all of 2021."""
    seen = compared(store, "hires", [0.0, 0.3])
    assert max(one.apart[one.adds] for one in seen) < 1
    assert columns_of(seen, 0.3) == {0}
    assert columns_of(seen, 0.0) == {1, 2, 3}


def test_all_pixels_of_a_sample_are_of_one_pass(store: Path) -> None:
    """Ascending is nearer in time; the westernmost tiles have it in part, and are descending."""
    seen = compared(store, "sar", [0.0, 0.2])
    assert max(one.apart[one.adds] for one in seen) < 1
    assert columns_of(seen, 0.2) == {1, 2, 3}
    assert columns_of(seen, 0.0) == {0}


def test_the_samples_were_made_from_several_scenes() -> None:
    """The border's tiles need both zones: neither western nor eastern data cover them alone."""
    border = [tile for tile in TILES if not covers(tile, WEST)]
    assert any(not covers(tile, EAST) for tile in border)


def covers(tile: TileXYZ, bounds: Box) -> bool:
    grid = PixelGrid.around([tile])
    return box(*bounds).covers(box(*transform_bounds("EPSG:3857", "OGC:CRS84", *grid.bounds_3857)))
