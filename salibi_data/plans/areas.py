"""Areas of candidate tiles: boxes or an outline, cut into cells that are planned one at a time.

Cells are in the order of the Hilbert curve, and so are the tiles within a cell. This gives the order
of the whole plan without a sort.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import (
    HALF_TURN,
    Span,
    Tiles,
    hilbert_order,
    spans_within,
    tile_bounds,
    tile_outlines,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.store.tiles import Bounds

CELL_ZOOM: Final = 9
"""Zoom of the cells that scenes are searched for: about 60 km wide, a few pages of items."""

MAX_CELL_LEVELS: Final = 8
"""Limit on the levels between a cell and its tiles: 256 x 256 tiles, which planning holds in memory."""

MAX_CELLS: Final = 20_000
"""Limit on the cells of an area: over three times the land of the continental U.S."""

_DEPTHS: Final = {"Polygon": 2, "MultiPolygon": 3}
"""Levels of lists around a position of a GeoJSON geometry: rings, and polygons of rings."""

_FAR: Final = 1e9
"""Upper bound of a coordinate, metres included; the bounds of the outline tell metres from degrees."""

_CHILDREN: Final = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
"""Offsets (column, row) of a tile's children from twice its own column and row."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area of candidate tiles."""

    boxes: tuple[Bounds, ...]
    """Boxes (west, south, east, north) in degrees; a candidate lies wholly within one of them."""
    outline: Any = None
    """Geometry (shapely) that candidates lie in as well; None for the boxes alone."""
    touching: bool = False
    """Whether a candidate only has to touch the outline; otherwise it lies wholly within."""

    def cells(self, zoom: int) -> list[Span]:
        """List the parent cells that hold candidates of a zoom; each is one tile of a lower zoom.

        Raises:
            UsageError: a box is no box, or the area is far too large.
        """
        levels = self._levels(zoom)
        spans = [span.parents(levels) for box in self.boxes for span in spans_within(box, zoom)]
        xy = self._descend(spans, zoom - levels)
        xy = xy[hilbert_order(zoom - levels, xy[:, 0], xy[:, 1])]
        return [Span(x, y, x + 1, y + 1) for x, y in xy.tolist()]

    def candidates(self, zoom: int, cell: Span) -> Tiles:
        """List the candidates in one cell, in the order of the Hilbert curve."""
        inside = cell.children(self._levels(zoom))
        spans = [span.cut(inside) for box in self.boxes for span in spans_within(box, zoom)]
        tiles = [np.stack(span.tiles(), axis=1) for span in spans if span.num_tiles]
        xy = np.concatenate(tiles or [np.empty((0, 2), np.int64)])
        if len(tiles) > 1:
            xy = np.unique(xy, axis=0)
        xy = xy[self._fits(zoom, xy)]
        xy = xy[hilbert_order(zoom, xy[:, 0], xy[:, 1])]
        return Tiles(zoom=zoom, x=xy[:, 0], y=xy[:, 1])

    def holds(self, tiles: Tiles) -> NDArray[np.bool_]:
        """Tell for each tile whether it is a candidate; shape (N,)."""
        spans = [span for box in self.boxes for span in spans_within(box, tiles.zoom)]
        xy = np.stack([tiles.x, tiles.y], axis=1)
        inside = np.zeros(len(xy), dtype=bool)
        for span in spans:
            inside |= _inside(span, xy)
        if self.outline is not None:
            inside[inside] = self._meets(tiles.zoom, xy[inside], touching=self.touching)
        return inside

    @staticmethod
    def _levels(zoom: int) -> int:
        return min(max(0, zoom - CELL_ZOOM), MAX_CELL_LEVELS)

    def _descend(self, spans: Sequence[Span], zoom: int) -> NDArray[np.int64]:
        """Find the tiles of some spans that touch the outline, from parents to children: (N, 2).

        The work grows with what the outline covers, and not with the box around its parts, which
        is the whole world for an area on both sides of the antimeridian.
        """
        xy = np.zeros((1 if spans else 0, 2), dtype=np.int64)
        for level in range(zoom + 1):
            if level > 0:
                xy = (2 * xy[:, None] + _CHILDREN).reshape(-1, 2)
            parents = {span.parents(zoom - level) for span in spans}
            xy = xy[np.any([_inside(span, xy) for span in parents], axis=0)] if parents else xy
            if self.outline is not None:
                xy = xy[self._meets(level, xy, touching=True)]
            if len(xy) > MAX_CELLS:
                raise UsageError(
                    f"the area holds more than {MAX_CELLS:,} cells of zoom {zoom}; give a smaller "
                    "--bbox or --aoi."
                )
        return xy

    def _fits(self, zoom: int, xy: NDArray[np.int64]) -> Any:
        if self.outline is None or len(xy) == 0:
            return slice(None)
        return self._meets(zoom, xy, touching=self.touching)

    def _meets(self, zoom: int, xy: NDArray[np.int64], *, touching: bool) -> Any:
        import shapely

        shapely.prepare(self.outline)
        relation = shapely.intersects if touching else shapely.covers
        return relation(self.outline, tile_outlines(zoom, xy[:, 0], xy[:, 1]))


