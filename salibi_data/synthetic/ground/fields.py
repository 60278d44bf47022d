"""Draws fields, strips, pivots and orchards of the sample landscape.

The pattern is that of the U.S. Public Land Survey System: roads bound sections of one square mile,
which are divided repeatedly into parcels. Lengths are metres in the survey frame.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from salibi_data.synthetic.ground.canvas import (
    Canvas,
    Doubles,
    Surface,
    points_along,
    scatter_points,
)

SECTION_M: Final = 1609.344
"""Side of a section: one mile."""
RIGHT_OF_WAY_M: Final = 10.0
"""Distance from the centre of a section road to the edge of the fields."""

_CROPS: Final = {
    "corn": 0.27,
    "soy": 0.24,
    "alfalfa": 0.14,
    "stubble": 0.09,
    "pasture": 0.12,
    "vegetables": 0.05,
    "bare": 0.06,
    "orchard": 0.03,
}
"""Probability of each crop."""
_HEADLAND_M: Final = 14.0
_DEEPEST_CUT: Final = 6
_STRIPS_SHARE: Final = 0.12
_SLANTED_SHARE: Final = 0.3
_HEDGED_SHARE: Final = 0.22
_CUT_SHARE: Final = 0.45
_CONTOUR_SHARE: Final = 0.16
_GAP_SHARE: Final = 0.06
_PIVOT_SHARE: Final = 0.10


def section_lines(extent_m: float, *, offset_m: float) -> Doubles:
    """Return the positions of the section roads along one axis, with one beyond each end."""
    first = -SECTION_M + offset_m
    return np.arange(first, extent_m + SECTION_M, SECTION_M)


def draw_fields(
    canvas: Canvas,
    rng: np.random.Generator,
    lines: tuple[Doubles, Doubles],
    trees: list[int],
) -> None:
    """Divide every section between the roads into parcels and draw them.

    Args:
        canvas: canvas to draw on.
        rng: source of the randomness.
        lines: positions of the section roads, eastings and northings.
        trees: feature ids of trees; the first one is the fruit tree of orchards.
    """
    for west, east in zip(lines[0][:-1], lines[0][1:], strict=True):
        for south, north in zip(lines[1][:-1], lines[1][1:], strict=True):
            _draw_section(canvas, rng, (west, south, east, north), trees)


def _draw_section(
    canvas: Canvas, rng: np.random.Generator, bounds: tuple[float, ...], trees: list[int]
) -> None:
    """Draw the quarters of a section, each as strips or irregular parcels, some with a pivot."""
    from shapely.geometry import box

    west, south, east, north = bounds
    middle_u = 0.5 * (west + east) + rng.normal(0, 25)
    middle_v = 0.5 * (south + north) + rng.normal(0, 25)
    edge = RIGHT_OF_WAY_M
    for u0, u1 in ((west + edge, middle_u), (middle_u, east - edge)):
        for v0, v1 in ((south + edge, middle_v), (middle_v, north - edge)):
            quarter = box(u0, v0, u1, v1)
            kind = rng.random()
            parcels = (
                _strips(quarter, rng) if kind < _STRIPS_SHARE else _split(quarter, rng, depth=0)
            )
            for parcel in parcels:
                draw_parcel(canvas, rng, parcel, trees)
            if kind > 1 - _PIVOT_SHARE:
                _draw_pivot(canvas, rng, quarter)


def _split(parcel: Any, rng: np.random.Generator, *, depth: int) -> list[Any]:
    """Cut a parcel across its longer side, sometimes at a slant, until the parts are small."""
    largest_m2 = float(rng.choice([2.0e4, 4.5e4, 8.0e4, 1.4e5]))
    if parcel.area < largest_m2 or depth > _DEEPEST_CUT:
        return [parcel]
    parts = _cut(parcel, fraction=rng.uniform(0.3, 0.7), slant=_slant(rng))
    return [piece for part in parts for piece in _split(part, rng, depth=depth + 1)]


def _slant(rng: np.random.Generator) -> float:
    return float(rng.normal(0, 0.35)) if rng.random() < _SLANTED_SHARE else 0.0


def _cut(parcel: Any, *, fraction: float, slant: float) -> list[Any]:
    """Return the two or more parts of a parcel that a line across its longer side makes."""
    from shapely.geometry import LineString
    from shapely.ops import split

    west, south, east, north = parcel.bounds
    reach = east - west + north - south
    u, v = west + fraction * (east - west), south + fraction * (north - south)
    across = np.asarray([slant, 1.0]) if east - west > north - south else np.asarray([1.0, slant])
    ends = np.asarray([u, v]) + np.outer([-reach, reach], across)
    return list(split(parcel, LineString(ends)).geoms)


def _strips(quarter: Any, rng: np.random.Generator) -> list[Any]:
    """Cut a quarter into long narrow strips, as in strip cropping."""
    strips, remainder = [], quarter
    width_m, slant = rng.uniform(35, 90), float(rng.normal(0, 0.08))
    west, _, east, _ = quarter.bounds
    for edge_m in np.arange(width_m, east - west - width_m / 2, width_m):
        parts = sorted(_cut_at(remainder, west + edge_m, slant), key=lambda part: part.centroid.x)
        strips += parts[:-1]
        remainder = parts[-1]
    return [*strips, remainder]


def _cut_at(parcel: Any, u_m: float, slant: float) -> list[Any]:
    """Return the parts of a parcel on both sides of a steep line through easting ``u_m``."""
    from shapely.geometry import LineString
    from shapely.ops import split

    _, south, _, north = parcel.bounds
    middle, half = (south + north) / 2, (north - south)
    line = LineString([(u_m - slant * half, middle - half), (u_m + slant * half, middle + half)])
    return list(split(parcel, line).geoms)


def draw_parcel(canvas: Canvas, rng: np.random.Generator, outline: Any, trees: list[int]) -> None:
    """Draw one field with its margin, rows, headlands and sometimes a row of trees."""
    parcel = outline.buffer(-rng.uniform(0.8, 2.6), join_style="mitre")
    if parcel.is_empty or parcel.geom_type != "Polygon":
        return
    crop = str(rng.choice(list(_CROPS), p=list(_CROPS.values())))
    angle = _row_direction(parcel) + float(rng.choice([0, 0, 0, 0.5 * np.pi, 0.3]))
    surface = field_surface(rng, crop, angle)
    if crop == "orchard":
        _draw_orchard(canvas, rng, parcel, angle, trees)
    else:
        canvas.paint(parcel, _headland_surface(surface))
        canvas.paint(_without_headlands(parcel, angle), surface)
    if rng.random() < _HEDGED_SHARE:
        _plant_edge(canvas, rng, outline, trees)
    if crop == "pasture":
        scattered = scatter_points(parcel, rng, spacing_m=rng.uniform(28, 90))
        canvas.plant(scattered, rng, features=trees, radius_m=(2.0, 5.2))


def _row_direction(parcel: Any) -> float:
    """Return the direction of a parcel's longest edge: long rows need few turns."""
    corners = np.asarray(parcel.exterior.coords)
    edges = np.diff(corners, axis=0)
    longest = edges[np.argmax(np.hypot(edges[:, 0], edges[:, 1]))]
    return float(np.arctan2(longest[1], longest[0]))


