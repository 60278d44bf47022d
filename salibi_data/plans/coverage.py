"""Coverage of tiles by scenes, alone or together, computed for many tiles at once.

Geometry is planar in degrees of longitude and latitude: tiles are small, and STAC footprints are
given in degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.outlines import outline_of
from salibi_data.catalog.scenes import known_percent
from salibi_data.store.tiles import tile_outlines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog.scenes import Scene

_SLIVER: Final = 1e-9
"""Share of a tile that may be missing because the coordinates of footprints are rounded."""

_PARENT_LEVELS: Final = 4
"""Levels to the parents that are tested first: most 16 x 16 tiles lie far inside or outside."""


FULL_SCENE_PERCENT: Final = 1.0
"""Largest stated share of nodata, in percent, of a scene that shows the area of a full one."""

OVERCLAIM_MARGIN: Final = 0.1
"""Share of a full scene by which a footprint may exceed what the stated share of nodata leaves.

Footprints are simplified outlines, and providers count a swath's ragged edges in different ways."""


@dataclass(frozen=True, kw_only=True)
class Cover:
    """Sets of scenes that cover tiles."""

    sets: tuple[tuple[Scene, ...], ...]
    """Distinct sets; the scenes of a set are in the order of use."""
    code: NDArray[np.int32]
    """Index of the set that covers each tile, -1 for none; shape (tiles,)."""

    @property
    def num_tiles(self) -> int:
        """Number of covered tiles."""
        return int((self.code >= 0).sum())


