"""Where the pixels of a file lie: by an affine transform, or by ground control points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from salibi_data.sources.control_points import control_points_of
from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from rasterio.transform import Affine

    from salibi_data.catalog.providers import Product
    from salibi_data.sources.control_points import ControlPoints
    from salibi_data.store.tiles import Bounds

MARGIN_PX: Final = 4
"""Source pixels read beyond the rectangle: bilinear needs one, rotation a little more."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How pixels of a file, or of a window of it, lie on the ground."""

    crs: str
    """Well-known text: of the transform, or of the control points."""
    transform: tuple[float, float, float, float, float, float] | None = None
    """Affine coefficients (a, b, c, d, e, f) from (column, row) to ``crs``."""
    control_points: ControlPoints | None = None
    """In place of the transform."""

    def window(self, bounds_3857: Bounds, *, width: int, height: int) -> Any:
        """The rasterio window of a file of that size that covers the bounds with a margin.

        Returns:
            None where they are apart.
        """
        from rasterio.windows import Window

        west, north, east, south = self._pixel_bounds(bounds_3857)
        left = max(0, int(np.floor(west)) - MARGIN_PX)
        top = max(0, int(np.floor(north)) - MARGIN_PX)
        right = min(width, int(np.ceil(east)) + MARGIN_PX)
        bottom = min(height, int(np.ceil(south)) + MARGIN_PX)
        if right <= left or bottom <= top:
            return None
        return Window(left, top, right - left, bottom - top)

    def within(self, window: Any) -> Placement:
        """The placement of a window's pixels."""
        if self.control_points is not None:
            moved = self.control_points.moved(window.col_off, window.row_off)
            return replace(self, control_points=moved)
        from rasterio.windows import transform

        return replace(self, transform=tuple(transform(window, self._affine()))[:6])

    def outside(self, footprint: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which pixels of an image of ``shape`` lie outside a GeoJSON geometry in degrees."""
        from rasterio.features import geometry_mask
        from rasterio.warp import transform_geom

        geometry = transform_geom("OGC:CRS84", self.crs, dict(footprint))
        outside: NDArray[np.bool_] = geometry_mask([geometry], shape, self._affine())
        return outside

    def _pixel_bounds(self, bounds_3857: Bounds) -> Bounds:
        from rasterio.warp import transform_bounds

        west, south, east, north = transform_bounds("EPSG:3857", self.crs, *bounds_3857)
        if self.control_points is not None:
            return self.control_points.pixel_bounds((west, south, east, north))
        to_pixel = ~self._affine()
        corners = [to_pixel @ (x, y) for x in (west, east) for y in (south, north)]
        columns, rows = [c for c, _ in corners], [r for _, r in corners]
        return min(columns), min(rows), max(columns), max(rows)

    def _affine(self) -> Affine:
        from rasterio.transform import Affine

        return Affine(*cast("Sequence[float]", self.transform))


def placement_of(dataset: Any, product: Product, *, where: str) -> Placement:
    """Where an open rasterio dataset says its pixels are; an item's properties are never asked.

    Args:
        dataset: open.
        product: says whether control points are to be expected.
        where: what messages call it.

    Raises:
        ReadError: it has no CRS, or no usable control points.
    """
    if product.geolocation == "gcps":
        points, crs = control_points_of(dataset, where=where)
        return Placement(crs=crs, control_points=points)
    if dataset.crs is None:
        raise ReadError(
            f"{where} has no CRS, as Sentinel-1 GRD has none; use a terrain-corrected collection "
            "such as sentinel-1-rtc.",
            kind="unusable",
        )
    return Placement(crs=dataset.crs.to_wkt(), transform=tuple(dataset.transform)[:6])