def _inside(span: Span, xy: NDArray[np.int64]) -> NDArray[np.bool_]:
    x, y = xy.T
    inside: NDArray[np.bool_] = (
        (x >= span.left) & (x < span.right) & (y >= span.top) & (y < span.bottom)
    )
    return inside


def bounds_of(tiles: Tiles) -> Bounds:
    """Bounds (west, south, east, north) in degrees around all tiles."""
    bounds = tile_bounds(tiles.zoom, tiles.x, tiles.y)
    west, south = bounds[:, :2].min(axis=0).tolist()
    east, north = bounds[:, 2:].max(axis=0).tolist()
    return west, south, east, north


def read_outline(path: Path) -> Any:
    """Read the union of a file's polygons, in longitude and latitude (shapely).

    Points, lines, and features without a geometry are ignored.

    Args:
        path: GeoJSON (RFC 7946), or GeoParquet whose coordinates are degrees.

    Raises:
        UsageError: there is no such file, or no polygon in it.
    """
    import pyarrow as pa
    import shapely

    try:
        shapes = list(_from_parquet(path) if path.suffix == ".parquet" else _from_geojson(path))
        # Repairing a polygon may leave lines and points of it behind.
        polygons = [part for shape in shapes for part in _polygons(shapely.make_valid(shape))]
    except OSError as error:
        raise UsageError(f"no area can be read at {path}: {error.strerror or error}.") from error
    except (ValueError, pa.ArrowException, shapely.errors.ShapelyError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(
            f"{path} is neither GeoJSON nor GeoParquet with polygons: {reason}."
        ) from error
    outline = shapely.union_all(polygons)
    if outline.area == 0:
        raise UsageError(f"{path} holds no polygon; give the area to cover as polygons.")
    if not shapely.box(-HALF_TURN, -HALF_TURN / 2, HALF_TURN, HALF_TURN / 2).covers(outline):
        raise UsageError(
            f"{path} spans {outline.bounds}, which is not longitude and latitude in degrees; "
            "save it in EPSG:4326, cut in two where it crosses 180 degrees."
        )
    return outline


def _polygons(shape: Any) -> Iterator[Any]:
    """Yield the polygons of a shape, those in nested collections included."""
    if shape.geom_type == "Polygon":
        yield shape
    elif hasattr(shape, "geoms"):
        for part in shape.geoms:
            yield from _polygons(part)


def _from_geojson(path: Path) -> Iterator[Any]:
    from shapely.geometry import shape

    # Some tools on Windows write a byte order mark, which RFC 8259 lets readers ignore.
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    for geometry in _polygon_objects(content):
        kind = geometry["type"]
        yield shape(
            {"type": kind, "coordinates": _lonlat(geometry.get("coordinates"), _DEPTHS[kind])}
        )


def _polygon_objects(content: Any) -> Iterator[dict[str, Any]]:
    """Yield every polygon and multipolygon of a GeoJSON object."""
    if not isinstance(content, dict):
        raise ValueError(f"expected an object with a type, found {str(content)[:40]!r}")  # noqa: TRY004
    kind = content.get("type")
    if kind == "Feature":
        if content.get("geometry") is not None:
            yield from _polygon_objects(content["geometry"])
    elif kind in ("FeatureCollection", "GeometryCollection"):
        members = content.get("features" if kind == "FeatureCollection" else "geometries")
        if not isinstance(members, list):
            raise ValueError(f"its {kind} holds no list")
        for member in members:
            yield from _polygon_objects(member)
    elif kind in ("Polygon", "MultiPolygon"):
        yield content
    elif kind not in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise ValueError(f"type {kind!r} is not one of GeoJSON's")


def _lonlat(node: Any, depth: int) -> Any:
    """Coordinates without altitudes; ``depth`` levels of lists lie around each position."""
    if not isinstance(node, list):
        raise ValueError(f"coordinates hold {str(node)[:40]!r} where a list should be")  # noqa: TRY004
    if depth > 0:
        return [_lonlat(child, depth - 1) for child in node]
    numbers = [n for n in node[:2] if isinstance(n, int | float) and abs(n) < _FAR]
    if len(numbers) < len(("longitude", "latitude")):
        raise ValueError(f"{str(node)[:60]} is not the longitude and latitude of a point")
    return numbers


def _from_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq
    from shapely import from_wkb

    file = pq.ParquetFile(path)
    geo = json.loads((file.metadata.metadata or {}).get(b"geo", b"{}"))
    column = geo.get("primary_column") if isinstance(geo, dict) else None
    if column not in file.schema_arrow.names:
        raise ValueError("its metadata names no column of geometries")
    shapes = from_wkb(file.read(columns=[column])[column].to_pylist())
    yield from (shape for shape in shapes if shape is not None)
