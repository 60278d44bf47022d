"""Rasters whose x axis goes on over 180 degrees: grids from 0 to 360, across 180, round the globe.

Tiles end at 180 degrees. Such a raster is moved by whole turns to where a tile has it, and the columns
of one that goes round the globe go on with the first after the last.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_CYLINDRICAL: Final = re.compile(
    r'PROJECTION\["(Mercator_[12]SP|Equirectangular|Cylindrical_Equal_Area|Miller_Cylindrical)"'
)
"""Projections, as well-known text names them, whose x is a multiple of the longitude."""

_SEAM_ERROR_PX: Final = 0.1
"""Largest share of a pixel by which columns of a rounded width may miss a whole turn."""


@lru_cache(maxsize=64)
def turn_of(crs: str) -> float | None:
    """Return the length of a turn round the globe along the x axis of a CRS, in its units.

    Args:
        crs: well-known text, or any form that rasterio reads.

    Returns:
        360 for degrees; None where x does not go round, as in a UTM zone.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    known = CRS.from_user_input(crs)
    if known.is_geographic:
        # Degrees exactly: 2 pi by their size in radians would be off in the last digit.
        name, radians = known.units_factor
        return 360.0 if name == "degree" else math.tau / float(radians)
    if _CYLINDRICAL.search(known.to_wkt()) is None:
        return None
    # One of the two pairs of meridians may lie on either side of the projection's own edge.
    x, _ = transform("OGC:CRS84", known, [0, 1, 90, 91], [0, 0, 0, 0])
    return 360.0 * float(max(x[1] - x[0], x[3] - x[2]))


def turns_towards(extent: tuple[float, float], target: tuple[float, float], turn: float) -> int:
    """Return by how many turns an extent along x has to move to share most with another.

    Args:
        extent: (least, largest) x.
        target: (least, largest) x of where it should be.
        turn: length of a turn.

    Returns:
        0 where it does not reach the target in any turn; of equal ones the nearest to 0.
    """
    first = math.ceil((target[0] - extent[1]) / turn)
    last = math.floor((target[1] - extent[0]) / turn)

    def shared(turns: int) -> float:
        return min(target[1], extent[1] + turns * turn) - max(target[0], extent[0] + turns * turn)

    candidates = sorted(range(first, last + 1), key=lambda turns: (abs(turns), turns))
    return max(candidates, key=shared, default=0)


def columns_of_turn(pixel: float, width: int, turn: float) -> int | None:
    """Return the columns of a turn of a raster that goes round the globe, None for all others.

    Args:
        pixel: width of a pixel.
        width: columns of the raster; one column may be there twice, at both ends.
        turn: length of a turn.
    """
    columns = round(turn / abs(pixel))
    off_px = abs(columns - turn / abs(pixel))
    return columns if columns <= width and off_px <= _SEAM_ERROR_PX else None


class RoundGlobe:
    """An open rasterio dataset of which windows may reach over the first and the last column."""

    def __init__(self, dataset: Any, turn_px: int) -> None:
        """Read the same columns again every ``turn_px`` columns of ``dataset``."""
        self._dataset = dataset
        self._turn_px = turn_px

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def read(self, *args: Any, window: Any = None, **options: Any) -> NDArray[Any]:
        """Read as rasterio does."""
        return self._joined(self._dataset.read, args, window, options)

    def read_masks(self, *args: Any, window: Any = None, **options: Any) -> NDArray[Any]:
        """Read masks as rasterio does."""
        return self._joined(self._dataset.read_masks, args, window, options)

    def dataset_mask(self, *args: Any, window: Any = None, **options: Any) -> NDArray[Any]:
        """Read the mask of the dataset as rasterio does."""
        return self._joined(self._dataset.dataset_mask, args, window, options)

    def _joined(
        self,
        read: Callable[..., NDArray[Any]],
        args: tuple[Any, ...],
        window: Any,
        options: dict[str, Any],
    ) -> NDArray[Any]:
        from rasterio.windows import Window

        if window is None:
            return read(*args, **options)
        left, right = window.col_off, window.col_off + window.width
        if left >= 0 and right <= self._dataset.width:
            return read(*args, window=window, **options)
        parts = []
        while left < right:
            column = left % self._turn_px
            width = min(self._turn_px - column, right - left)
            part = Window(column, window.row_off, width, window.height)
            parts.append(read(*args, window=part, **options))
            left += width
        return np.concatenate(parts, axis=-1)
