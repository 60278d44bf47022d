"""Draws the ground of the sample catalog in metres and samples it for all three sensors.

:func:`draw_landscape` draws the landscape of a seed; :meth:`Landscape.sample` evaluates it at the
pixel centres of any window and pixel size. The landscape does not depend on the window, so all
sensors see the same ground at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from salibi_data.synthetic.ground.canvas import Canvas, Surface, Trees
from salibi_data.synthetic.ground.noise import Floats, SmoothField, fractal_field

if TYPE_CHECKING:
    from shapely import STRtree
    from shapely.geometry.base import BaseGeometry

Features = npt.NDArray[np.int32]

_FERTILITY_OCTAVES: Final = MappingProxyType({14.0: 0.45, 34.0: 0.7, 85.0: 0.8, 230.0: 0.5})
_MOISTURE_OCTAVES: Final = MappingProxyType({16.0: 0.3, 45.0: 0.7, 120.0: 1.0, 400.0: 0.6})
_TERRAIN_OCTAVES: Final = MappingProxyType({70.0: 0.05, 190.0: 0.35, 520.0: 1.0})
_RELIEF_M: Final = 9.0
"""Standard deviation of the terrain's height."""
_LARGEST_CROWN_M: Final = 7.0
"""Upper bound on the radius of a tree's crown."""


@dataclass(frozen=True, kw_only=True)
class GroundWindow:
    """Grid of square pixels in local metres; row 0 is the northernmost."""

    west_m: float
    north_m: float
    pixel_m: float
    rows: int
    columns: int

    @property
    def x_m(self) -> npt.NDArray[np.float64]:
        """Local easting of the pixel centres, (columns,)."""
        return self.west_m + (np.arange(self.columns, dtype=np.float64) + 0.5) * self.pixel_m

    @property
    def y_m(self) -> npt.NDArray[np.float64]:
        """Local northing of the pixel centres, (rows,)."""
        return self.north_m - (np.arange(self.rows, dtype=np.float64) + 0.5) * self.pixel_m

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in local metres."""
        return (
            self.west_m,
            self.north_m - self.rows * self.pixel_m,
            self.west_m + self.columns * self.pixel_m,
            self.north_m,
        )

    def grown(self, pixels: int) -> GroundWindow:
        """Return the same grid with ``pixels`` more on every side."""
        return GroundWindow(
            west_m=self.west_m - pixels * self.pixel_m,
            north_m=self.north_m + pixels * self.pixel_m,
            pixel_m=self.pixel_m,
            rows=self.rows + 2 * pixels,
            columns=self.columns + 2 * pixels,
        )


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The landscape at the pixel centres of a window. All arrays have shape (rows, columns)."""

    window: GroundWindow
    feature: Features
    """Feature id: index into :attr:`Landscape.surfaces`."""
    height_m: Floats
    """Height of crowns and roofs above the terrain."""
    fertility: Floats
    """Pattern of growth within fields, mean 0, standard deviation 1."""
    moisture: Floats
    """Pattern of wetness, mean 0, standard deviation 1."""
    terrain_m: Floats
    """Height of the terrain."""
    slope_east: Floats
    """Rise of the terrain per metre eastwards."""
    slope_north: Floats
    """Rise of the terrain per metre northwards."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Drawn landscape. Local x runs east and local y north from its south-western corner."""

    seed: int
    width_m: float
    height_m: float
    surfaces: tuple[Surface, ...]
    """Surfaces by feature id; feature 0 lies wherever nothing else was drawn."""
    shapes: tuple[tuple[BaseGeometry, int], ...]
    """Geometries in local metres with their feature ids; later ones cover earlier ones."""
    index: STRtree
    """Spatial index of ``shapes``."""
    trees: Trees
    fields: Mapping[str, SmoothField]
    """Fields named ``fertility``, ``moisture``, ``terrain``, ``slope_east``, ``slope_north``."""
    _columns: dict[str, Floats] = field(init=False, default_factory=dict)
    _geojson: dict[int, tuple[Mapping[str, Any], int]] = field(init=False, default_factory=dict)

    def column(self, name: str) -> Floats:
        """Return one numeric attribute of every surface, shape (num_features,)."""
        if name not in self._columns:
            values = [getattr(surface, name) for surface in self.surfaces]
            self._columns[name] = np.asarray(values, dtype=np.float32)
        return self._columns[name]

    def sample(self, window: GroundWindow) -> Ground:
        """Evaluate the landscape at the pixel centres of ``window``."""
        x_m, y_m = window.x_m, window.y_m
        feature = self._features(window)
        height_m = self.column("height_m")[feature]
        self._stamp_trees(window, feature, height_m)
        values = {name: smooth.sample(x_m, y_m) for name, smooth in self.fields.items()}
        return Ground(
            window=window,
            feature=feature,
            height_m=height_m,
            fertility=values["fertility"],
            moisture=values["moisture"],
            terrain_m=values["terrain"],
            slope_east=values["slope_east"],
            slope_north=values["slope_north"],
        )

    def _features(self, window: GroundWindow) -> Features:
        """Return the feature id of each pixel: that of the last shape over the pixel's centre."""
        import shapely
        from rasterio import Affine
        from rasterio.features import rasterize

        # The tree returns indices in no order; sorted, later shapes cover earlier ones again.
        indices = np.sort(self.index.query(shapely.box(*window.bounds)))
        shape = (window.rows, window.columns)
        if not len(indices):
            return np.zeros(shape, dtype=np.int32)
        size_m = window.pixel_m
        transform = Affine(size_m, 0, window.west_m, 0, -size_m, window.north_m)
        burned = rasterize(
            [self._shape_geojson(int(k)) for k in indices],
            shape,
            fill=0,
            transform=transform,
            dtype="int32",
        )
        return np.asarray(burned, dtype=np.int32)

    def _shape_geojson(self, index: int) -> tuple[Mapping[str, Any], int]:
        """Return one shape as GeoJSON geometry with its feature id."""
        # Cached: many windows show the river, and converting its thousands of corners is slow.
        if index not in self._geojson:
            geometry, feature = self.shapes[index]
            self._geojson[index] = (geometry.__geo_interface__, feature)
        return self._geojson[index]

    def _stamp_trees(self, window: GroundWindow, feature: Features, height_m: Floats) -> None:
        """Add dome-shaped crowns to both arrays, in place; the higher one wins where two meet."""
        west, south, east, north = window.bounds
        reach = _LARGEST_CROWN_M
        trees = self.trees
        first, last = np.searchsorted(trees.y_m, (south - reach, north + reach))
        x_m = trees.x_m[first:last]
        indices = first + np.flatnonzero((x_m > west - reach) & (x_m < east + reach))
        columns = (trees.x_m[indices] - window.west_m) / window.pixel_m - 0.5
        rows = (window.north_m - trees.y_m[indices]) / window.pixel_m - 0.5
        radii = trees.radius_m[indices] / window.pixel_m
        for row, column, radius, tree in zip(rows, columns, radii, indices, strict=True):
            top, left = max(0, int(row - radius)), max(0, int(column - radius))
            bottom, right = int(row + radius) + 2, int(column + radius) + 2
            below = height_m[top:bottom, left:right]
            if not below.size:
                continue
            down = (np.arange(top, top + below.shape[0]) - row) / radius
            right_of = (np.arange(left, left + below.shape[1]) - column) / radius
            distance_squared = (down * down)[:, None] + right_of * right_of
            dome = trees.height_m[tree] * (1 - 0.55 * distance_squared)
            covers = (distance_squared < 1) & (dome > below)
            below[covers] = dome[covers]
            feature[top:bottom, left:right][covers] = trees.feature[tree]


