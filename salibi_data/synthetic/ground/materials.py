"""Defines the materials of the sample's ground: reflectance, growth and radar backscatter.

The values are rounded figures, typical of the U.S. Corn Belt in summer. They look plausible to a
person and to a model; do not take measurements from them. Every material is a background (soil,
asphalt, water) under a canopy that covers a share of it, which changes with the season.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.noise import Floats

BANDS: Final = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Sentinel-2 names of the bands of every spectrum here. NAIP's red, green, blue and near infrared
bands use B04, B03, B02 and B08."""

MIDSUMMER_DAY: Final = 200
"""Day of the year to which :attr:`Material.cover` refers."""

_DAYS_PER_MONTH = 30.0


def _spectrum(*percent: float) -> Floats:
    """Return reflectance, 0..1, of the ten bands from values in percent."""
    return np.asarray(percent, dtype=np.float32) / np.float32(100)


SOIL_DARK: Final = _spectrum(3.6, 4.8, 5.9, 7.2, 8.2, 9.0, 10.2, 11.0, 16.5, 14.0)
SOIL_LIGHT: Final = _spectrum(9.5, 13.0, 17.0, 19.5, 21.5, 22.5, 24.0, 25.5, 33.0, 29.5)

_LEAF: Final = {
    "corn": _spectrum(2.6, 5.6, 2.9, 10.0, 31.5, 40.0, 43.0, 45.0, 21.5, 10.5),
    "soy": _spectrum(3.0, 8.0, 3.6, 13.0, 42.0, 54.0, 57.0, 58.0, 25.0, 12.0),
    "alfalfa": _spectrum(3.3, 8.8, 4.6, 13.0, 36.0, 44.0, 48.0, 49.5, 24.0, 13.0),
    "straw": _spectrum(8.0, 12.8, 17.5, 20.5, 24.5, 26.5, 29.5, 31.0, 37.0, 28.0),
    "grass": _spectrum(3.9, 7.6, 5.4, 12.0, 28.0, 34.0, 37.0, 39.0, 26.5, 15.5),
    "pasture": _spectrum(4.6, 8.4, 7.2, 13.5, 25.0, 29.5, 32.5, 34.5, 29.0, 18.5),
    "vegetables": _spectrum(3.0, 7.4, 4.4, 12.5, 33.0, 41.0, 45.0, 46.0, 23.0, 12.5),
    "broadleaf": _spectrum(2.0, 4.3, 2.3, 8.6, 28.5, 36.5, 40.0, 41.5, 18.5, 8.5),
    "conifer": _spectrum(1.7, 3.2, 2.0, 6.0, 17.0, 21.0, 24.0, 25.0, 11.0, 5.0),
    "reed": _spectrum(3.2, 5.6, 4.8, 9.8, 20.5, 25.0, 27.5, 28.5, 17.0, 9.0),
}
"""Reflectance of full canopies by kind of leaf."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Optical and radar properties of one kind of ground."""

    background: Floats | None = None
    """Reflectance under the canopy, shape (num_bands,); None for soil, which varies by field."""
    leaf: str = "grass"
    """Kind of leaf in the canopy, a key of ``_LEAF``."""
    cover: float = 0.0
    """Share of the ground under the canopy at midsummer, 0..1."""
    growth: float = 0.0
    """Change of ``cover`` per month around midsummer."""
    background_db: tuple[float, float] = (-12.5, -22.0)
    """Backscatter gamma0 of the background in dB, (VV, VH)."""
    canopy_db: tuple[float, float] = (-11.0, -17.0)
    """Backscatter gamma0 of the canopy in dB, (VV, VH)."""


def _crop(leaf: str, cover: float, growth: float, vv_db: float, vh_db: float) -> Material:
    return Material(leaf=leaf, cover=cover, growth=growth, canopy_db=(vv_db, vh_db))


def _hard(vv_db: float, vh_db: float, *percent: float) -> Material:
    return Material(background=_spectrum(*percent), background_db=(vv_db, vh_db))


