"""Reading of area files: the union of the polygons of a GeoJSON or GeoParquet file, in degrees."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.outlines import (
    NotDegreesError,
    geojson_polygons,
    has_unclear_edges,
    shape_polygons,
    union_in_plane,
    union_of,
)
from salibi_data.plans.areas.geoparquet import ABSENT, read_polygons
from salibi_data.sources.gdal import translate_gdal_errors
from salibi_data.store.errors import ReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from salibi_data.catalog.outlines import Ring

log = logging.getLogger(__name__)

LONLAT: Final = "OGC:CRS84"
"""Longitude and latitude on WGS 84: the CRS of files that leave it out, by their specifications."""

EDGE_M: Final = 1000.0
"""Longest edge of an outline in a projection before it is bent to degrees: 0.02 m off at most."""

SLACK_M: Final = 1e-4
"""Width by which an outline in a projection is enlarged, in metres."""

MAX_EDGES: Final = 200_000
"""Limit on the edges that an outline is divided into."""

FAR: Final = 1e9
"""Bound of coordinates in any unit of length: beyond the globe, or not a number."""

_OTHER_FORMATS: Final = {
    b"SQLite format 3": "a GeoPackage or another SQLite file",
    b"\x00\x00\x27\x0a": "a shapefile",
    b"fgb": "FlatGeobuf",
    b"PK": "a zipped file",
    b"\x1f\x8b": "a compressed file",
    b"<": "XML, such as KML or GML",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""Formats by their first bytes that users have and this software does not read."""


_BETWEEN_TEXTS: Final = re.compile(r"[ \t\r\n\x1e]*")

_ADVICE: Final = "Save it in longitude and latitude (EPSG:4326), or state the CRS it has."


class CrsError(ValueError):
    """The CRS that a file states cannot be used."""


