"""Clouds over tiles at plan time: a scene's class mask read once per cell, counted per tile.

``eo:cloud_cover`` speaks of a whole granule; a clear tile may lie under a cloudy one.
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

_FOR_GOOD: Final = frozenset({"missing", "damaged", "unusable"})
"""Kinds of failures that another try would not mend."""

_UNKNOWN, _CLEAR, _CLOUDY = range(3)
_MASK_GSD_M: Final = 20.0
_MIN_TILE_PX: Final = 4
_SCENES_KEPT: Final = 8
"""Masks of a cell kept while its tiles try one set of scenes after another; 16 MB each."""


class CellClouds:
    """Cloudy shares of the tiles of one cell, under scenes used in order.

    Args:
        catalog: whose scenes.
        tiles: of the cell.
        kept_in: folder for masks that were read, so that a plan that was stopped does not read
            them again; None keeps nothing.
    """

    def __init__(self, catalog: Catalog, tiles: Tiles, kept_in: Path | None = None) -> None:
        self._catalog = catalog
        self._tiles = tiles
        self._kept_in = kept_in
        self._masks: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def __call__(
        self, sensor: str, scenes: Sequence[Scene], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Share of each tile that is cloudy, or of unknown class; shape of ``positions``.

        A mask that is missing, damaged or unusable counts as cloudy everywhere: other scenes are
        tried then.

        Raises:
            ReadError: a mask cannot be read at present; it says nothing about clouds.
        """
        mask = self._catalog.sensors[sensor].clouds
        if mask is None:
            return np.zeros(len(positions), dtype=np.float32)
        grid = self._grid(mask)
        tiles = self._tiles.take(positions)
        mosaic = np.zeros((len(positions), grid.tile_px, grid.tile_px), dtype=np.uint8)
        for scene in scenes:
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
        """Unknown, clear or cloudy: (rows of tiles, columns of tiles, tile_px, tile_px)."""
        if scene.id not in self._masks:
            rows, columns, edge = grid.num_rows, grid.num_columns, grid.tile_px
            seen = self._seen(scene, mask, grid)
            tiled = seen.reshape(rows, edge, columns, edge).swapaxes(1, 2)
            self._masks[scene.id] = tiled
            while len(self._masks) > _SCENES_KEPT:
                self._masks.popitem(last=False)
        self._masks.move_to_end(scene.id)
        return self._masks[scene.id]

    def _seen(self, scene: Scene, mask: CloudMask, grid: PixelGrid) -> NDArray[np.uint8]:
        """Shape ``grid.shape``; read, or what was kept of it."""
        kept = None
        if self._kept_in is not None:
            asked = [scene.id, scene.hrefs.get(mask.asset), asdict(grid), asdict(mask)]
            digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
            kept = self._kept_in / f"{digest}.npz"
            if kept.is_file():
                with np.load(kept) as content:
                    classes: NDArray[np.uint8] = content["seen"]
                return classes
        try:
            seen = self._read(scene, mask, grid)
        except ReadError as error:
            if error.kind not in _FOR_GOOD:
                raise
            log.warning("clouds of %s are unknown: %s", scene.id, error)
            return np.full(grid.shape, _CLOUDY, dtype=np.uint8)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(kept) as partial, partial.open("wb") as file:
                np.savez_compressed(file, seen=seen)
        return seen

    def _read(self, scene: Scene, mask: CloudMask, grid: PixelGrid) -> NDArray[np.uint8]:
        product = mask.product
        bands = tuple(product.bands.values())
        source = read_asset(self._catalog, scene, mask.asset, product, bands, grid)
        if source is None:
            return np.full(grid.shape, _UNKNOWN, dtype=np.uint8)
        classes = warp.warp(source, grid, categorical=True)[0]
        cloudy = np.isin(classes, mask.cloudy)
        seen = np.where(cloudy, _CLOUDY, _CLEAR).astype(np.uint8)
        seen[np.isnan(classes)] = _UNKNOWN
        return seen
