"""Photographs the landscape for NAIP: crop rows, crowns, shadows, and the camera's tone and grain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.ground.noise import Floats, periodic_texture, tile_texture
from salibi_data.synthetic.sensors.optics import (
    Palette,
    ViewingConditions,
    canopy_cover,
    illumination,
    reflectances,
    row_pattern,
)

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Ground, Landscape

NAIP_BANDS: Final = ("B04", "B03", "B02", "B08")
"""Sentinel-2 names of NAIP's bands: red, green, blue, near infrared."""
NAIP_HALO_PX: Final = 28
"""Width of the margin (16.8 m) from which crowns and roofs can cast a shadow into a block."""

_TEXTURE_PX: Final = 1024


@dataclass(frozen=True, kw_only=True)
class NaipCamera:
    """Tone curve and grain of the aerial camera."""

    grain: Floats
    """Fine periodic texture, mean 0, standard deviation 1."""
    mottle: Floats
    """Coarse periodic texture, mean 0, standard deviation 1."""
    tone: npt.NDArray[np.uint8]
    """Tone curves, shape (2, levels): of the visible bands and of the near infrared."""

    @classmethod
    def from_seed(cls, seed: int) -> NaipCamera:
        """Return the camera of a landscape's seed."""
        rng = np.random.default_rng([seed, 2])
        reflectance = np.arange(4096) / 4096
        visible = 255 * np.clip((reflectance + 0.006) / 0.36, 0, 1) ** 0.58
        infrared = 255 * np.clip(reflectance / 0.70, 0, 1) ** 0.72
        return cls(
            grain=periodic_texture(rng, size_px=_TEXTURE_PX, slope=0.6),
            # Another size, so that the two textures do not repeat together.
            mottle=periodic_texture(rng, size_px=_TEXTURE_PX - 27, slope=2.0),
            tone=np.stack([visible, infrared]).astype(np.uint8),
        )

    def texture(self, *, row: int, column: int, shape: tuple[int, int]) -> Floats:
        """Return a factor on reflectance, mean 1, for the fine pattern of clods, leaves and grass.

        The window's top left pixel is (row, column), counted from the landscape's corner.
        """
        grain = tile_texture(self.grain, row=row, column=column, shape=shape)
        mottle = tile_texture(self.mottle, row=row, column=column, shape=shape)
        return 1 + np.float32(0.035) * grain + np.float32(0.06) * mottle

    def digital_numbers(self, values: Floats, *, band: str) -> npt.NDArray[np.uint8]:
        """Convert a reflectance image to the 8-bit numbers of one band."""
        curve = self.tone[1 if band == "B08" else 0]
        level = np.clip(values * np.float32(4096), 0, 4095).astype(np.uint16)
        return np.asarray(curve[level])


def blur(values: Floats) -> Floats:
    """Blur an image with the lens's 3 x 3 kernel; the result lacks the outermost pixels."""
    side, middle = np.float32(0.16), np.float32(0.68)
    across = middle * values[:, 1:-1] + side * (values[:, :-2] + values[:, 2:])
    return np.asarray(middle * across[1:-1] + side * (across[:-2] + across[2:]))


def photograph(
    landscape: Landscape,
    ground: Ground,
    camera: NaipCamera,
    palette: Palette,
    conditions: Sequence[ViewingConditions],
    corner_px: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """Photograph a window of the landscape, once under each of the conditions.

    Args:
        landscape: ground to photograph.
        ground: the window with :data:`NAIP_HALO_PX` more pixels on every side.
        camera: tone and grain.
        palette: colours of the surfaces.
        conditions: sun and canopy cover of each photograph.
        corner_px: row and column of the inner window's top left pixel, counted from the
            landscape's north-western corner.

    Returns:
        Red, green, blue and near infrared, shape (photographs, 4, rows, columns), without halo.
    """
    rows = row_pattern(landscape, ground)
    texture = camera.texture(
        row=corner_px[0] - NAIP_HALO_PX, column=corner_px[1] - NAIP_HALO_PX, shape=rows.shape
    )
    # One more pixel than the window on every side: the blur takes it away.
    inner = slice(NAIP_HALO_PX - 1, 1 - NAIP_HALO_PX)
    views = []
    for each in conditions:
        cover = canopy_cover(ground, palette, each)
        cover = np.clip(cover + rows * (cover > 0), 0, 1)
        views.append((cover, illumination(ground, palette, each.sun) * texture))
    images = [
        [
            camera.digital_numbers(blur(image[inner, inner]), band=band)
            for image in reflectances(ground, palette, views, band)
        ]
        for band in NAIP_BANDS
    ]
    return np.stack([np.stack(image) for image in images], axis=1)
