"""Reading of area files: the polygons of GeoJSON and GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import HALF_TURN

if TYPE_CHECKING:
    from pathlib import Path

_DEPTHS: Final = {"Polygon": 2, "MultiPolygon": 3}
"""Levels of lists around a position of a GeoJSON geometry: rings, and polygons of rings."""

_FAR: Final = 1e9
"""Upper bound of a coordinate, metres included; the bounds of the outline tell metres from degrees."""


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
