"""Small GeoTIFFs of any kind that hold just one tile, and their reading through the public surface."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from salibi_data.catalog.providers import Band, Catalog, Product, Sensor
from salibi_data.sources.read import read_asset
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data import cogs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.sources.georeference import SceneRaster

GRID = PixelGrid.around([TileXYZ(20969, 50650, 17)])
PX = 64
"""Edge of a raster in pixels; the tile and a margin, which are read whole."""

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
ALPHA = ColorInterp.alpha


def transform() -> Affine:
    """Transform of the rasters: a pixel of margin around the tile."""
    west, _, east, north = GRID.bounds_3857
    pixel_m = (east - west) / (PX - 2)
    return from_origin(west - pixel_m, north + pixel_m, pixel_m, pixel_m)


def textured(bands: int = 3, *, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of 1..254, shape (bands, PX, PX)."""
    return np.random.default_rng(seed).integers(1, 255, (bands, PX, PX), dtype=np.uint8)


def disc() -> NDArray[np.bool_]:
    """Pixels within a disc, a fifth of the raster's middle left out; shape (PX, PX)."""
    rows, columns = np.mgrid[:PX, :PX] - PX / 2 + 0.5
    distance = np.hypot(rows, columns)
    return (distance < PX / 2) & (distance > PX / 10)


def write(
    path: Path,
    pixels: NDArray[Any],
    *,
    visible: NDArray[np.bool_] | None = None,
    internal: bool = True,
    colours: tuple[ColorInterp, ...] = (),
    scales: tuple[float, ...] = (),
    offsets: tuple[float, ...] = (),
    **profile: Any,
) -> Path:
    """Write (bands, PX, PX) pixels, with a mask inside of the file or beside it."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "crs": "EPSG:3857", "transform": transform()} | profile
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(
            path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile
        ) as dataset,
    ):
        if colours:
            dataset.colorinterp = colours
        dataset.write(pixels)
        if visible is not None:
            dataset.write_mask(visible)
        if scales:
            dataset.scales = scales
        if offsets:
            dataset.offsets = offsets
    return path


def product(num_bands: int, **options: Any) -> Product:
    """A product whose bands are those of one file: ``b1``, ``b2``, ..."""
    bands = {f"b{index}": Band(asset="image", index=index) for index in range(1, num_bands + 1)}
    return Product(**{"units": "display", "bands": bands} | options)


def read(
    href: str | Path,
    indexes: tuple[int, ...] = (1, 2, 3),
    *,
    named: int = 0,
    categorical: bool = False,
    scene: dict[str, Any] | None = None,
    **options: Any,
) -> SceneRaster:
    """Read bands of a file.

    Args:
        href: path or URL.
        indexes: bands to read.
        named: number of bands that the product names, if more than are read.
        categorical: whether values are classes.
        scene: further fields of the scene.
        options: fields of the product.
    """
    described = product(max(*indexes, named), **options)
    sensor = Sensor(
        name="naip", collection="", products={"image": described}, licence="", attribution=""
    )
    catalog = Catalog(name="", title="", kind="static", url="/c.json", sensors={"naip": sensor})
    bands = [described.bands[f"b{index}"] for index in indexes]
    raster = read_asset(
        catalog,
        replace(cogs.scene(str(href)), **(scene or {})),
        "image",
        described,
        bands,
        GRID,
        categorical=categorical,
    )
    assert raster is not None
    return raster


def observed(raster: SceneRaster) -> NDArray[np.bool_]:
    """Pixels with an observation; all bands agree on them."""
    seen = np.isfinite(raster.values)
    assert (seen == seen[0]).all()
    return seen[0]
