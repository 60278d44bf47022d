"""Draws the river, ponds, woods and grass waterways of the sample landscape.

Positions and lengths are metres in the survey frame unless a name says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from salibi_data.synthetic.ground.canvas import (
    Canvas,
    Doubles,
    Surface,
    points_along,
    scatter_points,
    wavy_disc,
)
from salibi_data.synthetic.ground.noise import SmoothField

_STEP_M = 15.0
_MEANDER_M = 1500.0
"""Mean length of a meander along the river, about thirty times the river's width."""

_NUM_RIVERSIDE_WOODS = 110


def river_course(canvas: Canvas, rng: np.random.Generator) -> Doubles:
    """Return the centre line of the river, shape (num, 2), from west to east.

    It is a sine-generated curve, whose heading is a sine of the distance along it (Langbein and
    Leopold 1966, River Meanders - Theory of Minimum Variance, USGS Professional Paper 422-H).
    """
    points = [np.asarray([-400.0, 0.36 * canvas.height_m])]
    shape = rng.uniform(0, 2 * np.pi, 3)
    arc_m, phase = 0.0, float(shape[0])
    while points[-1][0] < canvas.width_m + 400:
        swing = 1.15 + 0.45 * np.sin(arc_m / 1270 + shape[1])
        heading = 0.16 * np.sin(arc_m / 1900 + shape[2]) + swing * np.sin(phase)
        points.append(points[-1] + _STEP_M * np.asarray([np.cos(heading), np.sin(heading)]))
        arc_m += _STEP_M
        # The period varies: bends of equal length would not look natural.
        phase += 2 * np.pi * _STEP_M / (_MEANDER_M * (1 + 0.35 * np.sin(arc_m / 830)))
    return np.stack(points)


def add_valley(terrain: SmoothField, canvas: Canvas, course: Doubles) -> SmoothField:
    """Return the terrain with a valley along the river."""
    import shapely

    x_m, y_m = terrain.nodes()
    river = shapely.LineString(canvas.to_local(course))
    nodes = shapely.points(np.stack(np.meshgrid(x_m, y_m), axis=-1))
    distance_m = shapely.distance(nodes, river)
    lowered = terrain.coefficients - 16 * np.exp(-((distance_m / 520) ** 2))
    return SmoothField(coefficients=lowered.astype(np.float32), spacing_m=terrain.spacing_m)


