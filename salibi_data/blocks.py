"""A block of tiles: read once, warped in one pass, cut into samples, filtered.

A block is the run of a plan's samples below one parent tile, and the unit of work: it depends on
the plan alone, so any worker makes the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data import __version__, align
from salibi_data.catalog import Band, Product
from salibi_data.grid import PixelGrid, TileXYZ
from salibi_data.read import Source, read_asset
from salibi_data.schema import TILE_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog import Units
    from salibi_data.plans import Plan
    from salibi_data.search import Scene
    from salibi_data.select import Choice
    from salibi_data.variant import ModalityRecipe

Images = dict[str, dict[TileXYZ, "NDArray[np.float32]"]]
"""Layer name -> tile -> (bands, rows, columns) in physical units, NaN where nothing was seen."""

BLOCK_ZOOM_OFFSET: Final = 2
"""A block is at most 4 x 4 tiles: 2048 px at the finer zoom, about 150 MB while it is warped."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Samples ``start`` to ``stop`` of a plan."""

    start: int
    stop: int
    digest: str
    """Of the tiles, their items, the recipe and the software: equal digests, equal pixels."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a block gave: the samples that passed the filters, and why others did not."""

    positions: tuple[int, ...]
    """Positions in the plan, increasing."""
    images: Mapping[str, NDArray[np.uint8]]
    """Per modality (n, bands, size, size)."""
    valid_fraction: NDArray[np.float32]
    """(n, sensors)."""
    cloud_fraction: NDArray[np.float32]
    """(n,); NaN without a cloud mask."""
    dropped: Mapping[str, int]
    """Samples left out, by reason."""


def blocks_of(plan: Plan) -> list[Block]:
    """The plan's blocks, in order."""
    recipe = _recipe(plan)
    runs = groupby(enumerate(plan.choices), key=lambda pair: _parent(pair[1].tile))
    blocks = []
    for _, run in runs:
        members = list(run)
        content = [recipe, [_content(choice) for _, choice in members]]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        blocks.append(Block(start=members[0][0], stop=members[-1][0] + 1, digest=digest[:24]))
    return blocks


