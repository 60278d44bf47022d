"""Light on the sample landscape: reflectance, rows, shadows, and Sentinel-2 pixels of them.

Sentinel-2 and NAIP both go through :func:`reflectances`. NAIP (:mod:`salibi_data.synthetic.sensors.naip`)
takes it at its own pixel centres; Sentinel-2 averages exact blocks of fine pixels, so that an edge lies in both at the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.ground.materials import (
    BANDS,
    MATERIALS,
    TREES,
    cover_on_day,
    leaf_spectrum,
    soil_spectrum,
)

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Ground, Landscape
    from salibi_data.synthetic.ground.noise import Floats

REFLECTANCE_OFFSET: Final = 1000
"""Added to Sentinel-2 digital numbers from processing baseline 04.00 on."""
REFLECTANCE_SCALE: Final = 10000
TCI_FULL_SCALE: Final = 0.3558
"""Reflectance at which the 8-bit true-colour image saturates."""

_SKYLIGHT: Final = np.float32(0.34)
"""Share of the light that reaches shadow: the sky's."""
_WET_THRESHOLD: Final = np.float32(0.9)
_DEEPEST_SHADE_M: Final = 22.0


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Position of the sun, degrees; azimuth clockwise from north."""

    azimuth_deg: float
    elevation_deg: float

    @property
    def east(self) -> float:
        """Eastward part of the horizontal unit vector towards the sun."""
        return float(np.sin(np.radians(self.azimuth_deg)))

    @property
    def north(self) -> float:
        """Northward part of the same vector."""
        return float(np.cos(np.radians(self.azimuth_deg)))

    @property
    def climb(self) -> float:
        """Tangent of the elevation."""
        return float(np.tan(np.radians(self.elevation_deg)))


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours of every surface, indexed by feature id: what no season changes."""

    background: Floats
    """(num_bands, num_features) reflectance under the canopy."""
    canopy_gain: Floats
    """(num_bands, num_features) reflectance of the canopy minus that of the background."""
    variation: Floats
    wetness: Floats
    is_tree: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Day:
    """One moment of daylight: where the sun stands, and how far everything has grown."""

    sun: Sun
    cover: Floats
    """(num_features,) mean share of canopy of every surface."""


def mix_palette(landscape: Landscape) -> Palette:
    """Spectra of all surfaces of a landscape."""
    num = len(landscape.surfaces)
    background = np.empty((len(BANDS), num), dtype=np.float32)
    canopy = np.empty_like(background)
    for k, surface in enumerate(landscape.surfaces):
        material, brightness = MATERIALS[surface.material], np.float32(surface.brightness)
        under = material.background
        if under is None:
            under = soil_spectrum(tone=surface.tone, moisture=surface.moisture)
        background[:, k] = under * brightness
        canopy[:, k] = leaf_spectrum(material, surface.vigour) * brightness
    return Palette(
        background=background,
        canopy_gain=canopy - background,
        variation=landscape.column("variation"),
        wetness=landscape.column("wetness"),
        is_tree=np.asarray([surface.material in TREES for surface in landscape.surfaces]),
    )


def grow(landscape: Landscape, *, year: int, day_of_year: int) -> Floats:
    """Mean canopy share of every surface on a day; each has a little luck of its own."""
    rng = np.random.default_rng([landscape.seed, 1, year, day_of_year])
    luck = rng.normal(0.0, 0.025, len(landscape.surfaces))
    cover = np.zeros(len(landscape.surfaces), dtype=np.float32)
    for k, surface in enumerate(landscape.surfaces):
        material = MATERIALS[surface.material]
        if material.cover:
            grown = cover_on_day(material, day_of_year) + surface.cover_bias
            grown += luck[k] - 0.25 * (0.6 - surface.vigour)
            cover[k] = np.clip(grown, 0.02, 1.0)
    return cover


def canopy_cover(ground: Ground, palette: Palette, day: Day) -> Floats:
    """Share of canopy per pixel, before rows: the field's mean, its pattern, its drowned hollows."""
    feature = ground.feature
    cover = day.cover[feature]
    vegetated = cover > 0
    cover += palette.variation[feature] * ground.fertility
    cover -= palette.wetness[feature] * np.maximum(ground.moisture - _WET_THRESHOLD, 0)
    return np.asarray(np.clip(cover, 0, 1) * vegetated, dtype=np.float32)


def row_pattern(landscape: Landscape, ground: Ground) -> Floats:
    """Change of canopy share by the rows, mean zero. Finer than Sentinel-2 can see."""
    spacing, angle = landscape.column("row_spacing_m"), landscape.column("row_angle_rad")
    wavenumber = np.where(spacing > 0, 2 * np.pi / np.maximum(spacing, 0.1), 0)
    wavenumber = wavenumber.astype(np.float32)
    feature, window = ground.feature, ground.window
    x_m, y_m = window.x_m.astype(np.float32)[None], window.y_m.astype(np.float32)[:, None]
    phase = (wavenumber * np.cos(angle))[feature] * x_m
    phase += (wavenumber * np.sin(angle))[feature] * y_m
    phase += landscape.column("contour_rad_per_m")[feature] * ground.terrain_m
    _turn_rows(landscape, ground, wavenumber, phase)
    return landscape.column("row_depth")[feature] * np.cos(phase)


