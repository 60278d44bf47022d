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
    """A tile and the scenes that cover it."""

    tile: TileXYZ
    scenes: Mapping[str, tuple[Scene, ...]]
    """Scenes per sensor: the best first, then those that fill its gaps."""


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

    def choices(self) -> list[SceneChoice]:
        """List the choices tile by tile."""
        return [
            SceneChoice(
                tile=TileXYZ(int(self.tiles.x[i]), int(self.tiles.y[i]), self.tiles.zoom),
                scenes={name: self.sets[name][codes[i]] for name, codes in self.code.items()},
            )
            for i in range(len(self.tiles))
        ]
