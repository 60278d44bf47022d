"""Makes Sentinel products of the 10 m averages: speckle and swath, clouds and digital numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.frame import MGRS_TILE, Frame
from salibi_data.synthetic.ground.landscape import GroundWindow
from salibi_data.synthetic.ground.materials import BANDS
from salibi_data.synthetic.rasters import (
    SENTINEL_PIXEL_M,
    RasterGrid,
    sentinel1_grid,
    sentinel2_grid,
    write_cog,
)
from salibi_data.synthetic.render import CoarseScenes, sentinel2_dates
from salibi_data.synthetic.sensors import clouds, optics, sentinel1
from salibi_data.synthetic.sensors.acquisitions import PASSES, SENTINEL1_MARGIN_M, Granule, Pass

if TYPE_CHECKING:
    from salibi_data.synthetic.ground.noise import Floats

FINE_BANDS: Final = ("B02", "B03", "B04", "B08")
"""Sentinel-2 bands at 10 m; the others are at 20 m."""

_NUM_SCL_CODES: Final = 12


def swath(frame: Frame, overflight: Pass) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of a radar scene's valid area, local metres, counter-clockwise."""
    west, south, east, north = sentinel1_grid(frame).bounds
    south_west, north_west = west, west
    if overflight.has_edge:
        # The edge is slanted like the ground track, and cuts a corner off the tiles.
        south_west, north_west = west + 250.0, west + SENTINEL1_MARGIN_M + 130.0
    return np.asarray([(south_west, south), (east, south), (east, north), (north_west, north)])


def write_pass(
    coarse: CoarseScenes, frame: Frame, folder: Path, index: int, seed: int
) -> dict[str, Path]:
    """Write the speckled images of one radar pass, gamma0 in linear power.

    Args:
        coarse: mean power of all passes.
        frame: position of the landscape.
        folder: root of the catalog.
        index: position of the pass in ``PASSES``.
        seed: seed of the landscape.

    Returns:
        The files by asset key, ``vv`` and ``vh``. Pixels outside the swath are nodata.
    """
    import shapely

    overflight, grid = PASSES[index], coarse.grid
    window = GroundWindow(
        west_m=grid.bounds[0],
        north_m=grid.bounds[3],
        pixel_m=grid.pixel_m,
        rows=grid.shape[0],
        columns=grid.shape[1],
    )
    x_m, y_m = np.meshgrid(window.x_m, window.y_m)
    valid = shapely.contains_xy(shapely.Polygon(swath(frame, overflight)), x_m, y_m)
    paths = {}
    for k, name in enumerate(("vv", "vh")):
        rng = np.random.default_rng([seed, 5, overflight.absolute_orbit, k])
        speckled = sentinel1.add_speckle(coarse.power[index, k], rng)
        image = np.where(valid, speckled, sentinel1.NODATA)
        path = folder / "sentinel-1-rtc" / overflight.id / f"iw-{name}.rtc.tiff"
        write_cog(path, frame, grid, image[None].astype(np.float32), nodata=sentinel1.NODATA)
        paths[name] = path
    return paths


def write_granule(
    coarse: CoarseScenes, frame: Frame, folder: Path, granule: Granule, seed: int
) -> dict[str, float]:
    """Write all assets of one Sentinel-2 product.

    Args:
        coarse: cloudless reflectance of all dates.
        frame: position of the landscape.
        folder: root of the catalog.
        granule: product to write.
        seed: seed of the landscape.

    Returns:
        Share of the image by code of the scene classification, "0" to "11".
    """
    grid = sentinel2_grid(frame)
    bands, scl = _bands_under_sky(coarse, frame, granule, seed)
    stem = f"T{MGRS_TILE}_{granule.acquired_utc:%Y%m%dT%H%M%S}"
    target = folder / "sentinel-2-l2a" / granule.id
    rng = np.random.default_rng([seed, 6, int(granule.generated_utc.timestamp())])
    grid_20m = RasterGrid(bounds=grid.bounds, pixel_m=2 * SENTINEL_PIXEL_M)
    measured = {}
    for band in BANDS:
        is_fine = band in FINE_BANDS
        values = bands[band] if is_fine else optics.block_mean(bands[band], 2)
        noise = 1 + np.float32(0.006) * rng.standard_normal(values.shape, dtype=np.float32)
        measured[band] = values * noise * np.float32(granule.gain)
        numbers = optics.digital_numbers(measured[band], has_offset=granule.has_offset)
        path = target / f"{stem}_{band}_{10 if is_fine else 20}m.tif"
        write_cog(path, frame, grid if is_fine else grid_20m, numbers[None], nodata=0)
    visual = optics.true_colour([measured[band] for band in ("B04", "B03", "B02")])
    write_cog(target / f"{stem}_TCI_10m.tif", frame, grid, visual, nodata=0)
    scl_path = target / f"{stem}_SCL_20m.tif"
    # Overviews by "mode": the average of two class codes is the code of a third class.
    write_cog(scl_path, frame, grid_20m, scl[None], nodata=0, overview_resampling="mode")
    return {str(code): float((scl == code).mean()) for code in range(_NUM_SCL_CODES)}


def _bands_under_sky(
    coarse: CoarseScenes, frame: Frame, granule: Granule, seed: int
) -> tuple[dict[str, Floats], npt.NDArray[np.uint8]]:
    """Return 10 m reflectance of every band under the date's clouds, and the 20 m scene classes."""
    grid = sentinel2_grid(frame)
    west, _, _, north = grid.bounds
    rows, columns = grid.shape
    top = round((coarse.grid.bounds[3] - north) / SENTINEL_PIXEL_M)
    left = round((west - coarse.grid.bounds[0]) / SENTINEL_PIXEL_M)
    crop = (slice(top, top + rows), slice(left, left + columns))
    moments = [date.acquired_utc for date in sentinel2_dates()]
    date = moments.index(granule.acquired_utc)
    window = GroundWindow(
        west_m=west, north_m=north, pixel_m=SENTINEL_PIXEL_M, rows=rows, columns=columns
    )
    sky = clouds.draw_sky(
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
        band: clouds.reflectance_under_sky(values[(date, *crop)], sky, band)
        for band, values in coarse.reflectance.items()
    }
    return bands, clouds.classify_scene(bands, sky, coarse.water[crop])
