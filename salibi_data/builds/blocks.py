"""A block of tiles: read once, warped in one pass, cut into samples, filtered.

A block is those of a plan's samples below one parent tile that are read in the same round, and the
unit of work: it depends on the plan alone, so any worker makes the same one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import compress, groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.builds.layers import clouds_of, layers_of, sources_of, warp_layer
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
"""Where a modality lies beside another, in metres, and in 0..1 how far to trust it."""

Images = dict[str, dict[TileXYZ, "NDArray[np.float32]"]]
"""Layer name -> tile -> (bands, rows, columns) in physical units, NaN where nothing was seen."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some of a plan's samples, with all that is needed to find their pixels."""

    positions: tuple[int, ...]
    """Of its samples in the plan, increasing."""
    choices: tuple[SceneChoice, ...]
    digest: str
    """Of the tiles, their items, the recipe and the software: equal digests, equal pixels."""

    @property
    def name(self) -> str:
        """Its first tile, ``zoom/column/row``."""
        first = self.choices[0].tile
        return f"{first.z}/{first.x}/{first.y}"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a block gave: the samples that passed the filters, and why others did not."""

    positions: tuple[int, ...]
    """Positions in the block, increasing."""
    images: Mapping[str, NDArray[np.uint8]]
    """Per modality (n, bands, size, size)."""
    valid_fraction: NDArray[np.float32]
    """(n, sensors)."""
    cloud_fraction: NDArray[np.float32]
    """(n,); NaN without a cloud mask."""
    alignment: Mapping[str, NDArray[np.float32]]
    """Measures of :data:`ALIGNMENT_COLUMNS`, each (n,); empty where the variant asks for none."""
    dropped: Mapping[str, int]
    """Samples left out, by reason."""
    warnings: tuple[str, ...] = ()
    """What about the sources looked wrong."""


def blocks_of(plan: Plan, round_number: int) -> Iterator[Block]:
    """The blocks of one round, in the plan's order; read from the plan as they are asked for."""
    recipe = recipe_digest(plan.variant, plan.catalog)
    scenes = {  # once: a scene serves thousands of tiles
        sensor: {id_: _digest(scene.to_dict()) for id_, scene in used.items()}
        for sensor, used in plan.scenes.items()
    }
    rows = compress(enumerate(plan.choices()), plan.rounds == round_number)
    for _, run in groupby(rows, key=lambda row: _parent(row[1].tile)):
        positions, choices = zip(*run, strict=True)
        content = [
            [
                choice.tile,
                {name: [scenes[name][s.id] for s in used] for name, used in choice.scenes.items()},
            ]
            for choice in choices
        ]
        digest = _digest([recipe, content])[:24]
        yield Block(positions=positions, choices=choices, digest=digest)


def make_samples(variant: Variant, catalog: Catalog, block: Block) -> Samples:
    """Read, align and filter the samples of one block.

    Raises:
        ReadError: a source cannot be read. Nothing of the block is made then.
    """
    work = _Work(variant=variant, catalog=catalog)
    images: Images = {}
    for sensor in variant.sensors:
        images.update(_tile_images(work, sensor, block.choices))
    kept, dropped = [], {"nodata": 0, "clouds": 0}
    rows: list[tuple[list[float], float]] = []
    for position, choice in enumerate(block.choices):
        valid = [_valid(work, sensor, choice.tile, images) for sensor in variant.sensors]
        cloud = _cloud_fraction(work, choice.tile, images)
        if min(valid) < variant.min_valid_fraction:
            dropped["nodata"] += 1
        elif cloud > variant.max_cloud_fraction:
            dropped["clouds"] += 1
        else:
            kept.append(position)
            rows.append((valid, cloud))
    tiles = [block.choices[position].tile for position in kept]
    return Samples(
        positions=tuple(kept),
        images={row.name: _quantised(row, tiles, images) for row in variant.modalities},
        valid_fraction=np.array([valid for valid, _ in rows], np.float32).reshape(
            len(rows), len(variant.sensors)
        ),
        cloud_fraction=np.array([cloud for _, cloud in rows], np.float32),
        alignment=_alignment(work, [block.choices[position] for position in kept], images),
        dropped={reason: count for reason, count in dropped.items() if count},
        warnings=tuple(sorted(work.warnings)),
    )


def recipe_digest(variant: Variant, catalog: Catalog) -> str:
    """SHA-256 of all that decides pixels beside the tiles and their scenes."""
    pixels = variant.to_dict()
    for key in ("summary", "region", "target_samples", "selection"):
        pixels.pop(key)
    content = {
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
    """What is made from what, and what looked wrong on the way."""

    variant: Variant
    catalog: Catalog
    warnings: set[str] = field(default_factory=set)


def _tile_images(work: _Work, sensor: str, choices: Sequence[SceneChoice]) -> Images:
    """Every layer of one sensor on every tile.

    Each scene is read once for all its tiles, then warped in one pass per layer; a tile takes its
    scenes in the plan's order, each filling what those before it lack.
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
            found = (warped[layer.name, scene.id] for scene in choice.scenes[sensor])
            images[layer.name][choice.tile] = radiometry.mosaic(
                pixels[(slice(None), *grid.window(choice.tile))] for grid, pixels in found
            )
    return images


def _uses(sensor: str, choices: Sequence[SceneChoice]) -> list[tuple[Scene, list[TileXYZ]]]:
    """Each scene of the block once, with the tiles that take it."""
    uses: dict[str, tuple[Scene, list[TileXYZ]]] = {}
    for choice in choices:
        for scene in choice.scenes[sensor]:
            uses.setdefault(scene.id, (scene, []))[1].append(choice.tile)
    return [uses[scene_id] for scene_id in sorted(uses)]


def _cloud_fraction(work: _Work, tile: TileXYZ, images: Images) -> float:
    """Cloudy share of a tile, by the sensors that have a cloud mask; NaN where none has."""
    fractions = [
        radiometry.cloud_fraction(images[clouds_of(name)][tile], mask.cloudy)
        for name in work.variant.sensors
        if (mask := work.catalog.sensors[name].clouds) is not None
    ]
    return max(fractions, default=float("nan"))


def _valid(work: _Work, sensor: str, tile: TileXYZ, images: Images) -> float:
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
    """How far one modality lies from another on each tile, by phase correlation."""
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
