"""Where samples may lie: what outlines are read from, and the cells and tiles that they hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from salibi_data.plans.areas.area import CELL_ZOOM, MAX_CELLS, Area
from salibi_data.plans.areas.files import read_outline
from salibi_data.plans.options import Scope
from salibi_data.plans.planner import plan
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.tiles import spans_within, tile_bounds

if TYPE_CHECKING:
    from pathlib import Path

ZOOM = 15
SQUARE = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]]
POLYGON = {"type": "Polygon", "coordinates": SQUARE}
POINT = {"type": "Point", "coordinates": [50.0, 50.0]}


def written(folder: Path, content: Any) -> Path:
    path = folder / "area.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {}, "geometry": geometry}


def features(*geometries: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [feature(one) for one in geometries]}


def collection(*geometries: Any) -> dict[str, Any]:
    return {"type": "GeometryCollection", "geometries": list(geometries)}


@pytest.mark.parametrize(
    "content",
    [
        POLYGON,
        feature(POLYGON),
        features(POLYGON, None),
        features(collection(POINT, collection(POLYGON))),
        collection(POLYGON, POINT, {"type": "LineString", "coordinates": [[5, 5], [6, 6]]}),
        {"type": "Polygon", "coordinates": [[[*SQUARE[0][0], 100.0], *SQUARE[0][1:]]]},
        {"type": "Polygon", "coordinates": [[[x, y, 100.0] for x, y in SQUARE[0]]]},
        # A spike: repairing it leaves a line, which is no area.
        {"type": "Polygon", "coordinates": [[*SQUARE[0][:2], [3.0, 0.0], *SQUARE[0][1:]]]},
        "\ufeff" + json.dumps(POLYGON),
    ],
)
def test_the_polygons_of_a_file_are_its_outline(tmp_path: Path, content: Any) -> None:
    outline = read_outline(written(tmp_path, content))
    assert outline.geom_type == "Polygon"
    assert not outline.has_z
    assert outline.equals(shapely.box(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (feature(None), "holds no polygon"),
        (features(None, POINT), "holds no polygon"),
        (features(), "holds no polygon"),
        ({"type": None}, "type None is not one of GeoJSON's"),
        ({"type": ["Polygon"]}, "is not one of GeoJSON's"),
        ({"type": "Topology"}, "type 'Topology'"),
        ([POLYGON], "expected an object"),
        ({"type": "FeatureCollection", "features": None}, "holds no list"),
        ({"type": "FeatureCollection", "features": ["a"]}, "found 'a'"),
        ({"type": "Polygon"}, "coordinates hold 'None'"),
        ({"type": "Polygon", "coordinates": SQUARE[0]}, "where a list should be"),
        ({"type": "Polygon", "coordinates": [[["a", "b"]]]}, r"\['a', 'b'\] is not the longitude"),
        (
            '{"type": "Polygon", "coordinates": [[[1e999, 0], [1, 1], [0, 1]]]}',
            r"\[inf, 0\] is not",
        ),
        ('{"type": "Polygon", "coordinates": [[[NaN, 0], [1, 1], [0, 1]]]}', r"\[nan, 0\] is not"),
        ('{"type": "Polygon", "coordinates": ' + "[" * 100_000, "nested too deeply"),
        (
            '{"type": "GeometryCollection", "geometries": [' * 900 + "]}" * 900,
            "nested too deeply",
        ),
        ("", "neither GeoJSON nor GeoParquet"),
    ],
)
def test_what_is_no_outline_is_refused_in_one_line(
    tmp_path: Path, content: Any, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        read_outline(written(tmp_path, content))
    assert "\n" not in str(refused.value)
    assert "area.geojson" in str(refused.value)


def parquet(path: Path, metadata: bytes | None) -> Path:
    wkb = [None, shapely.to_wkb(shapely.box(0, 0, 1, 1))]
    table = pa.table({"geometry": wkb})
    if metadata is not None:
        table = table.replace_schema_metadata({b"geo": metadata})
    pq.write_table(table, path)
    return path


def test_rows_of_a_geoparquet_file_without_a_geometry_are_left_out(tmp_path: Path) -> None:
    path = parquet(tmp_path / "area.parquet", b'{"primary_column": "geometry"}')
    assert read_outline(path).equals(shapely.box(0, 0, 1, 1))


@pytest.mark.parametrize("metadata", [None, b"5", b"{}", b'{"primary_column": "elsewhere"}'])
def test_parquet_without_a_geometry_column_is_refused(
    tmp_path: Path, metadata: bytes | None
) -> None:
    with pytest.raises(UsageError, match="names no column of geometries"):
        read_outline(parquet(tmp_path / "area.parquet", metadata))


def candidates(area: Area, zoom: int = ZOOM) -> set[tuple[int, int]]:
    positions: list[tuple[int, int]] = []
    for cell in area.cells(zoom):
        tiles = area.candidates(zoom, cell)
        positions += zip(tiles.x.tolist(), tiles.y.tolist(), strict=True)
    assert len(set(positions)) == len(positions)
    return set(positions)


def one_by_one(area: Area, zoom: int = ZOOM) -> set[tuple[int, int]]:
    """The same, a tile of the box at a time."""
    positions = set()
    for span in [span for box in area.boxes for span in spans_within(box, zoom)]:
        for x, y in zip(*(axis.tolist() for axis in span.tiles()), strict=True):
            tile = shapely.box(*tile_bounds(zoom, [x], [y])[0])
            meets = tile.intersects if area.touching else tile.covered_by
            if meets(area.outline):
                positions.add((x, y))
    return positions


EDGE = tile_bounds(ZOOM, [20_000], [12_000])[0]
OUTLINES = {
    "ring": shapely.box(10, 50, 10.3, 50.2) - shapely.box(10.05, 50.05, 10.25, 50.15),
    "diagonal": shapely.Polygon([(10.5, 50), (10.53, 50), (11, 50.3), (10.97, 50.3)]),
    "islands": shapely.union_all([shapely.box(x, 50, x + 0.05, 50.04) for x in (10.3, 10.5, 11.2)]),
    # Two that touch in the middle of a tile: it lies within both together, within neither alone.
    "touching": shapely.union_all(
        [
            shapely.box(EDGE[0] - 0.1, EDGE[1] - 0.1, EDGE[[0, 2]].mean(), EDGE[3] + 0.1),
            shapely.box(EDGE[[0, 2]].mean(), EDGE[1] - 0.1, EDGE[2] + 0.1, EDGE[3] + 0.1),
        ]
    ),
    # A gap that rounding left between two footprints: a tile may touch both.
    "sliver": shapely.union_all(
        [
            shapely.box(EDGE[0] - 0.1, EDGE[1] - 0.1, EDGE[[0, 2]].mean() - 1e-9, EDGE[3] + 0.1),
            shapely.box(EDGE[[0, 2]].mean(), EDGE[1] - 0.1, EDGE[2] + 0.1, EDGE[3] + 0.1),
        ]
    ),
}


@pytest.mark.parametrize("touching", [False, True])
@pytest.mark.parametrize("name", OUTLINES)
def test_candidates_are_those_that_one_by_one_lie_in_the_outline(name: str, touching: bool) -> None:
    outline = OUTLINES[name]
    area = Area(boxes=(outline.bounds,), outline=outline, touching=touching)
    assert candidates(area) == one_by_one(area) != set()
    if name in ("touching", "sliver") and (touching or name == "touching"):
        assert (20_000, 12_000) in candidates(area)


def test_cells_follow_the_parts_of_an_outline_not_the_box_around_them() -> None:
    """Either side of the antimeridian: the box around both goes round the world."""
    west, east = shapely.box(-180, 40, -179, 41), shapely.box(179, 40, 180, 41)
    both = shapely.union_all([west, east])
    num_cells = [
        len(Area(boxes=(outline.bounds,), outline=outline).cells(ZOOM)) for outline in (west, east)
    ]
    cells = Area(boxes=(both.bounds,), outline=both).cells(ZOOM)
    assert len(cells) == sum(num_cells)
    assert len(spans_within(both.bounds, CELL_ZOOM)[0].tiles()[0]) > 30 * len(cells)


def test_specks_all_over_the_world_are_few_cells() -> None:
    """The box around them holds more cells than an area may have."""
    centres = [(x, y) for x in range(-170, 171, 20) for y in range(-60, 61, 20)]
    outline = shapely.union_all([shapely.box(x, y, x + 0.1, y + 0.1) for x, y in centres])
    area = Area(boxes=(outline.bounds,), outline=outline)
    assert spans_within(outline.bounds, CELL_ZOOM)[0].num_tiles > MAX_CELLS
    cells = area.cells(ZOOM)
    assert len(centres) <= len(cells) <= 4 * len(centres)
    inside = sum(
        len(spans_within(shapely.box(x, y, x + 0.1, y + 0.1).bounds, ZOOM)) for x, y in centres
    )
    assert inside == len(centres)
    tiles = area.candidates(ZOOM, cells[0])
    assert np.all(shapely.covers(outline, shapely.box(*tile_bounds(ZOOM, tiles.x, tiles.y).T)))


@pytest.mark.parametrize("outline", [None, shapely.box(-170, -80, 170, 80)])
def test_an_area_that_is_far_too_large_is_refused(outline: Any) -> None:
    with pytest.raises(UsageError, match="more than 20,000 cells of zoom 9"):
        Area(boxes=((-170, -80, 170, 80),), outline=outline).cells(ZOOM)


def test_overlapping_boxes_hold_each_cell_once() -> None:
    one = Area(boxes=((10, 50, 12, 52),)).cells(ZOOM)
    assert Area(boxes=((10, 50, 12, 52), (10, 50, 11, 51))).cells(ZOOM) == one


def test_an_outline_that_holds_no_tile_says_so(sample_toml: str, tmp_path: Path) -> None:
    west, south = -92.44, 42.0
    speck = shapely.box(west, south, west + 1e-4, south + 1e-4)
    thin = shapely.Polygon([(west, south), (west + 0.05, south + 0.04), (west, south + 1e-4)])
    for outline in (speck, thin):
        aoi = written(tmp_path, shapely.to_geojson(outline))
        with pytest.raises(SelectionError, match="no tile of zoom 17 lies wholly within"):
            plan("micro", catalog=sample_toml, aoi=aoi)


def test_a_catalog_smaller_than_a_tile_says_so(sample_toml: str, tmp_path: Path) -> None:
    path = tmp_path / "coarse.toml"
    path.write_text('extends = "micro"\nname = "coarse"\nbase_zoom = 12\n')
    with pytest.raises(SelectionError, match="no tile of zoom 12 lies wholly within"):
        plan(str(path), catalog=sample_toml)


def test_a_box_of_swapped_axes_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="not west, south, east, north"):
        Scope(bounds_lonlat=(42.0, -93.0, 43.0, -92.0))


def test_a_box_across_180_degrees_has_cells_on_both_sides_alone() -> None:
    cells = Area(boxes=((179.0, 50.0, -179.0, 51.0),)).cells(ZOOM)
    sides = [Area(boxes=(box,)).cells(ZOOM) for box in ((179, 50, 180, 51), (-180, 50, -179, 51))]
    assert set(cells) == {cell for side in sides for cell in side}
    with pytest.raises(UsageError, match="it crosses 180 degrees"):
        Area(boxes=((10.0, -80.0, 9.0, 80.0),)).cells(ZOOM)
