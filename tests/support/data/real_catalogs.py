"""Local catalogs around the real rasters of ``SALIBI_REAL``, for tests that want true pixels."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import rasterio
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from tests.support.data.variants_toml import ALL_TRAIN, SAR
from tests.support.paths import ROOT

REAL = Path(os.environ.get("SALIBI_REAL", ROOT.parent / "shared" / "real"))
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no real rasters at {REAL}; set SALIBI_REAL"
)

PUNJAB = REAL / "s1_s2_punjab"
NAIP = REAL / "naip" / "naip_virginia_1m_rgbn.tif"

OPERA = REAL / "s1_opera_california"
BURSTS = ("T137-292320-IW2", "T137-292321-IW2")

PUNJAB_TOML = """
name = "punjab"
title = "One place and week in Punjab (SSL4EO-S12)"
kind = "static"
url = "catalog.json"

[sensors.sentinel-1]
collection = "sentinel-1"
licence = "CC-BY-4.0"
attribution = "SSL4EO-S12; contains modified Copernicus Sentinel data"

[sensors.sentinel-1.products.rtc]
units = "dB"  # the files' authors took the logarithm already
bands.vv = { asset = "VV" }
bands.vh = { asset = "VH" }

[sensors.sentinel-2]
collection = "sentinel-2-l2a"
licence = "CC-BY-4.0"
attribution = "SSL4EO-S12; contains modified Copernicus Sentinel data"

[sensors.sentinel-2.products.reflectance]
units = "reflectance"
nodata = 0
scale = 0.0001
offset_from = { property = "s2:processing_baseline", at_least = "04.00", offset = -0.1 }
bands.red = { asset = "B4" }
bands.green = { asset = "B3" }
bands.blue = { asset = "B2" }
bands.rededge1 = { asset = "B5" }
bands.rededge2 = { asset = "B6" }
bands.rededge3 = { asset = "B7" }
bands.nir = { asset = "B8" }
bands.nir08 = { asset = "B8A" }
bands.swir16 = { asset = "B11" }
bands.swir22 = { asset = "B12" }
"""

PUNJAB_VARIANT = (
    """
name = "punjab"
summary = "SAR and low resolution"
base_zoom = 16

[[selection]]
sensor = "sentinel-2"
rank = ["newest"]

[[selection]]
sensor = "sentinel-1"
rank = ["time"]
near = "sentinel-2"
within_days = 7
"""
    + ALL_TRAIN
    + SAR
    + """
[[modality]]
name = "lores"
sensor = "sentinel-2"
product = "reflectance"
bands = ["red", "green", "blue"]
units = "reflectance"
range = [[0.0, 0.3558], [0.0, 0.3558], [0.0, 0.3558]]
"""
)

PUNJAB_ASSETS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")

PUNJAB_TEN_BANDS = """
extends = "variant"
name = "punjab-ten"

[[selection]]
sensor = "sentinel-2"
rank = ["newest"]

[[modality]]
name = "s2"
sensor = "sentinel-2"
product = "reflectance"
bands = [
  "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22",
]
units = "reflectance"
range = [
  [0.0, 0.3], [0.0, 0.3], [0.0, 0.35], [0.0, 0.6], [0.0, 0.6], [0.0, 0.6], [0.0, 0.6], [0.0, 0.6],
  [0.0, 0.6], [0.0, 0.6],
]
"""

OPERA_TOML = """
name = "opera"
title = "Two bursts of OPERA RTC-S1 in California"
kind = "static"
url = "catalog.json"

[sensors.sentinel-1]
collection = "opera-rtc-s1"
licence = "Copernicus Sentinel data terms"
attribution = "Contains modified Copernicus Sentinel data, processed by OPERA (NASA JPL)"
group_by = ["sat:absolute_orbit"]

[sensors.sentinel-1.products.rtc]
units = "power"  # linear gamma0, by the product's specification
gsd_m = 30.0
bands.vv = { asset = "VV" }
bands.vh = { asset = "VH" }
"""

OPERA_VARIANT = (
    """
name = "opera"
summary = "SAR alone"
base_zoom = 15

[[selection]]
sensor = "sentinel-1"
rank = ["newest"]
"""
    + ALL_TRAIN
    + SAR
)

NAIP_TOML = """
name = "virginia"
title = "A NAIP quarter quad's corner in Virginia"
kind = "static"
url = "catalog.json"

