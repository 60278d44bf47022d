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

from salibi_data.builds.filling.reading import SceneReader
from salibi_data.builds.filling.replacing import (
    Images,
    Replacement,
    planned_images,
    replace_scenes,
)
from salibi_data.catalog.variants import native_gsd_m
from salibi_data.pixels import radiometry, registration
from salibi_data.plans.plan import BLOCK_ZOOM_OFFSET
from salibi_data.store import __version__
from salibi_data.store.schema import TILE_PX
from salibi_data.store.tiles import TileXYZ, ground_gsd_m

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.builds.filling.reading import Pixels
    from salibi_data.catalog.providers import Catalog
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


@dataclass(frozen=True, kw_only=True)
class Block:
    """Samples of a plan that are made together, with what is needed to find their pixels."""

    positions: tuple[int, ...]
    """Positions of the samples in the plan, increasing."""
    choices: tuple[SceneChoice, ...]
    """Tiles of the samples, each with its scenes and alternatives."""
    digest: str
    """Digest of the tiles, their items, the recipe and the software; equal digests mean equal pixels."""

    @property
    def name(self) -> str:
        """Name of the first tile, ``zoom/column/row``."""
        return tile_name(self.choices[0].tile)


def tile_name(tile: TileXYZ) -> str:
    """Name of a tile, ``zoom/column/row``."""
    return f"{tile.z}/{tile.x}/{tile.y}"


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
    replaced: tuple[Replacement, ...] = ()
    """Samples that are not made of their planned scenes alone, by position."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Messages about scenes without usable pixels, by sensor and id."""


def blocks_of(plan: Plan, round_number: int) -> Iterator[Block]:
    """Yield the blocks of one round in the plan's order, reading the plan row group by row group."""
    recipe = recipe_digest(plan.variant, plan.catalog)
    # Digested once: a scene serves thousands of tiles.
    scene_digests = {
        sensor: {id_: _digest(scene.to_dict()) for id_, scene in scenes.items()}
        for sensor, scenes in plan.all_scenes.items()
    }
    digest_alternatives = _AlternativesDigests(scene_digests)
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
        foreseen = [digest_alternatives(choice) for choice in choices]
        # Not listed where there are none, so that blocks of earlier versions' plans stay the same.
        if any(foreseen):
            content.append(foreseen)
        digest = _digest([recipe, content])[:24]
        yield Block(positions=positions, choices=choices, digest=digest)


class _AlternativesDigests:
    """Digests of the alternatives of tiles; each distinct one is computed once."""

    def __init__(self, scene_digests: Mapping[str, Mapping[str, str]]) -> None:
        self._scene_digests = scene_digests
        self._known: dict[int, tuple[Any, str]] = {}

    def __call__(self, choice: SceneChoice) -> str:
        """Digest of a tile's alternatives; empty where it has none."""
        foreseen = choice.alternatives
        if not foreseen:
            return ""
        # By identity, as a plan's choices share their alternatives; kept, so that none is reused.
        if id(foreseen) not in self._known:
            content = {
                name: [
                    [[self._scene_digests[name][id_] for id_ in ids] for ids in each.ids]
                    for each in sets
                ]
                for name, sets in foreseen.items()
            }
            self._known[id(foreseen)] = foreseen, _digest(content)
        return self._known[id(foreseen)][1]


def make_samples(variant: Variant, catalog: Catalog, block: Block) -> BlockSamples:
    """Read, align and filter the samples of one block.

    Raises:
        ReadError: a source cannot be read; then no sample of the block is made.
    """
    reader = SceneReader(variant=variant, catalog=catalog)
    choices, images = list(block.choices), Images()
    read: dict[TileXYZ, dict[tuple[str, str], Pixels]] = {choice.tile: {} for choice in choices}
    for sensor in variant.sensors:
        images[sensor] = planned_images(reader, sensor, choices, read)
    replaced = replace_scenes(reader, choices, images, read)
    positions, dropped = [], {"nodata": 0, "clouds": 0}
    fractions: list[tuple[list[float], float]] = []
    for position, choice in enumerate(choices):
        made = [images[sensor][choice.tile] for sensor in variant.sensors]
        valid = [each.valid_fraction for each in made]
        cloudy = [each.cloud_fraction for each in made if each.cloud_fraction is not None]
        cloud = max(cloudy, default=float("nan"))
        if min(valid) < variant.min_valid_fraction:
            dropped["nodata"] += 1
        elif cloud > variant.max_cloud_fraction:
            dropped["clouds"] += 1
        else:
            positions.append(position)
            fractions.append((valid, cloud))
    kept = [choices[position] for position in positions]
    tiles = [choice.tile for choice in kept]
    return BlockSamples(
        positions=tuple(positions),
        images={row.name: _quantised(row, tiles, images) for row in variant.modalities},
        valid_fraction=np.array([valid for valid, _ in fractions], np.float32).reshape(
            len(fractions), len(variant.sensors)
        ),
        cloud_fraction=np.array([cloud for _, cloud in fractions], np.float32),
        alignment=_alignment(variant, catalog, kept, images),
        dropped={reason: count for reason, count in dropped.items() if count},
        warnings=tuple(sorted(reader.warnings)),
        replaced=tuple(replaced),
        left_out={
            f"{sensor} {scene_id}": str(error)
            for (sensor, scene_id), error in sorted(reader.unusable.items())
        },
    )


def left_out_warnings(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Messages about scenes without usable pixels, from :attr:`BlockSamples.left_out`."""
    return tuple(
        f"{scene} is left out where it was planned: {reason}"
        for scene, reason in sorted(left_out.items())
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


def _quantised(
    recipe: ModalityRecipe, tiles: Sequence[TileXYZ], images: Images
) -> NDArray[np.uint8]:
    shape = (len(tiles), len(recipe.bands), recipe.tile_px, recipe.tile_px)
    stored = np.empty(shape, dtype=np.uint8)
    for row, tile in enumerate(tiles):
        stored[row] = radiometry.quantise(images[recipe.sensor][tile].images[recipe.name], recipe)
    return stored


def _alignment(
    variant: Variant, catalog: Catalog, choices: Sequence[SceneChoice], images: Images
) -> dict[str, NDArray[np.float32]]:
    """Measure the offset between two modalities on each tile by phase correlation."""
    pair = variant.aligned
    if pair is None:
        return {}
    rows = {row.name: row for row in variant.modalities}
    moving, fixed = rows[pair.modality], rows[pair.reference]
    measured = []
    for choice in choices:
        tile, scene = choice.tile, choice.scenes[moving.sensor][0]
        gsd_m = float(ground_gsd_m(tile.z, [tile.y])[0]) * TILE_PX / moving.tile_px
        shift = registration.shift_m(
            images[moving.sensor][tile].images[moving.name].mean(axis=0),
            images[fixed.sensor][tile].images[fixed.name].mean(axis=0),
            pixel_m=gsd_m,
            native_gsd_m=native_gsd_m(moving, catalog, scene.properties) or gsd_m,
        )
        length_m = float(np.hypot(shift.east_m, shift.north_m))
        measured.append((shift.east_m, shift.north_m, length_m, shift.peak))
    columns = np.array(measured, np.float32).reshape(len(choices), len(ALIGNMENT_COLUMNS))
    return {name: columns[:, k] for k, name in enumerate(ALIGNMENT_COLUMNS)}
