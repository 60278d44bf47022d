"""Our lookups of pixels against plain loops and GDAL, on grids that are turned, shrunk, full of holes."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine

from salibi_data.pixels import resample_gdal, warp
from salibi_data.pixels.lattice import Lattice, tile_lattices
from salibi_data.sources.georeference import SceneRaster
from salibi_data.store.errors import ReadError
from salibi_data.store.tiles import PixelGrid, TileXYZ

TILE = TileXYZ(31_500, 49_300, 17)
GRID = PixelGrid.around([TILE], tile_px=64)
TURNS = st.builds(sum, st.tuples(st.sampled_from([-180, -90, 0, 90]), st.floats(1, 89)))
"""Degrees, none of which puts all centres exactly on edges of the source's pixels."""
MERCATOR = CRS.from_epsg(3857).to_wkt()


def turned(
    *,
    factor: float,
    degrees: float = 0.0,
    values: np.ndarray | None = None,
    holes: float = 0.0,
    bands: int = 2,
) -> SceneRaster:
    """Black and white noise around :data:`GRID`, ``factor`` of its pixels to one of the grid's."""
    size = int(64 * factor * 1.8) + 12
    rng = np.random.default_rng(7)
    if values is None:
        values = rng.choice([0.0, 255.0], (bands, size, size))
    values = values.astype(np.float32)
    values[:, rng.random(values.shape[1:]) < holes] = np.nan
    west, south, east, north = GRID.bounds_3857
    pixel_m = GRID.pixel_m / factor
    place = (
        Affine.translation((west + east) / 2, (south + north) / 2)
        @ Affine.rotation(degrees)
        @ Affine.scale(pixel_m, -pixel_m)
        @ Affine.translation(-size / 2, -size / 2)
    )
    return SceneRaster(values=values, transform=tuple(place)[:6], crs=MERCATOR, integer_bound=255)


def centres(source: SceneRaster) -> tuple[np.ndarray, np.ndarray]:
    """Source columns and rows of the grid's pixel centres, in double precision."""
    columns, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    x, y = Affine(*GRID.transform) @ (columns, rows)
    return ~Affine(*source.transform) @ (x, y)


def bilinear(source: SceneRaster) -> np.ndarray:
    """The definition, in double precision: weights of what is observed among four neighbours."""
    x, y = centres(source)
    rows, columns = source.values.shape[1:]
    sums, weights = np.zeros((len(source.values), *x.shape)), np.zeros(x.shape)
    left, top = np.floor(x - 0.5).astype(int), np.floor(y - 0.5).astype(int)
    for column in (left, left + 1):
        for row in (top, top + 1):
            weight = (1 - np.abs(x - 0.5 - column)) * (1 - np.abs(y - 0.5 - row))
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            neighbours = source.values[:, row.clip(0, rows - 1), column.clip(0, columns - 1)]
            weight = np.where(inside & np.isfinite(neighbours[0]), weight, 0)
            sums += weight * np.nan_to_num(neighbours)
            weights += weight
    with np.errstate(invalid="ignore"):
        means = sums / weights
    return np.where(np.isfinite(nearest(source)), means, np.nan)


def nearest(source: SceneRaster) -> np.ndarray:
    x, y = (np.floor(at).astype(int) for at in centres(source))
    rows, columns = source.values.shape[1:]
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    values = source.values[:, y.clip(0, rows - 1), x.clip(0, columns - 1)]
    return np.where(inside, values, np.nan)


def average(source: SceneRaster, samples: int = 64) -> np.ndarray:
    """Mean of what is observed under each pixel, by dense nearest sampling."""
    at = (np.arange(64 * samples) + 0.5) / samples
    x, y = ~Affine(*source.transform) @ (Affine(*GRID.transform) @ np.meshgrid(at, at))
    values = source.values[0][np.floor(y).astype(int), np.floor(x).astype(int)]
    boxes = values.reshape(64, samples, 64, samples)
    with np.errstate(invalid="ignore"):
        return np.nansum(boxes, axis=(1, 3)) / np.isfinite(boxes).sum(axis=(1, 3))


