"""Rasters of any longitudes: the pixels of a tile are those of the same image where the tile is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from shapely.geometry import box, mapping

from salibi_data.pixels.warp import warp
from salibi_data.sources.longitudes import RoundGlobe, columns_of_turn, turns_towards
from salibi_data.sources.read import read_asset
from salibi_data.store.tiles import MERCATOR_EDGE_M, PixelGrid, TileXYZ
from tests.support.data import cogs

BANDS = [cogs.PRODUCT.bands["r"]]
TURN_M = 2 * MERCATOR_EDGE_M


def moved_east(transform: Affine, by: float) -> Affine:
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a, b, c + by, d, e, f)


def written(path: Path, values: Any, transform: Affine, crs: str, **options: Any) -> str:
    shape = {"count": 1, "height": values.shape[0], "width": values.shape[1], "dtype": values.dtype}
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, crs=crs, transform=transform, **shape, **options
    ) as dataset:
        dataset.write(values, 1)
    return str(path)


def read_tile(href: str, tile: TileXYZ, footprint: Any = None) -> Any:
    """The tile as a build stores it; all NaN where the file does not reach it."""
    grid = PixelGrid.around([tile])
    scene = replace(cogs.scene(href), footprint=footprint or {})
    product = replace(cogs.PRODUCT, nodata=None if footprint is None else "footprint")
    source = read_asset(cogs.catalog(), scene, "image", product, BANDS, grid)
    return np.full(grid.shape, np.nan) if source is None else warp(source, grid)[0]


def by_gdal(values: Any, transform: Affine, crs: str, tile: TileXYZ) -> Any:
    """GDAL's bilinear warp of an image that is where the tile is; NaN outside."""
    grid = PixelGrid.around([tile])
    out = np.full(grid.shape, np.nan, "float32")
    reproject(
        values.astype("float32"), out, src_transform=transform, src_crs=crs, src_nodata=np.nan,
        dst_transform=Affine(*grid.transform), dst_crs="EPSG:3857", dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )  # fmt: skip
    return out


def waves(rows: int, columns: int) -> Any:
    """Values of 1..255 that go on smoothly from the last column to the first."""
    y, x = np.mgrid[0:rows, 0:columns]
    angle = 2 * np.pi * x / columns
    values = 128 + 60 * np.sin(round(columns / 40) * angle) + 60 * np.cos(y / 9)
    return np.rint(values).astype("uint8")


def assert_alike(got: Any, right: Any) -> None:
    """The same valid pixels but for the edge, and values closer than a fourth of a pixel's shift makes."""
    both = np.isfinite(got) & np.isfinite(right)
    assert (np.isfinite(got) != np.isfinite(right)).mean() < 0.01
    assert both.any()
    assert np.abs(got - right)[both].max() < 2
    assert np.abs(got - right)[both].mean() < 0.5


@pytest.fixture(scope="module")
def globe() -> Any:
    """A quarter degree round the globe, between 60 degrees south and north."""
    return waves(480, 1440)


PIXEL = Affine(0.25, 0, 0, 0, -0.25, 60)
AROUND_TILES = [TileXYZ(x, 40, 7) for x in (0, 1, 31, 62, 63, 64, 65, 100, 126, 127)]
WIDE_TILES = [TileXYZ(0, 0, 0), TileXYZ(0, 0, 1), TileXYZ(1, 1, 1), TileXYZ(1, 1, 2)]


@pytest.mark.parametrize("west", [0.0, -360.0, -90.0, 90.0, 180.0])
def test_a_grid_round_the_globe_may_begin_at_any_longitude(
    west: float, globe: Any, tmp_path: Path
) -> None:
    moved = np.roll(globe, -round((west + 180) / 0.25), axis=1)
    at_home = written(tmp_path / "a.tif", globe, moved_east(PIXEL, -180), "EPSG:4326")
    elsewhere = written(tmp_path / "b.tif", moved, moved_east(PIXEL, west), "EPSG:4326")
    for tile in AROUND_TILES + WIDE_TILES:
        pixels = read_tile(elsewhere, tile)
        assert np.isfinite(pixels).all() or tile in WIDE_TILES
        assert np.isfinite(pixels).any(axis=0).all()
        np.testing.assert_array_equal(pixels, read_tile(at_home, tile))


