"""The position of pixels on the ground: by an affine transform, or by ground control points.

Sentinel-1 GRD has no CRS and some 200 control points a scene, on a mesh of about 20 km, each at the
terrain's height there. Pixels between them follow a thin-plate spline through ALL points of the file:
it passes through every point, where a polynomial would miss those displaced by terrain, and windows
of one scene meet without a step. The ``proj:transform`` and ``proj:shape`` that providers publish for
GRD items are invented and never used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from salibi_data.catalog.outlines import outline_of, polygons_alone
from salibi_data.sources.longitudes import columns_of_turn, turn_of, turns_towards
from salibi_data.store.errors import ReadError
from salibi_data.store.tiles import boxes_on_globe

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

_WIDE_DEG: Final = 90.0
"""Width of an outline in degrees from which on its corners may have no place in a local projection."""

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
    turn_px: int | None = None
    """Columns of a turn, where the file goes round the globe; see
    :class:`~salibi_data.sources.longitudes.RoundGlobe`."""

    def near(self, bounds_3857: Bounds, *, width: int, height: int) -> Placement:
        """Return the placement moved by whole turns round the globe to where the bounds are.

        Longitudes of 0..360 become those of the bounds, and a raster across 180 degrees comes to the
        side of the bounds.

        Args:
            bounds_3857: (west, south, east, north) in metres of EPSG:3857.
            width: columns of the file.
            height: rows of the file.
        """
        turn = turn_of(self.crs)
        if turn is None:
            return self
        from rasterio.warp import transform_bounds

        west, _, east, _ = transform_bounds("EPSG:3857", self.crs, *bounds_3857)
        shift = turn * turns_towards(self._extent(width, height), (west, east), turn)
        if self.control_points is not None:
            points = self.control_points
            return replace(self, control_points=replace(points, x=points.x + shift))
        a, b, c, d, e, f = cast("AffineCoefficients", self.transform)
        turn_px = columns_of_turn(a, width, turn) if b == d == 0 else None
        return replace(self, transform=(a, b, c + shift, d, e, f), turn_px=turn_px)

    def _extent(self, width: int, height: int) -> tuple[float, float]:
        """Return the least and largest x of a file."""
        if self.control_points is not None:
            return float(self.control_points.x.min()), float(self.control_points.x.max())
        a, b, c, *_ = cast("AffineCoefficients", self.transform)
        corners = [a * column + b * row + c for column in (0, width) for row in (0, height)]
        return min(corners), max(corners)

    def window(self, bounds_3857: Bounds, *, width: int, height: int) -> Any:
        """Return the rasterio window that covers the bounds with a margin.

        Args:
            bounds_3857: (west, south, east, north) in metres of EPSG:3857.
            width: columns of the file.
            height: rows of the file.

        Returns:
            None where the file does not reach the bounds. The window of a file that goes round the
            globe may reach over its first and last column.
        """
        from rasterio.windows import Window

        west, north, east, south = self._pixel_bounds(bounds_3857)
        left = int(np.floor(west)) - MARGIN_PX
        right = int(np.ceil(east)) + MARGIN_PX
        if self.turn_px is None:
            left, right = max(0, left), min(width, right)
        top = max(0, int(np.floor(north)) - MARGIN_PX)
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
        import shapely
        from rasterio.features import geometry_mask
        from rasterio.warp import transform_geom
        from shapely.geometry import mapping

        # GeoJSON is longitude, latitude (RFC 7946): OGC:CRS84, since EPSG:4326 is latitude first.
        outline = self._cut_to_image(outline_of(footprint), shape)
        if outline.is_empty:
            return np.ones(shape, dtype=bool)
        geometry = shapely.geometry.shape(transform_geom("OGC:CRS84", self.crs, mapping(outline)))
        copies = [geometry]
        if (turn := turn_of(self.crs)) is not None:
            # The margin of a window at 180 degrees lies on the other side of it.
            least, largest = self._extent(shape[1], shape[0])
            west, _, east, _ = geometry.bounds
            first, last = math.ceil((least - east) / turn), math.floor((largest - west) / turn)
            copies = [
                shapely.transform(geometry, lambda xy, shift=shift: xy + np.array([shift, 0.0]))
                for shift in turn * np.arange(first, last + 1)
            ] or copies
        outside: NDArray[np.bool_] = geometry_mask(copies, shape, self._affine())
        return outside

    def _cut_to_image(self, outline: Any, shape: tuple[int, ...]) -> Any:
        """Cut an outline that is too wide for most projections to the surroundings of an image."""
        import shapely
        from rasterio.transform import array_bounds
        from rasterio.warp import transform_bounds

        if all(part.bounds[2] - part.bounds[0] <= _WIDE_DEG for part in shapely.get_parts(outline)):
            return outline
        bounds = array_bounds(*shape, self._affine())
        west, south, east, north = transform_bounds(self.crs, "OGC:CRS84", *bounds)
        south, north = max(south - 1, -_HALF_TURN / 2), min(north + 1, _HALF_TURN / 2)
        boxes = boxes_on_globe((west - 1, south, east + 1, north))
        near = shapely.union_all([shapely.box(*box) for box in boxes])
        return polygons_alone(shapely.intersection(outline, near))

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
        advice = (
            "but control points, as Sentinel-1 GRD has; use a terrain-corrected collection such as "
            "sentinel-1-rtc, or set the product's geolocation to 'gcps'."
            if dataset.gcps[0]
            else "so that its place is unknown. Leave the item out, or write the CRS into the file "
            "(gdal_edit -a_srs)."
        )
        raise ReadError(f"{where} has no CRS, {advice}", kind="unusable")
    return Placement(crs=dataset.crs.to_wkt(), transform=tuple(dataset.transform)[:6])


def read_control_points(dataset: Any, *, where: str) -> tuple[ControlPoints, str]:
    """Return the control points of an open rasterio dataset, and their CRS as well-known text.

    Args:
        dataset: open rasterio dataset.
        where: name of the file in messages.

    Raises:
        ReadError: there are none, too few, none with a CRS, or they are far apart.
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
        # On both sides of 180 degrees: no spline can follow longitudes that jump.
        x = np.where(x < 0, x + 2 * _HALF_TURN, x)
    if crs.is_geographic and np.ptp(x) > _HALF_TURN:
        raise ReadError(
            f"{where} has ground control points from {x.min():g} to {x.max():g} degrees of longitude, "
            "more than half the globe apart; leave this scene out.",
            kind="unusable",
        )
    return ControlPoints(
        column=np.array([point.col for point in points], np.float64),
        row=np.array([point.row for point in points], np.float64),
        x=x,
        y=np.array([point.y for point in points], np.float64),
    ), crs.to_wkt()
