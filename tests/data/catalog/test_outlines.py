"""Outlines: whatever way a polygon is written, what it holds is the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given
from hypothesis import strategies as st
from shapely.geometry import mapping

from salibi_data.catalog.outlines import (
    MAX_SLIMNESS,
    NotDegreesError,
    geojson_polygons,
    mended_footprint,
    outline_of,
    shape_polygons,
    union_of,
)
from salibi_data.plans.areas.area import Area
from salibi_data.store.tiles import Tiles

if TYPE_CHECKING:
    from collections.abc import Callable

ZOOM = 6
TILES = Tiles(zoom=ZOOM, x=np.tile(np.arange(64), 64), y=np.repeat(np.arange(64), 64))


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(map(list, ring)) for ring in rings]}


def parts(*polygons: Any) -> dict[str, Any]:
    coordinates = [polygon(*rings)["coordinates"] for rings in polygons]
    return {"type": "MultiPolygon", "coordinates": coordinates}


def box(west: float, south: float, east: float, north: float) -> list[tuple[float, float]]:
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def both_sides(west: float, south: float, east: float, north: float) -> Any:
    """The box across 180 degrees, by shapely."""
    return shapely.union_all(
        [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
    )


BOX = shapely.box(0, 0, 4, 4)
ACROSS = both_sides(179.2, 64, -178.9, 65.5)
WHOLE_GLOBE = shapely.box(-180, -90, 180, 90)
POLAR = [(-135, 80), (-45, 80), (45, 80), (135, 80), (-135, 80)]
POLAR_CAP = shapely.box(-180, 80, 180, 90)
SPIRAL = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 1), (8, 1), (8, 8), (1, 8), (1, 0), (0, 0)]


@pytest.mark.parametrize(
    ("geometry", "right"),
    [
        (polygon(box(179.2, 64, -178.9, 65.5)), ACROSS),
        (polygon(box(179.2, 64, -178.9, 65.5)[::-1]), ACROSS),
        (polygon(box(179.2, 64, 181.1, 65.5)), ACROSS),
        (polygon(box(-180.8, 64, -178.9, 65.5)), ACROSS),
        (parts([box(179.2, 64, 180, 65.5)], [box(-180, 64, -178.9, 65.5)]), ACROSS),
        (parts([box(179.2, 64, 180.2, 65.5)], [box(180.1, 64, 181.1, 65.5)]), ACROSS),
        (polygon(box(179.2, 64, -178.9, 65.5), box(179.9, 65, -179.9, 65.2)),
         ACROSS - both_sides(179.9, 65, -179.9, 65.2)),
        (polygon(box(175, 0, 185, 9), box(-179, 2, -177, 4)),
         both_sides(175, 0, -175, 9) - shapely.box(-179, 2, -177, 4)),
        (polygon(box(190, 0, 200, 4)), shapely.box(-170, 0, -160, 4)),
        (polygon(box(360, 0, 364, 4)), BOX),
        (polygon(box(-180, -90, 180, 90)), WHOLE_GLOBE),
        (polygon(box(0, -90, 360, 90)), WHOLE_GLOBE),
        (polygon(box(-0.125, -90.125, 359.875, 90.125)), WHOLE_GLOBE),
        (polygon(box(-179.9, -60, 179.9, 75)), shapely.box(-179.9, -60, 179.9, 75)),
        (polygon([*box(-180, -60, 180, 75)[:3], (0, 75), *box(-180, -60, 180, 75)[3:]]),
         shapely.box(-180, -60, 180, 75)),
        (polygon(POLAR), POLAR_CAP),
        (polygon(POLAR[::-1]), POLAR_CAP),
        (polygon([(x, -y) for x, y in POLAR]), shapely.box(-180, -90, 180, -80)),
        (polygon([(x - 80, 80) for x in range(0, 361, 40)]), POLAR_CAP),
        (polygon([*((x, 80) for x in range(-180, 181, 40)), (-180, 80)]), POLAR_CAP),
        (polygon([(x, 70) for x, _ in POLAR], POLAR), shapely.box(-180, 70, 180, 80)),
        (polygon([(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)]),
         shapely.Polygon([(0, 0), (2, 2), (0, 4)]) | shapely.Polygon([(4, 0), (2, 2), (4, 4)])),
        (polygon(SPIRAL), shapely.box(0, 0, 9, 9) - shapely.box(0, 0, 1, 1)),
        (parts([box(0, 0, 3, 4)], [box(1, 0, 4, 4)]), BOX),
        (parts([box(0, 0, 4, 4)], [box(1, 1, 2, 2)]), BOX),
        (parts([box(0, 0, 4, 4)], [box(0, 0, 4, 4)]), BOX),
        (parts([box(0, 0, 4, 4), box(1, 1, 3, 3)], [box(0, 0, 2, 4)]),
         (BOX - shapely.box(1, 1, 3, 3)) | shapely.box(0, 0, 2, 4)),
        (parts([box(0, 0, 9, 9), box(1, 1, 8, 8)], [box(3, 3, 5, 5)]),
         (shapely.box(0, 0, 9, 9) - shapely.box(1, 1, 8, 8)) | shapely.box(3, 3, 5, 5)),
        (polygon(box(0, 0, 4, 4), box(1, 1, 3, 3), box(2, 2, 3.5, 3.5)),
         BOX - shapely.box(1, 1, 3, 3) - shapely.box(2, 2, 3.5, 3.5)),
        (polygon(box(0, 0, 4, 4), [(1, 1), (2, 2)]), BOX),
        (polygon(box(0, 0, 4, 4)[:-1]), BOX),
        (polygon([corner for corner in box(0, 0, 4, 4) for _ in range(2)]), BOX),
        ({"type": "GeometryCollection", "geometries": [polygon(box(0, 0, 3, 4)), parts([box(2, 0, 4, 4)])]},
         BOX),
        (parts([box(0, 0, 4, 4)], []), BOX),
    ],
)  # fmt: skip
def test_a_polygon_from_practice_holds_what_it_should(geometry: Any, right: Any) -> None:
    outline = outline_of(geometry)
    assert outline.is_valid
    assert outline.symmetric_difference(right).area == pytest.approx(0, abs=1e-9)
    again = json.loads(json.dumps(mended_footprint(geometry)))
    assert mended_footprint(again) is again
    assert outline_of(again).equals(outline)


@pytest.mark.parametrize(
    "geometry",
    [
        polygon(box(0, 0, 4, 4)),
        polygon(box(0, 0, 4, 4)[::-1]),
        polygon([(x, y, 100.0) for x, y in box(0, 0, 4, 4)]),
        polygon(box(-180, -90, 180, 90)),
        parts([box(0, 0, 9, 9), box(1, 1, 8, 8)], [box(3, 3, 5, 5)]),
        parts([box(179, 0, 180, 1)], [box(-180, 0, -179, 1)]),
    ],
)
def test_a_footprint_as_it_should_be_stays_the_object_given(geometry: Any) -> None:
    assert mended_footprint(geometry) is geometry
    given = shapely.from_geojson(json.dumps(geometry))
    assert outline_of(geometry).wkb == shapely.force_2d(given).wkb


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (polygon(), "no area"),
        (parts(), "no area"),
        (polygon([(0, 0), (1, 1), (0, 0)]), "no area"),
        ({"type": "Point", "coordinates": [1, 2]}, "no area"),
        ({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, "no area"),
        ({"type": "Polygon", "coordinates": box(0, 0, 1, 1)}, "where a list should be"),
        ({"type": "Polygon", "coordinates": None}, "coordinates hold 'None'"),
        ({"type": "Polygon"}, "coordinates hold 'None'"),
        (polygon([(0, 0), (1, float("nan")), (1, 1)]), "is not the longitude and latitude"),
        (polygon(box(500_000, 4_000_000, 500_100, 4_000_100)), "not longitude and latitude in degrees"),
        (polygon([(y, x) for x, y in box(120, 30, 121, 31)]), "y from 120 to 121"),
        (None, "expected an object"),
    ],
)  # fmt: skip
def test_what_is_no_footprint_is_refused(geometry: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mended_footprint(geometry)


def test_coordinates_of_a_projection_have_an_error_of_their_own() -> None:
    with pytest.raises(NotDegreesError):
        union_of(shape_polygons(shapely.box(0, 0, 1000, 1000)))


@st.composite
def rings(draw: st.DrawFn) -> list[tuple[float, float]]:
    """A ring around a centre, its longitudes of any turn and in 64ths, which shifting keeps exact."""
    centre_x, centre_y = draw(st.integers(-180, 180)), draw(st.integers(-50, 50))
    angles = sorted(draw(st.sets(st.integers(0, 23), min_size=3, max_size=8)))
    radii = [draw(st.integers(64, 1600)) for _ in angles]
    corners = [
        (
            centre_x + round(radius * np.cos(angle * np.pi / 12)) / 64,
            centre_y + round(radius * np.sin(angle * np.pi / 12)) / 64,
        )
        for angle, radius in zip(angles, radii, strict=True)
    ]
    return [*corners, corners[0]]


def moved(ring: Any, turns: int) -> Any:
    return [(x + 360 * turns, *rest) for x, *rest in ring]


def wrapped(ring: Any) -> Any:
    """Longitudes within -180..180, so that an edge across goes the long way round."""
    return [((x + 180) % 360 - 180, *rest) for x, *rest in ring]


def from_zero(ring: Any) -> Any:
    return [(x % 360, *rest) for x, *rest in ring]


def opened(ring: Any) -> Any:
    return ring[:-1] if ring[0] == ring[-1] else ring


def rotated(ring: Any) -> Any:
    corners = opened(ring)
    return [*corners[1:], *corners[:2]]


REWRITINGS: list[Callable[[Any], Any]] = [
    lambda ring: moved(ring, -1 if ring[0][0] > 0 else 1),
    wrapped,
    from_zero,
    lambda ring: ring[::-1],
    rotated,
    lambda ring: [(*corner, 7.0) for corner in ring],
    opened,
    lambda ring: [corner for corner in ring for _ in range(2)],
]


def tiles_in(outline: Any) -> list[bool]:
    area = Area(boxes=((-180, -90, 180, 90),), outline=outline)
    return area.holds(TILES).tolist()


@given(rings(), st.sampled_from(REWRITINGS), st.sampled_from(REWRITINGS[1:]))
def test_tiles_do_not_depend_on_how_a_ring_is_written(ring: Any, first: Any, then: Any) -> None:
    # A slim box across Greenwich, from 0 to 360, may as well be one round the globe.
    assume(np.ptp([y for _, y in ring]) <= MAX_SLIMNESS * np.ptp([x for x, _ in ring]))
    given_as = outline_of(polygon(ring))
    rewritten = outline_of(polygon(then(first(ring))))
    assert rewritten.is_valid
    assert tiles_in(rewritten) == tiles_in(given_as)
    # The oracle: copies of the ring on three turns, each cut by the globe.
    shapes = [
        shapely.make_valid(shapely.Polygon(moved(ring, turn)), method="structure")
        for turn in (-1, 0, 1)
    ]
    right = shapely.union_all(shapes) & WHOLE_GLOBE
    assert given_as.symmetric_difference(right).area == pytest.approx(0, abs=1e-6)


@given(rings(), st.lists(st.floats(0.2, 0.8), min_size=1, max_size=3))
def test_overlapping_parts_hold_what_the_whole_holds(ring: Any, cuts: list[float]) -> None:
    whole = outline_of(polygon(ring))
    pieces: list[Any] = []
    west, south, east, north = whole.bounds
    for cut in cuts:
        middle = west + cut * (east - west)
        # Each half reaches a little over the cut, so that the pieces overlap.
        halves = (
            shapely.box(west, south, middle + 0.5, north),
            shapely.box(middle - 0.5, south, east, north),
        )
        pieces += [
            part
            for half in halves
            for part in shapely.get_parts(shapely.intersection(whole, half))
            if part.area > 0
        ]
    collected = {
        "type": "MultiPolygon",
        "coordinates": [mapping(piece)["coordinates"] for piece in pieces],
    }
    outline = outline_of(collected)
    oracle = shapely.union_all(pieces)
    assert outline.symmetric_difference(oracle).area == pytest.approx(0, abs=1e-9)
    assert outline.symmetric_difference(whole).area == pytest.approx(0, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=8))
@example([(0, 2), (2, 0), (0, 2), (1, 0), (2, 0)])
def test_inside_is_what_a_ring_goes_round(corners: Any) -> None:
    """The non-zero rule, by the angle that the ring turns as seen from a point."""
    ring = np.array([*corners, corners[0]], float)
    outline = outline_of(polygon(ring.tolist()))
    for point in np.random.default_rng(0).uniform(0, 12, (30, 2)):
        if shapely.LineString(ring).distance(shapely.Point(point)) < 1e-6:
            continue
        angles = np.diff(np.arctan2(*(ring - point).T[::-1]))
        turns = ((angles + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi)
        assert outline.contains(shapely.Point(point)) == (round(turns) != 0)


def test_shapes_and_objects_give_the_same_rings() -> None:
    shape = shapely.union_all([BOX - shapely.box(1, 1, 2, 2), shapely.box(6, 6, 7, 7)])
    nested = shapely.GeometryCollection([shapely.GeometryCollection([shape]), shapely.Point(0, 0)])
    of_object, of_shape = list(geojson_polygons(mapping(nested))), list(shape_polygons(nested))
    assert [[ring.tolist() for ring in rings] for rings in of_object] == [
        [ring.tolist() for ring in rings] for rings in of_shape
    ]
