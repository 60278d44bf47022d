"""Images of a block's tiles from the planned scenes, and from others for tiles that lack pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from salibi_data.builds.filling.reading import kept
from salibi_data.builds.filling.search import PlannedTile, search
from salibi_data.store.tiles import TileXYZ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from salibi_data.builds.filling.reading import Pixels, SceneReader, TileImages
    from salibi_data.catalog.scenes import Scene
    from salibi_data.plans.picks import SceneChoice

Images = dict[str, dict[TileXYZ, "TileImages"]]
"""Sensor -> tile -> its images."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """Scenes of one sensor that a sample is made of in place of the planned ones."""

    position: int
    """Position in the block."""
    sensor: str
    planned: tuple[str, ...]
    """Ids of the planned scenes."""
    used: tuple[str, ...]
    """Ids of the scenes that gave pixels."""


def planned_images(
    reader: SceneReader,
    sensor: str,
    choices: Sequence[SceneChoice],
    read: dict[TileXYZ, dict[tuple[str, str], Pixels]],
) -> dict[TileXYZ, TileImages]:
    """Make every layer of one sensor on every tile from the planned scenes.

    A tile takes its scenes in the plan's order; each fills the pixels that the scenes before it lack.
    Of tiles that lack pixels then, those of each scene are added to ``read``.
    """
    pixels = {
        (scene.id, tile): images
        for scene, tiles in _uses(sensor, choices)
        for tile, images in reader.read(scene, tiles).items()
    }
    mosaics: dict[TileXYZ, TileImages] = {}
    for choice in choices:
        tile = choice.tile
        usable = {
            scene.id: pixels[scene.id, tile]
            for scene in choice.scenes[sensor]
            if (scene.id, tile) in pixels
        }
        mosaics[tile] = reader.mosaic(sensor, usable.values())
        if len(usable) < len(choice.scenes[sensor]) or _lacks(choice, mosaics[tile]):
            read[tile] |= {
                (sensor, scene_id): {name: kept(image) for name, image in images.items()}
                for scene_id, images in usable.items()
            }
    return mosaics


def replace_scenes(
    reader: SceneReader,
    choices: list[SceneChoice],
    images: Images,
    read: Mapping[TileXYZ, Mapping[tuple[str, str], Pixels]],
) -> list[Replacement]:
    """Make the tiles that lack pixels from other scenes; change their choices and images.

    Args:
        reader: reader of the block.
        choices: choices of the block's tiles; those of replaced samples get the scenes that were used.
        images: images by sensor and tile; those of replaced samples get the new pixels.
        read: pixels of the planned scenes of tiles that lack some, by sensor and scene id.

    Raises:
        ReadError: a planned scene has no usable pixels, and nothing can be made without it.
    """
    searched, planned = [], {}
    for choice in choices:
        lacking = frozenset(
            sensor
            for sensor, scenes in choice.scenes.items()
            if any((sensor, scene.id) in reader.unusable for scene in scenes)
            or _lacks(choice, images[sensor][choice.tile])
        )
        by_sensor = {sensor: images[sensor][choice.tile] for sensor in choice.scenes}
        # A tile that another sensor sees cloudy is dropped whatever fills it.
        if lacking and not any(
            made.is_cloudy for sensor, made in by_sensor.items() if sensor not in lacking
        ):
            searched.append(choice)
            planned[choice.tile] = PlannedTile(
                images=by_sensor, scenes=read[choice.tile], lacking=lacking
            )
    found = search(reader, searched, planned) if searched else {}
    replaced = []
    for position, choice in enumerate(choices):
        if choice.tile not in found:
            errors = [
                reader.unusable[scene.sensor, scene.id]
                for scenes in choice.scenes.values()
                for scene in scenes
                if (scene.sensor, scene.id) in reader.unusable
            ]
            if errors and choice.tile in planned:
                raise errors[0]
            continue
        attempts = found[choice.tile]
        for sensor, attempt in attempts.items():
            images[sensor][choice.tile] = attempt.images
            ids = [
                tuple(s.id for s in scenes) for scenes in (choice.scenes[sensor], attempt.scenes)
            ]
            if ids[0] != ids[1]:
                replaced.append(
                    Replacement(position=position, sensor=sensor, planned=ids[0], used=ids[1])
                )
        choices[position] = replace(
            choice, scenes={sensor: attempt.scenes for sensor, attempt in attempts.items()}
        )
    return replaced


def _lacks(choice: SceneChoice, made: TileImages) -> bool:
    """Whether a tile lacks pixels of a sensor that other scenes may have."""
    sets = choice.alternatives.get(made.sensor, ())
    may_be_filled = bool(sets) and bool(sets[0].fillers)
    return not made.is_good or (may_be_filled and not made.is_whole)


def _uses(sensor: str, choices: Sequence[SceneChoice]) -> list[tuple[Scene, list[TileXYZ]]]:
    """Scenes of the block in the order of their ids, each with the tiles that use it."""
    uses: dict[str, tuple[Scene, list[TileXYZ]]] = {}
    for choice in choices:
        for scene in choice.scenes[sensor]:
            uses.setdefault(scene.id, (scene, []))[1].append(choice.tile)
    # Sorted by id, so that the order of reading does not depend on the tiles.
    return [uses[scene_id] for scene_id in sorted(uses)]
