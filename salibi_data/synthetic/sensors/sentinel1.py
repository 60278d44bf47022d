"""Sentinel-1's view of the sample landscape: gamma0 in linear power, VV and VH, with speckle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.synthetic.ground.materials import MATERIALS, ROOFS, WATER, cover_on_day

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.landscape import Ground, Landscape
    from salibi_data.synthetic.ground.noise import Floats

NODATA: Final = -32768.0
LOOKS: Final = 15.0
"""Equivalent number of looks of the speckle."""

_DB_TO_NEPER: Final = np.float32(np.log(10) / 10)
_FERTILITY_DB: Final = np.asarray([4.0, 6.0], dtype=np.float32)
"""Backscatter per unit of fertility and variation: denser canopy scatters more, VH above all."""
_MOISTURE_DB: Final = np.float32(0.55)
_SLOPE_DB: Final = np.float32(14.0)
"""What terrain correction leaves: decibels per unit of slope towards the sensor."""


def mean_power(landscape: Landscape, *, year: int, day_of_year: int, orbit_state: str) -> Floats:
    """Mean gamma0, linear power, of every surface on one pass: (2, num_features), VV and VH."""
    pass_code = 3 if orbit_state == "ascending" else 4
    rng = np.random.default_rng([landscape.seed, pass_code, year, day_of_year])
    # Walls face one orbit and not the other: a building's echo belongs to the orbit, not the day.
    facing = np.random.default_rng([landscape.seed, pass_code])
    luck = rng.normal(0.0, 0.35, len(landscape.surfaces))
    wall_db = facing.normal(0.0, 3.0, len(landscape.surfaces))
    table = np.empty((len(landscape.surfaces), 2), dtype=np.float32)
    for k, surface in enumerate(landscape.surfaces):
        material = MATERIALS[surface.material]
        ground_db = np.asarray(material.background_db)
        if material.background is None:
            # Wet and rough soil echoes more (dielectric constant; pale soil stands for cloddy).
            ground_db = ground_db + 8.0 * (surface.moisture - 0.5) + 2.0 * (surface.tone - 0.35)
        share = np.clip(cover_on_day(material, day_of_year) + surface.cover_bias, 0.0, 1.0)
        lush_db = np.asarray([2.4, 3.4]) * (surface.vigour - 0.6)
        canopy_db = np.asarray(material.canopy_db) + lush_db + 2.4 * (surface.moisture - 0.5)
        mean_db = ground_db + share * (canopy_db - ground_db) + luck[k]
        table[k] = mean_db + (wall_db[k] if surface.material in ROOFS else 0.0)
    return np.asarray(np.exp(_DB_TO_NEPER * table.T), dtype=np.float32)


def pattern(landscape: Landscape, ground: Ground, *, orbit_state: str) -> list[Floats]:
    """Factors on the mean power within a surface, [VV, VH]: growth, wetness, and slope.

    They are those of all passes of an orbit direction.
    """
    closed = WATER | ROOFS
    is_open = np.asarray([float(surface.material not in closed) for surface in landscape.surfaces])
    is_open = is_open.astype(np.float32)
    # A right-looking sensor sees from the west when it flies north, from the east when south.
    toward_sensor = np.float32(-1 if orbit_state == "ascending" else 1)
    shared_db = _SLOPE_DB * toward_sensor * ground.slope_east + _MOISTURE_DB * ground.moisture
    shared_db *= is_open[ground.feature]
    growth = (landscape.column("variation") * is_open)[ground.feature] * ground.fertility
    return [np.exp(_DB_TO_NEPER * (shared_db + each * growth)) for each in _FERTILITY_DB]


def speckled(power: Floats, rng: np.random.Generator) -> Floats:
    """The image with multiplicative speckle: gamma distributed, mean one, :data:`LOOKS` looks."""
    speckle = rng.standard_gamma(LOOKS, power.shape, dtype=np.float32) / np.float32(LOOKS)
    return np.asarray(power * speckle, dtype=np.float32)
