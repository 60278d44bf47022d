"""Draws roads, farmsteads and a solar farm of the sample landscape.

Positions (u, v) and lengths are metres in the survey frame: u east, v north.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np

from salibi_data.synthetic.ground.canvas import (
    Canvas,
    Doubles,
    Surface,
    scatter_points,
    wavy_disc,
)
from salibi_data.synthetic.ground.fields import RIGHT_OF_WAY_M

HOUSE_ROOFS: Final = ("roof_grey", "roof_grey", "roof_dark", "roof_dark", "roof_red", "roof_white")
_SHED_ROOFS: Final = ("roof_white", "roof_white", "roof_grey", "roof_red", "roof_blue", "steel")


def draw_roads(
    canvas: Canvas, rng: np.random.Generator, lines: tuple[Doubles, Doubles], course: Doubles
) -> None:
    """Draw most of the section roads, a winding road along the river, and a divided highway.

    Args:
        canvas: canvas to draw on.
        rng: source of the randomness.
        lines: positions of the section roads, eastings and northings.
        course: centre line of the river, shape (num, 2).
    """
    from shapely.geometry import LineString

    segments = [((u, v0), (u, v1)) for u in lines[0] for v0, v1 in pairwise(lines[1])]
    segments += [((u0, v), (u1, v)) for v in lines[1] for u0, u1 in pairwise(lines[0])]
    section_roads = [LineString(segment) for segment in segments if rng.random() > 1 / 9]
    roads = [(line, bool(rng.random() < 1 / 3)) for line in section_roads]
    roads.append((_river_road(course), True))
    # All ditches first, so that none covers another road at a crossing.
    for line, _ in roads:
        ditch = Surface(material="grass", vigour=rng.uniform(0.4, 1.0), variation=0.15)
        canvas.paint(line.buffer(RIGHT_OF_WAY_M - 0.5, cap_style="square"), ditch)
    for line, is_paved in sorted(roads, key=lambda road: road[1]):
        _draw_carriageway(canvas, rng, line, is_paved=is_paved)
    _draw_highway(canvas)


def _river_road(course: Doubles) -> Any:
    """Return a curve north of the river that follows its smoothed course."""
    from shapely.geometry import LineString

    num = 121
    padded = np.pad(course, ((num // 2, num // 2), (0, 0)), mode="edge")
    smoothed = np.stack(
        [np.convolve(padded[:, k], np.ones(num) / num, mode="valid") for k in (0, 1)], axis=-1
    )
    return LineString(smoothed[::6] + np.asarray([0.0, 330.0]))


def _draw_carriageway(
    canvas: Canvas, rng: np.random.Generator, line: Any, *, is_paved: bool
) -> None:
    """Draw a gravel road or, if paved, asphalt with gravel shoulders and a centre line."""
    gravel = Surface(material="gravel", brightness=rng.uniform(0.85, 1.15), variation=0.0)
    canvas.paint(line.buffer(4.4 if is_paved else 3.4, cap_style="square"), gravel, obstacle=True)
    if is_paved:
        asphalt = Surface(material="asphalt", brightness=rng.uniform(0.85, 1.5))
        canvas.paint(line.buffer(3.5, cap_style="square"), asphalt)
        canvas.paint(line.buffer(0.22), Surface(material="line", brightness=0.8))


def _draw_highway(canvas: Canvas) -> None:
    """Draw two carriageways on a long curve from the south-west to the north-east."""
    from shapely.geometry import LineString

    t = np.linspace(-0.05, 1.05, 120)
    u = t * canvas.width_m
    v = canvas.height_m * (0.12 + 0.62 * t + 0.10 * np.sin(2.6 * t + 0.4))
    middle = LineString(np.stack([u, v], axis=-1))
    canvas.paint(middle.buffer(34), Surface(material="grass", vigour=0.6, variation=0.2))
    for side in (-1, 1):
        lane = middle.parallel_offset(11.0, "left" if side < 0 else "right")
        canvas.paint(lane.buffer(6.6), Surface(material="asphalt"), obstacle=True)
        canvas.paint(lane.buffer(5.2), Surface(material="concrete", brightness=0.78))
        canvas.paint(lane.buffer(0.25), Surface(material="asphalt", brightness=1.5))


def draw_building(
    canvas: Canvas,
    centre: Doubles,
    *,
    size_m: tuple[float, float],
    angle_rad: float,
    height_m: float,
    roof: str,
) -> None:
    """Draw a building whose ridge runs along its length: one half of the roof faces the sun.

    Args:
        canvas: canvas to draw on.
        centre: position (u, v) of the building's centre.
        size_m: length and depth.
        angle_rad: direction of the length, counter-clockwise from east.
        height_m: height of the roof.
        roof: material of the roof.
    """
    from shapely.affinity import rotate, translate
    from shapely.geometry import box

    length, depth = size_m
    # The southern half is the lit one. It stays southern because no angle exceeds a quarter turn.
    halves = ((-depth / 2, 0.0, 1.12), (0.0, depth / 2, 0.8))
    for v0, v1, light in halves:
        half = rotate(box(-length / 2, v0, length / 2, v1), angle_rad, (0, 0), use_radians=True)
        surface = Surface(material=roof, brightness=light, height_m=height_m, variation=0.0)
        canvas.paint(translate(half, *centre), surface, obstacle=True)


def draw_silo(canvas: Canvas, centre: Doubles, radius_m: float) -> None:
    """Draw a round steel silo with a brighter cap."""
    from shapely.geometry import Point

    disc = Point(*centre).buffer(radius_m)
    rim = Surface(material="steel", brightness=0.75, height_m=radius_m * 2.2, variation=0.0)
    canvas.paint(disc, rim, obstacle=True)
    cap = Surface(material="steel", brightness=1.15, height_m=radius_m * 2.6, variation=0.0)
    canvas.paint(Point(*centre).buffer(radius_m * 0.6), cap)


def draw_farmsteads(
    canvas: Canvas,
    rng: np.random.Generator,
    lines: tuple[Doubles, Doubles],
    trees: list[int],
) -> None:
    """Draw farms along the section roads, about six per square mile.

    Args:
        canvas: canvas to draw on.
        rng: source of the randomness.
        lines: positions of the section roads, eastings and northings.
        trees: feature ids of the farms' trees.
    """
    for line_u in lines[0]:
        for v in np.arange(120.0, canvas.height_m, 420.0):
            if rng.random() < 1 / 2:
                side = float(rng.choice([-1.0, 1.0]))
                centre = np.asarray([line_u + side * rng.uniform(60, 85), v + rng.normal(0, 70)])
                _draw_farmstead(canvas, rng, centre, side, trees)
    for line_v in lines[1]:
        for u in np.arange(300.0, canvas.width_m, 520.0):
            if rng.random() < 1 / 2:
                centre = np.asarray([u + rng.normal(0, 70), line_v + rng.uniform(55, 80)])
                _draw_farmstead(canvas, rng, centre, 0.0, trees)


def _draw_farmstead(
    canvas: Canvas, rng: np.random.Generator, centre: Doubles, side: float, trees: list[int]
) -> None:
    """Draw a lawn, a gravel yard with its drive, a house, sheds, silos and a windbreak.

    ``side`` is 1 east of its road, -1 west of it, and 0 north of an east-west road.
    """
    from shapely.geometry import LineString, box

    lawn = box(centre[0] - 52, centre[1] - 45, centre[0] + 52, centre[1] + 45).buffer(8)
    canvas.paint(lawn, Surface(material="lawn", vigour=rng.uniform(0.6, 1), variation=0.12))
    yard = wavy_disc(rng, centre=(centre[0], centre[1]), radius_m=27)
    gravel = Surface(material="yard", brightness=rng.uniform(0.85, 1.2))
    road = centre - np.asarray([side * 85, 0.0 if side else 80.0])
    canvas.paint(yard.union(LineString([centre, road]).buffer(2.2)), gravel, obstacle=True)
    _draw_farm_buildings(canvas, rng, centre)
    windbreak = lawn.difference(lawn.buffer(-9)) - box(
        centre[0] - 25, centre[1] - 60, centre[0] + 99, centre[1] + 30
    )
    windbreak_points = scatter_points(windbreak, rng, spacing_m=5.5)
    canvas.plant(windbreak_points, rng, features=trees, radius_m=(2.2, 3.8))
    garden_points = scatter_points(lawn, rng, spacing_m=19)
    canvas.plant(garden_points, rng, features=trees, radius_m=(2.0, 4.6))


def _draw_farm_buildings(canvas: Canvas, rng: np.random.Generator, centre: Doubles) -> None:
    """Draw two to four sheds, a house and up to three silos around a yard."""
    angle = float(rng.choice([0.0, 0.5 * np.pi])) + rng.normal(0, 0.05)
    positions = centre + np.asarray([(-30, 22), (26, 24), (28, -18), (-28, -20), (0, 34)])
    positions = positions + rng.normal(0, 3, positions.shape)
    for position in positions[: int(rng.integers(2, 5))]:
        size_m = (rng.uniform(17, 38), rng.uniform(9, 16))
        roof = str(rng.choice(_SHED_ROOFS))
        height_m = rng.uniform(4, 7)
        draw_building(
            canvas, position, size_m=size_m, angle_rad=angle, height_m=height_m, roof=roof
        )
    roof = str(rng.choice(HOUSE_ROOFS))
    draw_building(canvas, positions[4], size_m=(14, 9), angle_rad=angle, height_m=6.0, roof=roof)
    for k in range(int(rng.integers(0, 4))):
        silo = centre + np.asarray([-8.0 + 9.5 * k, 4.0])
        draw_silo(canvas, silo, rng.uniform(3.0, 4.3))


def draw_solar_farm(canvas: Canvas) -> None:
    """Draw rows of solar panels on mown grass."""
    from shapely.geometry import MultiPolygon, box

    west, south = 0.335 * canvas.width_m, 0.60 * canvas.height_m
    ground = box(west, south, west + 330, south + 250)
    canvas.paint(ground.buffer(8), Surface(material="lawn", vigour=0.5, variation=0.2))
    panels = [
        box(west + u, south + v, west + u + 98, south + v + 3.6)
        for u in (6.0, 116.0, 226.0)
        for v in np.arange(6.0, 242.0, 7.2)
    ]
    surface = Surface(material="solar", height_m=2.0, variation=0.0)
    canvas.paint(MultiPolygon(panels), surface, obstacle=True)
