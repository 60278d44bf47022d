"""Selects the scenes of each sample: the rarest sensor first, the next sensors near its date.

All tiles of a search cell are handled together, in columns: there are tens of thousands of tiles, but
only a few dozen distinct sets of scenes. Ties never depend on chance: options are ordered by (score,
number of tiles served, datetime, id), so that few scenes serve many tiles.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.scenes import known_percent
from salibi_data.plans import alternatives
from salibi_data.plans.coverage import Coverage
from salibi_data.plans.picks import MAX_SETS, CellSelection, SceneSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog.dates import Interval
    from salibi_data.catalog.providers import Catalog, Sensor
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import SelectionRule, Variant
    from salibi_data.store.tiles import Tiles

CLOUD_STEP_PERCENT: Final = 5.0
"""Step of cloud cover in percent; scenes of one step are ranked by the tiles they serve."""

TIME_STEP_DAYS: Final = 1.0
"""Step of the distance in time in days; scenes of one step are ranked by the tiles they serve."""

MAX_CLOUD_ROUNDS: Final = 8
"""Number of sets of scenes that are tried for a tile before it is given up as cloudy."""

_SECONDS_PER_DAY: Final = 86_400
_UNKNOWN_CLOUD_PERCENT: Final = 1000.0
"""Above every known one by more than :data:`CLOUD_STEP_PERCENT`."""
_NONE: Final = np.iinfo(np.int32).max

FindScenes = Callable[[str, "Sequence[Interval] | None"], "Sequence[Scene]"]
"""Function (sensor, intervals or None for any time) -> scenes."""

Cloudiness = Callable[[str, "Sequence[Scene]", "NDArray[np.int64]"], "NDArray[np.float32]"]
"""Function (sensor, scenes in order of use, positions of tiles) -> cloudy share per tile."""


def choose(
    tiles: Tiles,
    find: FindScenes,
    variant: Variant,
    catalog: Catalog,
    *,
    cloudiness: Cloudiness | None = None,
) -> CellSelection:
    """Select scenes for every tile that all sensors cover wholly.

    Args:
        tiles: candidates at the variant's base zoom.
        find: called once per sensor, with the intervals in which its scenes can be used.
        variant: variant whose ``selection`` rows give the order of sensors and their ranking.
        catalog: catalog whose sensors say which scenes may be used together (``group_by``).
        cloudiness: function that scores clouds per tile; without it ``eo:cloud_cover`` decides.

    Returns:
        Selection of the tiles that can be made, in their order, and number of tiles lost by reason.
    """
    lost: Counter[str] = Counter()
    remaining = np.arange(len(tiles))
    sets: dict[str, list[tuple[Scene, ...]]] = {}
    code: dict[str, NDArray[np.int64]] = {}
    foreseen: dict[str, alternatives.Foreseen] = {}
    clouds = np.full(len(tiles), np.nan, dtype=np.float32)
    for rule in variant.selection:
        if rule.sensor not in variant.sensors:
            continue
        sensor = catalog.sensors[rule.sensor]
        anchor_s = _first_times(sets[rule.near])[code[rule.near]] if rule.near in sets else None
        scenes = find(rule.sensor, _intervals(anchor_s, rule.within_days)) if len(remaining) else []
        options = _options(tiles.take(remaining), scenes, rule, sensor, anchor_s)
        if cloudiness is None or sensor.clouds is None:
            best, scored = options.best()[1], np.full(len(remaining), np.nan)
        else:
            limit = variant.max_cloud_fraction
            best, scored = _clearest(options, remaining, cloudiness, limit)
            clouds[remaining] = scored
        served, cloudy = best >= 0, (best < 0) & np.isfinite(scored)
        lost["clouds"] += int(cloudy.sum())
        lost[rule.sensor] += int((~served & ~cloudy).sum())
        sets[rule.sensor] = options.sets
        code = {name: codes[served] for name, codes in code.items()} | {rule.sensor: best[served]}
        foreseen = {name: each.take(served) for name, each in foreseen.items()}
        foreseen[rule.sensor] = options.foresee(served)
        remaining = remaining[served]
        del options  # large, and not needed beside those of the next sensor
    alternatives.leave_out_distant(foreseen, variant.selection)
    return CellSelection(
        tiles=tiles.take(remaining),
        sets=sets,
        code=code,
        cloud_fraction=clouds[remaining],
        lost={reason: count for reason, count in lost.items() if count},
        alternative_sets={name: each.sets for name, each in foreseen.items()},
        alternatives={name: each.code for name, each in foreseen.items()},
    )


@dataclass(frozen=True, kw_only=True)
class _Option:
    """Set of scenes by which a group covers some tiles."""

    number: int
    """Index of the set among all sets."""
    members: tuple[int, ...]
    """Positions of the group's scenes that may be used."""
    tiles: NDArray[np.int64]
    """Positions of the tiles."""
    anchor_s: float | None
    """Time that the tiles' scenes have to be near to, seconds since 1970 UTC."""


