"""Pixels looked up by OpenCV: exact places, GDAL's rules for missing ones, the same in any block."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import mercantile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import in_pixels, plain_average
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from salibi_data import align, remap
from salibi_data.errors import ReadError
from salibi_data.grid import PixelGrid, TileXYZ
from salibi_data.lattice import lattices
from salibi_data.read import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

UTM_15 = "EPSG:32615"
OFF_THE_MERIDIAN = (-90.2, 45.0)
"""Where UTM 15N is turned by two degrees against Web Mercator."""

BOTH_WAYS = pytest.mark.parametrize("tile_px", [256, 64], ids=["enlarged", "shrunk"])


def grid_at(zoom: int, *, across: int = 1, tile_px: int = 256) -> PixelGrid:
    x, y, _ = mercantile.tile(*OFF_THE_MERIDIAN, zoom)
    corner = TileXYZ(x, y, zoom)
    return PixelGrid.around(
        [corner, TileXYZ(x + across - 1, y + across - 1, zoom)], tile_px=tile_px
    )


def source_under(
    grid: PixelGrid, gsd_m: float, *, crs: str = UTM_15, bands: int = 2, seed: int = 0
) -> Source:
    """Black and white pixels over a grid and 20 pixels around it."""
    west, south, east, north = grid.bounds_3857
    corners = [west, east, west, east], [north, north, south, south]
    xs, ys = transform("EPSG:3857", crs, *corners)
    left, top = min(xs) - 20 * gsd_m, max(ys) + 20 * gsd_m
    columns, rows = (int(edge / gsd_m) + 21 for edge in (max(xs) - left, top - min(ys)))
    values = np.random.default_rng(seed).choice([0.0, 255.0], (bands, rows, columns))
    return Source(
        values=values.astype(np.float32),
        transform=(gsd_m, 0.0, left, 0.0, -gsd_m, top),
        crs=CRS.from_user_input(crs).to_wkt(),
    )


def window(source: Source, left: int, top: int, right: int, bottom: int) -> Source:
    """So many pixels less on each side."""
    rows, columns = source.values.shape[1:]
    return replace(
        source,
        values=source.values[:, top : rows - bottom, left : columns - right],
        transform=tuple(Affine(*source.transform) @ Affine.translation(left, top))[:6],
    )


def with_holes(source: Source, share: float) -> Source:
    values = source.values.copy()
    values[:, np.random.default_rng(1).random(values.shape[1:]) < share] = np.nan
    return replace(source, values=values)


def bilinear_by_formula(source: Source, grid: PixelGrid) -> NDArray[np.float64]:
    """Every pixel projected by itself, in float64."""
    west, _, _, north = grid.bounds_3857
    steps = [(np.arange(size) + 0.5) * grid.pixel_m for size in grid.shape]
    column, row = in_pixels(source, west + steps[1], north - steps[0])
    (left, across), (top, down) = (
        (np.floor(at - 0.5).astype(int), (at - 0.5) % 1) for at in (column, row)
    )
    values = source.values.astype(np.float64)
    upper = values[:, top, left] * (1 - across) + values[:, top, left + 1] * across
    lower = values[:, top + 1, left] * (1 - across) + values[:, top + 1, left + 1] * across
    return (upper * (1 - down) + lower * down).reshape(len(values), *grid.shape)


@pytest.mark.parametrize(("zoom", "gsd_m"), [(15, 10.0), (18, 0.6), (12, 40.0)])
def test_hard_edges_are_where_the_projection_puts_them(zoom: int, gsd_m: float) -> None:
    grid = grid_at(zoom)
    source = source_under(grid, gsd_m)
    assert align.shrinking_factor(source, grid) < 1
    exact = bilinear_by_formula(source, grid)
    (lattice,) = lattices(source, grid)
    ours, gdals = (np.abs(way(source, grid) - exact).max() for way in (align.warp, align.by_gdal))
    assert ours < 0.05 + 2 * 255 * lattice.bent_px
    assert ours < gdals


def test_a_file_that_is_turned_is_no_harder() -> None:
    grid = grid_at(15)
    upright = source_under(grid, 10.0)
    turned = Affine(*upright.transform) @ Affine.rotation(-30, pivot=(100, 100))
    source = replace(upright, transform=tuple(turned @ Affine.translation(-80, -80))[:6])
    source = replace(source, values=np.tile(source.values, (1, 3, 3)))
    exact = bilinear_by_formula(source, grid)
    assert np.abs(align.warp(source, grid) - exact).max() < 0.05


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 19), st.floats(-177, 177), st.floats(-70, 70))
def test_no_place_is_further_off_than_is_said(zoom: int, lon: float, lat: float) -> None:
    x, y, _ = mercantile.tile(lon, lat, zoom)
    grid = PixelGrid.around([TileXYZ(x, y, zoom)])
    zone = math.floor((lon + 180) / 6) + 1
    utm = f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"
    pixel = grid.pixel_m / 2
    source = Source(
        values=np.zeros((1, 1, 1), np.float32),
        transform=(pixel, 0.0, 5e5, 0.0, -pixel, 4e6),
        crs=CRS.from_user_input(utm).to_wkt(),
    )
    (lattice,) = lattices(source, grid)
    west, _, _, north = grid.bounds_3857
    middles = (np.arange(256) + 0.5) * grid.pixel_m
    column, row = in_pixels(source, west + middles, north - middles)
    columns, rows = lattice.places(rows="middles", columns="middles")
    apart = max(np.abs(columns.ravel() - column).max(), np.abs(rows.ravel() - row).max())
    assert apart <= 1.1 * lattice.bent_px + 2 / 65_536


@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_missing_pixels_are_missing_where_gdal_has_them_so(share: float) -> None:
    """In Web Mercator itself GDAL's places are exact, too, so that nothing but rules is compared."""
    grid = grid_at(15)
    source = with_holes(source_under(grid, 13.7, crs="EPSG:3857"), share)
    ours, gdals = align.warp(source, grid), align.by_gdal(source, grid)
    assert np.array_equal(np.isnan(ours), np.isnan(gdals))
    assert np.nanmax(np.abs(ours - gdals)) < 0.05