class Coverage:
    """Footprints of scenes over tiles of one zoom."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        zoom: int,
        x: NDArray[np.int64],
        y: NDArray[np.int64],
        *,
        nodata_cover: str | None = None,
    ) -> None:
        import shapely

        self.scenes = tuple(scenes)
        self._outlines = tile_outlines(zoom, x, y)
        self._footprints = np.array([outline_of(scene.footprint) for scene in scenes], dtype=object)
        self._covers = np.zeros((len(scenes), len(x)), dtype=bool)
        self._touches = np.zeros_like(self._covers)
        self._covers_by_members: dict[frozenset[int], Cover] = {}
        self.overclaims = overclaiming(scenes, self._footprints, nodata_cover)
        """Whether a scene's footprint claims much more than it holds; shape (scenes,)."""
        levels = min(_PARENT_LEVELS, zoom)
        parents, parent = np.unique(
            np.stack([x >> levels, y >> levels], axis=1), axis=0, return_inverse=True
        )
        parent_outlines = tile_outlines(zoom - levels, parents[:, 0], parents[:, 1])
        for row, footprint in enumerate(self._footprints):
            shapely.prepare(footprint)
            inside = shapely.covers(footprint, parent_outlines)
            partly = (shapely.intersects(footprint, parent_outlines) & ~inside)[parent]
            self._covers[row] = self._touches[row] = inside[parent]
            self._covers[row, partly] = shapely.covers(footprint, self._outlines[partly])
            self._touches[row, partly] = shapely.intersects(footprint, self._outlines[partly])

    def cover(self, members: Sequence[int]) -> Cover:
        """Cover the tiles with the scenes at some positions: by one scene where possible, else several.

        Of the scenes that cover a tile alone, the one that covers most tiles is used, and one that
        claims too much only where there is no other. Several scenes are used in order of the area
        they cover, without those that add nothing.
        """
        key = frozenset(members)
        if key not in self._covers_by_members:
            self._covers_by_members[key] = self._cover(sorted(members, key=self._age))
        return self._covers_by_members[key]

    def touching(self, members: Sequence[int], tiles: NDArray[np.int64]) -> list[int]:
        """Return those of the scenes at some positions whose footprints touch any of some tiles."""
        touches = self._touches[np.asarray(members)[:, None], tiles].any(axis=1)
        touching: list[int] = np.asarray(members)[touches].tolist()
        return touching

    def num_touched(self, member: int) -> int:
        """Return the number of tiles that a scene touches."""
        return int(self._touches[member].sum())

    def _age(self, member: int) -> tuple[Any, str]:
        return self.scenes[member].acquired_utc, self.scenes[member].id

    def _cover(self, members: Sequence[int]) -> Cover:
        code = np.full(self._covers.shape[1], -1, dtype=np.int32)
        sets: list[tuple[Scene, ...]] = []
        num_covered = self._covers.sum(axis=1)
        for member in sorted(members, key=lambda m: (self.overclaims[m], -int(num_covered[m]))):
            alone = self._covers[member] & (code < 0)
            if alone.any():
                code[alone] = len(sets)
                sets.append((self.scenes[member],))
        shared = np.nonzero((code < 0) & (self._touches[members].sum(axis=0) > 1))[0]
        numbers: dict[tuple[int, ...], int] = {}
        for position, used in self._together(members, shared):
            if used not in numbers:
                numbers[used] = len(sets)
                sets.append(tuple(self.scenes[member] for member in used))
            code[position] = numbers[used]
        return Cover(sets=tuple(sets), code=code)

    def _together(
        self, members: Sequence[int], tiles: NDArray[np.int64]
    ) -> list[tuple[int, tuple[int, ...]]]:
        """Tiles that several members cover together, each with the members in the order of use."""
        import shapely

        if len(tiles) == 0:
            return []
        missing = self._outlines[tiles].copy()
        full_area = shapely.area(missing)
        share = np.zeros((len(members), len(tiles)))
        for row, member in enumerate(members):
            touched = np.nonzero(self._touches[member, tiles])[0]
            common = shapely.intersection(self._footprints[member], missing[touched])
            share[row, touched] = np.round(shapely.area(common) / full_area[touched], 9)
        # A stable sort: of members that cover equal areas the oldest comes first.
        order = np.argsort(-share, axis=0, kind="stable")
        used: list[list[int]] = [[] for _ in tiles]
        left = full_area.copy()
        for turn in order:
            at = np.nonzero(
                (left > _SLIVER * full_area) & (share[turn, np.arange(len(tiles))] > 0)
            )[0]
            if len(at) == 0:
                break
            chosen_scenes = np.asarray(members)[turn[at]]
            missing[at] = shapely.difference(missing[at], self._footprints[chosen_scenes])
            area = shapely.area(missing[at])
            for position, member, gained in zip(
                at.tolist(), chosen_scenes.tolist(), (area < left[at]).tolist(), strict=True
            ):
                if gained:
                    used[position].append(member)
            left[at] = area
        done = left <= _SLIVER * full_area
        return [
            (int(tile), tuple(members_used))
            for tile, members_used, is_covered in zip(tiles, used, done, strict=True)
            if is_covered
        ]


def overclaiming(
    scenes: Sequence[Scene], footprints: NDArray[np.object_], nodata_cover: str | None
) -> NDArray[np.bool_]:
    """Tell which scenes state much more nodata than their footprints admit, shape (scenes,).

    Scenes of a sensor that states its nodata are cut from squares of one size. Its area is the median
    of the footprints of full scenes, or the largest footprint where none is full.

    Args:
        scenes: scenes of one sensor.
        footprints: their outlines in degrees (shapely), in the same order.
        nodata_cover: property with the share without data in percent; None where there is none.
    """
    import shapely

    if nodata_cover is None or not scenes:
        return np.zeros(len(scenes), dtype=bool)
    shares = [known_percent(scene.properties.get(nodata_cover)) for scene in scenes]
    # NaN, an unknown share, compares as False.
    stated = np.array(shares, dtype=np.float64)
    known: NDArray[np.bool_] = np.isfinite(stated)
    if not known.any():
        return known
    latitude = shapely.get_y(shapely.centroid(footprints))
    area = shapely.area(footprints) * np.cos(np.radians(latitude))
    is_full = stated <= FULL_SCENE_PERCENT
    full_area = np.median(area[is_full]) if is_full.any() else area[known].max()
    claims: NDArray[np.bool_] = area > (1 - stated / 100 + OVERCLAIM_MARGIN) * full_area
    return claims
