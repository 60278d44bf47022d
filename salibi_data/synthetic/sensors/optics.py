"""Computes what the optical sensors see: reflectance, crop rows, light and shadow, Sentinel-2 numbers.

Sentinel-2 and NAIP share :func:`reflectances`. NAIP samples it at its own pixel centres, and
Sentinel-2 averages exact blocks of finer pixels, so an edge has the same position in both.
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
"""Offset of Sentinel-2's digital numbers since processing baseline 04.00 (2022-01-25)."""
REFLECTANCE_SCALE: Final = 10000
"""Digital numbers per unit of reflectance."""
TCI_FULL_SCALE: Final = 0.3558
"""Reflectance at which the 8-bit true-colour image saturates."""

_SKYLIGHT: Final = np.float32(0.34)
"""Share of the light that comes from the sky and also reaches shadows."""
_WET_THRESHOLD: Final = np.float32(0.9)
"""Value of the moisture pattern above which wet ground drowns the canopy."""
_MAX_CASTING_HEIGHT_M: Final = 22.0
"""Height up to which objects cast shadows; it bounds the search for them."""


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Position of the sun."""

    azimuth_deg: float
    """Direction, clockwise from north."""
    elevation_deg: float
    """Height above the horizon."""

    @property
    def east(self) -> float:
        """Eastward component of the horizontal unit vector towards the sun."""
        return float(np.sin(np.radians(self.azimuth_deg)))

    @property
    def north(self) -> float:
        """Northward component of the same vector."""
        return float(np.cos(np.radians(self.azimuth_deg)))

    @property
    def climb(self) -> float:
        """Tangent of the elevation."""
        return float(np.tan(np.radians(self.elevation_deg)))


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Optical properties of every surface that do not change with the season."""

    background: Floats
    """Reflectance under the canopy, shape (num_bands, num_features)."""
    canopy_gain: Floats
    """Reflectance of the canopy minus that of the background, shape (num_bands, num_features)."""
    variation: Floats
    """Weight of the fertility pattern in the canopy share, shape (num_features,)."""
    wetness: Floats
    """Loss of canopy share in wet hollows, shape (num_features,)."""
    is_tree: npt.NDArray[np.bool_]
    """Whether the surface is a tree's crown, shape (num_features,)."""


@dataclass(frozen=True, kw_only=True)
class ViewingConditions:
    """Sun and growth at the moment of an acquisition."""

    sun: Sun
    cover: Floats
    """Mean canopy share of every surface, shape (num_features,)."""


def surface_palette(landscape: Landscape) -> Palette:
    """Return the optical properties of all surfaces of a landscape."""
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


def mean_canopy_cover(landscape: Landscape, *, year: int, day_of_year: int) -> Floats:
    """Return the mean canopy share of every surface on a day, shape (num_features,).

    A small random deviation differs by surface and day.
    """
    rng = np.random.default_rng([landscape.seed, 1, year, day_of_year])
    deviation = rng.normal(0.0, 0.025, len(landscape.surfaces))
    cover = np.zeros(len(landscape.surfaces), dtype=np.float32)
    for k, surface in enumerate(landscape.surfaces):
        material = MATERIALS[surface.material]
        if material.cover:
            share = cover_on_day(material, day_of_year) + surface.cover_bias
            share += deviation[k] - 0.25 * (0.6 - surface.vigour)
            cover[k] = np.clip(share, 0.02, 1.0)
    return cover


def canopy_cover(ground: Ground, palette: Palette, conditions: ViewingConditions) -> Floats:
    """Return the canopy share of every pixel, shape (rows, columns), without crop rows.

    It is the surface's mean, varied by the fertility pattern and reduced in wet hollows.
    """
    feature = ground.feature
    cover = conditions.cover[feature]
    vegetated = cover > 0
    cover += palette.variation[feature] * ground.fertility
    cover -= palette.wetness[feature] * np.maximum(ground.moisture - _WET_THRESHOLD, 0)
    return np.asarray(np.clip(cover, 0, 1) * vegetated, dtype=np.float32)


def row_pattern(landscape: Landscape, ground: Ground) -> Floats:
    """Return the change of canopy share by crop rows, shape (rows, columns), mean 0.

    The rows are finer than a pixel of Sentinel-2, so only NAIP needs them.
    """
    spacing, angle = landscape.column("row_spacing_m"), landscape.column("row_angle_rad")
    wavenumber = np.where(spacing > 0, 2 * np.pi / np.maximum(spacing, 0.1), 0)
    wavenumber = wavenumber.astype(np.float32)
    feature, window = ground.feature, ground.window
    x_m, y_m = window.x_m.astype(np.float32)[None], window.y_m.astype(np.float32)[:, None]
    phase = (wavenumber * np.cos(angle))[feature] * x_m
    phase += (wavenumber * np.sin(angle))[feature] * y_m
    phase += landscape.column("contour_rad_per_m")[feature] * ground.terrain_m
    _set_circular_rows(landscape, ground, wavenumber, phase)
    return landscape.column("row_depth")[feature] * np.cos(phase)


