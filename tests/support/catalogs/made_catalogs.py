"""Static catalogs of GeoTIFFs made on the fly, on the pixel grid of the tiles themselves.

Warping changes nothing there, so that a stored sample is the array that was written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import box, mapping

from salibi_data.store.open import open_store
from salibi_data.store.tiles import PixelGrid, TileXYZ, tile_bounds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

X, Y, ZOOM, EDGE = 20968, 50648, 17, 4
"""Column and row of the first tile, zoom, and tiles along an edge: one block."""

TILE_PX = 256
PX = EDGE * TILE_PX
"""Edge of the square in pixels."""

SENSOR = """
[sensors.{name}]
collection = "{name}"
licence = "none"
attribution = "none"
cloud_cover = "eo:cloud_cover"
nodata_cover = "s2:nodata_pixel_percentage"
group_by = {group_by}
{more}
[sensors.{name}.products.image]
units = "display"
nodata = 0
nodata_bands = "all"
bands.red = {{ asset = "image", index = 1 }}
bands.green = {{ asset = "image", index = 2 }}
"""
SELECTION = """
[[selection]]
sensor = "{name}"
rank = ["{rank}"]
"""
MODALITY = """
[[modality]]
name = "{name}"
sensor = "{name}"
product = "image"
bands = ["red", "green"]
units = "display"
"""


MASK = """
[sensors.one.clouds]
asset = "mask"
cloudy = [9]
nodata = 0
"""
"""Cloud mask of the sensor ``one``, for ``more`` of :func:`write_catalog`."""


def values(seed: int) -> NDArray[np.uint8]:
    """Pixels of the whole square without a zero, (2, PX, PX)."""
    return np.random.default_rng(seed).integers(1, 256, (2, PX, PX), dtype=np.uint8)


def write_tif(path: Path, pixels: NDArray[np.uint8], *, x: int = X) -> Path:
    """A GeoTIFF of the square, or of one that begins at another column of tiles."""
    grid = PixelGrid.around([TileXYZ(x + k, Y + k, ZOOM) for k in range(EDGE)])
    west, _, _, north = grid.bounds_3857
    count, height, width = pixels.shape
    profile = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    transform = from_origin(west, north, grid.pixel_m, grid.pixel_m)
    with rasterio.open(
        path, "w", "GTiff", crs="EPSG:3857", transform=transform, tiled=True, **profile
    ) as dataset:
        dataset.write(pixels)
    return path


def bounds_lonlat() -> tuple[float, float, float, float]:
    """West, south, east, north of the square."""
    first, last = tile_bounds(ZOOM, np.array([X, X + EDGE - 1]), np.array([Y, Y + EDGE - 1]))
    return float(first[0]), float(last[1]), float(last[2]), float(first[3])


def item(
    name: str,
    image: Path,
    *,
    sensor: str = "one",
    day: str = "2021-06-01",
    cloud: float = 0.0,
    columns: tuple[float, float] = (0, EDGE),
    mask: Path | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """A STAC item; its footprint has a margin and spans some columns of tiles.

    Two underscores in the name of a property stand for a colon.
    """
    west, south, east, north = bounds_lonlat()
    tile = (east - west) / EDGE
    left, right = west + columns[0] * tile - 1e-3, west + columns[1] * tile + 1e-3
    assets = {"image": {"href": str(image)}}
    if mask is not None:
        assets["mask"] = {"href": str(mask)}
    named = {key.replace("__", ":"): value for key, value in properties.items()}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": sensor,
        "geometry": mapping(box(left, south - 1e-3, right, north + 1e-3)),
        "bbox": [left, south - 1e-3, right, north + 1e-3],
        "properties": {"datetime": f"{day}T17:00:00Z", "eo:cloud_cover": cloud, **named},
        "links": [],
        "assets": assets,
    }


def write_catalog(
    folder: Path,
    *items: Mapping[str, Any],
    group_by: str = '["scene"]',
    rank: str = "cloud",
    more: str = "",
    near_days: float = 10,
    min_valid: float = 1.0,
    split: str = "validation_share = 0.0\ntest_share = 0.0",
) -> dict[str, Any]:
    """Write a catalog of the items, in their order, and its TOML files.

    Sensors are those of the items; one after the first is chosen near the date of the one before.

    Returns:
        Arguments of a build of the square.
    """
    (folder / "items").mkdir(exist_ok=True)
    links = []
    for content in items:
        (folder / "items" / f"{content['id']}.json").write_text(json.dumps(content))
        links.append({"rel": "item", "href": f"./items/{content['id']}.json"})
    head = {"type": "Catalog", "id": "made", "stac_version": "1.0.0", "description": "made"}
    (folder / "catalog.json").write_text(json.dumps({**head, "links": links}))
    sensors = sorted({content["collection"] for content in items})
    provider = 'name = "made"\ntitle = "made"\nkind = "static"\nurl = "catalog.json"\n'
    variant = f'name = "square"\nsummary = "a square"\nbase_zoom = {ZOOM}\n'
    for number, name in enumerate(sensors):
        provider += SENSOR.format(name=name, group_by=group_by, more=more)
        variant += SELECTION.format(name=name, rank=rank)
        if number:
            variant += f'near = "{sensors[number - 1]}"\nwithin_days = {near_days}\n'
    variant += f"[quality]\nmin_valid_fraction = {min_valid}\n[split]\n{split}\n"
    variant += "".join(MODALITY.format(name=name) for name in sensors)
    (folder / "provider.toml").write_text(provider)
    (folder / "variant.toml").write_text(variant)
    return {
        "variant": str(folder / "variant.toml"),
        "catalog": str(folder / "provider.toml"),
        "bounds_lonlat": bounds_lonlat(),
    }


def square_of(store: Path, name: str = "one") -> NDArray[np.uint8]:
    """The samples of a store put together, (2, PX, PX); 0 where there is no sample."""
    group = open_store(store)[0]
    square = np.zeros((2, PX, PX), np.uint8)
    for image, (_, x, y) in zip(group[name][:], group["tile"][:].tolist(), strict=True):
        row, column = (y - Y) * TILE_PX, (x - X) * TILE_PX
        square[:, row : row + TILE_PX, column : column + TILE_PX] = image
    return square


def rows_of(store: Path) -> list[dict[str, Any]]:
    """Rows of the table of samples, without their outlines."""
    table = pq.read_table(store / "samples.parquet")
    rows: list[dict[str, Any]] = table.drop_columns(["geometry"]).to_pylist()
    return rows


def items_by_column(store: Path, sensor: str = "one") -> dict[int, set[tuple[str, ...]]]:
    """Scenes of the samples by column of tiles, from 0 in the west."""
    items: dict[int, set[tuple[str, ...]]] = {}
    for row in rows_of(store):
        items.setdefault(row["x"] - X, set()).add(tuple(row[f"{sensor}_items"]))
    return items
