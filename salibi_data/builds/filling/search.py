"""Searches other scenes for tiles whose chosen ones lack pixels.

A tile takes the first of its plan's sets that gives enough pixels and is not too cloudy. Scenes of a
set fill each other as long as a pixel is missing. Sensors are chosen in the order of the variant's
selection; one that is chosen near another's date has to be near the scene that is used. The result depends on the plan and the pixels alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.builds.filling.reading import kept
from salibi_data.catalog.outlines import outline_of
from salibi_data.plans.picks import MAX_FILLERS, SceneSet
from salibi_data.store.tiles import tile_outlines

if TYPE_CHECKING:
    from salibi_data.builds.filling.reading import Pixels, SceneReader, TileImages
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import SelectionRule
    from salibi_data.plans.picks import SceneChoice
    from salibi_data.store.tiles import TileXYZ

_SECONDS_PER_DAY: Final = 86_400


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Scenes of one sensor that make a tile, and its pixels."""

    scenes: tuple[Scene, ...]
    """Scenes that gave pixels, in the order of use; as planned where those suffice."""
    images: TileImages

    @property
    def time_s(self) -> float:
        """Acquisition time of the first scene, seconds since 1970 UTC."""
        return self.scenes[0].acquired_utc.timestamp()


def search(
    reader: SceneReader, choices: Sequence[SceneChoice], planned: Mapping[TileXYZ, PlannedTile]
) -> dict[TileXYZ, Mapping[str, Attempt]]:
    """Find scenes for tiles that the chosen ones leave without pixels.

    Tiles are searched side by side, so that a scene is read once for all tiles that ask for it.

    Args:
        reader: reader of the block.
        choices: choices of the tiles, with their alternatives.
        planned: pixels of the chosen scenes of these tiles.

    Returns:
        An attempt per sensor of every tile that can be made.

    Raises:
        ReadError: a file cannot be read.
    """
    searches = {
        choice.tile: _TileSearch(reader=reader, choice=choice, planned=planned[choice.tile])
        for choice in choices
    }
    running = {tile: each.run() for tile, each in searches.items()}
    found: dict[TileXYZ, Mapping[str, Attempt]] = {}
    answers: dict[TileXYZ, Pixels | None] = dict.fromkeys(running)
    while answers:
        wanted: dict[tuple[str, str], tuple[Scene, list[TileXYZ]]] = {}
        for tile, answer in answers.items():
            try:
                scene = running[tile].send(answer)
            except StopIteration as done:
                if done.value is not None:
                    found[tile] = done.value
                continue
            wanted.setdefault((scene.sensor, scene.id), (scene, []))[1].append(tile)
        answers = {}
        for _, (scene, tiles) in sorted(wanted.items()):
            pixels = reader.read(scene, tiles)
            answers |= {tile: pixels.get(tile) for tile in tiles}
    return found


@dataclass(frozen=True, kw_only=True)
class PlannedTile:
    """Pixels that the chosen scenes of a tile gave."""

    images: Mapping[str, TileImages]
    """Mosaic by sensor."""
    scenes: Mapping[tuple[str, str], Pixels]
    """Pixels of each scene that was read and is usable, by sensor and scene id."""
    lacking: frozenset[str]
    """Sensors that lack pixels that others may have, or of which a chosen scene is unusable."""


