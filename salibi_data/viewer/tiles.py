"""Tiles of a store as pictures: a sample's image, or up to 64 samples' images side by side."""

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

    from salibi_data.viewer.samples import Samples

AsColours = Callable[[np.ndarray, Modality], np.ndarray]
"""Turns a stored image (bands, rows, columns) into (rows, columns, 3) uint8 for the eye."""

MAX_LEVELS: Final = 3
"""Zooms below the base zoom that still have pictures: 4^3 samples are read for one tile."""

EXACT: Final = 100
"""Quality at which a picture keeps every pixel."""

_KEPT: Final = 256
"""Pictures kept in memory; at most half a megabyte each."""


class Pictures:
    """Draws tiles on demand, as WebP, transparent where nothing was observed."""

    def __init__(self, samples: Samples, as_colours: AsColours, *, quality: int = EXACT) -> None:
        """Draw ``samples`` in the colours of ``as_colours``; ``quality`` is 1 to 100, 100 exact."""
        self._samples = samples
        self._as_colours = as_colours
        self._quality = quality
        self.tile = lru_cache(maxsize=_KEPT)(self._draw)
        """The picture of one modality on tile (zoom, x, y), or ``None`` where no sample is."""

    @property
    def lowest_zoom(self) -> int:
        """The lowest zoom that has pictures."""
        return max(0, self._samples.attributes.base_zoom - MAX_LEVELS)

    def _draw(self, modality: str, zoom: int, x: int, y: int) -> bytes | None:
        from PIL import Image

        described = self._samples.attributes.modalities.get(modality)
        base_zoom = self._samples.attributes.base_zoom
        if described is None or not self.lowest_zoom <= zoom <= base_zoom:
            return None
        positions = self._samples.within(zoom, x, y)
        if len(positions) == 0:
            return None
        factor = 1 << (base_zoom - zoom)
        edge = described.size_px // factor
        canvas = Image.new("RGBA", (described.size_px, described.size_px))
        images = self._samples.images(modality, positions)
        for position, stored in zip(positions.tolist(), images, strict=True):
            column, row = self._samples.x[position] % factor, self._samples.y[position] % factor
            picture = self._coloured(stored, described)
            canvas.paste(_smaller(picture, factor), (int(column) * edge, int(row) * edge))
        return self._encoded(canvas)

    def _coloured(self, stored: NDArray[np.uint8], modality: Modality) -> Image.Image:
        from PIL import Image

        seen = (stored != modality.nodata).any(axis=0)
        alpha = np.where(seen, 255, 0).astype(np.uint8)
        return Image.fromarray(np.dstack([self._as_colours(stored, modality), alpha]))

    def _encoded(self, picture: Image.Image) -> bytes:
        file = BytesIO()
        if self._quality == EXACT:
            picture.save(file, "WEBP", lossless=True, quality=0, method=0)
        else:
            picture.save(file, "WEBP", quality=self._quality, method=2)
        return file.getvalue()


def _smaller(picture: Image.Image, factor: int) -> Image.Image:
    """Means over ``factor`` x ``factor`` pixels, of the observed ones."""
    if factor == 1:
        return picture
    # Premultiplied, or what was not observed would darken the edge of what was.
    return picture.convert("RGBa").reduce(factor).convert("RGBA")