def field_surface(rng: np.random.Generator, crop: str, row_direction_rad: float) -> Surface:
    """Draw a field's vigour, moisture, soil and row pattern at random."""
    is_cut = crop in ("alfalfa", "stubble") and rng.random() < _CUT_SHARE
    is_contour = rng.random() < _CONTOUR_SHARE
    spacing_m = rng.uniform(4.5, 8.5) if is_cut else rng.uniform(1.9, 4.6)
    return Surface(
        material="grass" if crop == "orchard" else crop,
        cover_bias=rng.normal(0, 0.07) - (0.28 if is_cut else 0.0),
        vigour=rng.uniform(0.2, 1.05),
        moisture=rng.uniform(0.05, 0.95),
        tone=rng.uniform(0.0, 0.75) ** 1.3,
        brightness=rng.uniform(0.88, 1.12),
        variation=rng.uniform(0.04, 0.24),
        wetness=rng.uniform(0.0, 0.5) if crop != "pasture" else 0.1,
        row_angle_rad=row_direction_rad + 0.5 * np.pi,
        row_spacing_m=0.0 if crop == "pasture" else spacing_m,
        row_depth=rng.uniform(0.12, 0.24) if is_cut else rng.uniform(0.05, 0.17),
        contour_rad_per_m=rng.uniform(2.0, 6.0) if is_contour else 0.0,
    )


