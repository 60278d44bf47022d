"""Renders the sample landscape block by block: NAIP quads to files, the Sentinels' area averages.

Every function here can run in any process: what it writes depends on its arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.frame import EPSG, Bounds, Frame
from salibi_data.synthetic.ground.landscape import Ground, Landscape, Window
from salibi_data.synthetic.ground.materials import BANDS, WATER
from salibi_data.synthetic.sensors import acquisitions as scenes
from salibi_data.synthetic.sensors import naip as photograph
from salibi_data.synthetic.sensors import optics as imaging
from salibi_data.synthetic.sensors import sentinel1 as radar

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.noise import Floats

PIXEL_M: Final = 10
"""Pixel of the Sentinels' grids."""

_FINE_M: Final = 2.5
"""Pixel at which the ground is sampled for the Sentinels: 16 points to a 10 m pixel."""
_FINE_HALO_PX: Final = 8
_BLOCK_PX: Final = 60
_NAIP_BLOCK_PX: Final = 768

Progress = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where a raster lies: local bounds in metres, pixel size in metres."""

    bounds: Bounds
    pixel_m: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        west, south, east, north = self.bounds
        return round((north - south) / self.pixel_m), round((east - west) / self.pixel_m)


def write_cog(
    path: Path, frame: Frame, grid: Grid, image: npt.NDArray[Any], **options: Any
) -> None:
    """Write (bands, rows, columns) as a cloud-optimised GeoTIFF with overviews.

    Nothing in the file depends on the time or the machine: GDAL's COG driver writes no date.
    """
    import rasterio

    west, north = frame.to_utm(grid.bounds[0], grid.bounds[3])
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "COG",
        "dtype": image.dtype.name,
        "count": image.shape[0],
        "height": image.shape[1],
        "width": image.shape[2],
        "crs": f"EPSG:{EPSG}",
        "transform": rasterio.Affine(grid.pixel_m, 0, west, 0, -grid.pixel_m, north),
        "compress": "DEFLATE",
        "level": 6,
        "predictor": "YES",
        "blocksize": 256,
        "overview_resampling": "average",
        "num_threads": 1,
    }
    colours = options.pop("colorinterp", None)
    with rasterio.open(path, "w", **(profile | options)) as target:
        if colours:
            # Otherwise GDAL takes a fourth 8-bit band for transparency.
            target.colorinterp = colours
        target.write(image)


def render_quad(
    landscape: Landscape,
    frame: Frame,
    folder: Path,
    quad: scenes.Quad,
    on_block: Progress,
) -> list[scenes.Flight]:
    """Photograph one NAIP quad in every year in which it was flown. Returns those flights."""
    from rasterio.enums import ColorInterp

    flights = [flight for flight in scenes.FLIGHTS if flight.is_whole or quad.is_western]
    grid = Grid(bounds=quad.bounds, pixel_m=scenes.NAIP_PIXEL_M)
    images = np.empty((len(flights), 4, *grid.shape), dtype=np.uint8)
    days = [_day(landscape, flight.flown_utc, flight.sun) for flight in flights]
    palette = imaging.mix_palette(landscape)
    camera = photograph.NaipCamera.of_seed(landscape.seed)
    for block, where in _blocks(grid, _NAIP_BLOCK_PX):
        ground = landscape.sample(block.grown(photograph.NAIP_HALO_PX))
        lattice = (
            round((frame.height_m - block.north_m) / block.pixel_m),
            round(block.west_m / block.pixel_m),
        )
        images[..., where[0], where[1]] = photograph.photograph(
            landscape, ground, camera, palette, days, lattice
        )
        on_block()
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
    for flight, image in zip(flights, images, strict=True):
        item_id = quad.item_id(flight)
        path = folder / "naip" / item_id / f"{item_id.removeprefix('ia_')}.tif"
        # Level 1: half the time of the usual level for a twentieth more bytes.
        write_cog(path, frame, grid, image, blocksize=512, level=1, colorinterp=colours)
    return flights


def _day(landscape: Landscape, moment: Any, sun: imaging.Sun) -> imaging.Day:
    """The state of the land at a moment."""
    day_of_year = moment.timetuple().tm_yday
    cover = imaging.grow(landscape, year=moment.year, day_of_year=day_of_year)
    return imaging.Day(sun=sun, cover=cover)


def _blocks(grid: Grid, size_px: int) -> Iterator[tuple[Window, tuple[slice, slice]]]:
    """Windows that tile a grid, and where in its array they belong."""
    rows, columns = grid.shape
    for top in range(0, rows, size_px):
        for left in range(0, columns, size_px):
            bottom, right = min(top + size_px, rows), min(left + size_px, columns)
            window = Window(
                west_m=grid.bounds[0] + left * grid.pixel_m,
                north_m=grid.bounds[3] - top * grid.pixel_m,
                pixel_m=grid.pixel_m,
                rows=bottom - top,
                columns=right - left,
            )
            yield window, (slice(top, bottom), slice(left, right))


def sentinel1_grid(frame: Frame) -> Grid:
    """10 m grid of the radar scenes; holds that of Sentinel-2."""
    return Grid(bounds=frame.outward(scenes.SENTINEL1_MARGIN_M, 20), pixel_m=PIXEL_M)


def sentinel2_grid(frame: Frame) -> Grid:
    """10 m grid of the optical scenes; every other edge is one of the 20 m grid."""
    return Grid(bounds=frame.outward(scenes.SENTINEL2_MARGIN_M, 20), pixel_m=PIXEL_M)


def num_blocks(frame: Frame) -> int:
    """Steps of a whole run, as counted by ``on_block``."""
    grids = [Grid(bounds=quad.bounds, pixel_m=scenes.NAIP_PIXEL_M) for quad in scenes.quads(frame)]
    fine = sum(1 for grid in grids for _ in _blocks(grid, _NAIP_BLOCK_PX))
    return fine + sum(1 for _ in _blocks(sentinel1_grid(frame), _BLOCK_PX))


@dataclass(frozen=True, kw_only=True)
class CoarseScenes:
    """Area averages of the ground on the 10 m grid, before clouds, speckle and encoding."""

    grid: Grid
    reflectance: Mapping[str, Floats]
    """By band: (dates, rows, columns)."""
    power: Floats
    """(passes, 2, rows, columns): VV, VH."""
    water: Floats
    """(rows, columns) share of open water."""


def dates() -> list[scenes.Granule]:
    """One granule per date: products made again show the same ground."""
    seen = {granule.acquired_utc: granule for granule in reversed(scenes.GRANULES)}
    return [seen[moment] for moment in sorted(seen)]


def render_coarse(landscape: Landscape, frame: Frame, on_block: Progress) -> CoarseScenes:
    """What the Sentinels' pixels hold on every date and pass."""
    grid = sentinel1_grid(frame)
    result = CoarseScenes(
        grid=grid,
        reflectance={
            band: np.empty((len(dates()), *grid.shape), dtype=np.float32) for band in BANDS
        },
        power=np.empty((len(scenes.PASSES), 2, *grid.shape), dtype=np.float32),
        water=np.empty(grid.shape, dtype=np.float32),
    )
    optics = _Optics(landscape)
    for block, where in _blocks(grid, _BLOCK_PX):
        factor = round(PIXEL_M / _FINE_M)
        window = Window(
            west_m=block.west_m,
            north_m=block.north_m,
            pixel_m=_FINE_M,
            rows=block.rows * factor,
            columns=block.columns * factor,
        )
        ground = landscape.sample(window.grown(_FINE_HALO_PX))
        optics.average(ground, factor, result, where)
        on_block()
    return result