def draw_landscape(
    *, seed: int, width_m: float, height_m: float, rotation_rad: float = 0.0
) -> Landscape:
    """Draw the landscape of a seed.

    Args:
        seed: random seed; the same seed and size always give the same landscape.
        width_m: extent eastwards.
        height_m: extent northwards.
        rotation_rad: angle from true east to grid east; section roads follow true north.
    """
    from shapely import STRtree

    rng = np.random.default_rng([seed, 0])
    canvas = Canvas(width_m=width_m, height_m=height_m, rotation_rad=rotation_rad)
    canvas.add(Surface(material="grass", vigour=0.6, variation=0.2))
    terrain = _draw_features(canvas, rng)
    size = {"width_m": width_m, "height_m": height_m}
    slope_east, slope_north = terrain.slopes()
    fields = {
        "fertility": fractal_field(rng, octaves=_FERTILITY_OCTAVES, **size),
        "moisture": fractal_field(rng, octaves=_MOISTURE_OCTAVES, **size),
        "terrain": terrain,
        "slope_east": slope_east,
        "slope_north": slope_north,
    }
    return Landscape(
        seed=seed,
        surfaces=tuple(canvas.surfaces),
        shapes=tuple(canvas.shapes),
        index=STRtree([shape for shape, _ in canvas.shapes]),
        trees=canvas.trees(),
        fields=fields,
        **size,
    )


def _draw_features(canvas: Canvas, rng: np.random.Generator) -> SmoothField:
    """Draw everything on the canvas, lowest layer first. Return the terrain."""
    from salibi_data.synthetic.ground import buildings, fields, nature, town

    size = {"width_m": canvas.width_m, "height_m": canvas.height_m}
    hills = fractal_field(rng, octaves=_TERRAIN_OCTAVES, **size)
    hills = SmoothField(coefficients=hills.coefficients * _RELIEF_M, spacing_m=hills.spacing_m)
    course = nature.river_course(canvas, rng)
    canvas.terrain = nature.add_valley(hills, canvas, course)
    broadleaf, conifer, orchard = _tree_kinds(canvas, rng)
    lines = (
        fields.section_lines(canvas.width_m, offset_m=510.0),
        fields.section_lines(canvas.height_m, offset_m=830.0),
    )
    fields.draw_fields(canvas, rng, lines, orchard + broadleaf)
    nature.draw_waterways(canvas, rng)
    nature.draw_woodlots(canvas, rng, broadleaf, conifer)
    buildings.draw_solar_farm(canvas)
    nature.draw_river(canvas, rng, course, broadleaf)
    nature.draw_ponds(canvas, rng, broadleaf)
    buildings.draw_farmsteads(canvas, rng, lines, broadleaf[:4] + conifer[:1])
    buildings.draw_roads(canvas, rng, lines, course)
    town.draw_town(canvas, rng, broadleaf)
    return canvas.terrain


def _tree_kinds(canvas: Canvas, rng: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
    """Return feature ids of broadleaved trees, conifers and fruit trees, in several shades each."""

    def kinds(material: str, num: int) -> list[int]:
        return [
            canvas.add(
                Surface(
                    material=material,
                    vigour=rng.uniform(0.7, 1.0),
                    brightness=rng.uniform(0.75, 1.35),
                    variation=0.02,
                )
            )
            for _ in range(num)
        ]

    return kinds("broadleaf", 12), kinds("conifer", 4), kinds("orchard", 3)