@dataclass(kw_only=True)
class _TileSearch:
    """Search of the scenes of one tile."""

    reader: SceneReader
    choice: SceneChoice
    planned: PlannedTile
    _pixels: dict[tuple[str, str], Pixels | None] = field(default_factory=dict)
    _is_bound_by_dates: bool = False
    """Whether a scene was too far from the one used before."""
    _attempts: dict[tuple[str, int, float | None], Attempt | None] = field(default_factory=dict)

    def run(self) -> Generator[Scene, Pixels | None, Mapping[str, Attempt] | None]:
        """Yield scenes to be read, and take their pixels; return an attempt per sensor, or None."""
        sensors = self.reader.variant.sensors
        self._pixels.update(self.planned.scenes)
        rules = [rule for rule in self.reader.variant.selection if rule.sensor in sensors]
        return (yield from self._choose(rules, {}))

    def _choose(
        self, rules: Sequence[SelectionRule], chosen: Mapping[str, Attempt]
    ) -> Generator[Scene, Pixels | None, Mapping[str, Attempt] | None]:
        """Choose the sensors of some rules, given those of the rules before."""
        if not rules:
            return chosen
        rule, *rest = rules
        anchor = chosen.get(rule.near or "")
        anchor_s = None if anchor is None else anchor.time_s
        for number in range(len(self._sets(rule.sensor))):
            attempt = yield from self._attempt(rule, number, anchor_s)
            if attempt is None:
                continue
            complete = yield from self._choose(rest, {**chosen, rule.sensor: attempt})
            # Where no date stood in the way, another scene here helps none of the sensors after it.
            if complete is not None or not self._is_bound_by_dates:
                return complete
        return None

    def _attempt(
        self, rule: SelectionRule, number: int, anchor_s: float | None
    ) -> Generator[Scene, Pixels | None, Attempt | None]:
        """Make the tile from one set of a sensor, or return None where it does not suffice."""
        key = rule.sensor, number, anchor_s
        if key not in self._attempts:
            self._attempts[key] = yield from self._make(rule, number, anchor_s)
        return self._attempts[key]

    def _make(
        self, rule: SelectionRule, number: int, anchor_s: float | None
    ) -> Generator[Scene, Pixels | None, Attempt | None]:
        sensor, reader = rule.sensor, self.reader
        as_planned = number == 0 and sensor not in self.planned.lacking
        scenes = self._sets(sensor)[number]
        if as_planned:
            near = all(self._is_near(scene, anchor_s, rule) for scene in scenes.scenes)
            images = self.planned.images[sensor]
            return Attempt(scenes=scenes.scenes, images=images) if near else None
        mosaic = _Mosaic(reader=reader, sensor=sensor)
        for scene in scenes.scenes:
            if self._may_use(scene, anchor_s, rule, is_chosen=number == 0):
                mosaic.add(scene, (yield from self._read(scene)))
        num_fillers = 0
        for scene in self._reaching(scenes.fillers):
            if mosaic.is_whole or num_fillers == MAX_FILLERS:
                break
            if self._may_use(scene, anchor_s, rule):
                num_fillers += 1
                mosaic.add(scene, (yield from self._read(scene)))
        made = mosaic.made
        if made is None or not made.is_good or made.is_cloudy:
            return None
        if number == 0 and mosaic.is_made_of(scenes.scenes):
            return Attempt(scenes=scenes.scenes, images=made)
        return Attempt(scenes=tuple(mosaic.useful), images=made)

    def _sets(self, sensor: str) -> tuple[SceneSet, ...]:
        """Sets of a sensor in the order of use, the chosen one first."""
        chosen = SceneSet(scenes=self.choice.scenes[sensor], fillers=())
        return self.choice.alternatives.get(sensor) or (chosen,)

    def _is_near(self, scene: Scene, anchor_s: float | None, rule: SelectionRule) -> bool:
        """Whether a scene is near the one used before; note where it is not."""
        near = _is_near(scene, anchor_s, rule)
        self._is_bound_by_dates |= not near
        return near

    def _may_use(
        self,
        scene: Scene,
        anchor_s: float | None,
        rule: SelectionRule,
        *,
        is_chosen: bool = False,
    ) -> bool:
        """Whether a scene is near the scene used before, and leaves scenes to those chosen after.

        A scene that was chosen for the tile leaves some: they were chosen near it.
        """
        if not self._is_near(scene, anchor_s, rule):
            return False
        time_s = scene.acquired_utc.timestamp()
        return is_chosen or all(
            any(
                _is_near(other, time_s, dependent)
                for scenes in self._sets(dependent.sensor)
                for other in scenes.all_scenes
            )
            for dependent in self.reader.variant.selection
            if dependent.near == rule.sensor and dependent.sensor in self.reader.variant.sensors
        )

    def _read(self, scene: Scene) -> Generator[Scene, Pixels | None, Pixels | None]:
        """Return the pixels of a scene on the tile, None for a scene without usable ones."""
        key = scene.sensor, scene.id
        if key not in self._pixels:
            pixels = None if key in self.reader.unusable else (yield scene)
            self._pixels[key] = pixels and {name: kept(image) for name, image in pixels.items()}
        return self._pixels[key]

    def _reaching(self, scenes: Iterable[Scene]) -> Iterable[Scene]:
        """Return the scenes whose footprints touch the tile."""
        import shapely

        tile = self.choice.tile
        outline = tile_outlines(tile.z, np.array([tile.x]), np.array([tile.y]))[0]
        for scene in scenes:
            if shapely.intersects(outline_of(scene.footprint), outline):
                yield scene


@dataclass(kw_only=True)
class _Mosaic:
    """Mosaic of a tile that grows scene by scene."""

    reader: SceneReader
    sensor: str
    made: TileImages | None = None
    """None before a scene was read."""
    scenes: list[Scene] = field(default_factory=list)
    """Scenes that were read."""
    useful: list[Scene] = field(default_factory=list)
    """Scenes that gave pixels to a modality."""

    def add(self, scene: Scene, pixels: Pixels | None) -> None:
        """Fill missing pixels from a scene; None is one without usable pixels."""
        if pixels is None:
            return
        before = {} if self.made is None else self.made.images
        self.made = self.reader.mosaic(self.sensor, [before, pixels] if before else [pixels])
        self.scenes.append(scene)
        names = [row.name for row in self.reader.variant.modalities if row.sensor == self.sensor]
        if any(
            _num_valid(self.made.images[name]) > (_num_valid(before[name]) if before else 0)
            for name in names
        ):
            self.useful.append(scene)

    @property
    def is_whole(self) -> bool:
        """Whether no pixel is missing."""
        return self.made is not None and self.made.is_whole

    def is_made_of(self, scenes: Sequence[Scene]) -> bool:
        """Whether all of some scenes were read, and no other gave pixels."""
        return self.scenes[: len(scenes)] == list(scenes) and all(
            scene in scenes for scene in self.useful
        )


def _num_valid(image: np.ndarray) -> int:
    return int(np.isfinite(image).all(axis=0).sum())


def _is_near(scene: Scene, anchor_s: float | None, rule: SelectionRule) -> bool:
    """Whether a scene is within a rule's days of the time of the scene used before."""
    if anchor_s is None or rule.within_days is None:
        return True
    return abs(scene.acquired_utc.timestamp() - anchor_s) / _SECONDS_PER_DAY <= rule.within_days
