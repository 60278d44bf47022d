"""Alternatives: the sets of scenes that a plan foresees for tiles that turn out to lack pixels.

A footprint may claim more than its scene holds, which shows only when pixels are read. The sets of a
tile are the chosen one with further scenes of its group, then those of other groups, in the order in
which scenes are ranked. A build takes the first that gives enough pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.plans.picks import SceneSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import SelectionRule
    from salibi_data.plans.picks import CellSelection

_SECONDS_PER_DAY: Final = 86_400


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """Sets of one sensor that may be tried for the tiles of a cell."""

    sets: Sequence[SceneSet]
    code: NDArray[np.int32]
    """Indices of each tile's sets in the order of use, -1 for none; shape (tiles, sets)."""

    def take(self, keep: NDArray[np.bool_]) -> Foreseen:
        """Keep some of the tiles."""
        return replace(self, code=self.code[keep])


def leave_out_distant(foreseen: dict[str, Foreseen], selection: Sequence[SelectionRule]) -> None:
    """Remove the sets whose dates leave no scenes to the sensors that are chosen near them."""
    for rule in reversed(selection):
        near_name = rule.near or ""
        anchor, dependent = foreseen.get(near_name), foreseen.get(rule.sensor)
        if anchor is None or dependent is None or rule.within_days is None:
            continue
        if len(anchor.code) == 0:
            return
        near_sets = _near_sets(anchor.sets, dependent.sets, rule.within_days * _SECONDS_PER_DAY)
        near = np.zeros(anchor.code.shape, dtype=bool)
        for turn in range(dependent.code.shape[1]):
            near |= near_sets[anchor.code, dependent.code[:, turn, np.newaxis]]
        # The chosen set stays: the dependents' scenes were found near it.
        near[:, 0] = True
        foreseen[near_name] = replace(anchor, code=_packed(np.where(near, anchor.code, -1)))


def _near_sets(
    anchors: Sequence[SceneSet], dependents: Sequence[SceneSet], within_s: float
) -> NDArray[np.bool_]:
    """Whether scenes of two sets may be near in time; the last row and column, -1, are of no set.

    Per pair of sets, as these are few and tiles are many.
    """
    (first, last), (earliest, latest) = _times_s(anchors), _times_s(dependents)
    # NaN marks no set, and compares as False.
    near: NDArray[np.bool_] = (earliest <= last[:, np.newaxis] + within_s) & (
        latest >= first[:, np.newaxis] - within_s
    )
    return near


def _times_s(sets: Sequence[SceneSet]) -> NDArray[np.float64]:
    """Earliest and latest time of each set, then NaN for none; shape (2, sets + 1)."""
    times = np.full((2, len(sets) + 1), np.nan)
    for number, each in enumerate(sets):
        seconds = [scene.acquired_utc.timestamp() for scene in each.all_scenes]
        times[:, number] = min(seconds), max(seconds)
    return times


def _packed(code: NDArray[np.int32]) -> NDArray[np.int32]:
    """Move the sets of each tile before the places without one, in their order."""
    gaps = (code[:, :-1] < 0) & (code[:, 1:] >= 0)
    if gaps.any():
        code = np.take_along_axis(code, np.argsort(code < 0, axis=1, kind="stable"), axis=1)
    num_used = int((code >= 0).any(axis=0).sum())
    return code[:, :num_used]


class SetRegister:
    """Distinct sets of one sensor, numbered in the order in which they come."""

    def __init__(self) -> None:
        self.sets: list[SceneSet] = []
        self._numbers: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}

    def renumber(
        self, code: NDArray[np.int32], set_at: Callable[[int], SceneSet]
    ) -> NDArray[np.int32]:
        """Return the numbers of sets in this register, in place of other numbers of theirs.

        Args:
            code: numbers of sets, -1 for none, of any shape.
            set_at: function from such a number to its set.
        """
        # The last place, -1, is that of no set. Marking is faster than sorting: sets are few.
        is_used = np.zeros(int(code.max(initial=-1)) + 2, dtype=bool)
        is_used[code] = True
        numbers = np.full(len(is_used), -1, dtype=np.int32)
        for number in np.flatnonzero(is_used[:-1]).tolist():
            numbers[number] = self._number(set_at(number))
        return numbers[code]

    def to_list(self) -> list[list[list[str]]]:
        """JSON form of the sets: the ids of the scenes of each, and of its fillers."""
        return [[list(ids) for ids in key] for key in self._numbers]

    def _number(self, scenes: SceneSet) -> int:
        key = scenes.ids
        if key not in self._numbers:
            self._numbers[key] = len(self.sets)
            self.sets.append(scenes)
        return self._numbers[key]


