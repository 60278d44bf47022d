"""Collects what is drawn of the sample landscape: surfaces, shapes in drawing order, and trees.

Shapes are drawn in the survey frame, whose axes run true east and north like those of the Public
Land Survey. The canvas rotates them into the projected frame, whose grid north differs from true
north by a fraction of a degree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from salibi_data.synthetic.ground.noise import Floats, SmoothField

Doubles: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Properties of one parcel, roof, road or water body, which has a feature id of its own."""

    material: str
    """Key of :data:`salibi_data.synthetic.ground.materials.MATERIALS`."""
    cover_bias: float = 0.0
    """Difference of the canopy share from the material's."""
    vigour: float = 0.75
    """Health of the canopy: 0 stressed and yellow, 1 lush."""
    moisture: float = 0.5
    """Moisture of the soil: 0 dry, 1 wet."""
    tone: float = 0.3
    """Colour of the soil: 0 dark, 1 pale."""
    brightness: float = 1.0
    """Factor on the reflectance."""
    variation: float = 0.08
    """Weight of the ground's fertility pattern in the canopy share."""
    wetness: float = 0.0
    """Loss of canopy share in wet hollows, per unit of the moisture pattern."""
    height_m: float = 0.0
    """Height above the terrain."""
    row_angle_rad: float = 0.0
    """Direction across the rows, counter-clockwise from east."""
    row_spacing_m: float = 0.0
    """Distance between rows; 0 means no rows."""
    row_depth: float = 0.0
    """Amplitude of the rows in canopy share."""
    contour_rad_per_m: float = 0.0
    """Row phase per metre of terrain height; makes rows follow the contour lines."""
    centre_xy: tuple[float, float] | None = None
    """Centre of circular rows in local metres, as under a pivot; None for straight rows."""


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Single trees, sorted by northing. All arrays have shape (num_trees,)."""

    x_m: Doubles
    """Local easting."""
    y_m: Doubles
    """Local northing."""
    radius_m: Floats
    """Radius of the crown."""
    height_m: Floats
    feature: npt.NDArray[np.int32]
    """Feature id of the tree's surface."""


