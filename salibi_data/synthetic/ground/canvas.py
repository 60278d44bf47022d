"""The canvas on which the sample landscape is drawn: surfaces, shapes in painter's order, trees.

Shapes are drawn in a frame whose axes run east and north, as the land survey does, and are turned
at once into the projected frame, whose grid north is a fraction of a degree off.
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
    """One parcel, roof, road or water body: a row of the table that a feature id points into."""

    material: str
    cover_bias: float = 0.0
    """Added to the material's canopy share."""
    vigour: float = 0.75
    moisture: float = 0.5
    tone: float = 0.3
    """Soil colour, 0 dark .. 1 pale."""
    brightness: float = 1.0
    variation: float = 0.08
    """How strongly the ground's fertility pattern shows in the canopy."""
    wetness: float = 0.0
    """How strongly wet hollows drown the canopy."""
    height_m: float = 0.0
    row_angle_rad: float = 0.0
    """Direction across the rows, counter-clockwise from east."""
    row_spacing_m: float = 0.0
    """0 means no rows."""
    row_depth: float = 0.0
    """Amplitude of the rows in canopy share."""
    contour_rad_per_m: float = 0.0
    """Row phase per metre of terrain height: rows bend with the contour lines."""
    centre_xy: tuple[float, float] | None = None
    """Rows run in circles about this point (local metres), as under a pivot."""


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Single trees, sorted by northing. All arrays are (num_trees,), lengths in metres."""

    x_m: Doubles
    y_m: Doubles
    radius_m: Floats
    height_m: Floats
    feature: npt.NDArray[np.int32]


@dataclass(kw_only=True)
class Canvas:
    """What has been drawn so far; grows by :meth:`paint` and :meth:`plant`."""

    width_m: float
    height_m: float
    rotation_rad: float
    """Angle from the survey frame to the projected frame, counter-clockwise."""
    terrain: SmoothField | None = None
    surfaces: list[Surface] = field(default_factory=list)
    shapes: list[tuple[BaseGeometry, int]] = field(default_factory=list)
    """(geometry in local metres, feature id), later ones on top."""
    obstacles: list[BaseGeometry] = field(default_factory=list)
    """Where no tree may stand: water, roads, buildings."""
    groves: list[tuple[Doubles, Floats, Floats, npt.NDArray[np.int32]]] = field(
        default_factory=list
    )

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the canvas, the point about which the survey frame is turned."""
        return self.width_m / 2, self.height_m / 2

    def to_local(self, points: Doubles) -> Doubles:
        """Survey points (..., 2) in the projected frame."""
        cos, sin = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        centred = points - np.asarray(self.centre)
        turned = np.stack(
            [
                centred[..., 0] * cos - centred[..., 1] * sin,
                centred[..., 0] * sin + centred[..., 1] * cos,
            ],
            axis=-1,
        )
        return np.asarray(turned + np.asarray(self.centre))

    def add(self, surface: Surface) -> int:
        """Feature id of a new surface."""
        self.surfaces.append(surface)
        return len(self.surfaces) - 1

    def paint(self, geometry: Any, surface: Surface | int, *, obstacle: bool = False) -> None:
        """Lay a polygon of the survey frame over what is there."""
        import shapely

        if geometry.is_empty:
            return
        feature = surface if isinstance(surface, int) else self.add(surface)
        turned = shapely.transform(geometry, self.to_local)
        self.shapes.append((turned, feature))
        if obstacle:
            self.obstacles.append(turned)

    def plant(
        self,
        points: Doubles,
        rng: np.random.Generator,
        *,
        features: list[int],
        radius_m: tuple[float, float],
    ) -> None:
        """Set trees at survey points (num, 2), with crowns of random size and kind."""
        num = len(points)
        radius = rng.uniform(*radius_m, num).astype(np.float32)
        height = (radius * rng.uniform(1.9, 2.7, num)).astype(np.float32)
        kind = rng.choice(np.asarray(features, dtype=np.int32), num)
        self.groves.append((self.to_local(points), radius, height, kind))

    def trees(self) -> Trees:
        """All trees that do not stand on an obstacle."""
        import shapely

        points = np.concatenate([grove[0] for grove in self.groves])
        radius, height, kind = (
            np.concatenate([grove[k] for grove in self.groves]) for k in (1, 2, 3)
        )
        # Obstacles ask for points, not points for obstacles: only the asking side is prepared,
        # and the river has thousands of corners.
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


def scatter(polygon: Any, rng: np.random.Generator, *, spacing_m: float) -> Doubles:
    """Points about ``spacing_m`` apart inside a polygon: a jittered lattice, (num, 2)."""
    import shapely

    west, south, east, north = polygon.bounds
    u, v = np.meshgrid(np.arange(west, east, spacing_m), np.arange(south, north, spacing_m))
    points = np.stack([u.ravel(), v.ravel()], axis=-1)
    points += rng.uniform(-0.45, 0.45, points.shape) * spacing_m
    shapely.prepare(polygon)
    return np.asarray(points[shapely.contains_xy(polygon, points[:, 0], points[:, 1])])


def along(line: Any, rng: np.random.Generator, *, spacing_m: float) -> Doubles:
    """Points along a line, unevenly spaced and a little off it, (num, 2)."""
    import shapely

    num = int(line.length / spacing_m)
    if num == 0:
        return np.zeros((0, 2))
    at_m = (np.arange(num) + rng.uniform(0.1, 0.9, num)) * spacing_m
    points = shapely.get_coordinates(shapely.line_interpolate_point(line, at_m))
    return np.asarray(points + rng.normal(0.0, 0.9, points.shape))


def blob(rng: np.random.Generator, *, centre: tuple[float, float], radius_m: float) -> Any:
    """Round shape with a wavy outline."""
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
