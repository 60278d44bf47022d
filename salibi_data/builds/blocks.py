"""Blocks of tiles: each is read once, warped in one pass, cut into samples and filtered.

A block holds the samples of a plan that share a parent tile and a round of reading. It is the unit
of work. It depends on the plan alone, so that any worker makes the same block.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import compress, groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.builds.layers import cloud_layer_name, layers_of, sources_of, warp_layer
from salibi_data.catalog.variants import native_gsd_m
from salibi_data.pixels import radiometry, registration
from salibi_data.plans.plan import BLOCK_ZOOM_OFFSET
from salibi_data.store import __version__
from salibi_data.store.schema import TILE_PX
from salibi_data.store.tiles import PixelGrid, TileXYZ, ground_gsd_m

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import ModalityRecipe, Variant
    from salibi_data.plans.picks import SceneChoice
    from salibi_data.plans.plan import Plan

ALIGNMENT_COLUMNS: Final = (
    "alignment_east_m",
    "alignment_north_m",
    "alignment_shift_m",
    "alignment_peak",
)
"""Measured offset between two modalities in metres, and the height of the correlation peak, 0..1."""

Images = dict[str, dict[TileXYZ, "NDArray[np.float32]"]]
"""Layer name -> tile -> (bands, rows, columns) in physical units, NaN where nothing was observed."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Samples of a plan that are made together, with what is needed to find their pixels."""

    positions: tuple[int, ...]
    """Positions of the samples in the plan, increasing."""
    choices: tuple[SceneChoice, ...]
    """Tiles of the samples, each with its scenes."""
    digest: str
    """Digest of the tiles, their items, the recipe and the software; equal digests mean equal pixels."""

    @property
    def name(self) -> str:
        """Name of the first tile, ``zoom/column/row``."""
        first = self.choices[0].tile
        return f"{first.z}/{first.x}/{first.y}"


@dataclass(frozen=True, kw_only=True)
class BlockSamples:
    """Samples of a block that passed the filters, and why others did not."""

    positions: tuple[int, ...]
    """Positions in the block, increasing."""
    images: Mapping[str, NDArray[np.uint8]]
    """Stored images per modality, each (samples, bands, rows, columns)."""
    valid_fraction: NDArray[np.float32]
    """Share of pixels with data, 0..1; shape (samples, sensors)."""
    cloud_fraction: NDArray[np.float32]
    """Cloudy share, 0..1, NaN without a cloud mask; shape (samples,)."""
    alignment: Mapping[str, NDArray[np.float32]]
    """Measures of :data:`ALIGNMENT_COLUMNS`, each (samples,); empty where the variant asks for none."""
    dropped: Mapping[str, int]
    """Number of samples left out, by reason."""
    warnings: tuple[str, ...] = ()
    """Messages about sources that look wrong."""


def blocks_of(plan: Plan, round_number: int) -> Iterator[Block]:
    """Yield the blocks of one round in the plan's order, reading the plan row group by row group."""
    recipe = recipe_digest(plan.variant, plan.catalog)
    # Digested once: a scene serves thousands of tiles.
    scene_digests = {
        sensor: {id_: _digest(scene.to_dict()) for id_, scene in used.items()}
        for sensor, used in plan.scenes.items()
    }
    rows = compress(enumerate(plan.choices()), plan.rounds == round_number)
    for _, run in groupby(rows, key=lambda row: _parent(row[1].tile)):
        positions, choices = zip(*run, strict=True)
        content = [
            [
                choice.tile,
                {
                    name: [scene_digests[name][scene.id] for scene in used]
                    for name, used in choice.scenes.items()
                },
            ]
            for choice in choices
        ]
        digest = _digest([recipe, content])[:24]
        yield Block(positions=positions, choices=choices, digest=digest)


def make_samples(variant: Variant, catalog: Catalog, block: Block) -> BlockSamples:
    """Read, align and filter the samples of one block.

    Raises:
        ReadError: a source cannot be read; then no sample of the block is made.
    """
    work = _Work(variant=variant, catalog=catalog)
    images: Images = {}
    for sensor in variant.sensors:
        images.update(_tile_images(work, sensor, block.choices))
    positions, dropped = [], {"nodata": 0, "clouds": 0}
    fractions: list[tuple[list[float], float]] = []
    for position, choice in enumerate(block.choices):
        valid = [_valid_fraction(work, sensor, choice.tile, images) for sensor in variant.sensors]
        cloud = _cloud_fraction(work, choice.tile, images)
        if min(valid) < variant.min_valid_fraction:
            dropped["nodata"] += 1
        elif cloud > variant.max_cloud_fraction:
            dropped["clouds"] += 1
        else:
            positions.append(position)
            fractions.append((valid, cloud))
    tiles = [block.choices[position].tile for position in positions]
    return BlockSamples(
        positions=tuple(positions),
        images={row.name: _quantised(row, tiles, images) for row in variant.modalities},
        valid_fraction=np.array([valid for valid, _ in fractions], np.float32).reshape(
            len(fractions), len(variant.sensors)
        ),
        cloud_fraction=np.array([cloud for _, cloud in fractions], np.float32),
        alignment=_alignment(work, [block.choices[position] for position in positions], images),
        dropped={reason: count for reason, count in dropped.items() if count},
        warnings=tuple(sorted(work.warnings)),
    )


