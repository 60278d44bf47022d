"""Renders the landscape block by block: NAIP images, and 10 m averages for the Sentinels.

The functions share no state, so any process can run them: the same arguments give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.synthetic.ground.landscape import Ground, GroundWindow, Landscape
from salibi_data.synthetic.ground.materials import BANDS, WATER
from salibi_data.synthetic.rasters import SENTINEL_PIXEL_M, RasterGrid, sentinel1_grid, write_cog
from salibi_data.synthetic.sensors import naip, optics, sentinel1
from salibi_data.synthetic.sensors.acquisitions import (
    FLIGHTS,
    GRANULES,
    NAIP_PIXEL_M,
    PASSES,
    Flight,
    Granule,
    Quad,
    quads,
)

if TYPE_CHECKING:
    from salibi_data.synthetic.frame import Frame
    from salibi_data.synthetic.ground.noise import Floats

_FINE_PIXEL_M: Final = 2.5
"""Pixel size at which the ground is sampled for the Sentinels: 16 samples per 10 m pixel."""
_FINE_HALO_PX: Final = 8
_BLOCK_PX: Final = 60
_NAIP_BLOCK_PX: Final = 768

OnBlock = Callable[[], None]
"""Function called after each rendered block."""


def render_quad(
    landscape: Landscape, frame: Frame, folder: Path, quad: Quad, on_block: OnBlock
) -> list[Flight]:
    """Write the NAIP images of one quad, one for each year in which it was flown.

    Args:
        landscape: ground to photograph.
        frame: position of the landscape.
        folder: root of the catalog.
        quad: area of the images.
        on_block: called after each block of all years.

    Returns:
        The flights that photographed the quad, in the order of ``FLIGHTS``.
    """
    from rasterio.enums import ColorInterp

    flights = [flight for flight in FLIGHTS if flight.covers_all_quads or quad.is_western]
    grid = RasterGrid(bounds=quad.bounds, pixel_m=NAIP_PIXEL_M)
    images = np.empty((len(flights), 4, *grid.shape), dtype=np.uint8)
    conditions = [conditions_at(landscape, flight.flown_utc, flight.sun) for flight in flights]
    palette = optics.surface_palette(landscape)
    camera = naip.NaipCamera.from_seed(landscape.seed)
    for window, (rows, columns) in _blocks(grid, _NAIP_BLOCK_PX):
        ground = landscape.sample(window.grown(naip.NAIP_HALO_PX))
        corner_px = (
            round((frame.height_m - window.north_m) / window.pixel_m),
            round(window.west_m / window.pixel_m),
        )
        images[..., rows, columns] = naip.photograph(
            landscape, ground, camera, palette, conditions, corner_px
        )
        on_block()
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
    for flight, image in zip(flights, images, strict=True):
        item_id = quad.item_id(flight)
        path = folder / "naip" / item_id / f"{item_id.removeprefix('ia_')}.tif"
        # DEFLATE level 1 takes half the time of level 6 for 5 % more bytes.
        write_cog(path, frame, grid, image, blocksize=512, level=1, colorinterp=colours)
    return flights


def conditions_at(
    landscape: Landscape, moment: datetime, sun: optics.Sun
) -> optics.ViewingConditions:
    """Return sun and canopy cover of a landscape at one moment."""
    cover = optics.mean_canopy_cover(
        landscape, year=moment.year, day_of_year=moment.timetuple().tm_yday
    )
    return optics.ViewingConditions(sun=sun, cover=cover)


def _blocks(grid: RasterGrid, size_px: int) -> Iterator[tuple[GroundWindow, tuple[slice, slice]]]:
    """Yield the windows that tile a grid, with their row and column slices in its array."""
    rows, columns = grid.shape
    for top in range(0, rows, size_px):
        for left in range(0, columns, size_px):
            bottom, right = min(top + size_px, rows), min(left + size_px, columns)
            window = GroundWindow(
                west_m=grid.bounds[0] + left * grid.pixel_m,
                north_m=grid.bounds[3] - top * grid.pixel_m,
                pixel_m=grid.pixel_m,
                rows=bottom - top,
                columns=right - left,
            )
            yield window, (slice(top, bottom), slice(left, right))


def num_blocks(frame: Frame) -> int:
    """Count the calls of ``on_block`` in a whole run."""
    grids = [RasterGrid(bounds=quad.bounds, pixel_m=NAIP_PIXEL_M) for quad in quads(frame)]
    num_naip = sum(1 for grid in grids for _ in _blocks(grid, _NAIP_BLOCK_PX))
    return num_naip + sum(1 for _ in _blocks(sentinel1_grid(frame), _BLOCK_PX))


@dataclass(frozen=True, kw_only=True)
class CoarseScenes:
    """Averages of the ground over 10 m pixels, before clouds, speckle and encoding."""

    grid: RasterGrid
    reflectance: Mapping[str, Floats]
    """Surface reflectance by band, each of shape (dates, rows, columns)."""
    power: Floats
    """Radar gamma0 in linear power, shape (passes, 2, rows, columns): VV, VH."""
    water: Floats
    """Share of open water, shape (rows, columns)."""


def sentinel2_dates() -> list[Granule]:
    """Return one granule per date: reprocessed products show the same ground."""
    by_moment = {granule.acquired_utc: granule for granule in reversed(GRANULES)}
    return [by_moment[moment] for moment in sorted(by_moment)]


def render_coarse(landscape: Landscape, frame: Frame, on_block: OnBlock) -> CoarseScenes:
    """Average the ground over the Sentinels' pixels, for every date and every pass."""
    grid = sentinel1_grid(frame)
    num_dates = len(sentinel2_dates())
    scenes = CoarseScenes(
        grid=grid,
        reflectance={band: np.empty((num_dates, *grid.shape), dtype=np.float32) for band in BANDS},
        power=np.empty((len(PASSES), 2, *grid.shape), dtype=np.float32),
        water=np.empty(grid.shape, dtype=np.float32),
    )
    renderer = _CoarseRenderer(landscape)
    factor = round(SENTINEL_PIXEL_M / _FINE_PIXEL_M)
    for block, pixels in _blocks(grid, _BLOCK_PX):
        window = GroundWindow(
            west_m=block.west_m,
            north_m=block.north_m,
            pixel_m=_FINE_PIXEL_M,
            rows=block.rows * factor,
            columns=block.columns * factor,
        )
        renderer.render_block(landscape.sample(window.grown(_FINE_HALO_PX)), factor, scenes, pixels)
        on_block()
    return scenes


