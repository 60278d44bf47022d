"""Draws a store's tiles as WebP images: one sample, or up to 64 samples side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.schema import Modality

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from salibi_data.viewer.samples import ViewedSamples

ToRgb = Callable[[np.ndarray, Modality], np.ndarray]
"""Function that renders a stored image (bands, rows, columns) as (rows, columns, 3) uint8."""

MAX_LEVELS: Final = 3
"""Number of zooms below the base zoom that have tiles; the lowest shows 4^3 samples per tile."""

LOSSLESS: Final = 100
"""Quality at which an image keeps every pixel."""

_CACHE_SIZE: Final = 256
"""Number of encoded tiles kept in memory, at most half a megabyte each."""


class TileRenderer:
    """Draws tiles on demand, transparent where nothing was observed.

    Args:
        samples: samples to draw.
        to_rgb: function that renders a stored image in colours.
        quality: WebP quality, 1 to 100; 100 is lossless.
    """

    def __init__(self, samples: ViewedSamples, to_rgb: ToRgb, *, quality: int = LOSSLESS) -> None:
        self._samples = samples
        self._to_rgb = to_rgb
        self._quality = quality
        self.tile = lru_cache(maxsize=_CACHE_SIZE)(self._draw_tile)
        """Cached function of (modality, zoom, x, y): the WebP file, or None without a sample."""

    @property
    def lowest_zoom(self) -> int:
        """Lowest zoom that has tiles."""
        return max(0, self._samples.attributes.base_zoom - MAX_LEVELS)

    def _draw_tile(self, modality_name: str, zoom: int, x: int, y: int) -> bytes | None:
        from PIL import Image

        modality = self._samples.attributes.modalities.get(modality_name)
        base_zoom = self._samples.attributes.base_zoom
        if modality is None or not self.lowest_zoom <= zoom <= base_zoom:
            return None
        positions = self._samples.positions_in_tile(zoom, x, y)
        if len(positions) == 0:
            return None
        factor = 1 << (base_zoom - zoom)
        edge = modality.size_px // factor
        canvas = Image.new("RGBA", (modality.size_px, modality.size_px))
        stored_images = self._samples.images(modality_name, positions)
        for position, stored in zip(positions.tolist(), stored_images, strict=True):
            column, row = self._samples.x[position] % factor, self._samples.y[position] % factor
            image = _shrink(self._render_rgba(stored, modality), factor)
            canvas.paste(image, (int(column) * edge, int(row) * edge))
        return self._encode(canvas)

    def _render_rgba(self, stored: NDArray[np.uint8], modality: Modality) -> Image.Image:
        from PIL import Image

        valid = (stored != modality.nodata).any(axis=0)
        alpha = np.where(valid, 255, 0).astype(np.uint8)
        return Image.fromarray(np.dstack([self._to_rgb(stored, modality), alpha]))

    def _encode(self, image: Image.Image) -> bytes:
        file = BytesIO()
        if self._quality == LOSSLESS:
            # For lossless WebP, `quality` is the compression effort; more of it is much slower.
            image.save(file, "WEBP", lossless=True, quality=0, method=0)
        else:
            image.save(file, "WEBP", quality=self._quality, method=2)
        return file.getvalue()


def _shrink(image: Image.Image, factor: int) -> Image.Image:
    """Average the observed pixels of blocks of ``factor`` x ``factor``."""
    if factor == 1:
        return image
    # Premultiplied alpha: otherwise transparent black pixels would darken the edges.
    return image.convert("RGBa").reduce(factor).convert("RGBA")
