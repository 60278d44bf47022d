"""Scenes chosen for tiles: one tile at a time, or all tiles of a search cell in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from salibi_data.store.tiles import Tiles, TileXYZ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from salibi_data.catalog.scenes import Scene


@dataclass(frozen=True, kw_only=True)
class SceneChoice:
    """A tile and, per sensor, the scenes that cover it: the best first, then the gap fillers."""

    tile: TileXYZ
    scenes: Mapping[str, tuple[Scene, ...]]


@dataclass(frozen=True, kw_only=True)
class CellSelection:
    """What was chosen for the tiles of a cell."""

    tiles: Tiles
    sets: Mapping[str, Sequence[tuple[Scene, ...]]]
    """Per sensor the distinct sets of scenes in use."""
    code: Mapping[str, NDArray[np.int64]]
    """Per sensor which set each tile takes, shape (N,)."""
    cloud_fraction: NDArray[np.float32]
    """Cloudy share of each tile where it was scored, NaN elsewhere; shape (N,)."""
    lost: Mapping[str, int]
    """Tiles that no scenes cover, by the sensor that lacks them; ``clouds`` where all are cloudy."""

    def choices(self) -> list[SceneChoice]:
        """The same, a tile at a time."""
        return [
            SceneChoice(
                tile=TileXYZ(int(self.tiles.x[i]), int(self.tiles.y[i]), self.tiles.zoom),
                scenes={name: self.sets[name][codes[i]] for name, codes in self.code.items()},
            )
            for i in range(len(self.tiles))
        ]