@pytest.mark.parametrize("cut", [(40, 0, 0, 0), (0, 90, 0, 0), (30, 0, 60, 71), (0, 0, 0, 3000)])
def test_beyond_a_source_nothing_is_seen(cut: tuple[int, int, int, int]) -> None:
    grid = grid_at(15)
    source = window(source_under(grid, 13.7, crs="EPSG:3857"), *cut)
    ours = align.warp(source, grid)
    if source.values.size:
        gdals = align.by_gdal(source, grid)
        assert np.array_equal(np.isnan(ours), np.isnan(gdals))
        assert np.nanmax(np.abs(ours - gdals)) < 0.05
    assert np.isnan(ours).any()


@BOTH_WAYS
@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.integers(0, 16)] * 4), st.integers(0, 3))
def test_a_tile_is_the_same_bits_in_any_block_and_window(
    tile_px: int, cut: tuple[int, int, int, int], number: int
) -> None:
    block = grid_at(15, across=2, tile_px=tile_px)
    source = source_under(block, 8.0)
    tile = TileXYZ(block.left + number % 2, block.top + number // 2, 15)
    together = align.warp(source, block)[(slice(None), *block.window(tile))]
    alone = align.warp(window(source, *cut), PixelGrid.around([tile], tile_px=tile_px))
    assert (align.shrinking_factor(source, block) > 1) == (tile_px == 64)
    assert np.isfinite(alone).all()
    assert np.array_equal(together, alone)


def test_only_the_tiles_asked_for_are_warped() -> None:
    block = grid_at(15, across=2)
    source = source_under(block, 8.0)
    tile = TileXYZ(block.left + 1, block.top, 15)
    some = align.warp(source, block, tiles=[tile])
    whole = align.warp(source, block)
    place = (slice(None), *block.window(tile))
    assert np.array_equal(some[place], whole[place])
    assert np.isnan(some).mean() == 0.75


def test_averages_are_nearer_to_a_plain_average_than_gdals() -> None:
    grid = grid_at(17, tile_px=40)
    source = source_under(grid, 0.6, bands=1)
    assert align.shrinking_factor(source, grid) > 5
    exact = plain_average(source, grid, samples=45)
    ours, gdals = (np.abs(way(source, grid)[0] - exact) for way in (align.warp, align.by_gdal))
    assert ours.max() < gdals.max() < 10
    assert ours.mean() < 0.8 * gdals.mean()


def test_averages_of_an_upright_source_are_exact() -> None:
    """Boxes of 2.5 x 2.5 pixels, by hand."""
    grid = grid_at(15, tile_px=64)
    gsd_m = grid.pixel_m / 2.5
    west, _, _, north = grid.bounds_3857
    values = np.random.default_rng(0).choice([0.0, 255.0], (1, 168, 168)).astype(np.float32)
    place = (gsd_m, 0.0, west - 4 * gsd_m, 0.0, -gsd_m, north + 4 * gsd_m)
    source = Source(values=values, transform=place, crs="EPSG:3857")
    halves = np.kron(values[0, 4:164, 4:164], np.ones((2, 2)))
    boxes = halves.reshape(64, 5, 64, 5).mean(axis=(1, 3))
    # Nodes are rounded to 2^-16 of a pixel.
    assert np.abs(align.warp(source, grid)[0] - boxes).max() < 0.01


def spiked(source: Source) -> Source:
    values = np.full_like(source.values, 0.01)
    values[:, 60, 60] = 1e6
    return replace(source, values=values)


def upside_down(source: Source) -> Source:
    a, b, c, d, e, f = source.transform
    rows = source.values.shape[1]
    return replace(source, values=source.values[:, ::-1], transform=(a, b, c, d, -e, f + rows * e))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(spiked, id="a pixel so bright that sums lose the others"),
        pytest.param(lambda source: with_holes(source, 0.3), id="missing pixels"),
        pytest.param(lambda source: window(source, 60, 0, 0, 0), id="beyond the edge"),
        pytest.param(upside_down, id="south up"),
    ],
)
def test_what_two_passes_would_not_average_exactly_is_gdals(change) -> None:
    grid = grid_at(15, tile_px=64)
    source = change(source_under(grid, 5.0))
    (lattice,) = lattices(source, grid)
    assert remap.average(source.values, lattice) is None
    ours, gdals = align.warp(source, grid), align.by_gdal(source, grid)
    assert np.isfinite(ours).any()
    assert np.array_equal(ours, gdals, equal_nan=True)


def test_a_tile_that_bends_is_gdals() -> None:
    grid = grid_at(6)
    source = source_under(grid, 5000.0, crs="EPSG:5070")
    (lattice,) = lattices(source, grid)
    assert lattice.bent_px > align.MOST_BENT_PX
    assert np.array_equal(align.warp(source, grid), align.by_gdal(source, grid), equal_nan=True)


def test_a_source_that_has_no_place_there_is_refused_in_words() -> None:
    """Half the world away the transverse Mercator projection has no numbers."""
    grid = PixelGrid.around([TileXYZ(*mercantile.tile(0.0, 0.0, 10))])
    source = source_under(grid_at(15), 10.0)
    with pytest.raises(ReadError, match="Check its CRS and transform"):
        align.warp(source, grid)
