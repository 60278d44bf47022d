"""NAIP's view of the sample landscape: rows, crowns, shadows, and the camera's tone and grain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.ground.noise import Floats, periodic_texture, tiled
from salibi_data.synthetic.sensors.optics import (
    Day,
    Palette,
    canopy_cover,
    illumination,
    reflectances,
    row_pattern,
)

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Ground, Landscape

NAIP_BANDS: Final = ("B04", "B03", "B02", "B08")
"""Red, green, blue, near infrared."""
NAIP_HALO_PX: Final = 28
"""Pixels around a NAIP block that may cast a shadow into it (16.8 m)."""

_TEXTURE_PX: Final = 1024


@dataclass(frozen=True, kw_only=True)
class NaipCamera:
    """Tone curve and grain of the aerial camera."""

    grain: Floats
    mottle: Floats
    tone: npt.NDArray[np.uint8]
    """(2, levels): curve of the visible bands and of the near infrared."""

    @classmethod
    def of_seed(cls, seed: int) -> NaipCamera:
        """The camera of a landscape's seed."""
        rng = np.random.default_rng([seed, 2])
        level = np.arange(4096) / 4096
        visible = 255 * np.clip((level + 0.006) / 0.36, 0, 1) ** 0.58
        infrared = 255 * np.clip(level / 0.70, 0, 1) ** 0.72
        return cls(
            grain=periodic_texture(rng, size_px=_TEXTURE_PX, slope=0.6),
            mottle=periodic_texture(rng, size_px=_TEXTURE_PX - 27, slope=2.0),
            tone=np.stack([visible, infrared]).astype(np.uint8),
        )

    def texture(self, *, row: int, column: int, shape: tuple[int, int]) -> Floats:
        """Fine pattern of the ground on NAIP's lattice: clods, leaves, grass. Mean one."""
        grain = tiled(self.grain, row=row, column=column, shape=shape)
        mottle = tiled(self.mottle, row=row, column=column, shape=shape)
        return 1 + np.float32(0.035) * grain + np.float32(0.06) * mottle

    def develop(self, values: Floats, *, band: str) -> npt.NDArray[np.uint8]:
        """Digital numbers of a reflectance image."""
        curve = self.tone[1 if band == "B08" else 0]
        level = np.clip(values * np.float32(4096), 0, 4095).astype(np.uint16)
        return np.asarray(curve[level])


def soften(values: Floats) -> Floats:
    """Blur of the optics: a 3 x 3 kernel; the outermost pixels are lost."""
    side, middle = np.float32(0.16), np.float32(0.68)
    across = middle * values[:, 1:-1] + side * (values[:, :-2] + values[:, 2:])
    return np.asarray(middle * across[1:-1] + side * (across[:-2] + across[2:]))


def photograph(
    landscape: Landscape,
    ground: Ground,
    camera: NaipCamera,
    palette: Palette,
    days: Sequence[Day],
    lattice: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """NAIP pixels (days, 4, rows, columns) of a window without its halo.

    Args:
        landscape: what is photographed.
        ground: the window with :data:`NAIP_HALO_PX` more on every side.
        camera: tone and grain.
        palette: colours of the surfaces.
        days: one per photograph.
        lattice: row and column of the inner window's corner, counted from a fixed origin.
    """
    rows = row_pattern(landscape, ground)
    texture = camera.texture(
        row=lattice[0] - NAIP_HALO_PX, column=lattice[1] - NAIP_HALO_PX, shape=rows.shape
    )
    inner = slice(NAIP_HALO_PX - 1, 1 - NAIP_HALO_PX)
    views = []
    for day in days:
        cover = canopy_cover(ground, palette, day)
        cover = np.clip(cover + rows * (cover > 0), 0, 1)
        views.append((cover, illumination(ground, palette, day.sun) * texture))
    images = [
        [camera.develop(soften(value[inner, inner]), band=band) for value in values]
        for band in NAIP_BANDS
        for values in [reflectances(ground, palette, views, band)]
    ]
    return np.stack([np.stack(image) for image in images], axis=1)
