"""Ground control points: where the pixels of a file without a CRS lie, and their calibration.

Sentinel-1 GRD has some 200 points a scene, on a mesh of about 20 km, each at its own height of the
terrain. Pixels in between follow a thin-plate spline through ALL points of the file: it meets every
point, where a polynomial passes by those that terrain moves, and windows of one scene meet.
Published ``proj:transform`` and ``proj:shape`` of GRD items are invented and are never used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from rasterio.control import GroundControlPoint

    from salibi_data.store.tiles import Bounds

MIN_POINTS: Final = 4
"""Fewer than this do not say how a scene is turned and bent."""

_EDGE_SAMPLES: Final = 21
"""Points along a rectangle's edge that are looked up, since a spline bends straight edges."""

_HALF_TURN: Final = 180.0


@dataclass(frozen=True, kw_only=True)
class ControlPoints:
    """Pixels of an image whose place on the ground is known; each array has shape (num,)."""

    column: NDArray[np.float64]
    """From the left edge of the image; 0.5 is the middle of its first pixel."""
    row: NDArray[np.float64]
    """From the upper edge of the image."""
    x: NDArray[np.float64]
    """East coordinate in the points' CRS: longitude in degrees for Sentinel-1."""
    y: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.column) < MIN_POINTS:
            raise ValueError(f"{len(self.column)} control points; expected at least {MIN_POINTS}")

    def moved(self, column: float, row: float) -> ControlPoints:
        """The same points in an image whose first pixel is at ``column``, ``row`` of this one."""
        return replace(self, column=self.column - column, row=self.row - row)

    def to_gdal(self) -> list[GroundControlPoint]:
        """The points as rasterio takes them."""
        from rasterio.control import GroundControlPoint

        places = zip(self.row, self.column, self.x, self.y, strict=True)
        return [GroundControlPoint(row, column, x, y) for row, column, x, y in places]

    def to_pixels(
        self, x: ArrayLike, y: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns and rows of places in the points' CRS, by the thin-plate spline."""
        from rasterio.transform import GCPTransformer

        with GCPTransformer(self.to_gdal(), tps=True) as transformer:
            rows, columns = transformer.rowcol(x, y, op=np.float64)
        return np.asarray(columns, np.float64), np.asarray(rows, np.float64)

    def pixel_bounds(self, bounds: Bounds) -> Bounds:
        """Least (left, top, right, bottom) in pixels that holds a rectangle of the points' CRS."""
        west, south, east, north = bounds
        along = np.linspace(0, 1, _EDGE_SAMPLES)
        x, y = np.meshgrid(west + along * (east - west), south + along * (north - south))
        columns, rows = self.to_pixels(x.ravel(), y.ravel())
        edges = columns.min(), rows.min(), columns.max(), rows.max()
        left, top, right, bottom = (float(edge) for edge in edges)
        return left, top, right, bottom


def control_points_of(dataset: Any, *, where: str) -> tuple[ControlPoints, str]:
    """The control points of an open rasterio dataset, and their CRS as well-known text.

    Args:
        dataset: open.
        where: what messages call it.

    Raises:
        ReadError: it has none, too few, none with a CRS, or they cross the antimeridian.
    """
    points, crs = dataset.gcps
    if crs is None or len(points) < MIN_POINTS:
        raise ReadError(
            f"{where} has {len(points)} ground control points with CRS {crs}; expected at least "
            f"{MIN_POINTS} with one, as Sentinel-1 GRD has. Check geolocation in the catalog's TOML.",
            kind="unusable",
        )
    x = np.array([point.x for point in points], np.float64)
    if crs.is_geographic and np.ptp(x) > _HALF_TURN:
        raise ReadError(
            f"{where} has ground control points on both sides of the antimeridian, which no spline "
            "can follow; leave this scene out.",
            kind="unusable",
        )
    return ControlPoints(
        column=np.array([point.col for point in points], np.float64),
        row=np.array([point.row for point in points], np.float64),
        x=x,
        y=np.array([point.y for point in points], np.float64),
    ), crs.to_wkt()