def draw_waterways(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw grass strips that run downhill through the fields."""
    from shapely.geometry import LineString

    for _ in range(70):
        start = rng.uniform((0, 0), (canvas.width_m, canvas.height_m))
        path = _downhill(canvas, start, num_steps=int(rng.integers(12, 34)))
        strip = LineString(path).buffer(rng.uniform(3.5, 8.0), quad_segs=4)
        surface = Surface(
            material="grass",
            vigour=rng.uniform(0.6, 1.0),
            moisture=0.8,
            variation=0.1,
            cover_bias=rng.uniform(-0.1, 0.05),
        )
        canvas.paint(strip, surface)


def _downhill(canvas: Canvas, start: Doubles, *, num_steps: int) -> Doubles:
    """Return a path down the slope, shape (num_steps + 1, 2), in steps of about 20 m.

    It treats survey coordinates as local ones: the angle between the frames is below one degree.
    """
    if canvas.terrain is None:
        return np.stack([start, start + 1.0])
    east, north = canvas.terrain.slopes()
    points, heading = [start], np.zeros(2)
    for _ in range(num_steps):
        x, y = np.clip(points[-1], 0, (canvas.width_m, canvas.height_m))
        x_m, y_m = np.asarray([x]), np.asarray([y])
        slope = np.asarray([east.sample(x_m, y_m)[0, 0], north.sample(x_m, y_m)[0, 0]])
        heading = 0.65 * heading - slope / (np.hypot(*slope) + 1e-6)
        points.append(points[-1] + 20 * heading / (np.hypot(*heading) + 1e-6))
    return np.stack(points)


def draw_river(canvas: Canvas, rng: np.random.Generator, course: Doubles, trees: list[int]) -> None:
    """Draw riverside woods, oxbow lakes, point bars and the river itself.

    Args:
        canvas: canvas to draw on.
        rng: source of the randomness.
        course: centre line of the river, shape (num, 2).
        trees: feature ids of the riverside trees.
    """
    import shapely

    half_width = 21 + 6 * np.sin(np.arange(len(course)) / 37) + rng.normal(0, 0.8, len(course))
    segments = [
        shapely.LineString(course[k : k + 2]).buffer(half_width[k], quad_segs=6)
        for k in range(len(course) - 1)
    ]
    river = shapely.union_all(segments)
    _draw_riverside(canvas, rng, course, trees)
    _draw_oxbows(canvas, rng, course)
    for bar in _point_bars(rng, course, half_width):
        canvas.paint(bar, Surface(material="sand", variation=0.3, brightness=rng.uniform(0.85, 1)))
    canvas.paint(river, Surface(material="river", variation=0.03), obstacle=True)


def _draw_riverside(
    canvas: Canvas, rng: np.random.Generator, course: Doubles, trees: list[int]
) -> None:
    """Draw woods and meadows along the river, uneven in width and with gaps."""
    import shapely

    meadow = shapely.LineString(course).buffer(95)
    canvas.paint(meadow, Surface(material="pasture", vigour=0.9, variation=0.25, moisture=0.85))
    positions = course[:: max(1, len(course) // _NUM_RIVERSIDE_WOODS)]
    centres = positions + rng.normal(0, 60, positions.shape)
    outlines = [
        wavy_disc(rng, centre=(u, v), radius_m=rng.uniform(35, 105))
        for u, v in centres
        if rng.random() < 4 / 5
    ]
    draw_wood(canvas, rng, shapely.union_all(outlines), trees, spacing_m=6.2)


def _draw_oxbows(canvas: Canvas, rng: np.random.Generator, course: Doubles) -> None:
    """Draw oxbow lakes, each a piece of the river's course moved aside."""
    import shapely

    length = int(_MEANDER_M / _STEP_M / 2.2)
    for start in rng.choice(len(course) - length, 3, replace=False):
        bend = course[start : start + length] + np.asarray([rng.uniform(-60, 60), 210.0])
        canvas.paint(
            shapely.LineString(bend).buffer(26),
            Surface(material="marsh", variation=0.2, moisture=0.9),
        )
        water = shapely.LineString(bend).buffer(13)
        canvas.paint(
            water, Surface(material="algae", brightness=rng.uniform(0.8, 1.2)), obstacle=True
        )


def _point_bars(rng: np.random.Generator, course: Doubles, half_width: Doubles) -> list[Any]:
    """Return sand banks on the inner side of the sharper bends."""
    import shapely

    heading = np.unwrap(np.arctan2(*np.diff(course, axis=0).T[::-1]))
    turn = np.convolve(np.gradient(heading), np.ones(9) / 9, mode="same")
    apexes = [
        k
        for k in range(12, len(turn) - 12)
        if abs(turn[k]) == np.abs(turn[k - 12 : k + 13]).max() and abs(turn[k]) > 1 / _MEANDER_M
    ]
    bars = []
    for k in apexes:
        inward = np.sign(turn[k]) * np.asarray([-np.sin(heading[k]), np.cos(heading[k])])
        arc = course[k - 5 : k + 6] + inward * half_width[k] * rng.uniform(0.55, 0.8)
        bars.append(shapely.LineString(arc).buffer(half_width[k] * rng.uniform(0.6, 0.85)))
    return bars


def draw_wood(
    canvas: Canvas,
    rng: np.random.Generator,
    outline: Any,
    trees: list[int],
    *,
    spacing_m: float,
) -> None:
    """Draw a dense wood, with undergrowth between the crowns."""
    if outline.is_empty:
        return
    floor = Surface(material="understory", variation=0.15, vigour=0.9, brightness=0.8)
    canvas.paint(outline.buffer(2), floor)
    points = scatter_points(outline, rng, spacing_m=spacing_m)
    canvas.plant(points, rng, features=trees, radius_m=(0.5 * spacing_m, 0.78 * spacing_m))


def draw_woodlots(
    canvas: Canvas, rng: np.random.Generator, broadleaf: list[int], conifer: list[int]
) -> None:
    """Draw woods among the fields; one in six is a plantation of conifers."""
    for _ in range(46):
        centre = tuple(rng.uniform((0, 0), (canvas.width_m, canvas.height_m)))
        outline = wavy_disc(rng, centre=centre, radius_m=rng.uniform(28, 120))
        is_plantation = rng.random() < 1 / 6
        trees = conifer if is_plantation else list(rng.choice(broadleaf, 4))
        draw_wood(canvas, rng, outline, trees, spacing_m=rng.uniform(4.6, 7.6))


def draw_ponds(canvas: Canvas, rng: np.random.Generator, trees: list[int]) -> None:
    """Draw farm ponds, two lakes and a flooded quarry, each with its shore."""
    size = (canvas.width_m, canvas.height_m)
    for _ in range(34):
        radius_m = float(rng.choice([14.0, 20.0, 28.0, 40.0]))
        _draw_pond(canvas, rng, tuple(rng.uniform((0, 0), size)), radius_m, "marsh", trees)
    for u, v in ((0.29, 0.66), (0.72, 0.62)):
        centre = (u * size[0] + rng.normal(0, 80), v * size[1] + rng.normal(0, 80))
        _draw_pond(canvas, rng, centre, rng.uniform(120, 170), "pasture", trees)
    quarry = (0.62 * size[0], 0.22 * size[1])
    _draw_pond(canvas, rng, quarry, 85.0, "sand", [])


def _draw_pond(
    canvas: Canvas,
    rng: np.random.Generator,
    centre: tuple[float, ...],
    radius_m: float,
    shore: str,
    trees: list[int],
) -> None:
    outline = wavy_disc(rng, centre=(centre[0], centre[1]), radius_m=radius_m)
    water = "quarry_water" if shore == "sand" else str(rng.choice(["lake", "lake", "algae"]))
    bank_m = radius_m if shore == "sand" else rng.uniform(4, 14)
    bank = Surface(material=shore, variation=0.3, moisture=0.8)
    canvas.paint(outline.buffer(bank_m), bank, obstacle=shore == "sand")
    canvas.paint(
        outline,
        Surface(material=water, brightness=rng.uniform(0.75, 1.3), variation=0.03),
        obstacle=True,
    )
    if trees:
        shoreline = outline.buffer(bank_m).exterior
        points = points_along(shoreline, rng, spacing_m=11)
        is_planted = rng.random(len(points)) < rng.uniform(0, 0.8)
        canvas.plant(points[is_planted], rng, features=trees, radius_m=(2.2, 4.6))
