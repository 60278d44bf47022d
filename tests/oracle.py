"""What rasterio makes of a file: the truth that the project's own reading is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from salibi_data.grid import PixelGrid, TileXYZ

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def warped(
    path: Path, bands: list[int], tile: TileXYZ, tile_px: int = 256, *, all_valid: bool = False
) -> NDArray[np.float64]:
    """A tile as rasterio's warper gives it: bilinear, float, tight error, NaN outside.

    With ``all_valid``, the value that the file declares to be nodata is a value like any other.
    """
    grid = PixelGrid.around([tile], tile_px=tile_px)
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(
            dataset,
            crs="EPSG:3857",
            transform=Affine(*grid.transform),
            width=tile_px,
            height=tile_px,
            resampling=Resampling.bilinear,
            tolerance=0.001,
            dtype="float32",
            **({"src_nodata": None, "nodata": -9999} if all_valid else {"nodata": np.nan}),
        ) as vrt,
    ):
        return vrt.read(bands).astype(np.float64)
