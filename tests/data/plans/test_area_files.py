"""Area files as programs write them: encodings, reference systems, suffixes, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from shapely.geometry import mapping

from salibi_data.plans.areas.files import read_outline
from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import PixelGrid, Span, tile_outlines

if TYPE_CHECKING:
    from pathlib import Path

HOLED = shapely.box(0, 0, 4, 4) - shapely.box(1, 1, 2, 2)
ISLANDS = shapely.MultiPolygon(
    [shapely.box(6, 0, 7, 1), shapely.box(8, 0, 9, 1) - shapely.box(8.2, 0.2, 8.4, 0.4)]
)
OVERLAPPING = shapely.MultiPolygon([shapely.box(3, 3, 6, 6), shapely.box(5, 5, 7, 7)])
UNION = shapely.union_all([HOLED, ISLANDS, *OVERLAPPING.geoms])
LONLAT = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}


def assert_same(outline: Any, right: Any, tolerance: float = 0) -> None:
    assert outline.is_valid
    assert outline.symmetric_difference(right).area <= tolerance


def frame(*shapes: Any, crs: Any = "OGC:CRS84") -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"name": range(len(shapes))}, geometry=list(shapes), crs=crs)


@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
@pytest.mark.parametrize(
    ("shapes", "right"),
    [
        ([HOLED, None, shapely.box(9, 9, 10, 10)], HOLED | shapely.box(9, 9, 10, 10)),
        ([ISLANDS, None, shapely.MultiPolygon([HOLED]), OVERLAPPING], UNION),
        ([shapely.force_3d(HOLED, 7.0), shapely.Polygon()], HOLED),
    ],
)
def test_every_encoding_of_geoparquet_gives_the_same_outline(
    encoding: Any, shapes: list[Any], right: Any, tmp_path: Path
) -> None:
    table = frame(*shapes).rename_geometry("outline")
    for name in ("area.parquet", "AREA.PARQUET", "area.geoparquet", "area.pq", "area"):
        table.to_parquet(tmp_path / name, geometry_encoding=encoding, schema_version="1.1.0")
        assert_same(read_outline(tmp_path / name), right)


def native_table(points: pa.Array, list_type: Any, encoding: str, crs: Any) -> pa.Table:
    """A polygon of five points, after a null, as a slice of a longer column."""
    offsets = pa.array(
        [0, len(points)], pa.int64() if list_type is pa.LargeListArray else pa.int32()
    )
    rings = list_type.from_arrays(offsets, points)
    polygons = list_type.from_arrays(pa.array([0, 1], offsets.type), rings)
    if encoding == "multipolygon":
        polygons = list_type.from_arrays(pa.array([0, 1], offsets.type), polygons)
    column = pa.concat_arrays([polygons, pa.nulls(1, polygons.type), polygons]).slice(1)
    about = {"encoding": encoding, "geometry_types": []} | ({} if crs == "absent" else {"crs": crs})
    geo = {"version": "1.1.0", "primary_column": "area", "columns": {"area": about}}
    table = pa.table({"id": [1, 2], "area": column})
    return table.replace_schema_metadata({"geo": json.dumps(geo)})


def points_of(shape: Any, kind: str) -> pa.Array:
    x, y = shapely.get_coordinates(shape).T
    if kind == "xy":
        return pa.StructArray.from_arrays([pa.array(x), pa.array(y)], ["x", "y"])
    if kind == "zyx":
        return pa.StructArray.from_arrays(
            [pa.array(y * 0), pa.array(y), pa.array(x)], ["z", "y", "x"]
        )
    flat = np.stack([x, y, x * 0], axis=1)[:, : int(kind)]
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), int(kind))


@pytest.mark.parametrize("encoding", ["polygon", "multipolygon", "MultiPolygon"])
@pytest.mark.parametrize("kind", ["xy", "zyx", "2", "3"])
@pytest.mark.parametrize("list_type", [pa.ListArray, pa.LargeListArray])
def test_native_points_may_be_structs_or_lists(
    encoding: str, kind: str, list_type: Any, tmp_path: Path
) -> None:
    points = points_of(shapely.box(0, 0, 1, 2), kind)
    table = native_table(points, list_type, encoding.lower(), "absent")
    pq.write_table(table, tmp_path / "a.parquet")
    assert_same(read_outline(tmp_path / "a.parquet"), shapely.box(0, 0, 1, 2))


def test_columns_of_geoarrow_are_read_without_geoparquets_metadata(tmp_path: Path) -> None:
    column = pa.array([HOLED.wkb], pa.binary())
    marked = {
        "ARROW:extension:name": "geoarrow.wkb",
        "ARROW:extension:metadata": '{"crs": "OGC:CRS84"}',
    }
    schema = pa.schema([pa.field("shape", column.type, metadata=marked)])
    pq.write_table(pa.table([column], schema=schema), tmp_path / "a.parquet")
    assert_same(read_outline(tmp_path / "a.parquet"), HOLED)


@pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:5070", "EPSG:3857", "EPSG:2263", "EPSG:4269"])
@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
def test_an_area_of_another_crs_is_brought_to_degrees(
    crs: str, encoding: Any, tmp_path: Path
) -> None:
    """Two neighbours of 100 km: their long edges bend, and no seam stays between them."""
    west, south, east, north = frame(shapely.box(-94, 41, -93, 42)).to_crs(crs).total_bounds
    middle = west + (east - west) / 3
    halves = frame(
        shapely.box(west, south, middle, north), shapely.box(middle, south, east, north), crs=crs
    )
    halves.to_parquet(tmp_path / "a.parquet", geometry_encoding=encoding, schema_version="1.1.0")
    outline = read_outline(tmp_path / "a.parquet")
    assert outline.geom_type == "Polygon"
    assert not outline.interiors
    right = shapely.segmentize(shapely.box(west, south, east, north), (east - west) / 3000)
    right = geopandas.GeoSeries([right], crs=crs).to_crs("OGC:CRS84")[0]
    assert_same(outline, right, tolerance=1e-5 * right.area)


@pytest.mark.parametrize("tile", [(10488, 25327, 16), (20969, 50650, 17), (3, 2, 9)])
def test_tiles_along_the_edge_of_an_area_of_a_projection_are_inside(
    tile: Any, tmp_path: Path
) -> None:
    x, y, zoom = tile
    grid = PixelGrid(zoom=zoom, left=x, top=y, num_columns=3, num_rows=3)
    frame(shapely.box(*grid.bounds_3857), crs="EPSG:3857").to_parquet(tmp_path / "a.parquet")
    outline = read_outline(tmp_path / "a.parquet")
    assert shapely.covers(outline, tile_outlines(zoom, *Span(x, y, x + 3, y + 3).tiles())).all()
    outside = Span(x - 1, y, x, y + 3).tiles()
    assert not shapely.covers(outline, tile_outlines(zoom, *outside)).any()


def test_an_area_of_a_projection_may_cross_180_degrees_or_hold_a_pole(tmp_path: Path) -> None:
    frame(shapely.box(700_000, 5_000_000, 900_000, 5_100_000), crs="EPSG:32660").to_parquet(
        tmp_path / "a"
    )
    outline = read_outline(tmp_path / "a")
    assert outline.bounds[0] == -180
    assert outline.bounds[2] == 180
    assert 2 < outline.area < 3.5
    frame(shapely.Point(0, 0).buffer(1_000_000), crs="EPSG:3031").to_parquet(tmp_path / "b")
    pole = read_outline(tmp_path / "b")
    assert pole.contains(shapely.box(-179.9, -89.9, 179.9, -82))
    assert pole.bounds[3] == pytest.approx(-80.9, abs=0.5)


METRES = shapely.box(500_000, 4_000_000, 600_000, 4_100_000)


@pytest.mark.parametrize("crs", [None, "absent"])
@pytest.mark.parametrize("encoding", ["polygon", "multipolygon"])
def test_metres_without_a_crs_are_refused(encoding: str, crs: Any, tmp_path: Path) -> None:
    table = native_table(points_of(METRES, "xy"), pa.ListArray, encoding, crs)
    pq.write_table(table, tmp_path / "a.parquet")
    states = "states no CRS" if crs is None else "states the CRS OGC:CRS84"
    with pytest.raises(UsageError, match=f"{states}.* x from 500000 to 600000") as refused:
        read_outline(tmp_path / "a.parquet")
    assert "\n" not in str(refused.value)
    assert "EPSG:4326" in str(refused.value)


def test_degrees_without_a_crs_are_read_with_a_warning(tmp_path: Path, caplog: Any) -> None:
    table = native_table(points_of(shapely.box(0, 0, 1, 2), "xy"), pa.ListArray, "polygon", None)
    pq.write_table(table, tmp_path / "a.parquet")
    assert_same(read_outline(tmp_path / "a.parquet"), shapely.box(0, 0, 1, 2))
    assert "states no CRS" in caplog.text


@pytest.mark.parametrize(("east", "is_unclear"), [(-179.0, False), (-100.0, True), (179.5, False)])
def test_a_long_way_across_180_degrees_is_read_with_a_warning(
    east: float, is_unclear: bool, tmp_path: Path, caplog: Any
) -> None:
    ring = [(120, 0), (east, 0), (east, 5), (120, 5), (120, 0)] if is_unclear else None
    shape = shapely.Polygon(ring or [(179, 0), (east, 0), (east, 5), (179, 5), (179, 0)])
    (tmp_path / "a.geojson").write_text(geojson(shape))
    outline = read_outline(tmp_path / "a.geojson")
    assert outline.area == pytest.approx(5 * ((east - shape.exterior.coords[0][0]) % 360))
    assert ("add corners in between" in caplog.text) == is_unclear


def geojson(shape: Any, **members: Any) -> str:
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(shape)}
    return json.dumps({"type": "FeatureCollection", "features": [feature]} | members)


def named(name: Any) -> dict[str, Any]:
    return {"type": "name", "properties": {"name": name}}


@pytest.mark.parametrize("name", ["area.geojson", "area.GeoJSON", "AREA.JSON", "area.txt", "area"])
@pytest.mark.parametrize(
    "crs",
    [LONLAT, named("EPSG:4326"), named("urn:ogc:def:crs:EPSG::4326"), None,
     {"type": "EPSG", "properties": {"code": 4326}}],
)  # fmt: skip
def test_geojson_of_2008_may_name_its_crs(crs: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(geojson(HOLED, crs=crs))
    assert_same(read_outline(tmp_path / name), HOLED)


@pytest.mark.parametrize(
    "crs", [named("urn:ogc:def:crs:EPSG::32614"), {"type": "EPSG", "properties": {"code": 32614}}]
)
def test_geojson_of_a_projection_is_brought_to_degrees(crs: Any, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(geojson(METRES, crs=crs))
    right = (
        frame(shapely.segmentize(METRES, 1000), crs="EPSG:32614").to_crs("OGC:CRS84").geometry[0]
    )
    assert_same(read_outline(tmp_path / "a.geojson"), right, tolerance=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (geojson(HOLED, crs=named("EPSG:999999")), "its CRS 'EPSG:999999' is unknown"),
        (geojson(HOLED, crs=named("EPSG:4978")), "has no coordinates on the ground"),
        (geojson(HOLED, crs={"type": "link", "properties": {"href": "x"}}), "names none"),
        (geojson(HOLED, crs="EPSG:4326"), "names none"),
        (geojson(METRES), "x from 500000 to 600000"),
        (geojson(shapely.box(41, -94, 42, -93)), "y from -94 to -93"),
        (geojson(shapely.box(0, 0, 1e300, 1e300), crs=named("EPSG:2154")), "coordinates reach 1e"),
        (geojson(shapely.box(0, 0, 1e8, 1e8), crs=named("ESRI:54009")), "cannot be read: its CRS ESRI:54009"),
        (geojson(shapely.LineString([(0, 0), (1, 1)])), "holds no polygon"),
        (geojson(shapely.Point(0, 0)), "holds no polygon"),
        (geojson(shapely.Polygon()), "holds no polygon"),
        ("<kml></kml>", "is XML, such as KML"),
        (b"SQLite format 3\0", "is a GeoPackage .*`ogr2ogr -t_srs EPSG:4326 area.geojson area.x"),
        (b"\x00\x00\x27\x0a\x00", "is a shapefile"),
        (b"PK\x03\x04", "is a zipped file"),
        (b"PAR1 and no more", "neither GeoJSON nor GeoParquet"),
        ("{".encode("utf-16"), "is text in UTF-16"),
        (b"\x80abc", "neither GeoJSON nor GeoParquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(
    content: Any, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "area.x"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=reason) as refused:
        read_outline(path)
    assert "\n" not in str(refused.value)
    assert "area.x" in str(refused.value)


@pytest.mark.parametrize(
    ("column", "encoding", "reason"),
    [
        (pa.array([b"no geometry"]), "WKB", "geometry 0 is no well-known binary"),
        (pa.array([1.5]), "WKB", "holds double where well-known binary should be"),
        (pa.array([HOLED.wkb]), "polygon", "hold binary where a list should be"),
        (pa.array([[[1.5]]]), "polygon", "its points are double, not x and y"),
        (pa.array([[[{"lon": 1.0}]]]), "polygon", "not x and y"),
        (pa.array([[{"x": 1.0, "y": 1.0}]]), "linestring", "holds no polygon"),
        (pa.array([{"x": 1.0, "y": 1.0}]), "point", "holds no polygon"),
        (pa.array([b"x"]), "TWKB", "encoding 'twkb', which is not read"),
        (pa.array([[[{"x": float("nan"), "y": 1.0}] * 4]]), "polygon", "x from nan"),
    ],
)  # fmt: skip
def test_columns_that_hold_no_polygons_are_refused(
    column: Any, encoding: str, reason: str, tmp_path: Path
) -> None:
    geo = {"primary_column": "geometry", "columns": {"geometry": {"encoding": encoding}}}
    table = pa.table({"geometry": column}).replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=reason) as refused:
        read_outline(tmp_path / "a.parquet")
    assert "\n" not in str(refused.value)


def test_well_known_binary_may_lack_the_last_corner(tmp_path: Path) -> None:
    """Some programs write rings that do not end where they begin."""
    wkb = np.frombuffer(shapely.box(0, 0, 1, 1).wkb, np.uint8)
    open_ring = np.concatenate([wkb[:9], [4, 0, 0, 0], wkb[13:-16]]).astype(np.uint8).tobytes()
    geo = {"primary_column": "geometry", "columns": {}}
    table = pa.table({"geometry": [open_ring]}).replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert_same(read_outline(tmp_path / "a.parquet"), shapely.box(0, 0, 1, 1))


def test_plans_of_older_versions_know_the_same_area(tmp_path: Path) -> None:
    """They hold a digest of the union as shapely orders its corners; the order is that of one union."""
    shapes = [shapely.Point(x, 0).buffer(1.5, quad_segs=3) for x in (0, 1, 9, 8)]
    frame(*shapes).to_file(tmp_path / "a.geojson", engine="pyogrio")
    written = geopandas.read_file(tmp_path / "a.geojson").geometry
    assert read_outline(tmp_path / "a.geojson").wkb == shapely.union_all(written.to_numpy()).wkb


@pytest.mark.parametrize(
    "join",
    [
        lambda texts: "".join(f"\x1e{text}\n" for text in texts),  # RFC 8142
        lambda texts: "\r\n".join(texts) + "\r\n",
        lambda texts: "\ufeff" + "\n\n".join(json.dumps(json.loads(t), indent=1) for t in texts),
    ],
)
def test_geojson_may_be_a_sequence_of_objects(join: Any, tmp_path: Path) -> None:
    path = tmp_path / "area.geojsons"
    path.write_text(
        join([geojson(HOLED), geojson(ISLANDS), geojson(OVERLAPPING)]), encoding="utf-8"
    )
    assert_same(read_outline(path), UNION)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (geojson(HOLED) + "\n" + geojson(ISLANDS)[:-9], "neither GeoJSON"),
        (geojson(HOLED) + "\n" + geojson(ISLANDS, crs=named("EPSG:3857")), "different CRSs"),
        ("", "neither GeoJSON"),
        ("\x1e\n", "neither GeoJSON"),
    ],
)
def test_sequences_that_are_cut_or_mixed_are_refused(
    text: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "area.geojsons").write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_outline(tmp_path / "area.geojsons")
