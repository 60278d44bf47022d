"""Outlines on the ground: footprints of scenes and areas of interest, as longitude and latitude.

RFC 7946 wants polygons cut in two at 180 degrees, with simple rings and parts that do not overlap.
Files from practice break each of these rules. They are read in one way:

- A polygon is what its exterior ring goes round at least once (the non-zero rule), without what its
  interior rings go round. The direction of a ring has no meaning.
- Several polygons are their union. A polygon in another's hole is an island.
- Of the two ways between two longitudes an edge goes the shorter one, across 180 degrees where that
  is shorter. Edges of a whole turn, from -180 to 180, go round the globe.
- Longitudes may be of any turn: 190, -170 and 550 degrees are one meridian.

All geometry is planar in degrees, axis order (longitude, latitude).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.tiles import HALF_TURN, MAX_LONGITUDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ring = NDArray[np.float64]
    """Corners (longitude, latitude) in degrees, shape (N, 2); the first may be repeated as the last."""

TURN: Final = 2 * HALF_TURN
"""Degrees of longitude round the globe."""

MAX_LATITUDE: Final = 91.0
"""Largest latitude that is read: grids with a pixel's centre on the pole reach half a pixel beyond."""

MAX_SLIMNESS: Final = 20.0
"""Height by width above which a box is none across 180 degrees but one round the globe whose edges end
short of it, such as -179.9..179.9: satellites' strips are at most about ten times longer than wide."""

_POLYGON_DEPTHS: Final = {"Polygon": 2, "MultiPolygon": 3}
"""Levels of lists around a position of a GeoJSON geometry: rings, and polygons of rings."""

_FAR: Final = 1e300
"""Bound of numbers that are finite as floats."""

_CLEAR_DEG: Final = 270.0
"""Length of an edge in degrees from which on it is clear that the other way is meant."""

_MIN_CLOSED_LENGTH: Final = 4
"""Corners of the smallest closed ring: a triangle's, and the first of them again."""

_EDGE_ENDS: Final = 2
"""Corners of an edge."""

_NO_AREA: Final = ("Point", "MultiPoint", "LineString", "MultiLineString")


class NotDegreesError(ValueError):
    """Coordinates are no longitude and latitude in degrees."""


