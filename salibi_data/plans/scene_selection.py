"""Which scenes make a sample: the rarest sensor first, the next near its date.

Works on all tiles of a search cell at once, in columns: tiles number tens of thousands, the
distinct sets of scenes they are made from a few dozen. Ties never depend on chance: options are
ordered by (score, number of tiles served, datetime, id), so that few scenes serve many tiles.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.plans.coverage import Coverage
from salibi_data.plans.picks import CellSelection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog.dates import Interval
    from salibi_data.catalog.providers import Catalog, Sensor
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import SelectionRule, Variant
    from salibi_data.store.tiles import Tiles

CLOUD_STEP_PERCENT: Final = 5.0
"""Scenes whose cloud cover differs by less count as alike; then the one that serves more tiles."""

TIME_STEP_DAYS: Final = 1.0
"""Scenes whose distance in time differs by less count as alike."""

MAX_CLOUD_ROUNDS: Final = 8
"""So many sets of scenes are tried for a tile before its clouds count as in the way."""

_SECONDS_PER_DAY: Final = 86_400
_UNKNOWN_CLOUD_PERCENT: Final = 100.0
_NONE: Final = np.iinfo(np.int32).max

Find = Callable[[str, "Sequence[Interval] | None"], "Sequence[Scene]"]
"""Scenes of a sensor within any of some intervals, or of any time."""

Cloudiness = Callable[[str, "Sequence[Scene]", "NDArray[np.int64]"], "NDArray[np.float32]"]
"""Cloudy share of the tiles at some positions, under scenes of a sensor used in that order."""


def choose(
    tiles: Tiles,
    find: Find,
    variant: Variant,
    catalog: Catalog,
    *,
    cloudiness: Cloudiness | None = None,
) -> CellSelection:
    """Scenes for every tile that all sensors cover wholly.

    Args:
        tiles: candidates at the variant's base zoom.
        find: called once per sensor, with the times at which its scenes can be of use.
        variant: its ``selection`` rows say in which order sensors are chosen, and how.
        catalog: says which scenes may be used together (``group_by``).
        cloudiness: scores clouds per tile; without it ``eo:cloud_cover`` of the scenes decides.

    Returns:
        The tiles that can be made, in their order, and how many were lost for want of what.
    """
    lost: Counter[str] = Counter()
    alive = np.arange(len(tiles))
    sets: dict[str, list[tuple[Scene, ...]]] = {}
    code: dict[str, NDArray[np.int64]] = {}
    clouds = np.full(len(tiles), np.nan, dtype=np.float32)
    for rule in variant.selection:
        if rule.sensor not in variant.sensors:
            continue
        sensor = catalog.sensors[rule.sensor]
        anchor_s = _first_times(sets[rule.near])[code[rule.near]] if rule.near in sets else None
        found = find(rule.sensor, _intervals(anchor_s, rule.within_days)) if len(alive) else []
        options = _options(tiles.take(alive), found, rule, sensor, anchor_s)
        if cloudiness is None or sensor.clouds is None:
            best, scored = options.best()[1], np.full(len(alive), np.nan)
        else:
            limit = variant.max_cloud_fraction
            best, scored = _clearest(options, alive, rule.sensor, cloudiness, limit)
            clouds[alive] = scored
        kept, cloudy = best >= 0, (best < 0) & np.isfinite(scored)
        lost["clouds"] += int(cloudy.sum())
        lost[rule.sensor] += int((~kept & ~cloudy).sum())
        sets[rule.sensor] = options.sets
        code = {name: codes[kept] for name, codes in code.items()} | {rule.sensor: best[kept]}
        alive = alive[kept]
    return CellSelection(
        tiles=tiles.take(alive),
        sets=sets,
        code=code,
        cloud_fraction=clouds[alive],
        lost={reason: count for reason, count in lost.items() if count},
    )


@dataclass(kw_only=True)
class _Options:
    """What could serve some tiles: a row per group of scenes that may be used together."""

    sets: list[tuple[Scene, ...]]
    code: NDArray[np.int32]
    """(groups, tiles): which set a group gives a tile, -1 for none."""
    rank: NDArray[np.int32]
    """(groups, tiles): the least is the best, :data:`_NONE` where there is none."""

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The best group's row and its set for each tile; the set is -1 where there is none."""
        num_groups, num_tiles = self.rank.shape
        if num_groups == 0:
            return np.zeros(num_tiles, np.int64), np.full(num_tiles, -1, dtype=np.int64)
        row, columns = np.argmin(self.rank, axis=0), np.arange(num_tiles)
        served = self.rank[row, columns] < _NONE
        return row, np.where(served, self.code[row, columns], -1).astype(np.int64)