def _headland_surface(surface: Surface) -> Surface:
    """Return the crop of the headland, where machines turn: its rows cross the field's."""
    from dataclasses import replace

    return replace(
        surface,
        row_angle_rad=surface.row_angle_rad + 0.5 * np.pi,
        contour_rad_per_m=0.0,
        cover_bias=surface.cover_bias - 0.05,
    )


def _without_headlands(parcel: Any, row_direction_rad: float) -> Any:
    """Return the part of a parcel that is further than a headland from both ends of its rows."""
    from shapely.affinity import translate

    step = _HEADLAND_M * np.asarray([np.cos(row_direction_rad), np.sin(row_direction_rad)])
    ahead, behind = translate(parcel, *step), translate(parcel, *-step)
    return parcel.intersection(ahead).intersection(behind)


def _plant_edge(canvas: Canvas, rng: np.random.Generator, outline: Any, trees: list[int]) -> None:
    """Plant a hedge or windbreak along one side of a parcel."""
    from shapely.geometry import LineString

    corners = np.asarray(outline.exterior.coords)
    side = int(rng.integers(0, len(corners) - 1))
    line = LineString(corners[side : side + 2])
    points = points_along(line, rng, spacing_m=rng.uniform(3.5, 9.0))
    canvas.plant(points, rng, features=list(rng.choice(trees, 3)), radius_m=(2.0, 4.6))


def _draw_orchard(
    canvas: Canvas, rng: np.random.Generator, parcel: Any, angle_rad: float, trees: list[int]
) -> None:
    """Plant fruit trees in rows on mown grass."""
    import shapely
    from shapely.affinity import rotate

    canvas.paint(parcel, field_surface(rng, "orchard", angle_rad))
    level = rotate(parcel, -angle_rad, origin="centroid", use_radians=True)
    west, south, east, north = level.bounds
    u, v = np.meshgrid(np.arange(west, east, 4.4), np.arange(south, north, 6.4))
    lattice = shapely.MultiPoint(np.stack([u.ravel(), v.ravel()], axis=-1))
    centre = level.centroid
    points = shapely.get_coordinates(rotate(lattice, angle_rad, origin=centre, use_radians=True))
    inside = shapely.contains_xy(parcel.buffer(-3), points[:, 0], points[:, 1])
    present = rng.random(len(points)) > _GAP_SHARE
    canvas.plant(points[inside & present], rng, features=trees[:1], radius_m=(1.6, 2.4))


def _draw_pivot(canvas: Canvas, rng: np.random.Generator, quarter: Any) -> None:
    """Draw a circle with centre-pivot irrigation, in one to three sectors of different crops."""
    import shapely

    west, south, east, north = quarter.bounds
    centre = np.asarray([(west + east) / 2, (south + north) / 2])
    radius_m = 0.5 * min(east - west, north - south) - 12
    bearings = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(1, 4))))
    for start, stop in zip(bearings, [*bearings[1:], bearings[0] + 2 * np.pi], strict=True):
        arc = np.linspace(start, stop, 90)
        rim = centre + radius_m * np.stack([np.cos(arc), np.sin(arc)], axis=-1)
        is_full_circle = len(bearings) == 1
        sector = shapely.Polygon(rim if is_full_circle else np.concatenate([centre[None], rim]))
        crop = str(rng.choice(["corn", "soy", "alfalfa", "vegetables"]))
        local = canvas.to_local(centre)
        surface = field_surface(rng, crop, 0.0)
        canvas.paint(sector, _with_circular_rows(surface, (float(local[0]), float(local[1]))))


def _with_circular_rows(surface: Surface, centre_xy: tuple[float, float]) -> Surface:
    from dataclasses import replace

    return replace(surface, centre_xy=centre_xy, contour_rad_per_m=0.0)
