"""Draws a small town of the sample landscape: streets, houses, shops, large buildings and parks.

Positions (u, v) and lengths are metres in the survey frame: u east, v north.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from salibi_data.synthetic.ground.buildings import HOUSE_ROOFS, draw_building, draw_silo
from salibi_data.synthetic.ground.canvas import Canvas, Doubles, Surface, scatter_points

_BLOCK_M: Final = (112.0, 86.0)
"""Size of a block of the town, east and north, from street to street."""
_NUM_BLOCKS: Final = (8, 6)
"""Number of blocks of the town, east and north."""


def draw_town(canvas: Canvas, rng: np.random.Generator, trees: list[int]) -> None:
    """Draw a town: a grid of streets with houses, a main street, large buildings and parks."""
    from shapely.geometry import LineString, box

    west, south = 0.40 * canvas.width_m, 0.52 * canvas.height_m
    (block_u, block_v), (num_u, num_v) = _BLOCK_M, _NUM_BLOCKS
    east, north = west + num_u * block_u, south + num_v * block_v
    lawn = Surface(material="lawn", vigour=0.7, variation=0.2, cover_bias=-0.08)
    canvas.paint(box(west - 15, south - 15, east + 15, north + 15), lawn)
    for i in range(num_u):
        for j in range(num_v):
            corner = np.asarray([west + i * block_u, south + j * block_v])
            _draw_block(canvas, rng, corner, trees, is_main=(i == num_u // 2))
    street = Surface(material="asphalt", brightness=1.35)
    for i in range(num_u + 1):
        u = west + i * block_u
        canvas.paint(
            LineString([(u, south - 15), (u, north + 15)]).buffer(4.2, cap_style="square"),
            street,
            obstacle=True,
        )
    for j in range(num_v + 1):
        v = south + j * block_v
        canvas.paint(
            LineString([(west - 15, v), (east + 15, v)]).buffer(3.8, cap_style="square"),
            street,
            obstacle=True,
        )


def _draw_block(
    canvas: Canvas, rng: np.random.Generator, corner: Doubles, trees: list[int], *, is_main: bool
) -> None:
    """Draw one block: shops on the main street, elsewhere houses, a large building or a park."""
    from shapely.geometry import box

    block = box(*(corner + 6), *(corner + np.asarray(_BLOCK_M) - 6))
    kind = rng.random()
    if is_main:
        canvas.paint(block, Surface(material="concrete", brightness=rng.uniform(0.5, 0.8)))
        _draw_houses(canvas, rng, corner, lot_m=12.0, is_terrace=True)
    elif kind < 1 / 6:
        _draw_large_building(canvas, rng, block)
    elif kind < 1 / 4:
        _draw_park(canvas, rng, block, trees)
    else:
        lawn = Surface(material="lawn", vigour=rng.uniform(0.3, 1), variation=0.15)
        canvas.paint(block, lawn)
        _draw_houses(canvas, rng, corner, lot_m=rng.uniform(15, 25), is_terrace=False)
        points = scatter_points(block, rng, spacing_m=rng.uniform(8.5, 21))
        canvas.plant(points, rng, features=list(rng.choice(trees, 5)), radius_m=(1.8, 5))


def _draw_houses(
    canvas: Canvas, rng: np.random.Generator, corner: Doubles, *, lot_m: float, is_terrace: bool
) -> None:
    """Draw two rows of houses with drives or, as a terrace, of shops wall to wall."""
    from shapely.geometry import box

    drive = canvas.add(Surface(material="concrete", brightness=rng.uniform(0.6, 0.95)))
    for u in np.arange(corner[0] + 17, corner[0] + _BLOCK_M[0] - 12, lot_m):
        for v, street in ((corner[1] + 22, -18), (corner[1] + _BLOCK_M[1] - 22, 18)):
            if rng.random() < 1 / 9:
                continue
            centre = np.asarray([u, v]) + rng.normal(0, 0.0 if is_terrace else 1.6, 2)
            size_m = (11.4, 21.0) if is_terrace else (rng.uniform(10, 15), rng.uniform(7.5, 11))
            if not is_terrace:
                canvas.paint(box(*sorted_box(u - 5.5, v, u - 2.5, v + street)), drive)
            roof, height_m = str(rng.choice(HOUSE_ROOFS)), rng.uniform(4, 7.5)
            draw_building(
                canvas, centre, size_m=size_m, angle_rad=0.0, height_m=height_m, roof=roof
            )


def sorted_box(u0: float, v0: float, u1: float, v1: float) -> tuple[float, float, float, float]:
    """Return west, south, east, north of the box between two opposite corners."""
    return min(u0, u1), min(v0, v1), max(u0, u1), max(v0, v1)


def _draw_park(canvas: Canvas, rng: np.random.Generator, block: Any, trees: list[int]) -> None:
    """Draw a lawn with a ball field, and trees around it."""
    from shapely.geometry import Point, Polygon

    canvas.paint(block, Surface(material="lawn", vigour=0.95, variation=0.1))
    west, south, _, _ = block.bounds
    home = np.asarray([west + rng.uniform(24, 45), south + rng.uniform(8, 18)])
    infield = (
        Point(*home)
        .buffer(30)
        .intersection(Polygon([home, home + np.asarray([60, 60]), home + np.asarray([-60, 60])]))
    )
    canvas.paint(infield, Surface(material="bare", tone=0.9, moisture=0.1, variation=0.0))
    diamond = Polygon(
        [
            home + np.asarray([0, 4]),
            home + np.asarray([13, 17]),
            home + np.asarray([0, 30]),
            home + np.asarray([-13, 17]),
        ]
    )
    canvas.paint(diamond, Surface(material="lawn", vigour=0.95, variation=0.0))
    rim = scatter_points(block.difference(block.buffer(-14)), rng, spacing_m=11)
    canvas.plant(rim, rng, features=trees, radius_m=(2.5, 5.5))


def _draw_large_building(canvas: Canvas, rng: np.random.Generator, block: Any) -> None:
    """Draw a school, warehouse or grain elevator with its car park."""
    west, south, east, north = block.bounds
    paved = Surface(material="asphalt", brightness=rng.uniform(0.9, 1.6))
    canvas.paint(block, paved, obstacle=True)
    centre = np.asarray([(west + east) / 2, (south + north) / 2])
    roof = str(rng.choice(["roof_white", "roof_white", "roof_grey", "steel"]))
    size_m = (rng.uniform(40, 66), rng.uniform(24, 38))
    draw_building(canvas, centre, size_m=size_m, angle_rad=0.0, height_m=9.0, roof=roof)
    for k in range(int(rng.integers(0, 4))):
        draw_silo(canvas, np.asarray([west + 9 + 13 * k, north - 8]), 5.0)
    _park_cars(canvas, rng, (west, south, east, north), size_m[1])


def _park_cars(
    canvas: Canvas, rng: np.random.Generator, lot: tuple[float, ...], building_depth_m: float
) -> None:
    """Draw rows of cars beside the building of a lot, whose bounds are (u0, v0, u1, v1)."""
    from shapely.geometry import box

    west, south, east, north = lot
    paints = [canvas.add(Surface(material="roof_white", brightness=b)) for b in (0.2, 0.5, 0.95)]
    free_m = (north - south - building_depth_m) / 2
    for v in (south + 2, south + free_m / 2 + 2):
        for u in np.arange(west + 3, east - 5, 3.0):
            if rng.random() < 2 / 5:
                canvas.paint(box(u, v, u + 1.9, v + 4.6), int(rng.choice(paints)))