class _CoarseRenderer:
    """Averages blocks of one landscape; computes once what all blocks share."""

    def __init__(self, landscape: Landscape) -> None:
        self._landscape = landscape
        self._palette = optics.surface_palette(landscape)
        self._conditions = [
            conditions_at(landscape, date.acquired_utc, date.sun) for date in sentinel2_dates()
        ]
        self._mean_powers = [
            sentinel1.mean_power(
                landscape,
                year=overflight.started_utc.year,
                day_of_year=overflight.started_utc.timetuple().tm_yday,
                orbit_state=overflight.orbit_state,
            )
            for overflight in PASSES
        ]
        self._is_water = np.asarray(
            [surface.material in WATER for surface in landscape.surfaces], dtype=np.float32
        )

    def render_block(
        self, ground: Ground, factor: int, scenes: CoarseScenes, pixels: tuple[slice, slice]
    ) -> None:
        """Write the means of one block into ``scenes``.

        Args:
            ground: fine samples of the block and of a halo around it.
            factor: fine pixels along the edge of a 10 m pixel.
            scenes: arrays to write to.
            pixels: row and column slices of the block in those arrays.
        """
        inner = slice(_FINE_HALO_PX, -_FINE_HALO_PX)

        def mean(values: Floats) -> Floats:
            return optics.block_mean(values[inner, inner], factor)

        views = [
            (
                optics.canopy_cover(ground, self._palette, conditions),
                optics.illumination(ground, self._palette, conditions.sun),
            )
            for conditions in self._conditions
        ]
        for band in BANDS:
            images = optics.reflectances(ground, self._palette, views, band)
            for k, image in enumerate(images):
                scenes.reflectance[band][(k, *pixels)] = mean(image)
        factors = {
            state: sentinel1.backscatter_factors(self._landscape, ground, orbit_state=state)
            for state in ("ascending", "descending")
        }
        for k, (overflight, mean_power) in enumerate(zip(PASSES, self._mean_powers, strict=True)):
            for polarisation, factor_image in enumerate(factors[overflight.orbit_state]):
                power = mean_power[polarisation][ground.feature] * factor_image
                scenes.power[(k, polarisation, *pixels)] = mean(power)
        scenes.water[pixels] = mean(self._is_water[ground.feature])
