"""Reads the scenes of a block: each once for all its tiles, warped in one pass per layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.builds.layers import Layer, cloud_layer_name, layers_of, sources_of, warp_layer
from salibi_data.pixels import radiometry
from salibi_data.store.errors import ReadError
from salibi_data.store.tiles import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.catalog.providers import Catalog
    from salibi_data.catalog.scenes import Scene
    from salibi_data.catalog.variants import Variant

Pixels = Mapping[str, "NDArray[np.float32]"]
"""Images of one tile by layer, (bands, rows, columns) in physical units, NaN where unobserved."""


_ANY_PIXEL: Final = 1e-9
"""Valid share below that of a single pixel of any tile."""


def kept(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy of an image that does not hold on to its block's pixels; of one without pixels, a number."""
    if np.isfinite(image).any():
        return image.copy()
    return np.broadcast_to(np.float32(np.nan), image.shape)


@dataclass(frozen=True, kw_only=True)
class SceneReader:
    """Reader of a block's scenes; notes what is wrong with them."""

    variant: Variant
    catalog: Catalog
    warnings: set[str] = field(default_factory=set)
    """Messages about sources that look wrong."""
    unusable: dict[tuple[str, str], ReadError] = field(default_factory=dict)
    """Errors of scenes that have no usable pixels, by sensor and scene id."""

    def layers(self, sensor: str) -> list[Layer]:
        """Layers that are made of a sensor's scenes."""
        return layers_of(self.variant, self.catalog, sensor)

    def read(self, scene: Scene, tiles: Sequence[TileXYZ]) -> dict[TileXYZ, Pixels]:
        """Read a scene for some tiles.

        Returns:
            Views of the pixels of each tile; empty for a scene without usable pixels, whose error is
            then in :attr:`unusable`.

        Raises:
            ReadError: a file cannot be read, which says nothing about its pixels.
        """
        layers = self.layers(scene.sensor)
        grids = {layer.name: PixelGrid.around(tiles, tile_px=layer.tile_px) for layer in layers}
        try:
            sources = sources_of(
                self.catalog, scene, [(layer, grids[layer.name]) for layer in layers]
            )
            self.warnings.update(*(source.warnings for source in sources.values() if source))
            warped = {
                layer.name: warp_layer(layer, grids[layer.name], tiles, sources) for layer in layers
            }
        except ReadError as error:
            # What a host answers may change; what a file holds does not.
            if error.kind != "unusable" or error.from_host:
                raise
            self.unusable[scene.sensor, scene.id] = error
            return {}
        return {
            tile: {
                name: pixels[(slice(None), *grids[name].window(tile))]
                for name, pixels in warped.items()
            }
            for tile in tiles
        }

    def mosaic(self, sensor: str, scenes: Iterable[Pixels]) -> TileImages:
        """Fill the missing pixels of the first scene from the following ones, layer by layer."""
        stacked = list(scenes)
        images = {
            layer.name: radiometry.mosaic(pixels[layer.name] for pixels in stacked)
            if stacked
            else np.full((len(layer.bands), layer.tile_px, layer.tile_px), np.nan, np.float32)
            for layer in self.layers(sensor)
        }
        return TileImages(reader=self, sensor=sensor, images=images)


@dataclass(frozen=True, kw_only=True)
class TileImages:
    """Images of one sensor on one tile; shares are computed when first asked for."""

    reader: SceneReader
    sensor: str
    images: Pixels

    @cached_property
    def valid_fraction(self) -> float:
        """Share of pixels with data, the least over the sensor's modalities, 0..1."""
        recipes = self.reader.variant.modalities
        names = [recipe.name for recipe in recipes if recipe.sensor == self.sensor]
        return min(radiometry.valid_fraction(self.images[name]) for name in names)

    @cached_property
    def cloud_fraction(self) -> float | None:
        """Cloudy share of the tile, 0..1; None for a sensor without a cloud mask."""
        mask = self.reader.catalog.sensors[self.sensor].clouds
        if mask is None:
            return None
        classes = self.images[cloud_layer_name(self.sensor)]
        return radiometry.cloud_fraction(classes, mask.cloudy)

    @property
    def is_whole(self) -> bool:
        """Whether no pixel is missing."""
        return self.valid_fraction == 1

    @property
    def is_good(self) -> bool:
        """Whether the tile has the valid pixels that the variant asks for, and any at all."""
        return self.valid_fraction >= max(self.reader.variant.min_valid_fraction, _ANY_PIXEL)

    @property
    def is_cloudy(self) -> bool:
        """Whether the tile is cloudier than the variant allows."""
        cloudy = self.cloud_fraction
        return cloudy is not None and cloudy > self.reader.variant.max_cloud_fraction