@dataclass(kw_only=True)
class _Options:
    """Options for some tiles: one row per group of scenes that may be used together."""

    coverage: Coverage
    sets: list[tuple[Scene, ...]]
    rule: SelectionRule
    sensor: Sensor
    options: list[_Option]
    option: NDArray[np.int32]
    """Index of the option that a group gives a tile, -1 for none; shape (groups, tiles)."""
    rank: NDArray[np.int32]
    """Rank of a group for a tile, lowest is best, :data:`_NONE` without a set; shape (groups, tiles)."""

    _foreseen: dict[int, SceneSet] = field(default_factory=dict)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Index of the set of each option; the last one, -1, is that of no option."""
        return np.array([*(option.number for option in self.options), -1], dtype=np.int64)

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row of the best group and its set for each tile; the set is -1 where there is none."""
        row, option = self.first()
        return row, self.numbers[option]

    def first(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row of the best group and its option for each tile; the option is -1 where there is none."""
        if len(self.rank) == 0:
            none = np.zeros(self.rank.shape[1], dtype=np.int64)
            return none, none - 1
        row, columns = np.argmin(self.rank, axis=0), np.arange(self.rank.shape[1])
        served = self.rank[row, columns] < _NONE
        return row, np.where(served, self.option[row, columns], -1).astype(np.int64)

    def foresee(self, served: NDArray[np.bool_]) -> alternatives.Foreseen:
        """List the sets that may be tried for the tiles that are served, the best first.

        Uses the options up: ranks are struck out.
        """
        found: list[NDArray[np.int32]] = []
        while len(found) < MAX_SETS:
            row, option = self.first()
            if not (option >= 0).any():
                break
            found.append(option[served].astype(np.int32))
            self.rank[row, np.arange(len(row))] = _NONE
        if not found:
            return alternatives.Foreseen(sets=(), code=np.empty((0, 0), np.int32))
        register = alternatives.SetRegister()
        code = register.renumber(np.stack(found, axis=1), self.with_fillers)
        return alternatives.Foreseen(sets=register.sets, code=code)

    def with_fillers(self, index: int) -> SceneSet:
        """The set of an option, and the group's other scenes that touch its tiles, the best first."""
        if index not in self._foreseen:
            self._foreseen[index] = self._with_fillers(self.options[index])
        return self._foreseen[index]

    def _with_fillers(self, option: _Option) -> SceneSet:
        used, coverage = self.sets[option.number], self.coverage
        ids = set(_ids(used))

        def score(member: int) -> tuple[Any, ...]:
            scene, num_tiles = (coverage.scenes[member],), coverage.num_touched(member)
            claims = bool(coverage.overclaims[member])
            return _score(
                scene, self.rule, self.sensor, option.anchor_s, num_tiles, overclaims=claims
            )

        touching = coverage.touching(option.members, option.tiles)
        others = [member for member in touching if coverage.scenes[member].id not in ids]
        fillers = tuple(coverage.scenes[member] for member in sorted(others, key=score))
        return SceneSet(scenes=used, fillers=fillers)


def _options(
    tiles: Tiles,
    scenes: Sequence[Scene],
    rule: SelectionRule,
    sensor: Sensor,
    anchor_s: NDArray[np.float64] | None,
) -> _Options:
    """Cover the tiles with every group, and rank the groups per tile."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, scene in enumerate(scenes):
        groups[scene.group(sensor)].append(position)
    coverage = Coverage(scenes, tiles.zoom, tiles.x, tiles.y, nodata_cover=sensor.nodata_cover)
    claiming = {scene.id for scene, is_so in zip(scenes, coverage.overclaims, strict=True) if is_so}
    shape = len(groups), len(tiles)
    option, rank = np.full(shape, -1, np.int32), np.full(shape, _NONE, np.int32)
    numbers: dict[tuple[str, ...], int] = {}
    sets: list[tuple[Scene, ...]] = []
    options: list[_Option] = []
    scored: list[tuple[tuple[Any, ...], int, NDArray[np.int64]]] = []
    within = np.inf if rule.within_days is None else rule.within_days
    for when in [None] if anchor_s is None else np.unique(anchor_s).tolist():
        anchored = np.ones(len(tiles), bool) if when is None else anchor_s == when
        for row, group in enumerate(groups.values()):
            near = [m for m in group if _days(scenes[m], when) <= within]
            cover = coverage.cover(near)
            for number, used in enumerate(cover.sets):
                at = np.nonzero(anchored & (cover.code == number))[0]
                if len(at) == 0:
                    continue
                key = _ids(used)
                if key not in numbers:
                    numbers[key] = len(sets)
                    sets.append(used)
                option[row, at] = len(options)
                options.append(
                    _Option(number=numbers[key], members=tuple(near), tiles=at, anchor_s=when)
                )
                claims = not claiming.isdisjoint(key)
                score = _score(used, rule, sensor, when, cover.num_tiles, overclaims=claims)
                scored.append((score, row, at))
    # Ranks in place of scores: numpy compares integers fast, and cannot compare tuples.
    order = {score: index for index, score in enumerate(sorted({score for score, _, _ in scored}))}
    for score, row, at in scored:
        rank[row, at] = order[score]
    return _Options(
        coverage=coverage,
        sets=sets,
        rule=rule,
        sensor=sensor,
        options=options,
        option=option,
        rank=rank,
    )


def _clearest(
    options: _Options,
    positions: NDArray[np.int64],
    cloudiness: Cloudiness,
    max_cloud_fraction: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the best set of each tile whose clouds are within the limit, -1 for none.

    Sets are tried in the order of their ranks, so that clouds are read for few scenes. Where a mask has
    no pixels, which counts as cloudy, those of the set's fillers count.

    Returns:
        Index of the set per tile, and the lowest cloudy share that was scored.
    """
    sensor = options.sensor.name
    chosen = np.full(len(positions), -1, dtype=np.int64)
    scored = np.full(len(positions), np.nan, dtype=np.float32)
    for _ in range(MAX_CLOUD_ROUNDS):
        row, option = options.first()
        code = options.numbers[option]
        waiting = (chosen < 0) & (code >= 0)
        for number in np.unique(code[waiting]).tolist():
            at = np.nonzero(waiting & (code == number))[0]
            cloudy = cloudiness(sensor, options.sets[number], positions[at])
            for index in np.unique(option[at[cloudy > max_cloud_fraction]]).tolist():
                scenes = options.with_fillers(index)
                filled = (option[at] == index) & (cloudy > max_cloud_fraction)
                if scenes.fillers:
                    cloudy[filled] = cloudiness(sensor, scenes.read_scenes, positions[at[filled]])
            # fmin ignores NaN, which marks tiles that were not scored before.
            scored[at] = np.fmin(scored[at], cloudy)
            clear = cloudy <= max_cloud_fraction
            chosen[at[clear]] = number
            # Struck out for these tiles, so that the next round gives their second best.
            options.rank[row[at[~clear]], at[~clear]] = _NONE
        if not waiting.any():
            break
    return chosen, scored


def _score(
    used: Sequence[Scene],
    rule: SelectionRule,
    sensor: Sensor,
    anchor_s: float | None,
    num_tiles: int,
    *,
    overclaims: bool,
) -> tuple[Any, ...]:
    """Key that sets are ordered by: coarse scores, tiles served, exact scores, datetime, ids.

    Of sets with equal coarse scores, those come last whose footprints claim more than they hold. They
    come before clearer ones for no more than that: where they lack pixels, others fill.
    """
    exact = {
        "newest": -max(scene.acquired_utc.timestamp() for scene in used),
        "cloud": max(_cloud_percent(scene, sensor) for scene in used),
        "time": _days(used[0], anchor_s),
    }
    steps = {"cloud": CLOUD_STEP_PERCENT, "time": TIME_STEP_DAYS}
    coarse = [exact[name] // steps[name] if name in steps else exact[name] for name in rule.rank]
    fine = [exact[name] for name in rule.rank]
    # The ids of all scenes, as two sets may begin with the same scene.
    time_s = used[0].acquired_utc.timestamp()
    return (*coarse, overclaims, -num_tiles, *fine, time_s, _ids(used))


def _ids(scenes: Sequence[Scene]) -> tuple[str, ...]:
    return tuple(scene.id for scene in scenes)


def _cloud_percent(scene: Scene, sensor: Sensor) -> float:
    if sensor.cloud_cover is None:
        return 0.0
    # Items may lack eo:cloud_cover, or state NaN, text or null: such scenes rank last.
    percent = known_percent(scene.properties.get(sensor.cloud_cover))
    return _UNKNOWN_CLOUD_PERCENT if percent is None else percent


def _days(scene: Scene, anchor_s: float | None) -> float:
    if anchor_s is None:
        return 0.0
    return abs(scene.acquired_utc.timestamp() - anchor_s) / _SECONDS_PER_DAY


def _first_times(sets: Sequence[Sequence[Scene]]) -> NDArray[np.float64]:
    """Acquisition time of the first scene of each set, seconds since 1970 UTC."""
    return np.array([used[0].acquired_utc.timestamp() for used in sets], dtype=np.float64)


def _intervals(anchor_s: NDArray[np.float64] | None, days: float | None) -> list[Interval] | None:
    """Intervals of ``days`` around every anchor, merged where they overlap; None for any time."""
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