@settings(max_examples=20, deadline=None)
@given(
    factor=st.floats(0.05, 0.97),
    degrees=TURNS,
    holes=st.sampled_from([0.0, 0.0, 0.1, 0.6]),
)
def test_enlarging_is_bilinear_whatever_the_turn_and_the_holes(
    factor: float, degrees: float, holes: float
) -> None:
    source = turned(factor=factor, degrees=degrees, holes=holes)
    ours, exact = warp.warp(source, GRID), bilinear(source)
    # Centres within a millionth of a pixel of an edge may fall on either side of it.
    lost_alike = np.isnan(ours) == np.isnan(exact)
    assert lost_alike.mean() > 0.999
    both = np.isfinite(ours) & np.isfinite(exact)
    assert np.abs(ours - exact)[both].max(initial=0) < 0.05


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(0.1, 0.97), degrees=TURNS)
def test_classes_are_those_of_the_pixels_that_centres_lie_in(factor: float, degrees: float) -> None:
    source = turned(factor=factor, degrees=degrees)
    ours = warp.warp(source, GRID, categorical=True)
    assert np.mean(ours == nearest(source)) > 0.999


@settings(max_examples=12, deadline=None)
@given(factor=st.floats(1.2, 5.0), degrees=st.floats(-3, 3))
def test_shrinking_is_the_average_of_the_area(factor: float, degrees: float) -> None:
    source = turned(factor=factor, degrees=degrees, bands=1)
    off = np.abs(warp.warp(source, GRID)[0] - average(source))
    # What leans is taken for upright over a strip: triangles of up to tan / 8 of a pixel's area, at
    # both ends of two sides. The oracle's own steps are 1 in 64 of a pixel, at four sides.
    lean = abs(np.tan(np.radians(degrees)))
    assert off.max() < 8 + 255 * lean / 2
    assert off.mean() < 1.5 + 255 * lean / 16


@pytest.mark.parametrize("factor", [1.47, 2.9])
def test_of_pixels_with_holes_the_observed_part_is_averaged(factor: float) -> None:
    source = turned(factor=factor, holes=0.2, bands=1)
    ours, expected = warp.warp(source, GRID)[0], average(source)
    assert np.array_equal(np.isnan(ours), np.isnan(nearest(source)[0]))
    off = np.abs(ours - expected)[np.isfinite(ours)]
    assert np.quantile(off, 0.999) < 10
    assert off.mean() < 2
    assert np.nanmin(ours) >= -0.01
    assert np.nanmax(ours) <= 255.01


