"""Defines the sample catalog's raster grids and writes rasters as cloud-optimised GeoTIFFs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from salibi_data.synthetic.frame import EPSG, Bounds, Frame
from salibi_data.synthetic.sensors.acquisitions import SENTINEL1_MARGIN_M, SENTINEL2_MARGIN_M

if TYPE_CHECKING:
    import numpy.typing as npt

SENTINEL_PIXEL_M: Final = 10
"""Pixel size of the grids of Sentinel-1 and Sentinel-2."""


@dataclass(frozen=True, kw_only=True)
class RasterGrid:
    """Extent and pixel size of a raster, in local metres."""

    bounds: Bounds
    """West, south, east, north."""
    pixel_m: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        west, south, east, north = self.bounds
        return round((north - south) / self.pixel_m), round((east - west) / self.pixel_m)


def sentinel1_grid(frame: Frame) -> RasterGrid:
    """Return the 10 m grid of the radar scenes; it contains that of Sentinel-2."""
    return RasterGrid(bounds=frame.expanded_area(SENTINEL1_MARGIN_M, 20), pixel_m=SENTINEL_PIXEL_M)


def sentinel2_grid(frame: Frame) -> RasterGrid:
    """Return the 10 m grid of the optical scenes; its corners also fit the 20 m bands."""
    return RasterGrid(bounds=frame.expanded_area(SENTINEL2_MARGIN_M, 20), pixel_m=SENTINEL_PIXEL_M)


def write_cog(
    path: Path, frame: Frame, grid: RasterGrid, image: npt.NDArray[Any], **options: Any
) -> None:
    """Write a cloud-optimised GeoTIFF with overviews; the same image always gives the same bytes.

    Args:
        path: file to write; missing parent folders are created.
        frame: position of the local metres in UTM.
        grid: extent and pixel size of the image.
        image: pixels, shape (bands, rows, columns).
        **options: creation options of GDAL's COG driver that replace the defaults here
            (https://gdal.org/drivers/raster/cog.html), ``nodata``, and ``colorinterp``.
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
            # Without it GDAL takes the fourth 8-bit band for transparency.
            target.colorinterp = colours
        target.write(image)