@dataclass(kw_only=True)
class Canvas:
    """Content drawn so far; :meth:`paint` and :meth:`plant` add to it."""

    width_m: float
    height_m: float
    rotation_rad: float
    """Angle from the survey frame to the projected frame, counter-clockwise."""
    terrain: SmoothField | None = None
    """Height of the ground in metres, once drawn."""
    surfaces: list[Surface] = field(default_factory=list)
    """Surfaces by feature id."""
    shapes: list[tuple[BaseGeometry, int]] = field(default_factory=list)
    """Geometries in local metres with their feature ids; later ones cover earlier ones."""
    obstacles: list[BaseGeometry] = field(default_factory=list)
    """Geometries that no tree may stand on: water, roads, buildings."""
    groves: list[tuple[Doubles, Floats, Floats, npt.NDArray[np.int32]]] = field(
        default_factory=list
    )
    """Groups of trees: positions (num, 2), crown radii, heights and feature ids."""

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the canvas, about which the survey frame is rotated."""
        return self.width_m / 2, self.height_m / 2

    def to_local(self, points: Doubles) -> Doubles:
        """Rotate survey points, shape (..., 2), into the projected frame."""
        cos, sin = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        centred = points - np.asarray(self.centre)
        rotated = np.stack(
            [
                centred[..., 0] * cos - centred[..., 1] * sin,
                centred[..., 0] * sin + centred[..., 1] * cos,
            ],
            axis=-1,
        )
        return np.asarray(rotated + np.asarray(self.centre))

    def add(self, surface: Surface) -> int:
        """Add a surface and return its feature id."""
        self.surfaces.append(surface)
        return len(self.surfaces) - 1

    def paint(self, geometry: Any, surface: Surface | int, *, obstacle: bool = False) -> None:
        """Draw a polygon of the survey frame over the present content.

        Args:
            geometry: polygon or polygons; nothing happens if it is empty.
            surface: new surface, or the feature id of a present one.
            obstacle: whether to keep trees off the polygon.
        """
        import shapely

        if geometry.is_empty:
            return
        feature = surface if isinstance(surface, int) else self.add(surface)
        local_geometry = shapely.transform(geometry, self.to_local)
        self.shapes.append((local_geometry, feature))
        if obstacle:
            self.obstacles.append(local_geometry)

    def plant(
        self,
        points: Doubles,
        rng: np.random.Generator,
        *,
        features: list[int],
        radius_m: tuple[float, float],
    ) -> None:
        """Plant trees of random size and kind.

        Args:
            points: positions in the survey frame, shape (num, 2).
            rng: source of the randomness.
            features: feature ids to choose from.
            radius_m: smallest and largest radius of the crowns.
        """
        num = len(points)
        radius = rng.uniform(*radius_m, num).astype(np.float32)
        height = (radius * rng.uniform(1.9, 2.7, num)).astype(np.float32)
        kind = rng.choice(np.asarray(features, dtype=np.int32), num)
        self.groves.append((self.to_local(points), radius, height, kind))

    def trees(self) -> Trees:
        """Return all trees that do not stand on an obstacle."""
        import shapely

        points = np.concatenate([grove[0] for grove in self.groves])
        radius, height, kind = (
            np.concatenate([grove[k] for grove in self.groves]) for k in (1, 2, 3)
        )
        # Query with the obstacles, not with the points: shapely prepares only the geometries that
        # query, and the river has thousands of corners.
        index = shapely.STRtree(shapely.points(points))
        blocked = index.query(self.obstacles, predicate="intersects")[1]
        free = np.ones(len(points), dtype=bool)
        free[blocked] = False
        order = np.flatnonzero(free)
        order = order[np.lexsort((points[order, 0], points[order, 1]))]
        return Trees(
            x_m=points[order, 0],
            y_m=points[order, 1],
            radius_m=radius[order],
            height_m=height[order],
            feature=kind[order],
        )


def scatter_points(polygon: Any, rng: np.random.Generator, *, spacing_m: float) -> Doubles:
    """Return the points of a jittered lattice that lie in a polygon, shape (num, 2)."""
    import shapely

    west, south, east, north = polygon.bounds
    u, v = np.meshgrid(np.arange(west, east, spacing_m), np.arange(south, north, spacing_m))
    points = np.stack([u.ravel(), v.ravel()], axis=-1)
    points += rng.uniform(-0.45, 0.45, points.shape) * spacing_m
    shapely.prepare(polygon)
    return np.asarray(points[shapely.contains_xy(polygon, points[:, 0], points[:, 1])])


def points_along(line: Any, rng: np.random.Generator, *, spacing_m: float) -> Doubles:
    """Return unevenly spaced points close to a line, shape (num, 2)."""
    import shapely

    num = int(line.length / spacing_m)
    if num == 0:
        return np.zeros((0, 2))
    distance_m = (np.arange(num) + rng.uniform(0.1, 0.9, num)) * spacing_m
    points = shapely.get_coordinates(shapely.line_interpolate_point(line, distance_m))
    return np.asarray(points + rng.normal(0.0, 0.9, points.shape))


def wavy_disc(rng: np.random.Generator, *, centre: tuple[float, float], radius_m: float) -> Any:
    """Return a round polygon with a wavy outline."""
    from shapely.geometry import Polygon

    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    outline = np.ones_like(angle)
    for wave in range(2, 7):
        phase = rng.uniform(0, 2 * np.pi)
        outline += rng.normal(0.0, 0.32 / wave) * np.cos(wave * angle + phase)
    outline = radius_m * np.clip(outline, 0.35, 1.8)
    return Polygon(
        np.stack(
            [centre[0] + outline * np.cos(angle), centre[1] + outline * np.sin(angle)], axis=-1
        )
    ).buffer(0)
