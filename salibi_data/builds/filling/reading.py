"""Reads the scenes of a block: each once for all its tiles, warped in one pass per layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

    def mosaic(self, sensor: str, scenes: Iterable[Pixels]) -> dict[str, NDArray[np.float32]]:
        """Fill the missing pixels of the first scene from the following ones, layer by layer."""
        stacked = list(scenes)
        return {
            layer.name: radiometry.mosaic(pixels[layer.name] for pixels in stacked)
            if stacked
            else np.full((len(layer.bands), layer.tile_px, layer.tile_px), np.nan, np.float32)
            for layer in self.layers(sensor)
        }

    def valid_fraction(self, sensor: str, images: Pixels) -> float:
        """Share of pixels with data, the least over a sensor's modalities, 0..1."""
        names = [recipe.name for recipe in self.variant.modalities if recipe.sensor == sensor]
        return min(radiometry.valid_fraction(images[name]) for name in names)

    def cloud_fraction(self, sensor: str, images: Pixels) -> float | None:
        """Cloudy share of a tile, 0..1; None for a sensor without a cloud mask."""
        mask = self.catalog.sensors[sensor].clouds
        if mask is None:
            return None
        return radiometry.cloud_fraction(images[cloud_layer_name(sensor)], mask.cloudy)

    def is_good(self, sensor: str, images: Pixels) -> bool:
        """Whether a tile has the valid pixels that the variant asks for."""
        return self.valid_fraction(sensor, images) >= self.variant.min_valid_fraction

    def is_cloudy(self, sensor: str, images: Pixels) -> bool:
        """Whether a tile is cloudier than the variant allows."""
        cloudy = self.cloud_fraction(sensor, images)
        return cloudy is not None and cloudy > self.variant.max_cloud_fraction