[sensors.naip]
collection = "naip"
licence = "U.S. public domain"
attribution = "USDA NAIP"
group_by = ["naip:year"]

[sensors.naip.products.image]
units = "display"
nodata = "footprint"  # the file's tag says 255, which is white here, not missing
bands.red = { asset = "image", index = 1 }
bands.green = { asset = "image", index = 2 }
bands.blue = { asset = "image", index = 3 }
"""

NAIP_VARIANT = """
name = "naip-only"
summary = "High resolution alone"
base_zoom = 17

[[selection]]
sensor = "naip"
rank = ["newest"]

[[modality]]
name = "hires"
sensor = "naip"
product = "image"
bands = ["red", "green", "blue"]
units = "display"

[[modality]]
name = "hires_4x"
sensor = "naip"
product = "image"
bands = ["red", "green", "blue"]
units = "display"
zoom_offset = 1
"""


@dataclass(frozen=True)
class LocalCatalog:
    """Paths of a catalog and of a variant that fits it."""

    catalog: str
    variant: str


def punjab(folder: Path) -> LocalCatalog:
    """Sentinel-1 and Sentinel-2 of one place and week."""
    s1 = next((PUNJAB / "s1").iterdir())
    s2 = next((PUNJAB / "s2_l2a").iterdir())
    items = [
        _item(
            "sentinel-1",
            s1.name,
            datetime(2020, 6, 7, 1, 8, tzinfo=UTC),
            {name: s1 / f"{name}.tif" for name in ("VV", "VH")},
            {"sat:orbit_state": "descending"},
        ),
        _item(
            "sentinel-2-l2a",
            s2.name,
            datetime(2020, 6, 4, 5, 46, 39, tzinfo=UTC),
            {name: s2 / f"{name}.tif" for name in PUNJAB_ASSETS},
            {"s2:processing_baseline": _baseline(s2)},
        ),
    ]
    return _write(folder, items, PUNJAB_TOML, PUNJAB_VARIANT)


def opera(folder: Path) -> LocalCatalog:
    """Two bursts of one Sentinel-1 pass, 15 km apart, as linear power in UTM."""
    items = []
    for burst in BURSTS:
        files = {path.stem[-2:]: path for path in sorted(OPERA.glob(f"*{burst}*.tif"))}
        acquired = datetime(2023, 12, 27, 1, 59, 9, tzinfo=UTC)
        properties = {"sat:absolute_orbit": 51822, "sat:orbit_state": "ascending"}
        items.append(_item("opera-rtc-s1", burst, acquired, files, properties))
    return _write(folder, items, OPERA_TOML, OPERA_VARIANT)


def virginia(folder: Path) -> LocalCatalog:
    """One real NAIP raster."""
    item = _item(
        "naip",
        "va_m_virginia",
        datetime(2018, 9, 1, 16, tzinfo=UTC),
        {"image": NAIP},
        {"naip:year": "2018", "gsd": 1.0},
    )
    return _write(folder, [item], NAIP_TOML, NAIP_VARIANT)


def _baseline(folder: Path) -> str:
    metadata = json.loads((folder / "metadata.json").read_text())
    return str(metadata["PROCESSING_BASELINE"])


def _item(
    collection: str,
    name: str,
    acquired: datetime,
    files: dict[str, Path],
    properties: dict[str, Any],
) -> pystac.Item:
    boxes = []
    for path in files.values():
        with rasterio.open(path) as dataset:
            boxes.append(box(*transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds)))
    footprint = boxes[0]
    for other in boxes[1:]:
        footprint = footprint.intersection(other)
    item = pystac.Item(name, mapping(footprint), list(footprint.bounds), acquired, properties)
    item.collection_id = collection
    for key, path in files.items():
        item.add_asset(key, pystac.Asset(str(path)))
    return item


def _write(folder: Path, items: list[pystac.Item], catalog: str, variant: str) -> LocalCatalog:
    root = pystac.Catalog("local", "test catalog")
    root.add_items(items)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    (folder / "catalog.toml").write_text(catalog)
    (folder / "variant.toml").write_text(variant)
    return LocalCatalog(str(folder / "catalog.toml"), str(folder / "variant.toml"))