class OrderRegister:
    """Distinct orders of sets of one sensor: a number per tile in place of a list."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, ...], int] = {}

    def number(self, code: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the number of each tile's order, shape (N,), from the numbers of its sets, (N, sets)."""
        rows, inverse = _distinct_rows(code)
        numbers = [
            self._numbers.setdefault(
                tuple(number for number in row if number >= 0), len(self._numbers)
            )
            for row in rows.tolist()
        ]
        return np.array(numbers, dtype=np.int32)[inverse]

    def code(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the numbers of each tile's sets, -1 for none, shape (N, sets), from its order."""
        length = max(map(len, self._numbers), default=0)
        padded = [[*order, *[-1] * (length - len(order))] for order in self._numbers]
        orders = np.array(padded, dtype=np.int32).reshape(len(padded), length)
        return orders[numbers]


def _distinct_rows(code: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the distinct rows of an array, and the index among them of each row."""
    # Sorting one number per row is many times faster than sorting rows.
    weights = np.random.default_rng(0).integers(1, 2**62, code.shape[1])
    _, first, inverse = np.unique(code @ weights, return_index=True, return_inverse=True)
    if np.array_equal(code[first][inverse], code):
        return code[first], inverse
    rows, inverse = np.unique(code, axis=0, return_inverse=True)
    return rows, inverse.ravel()


def sets_from_list(
    content: Iterable[Sequence[Sequence[str]]], scenes: Mapping[str, Scene]
) -> tuple[SceneSet, ...]:
    """Sets from :meth:`SetRegister.to_list`; ``scenes`` are by id."""
    return tuple(
        SceneSet(
            scenes=tuple(scenes[id_] for id_ in ids), fillers=tuple(scenes[id_] for id_ in fillers)
        )
        for ids, fillers in content
    )


def column_name(sensor: str) -> str:
    """Name of a plan's column with the numbers of each tile's sets of a sensor."""
    return f"{sensor}_alternatives"


def column(code: NDArray[np.int32]) -> Any:
    """Column of a plan with the numbers of each tile's sets (a pyarrow list array)."""
    import pyarrow as pa

    is_set = code >= 0
    offsets = np.concatenate([[0], np.cumsum(is_set.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(code[is_set]))


class SceneOwners:
    """Split that each scene belongs to, for plans in which no scene may be in two splits.

    A scene that is chosen for a tile belongs to the tile's split. One that is only foreseen belongs to
    the split of lowest code that it is foreseen in.
    """

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, str], int] = {}
        self._foreseen: dict[tuple[str, str], int] = {}

    def add(self, selection: CellSelection, split: NDArray[np.uint8]) -> None:
        """Add tiles with their splits, shape (N,)."""
        for name, chosen in selection.code.items():
            for number, owner in _pairs(chosen[:, None], split):
                for scene in selection.sets[name][number]:
                    self._chosen[name, scene.id] = owner
        for name, code in selection.alternatives.items():
            for number, owner in _pairs(code, split):
                for scene in selection.alternative_sets[name][number].all_scenes:
                    lowest = self._foreseen.get((name, scene.id), owner)
                    self._foreseen[name, scene.id] = min(lowest, owner)

    def restrict(self, selection: CellSelection, split: NDArray[np.uint8]) -> CellSelection:
        """Remove the scenes of other splits from the alternatives of some tiles."""
        sets: dict[str, list[SceneSet]] = {}
        codes: dict[str, NDArray[np.int32]] = {}
        for name, code in selection.alternatives.items():
            sets[name], codes[name] = [], np.full_like(code, -1)
            for number, owner in _pairs(code, split):
                foreseen = selection.alternative_sets[name][number]
                own = [s for s in foreseen.all_scenes if self._owner(name, s) == owner]
                if not all(scene in own for scene in foreseen.scenes):
                    continue
                at = (code == number) & (split == owner)[:, None]
                codes[name][at] = len(sets[name])
                fillers = tuple(scene for scene in foreseen.fillers if scene in own)
                sets[name].append(replace(foreseen, fillers=fillers))
            codes[name] = _packed(codes[name])
        return replace(selection, alternative_sets=sets, alternatives=codes)

    def _owner(self, sensor: str, scene: Scene) -> int:
        key = sensor, scene.id
        return self._chosen.get(key, self._foreseen[key])


def _pairs(code: NDArray[Any], split: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of set and split that occur; shapes (N, sets) and (N,)."""
    for owner in np.unique(split).tolist():
        used = code[split == owner]
        for number in np.unique(used[used >= 0]).tolist():
            yield number, owner