def make_samples(plan: Plan, block: Block) -> Samples:
    """Read, align and filter the samples of one block.

    Raises:
        ReadError: a source cannot be read. Nothing of the block is made then.
    """
    choices = plan.choices[block.start : block.stop]
    images: Images = {}
    for sensor in plan.variant.sensors:
        images.update(_tile_images(plan, sensor, choices))
    kept, dropped = [], {"nodata": 0, "clouds": 0}
    rows: list[tuple[list[float], float]] = []
    for position, choice in enumerate(choices, start=block.start):
        valid = [_valid(plan, sensor, choice.tile, images) for sensor in plan.variant.sensors]
        cloud = _cloud_fraction(plan, choice.tile, images)
        if min(valid) < plan.variant.min_valid_fraction:
            dropped["nodata"] += 1
        elif cloud > plan.variant.max_cloud_fraction:
            dropped["clouds"] += 1
        else:
            kept.append(position)
            rows.append((valid, cloud))
    return Samples(
        positions=tuple(kept),
        images={
            recipe.name: _quantised(recipe, [plan.choices[p].tile for p in kept], images)
            for recipe in plan.variant.modalities
        },
        valid_fraction=np.array([valid for valid, _ in rows], np.float32).reshape(
            len(rows), len(plan.variant.sensors)
        ),
        cloud_fraction=np.array([cloud for _, cloud in rows], np.float32),
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _parent(tile: TileXYZ) -> tuple[int, int]:
    return tile.x >> BLOCK_ZOOM_OFFSET, tile.y >> BLOCK_ZOOM_OFFSET


def _recipe(plan: Plan) -> dict[str, Any]:
    """All that decides pixels beside the tiles and their scenes."""
    variant = plan.variant.to_dict()
    for key in ("summary", "region", "target_samples", "selection"):
        variant.pop(key)
    catalog = plan.catalog.to_dict()
    return {"software": __version__, "variant": variant, "sensors": catalog["sensors"]}


def _content(choice: Choice) -> list[Any]:
    scenes = {
        sensor: [
            [scene.id, dict(scene.hrefs), dict(scene.properties), scene.footprint] for scene in used
        ]
        for sensor, used in choice.scenes.items()
    }
    return [*choice.tile, scenes]


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One image to make of every tile: a modality, or a cloud mask."""

    name: str
    sensor: str
    product: Product
    bands: tuple[str, ...]
    tile_px: int
    units: Units
    categorical: bool = False


def _layers_of(plan: Plan, sensor_name: str) -> list[_Layer]:
    sensor = plan.catalog.sensors[sensor_name]
    layers = [
        _Layer(
            name=recipe.name,
            sensor=sensor_name,
            product=sensor.products[recipe.product],
            bands=recipe.bands,
            tile_px=recipe.tile_px,
            units=recipe.units,
        )
        for recipe in plan.variant.modalities
        if recipe.sensor == sensor_name
    ]
    if sensor.clouds is not None:
        classes = Product(units="display", bands={"class": Band(asset=sensor.clouds.asset)})
        layers.append(
            _Layer(
                name=_clouds_of(sensor_name),
                sensor=sensor_name,
                product=classes,
                bands=("class",),
                tile_px=TILE_PX,
                units="display",
                categorical=True,
            )
        )
    return layers


def _clouds_of(sensor_name: str) -> str:
    return f"{sensor_name} clouds"


def _tile_images(plan: Plan, sensor: str, choices: Sequence[Choice]) -> Images:
    """Every layer of one sensor on every tile.

    Each scene is read once for all its tiles, then warped in one pass per layer; a tile takes its
    scenes in the plan's order, each filling what those before it lack.
    """
    layers = _layers_of(plan, sensor)
    warped: dict[tuple[str, str], tuple[PixelGrid, NDArray[np.float32]]] = {}
    for scene, tiles in _uses(sensor, choices):
        sources: dict[tuple[str, tuple[Band, ...]], Source | None] = {}
        for layer in layers:
            grid = PixelGrid.around(tiles, tile_px=layer.tile_px)
            warped[layer.name, scene.id] = grid, _warp(plan, scene, layer, grid, sources)
    images: Images = {layer.name: {} for layer in layers}
    for layer in layers:
        for choice in choices:
            shape = (len(layer.bands), layer.tile_px, layer.tile_px)
            mosaic = np.full(shape, np.nan, dtype=np.float32)
            for scene in choice.scenes[sensor]:
                grid, pixels = warped[layer.name, scene.id]
                align.fill(mosaic, pixels[(slice(None), *grid.window(choice.tile))])
            images[layer.name][choice.tile] = mosaic
    return images


def _uses(sensor: str, choices: Sequence[Choice]) -> list[tuple[Scene, list[TileXYZ]]]:
    """Each scene of the block once, with the tiles that take it."""
    uses: dict[str, tuple[Scene, list[TileXYZ]]] = {}
    for choice in choices:
        for scene in choice.scenes[sensor]:
            uses.setdefault(scene.id, (scene, []))[1].append(choice.tile)
    return [uses[scene_id] for scene_id in sorted(uses)]


def _warp(
    plan: Plan,
    scene: Scene,
    layer: _Layer,
    grid: PixelGrid,
    sources: dict[tuple[str, tuple[Band, ...]], Source | None],
) -> NDArray[np.float32]:
    """One scene on one grid: (bands, rows, columns) in the layer's units.

    Reads what is not in ``sources`` yet, and leaves it there.
    """
    bands = [layer.product.bands[name] for name in layer.bands]
    warped = np.full((len(bands), *grid.shape), np.nan, dtype=np.float32)
    for asset in dict.fromkeys(band.asset for band in bands):
        rows = [row for row, band in enumerate(bands) if band.asset == asset]
        key = asset, tuple(bands[row] for row in rows)
        if key not in sources:
            sources[key] = read_asset(plan.catalog, scene, asset, layer.product, key[1], grid)
        source = sources[key]
        if source is not None:
            warped[rows] = align.warp(source, grid, categorical=layer.categorical)
    return align.in_units(warped, layer.product.units, layer.units)


def _cloud_fraction(plan: Plan, tile: TileXYZ, images: Images) -> float:
    """Cloudy share of a tile, by the sensors that have a cloud mask; NaN where none has."""
    fractions = [
        align.cloud_fraction(images[_clouds_of(name)][tile], mask.cloudy)
        for name in plan.variant.sensors
        if (mask := plan.catalog.sensors[name].clouds) is not None
    ]
    return max(fractions, default=float("nan"))


def _valid(plan: Plan, sensor: str, tile: TileXYZ, images: Images) -> float:
    names = [recipe.name for recipe in plan.variant.modalities if recipe.sensor == sensor]
    return min(align.valid_fraction(images[name][tile]) for name in names)


def _quantised(
    recipe: ModalityRecipe, tiles: Sequence[TileXYZ], images: Images
) -> NDArray[np.uint8]:
    shape = (len(tiles), len(recipe.bands), recipe.tile_px, recipe.tile_px)
    stored = np.empty(shape, dtype=np.uint8)
    for row, tile in enumerate(tiles):
        stored[row] = align.quantise(images[recipe.name][tile], recipe)
    return stored