def _set_circular_rows(
    landscape: Landscape, ground: Ground, wavenumber: Floats, phase: Floats
) -> None:
    """Replace the phase of fields under pivots, in place: their rows are circles."""
    for feature in np.unique(ground.feature):
        centre = landscape.surfaces[feature].centre_xy
        if centre is None:
            continue
        rows, columns = np.nonzero(ground.feature == feature)
        x_m, y_m = ground.window.x_m[columns], ground.window.y_m[rows]
        distance_m = np.hypot(x_m - centre[0], y_m - centre[1])
        phase[rows, columns] = wavenumber[feature] * distance_m


def illumination(ground: Ground, palette: Palette, sun: Sun) -> Floats:
    """Return a factor on reflectance, shape (rows, columns), for slopes, crowns and shadows.

    It is 1 on flat ground in the sun.
    """
    light = 1 + (ground.slope_east * sun.east + ground.slope_north * sun.north) / np.float32(
        sun.climb
    )
    if not ground.height_m.any():
        return np.asarray(light, dtype=np.float32)
    pixel_m = ground.window.pixel_m
    down, right = np.gradient(ground.height_m, np.float32(pixel_m))
    facing = np.float32(sun.north) * down - np.float32(sun.east) * right
    # `facing` is positive where the crown descends towards the sun, which is its lit side.
    crown = 1 + np.float32(0.22) * np.clip(facing, -2.4, 1.8)
    light = np.where(palette.is_tree[ground.feature], crown * light, light)
    light = np.where(_in_shadow(ground, sun), light * _SKYLIGHT, light)
    return np.asarray(light, dtype=np.float32)


def _in_shadow(ground: Ground, sun: Sun) -> npt.NDArray[np.bool_]:
    """Return the pixels whose ray from the sun is blocked by a higher object, (rows, columns)."""
    height_m, pixel_m = ground.height_m, ground.window.pixel_m
    reach_px = int(min(float(height_m.max()), _MAX_CASTING_HEIGHT_M) / sun.climb / pixel_m)
    shadow_top_m = np.zeros_like(height_m)
    for step in range(1, reach_px + 1):
        right, down = round(step * sun.east), round(-step * sun.north)
        drop_m = np.float32(np.hypot(right, down) * pixel_m * sun.climb)
        pixels, casters = _shifted_slices(height_m, down, right)
        np.maximum(shadow_top_m[pixels], height_m[casters] - drop_m, out=shadow_top_m[pixels])
    # Half a metre of tolerance keeps a crown's dome from shading itself.
    return np.asarray(shadow_top_m > height_m + np.float32(0.5))


def _shifted_slices(
    array: Floats, down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return slices of all pixels with a partner ``down`` and ``right``, and of the partners."""

    def pair(offset: int, size: int) -> tuple[slice, slice]:
        if offset >= 0:
            return slice(0, max(size - offset, 0)), slice(min(offset, size), size)
        return slice(min(-offset, size), size), slice(0, max(size + offset, 0))

    rows, columns = pair(down, array.shape[0]), pair(right, array.shape[1])
    return (rows[0], columns[0]), (rows[1], columns[1])


def reflectances(
    ground: Ground, palette: Palette, views: Sequence[tuple[Floats, Floats]], band: str
) -> Iterator[Floats]:
    """Yield the surface reflectance of one band, shape (rows, columns), for every view.

    Args:
        ground: pixels to compute.
        palette: optical properties of the surfaces.
        views: canopy share and light factor of every view, each of shape (rows, columns).
        band: Sentinel-2 name of the band.
    """
    k = BANDS.index(band)
    gain = palette.canopy_gain[k][ground.feature]
    # Wet soil is darker, also where it shows through the canopy.
    darkening = np.float32(0.08) * (palette.wetness > 0)
    background = palette.background[k][ground.feature]
    background *= 1 - darkening[ground.feature] * ground.moisture
    for cover, light in views:
        reflectance = gain * cover
        reflectance += background
        reflectance *= light
        yield reflectance


def block_mean(values: Floats, size: int) -> Floats:
    """Return the means of ``size`` x ``size`` blocks, shape (rows / size, columns / size).

    Models a sensor that averages over its pixel. ``size`` is at least 2.
    """
    rows, columns = values.shape
    row_groups = values.reshape(rows // size, size, columns)
    # Rows first, then strided columns: one reduction over both axes takes three times as long.
    row_sums = row_groups[:, 0] + row_groups[:, 1]
    for k in range(2, size):
        row_sums += row_groups[:, k]
    block_sums = row_sums[:, 0::size] + row_sums[:, 1::size]
    for k in range(2, size):
        block_sums += row_sums[:, k::size]
    return np.asarray(block_sums / np.float32(size * size), dtype=np.float32)


def digital_numbers(values: Floats, *, has_offset: bool) -> npt.NDArray[np.uint16]:
    """Convert reflectance to Sentinel-2's digital numbers; the result is never 0, its nodata."""
    offset = REFLECTANCE_OFFSET if has_offset else 0
    scaled = np.rint(values * np.float32(REFLECTANCE_SCALE)) + offset
    return np.asarray(np.clip(scaled, 1, 65535), dtype=np.uint16)


def true_colour(bands: Sequence[Floats]) -> npt.NDArray[np.uint8]:
    """Convert red, green and blue reflectance to an 8-bit image, shape (3, rows, columns).

    Its values are 1 to 255, because 0 is nodata.
    """
    scaled = [1 + np.float32(254 / TCI_FULL_SCALE) * band for band in bands]
    return np.clip(np.rint(np.stack(scaled)), 1, 255).astype(np.uint8)
