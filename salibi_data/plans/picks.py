"""Scenes chosen for tiles: one tile at a time, or all tiles of a search cell in columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from salibi_data.store.tiles import Tiles, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from salibi_data.catalog.scenes import Scene

MAX_SETS: Final = 16
"""Number of sets of scenes that a plan foresees for a tile and a sensor, the chosen one included.

Sentinel-2 passes a place some twelve times in two months. A tile without pixels in all of these is
one that the sensor does not see; more sets would only cost the reading of further scenes."""


MAX_FILLERS: Final = 16
"""Number of scenes of one set that are read to fill a tile.

Bounds what is read for a tile that no scene sees, where scenes without a grouping rule are many."""


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """Scenes that may make a sample together."""

    scenes: tuple[Scene, ...]
    """Scenes whose footprints cover the tile together, in the order of use."""
    fillers: tuple[Scene, ...]
    """Further scenes of the same group, in the order of use, for pixels that those above lack."""

    @property
    def all_scenes(self) -> tuple[Scene, ...]:
        """All scenes in the order of use."""
        return (*self.scenes, *self.fillers)

    @property
    def read_scenes(self) -> tuple[Scene, ...]:
        """Scenes that are read at most, where all fillers are over one place."""
        return (*self.scenes, *self.fillers[:MAX_FILLERS])

    @property
    def ids(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of the scenes, and of the fillers."""
        return tuple(s.id for s in self.scenes), tuple(s.id for s in self.fillers)


@dataclass(frozen=True, kw_only=True)
class SceneChoice:
    """A tile and the scenes that cover it."""

    tile: TileXYZ
    scenes: Mapping[str, tuple[Scene, ...]]
    """Scenes per sensor: the best first, then those that fill its gaps."""
    alternatives: Mapping[str, tuple[SceneSet, ...]] = field(default_factory=dict)
    """Sets per sensor in the order of use, for a tile that lacks pixels: the chosen scenes with their
    fillers, then sets of other groups. No sensors in plans of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class CellSelection:
    """Scenes selected for the tiles of a search cell, in columns."""

    tiles: Tiles
    sets: Mapping[str, Sequence[tuple[Scene, ...]]]
    """Distinct sets of scenes in use, per sensor."""
    code: Mapping[str, NDArray[np.int64]]
    """Index of each tile's set, per sensor; shape (N,)."""
    cloud_fraction: NDArray[np.float32]
    """Cloudy share of each tile where it was scored, NaN elsewhere; shape (N,)."""
    lost: Mapping[str, int]
    """Number of tiles without scenes, by the sensor that lacks them; ``clouds`` where all are cloudy."""
    alternative_sets: Mapping[str, Sequence[SceneSet]] = field(default_factory=dict)
    """Distinct sets that may be tried for a tile, per sensor."""
    alternatives: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    """Indices of each tile's alternative sets in the order of use, the chosen one first, -1 for none;
    shape (N, sets) per sensor."""

    def choices(self) -> list[SceneChoice]:
        """List the choices tile by tile."""
        return [
            SceneChoice(
                tile=TileXYZ(int(self.tiles.x[i]), int(self.tiles.y[i]), self.tiles.zoom),
                scenes={name: self.sets[name][codes[i]] for name, codes in self.code.items()},
            )
            for i in range(len(self.tiles))
        ]
