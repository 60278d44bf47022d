"""Computes what Sentinel-1 sees: gamma0 in linear power, VV and VH, with speckle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.synthetic.ground.materials import MATERIALS, ROOFS, WATER, cover_on_day

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Ground, Landscape
    from salibi_data.synthetic.ground.noise import Floats

NODATA: Final = -32768.0
LOOKS: Final = 15.0
"""Equivalent number of looks; a larger number means weaker speckle."""

_DB_TO_NEPER: Final = np.float32(np.log(10) / 10)
_FERTILITY_DB: Final = np.asarray([4.0, 6.0], dtype=np.float32)
"""Change of backscatter (VV, VH) per unit of fertility and variation: a dense canopy scatters more,
most of all in VH."""
_MOISTURE_DB: Final = np.float32(0.55)
"""Change of backscatter per unit of the moisture pattern."""
_SLOPE_DB: Final = np.float32(14.0)
"""Residual of terrain correction, per unit of slope towards the sensor."""


def mean_power(landscape: Landscape, *, year: int, day_of_year: int, orbit_state: str) -> Floats:
    """Return the mean gamma0, linear power, of every surface on one pass.

    Args:
        landscape: ground that the sensor sees.
        year: year of the pass.
        day_of_year: day of the pass, from 1.
        orbit_state: direction of flight, ``ascending`` or ``descending``.

    Returns:
        VV and VH, shape (2, num_features).
    """
    pass_code = 3 if orbit_state == "ascending" else 4
    rng = np.random.default_rng([landscape.seed, pass_code, year, day_of_year])
    # A wall faces one orbit direction: a building's echo depends on the direction, not on the day.
    wall_rng = np.random.default_rng([landscape.seed, pass_code])
    deviation_db = rng.normal(0.0, 0.35, len(landscape.surfaces))
    wall_db = wall_rng.normal(0.0, 3.0, len(landscape.surfaces))
    power_db = np.empty((len(landscape.surfaces), 2), dtype=np.float32)
    for k, surface in enumerate(landscape.surfaces):
        material = MATERIALS[surface.material]
        ground_db = np.asarray(material.background_db)
        if material.background is None:
            # Wet soil (dielectric constant) and rough soil (here: pale soil) scatter more.
            ground_db = ground_db + 8.0 * (surface.moisture - 0.5) + 2.0 * (surface.tone - 0.35)
        share = np.clip(cover_on_day(material, day_of_year) + surface.cover_bias, 0.0, 1.0)
        vigour_db = np.asarray([2.4, 3.4]) * (surface.vigour - 0.6)
        canopy_db = np.asarray(material.canopy_db) + vigour_db + 2.4 * (surface.moisture - 0.5)
        mean_db = ground_db + share * (canopy_db - ground_db) + deviation_db[k]
        power_db[k] = mean_db + (wall_db[k] if surface.material in ROOFS else 0.0)
    return np.asarray(np.exp(_DB_TO_NEPER * power_db.T), dtype=np.float32)


def backscatter_factors(landscape: Landscape, ground: Ground, *, orbit_state: str) -> list[Floats]:
    """Return factors on the surfaces' mean power for growth, wetness and slope.

    All passes of one orbit direction share them.

    Args:
        landscape: ground that the sensor sees.
        ground: pixels to compute.
        orbit_state: direction of flight, ``ascending`` or ``descending``.

    Returns:
        VV and VH, each of shape (rows, columns).
    """
    closed = WATER | ROOFS
    is_open = np.asarray([float(surface.material not in closed) for surface in landscape.surfaces])
    is_open = is_open.astype(np.float32)
    # Sentinel-1 looks right: it stands in the west when ascending, in the east when descending.
    toward_sensor = np.float32(-1 if orbit_state == "ascending" else 1)
    shared_db = _SLOPE_DB * toward_sensor * ground.slope_east + _MOISTURE_DB * ground.moisture
    shared_db *= is_open[ground.feature]
    growth = (landscape.column("variation") * is_open)[ground.feature] * ground.fertility
    return [np.exp(_DB_TO_NEPER * (shared_db + gain_db * growth)) for gain_db in _FERTILITY_DB]


def add_speckle(power: Floats, rng: np.random.Generator) -> Floats:
    """Multiply linear power by speckle of :data:`LOOKS` looks.

    Multi-look speckle in power follows a gamma distribution of mean 1 whose shape is the number of
    looks (Oliver and Quegan 2004, Understanding Synthetic Aperture Radar Images).
    """
    speckle = rng.standard_gamma(LOOKS, power.shape, dtype=np.float32) / np.float32(LOOKS)
    return np.asarray(power * speckle, dtype=np.float32)