def read_outline(path: Path) -> Any:
    """Read the union of a file's polygons, in longitude and latitude (shapely).

    Points, lines, and features without a geometry are ignored. The content decides about the format,
    whatever the file's suffix.

    Args:
        path: GeoJSON (RFC 7946, or of 2008 with a ``crs``), or GeoParquet of any encoding and CRS.

    Returns:
        Polygon or multipolygon within -180..180 degrees, see :mod:`salibi_data.catalog.outlines`.

    Raises:
        UsageError: there is no such file, no polygon in it, or its coordinates are in metres and it
            states no CRS.
    """
    import pyarrow as pa
    import shapely

    crs: Any = LONLAT
    try:
        polygons, crs = _read(path)
        is_lonlat = crs in (None, LONLAT)
        outline = union_of(polygons) if is_lonlat else _to_lonlat(polygons, crs)
    except OSError as error:
        raise UsageError(f"no area can be read at {path}: {error.strerror or error}.") from error
    except CrsError as error:
        raise UsageError(f"the area at {path} cannot be read: {error}. {_ADVICE}") from error
    except NotDegreesError as error:
        states = f"states the CRS {LONLAT}" if crs is not None else "states no CRS"
        raise UsageError(f"{path} {states}, but its {error}. {_ADVICE}") from error
    except (ValueError, pa.ArrowException, shapely.errors.ShapelyError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(
            f"{path} is neither GeoJSON nor GeoParquet with polygons: {reason}."
        ) from error
    if outline.area == 0:
        raise UsageError(f"{path} holds no polygon; give the area to cover as polygons.")
    if crs is None:
        _warn(f"{path} states no CRS; it is read as longitude and latitude in degrees")
    if is_lonlat and has_unclear_edges(polygons):
        _warn(
            f"{path} has edges of more than 180 degrees of longitude, which are read as the shorter way, "
            "across 180 degrees; if the longer one is meant, add corners in between"
        )
    return outline


@lru_cache(maxsize=64)
def _warn(message: str) -> None:
    """Log a warning once, since a plan reads its area several times."""
    log.warning(message)


def _read(path: Path) -> tuple[list[list[Ring]], Any]:
    """Return a file's polygons and their CRS, see :func:`_crs`."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PAR1"):
        polygons, crs = read_polygons(path)
        return polygons, _crs(crs) if crs is not ABSENT else LONLAT
    for magic, name in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise UsageError(
                f"{path} is {name}, which is not read; convert it, such as by "
                f"`ogr2ogr -t_srs EPSG:4326 area.geojson {path.name}`."
            )
    # Some tools on Windows write a byte order mark, which RFC 8259 lets readers ignore.
    objects = _json_texts(path.read_text(encoding="utf-8-sig"))
    polygons = [rings for content in objects for rings in geojson_polygons(content)]
    crs, *others = [_geojson_crs(content) for content in objects]
    if any(other != crs for other in others):
        raise CrsError("its objects are in different CRSs")
    return polygons, crs


def _json_texts(text: str) -> list[Any]:
    """Parse one JSON text, or several: each on a line of its own, or after a record separator.

    Sources: GeoJSON text sequences (RFC 8142), newline-delimited GeoJSON.
    """
    objects: list[Any] = []
    decoder, start = json.JSONDecoder(), 0
    while True:
        # By position: cutting off what was read would copy the rest once per object.
        between = _BETWEEN_TEXTS.match(text, start)
        start = between.end() if between else start
        if objects and start == len(text):
            return objects
        content, start = decoder.raw_decode(text, start)
        objects.append(content)


def _geojson_crs(content: Any) -> Any:
    """Return the CRS of a GeoJSON object.

    Source: GeoJSON of 2008, section 3; RFC 7946 removed the member, and many programs still write it.
    """
    if "crs" not in content:
        return LONLAT
    member = content["crs"]
    if member is None:
        return None
    properties = member.get("properties") if isinstance(member, dict) else None
    kind = member.get("type") if isinstance(member, dict) else None
    if isinstance(properties, dict) and str(kind).casefold() in ("name", "epsg"):
        name = properties.get("name") or properties.get("code")
        if name is not None:
            return _crs(f"EPSG:{name}" if str(name).isdecimal() else str(name))
    raise CrsError(f"its crs {str(member)[:60]} names none")


@contextmanager
def _gdal_errors_of(crs: Any) -> Iterator[None]:
    """Convert GDAL's errors into a CrsError."""
    try:
        with translate_gdal_errors(f"its CRS {crs.to_string()[:60]}", ""):
            yield
    except ReadError as error:
        raise CrsError(str(error).rstrip(". ")) from error


def _crs(text: Any) -> Any:
    """Return a CRS that rasterio knows; LONLAT for degrees on WGS 84, None for None: not stated.

    Raises:
        CrsError: it is unknown, or has no coordinates on the ground.
    """
    import rasterio
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if text is None:
        return None
    # PROJ's own complaints go to the log of this environment, not to the user's terminal.
    with rasterio.Env():
        try:
            crs = CRS.from_user_input(json.dumps(text) if isinstance(text, dict) else text)
        except CRSError as error:
            raise CrsError(f"its CRS {str(text)[:60]!r} is unknown") from error
        # Coordinates in files are east before north, in whatever order the CRS names its axes.
        if crs in (CRS.from_user_input(LONLAT), CRS.from_epsg(4326)):
            return LONLAT
    if not (crs.is_projected or crs.is_geographic):
        raise CrsError(f"its CRS {crs.to_string()[:60]} has no coordinates on the ground")
    return crs


def _to_lonlat(polygons: Sequence[Sequence[Ring]], crs: Any) -> Any:
    """Return the union of polygons of another CRS, in degrees.

    Raises:
        CrsError: some coordinates have no longitude and latitude.
    """
    import shapely
    from rasterio.warp import transform

    def to_lonlat(xy: Ring) -> Ring:
        lonlat: Ring = np.stack(transform(crs, LONLAT, *xy.T), axis=1)
        return lonlat

    corners = np.concatenate([np.empty((0, 2)), *(ring for rings in polygons for ring in rings)])
    if not (np.abs(corners) <= FAR).all():
        raise CrsError(
            f"its coordinates reach {np.abs(corners).max():g}, and those of its CRS cannot"
        )
    with _gdal_errors_of(crs):
        if crs.is_geographic:
            return union_of([[to_lonlat(ring) for ring in rings] for rings in polygons])
        # Joined before they are bent: neighbours' common edges are equal there to the last digit.
        metres = crs.linear_units_factor[1]
        # Tiles along its edge are inside, although the transform rounds.
        slack = {"distance": SLACK_M / metres, "join_style": "mitre"}
        outline = shapely.buffer(union_in_plane(polygons), **slack)
        edge = max(EDGE_M / metres, outline.length / MAX_EDGES)
        bent = shapely.transform(shapely.segmentize(outline, edge), to_lonlat)
        return union_of(shape_polygons(bent))