class _Optics:
    """What the coarse renderer needs of a landscape, looked up once."""

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.palette = imaging.mix_palette(landscape)
        self.days = [_day(landscape, date.acquired_utc, date.sun) for date in dates()]
        self.echoes = [
            radar.mean_power(
                landscape,
                year=each.started_utc.year,
                day_of_year=each.started_utc.timetuple().tm_yday,
                orbit_state=each.orbit_state,
            )
            for each in scenes.PASSES
        ]
        self.is_water = np.asarray(
            [surface.material in WATER for surface in landscape.surfaces], dtype=np.float32
        )

    def average(
        self, ground: Ground, factor: int, into: CoarseScenes, where: tuple[slice, slice]
    ) -> None:
        """Put the block means of every band, date and pass in their place."""
        inner = slice(_FINE_HALO_PX, -_FINE_HALO_PX)

        def mean(values: Floats) -> Floats:
            return imaging.block_mean(values[inner, inner], factor)

        views = [
            (
                imaging.canopy_cover(ground, self.palette, day),
                imaging.illumination(ground, self.palette, day.sun),
            )
            for day in self.days
        ]
        for band in BANDS:
            values = imaging.reflectances(ground, self.palette, views, band)
            for k, value in enumerate(values):
                into.reflectance[band][(k, *where)] = mean(value)
        patterns = {
            state: radar.pattern(self.landscape, ground, orbit_state=state)
            for state in ("ascending", "descending")
        }
        for k, (each, echo) in enumerate(zip(scenes.PASSES, self.echoes, strict=True)):
            for pol, factor_image in enumerate(patterns[each.orbit_state]):
                power = echo[pol][ground.feature] * factor_image
                into.power[(k, pol, *where)] = mean(power)
        into.water[where] = mean(self.is_water[ground.feature])