def _options(
    tiles: Tiles,
    scenes: Sequence[Scene],
    rule: SelectionRule,
    sensor: Sensor,
    anchor_s: NDArray[np.float64] | None,
) -> _Options:
    """All groups' covers, ranked against each other per tile."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, scene in enumerate(scenes):
        groups[scene.group(sensor)].append(position)
    coverage = Coverage(scenes, tiles.zoom, tiles.x, tiles.y)
    shape = len(groups), len(tiles)
    code, rank = np.full(shape, -1, np.int32), np.full(shape, _NONE, np.int32)
    numbers: dict[tuple[str, ...], int] = {}
    sets: list[tuple[Scene, ...]] = []
    placed: list[tuple[tuple[Any, ...], int, NDArray[np.int64]]] = []
    within = np.inf if rule.within_days is None else rule.within_days
    for when in [None] if anchor_s is None else np.unique(anchor_s).tolist():
        here = np.ones(len(tiles), bool) if when is None else anchor_s == when
        for row, group in enumerate(groups.values()):
            near = [m for m in group if _days(scenes[m], when) <= within]
            cover = coverage.cover(near)
            for number, used in enumerate(cover.sets):
                at = np.nonzero(here & (cover.code == number))[0]
                if len(at) == 0:
                    continue
                key = tuple(scene.id for scene in used)
                if key not in numbers:
                    numbers[key] = len(sets)
                    sets.append(used)
                code[row, at] = numbers[key]
                placed.append((_score(used, rule, sensor, when, cover.num_tiles), row, at))
    order = {score: place for place, score in enumerate(sorted({one[0] for one in placed}))}
    for score, row, at in placed:
        rank[row, at] = order[score]
    return _Options(sets=sets, code=code, rank=rank)


def _clearest(
    options: _Options,
    positions: NDArray[np.int64],
    sensor: str,
    cloudiness: Cloudiness,
    max_cloud_fraction: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best set of each tile that leaves it clear enough, -1 for none; and what was scored.

    Sets are tried best first, so that clouds are read for few scenes.
    """
    found = np.full(len(positions), -1, dtype=np.int64)
    scored = np.full(len(positions), np.nan, dtype=np.float32)
    for _ in range(MAX_CLOUD_ROUNDS):
        row, code = options.best()
        waiting = (found < 0) & (code >= 0)
        for number in np.unique(code[waiting]).tolist():
            at = np.nonzero(waiting & (code == number))[0]
            cloudy = cloudiness(sensor, options.sets[number], positions[at])
            scored[at] = np.fmin(scored[at], cloudy)
            clear = cloudy <= max_cloud_fraction
            found[at[clear]] = number
            options.rank[row[at[~clear]], at[~clear]] = _NONE
        if not waiting.any():
            break
    return found, scored


def _score(
    used: Sequence[Scene],
    rule: SelectionRule,
    sensor: Sensor,
    anchor_s: float | None,
    num_tiles: int,
) -> tuple[Any, ...]:
    """What sets are ordered by: coarse scores, tiles served, then exact scores, datetime, id."""
    exact = {
        "newest": -max(scene.acquired_utc.timestamp() for scene in used),
        "cloud": max(_cloud_percent(scene, sensor) for scene in used),
        "time": _days(used[0], anchor_s),
    }
    steps = {"cloud": CLOUD_STEP_PERCENT, "time": TIME_STEP_DAYS}
    coarse = [exact[name] // steps[name] if name in steps else exact[name] for name in rule.rank]
    fine = [exact[name] for name in rule.rank]
    # The ids of all of them: sets that begin with the same scene are told apart, too.
    names = tuple(scene.id for scene in used)
    return (*coarse, -num_tiles, *fine, used[0].acquired_utc.timestamp(), names)


def _cloud_percent(scene: Scene, sensor: Sensor) -> float:
    if sensor.cloud_cover is None:
        return 0.0
    percent = scene.properties.get(sensor.cloud_cover)
    return _UNKNOWN_CLOUD_PERCENT if percent is None else float(percent)


def _days(scene: Scene, anchor_s: float | None) -> float:
    if anchor_s is None:
        return 0.0
    return abs(scene.acquired_utc.timestamp() - anchor_s) / _SECONDS_PER_DAY


def _first_times(sets: Sequence[Sequence[Scene]]) -> NDArray[np.float64]:
    """When the first scene of each set was acquired, seconds since 1970."""
    return np.array([used[0].acquired_utc.timestamp() for used in sets], dtype=np.float64)


def _intervals(anchor_s: NDArray[np.float64] | None, days: float | None) -> list[Interval] | None:
    """Times within so many days of any anchor, merged where they meet."""
    if anchor_s is None or days is None:
        return None
    merged: list[Interval] = []
    for second in np.unique(anchor_s).tolist():
        when = datetime.fromtimestamp(second, UTC)
        first, last = when - timedelta(days=days), when + timedelta(days=days)
        if merged and first <= merged[-1][1]:
            first = merged.pop()[0]
        merged.append((first, last))
    return merged
