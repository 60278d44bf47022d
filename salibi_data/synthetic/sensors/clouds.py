"""Draws clouds over the landscape, with their shadows, and applies them to reflectance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.ground.noise import Floats, SmoothField, fractal_field
from salibi_data.synthetic.sensors.optics import Sun, block_mean

_OCTAVES: Final[Mapping[str, Mapping[float, float]]] = MappingProxyType(
    {
        "cumulus": MappingProxyType({22.0: 0.12, 60.0: 0.35, 130.0: 1.0, 420.0: 0.5}),
        "deck": MappingProxyType({30.0: 0.08, 90.0: 0.25, 260.0: 0.6, 800.0: 1.0}),
    }
)
_BASE_M: Final = 1050.0
"""Height of the cloud base above the ground."""
_EDGE: Final = np.float32(0.34)
"""Width of a cloud's soft edge, in standard deviations of the field."""

_SWIR_BANDS: Final = ("B11", "B12")
_VEGETATION_NDVI: Final = 0.4
_WATER_SHARE: Final = 0.5
_SHADOW: Final = 0.3
_CIRRUS: Final = 0.25
_MEDIUM_OPACITY: Final = 0.12
_HIGH_OPACITY: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Sky:
    """Clouds of one moment over a grid of pixels. All arrays have shape (rows, columns)."""

    opacity: Floats
    """Opacity of the opaque clouds, 0..1."""
    cirrus: Floats
    """Strength of the cirrus, 0..1."""
    shadow: Floats
    """Strength of the clouds' shadow, 0..1."""
    texture: Floats
    """Relative brightness of the clouds, about 1."""


def draw_sky(
    rng: np.random.Generator,
    *,
    extent_m: tuple[float, float],
    cover: float,
    kind: str,
    cirrus_cover: float,
    sun: Sun,
    x_m: npt.NDArray[np.float64],
    y_m: npt.NDArray[np.float64],
) -> Sky:
    """Draw the clouds over a landscape and sample them on a grid.

    Args:
        rng: source of the randomness.
        extent_m: width and height of the landscape. The clouds do not depend on the grid.
        cover: share of the landscape under opaque cloud, 0..1.
        kind: ``cumulus`` (small and many) or ``deck`` (large and few).
        cirrus_cover: share of the landscape under thin cirrus, 0..1.
        sun: position of the sun; shadows point away from it.
        x_m: local easting of the pixel centres, shape (columns,).
        y_m: local northing of the pixel centres, shape (rows,).
    """
    reach_m = 1.2 * _BASE_M / sun.climb
    size = {"width_m": extent_m[0] + 2 * reach_m, "height_m": extent_m[1] + 2 * reach_m}
    thickness = fractal_field(rng, octaves=_OCTAVES[kind], **size)
    cirrus = fractal_field(rng, octaves={150.0: 0.3, 700.0: 1.0}, **size)
    x_m, y_m = x_m + reach_m, y_m + reach_m
    overhead = _excess(thickness, cover, x_m, y_m)
    offset_m = _BASE_M / sun.climb
    sunwards = _excess(thickness, cover, x_m + offset_m * sun.east, y_m + offset_m * sun.north)
    opacity = _smooth_step(overhead / _EDGE)
    return Sky(
        opacity=opacity,
        cirrus=_smooth_step(_excess(cirrus, cirrus_cover, x_m, y_m) / 1.5),
        shadow=_smooth_step(sunwards / _EDGE) * (1 - opacity),
        texture=0.55 + 0.5 * _smooth_step(overhead / 1.4),
    )


def _excess(
    field: SmoothField,
    share: float,
    x_m: npt.NDArray[np.float64],
    y_m: npt.NDArray[np.float64],
) -> Floats:
    """Return the height of the field above the level that ``share`` of it exceeds."""
    level = np.quantile(field.coefficients, 1 - share) if share else np.inf
    return np.asarray(field.sample(x_m, y_m) - np.float32(level), dtype=np.float32)


def _smooth_step(values: Floats) -> Floats:
    """Map values below 0 to 0, above 1 to 1, and those between smoothly."""
    t = np.clip(values, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def reflectance_under_sky(surface: Floats, sky: Sky, band: str) -> Floats:
    """Return the reflectance of one band with shadow, then cirrus, then opaque cloud applied."""
    is_swir = band in _SWIR_BANDS
    lit = surface * (1 - np.float32(0.55) * sky.shadow)
    thin = np.float32(0.16 if is_swir else 0.34) * sky.cirrus
    hazy = lit * (1 - thin) + thin * np.float32(0.55)
    white = np.float32(0.48 if is_swir else 0.72) * sky.texture
    return np.asarray(hazy + sky.opacity * (white - hazy), dtype=np.float32)


def classify_scene(bands: Mapping[str, Floats], sky: Sky, water: Floats) -> npt.NDArray[np.uint8]:
    """Classify the scene at 20 m with the SCL codes of Sentinel-2 Level-2A (Sen2Cor).

    The codes are 3 cloud shadow, 4 vegetation, 5 not vegetated, 6 water, 8 and 9 cloud of medium
    and high probability, 10 thin cirrus.

    Args:
        bands: 10 m reflectance by band; B04 and B08 are used.
        sky: clouds on the same grid.
        water: share of open water on the same grid.

    Returns:
        Codes, shape (rows / 2, columns / 2).
    """
    opacity, cirrus, shadow, water_share, red, nir = (
        block_mean(image, 2)
        for image in (sky.opacity, sky.cirrus, sky.shadow, water, bands["B04"], bands["B08"])
    )
    ndvi = (nir - red) / (nir + red)
    scl = np.where(ndvi > _VEGETATION_NDVI, 4, 5)
    scl[water_share > _WATER_SHARE] = 6
    scl[shadow > _SHADOW] = 3
    scl[cirrus > _CIRRUS] = 10
    scl[opacity > _MEDIUM_OPACITY] = 8
    scl[opacity > _HIGH_OPACITY] = 9
    return scl.astype(np.uint8)