def geojson_polygons(content: Any) -> Iterator[list[Ring]]:
    """Yield the rings of every polygon of a GeoJSON object; points, lines and nulls are left out.

    Args:
        content: geometry, Feature or FeatureCollection, as ``json.loads`` returns it.

    Yields:
        The exterior ring, then the interior rings. Altitudes are dropped.

    Raises:
        ValueError: it is not GeoJSON.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected an object with a type, found {str(content)[:40]!r}")  # noqa: TRY004
    kind = content.get("type")
    if kind == "Feature":
        if content.get("geometry") is not None:
            yield from geojson_polygons(content["geometry"])
    elif kind in ("FeatureCollection", "GeometryCollection"):
        members = content.get("features" if kind == "FeatureCollection" else "geometries")
        if not isinstance(members, list | tuple):
            raise ValueError(f"its {kind} holds no list")
        for member in members:
            yield from geojson_polygons(member)
    elif kind in ("Polygon", "MultiPolygon"):
        positions = _positions(content.get("coordinates"), _POLYGON_DEPTHS[kind])
        for rings in positions if kind == "MultiPolygon" else [positions]:
            yield [np.array(ring, np.float64).reshape(-1, 2) for ring in rings]
    elif kind not in _NO_AREA:
        raise ValueError(f"type {kind!r} is not one of GeoJSON's")


def shape_polygons(shape: Any) -> Iterator[list[Ring]]:
    """Yield the rings of every polygon of a shapely geometry, as :func:`geojson_polygons` does."""
    import shapely

    if shape.geom_type == "Polygon":
        yield [shapely.get_coordinates(ring) for ring in (shape.exterior, *shape.interiors)]
    elif hasattr(shape, "geoms"):
        for part in shape.geoms:
            yield from shape_polygons(part)


def outline_of(content: Any) -> Any:
    """Return the union of the polygons of a GeoJSON object.

    Args:
        content: geometry, Feature or FeatureCollection.

    Returns:
        Valid polygon or multipolygon (shapely) within -180..180 and -90..90 degrees; an empty one
        where there is no area. One that is so already keeps its corners and their order.

    Raises:
        ValueError: it is not GeoJSON.
        NotDegreesError: its coordinates are no longitude and latitude.
    """
    simple = _narrow(content)
    return _outline(list(geojson_polygons(content))) if simple is None else simple


def union_of(polygons: Iterable[Sequence[Ring]]) -> Any:
    """Return the union of polygons given by their rings, as :func:`outline_of` does.

    The order of its corners is always the one that shapely gives to a union.
    """
    import shapely

    cleaned = [_closed(rings) for rings in polygons]
    parts = [_plain([rings]) or _within(rings, _inside_on_globe) for rings in cleaned]
    outline = polygons_alone(shapely.union_all(parts))
    if _plain(list(shape_polygons(outline))) is None:
        # Where the outline is read again, an edge of more than half a turn would go the other way.
        return shapely.segmentize(outline, HALF_TURN)
    return outline


def _outline(polygons: Sequence[Sequence[Ring]]) -> Any:
    plain = _plain([_closed(rings) for rings in polygons])
    return union_of(polygons) if plain is None else plain


def has_unclear_edges(polygons: Iterable[Sequence[Ring]]) -> bool:
    """Return whether edges cross 180 degrees whose other way round the globe is hardly longer."""
    steps = [np.diff(ring[:, 0]) for rings in polygons for ring in _closed(rings)]
    lengths = np.abs(np.concatenate([*steps, np.empty(0)]))
    return bool(((lengths > HALF_TURN) & (lengths < _CLEAR_DEG)).any())


def union_in_plane(polygons: Iterable[Sequence[Ring]]) -> Any:
    """Return the union of polygons in the coordinates of a projection (shapely)."""
    import shapely

    parts = [_within(_closed(rings), _inside) for rings in polygons]
    return polygons_alone(shapely.union_all(parts))


def mended_footprint(geometry: Any) -> Mapping[str, Any]:
    """Return the GeoJSON geometry of a scene's footprint in the form that RFC 7946 describes.

    Args:
        geometry: GeoJSON geometry as a provider states it.

    Returns:
        The very object where it has that form already.

    Raises:
        ValueError: it is not GeoJSON, has no area, or is not in degrees.
    """
    from shapely.geometry import mapping

    polygons = list(geojson_polygons(geometry))
    outline = _outline(polygons)
    if outline.area == 0:
        raise ValueError("its geometry has no area")
    rings = [ring for polygon in polygons for ring in polygon]
    is_whole = all(len(ring) and np.array_equal(ring[0], ring[-1]) for ring in rings)
    if geometry["type"] in _POLYGON_DEPTHS and is_whole and _plain(polygons) is not None:
        given: Mapping[str, Any] = geometry
        return given
    mended: Mapping[str, Any] = json.loads(json.dumps(mapping(outline)))
    return mended


def _narrow(content: Any) -> Any:
    """Return a valid polygon, or several, no wider than half a turn; None for anything else.

    Planning reads each footprint once per cell; for nearly all of them this is ten times faster.
    """
    import shapely
    from shapely.geometry import shape

    try:
        geometry = shape(content)
    except (TypeError, ValueError, LookupError, AttributeError, shapely.errors.ShapelyError):
        return None
    if geometry.geom_type not in _POLYGON_DEPTHS or geometry.is_empty:
        return None
    west, _, east, _ = geometry.bounds
    if not (east - west <= HALF_TURN and _is_on_globe(geometry) and geometry.is_valid):
        return None
    return shapely.force_2d(geometry)


def _positions(node: Any, depth: int) -> Any:
    """Return coordinates without altitudes; ``depth`` levels of lists lie around each position."""
    if not isinstance(node, list | tuple):
        raise ValueError(f"coordinates hold {str(node)[:40]!r} where a list should be")  # noqa: TRY004
    if depth > 0:
        return [_positions(child, depth - 1) for child in node]
    numbers = [n for n in node[:2] if isinstance(n, int | float) and abs(n) <= _FAR]
    if len(numbers) < len(("longitude", "latitude")):
        raise ValueError(f"{str(node)[:60]} is not the longitude and latitude of a point")
    return numbers


def _closed(rings: Sequence[Ring]) -> list[Ring]:
    """Close the rings and drop those with fewer than three corners; empty without an exterior ring."""
    closed = []
    for number, ring in enumerate(rings):
        is_open = len(ring) > 0 and not np.array_equal(ring[0], ring[-1])
        whole = np.concatenate([ring, ring[:1]]) if is_open else ring
        if len(whole) >= _MIN_CLOSED_LENGTH:
            closed.append(whole)
        elif number == 0:
            return []
    return closed


def _check_degrees(rings: Sequence[Ring]) -> None:
    corners = np.concatenate([np.empty((0, 2)), *rings])
    if len(corners) == 0:
        return
    west, south = corners.min(axis=0).tolist()
    east, north = corners.max(axis=0).tolist()
    if not (max(-west, east) <= MAX_LONGITUDE and max(-south, north) <= MAX_LATITUDE):
        raise NotDegreesError(
            f"x from {west:.12g} to {east:.12g} and y from {south:.12g} to {north:.12g} are not "
            "longitude and latitude in degrees"
        )


def _plain(polygons: Sequence[Sequence[Ring]]) -> Any:
    """Return the geometry of polygons that need no mending; None where one does.

    Raises:
        NotDegreesError: they are far outside the globe.
    """
    import shapely

    for rings in polygons:
        _check_degrees(rings)
    parts = [shapely.Polygon(rings[0], rings[1:]) for rings in polygons if len(rings)]
    shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    if not all(_unwrapped(ring) is ring for rings in polygons for ring in rings):
        return None
    return shape if _is_on_globe(shape) and shape.is_valid else None


def _is_on_globe(shape: Any) -> bool:
    if shape.is_empty:
        return True
    west, south, east, north = map(float, shape.bounds)
    return max(-west, east) <= HALF_TURN and max(-south, north) <= HALF_TURN / 2


def _within(rings: Sequence[Ring], inside: Callable[[Ring], Any]) -> Any:
    """Return what is inside the first of some rings and not inside the others."""
    import shapely

    areas = [inside(ring) for ring in rings] or [shapely.Polygon()]
    return shapely.difference(areas[0], shapely.union_all(areas[1:]))


def _inside(ring: Ring) -> Any:
    """Return what a closed ring goes round at least once."""
    import shapely

    shape = shapely.Polygon(ring)
    if shape.is_valid:
        return shape
    # Not shapely's make_valid: its method "linework" follows the even-odd rule, and "structure" loses
    # rings that have a spike.
    edges = shapely.get_parts(shapely.union_all([shapely.LineString(ring)]))
    faces = shapely.get_parts(shapely.polygonize(edges))
    points = shapely.get_coordinates(shapely.point_on_surface(faces))
    return shapely.union_all(
        [face for face, at in zip(faces, points, strict=True) if _turns(ring, at)]
    )


def _turns(ring: Ring, point: NDArray[np.float64]) -> int:
    """Return how often a closed ring goes round a point that is not on it, counterclockwise.

    Source: winding number by crossings, https://en.wikipedia.org/wiki/Point_in_polygon.
    """
    (x, y), (next_x, next_y) = (ring[:-1] - point).T, (ring[1:] - point).T
    is_left = x * next_y - next_x * y
    upward = (y <= 0) & (next_y > 0) & (is_left > 0)
    downward = (y > 0) & (next_y <= 0) & (is_left < 0)
    return int(upward.sum()) - int(downward.sum())


def _inside_on_globe(ring: Ring) -> Any:
    """Return what a closed ring goes round, within -180..180 and -90..90 degrees."""
    corners = _unwrapped(ring)
    if corners[0, 0] != corners[-1, 0]:
        # It goes round a pole. Its direction does not tell which one, as rings are often reversed.
        pole = np.copysign(HALF_TURN / 2, ring[:, 1].mean())
        ends = [(corners[-1, 0], pole), (corners[0, 0], pole), corners[0]]
        corners = np.concatenate([corners, ends])
    return _on_globe(_inside(corners))


def _unwrapped(ring: Ring) -> Ring:
    """Return a closed ring whose edges go the shorter way, by longitudes of further turns.

    The last corner differs from the first by a turn where the ring goes round a pole. The very ring
    comes back where all its edges are right.
    """
    steps = np.diff(ring[:, 0])
    is_turn = np.isclose(np.abs(steps), TURN, rtol=0, atol=1e-9)
    if is_turn.sum() == 1:
        # Where its ends are the only corners on their meridian, it is the seam of a ring round a pole.
        on_meridian = (ring[:-1, 0] - ring[:-1][is_turn, 0]) % TURN == 0
        is_turn &= on_meridian.sum() > _EDGE_ENDS
    turns = np.where(is_turn, 0, np.rint(steps / TURN))
    if not turns.any():
        return ring
    longitudes = ring[:, 0] - TURN * np.concatenate([[0], np.cumsum(turns)])
    is_closed = longitudes[0] == longitudes[-1]
    is_slim = np.ptp(ring[:, 1]) > MAX_SLIMNESS * np.ptp(longitudes)
    if is_closed and is_slim and _is_box(ring):
        return ring
    return np.stack([longitudes, ring[:, 1]], axis=1)


def _is_box(ring: Ring) -> bool:
    """Return whether a ring fills the box around it, but for a tenth."""
    import shapely

    shape = shapely.Polygon(ring)
    return bool(shape.area >= (1 - 1 / 10) * shape.envelope.area)


def _on_globe(shape: Any) -> Any:
    """Cut a geometry of any turn at 180 degrees and move the pieces to -180..180."""
    import shapely

    if _is_on_globe(shape):
        return shape
    west, _, east, _ = shape.bounds
    pieces = []
    for turn in range(round(west / TURN), round(east / TURN) + 1):
        middle = turn * TURN
        world = shapely.box(middle - HALF_TURN, -HALF_TURN / 2, middle + HALF_TURN, HALF_TURN / 2)
        piece = polygons_alone(shapely.intersection(shape, world))
        pieces.append(shapely.transform(piece, lambda xy, east=middle: xy - (east, 0.0)))
    return shapely.union_all(pieces)


def polygons_alone(shape: Any) -> Any:
    """Return the polygons of a geometry, without the points and lines that cutting leaves behind."""
    import shapely

    if shape.geom_type in _POLYGON_DEPTHS:
        return shape
    parts = [part for part in shapely.get_parts(shape) if part.geom_type in _POLYGON_DEPTHS]
    return shapely.union_all(parts)
