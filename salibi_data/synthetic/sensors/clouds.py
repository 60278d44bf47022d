"""Clouds over the sample landscape, and the shadows they throw."""

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
"""Width of a cloud's soft edge, in deviations of the field."""

_SWIR_BANDS: Final = ("B11", "B12")
_VEGETATED_NDVI: Final = 0.4
_HALF: Final = 0.5
_SHADED: Final = 0.3
_VEILED: Final = 0.25
_DOUBTFUL: Final = 0.12


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """Sky of one moment over a grid of pixels. All arrays are (rows, columns), 0..1."""

    opacity: Floats
    cirrus: Floats
    shadow: Floats
    texture: Floats
    """Brightness within the cloud, about one."""


def draw_clouds(
    rng: np.random.Generator,
    *,
    extent_m: tuple[float, float],
    cover: float,
    kind: str,
    cirrus_cover: float,
    sun: Sun,
    x_m: npt.NDArray[np.float64],
    y_m: npt.NDArray[np.float64],
) -> Clouds:
    """Clouds that hide the share ``cover`` of the whole landscape, seen on a grid of it.

    Args:
        rng: source of the randomness.
        extent_m: width and height of the landscape: the clouds do not depend on the grid.
        cover: share of the landscape under opaque cloud, 0..1.
        kind: ``cumulus`` (small and many) or ``deck`` (large and few).
        cirrus_cover: share under thin cirrus, 0..1.
        sun: where shadows point away from.
        x_m: local easting of the pixel centres.
        y_m: local northing of the pixel centres.
    """
    reach_m = 1.2 * _BASE_M / sun.climb
    size = {"width_m": extent_m[0] + 2 * reach_m, "height_m": extent_m[1] + 2 * reach_m}
    thickness = fractal_field(rng, octaves=_OCTAVES[kind], **size)
    veil = fractal_field(rng, octaves={150.0: 0.3, 700.0: 1.0}, **size)
    x_m, y_m = x_m + reach_m, y_m + reach_m
    above = _excess(thickness, cover, x_m, y_m)
    offset_m = _BASE_M / sun.climb
    thrown = _excess(thickness, cover, x_m + offset_m * sun.east, y_m + offset_m * sun.north)
    opacity = _ramp(above / _EDGE)
    return Clouds(
        opacity=opacity,
        cirrus=_ramp(_excess(veil, cirrus_cover, x_m, y_m) / 1.5),
        shadow=_ramp(thrown / _EDGE) * (1 - opacity),
        texture=0.55 + 0.5 * _ramp(above / 1.4),
    )


def _excess(
    field: SmoothField,
    share: float,
    x_m: npt.NDArray[np.float64],
    y_m: npt.NDArray[np.float64],
) -> Floats:
    """How far the field lies above the level that ``share`` of it exceeds."""
    level = np.quantile(field.coefficients, 1 - share) if share else np.inf
    return np.asarray(field.sample(x_m, y_m) - np.float32(level), dtype=np.float32)


def _ramp(values: Floats) -> Floats:
    """0 below zero, 1 above one, smooth between."""
    t = np.clip(values, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def veil(surface: Floats, sky: Clouds, band: str) -> Floats:
    """Reflectance of one band through the sky: shadow, then cirrus, then opaque cloud."""
    is_swir = band in _SWIR_BANDS
    lit = surface * (1 - np.float32(0.55) * sky.shadow)
    thin = np.float32(0.16 if is_swir else 0.34) * sky.cirrus
    hazy = lit * (1 - thin) + thin * np.float32(0.55)
    white = np.float32(0.48 if is_swir else 0.72) * sky.texture
    return np.asarray(hazy + sky.opacity * (white - hazy), dtype=np.float32)


def classify(bands: Mapping[str, Floats], sky: Clouds, water: Floats) -> npt.NDArray[np.uint8]:
    """Scene classification at 20 m, with Sen2Cor's codes.

    3 cloud shadow, 4 vegetation, 5 not vegetated, 6 water, 8 and 9 cloud of medium and high
    probability, 10 thin cirrus.
    """
    opacity, cirrus, shadow, wet, red, nir = (
        block_mean(image, 2)
        for image in (sky.opacity, sky.cirrus, sky.shadow, water, bands["B04"], bands["B08"])
    )
    greenness = (nir - red) / (nir + red)
    scl = np.where(greenness > _VEGETATED_NDVI, 4, 5)
    scl[wet > _HALF] = 6
    scl[shadow > _SHADED] = 3
    scl[cirrus > _VEILED] = 10
    scl[opacity > _DOUBTFUL] = 8
    scl[opacity > _HALF] = 9
    return scl.astype(np.uint8)
