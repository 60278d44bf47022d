"""Which scenes make a sample: the rarest sensor first, the next near its date. Pure functions.

Ties never depend on chance: scenes and groups are ordered by (score, datetime, id).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mercantile

if TYPE_CHECKING:
    from salibi_data.catalog import Catalog, Sensor
    from salibi_data.grid import TileXYZ
    from salibi_data.search import Scene
    from salibi_data.variant import SelectionRule, Variant

_SECONDS_PER_DAY: Final = 86_400
_UNKNOWN_CLOUD_PERCENT: Final = 100.0
_SLIVER: Final = 1e-9
"""Share of a tile that may be missing between footprints by rounding of their coordinates."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A tile and, per sensor, the scenes that cover it: the best first, then the gap fillers."""

    tile: TileXYZ
    scenes: Mapping[str, tuple[Scene, ...]]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    scene: Scene
    footprint: Any
    overlap: float
    """Share of the tile's area that the scene's footprint covers."""


def choose(
    tiles: Sequence[TileXYZ],
    scenes: Mapping[str, Sequence[Scene]],
    variant: Variant,
    catalog: Catalog,
) -> tuple[list[Choice], Counter[str]]:
    """Scenes for every tile that all sensors cover wholly.

    Args:
        tiles: candidates at the variant's base zoom.
        scenes: found scenes per sensor.
        variant: its ``selection`` rows say in which order sensors are chosen, and how.
        catalog: says which scenes may be used together (``group_by``).

    Returns:
        The choices in the order of ``tiles``, and for each sensor how many tiles were lost
        because no scenes of one group cover them near enough in time.
    """
    rules = [rule for rule in variant.selection if rule.sensor in variant.sensors]
    near_tile = {rule.sensor: _candidates(tiles, scenes[rule.sensor]) for rule in rules}
    choices: list[Choice] = []
    lost: Counter[str] = Counter()
    for tile in tiles:
        chosen: dict[str, tuple[Scene, ...]] = {}
        for rule in rules:
            candidates = near_tile[rule.sensor].get(tile, [])
            best = _best_group(tile, candidates, rule, catalog.sensors[rule.sensor], chosen)
            if best is None:
                lost[rule.sensor] += 1
                break
            chosen[rule.sensor] = best
        else:
            choices.append(Choice(tile=tile, scenes=chosen))
    return choices, lost


def tile_polygon(tile: TileXYZ) -> Any:
    """The tile's outline in longitude and latitude (shapely)."""
    from shapely import box

    return box(*mercantile.bounds(tile))


def _candidates(
    tiles: Sequence[TileXYZ], scenes: Sequence[Scene]
) -> dict[TileXYZ, list[_Candidate]]:
    """Scenes that touch each tile, with how much of it they cover."""
    import shapely
    from shapely.geometry import shape

    footprints = [shapely.make_valid(shape(scene.footprint)) for scene in scenes]
    tree = shapely.STRtree(footprints)
    polygons = [tile_polygon(tile) for tile in tiles]
    found: dict[TileXYZ, list[_Candidate]] = defaultdict(list)
    for tile_index, scene_index in tree.query(polygons, predicate="intersects").T.tolist():
        polygon, footprint = polygons[tile_index], footprints[scene_index]
        covers = footprint.covers(polygon)
        overlap = 1.0 if covers else polygon.intersection(footprint).area / polygon.area
        found[tiles[tile_index]].append(
            _Candidate(scene=scenes[scene_index], footprint=footprint, overlap=overlap)
        )
    return found


def _best_group(
    tile: TileXYZ,
    candidates: Sequence[_Candidate],
    rule: SelectionRule,
    sensor: Sensor,
    chosen: Mapping[str, tuple[Scene, ...]],
) -> tuple[Scene, ...] | None:
    """The best group of scenes that covers the tile: one year, one pass."""
    anchor = chosen.get(rule.near or "")
    groups: dict[tuple[str, ...], list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        if _days_apart(candidate.scene, anchor) <= (rule.within_days or float("inf")):
            groups[candidate.scene.group(sensor)].append(candidate)
    covering = [_cover(tile, members) for members in groups.values()]
    return min(
        (group for group in covering if group),
        key=lambda group: _score(group, rule, sensor, anchor),
        default=None,
    )


def _cover(tile: TileXYZ, members: Sequence[_Candidate]) -> tuple[Scene, ...] | None:
    """Members that together cover the tile, fullest first; None where they do not."""
    ordered = sorted(
        members, key=lambda c: (-round(c.overlap, 9), c.scene.acquired_utc, c.scene.id)
    )
    polygon = tile_polygon(tile)
    used: list[Scene] = []
    missing = polygon
    for candidate in ordered:
        left = missing.difference(candidate.footprint)
        if left.area < missing.area:
            used.append(candidate.scene)
            missing = left
        if missing.area <= _SLIVER * polygon.area:
            return tuple(used)
    return None


def _score(
    group: Sequence[Scene], rule: SelectionRule, sensor: Sensor, anchor: Sequence[Scene] | None
) -> tuple[Any, ...]:
    first = group[0]
    scores = {
        "newest": -max(scene.acquired_utc.timestamp() for scene in group),
        "cloud": max(_cloud_percent(scene, sensor) for scene in group),
        "time": _days_apart(first, anchor),
    }
    return (*(scores[name] for name in rule.rank), first.acquired_utc, first.id)


def _cloud_percent(scene: Scene, sensor: Sensor) -> float:
    if sensor.cloud_cover is None:
        return 0.0
    percent = scene.properties.get(sensor.cloud_cover)
    return _UNKNOWN_CLOUD_PERCENT if percent is None else float(percent)


def _days_apart(scene: Scene, anchor: Sequence[Scene] | None) -> float:
    if not anchor:
        return 0.0
    return abs((scene.acquired_utc - anchor[0].acquired_utc).total_seconds()) / _SECONDS_PER_DAY
