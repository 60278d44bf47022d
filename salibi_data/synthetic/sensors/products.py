"""Makes Sentinel products of the area averages: speckle and swath, clouds and digital numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.frame import MGRS_TILE, Frame
from salibi_data.synthetic.ground.landscape import Window
from salibi_data.synthetic.ground.materials import BANDS
from salibi_data.synthetic.render import (
    PIXEL_M,
    CoarseScenes,
    Grid,
    dates,
    sentinel1_grid,
    sentinel2_grid,
    write_cog,
)
from salibi_data.synthetic.sensors import acquisitions as scenes
from salibi_data.synthetic.sensors import clouds
from salibi_data.synthetic.sensors import optics as imaging
from salibi_data.synthetic.sensors import sentinel1 as radar

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.noise import Floats

FINE_BANDS: Final = ("B02", "B03", "B04", "B08")
"""10 m bands of Sentinel-2; the others have 20 m."""

Bytes = npt.NDArray[np.uint8]


def swath(frame: Frame, overflight: scenes.Pass) -> npt.NDArray[np.float64]:
    """Corners (num, 2) of the valid part of a radar scene, local metres, counter-clockwise."""
    west, south, east, north = sentinel1_grid(frame).bounds
    south_west, north_west = west, west
    if overflight.has_edge:
        # The swath's edge leans as the ground track does, and cuts a corner off the tiles.
        south_west, north_west = west + 250.0, west + scenes.SENTINEL1_MARGIN_M + 130.0
    return np.asarray([(south_west, south), (east, south), (east, north), (north_west, north)])


def write_pass(
    coarse: CoarseScenes, frame: Frame, folder: Path, index: int, seed: int
) -> dict[str, Path]:
    """Write ``vv`` and ``vh`` of one radar pass: speckled, linear, nodata beyond the swath."""
    import shapely

    overflight, grid = scenes.PASSES[index], coarse.grid
    window = Window(
        west_m=grid.bounds[0],
        north_m=grid.bounds[3],
        pixel_m=grid.pixel_m,
        rows=grid.shape[0],
        columns=grid.shape[1],
    )
    x_m, y_m = np.meshgrid(window.x_m, window.y_m)
    seen = shapely.contains_xy(shapely.Polygon(swath(frame, overflight)), x_m, y_m)
    paths = {}
    for k, name in enumerate(("vv", "vh")):
        rng = np.random.default_rng([seed, 5, overflight.absolute_orbit, k])
        image = np.where(seen, radar.speckled(coarse.power[index, k], rng), radar.NODATA)
        path = folder / "sentinel-1-rtc" / overflight.id / f"iw-{name}.rtc.tiff"
        write_cog(path, frame, grid, image[None].astype(np.float32), nodata=radar.NODATA)
        paths[name] = path
    return paths


def write_granule(
    coarse: CoarseScenes, frame: Frame, folder: Path, granule: scenes.Granule, seed: int
) -> dict[str, float]:
    """Write all assets of one Sentinel-2 product. Returns the share of every SCL class."""
    grid = sentinel2_grid(frame)
    bands, scl = _with_sky(coarse, frame, granule, seed)
    stem = f"T{MGRS_TILE}_{granule.acquired_utc:%Y%m%dT%H%M%S}"
    target = folder / "sentinel-2-l2a" / granule.id
    rng = np.random.default_rng([seed, 6, int(granule.generated_utc.timestamp())])
    half = Grid(bounds=grid.bounds, pixel_m=2 * PIXEL_M)
    measured = {}
    for band in BANDS:
        is_fine = band in FINE_BANDS
        values = bands[band] if is_fine else imaging.block_mean(bands[band], 2)
        noise = 1 + np.float32(0.006) * rng.standard_normal(values.shape, dtype=np.float32)
        measured[band] = values * noise * np.float32(granule.gain)
        numbers = imaging.digital_numbers(measured[band], has_offset=granule.has_offset)
        path = target / f"{stem}_{band}_{10 if is_fine else 20}m.tif"
        write_cog(path, frame, grid if is_fine else half, numbers[None], nodata=0)
    visual = imaging.true_colour([measured[band] for band in ("B04", "B03", "B02")])
    write_cog(target / f"{stem}_TCI_10m.tif", frame, grid, visual, nodata=0)
    write_cog(
        target / f"{stem}_SCL_20m.tif", frame, half, scl[None], nodata=0, overview_resampling="mode"
    )
    return {str(code): float((scl == code).mean()) for code in range(12)}


def _with_sky(
    coarse: CoarseScenes, frame: Frame, granule: scenes.Granule, seed: int
) -> tuple[dict[str, Floats], Bytes]:
    """10 m reflectance of every band under the sky of the date, and the 20 m classification."""
    grid = sentinel2_grid(frame)
    west, _, _, north = grid.bounds
    rows, columns = grid.shape
    top = round((coarse.grid.bounds[3] - north) / PIXEL_M)
    left = round((west - coarse.grid.bounds[0]) / PIXEL_M)
    crop = (slice(top, top + rows), slice(left, left + columns))
    moments = [date.acquired_utc for date in dates()]
    date = moments.index(granule.acquired_utc)
    window = Window(west_m=west, north_m=north, pixel_m=PIXEL_M, rows=rows, columns=columns)
    sky = clouds.draw_clouds(
        np.random.default_rng([seed, 7, date]),
        extent_m=(frame.width_m, frame.height_m),
        cover=granule.cloud_cover,
        kind=granule.cloud_kind,
        cirrus_cover=granule.cirrus_cover,
        sun=granule.sun,
        x_m=window.x_m,
        y_m=window.y_m,
    )
    bands = {
        band: clouds.veil(values[(date, *crop)], sky, band)
        for band, values in coarse.reflectance.items()
    }
    return bands, clouds.classify(bands, sky, coarse.water[crop])