def recipe_digest(variant: Variant, catalog: Catalog) -> str:
    """SHA-256 of everything that decides pixels besides the tiles and their scenes."""
    pixels = variant.to_dict()
    for key in ("summary", "region", "target_samples", "selection"):
        pixels.pop(key)
    content = {
        # Parts of another version are not reused: its pixels may differ in the last bit.
        "software": __version__,
        "variant": pixels,
        "sensors": catalog.to_dict()["sensors"],
    }
    return _digest(content)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parent(tile: TileXYZ) -> tuple[int, int]:
    return tile.x >> BLOCK_ZOOM_OFFSET, tile.y >> BLOCK_ZOOM_OFFSET


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Variant and catalog of a block, and the warnings that its sources give."""

    variant: Variant
    catalog: Catalog
    warnings: set[str] = field(default_factory=set)


def _tile_images(work: _Work, sensor: str, choices: Sequence[SceneChoice]) -> Images:
    """Make every layer of one sensor on every tile.

    Each scene is read once for all its tiles, then warped in one pass per layer. A tile takes its
    scenes in the plan's order; each fills the pixels that the scenes before it lack.
    """
    layers = layers_of(work.variant, work.catalog, sensor)
    warped: dict[tuple[str, str], tuple[PixelGrid, NDArray[np.float32]]] = {}
    for scene, tiles in _uses(sensor, choices):
        grids = {layer.name: PixelGrid.around(tiles, tile_px=layer.tile_px) for layer in layers}
        wanted = [(layer, grids[layer.name]) for layer in layers]
        sources = sources_of(work.catalog, scene, wanted)
        work.warnings.update(*(source.warnings for source in sources.values() if source))
        for layer in layers:
            grid = grids[layer.name]
            warped[layer.name, scene.id] = grid, warp_layer(layer, grid, tiles, sources)
    images: Images = {layer.name: {} for layer in layers}
    for layer in layers:
        for choice in choices:
            scenes = (warped[layer.name, scene.id] for scene in choice.scenes[sensor])
            images[layer.name][choice.tile] = radiometry.mosaic(
                pixels[(slice(None), *grid.window(choice.tile))] for grid, pixels in scenes
            )
    return images


def _uses(sensor: str, choices: Sequence[SceneChoice]) -> list[tuple[Scene, list[TileXYZ]]]:
    """Scenes of the block in the order of their ids, each with the tiles that use it."""
    uses: dict[str, tuple[Scene, list[TileXYZ]]] = {}
    for choice in choices:
        for scene in choice.scenes[sensor]:
            uses.setdefault(scene.id, (scene, []))[1].append(choice.tile)
    # Sorted by id, so that the order of reading does not depend on the tiles.
    return [uses[scene_id] for scene_id in sorted(uses)]


def _cloud_fraction(work: _Work, tile: TileXYZ, images: Images) -> float:
    """Largest cloudy share of a tile over the sensors with a cloud mask; NaN where none has one."""
    fractions = [
        radiometry.cloud_fraction(images[cloud_layer_name(name)][tile], mask.cloudy)
        for name in work.variant.sensors
        if (mask := work.catalog.sensors[name].clouds) is not None
    ]
    return max(fractions, default=float("nan"))


def _valid_fraction(work: _Work, sensor: str, tile: TileXYZ, images: Images) -> float:
    names = [recipe.name for recipe in work.variant.modalities if recipe.sensor == sensor]
    return min(radiometry.valid_fraction(images[name][tile]) for name in names)


def _quantised(
    recipe: ModalityRecipe, tiles: Sequence[TileXYZ], images: Images
) -> NDArray[np.uint8]:
    shape = (len(tiles), len(recipe.bands), recipe.tile_px, recipe.tile_px)
    stored = np.empty(shape, dtype=np.uint8)
    for row, tile in enumerate(tiles):
        stored[row] = radiometry.quantise(images[recipe.name][tile], recipe)
    return stored


def _alignment(
    work: _Work, choices: Sequence[SceneChoice], images: Images
) -> dict[str, NDArray[np.float32]]:
    """Measure the offset between two modalities on each tile by phase correlation."""
    pair = work.variant.aligned
    if pair is None:
        return {}
    moving = next(row for row in work.variant.modalities if row.name == pair.modality)
    measured = []
    for choice in choices:
        tile, scene = choice.tile, choice.scenes[moving.sensor][0]
        gsd_m = float(ground_gsd_m(tile.z, [tile.y])[0]) * TILE_PX / moving.tile_px
        shift = registration.shift_m(
            images[pair.modality][tile].mean(axis=0),
            images[pair.reference][tile].mean(axis=0),
            pixel_m=gsd_m,
            native_gsd_m=native_gsd_m(moving, work.catalog, scene.properties) or gsd_m,
        )
        length_m = float(np.hypot(shift.east_m, shift.north_m))
        measured.append((shift.east_m, shift.north_m, length_m, shift.peak))
    columns = np.array(measured, np.float32).reshape(len(choices), len(ALIGNMENT_COLUMNS))
    return {name: columns[:, k] for k, name in enumerate(ALIGNMENT_COLUMNS)}
