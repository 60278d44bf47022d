"""Estimates the bytes and requests that a build takes from the sources, and their price.

The estimate comes from the block sizes and the typical compression in the provider's TOML. No file
is opened for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.plans.plan import BLOCK_ZOOM_OFFSET
from salibi_data.sources.georeference import MARGIN_PX
from salibi_data.sources.http import HEADER_BYTES
from salibi_data.store.schema import TILE_PX
from salibi_data.store.tiles import ground_gsd_m

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog, Sensor
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import Variant
    from salibi_data.plans.picks import CellSelection

BOTH_MARGINS_PX: Final = 2 * MARGIN_PX
"""Source pixels read on both sides of a block of tiles."""

_UNKNOWN_GSD_M: Final = 10.0
_UNKNOWN_BYTES_PER_PX: Final = 1.0


class Tally:
    """Bytes and requests of the samples added so far."""

    def __init__(self, variant: Variant, catalog: Catalog) -> None:
        self._variant = variant
        self._catalog = catalog
        self.num_bytes: Counter[str] = Counter()
        self.num_requests: Counter[str] = Counter()
        self.num_files: Counter[str] = Counter()
        """Number of times that a file is opened, per sensor."""
        self.num_warped_px: Counter[str] = Counter()
        """Number of values in the rectangles that are warped, in all layers, per sensor."""

    def add(self, picks: CellSelection) -> None:
        """Add tiles of the plan; each block of tiles is read once per scene."""
        for name in self._variant.sensors:
            sensor = self._catalog.sensors[name]
            tile_px = self._px_per_tile(sensor)
            for number, edges_m, num_tiles in _uses(picks, picks.code[name]):
                self.num_warped_px[name] += len(picks.sets[name][number]) * num_tiles * tile_px
                for scene in picks.sets[name][number]:
                    for num_bytes, num_requests in self._reads(sensor, scene, edges_m):
                        self.num_bytes[name] += num_bytes
                        self.num_requests[name] += num_requests
                        self.num_files[name] += len(edges_m)

    def _px_per_tile(self, sensor: Sensor) -> int:
        """Number of values of a tile in all modalities of a sensor and its cloud mask."""
        images = (row for row in self._variant.modalities if row.sensor == sensor.name)
        mask = 0 if sensor.clouds is None else TILE_PX**2
        return mask + sum(len(row.bands) * row.tile_px**2 for row in images)

    def _reads(
        self, sensor: Sensor, scene: Scene, edges_m: NDArray[np.float64]
    ) -> Iterator[tuple[int, int]]:
        """Yield bytes and requests of each asset of a scene, over blocks of given (width, height) in m."""
        wanted: dict[str, tuple[float, float, int]] = {}
        for recipe in self._variant.modalities:
            if recipe.sensor != sensor.name:
                continue
            product = sensor.products[recipe.product]
            for band in recipe.bands:
                asset = product.bands[band].asset
                # Bands of one file share its blocks: reading one band reads all of them.
                num_bands = sum(other.asset == asset for other in product.bands.values())
                gsd_m = product.native_gsd_m(band, scene.properties) or _UNKNOWN_GSD_M
                bytes_per_px = (product.bytes_per_px or _UNKNOWN_BYTES_PER_PX) * num_bands
                wanted[asset] = gsd_m, bytes_per_px, product.block_px
        if (mask := sensor.clouds) is not None:
            bytes_per_px = mask.bytes_per_px or _UNKNOWN_BYTES_PER_PX
            wanted[mask.asset] = mask.gsd_m or _UNKNOWN_GSD_M, bytes_per_px, mask.block_px
        for gsd_m, bytes_per_px, block_px in wanted.values():
            # A window of w pixels at a random place touches (w - 1) / b + 1 blocks of b pixels.
            touched = (edges_m / gsd_m + BOTH_MARGINS_PX - 1) / block_px + 1
            pixels = float(touched.prod(axis=1).sum()) * block_px**2
            rows = float(touched[:, 1].sum())
            files = len(edges_m)
            yield round(pixels * bytes_per_px) + files * HEADER_BYTES, files + round(rows)

    def summary(self) -> dict[str, Any]:
        """Bytes, requests and US dollars, in total and by sensor; only requester-pays reads cost."""
        prices = self._catalog.prices
        usd = sum(
            self.num_bytes[name] / 1e9 * prices.usd_per_gb
            + self.num_requests[name] / 1e3 * prices.usd_per_1000_requests
            for name in self._variant.sensors
            if self._catalog.sensors[name].requester_pays
        )
        return {
            "source_bytes": self.num_bytes.total(),
            "source_requests": self.num_requests.total(),
            "usd": round(usd, 2),
            "by_sensor": {
                name: {"bytes": self.num_bytes[name], "requests": self.num_requests[name]}
                for name in self._variant.sensors
            },
        }


def _uses(
    picks: CellSelection, code: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float64], int]]:
    """Yield each set in use, the (width, height) in metres that it serves in every block, and tiles.

    The number of tiles counts all tiles of these rectangles.
    """
    if len(picks.tiles) == 0:
        return
    x, y = picks.tiles.x, picks.tiles.y
    block_x, block_y = x >> BLOCK_ZOOM_OFFSET, y >> BLOCK_ZOOM_OFFSET
    # Sorting one number per use is many times faster than sorting rows of three.
    sides = np.array([block_x.max(), block_y.max()]) + 1
    key = (code * sides[0] + block_x) * sides[1] + block_y
    uses, use = np.unique(key, return_inverse=True)
    low = np.full((len(uses), 2), np.iinfo(np.int64).max)
    high = np.full((len(uses), 2), -1)
    xy = np.stack([x, y], axis=1)
    np.minimum.at(low, use, xy)
    np.maximum.at(high, use, xy)
    tile_m = ground_gsd_m(picks.tiles.zoom, low[:, 1]) * TILE_PX
    edges = high - low + 1
    edges_m = edges * tile_m[:, None]
    used = uses // sides.prod()
    for number in np.unique(used).tolist():
        in_set = used == number
        yield number, edges_m[in_set], int(edges[in_set].prod(axis=1).sum())