def test_a_tile_partly_beside_the_source_is_missing_there() -> None:
    source = turned(factor=0.5)
    half = replace(
        source, values=np.ascontiguousarray(source.values[:, :, : source.values.shape[2] // 2])
    )
    ours = warp.warp(half, GRID)
    assert np.array_equal(np.isfinite(ours), np.isfinite(bilinear(half)))
    assert 0.4 < np.isfinite(ours).mean() < 0.6
    away = replace(GRID, left=GRID.left + 50)
    assert np.isnan(warp.warp(source, away)).all()


@pytest.mark.parametrize("factor", [0.4, 1.6, 3.0])
def test_in_another_window_of_a_file_a_tile_is_the_same(factor: float) -> None:
    """Its transform's last digits differ then."""
    whole = turned(factor=factor, degrees=1.3)
    place = Affine(*whole.transform) @ Affine.translation(2, 1)
    window = replace(whole, values=whole.values[:, 1:, 2:].copy(), transform=tuple(place)[:6])
    for categorical in (False, True):
        assert np.array_equal(
            warp.warp(whole, GRID, categorical=categorical),
            warp.warp(window, GRID, categorical=categorical),
            equal_nan=True,
        )


def test_only_the_tiles_asked_for_are_warped() -> None:
    block = PixelGrid.around([TILE, TileXYZ(TILE.x + 1, TILE.y + 1, 17)], tile_px=64)
    source = turned(factor=0.9)
    some, whole = warp.warp(source, block, tiles=[TILE]), warp.warp(source, block)
    place = (slice(None), *block.window(TILE))
    assert np.array_equal(some[place], whole[place])
    assert np.isnan(some).mean() == 0.75


def test_a_source_that_has_no_place_there_is_refused_in_words() -> None:
    """Half the world away the transverse Mercator projection has no numbers."""
    zone = CRS.from_epsg(32615).to_wkt()
    source = replace(turned(factor=0.5), crs=zone, transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
    with pytest.raises(ReadError, match="Check its CRS and transform"):
        warp.warp(source, PixelGrid.around([TileXYZ(512, 511, 10)]))


def test_gdal_takes_what_sums_or_lines_would_not_be_exact_for() -> None:
    """Fractions when shrinking, grids far from upright, and tiles so large that the earth bends."""
    fractions = replace(turned(factor=3.0), integer_bound=None)
    aslant = turned(factor=3.0, degrees=40)
    for source in (fractions, aslant):
        expected = resample_gdal.warp(source, GRID, categorical=False)
        assert np.array_equal(warp.warp(source, GRID), expected, equal_nan=True)
    wide = PixelGrid.around([TileXYZ(1, 2, 3)], tile_px=64)
    utm = SceneRaster(
        values=np.ones((1, 300, 300), np.float32),
        transform=(20_000.0, 0.0, 0.0, 0.0, -20_000.0, 9_000_000.0),
        crs=CRS.from_epsg(32613).to_wkt(),
    )
    (lattice,) = tile_lattices(utm, wide).values()
    assert lattice.error_px > 0.01
    with patch.object(resample_gdal, "warp", wraps=resample_gdal.warp) as used:
        warp.warp(utm, wide)
    used.assert_called_once()


@pytest.mark.parametrize(("zoom", "epsg"), [(13, 32615), (15, 32615), (18, 32615), (15, 4326)])
def test_straight_lines_between_nodes_are_as_near_as_they_are_said_to_be(
    zoom: int, epsg: int
) -> None:
    """The oracle asks PROJ for every pixel; a pixel of the source is as large as one of the grid."""
    from rasterio.warp import transform

    grid = PixelGrid.around([TileXYZ(int(0.24 * 2**zoom), int(0.37 * 2**zoom), zoom)])
    west, _, _, north = grid.bounds_3857
    (x,), (y,) = transform("EPSG:3857", CRS.from_epsg(epsg), [west], [north])
    edge = grid.pixel_m * (1 / 111_000 if epsg == 4326 else 1)
    source = SceneRaster(
        values=np.zeros((1, 8, 8), np.float32),
        transform=(edge, 0.0, x, 0.0, -edge, y),
        crs=CRS.from_epsg(epsg).to_wkt(),
    )
    (lattice,) = tile_lattices(source, grid).values()
    columns, rows = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    xs, ys = Affine(*grid.transform) @ (columns, rows)
    projected = transform("EPSG:3857", source.crs, xs.ravel(), ys.ravel())
    exact = ~Affine(*source.transform) @ tuple(np.array(at).reshape(256, 256) for at in projected)
    off = max(np.abs(a - b).max() for a, b in zip(lattice.centres(), exact, strict=True))
    assert off <= 2 * lattice.error_px + 1e-6
    assert lattice.error_px < 0.001


def test_a_node_that_has_no_place_in_the_source_is_off_by_infinity() -> None:
    nowhere = np.full((3, 3), np.inf)
    assert Lattice(x=nowhere, y=nowhere, tile_px=64).error_px == float("inf")
