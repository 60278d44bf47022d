"""Tiles, their order and their pixels, against mercantile, pmtiles and the formula."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import mercantile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmtiles.tile import zxy_to_tileid

from salibi_data.store.errors import GridError, UsageError
from salibi_data.store.tiles import (
    PixelGrid,
    Span,
    TileXYZ,
    boxes_on_globe,
    ground_gsd_m,
    hilbert_order,
    mercator_pixel_m,
    tile_ids,
    tile_outlines,
    tiles_of,
)
from tests.support.data.tiles import tiles_within

if TYPE_CHECKING:
    from salibi_data.store.tiles import Bounds


@st.composite
def tiles(draw: st.DrawFn, max_zoom: int = 20) -> TileXYZ:
    zoom = draw(st.integers(0, max_zoom))
    edge = st.integers(0, 2**zoom - 1)
    return TileXYZ(draw(edge), draw(edge), zoom)


@given(tiles(max_zoom=26))
def test_tile_ids_are_those_of_the_pmtiles_package(tile: TileXYZ) -> None:
    assert tile_ids(tile.z, [tile.x], [tile.y]).tolist() == [zxy_to_tileid(tile.z, tile.x, tile.y)]


@given(tiles(max_zoom=26))
def test_ids_lead_back_to_their_tiles(tile: TileXYZ) -> None:
    x, y = tiles_of(tile.z, [zxy_to_tileid(tile.z, tile.x, tile.y)])
    assert (x.tolist(), y.tolist()) == ([tile.x], [tile.y])


def test_an_id_of_another_zoom_has_no_tile() -> None:
    for other in (zxy_to_tileid(4, 15, 0), zxy_to_tileid(6, 0, 0)):
        with pytest.raises(GridError, match="not one of zoom 5"):
            tiles_of(5, [other])


def test_tiles_outside_the_grid_have_no_id() -> None:
    with pytest.raises(GridError, match="outside"):
        tile_ids(3, [8], [0])
    with pytest.raises(GridError, match="zoom 30"):
        tile_ids(30, [0], [0])


@given(tiles())
def test_bounds_and_transform_are_mercantiles(tile: TileXYZ) -> None:
    grid = PixelGrid.around([tile])
    assert grid.bounds_3857 == pytest.approx(tuple(mercantile.xy_bounds(*tile)), abs=1e-6)
    west, _, east, north = grid.bounds_3857
    a, _, c, _, e, f = grid.transform
    assert (c, f) == (west, north)
    assert c + 256 * a == pytest.approx(east, abs=1e-6)
    assert e == -a


@given(tiles(max_zoom=18))
def test_the_parent_at_512_px_has_the_pixels_of_the_four_children(tile: TileXYZ) -> None:
    children = [TileXYZ(*child) for child in mercantile.children(*tile)]
    parent_grid, child_grid = PixelGrid.around([tile], tile_px=512), PixelGrid.around(children)
    assert parent_grid.shape == child_grid.shape == (512, 512)
    assert parent_grid.transform == pytest.approx(child_grid.transform, rel=1e-12, abs=1e-6)


@given(tiles())
def test_ground_gsd_is_the_published_formula(tile: TileXYZ) -> None:
    west, south, east, north = mercantile.xy_bounds(*tile)
    _, latitude = mercantile.lnglat((west + east) / 2, (south + north) / 2)
    expected = 156543.03392 * math.cos(math.radians(latitude)) / 2**tile.z
    assert ground_gsd_m(tile.z, [tile.y])[0] == pytest.approx(expected, rel=1e-6)


def test_ground_gsd_varies_by_the_stated_38_percent_over_the_continental_us() -> None:
    south, north = (TileXYZ(*mercantile.tile(-98, lat, 15)) for lat in (24.5, 49.0))
    south_m, north_m = ground_gsd_m(15, [south.y, north.y])
    assert south_m / north_m == pytest.approx(1.38, abs=0.01)


@given(tiles(max_zoom=12), st.integers(0, 4))
def test_tiles_within_a_parent_are_its_descendants(tile: TileXYZ, depth: int) -> None:
    descendants = tiles_within(tuple(mercantile.bounds(*tile)), tile.z + depth)
    expected = (
        mercantile.children(*tile, zoom=tile.z + depth) if depth else [mercantile.Tile(*tile)]
    )
    # The outermost rows end at latitude 85.0511, where degrees no longer resolve a tile.
    if 0 < tile.y < 2**tile.z - 1:
        assert set(descendants) == {TileXYZ(*child) for child in expected}


def test_a_partly_covered_tile_is_not_within() -> None:
    west, south, east, north = mercantile.bounds(10, 12, 5)
    inner = (west + 0.01, south, east, north)
    assert tiles_within(inner, 5) == []


def test_a_box_over_the_antimeridian_is_split() -> None:
    tiles = tiles_within((178.0, 10.0, -178.0, 12.0), 10)
    assert {tile.x for tile in tiles} == {*range(1019, 1024), *range(5)} - {1018, 5}
    assert len({tile.y for tile in tiles}) == 5


@pytest.mark.parametrize(
    ("bounds", "same"),
    [
        ((178, 10, 182, 12), (178, 10, -178, 12)),
        ((-182, 10, -178, 12), (178, 10, -178, 12)),
        ((190, 10, 200, 12), (-170, 10, -160, 12)),
        ((180, 10, 190, 12), (-180, 10, -170, 12)),
        ((180, 10, -170, 12), (-180, 10, -170, 12)),
        ((350, 10, 10, 12), (-10, 10, 10, 12)),
        ((350, 10, 370, 12), (-10, 10, 10, 12)),
        ((0, 10, 360, 12), (-180, 10, 180, 12)),
    ],
)
def test_longitudes_of_any_turn_are_the_same_box(bounds: Bounds, same: Bounds) -> None:
    for zoom in (1, 8, 10):
        assert sorted(tiles_within(bounds, zoom)) == sorted(tiles_within(same, zoom))
    assert boxes_on_globe((-93.25, 41.7, 12.1, 42)) == [(-93.25, 41.7, 12.1, 42)]


@pytest.mark.parametrize(
    "bounds",
    [
        (10, 5, 20, 4),
        (-600, 0, 10, 1),
        (0, 0, 1, 91),
        (5, 0, 5, 1),
        (500_000, 4_000_000, 500_100, 4_000_100),
        (42, -93, 43, -92),
        (350, 0, -350, 1),
        (0, 0, float("nan"), 1),
    ],
)
def test_senseless_bounds_are_refused(bounds: tuple[float, float, float, float]) -> None:
    with pytest.raises(UsageError, match="west, south, east, north"):
        tiles_within(bounds, 8)


def test_hilbert_order_keeps_the_children_of_a_parent_together() -> None:
    x, y = Span(0, 0, 64, 64).tiles()
    order = [TileXYZ(int(x[i]), int(y[i]), 6) for i in hilbert_order(6, x, y)]
    parents = [(tile.x >> 2, tile.y >> 2) for tile in order]
    changes = sum(a != b for a, b in itertools.pairwise(parents))
    assert changes == len(set(parents)) - 1
    steps = [abs(a.x - b.x) + abs(a.y - b.y) for a, b in itertools.pairwise(order)]
    assert set(steps) == {1}


@given(tiles(max_zoom=18))
def test_outlines_are_those_of_mercantile(tile: TileXYZ) -> None:
    (outline,) = tile_outlines(tile.z, [tile.x], [tile.y])
    assert outline.bounds == pytest.approx(tuple(mercantile.bounds(*tile)), abs=1e-9)


def test_windows_of_a_rectangle_tile_it_exactly() -> None:
    members = [TileXYZ(x, y, 9) for x in range(100, 103) for y in range(40, 42)]
    grid = PixelGrid.around(members, tile_px=512)
    seen = np.zeros(grid.shape, int)
    for tile in members:
        seen[grid.window(tile)] += 1
    assert (seen == 1).all()
    with pytest.raises(GridError, match="not in this rectangle"):
        grid.window(TileXYZ(99, 40, 9))


def test_a_zoom_halves_the_pixel_exactly() -> None:
    assert all(mercator_pixel_m(z) == 2 * mercator_pixel_m(z + 1) for z in range(24))