def _turn_rows(landscape: Landscape, ground: Ground, wavenumber: Floats, phase: Floats) -> None:
    """Replace the phase under pivots: their rows are circles."""
    for feature in np.unique(ground.feature):
        centre = landscape.surfaces[feature].centre_xy
        if centre is None:
            continue
        rows, columns = np.nonzero(ground.feature == feature)
        x_m, y_m = ground.window.x_m[columns], ground.window.y_m[rows]
        distance_m = np.hypot(x_m - centre[0], y_m - centre[1])
        phase[rows, columns] = wavenumber[feature] * distance_m


def illumination(ground: Ground, palette: Palette, sun: Sun) -> Floats:
    """Factor on reflectance: slopes towards the sun, lit and dark sides of crowns, shadows."""
    light = 1 + (ground.slope_east * sun.east + ground.slope_north * sun.north) / np.float32(
        sun.climb
    )
    if not ground.height_m.any():
        return np.asarray(light, dtype=np.float32)
    pixel_m = ground.window.pixel_m
    down, right = np.gradient(ground.height_m, np.float32(pixel_m))
    facing = np.float32(sun.north) * down - np.float32(sun.east) * right
    # `facing` > 0 where the crown falls away towards the sun, that is, on its lit side.
    crown = 1 + np.float32(0.22) * np.clip(facing, -2.4, 1.8)
    light = np.where(palette.is_tree[ground.feature], crown * light, light)
    light = np.where(_in_shadow(ground, sun), light * _SKYLIGHT, light)
    return np.asarray(light, dtype=np.float32)


def _in_shadow(ground: Ground, sun: Sun) -> npt.NDArray[np.bool_]:
    """Where something towards the sun stands higher than the ray that would light the pixel."""
    height_m, pixel_m = ground.height_m, ground.window.pixel_m
    reach_px = int(min(float(height_m.max()), _DEEPEST_SHADE_M) / sun.climb / pixel_m)
    needed = np.zeros_like(height_m)
    for step in range(1, reach_px + 1):
        right, down = round(step * sun.east), round(-step * sun.north)
        drop = np.float32(np.hypot(right, down) * pixel_m * sun.climb)
        seen = _shifted(height_m, down, right)
        np.maximum(needed[seen[0]], height_m[seen[1]] - drop, out=needed[seen[0]])
    # Half a metre of tolerance keeps a crown's dome from shading itself.
    return np.asarray(needed > height_m + np.float32(0.5))


def _shifted(
    array: Floats, down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the pixels, and of those ``down`` and ``right`` of them."""

    def pair(offset: int, size: int) -> tuple[slice, slice]:
        if offset >= 0:
            return slice(0, max(size - offset, 0)), slice(min(offset, size), size)
        return slice(min(-offset, size), size), slice(0, max(size + offset, 0))

    rows, columns = pair(down, array.shape[0]), pair(right, array.shape[1])
    return (rows[0], columns[0]), (rows[1], columns[1])


def reflectances(
    ground: Ground, palette: Palette, views: Sequence[tuple[Floats, Floats]], band: str
) -> Iterator[Floats]:
    """Surface reflectance of one band, (rows, columns), for each (canopy cover, light)."""
    k = BANDS.index(band)
    gain = palette.canopy_gain[k][ground.feature]
    # Wet soil is darker, and so is whatever of it shows through the canopy.
    dampness = np.float32(0.08) * (palette.wetness > 0)
    under = palette.background[k][ground.feature]
    under *= 1 - dampness[ground.feature] * ground.moisture
    for cover, light in views:
        value = gain * cover
        value += under
        value *= light
        yield value


def block_mean(values: Floats, size: int) -> Floats:
    """Means of exact ``size`` x ``size`` blocks: the sensor's area average, without any shift."""
    rows, columns = values.shape
    tall = values.reshape(rows // size, size, columns)
    # Whole rows first, then strided columns: one reduction over both axes takes thrice as long.
    sums = tall[:, 0] + tall[:, 1]
    for k in range(2, size):
        sums += tall[:, k]
    total = sums[:, 0::size] + sums[:, 1::size]
    for k in range(2, size):
        total += sums[:, k::size]
    return np.asarray(total / np.float32(size * size), dtype=np.float32)


def digital_numbers(values: Floats, *, has_offset: bool) -> npt.NDArray[np.uint16]:
    """Sentinel-2 digital numbers of a reflectance; never 0, which is nodata."""
    offset = REFLECTANCE_OFFSET if has_offset else 0
    scaled = np.rint(values * np.float32(REFLECTANCE_SCALE)) + offset
    return np.asarray(np.clip(scaled, 1, 65535), dtype=np.uint16)


def true_colour(bands: Sequence[Floats]) -> npt.NDArray[np.uint8]:
    """8-bit image of red, green and blue reflectance, (3, rows, columns); 0 is nodata."""
    scaled = [1 + np.float32(254 / TCI_FULL_SCALE) * band for band in bands]
    return np.clip(np.rint(np.stack(scaled)), 1, 255).astype(np.uint8)
