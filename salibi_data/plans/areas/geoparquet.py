"""Reading of GeoParquet's polygons: encoded as WKB, or natively as lists of coordinates.

Source: GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/) and GeoArrow 0.2
(https://geoarrow.org/format.html), whose points are structs of x and y or lists of fixed length.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.outlines import shape_polygons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.catalog.outlines import Ring

ABSENT: Final = object()
"""CRS of a column whose metadata does not mention one, which for GeoParquet means degrees."""

_WITHOUT_AREA: Final = ("point", "linestring", "multipoint", "multilinestring")

_EXTENSION: Final = b"ARROW:extension:"
"""Start of the keys by which Arrow marks a column's type: its name and its metadata."""


def read_polygons(path: Path) -> tuple[list[list[Ring]], Any]:
    """Read the polygons of a file's primary column.

    Args:
        path: GeoParquet file, or Parquet with a column of GeoArrow.

    Returns:
        The rings of each polygon, and the CRS as the file states it (PROJJSON or text): None where
        it says that the CRS is unknown, :data:`ABSENT` where it says nothing.

    Raises:
        ValueError: it names no column of geometries, or that column holds something else.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    column, encoding, crs = _primary_column(file)
    values = file.read(columns=[column])[column].combine_chunks().drop_null()
    # Programs that know GeoArrow register its types with Arrow; below them are plain lists.
    values = getattr(values, "storage", values)
    if encoding == "wkb":
        return _from_wkb(values), crs
    if encoding == "polygon":
        return list(_from_lists(values)), crs
    if encoding == "multipolygon":
        return list(_from_lists(_flattened(values)[0])), crs
    if encoding in _WITHOUT_AREA:
        return [], crs
    raise ValueError(f"its column {column!r} has the encoding {encoding!r}, which is not read")


def _primary_column(file: Any) -> tuple[str, str, Any]:
    """Return the name, the encoding in lower case, and the CRS of the column of geometries."""
    geo = json.loads((file.metadata.metadata or {}).get(b"geo", b"null"))
    name = geo.get("primary_column") if isinstance(geo, dict) else None
    if isinstance(geo, dict) and isinstance(name, str) and name in file.schema_arrow.names:
        columns = geo.get("columns")
        about = columns.get(name) if isinstance(columns, dict) else None
        about = about if isinstance(about, dict) else {}
        return name, str(about.get("encoding", "WKB")).casefold(), about.get("crs", ABSENT)
    for field in file.schema_arrow if geo is None else ():
        metadata = field.metadata or {}
        extension = metadata.get(_EXTENSION + b"name", b"").decode()
        extension = extension or getattr(field.type, "extension_name", "")
        if extension.startswith("geoarrow."):
            stated = metadata.get(_EXTENSION + b"metadata") or b"{}"
            about = json.loads(stated)
            return field.name, extension.removeprefix("geoarrow."), about.get("crs")
    raise ValueError("its metadata names no column of geometries")


def _from_wkb(values: Any) -> list[list[Ring]]:
    from pyarrow import types
    from shapely import from_wkb

    kinds = types.is_binary, types.is_large_binary, types.is_binary_view
    if not any(is_kind(values.type) for is_kind in kinds):
        raise ValueError(f"its column holds {values.type} where well-known binary should be")
    # Rings that are not closed are so in some programs' files; nothing else is guessed.
    shapes = from_wkb(values.to_pylist(), on_invalid="fix")
    unreadable = np.flatnonzero([shape is None for shape in shapes])
    if len(unreadable):
        raise ValueError(f"geometry {unreadable[0]} is no well-known binary")
    return [rings for shape in shapes for rings in shape_polygons(shape)]


def _from_lists(polygons: Any) -> Iterator[list[Ring]]:
    """Yield the rings of an array of polygons, each a list of rings, each a list of points."""
    rings, polygon_ends = _flattened(polygons)
    points, ring_ends = _flattened(rings)
    corners = _coordinates(points)
    all_rings = np.split(corners, ring_ends[:-1])
    for first, end in zip([0, *polygon_ends[:-1]], polygon_ends, strict=True):
        yield all_rings[first:end]


def _flattened(lists: Any) -> tuple[Any, NDArray[np.int64]]:
    """Return the members of all lists in a row, and where each list ends in it."""
    import pyarrow.compute as pc
    from pyarrow import types

    if not (types.is_list(lists.type) or types.is_large_list(lists.type)):
        raise ValueError(f"its geometries hold {lists.type} where a list should be")
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lists.flatten(), np.cumsum(lengths, dtype=np.int64)


def _coordinates(points: Any) -> Ring:
    """Return x and y of an array of points, shape (N, 2)."""
    from pyarrow import types

    if types.is_struct(points.type) and {"x", "y"} <= {field.name for field in points.type}:
        fields = dict(zip((field.name for field in points.type), points.flatten(), strict=True))
        axes = [fields[name].to_numpy(zero_copy_only=False) for name in ("x", "y")]
        return np.stack(axes, axis=1).astype(np.float64)
    if types.is_fixed_size_list(points.type):
        values = points.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        pairs: Ring = values.reshape(-1, points.type.list_size)[:, :2]
        return pairs
    raise ValueError(f"its points are {points.type}, not x and y")
