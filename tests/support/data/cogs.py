"""Small COGs made on the fly, and the reading of one through the public surface."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from salibi_data.catalog.providers import Band, Catalog, Product, Sensor
from salibi_data.catalog.scenes import Scene
from salibi_data.sources.read import read_asset
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.sources.georeference import SceneRaster

TILES = [TileXYZ(20969, 50650, 17), TileXYZ(20970, 50650, 17)]
GRID = PixelGrid.around(TILES)
"""512 x 256 pixels in California."""


def write_cog(path: Path, *, pixels: int = 1536, bands: int = 4, seed: int = 0) -> Path:
    """A COG over :data:`GRID` with margins, of noise: compressed it is as large as it can be."""
    west, south, east, north = GRID.bounds_3857
    margin = 0.4 * (east - west)
    pixel_m = (east - west + 2 * margin) / pixels
    values = np.random.default_rng(seed).integers(1, 255, (bands, pixels, pixels), dtype=np.uint8)
    with rasterio.open(
        path,
        "w",
        driver="COG",
        dtype="uint8",
        count=bands,
        width=pixels,
        height=pixels,
        crs="EPSG:3857",
        transform=from_origin(
            west - margin, (north + south) / 2 + pixels * pixel_m / 2, pixel_m, pixel_m
        ),
        blocksize=256,
        compress="deflate",
    ) as dataset:
        dataset.write(values)
    return path


PRODUCT = Product(
    units="display",
    bands={name: Band(asset="image", index=i) for i, name in enumerate("rgbn", start=1)},
)


def catalog(signing: Any = "none", *, requester_pays: bool = False) -> Catalog:
    """A catalog of one sensor."""
    sensor = Sensor(
        name="naip",
        collection="naip",
        products={"image": PRODUCT},
        licence="",
        attribution="",
        requester_pays=requester_pays,
    )
    return Catalog(name="test", title="", kind="static", sensors={"naip": sensor}, signing=signing)


def scene(href: str) -> Scene:
    """A scene whose one asset is at ``href``."""
    return Scene(
        id="scene-1",
        sensor="naip",
        acquired_utc=datetime(2022, 1, 1, tzinfo=UTC),
        footprint={},
        hrefs={"image": href},
        properties={},
    )


def read(href: str, grid: PixelGrid = GRID, **options: Any) -> SceneRaster:
    """All bands of the asset at ``href`` around the grid."""
    bands = list(PRODUCT.bands.values())
    source = read_asset(catalog(**options), scene(href), "image", PRODUCT, bands, grid)
    assert source is not None
    return source


def oracle(path: Path, source: SceneRaster) -> NDArray[np.float32]:
    """The pixels under ``source``, read by rasterio from disk."""
    assert source.transform is not None
    with rasterio.open(path) as dataset:
        column, row = ~dataset.transform @ (source.transform[2], source.transform[5])
        _, rows, columns = source.values.shape
        window = rasterio.windows.Window(round(column), round(row), columns, rows)
        return dataset.read(window=window).astype(np.float32)