def test_tiles_over_the_seam_do_not_depend_on_those_read_with_them(
    globe: Any, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.tif", globe, PIXEL, "EPSG:4326")
    grid = PixelGrid.around([TileXYZ(63, 40, 7), TileXYZ(64, 40, 7)])
    source = read_asset(cogs.catalog(), cogs.scene(path), "image", cogs.PRODUCT, BANDS, grid)
    assert source is not None
    joined = warp(source, grid)[0]
    apart = [read_tile(path, TileXYZ(x, 40, 7)) for x in (63, 64)]
    np.testing.assert_array_equal(joined, np.concatenate(apart, axis=1))


@pytest.mark.parametrize("shift", [0, 360, -360])
def test_a_window_of_any_turn_is_the_same_image(shift: int, tmp_path: Path) -> None:
    values, home = waves(300, 400), Affine(0.01, 0, -124, 0, -0.01, 39)
    path = written(tmp_path / "a.tif", values, moved_east(home, shift), "EPSG:4326")
    for tile in (TileXYZ(81, 197, 9), TileXYZ(80, 198, 9)):
        assert_alike(read_tile(path, tile), by_gdal(values, home, "EPSG:4326", tile))


ACROSS = {
    "EPSG:4326 from 179": ("EPSG:4326", Affine(0.005, 0, 179, 0, -0.005, 53), 0.0),
    "EPSG:4326 from -181": ("EPSG:4326", Affine(0.005, 0, -181, 0, -0.005, 53), 360.0),
    "EPSG:3857": ("EPSG:3857", Affine(500, 0, MERCATOR_EDGE_M - 1e5, 0, -500, 6.95e6), 0.0),
    "EPSG:3857 west": (
        "EPSG:3857",
        Affine(500, 0, -MERCATOR_EDGE_M - 1e5, 0, -500, 6.95e6),
        TURN_M,
    ),
    "EPSG:3832": ("EPSG:3832", Affine(500, 0, 3_239_000, 0, -500, 6.91e6), 0.0),
    "EPSG:32601": ("EPSG:32601", Affine(300, 0, 200_000, 0, -300, 5_860_000), 0.0),
    "EPSG:32660": ("EPSG:32660", Affine(300, 0, 620_000, 0, -300, 5_860_000), 0.0),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_raster_across_180_degrees_fills_the_tiles_on_both_sides(
    name: str, tmp_path: Path
) -> None:
    crs, transform, to_east = ACROSS[name]
    values = waves(400, 400)
    path = written(tmp_path / "a.tif", values, transform, crs)
    for x, eastern in ((255, True), (0, False)):
        tile = TileXYZ(x, 84, 8)
        turn = TURN_M if crs == "EPSG:3857" else 360.0 if crs == "EPSG:4326" else 0.0
        shift = (to_east if eastern else to_east - turn) if turn else 0.0
        right = by_gdal(values, moved_east(transform, shift), crs, tile)
        got = read_tile(path, tile)
        assert 0.2 < np.isfinite(got).mean() < 1
        assert_alike(got, right)


@pytest.mark.parametrize("jumps", [True, False])
def test_control_points_may_lie_on_both_sides_of_180_degrees(jumps: bool, tmp_path: Path) -> None:
    values, transform = waves(400, 400), Affine(0.005, 0, 179, 0, -0.005, 53)
    corners = [(column, row) for column in range(0, 401, 100) for row in range(0, 401, 100)]

    def longitude(x: float) -> float:
        return x - 360 if jumps and x > 180 else x

    points = [
        GroundControlPoint(row, column, longitude(179 + 0.005 * column), 53 - 0.005 * row)
        for column, row in corners
    ]
    path = tmp_path / "a.tif"
    options = {"driver": "GTiff", "count": 1, "height": 400, "width": 400, "dtype": "uint8"}
    with rasterio.open(path, "w", gcps=points, crs="EPSG:4326", **options) as dataset:
        dataset.write(values, 1)
    product = replace(cogs.PRODUCT, geolocation="gcps")
    for tile, shift in ((TileXYZ(255, 84, 8), 0), (TileXYZ(0, 84, 8), -360)):
        grid = PixelGrid.around([tile])
        source = read_asset(cogs.catalog(), cogs.scene(str(path)), "image", product, BANDS, grid)
        assert source is not None
        right = by_gdal(values, moved_east(transform, shift), "EPSG:4326", tile)
        assert_alike(warp(source, grid)[0], right)


@pytest.mark.parametrize("name", [*ACROSS, "footprint of the globe"])
def test_a_footprint_across_180_degrees_hides_no_pixel_inside(name: str, tmp_path: Path) -> None:
    """Whichever way it is written; pixels at 180 degrees have their neighbours of the other side."""
    crs, transform, _ = ACROSS.get(name, ACROSS["EPSG:32601"])
    path = written(tmp_path / "a.tif", waves(400, 400), transform, crs)
    footprints: list[Any] = [mapping(box(170, 40, -170, 60)), mapping(box(170, 40, 190, 60))]
    footprints += [mapping(box(-180, -90, 180, 90)), mapping(box(0, -90, 360, 90))]
    if name == "footprint of the globe":
        footprints = [mapping(box(-180, 40, 180, 60)), mapping(box(-179.9, -80, 179.9, 80))]
    for tile in (TileXYZ(255, 84, 8), TileXYZ(0, 84, 8)):
        right = read_tile(path, tile)
        for footprint in footprints[:1] if name == "footprint of the globe" else footprints:
            np.testing.assert_array_equal(read_tile(path, tile, footprint), right)
    near = mapping(box(179.9, 51, -179.9, 53))
    hidden = np.isnan(read_tile(path, TileXYZ(255, 84, 8), near)).mean()
    assert hidden > np.isnan(read_tile(path, TileXYZ(255, 84, 8))).mean() + 0.2


@given(st.floats(-540, 540), st.floats(0.1, 500), st.floats(-180, 179), st.floats(0.001, 1.0))
def test_a_raster_is_moved_to_where_it_shares_most(
    west: float, width: float, tile_west: float, tile_width: float
) -> None:
    turns = turns_towards((west, west + width), (tile_west, tile_west + tile_width), 360)

    def shared(turns: int) -> float:
        start, end = west + 360 * turns, west + width + 360 * turns
        return min(end, tile_west + tile_width) - max(start, tile_west)

    most = max(shared(turns) for turns in range(-4, 5))
    assert shared(turns) == most or most < 0
    assert most >= 0 or turns == 0


@pytest.mark.parametrize(
    ("pixel", "width", "columns"),
    [(0.25, 1440, 1440), (0.25, 1441, 1440), (0.25, 1439, None), (0.008333333, 43200, 43200),
     (0.7, 600, None), (-0.25, 1440, 1440)],
)  # fmt: skip
def test_only_whole_turns_go_round_the_globe(pixel: float, width: int, columns: int | None) -> None:
    assert columns_of_turn(pixel, width, 360.0) == columns


@given(st.integers(-30, 30), st.integers(1, 50))
def test_windows_go_on_with_the_first_column_after_the_last(left: int, width: int) -> None:
    values = np.arange(40, dtype="uint8").reshape(2, 20)
    with rasterio.MemoryFile() as memory:
        options = {
            "driver": "GTiff",
            "count": 1,
            "height": 2,
            "width": 20,
            "dtype": "uint8",
            "nodata": 7,
            "transform": PIXEL,
        }
        with memory.open(**options) as dataset:
            dataset.write(values, 1)
            around, window = RoundGlobe(dataset, 20), rasterio.windows.Window(left, 0, width, 2)
            columns = np.arange(left, left + width) % 20
            right = values[:, columns]
            np.testing.assert_array_equal(around.read(1, window=window), right)
            np.testing.assert_array_equal(around.read([1], window=window)[0], right)
            np.testing.assert_array_equal(around.read_masks(1, window=window) == 0, right == 7)
            np.testing.assert_array_equal(around.dataset_mask(window=window) == 0, right == 7)
            np.testing.assert_array_equal(around.read(1), values)
            assert around.width == 20


def test_a_wide_footprint_elsewhere_hides_every_pixel(tmp_path: Path) -> None:
    crs, transform, _ = ACROSS["EPSG:32660"]
    path = written(tmp_path / "a.tif", waves(400, 400), transform, crs)
    for footprint in (box(-100, 40, 0, 60), box(-180, -60, 180, -40)):
        assert np.isnan(read_tile(path, TileXYZ(255, 84, 8), mapping(footprint))).all()