MATERIALS: Final[Mapping[str, Material]] = MappingProxyType(
    {
        "corn": _crop("corn", 0.93, 0.04, -8.2, -14.2),
        "soy": _crop("soy", 0.82, 0.12, -10.6, -17.0),
        "alfalfa": _crop("alfalfa", 0.85, 0.02, -13.2, -20.2),
        "stubble": _crop("straw", 0.70, -0.10, -14.4, -21.6),
        "pasture": _crop("pasture", 0.80, -0.05, -12.8, -19.0),
        "vegetables": _crop("vegetables", 0.55, 0.15, -9.8, -17.6),
        "bare": _crop("grass", 0.04, 0.03, -12.0, -20.0),
        "grass": _crop("grass", 0.90, -0.02, -12.8, -19.6),
        "lawn": _crop("alfalfa", 0.93, -0.02, -12.2, -18.8),
        "understory": _crop("grass", 0.88, 0.00, -9.6, -15.4),
        "marsh": _crop("reed", 0.85, 0.02, -10.0, -17.6),
        "broadleaf": _crop("broadleaf", 0.97, 0.00, -8.0, -13.5),
        "conifer": _crop("conifer", 0.97, 0.00, -8.4, -14.0),
        "orchard": _crop("broadleaf", 0.95, 0.00, -8.8, -14.6),
        "river": _hard(-22.0, -28.5, 4.4, 5.8, 4.6, 3.9, 2.6, 2.4, 2.1, 1.8, 0.8, 0.6),
        "lake": _hard(-22.5, -28.8, 3.2, 4.2, 2.4, 1.8, 1.2, 1.0, 0.9, 0.8, 0.5, 0.4),
        "algae": _hard(-22.0, -28.0, 3.0, 6.4, 3.6, 5.4, 4.4, 4.4, 4.0, 3.6, 1.0, 0.7),
        "quarry_water": _hard(-21.5, -28.0, 8.5, 11.5, 6.5, 3.5, 2.0, 1.8, 1.6, 1.4, 0.6, 0.5),
        "sand": _hard(-15.0, -24.0, 17.0, 22.5, 27.5, 29.5, 31.0, 32.0, 33.5, 34.5, 40.0, 37.5),
        "asphalt": _hard(-18.0, -25.0, 8.2, 9.2, 10.0, 10.5, 11.0, 11.5, 12.0, 12.5, 14.5, 14.0),
        "gravel": _hard(-16.5, -24.0, 16.5, 19.5, 22.0, 23.0, 24.0, 24.5, 25.5, 26.5, 31.5, 30.5),
        "concrete": _hard(-17.0, -24.5, 22.0, 25.5, 27.5, 28.5, 29.5, 30.0, 31.0, 31.5, 34.5, 33.0),
        "line": _hard(-18.0, -25.0, 30.0, 33.0, 34.0, 34.5, 35.0, 35.0, 35.5, 36.0, 35.0, 33.0),
        "yard": _hard(-12.5, -19.5, 10.5, 13.5, 15.5, 17.5, 20.0, 21.0, 22.5, 23.5, 28.0, 25.5),
        "roof_white": _hard(0.0, -8.0, 46.0, 49.0, 51.0, 52.0, 52.5, 53.0, 53.5, 54.0, 52.0, 48.0),
        "roof_grey": _hard(-1.0, -9.0, 15.5, 16.5, 17.5, 18.0, 18.5, 19.0, 20.0, 20.5, 22.0, 21.5),
        "roof_dark": _hard(-1.5, -9.5, 7.0, 7.4, 8.0, 8.4, 8.8, 9.2, 10.0, 10.5, 12.5, 12.5),
        "roof_red": _hard(-1.0, -9.0, 7.0, 8.5, 16.5, 19.5, 21.5, 22.5, 24.0, 25.0, 27.0, 24.0),
        "roof_blue": _hard(-0.5, -8.5, 17.0, 15.0, 12.5, 12.5, 13.0, 13.5, 15.0, 15.5, 17.0, 16.0),
        "steel": _hard(1.0, -7.5, 38.0, 39.0, 39.5, 40.0, 40.5, 41.0, 41.5, 42.0, 42.0, 40.0),
        "solar": _hard(-6.0, -14.0, 6.0, 5.6, 5.2, 5.4, 6.0, 6.5, 7.5, 8.0, 10.5, 9.0),
    }
)
"""Materials by name."""

WATER: Final = frozenset({"river", "lake", "algae", "quarry_water"})
TREES: Final = frozenset({"broadleaf", "conifer", "orchard"})
ROOFS: Final = frozenset(
    {"roof_white", "roof_grey", "roof_dark", "roof_red", "roof_blue", "steel"},
)


def leaf_spectrum(material: Material, vigour: float) -> Floats:
    """Return the reflectance of a full canopy, shape (num_bands,).

    ``vigour`` 0 is stressed and yellow, 1 is lush.
    """
    healthy = _LEAF[material.leaf]
    stress = np.float32(0.5 * (1.0 - vigour))
    return np.asarray(healthy + stress * (_LEAF["straw"] * 0.75 - healthy), dtype=np.float32)


def soil_spectrum(*, tone: float, moisture: float) -> Floats:
    """Return the reflectance of bare soil, shape (num_bands,).

    ``tone`` 0 is dark loam, 1 is pale sand; ``moisture`` 0 is dry, 1 is wet and darker.
    """
    dry = SOIL_DARK + np.float32(tone) * (SOIL_LIGHT - SOIL_DARK)
    return np.asarray(dry * np.float32(1.15 - 0.45 * moisture), dtype=np.float32)


def cover_on_day(material: Material, day_of_year: float) -> float:
    """Return the canopy share of a material on a day; values outside 0..1 are left to the caller."""
    months = (day_of_year - MIDSUMMER_DAY) / _DAYS_PER_MONTH
    return material.cover + material.growth * months
