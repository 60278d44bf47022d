"""The position of pixels on the ground: by an affine transform, or by ground control points.

Sentinel-1 GRD has no CRS and some 200 control points a scene, on a mesh of about 20 km, each at the
terrain's height there. Pixels between them follow a thin-plate spline through ALL points of the file:
it passes through every point, where a polynomial would miss those displaced by terrain, and windows
of one scene meet without a step. The ``proj:transform`` and ``proj:shape`` that providers publish for
GRD items are invented and never used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from rasterio.control import GroundControlPoint
    from rasterio.transform import Affine

    from salibi_data.catalog.providers import Product
    from salibi_data.store.tiles import Bounds

AffineCoefficients = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f."""

MARGIN_PX: Final = 4
"""Source pixels read beyond the rectangle: bilinear needs one, rotation a little more."""

MIN_CONTROL_POINTS: Final = 4
"""Fewest points that determine a scene's rotation and distortion."""

_EDGE_SAMPLES: Final = 21
"""Points per edge at which a rectangle is projected, since a spline bends straight edges."""

_HALF_TURN: Final = 180.0


@dataclass(frozen=True, kw_only=True)
class ControlPoints:
    """Pixels of an image whose position on the ground is known; each array has shape (num,)."""

    column: NDArray[np.float64]
    """Columns, counted from the left edge of the image; 0.5 is the middle of its first pixel."""
    row: NDArray[np.float64]
    """Rows, counted from the upper edge of the image."""
    x: NDArray[np.float64]
    """East coordinates in the points' CRS: longitude in degrees for Sentinel-1."""
    y: NDArray[np.float64]
    """North coordinates in the points' CRS."""

    def __post_init__(self) -> None:
        if len(self.column) < MIN_CONTROL_POINTS:
            raise ValueError(
                f"{len(self.column)} control points; expected at least {MIN_CONTROL_POINTS}"
            )

    def relative_to(self, column: float, row: float) -> ControlPoints:
        """Return the same points for an image whose first pixel is at ``column``, ``row`` of this."""
        return replace(self, column=self.column - column, row=self.row - row)

    def to_gdal(self) -> list[GroundControlPoint]:
        """Convert to rasterio's class."""
        from rasterio.control import GroundControlPoint

        points = zip(self.row, self.column, self.x, self.y, strict=True)
        return [GroundControlPoint(row, column, x, y) for row, column, x, y in points]

    def to_pixels(
        self, x: ArrayLike, y: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Project coordinates of the points' CRS to (columns, rows), by the thin-plate spline."""
        from rasterio.transform import GCPTransformer

        # A thin-plate spline goes through every point; a polynomial would smooth the terrain away.
        with GCPTransformer(self.to_gdal(), tps=True) as transformer:
            rows, columns = transformer.rowcol(x, y, op=np.float64)
        return np.asarray(columns, np.float64), np.asarray(rows, np.float64)

    def pixel_bounds(self, bounds: Bounds) -> Bounds:
        """Return the least (left, top, right, bottom) in pixels around a rectangle of the CRS."""
        west, south, east, north = bounds
        # The spline bends straight lines: extremes may lie between corners, so a grid is projected.
        along = np.linspace(0, 1, _EDGE_SAMPLES)
        x, y = np.meshgrid(west + along * (east - west), south + along * (north - south))
        columns, rows = self.to_pixels(x.ravel(), y.ravel())
        edges = columns.min(), rows.min(), columns.max(), rows.max()
        left, top, right, bottom = (float(edge) for edge in edges)
        return left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The position on the ground of the pixels of a file, or of a window of it."""

    crs: str
    """CRS of the transform or of the control points, as well-known text."""
    transform: AffineCoefficients | None = None
    """Affine transform from (column, row) to ``crs``."""
    control_points: ControlPoints | None = None
    """Control points, where there is no transform."""

    def window(self, bounds_3857: Bounds, *, width: int, height: int) -> Any:
        """Return the rasterio window that covers the bounds with a margin.

        Args:
            bounds_3857: (west, south, east, north) in metres of EPSG:3857.
            width: columns of the file.
            height: rows of the file.

        Returns:
            None where the file does not reach the bounds.
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

    def for_window(self, window: Any) -> Placement:
        """Return the placement of a rasterio window's pixels."""
        if self.control_points is not None:
            points = self.control_points.relative_to(window.col_off, window.row_off)
            return replace(self, control_points=points)
        from rasterio.windows import transform

        return replace(self, transform=tuple(transform(window, self._affine()))[:6])

    def outside(self, footprint: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which pixels of an image lie outside a footprint; needs a transform.

        Args:
            footprint: GeoJSON geometry, longitude and latitude in degrees.
            shape: (rows, columns) of the image, and of the result.
        """
        from rasterio.features import geometry_mask
        from rasterio.warp import transform_geom

        # GeoJSON is longitude, latitude (RFC 7946): OGC:CRS84, since EPSG:4326 is latitude first.
        geometry = transform_geom("OGC:CRS84", self.crs, dict(footprint))
        outside: NDArray[np.bool_] = geometry_mask([geometry], shape, self._affine())
        return outside

    def _pixel_bounds(self, bounds_3857: Bounds) -> Bounds:
        from rasterio.warp import transform_bounds

        # transform_bounds samples the edges as well, because reprojected edges are curved.
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


@dataclass(frozen=True, kw_only=True)
class SceneRaster:
    """A window of one file of a scene: its pixels in physical units, and their position."""

    values: NDArray[np.float32]
    """Pixels, shape (bands, rows, columns); NaN in every band where there is no observation."""
    crs: str
    """CRS of the transform or of the control points, as well-known text."""
    where: str = "a source"
    """Name of the file in messages."""
    transform: AffineCoefficients | None = None
    """Affine transform from (column, row) of this window to ``crs``."""
    control_points: ControlPoints | None = None
    """All control points of the file, in pixels of this window, where there is no transform."""
    integer_bound: float | None = None
    """Upper bound of the values if all are whole numbers; None where they may be fractions."""
    warnings: tuple[str, ...] = ()
    """Sentences about what looks wrong with these pixels, for people to read."""

    def __post_init__(self) -> None:
        if (self.transform is None) == (self.control_points is None):
            raise ValueError("a source has either a transform or control points")


def read_placement(dataset: Any, product: Product, *, where: str) -> Placement:
    """Return the placement that an open rasterio dataset states; STAC properties are not used.

    Args:
        dataset: open rasterio dataset.
        product: product of the file; ``geolocation`` says whether to expect control points.
        where: name of the file in messages.

    Raises:
        ReadError: the file has no CRS, or no usable control points.
    """
    if product.geolocation == "gcps":
        points, crs = read_control_points(dataset, where=where)
        return Placement(crs=crs, control_points=points)
    if dataset.crs is None:
        raise ReadError(
            f"{where} has no CRS, as Sentinel-1 GRD has none; use a terrain-corrected collection "
            "such as sentinel-1-rtc.",
            kind="unusable",
        )
    return Placement(crs=dataset.crs.to_wkt(), transform=tuple(dataset.transform)[:6])


def read_control_points(dataset: Any, *, where: str) -> tuple[ControlPoints, str]:
    """Return the control points of an open rasterio dataset, and their CRS as well-known text.

    Args:
        dataset: open rasterio dataset.
        where: name of the file in messages.

    Raises:
        ReadError: there are none, too few, none with a CRS, or they cross the antimeridian.
    """
    points, crs = dataset.gcps
    if crs is None or len(points) < MIN_CONTROL_POINTS:
        raise ReadError(
            f"{where} has {len(points)} ground control points with CRS {crs}; expected at least "
            f"{MIN_CONTROL_POINTS} with one, as Sentinel-1 GRD has. Check geolocation in the "
            "catalog's TOML.",
            kind="unusable",
        )
    # Sentinel-1 GRD has a CRS for its control points only; ``dataset.crs`` is empty there.
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
