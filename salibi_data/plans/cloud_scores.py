"""Scores the clouds over tiles while planning, from class masks that are read once per cell.

``eo:cloud_cover`` describes a whole granule; a cloudy granule may have clear tiles.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.pixels import warp
from salibi_data.sources.read import read_asset
from salibi_data.store.errors import ReadError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.schema import TILE_PX
from salibi_data.store.tiles import PixelGrid, ground_gsd_m

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog, CloudMask
    from salibi_data.catalog.scenes import Scene
    from salibi_data.store.tiles import Tiles

log = logging.getLogger(__name__)

_PERMANENT: Final = frozenset({"missing", "damaged", "unusable"})
"""Kinds of failures that do not go away when a read is repeated."""

_UNKNOWN, _CLEAR, _CLOUDY = range(3)
_MASK_GSD_M: Final = 20.0
_MIN_TILE_PX: Final = 4
_MAX_MASKS: Final = 8
"""Number of masks in memory while the tiles of a cell try sets of scenes; 16 MB each."""


class CellClouds:
    """Cloudy shares of the tiles of one cell under scenes in the order of use.

    Args:
        catalog: catalog of the scenes.
        tiles: tiles of the cell.
        cache_folder: folder for masks that were read, so that a plan that was stopped does not
            read them again; None for no cache.
    """

    def __init__(self, catalog: Catalog, tiles: Tiles, cache_folder: Path | None = None) -> None:
        self._catalog = catalog
        self._tiles = tiles
        self._cache_folder = cache_folder
        self._masks: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def __call__(
        self, sensor: str, scenes: Sequence[Scene], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Share of each tile that is cloudy or of unknown class; shape of ``positions``.

        A mask that is missing, damaged or unusable counts as cloudy everywhere, so that other
        scenes are tried.

        Raises:
            ReadError: a mask cannot be read for now, as when a server is down.
        """
        mask = self._catalog.sensors[sensor].clouds
        if mask is None:
            return np.zeros(len(positions), dtype=np.float32)
        grid = self._grid(mask)
        tiles = self._tiles.take(positions)
        mosaic = np.zeros((len(positions), grid.tile_px, grid.tile_px), dtype=np.uint8)
        for scene in scenes:
            if (mosaic != _UNKNOWN).all():
                break
            blocks = self._mask(scene, mask, grid)[tiles.y - grid.top, tiles.x - grid.left]
            np.copyto(mosaic, blocks, where=mosaic == _UNKNOWN)
        shares: NDArray[np.float32] = (mosaic != _CLEAR).mean(axis=(1, 2), dtype=np.float32)
        return shares

    def _grid(self, mask: CloudMask) -> PixelGrid:
        x, y, zoom = self._tiles.x, self._tiles.y, self._tiles.zoom
        edge_m = float(ground_gsd_m(zoom, [int(y[0])])[0]) * TILE_PX
        pixels = max(_MIN_TILE_PX, edge_m / (mask.gsd_m or _MASK_GSD_M))
        return PixelGrid(
            zoom=zoom,
            left=int(x.min()),
            top=int(y.min()),
            num_columns=int(x.max() - x.min()) + 1,
            num_rows=int(y.max() - y.min()) + 1,
            tile_px=min(TILE_PX, 1 << math.ceil(math.log2(pixels))),
        )

    def _mask(self, scene: Scene, mask: CloudMask, grid: PixelGrid) -> NDArray[np.uint8]:
        """Classes unknown, clear or cloudy; shape (tile rows, tile columns, tile_px, tile_px)."""
        if scene.id not in self._masks:
            rows, columns, edge = grid.num_rows, grid.num_columns, grid.tile_px
            classes = self._classes(scene, mask, grid)
            tiled = classes.reshape(rows, edge, columns, edge).swapaxes(1, 2)
            self._masks[scene.id] = tiled
            while len(self._masks) > _MAX_MASKS:
                self._masks.popitem(last=False)
        self._masks.move_to_end(scene.id)
        return self._masks[scene.id]

    def _classes(self, scene: Scene, mask: CloudMask, grid: PixelGrid) -> NDArray[np.uint8]:
        """Classes of a scene's mask on the grid, from the cache or read anew."""
        cached = None
        if self._cache_folder is not None:
            key = [scene.id, scene.hrefs.get(mask.asset), asdict(grid), asdict(mask)]
            digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
            cached = self._cache_folder / f"{digest}.npz"
            if cached.is_file():
                with np.load(cached) as content:
                    classes: NDArray[np.uint8] = content["seen"]
                return classes
        try:
            seen = self._read(scene, mask, grid)
        except ReadError as error:
            if error.kind not in _PERMANENT:
                raise
            log.warning("clouds of %s are unknown: %s", scene.id, error)
            return np.full(grid.shape, _CLOUDY, dtype=np.uint8)
        if cached is not None:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(cached) as partial, partial.open("wb") as file:
                np.savez_compressed(file, seen=seen)
        return seen

    def _read(self, scene: Scene, mask: CloudMask, grid: PixelGrid) -> NDArray[np.uint8]:
        product = mask.product
        bands = tuple(product.bands.values())
        source = read_asset(
            self._catalog, scene, mask.asset, product, bands, grid, categorical=True
        )
        if source is None:
            return np.full(grid.shape, _UNKNOWN, dtype=np.uint8)
        classes = warp.warp(source, grid, categorical=True)[0]
        cloudy = np.isin(classes, mask.cloudy)
        seen = np.where(cloudy, _CLOUDY, _CLEAR).astype(np.uint8)
        seen[np.isnan(classes)] = _UNKNOWN
        return seen
