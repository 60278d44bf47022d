"""Layers of a tile (modalities and cloud masks): the assets they need, and how they are warped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from salibi_data.pixels import radiometry, warp
from salibi_data.sources.read import read_asset
from salibi_data.store.schema import TILE_PX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Band, Catalog, Product, Units
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import Variant
    from salibi_data.sources.georeference import SceneRaster
    from salibi_data.store.tiles import PixelGrid, TileXYZ


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Image that is made of every tile: a modality or a cloud mask."""

    name: str
    sensor: str
    product: Product
    bands: tuple[str, ...]
    tile_px: int
    units: Units
    categorical: bool = False


def layers_of(variant: Variant, catalog: Catalog, sensor_name: str) -> list[Layer]:
    """Layers that are made of a sensor's scenes."""
    sensor = catalog.sensors[sensor_name]
    layers = [
        Layer(
            name=recipe.name,
            sensor=sensor_name,
            product=sensor.products[recipe.product],
            bands=recipe.bands,
            tile_px=recipe.tile_px,
            units=recipe.units,
        )
        for recipe in variant.modalities
        if recipe.sensor == sensor_name
    ]
    if sensor.clouds is not None:
        layers.append(
            Layer(
                name=cloud_layer_name(sensor_name),
                sensor=sensor_name,
                product=sensor.clouds.product,
                bands=("class",),
                tile_px=TILE_PX,
                units="display",
                categorical=True,
            )
        )
    return layers


def cloud_layer_name(sensor_name: str) -> str:
    """Name of the layer of a sensor's cloud mask."""
    return f"{sensor_name} clouds"


Sources = dict[tuple[str, tuple["Band", ...]], "SceneRaster | None"]
"""Rasters by asset and bands; None where the asset does not reach the tiles."""


def _assets_of(layer: Layer) -> Iterator[tuple[list[int], tuple[str, tuple[Band, ...]]]]:
    """Yield each asset of a layer with its bands, and their indices among the layer's bands."""
    bands = [layer.product.bands[name] for name in layer.bands]
    for asset in dict.fromkeys(band.asset for band in bands):
        rows = [row for row, band in enumerate(bands) if band.asset == asset]
        yield rows, (asset, tuple(bands[row] for row in rows))


def sources_of(
    catalog: Catalog, scene: Scene, layers: Iterable[tuple[Layer, PixelGrid]]
) -> Sources:
    """Read what layers on their grids need of a scene, each asset once.

    Remote files are read in parallel: each takes at least two requests in sequence, and the time
    goes into waiting. Local files are read one after the other: other cores have other blocks.

    Raises:
        ReadError: an asset cannot be read.
    """
    reads: dict[tuple[str, tuple[Band, ...]], Callable[[], SceneRaster | None]] = {}
    for layer, grid in layers:
        for _, (asset, bands) in _assets_of(layer):
            arguments = catalog, scene, asset, layer.product, bands, grid
            read = partial(read_asset, *arguments, categorical=layer.categorical)
            reads.setdefault((asset, bands), read)
    if len(reads) == 1 or not any("://" in scene.hrefs.get(asset, "") for asset, _ in reads):
        return {key: read() for key, read in reads.items()}
    with ThreadPoolExecutor(len(reads), thread_name_prefix="salibi-assets") as pool:
        # Deadlines are context variables, which threads of a pool do not inherit.
        futures = {key: pool.submit(copy_context().run, read) for key, read in reads.items()}
        try:
            return {key: future.result() for key, future in futures.items()}
        finally:
            for future in futures.values():
                future.cancel()


def warp_layer(
    layer: Layer, grid: PixelGrid, tiles: Collection[TileXYZ], sources: Sources
) -> NDArray[np.float32]:
    """Warp a layer to tiles of a grid: (bands, rows, columns) in the layer's units, NaN elsewhere."""
    warped = np.full((len(layer.bands), *grid.shape), np.nan, dtype=np.float32)
    for rows, key in _assets_of(layer):
        source = sources[key]
        if source is not None:
            warped[rows] = warp.warp(source, grid, tiles=tiles, categorical=layer.categorical)
    return radiometry.convert_units(warped, layer.product.units, layer.units)
