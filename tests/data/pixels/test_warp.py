"""Aligned pixels against GDAL's own warp, against a plain average, and against each other.

GDAL is asked for a tight error: with its default of 0.125 px a block and its tiles differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform_bounds

from salibi_data.builds.build import build
from salibi_data.catalog.variants import ModalityRecipe
from salibi_data.pixels import radiometry, warp
from salibi_data.pixels.resample_gdal import shrink_factor
from salibi_data.sources.georeference import SceneRaster
from salibi_data.store.errors import GridError
from salibi_data.store.open import open_store
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data import real_catalogs
from tests.support.data.oracle import plain_average, warped
from tests.support.data.real_catalogs import needs_real
from tests.support.data.tiles import tiles_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

VV = ModalityRecipe(
    name="sar",
    sensor="sentinel-1",
    product="rtc",
    bands=("vv",),
    units="dB",
    range=((-25.0, 0.0),),
)


@pytest.fixture(scope="module")
def punjab_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("punjab")
    local = real_catalogs.punjab(folder)
    build(folder / "out.zarr", variant=local.variant, catalog=local.catalog)
    return folder / "out.zarr"


@needs_real
@pytest.mark.parametrize(
    ("array", "folder", "files"),
    [("sar", "s1", ["VV", "VH"]), ("lores", "s2_l2a", ["B4", "B3", "B2"])],
)
def test_real_sentinel_pixels_equal_gdals_warp(
    punjab_store: Path, array: str, folder: str, files: list[str]
) -> None:
    group, attributes = open_store(punjab_store)
    modality = attributes.modalities[array]
    place = next((real_catalogs.PUNJAB / folder).iterdir())
    differences = []
    for sample, (z, x, y) in enumerate(group["tile"][:].tolist()):
        for band, file in enumerate(files):
            physical = warped(place / f"{file}.tif", [1], TileXYZ(x, y, z), 256)[0]
            # Punjab's SAR is in dB and is compared as it is: no logarithm was taken twice.
            if array == "lores":
                physical = physical * 1e-4
            steps = (physical - modality.offset[band]) / modality.scale[band]
            expected = np.clip(np.rint(steps), 1, 255)
            differences.append(np.abs(expected - group[array][sample, band].astype(float)))
    assert np.mean(np.array(differences) <= 1) >= 0.999


@needs_real
def test_real_sar_and_optical_show_the_same_fields(punjab_store: Path) -> None:
    """Bare fields are dark in VH and bright in red, and so only where the two lie on each other.

    The two files' own georeferencing is some 45 m apart (pixel by pixel the arrays fit each other
    better than by their coordinates), so the best fit is looked for within 60 m; elsewhere the
    likeness must be gone.
    """
    group, _ = open_store(punjab_store)
    tile, sar, lores = group["tile"][:], group["sar"][:], group["lores"][:]
    vh, red = (mosaic(tile, band) for band in (sar[:, 1], lores[:, 0]))
    pixel_m = float(group["gsd_m"][0])
    inner = slice(150, -150)

    def likeness(shift_px: int) -> float:
        moved = np.roll(red, (shift_px, shift_px), axis=(0, 1))
        return abs(float(np.corrcoef(vh[inner, inner].ravel(), moved[inner, inner].ravel())[0, 1]))

    steps = {shift: likeness(shift) for shift in range(-140, 141, 5)}
    offset_m = {shift: abs(shift) * np.sqrt(2) * pixel_m for shift in steps}
    assert max(steps[s] for s in steps if offset_m[s] < 60) > 0.45
    assert max(steps[s] for s in steps if offset_m[s] > 200) < 0.15


def mosaic(tile: NDArray[np.int32], images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """All tiles of one band in one picture."""
    rows, columns = tile[:, 2] - tile[:, 2].min(), tile[:, 1] - tile[:, 1].min()
    whole = np.zeros((256 * (rows.max() + 1), 256 * (columns.max() + 1)))
    for row, column, image in zip(rows, columns, images, strict=True):
        whole[row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256] = image
    return whole


def naip_source() -> SceneRaster:
    with rasterio.open(real_catalogs.NAIP) as dataset:
        return SceneRaster(
            values=dataset.read([1, 2, 3]).astype(np.float32),
            transform=tuple(dataset.transform)[:6],
            crs=dataset.crs.to_wkt(),
            integer_bound=255,
        )


def naip_tiles(zoom: int) -> list[TileXYZ]:
    with rasterio.open(real_catalogs.NAIP) as dataset:
        bounds = transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds)
    west, south, east, north = bounds
    margin = 2e-4  # the raster is tilted against the tiles
    return tiles_within((west + margin, south + margin, east - margin, north - margin), zoom)


@needs_real
@pytest.mark.parametrize(("zoom", "tile_px"), [(17, 256), (18, 256), (17, 512), (18, 512)])
def test_real_naip_enlarged_equals_gdals_warp(zoom: int, tile_px: int) -> None:
    source, tiles = naip_source(), naip_tiles(zoom)
    assert tiles
    for tile in tiles:
        grid = PixelGrid.around([tile], tile_px=tile_px)
        assert shrink_factor(source, grid) <= 1
        ours = np.rint(warp.warp(source, grid))
        gdals = np.rint(warped(real_catalogs.NAIP, [1, 2, 3], tile, tile_px, all_valid=True))
        assert np.mean(np.abs(ours - gdals) <= 1) >= 0.999


@needs_real
@pytest.mark.parametrize("tile_px", [4, 8, 16, 25])
def test_real_naip_shrunk_equals_a_plain_average(tile_px: int) -> None:
    source = naip_source()
    for tile in naip_tiles(20)[::60]:
        grid = PixelGrid.around([tile], tile_px=tile_px)
        assert shrink_factor(source, grid) > 1
        expected = plain_average(source, grid)
        assert np.abs(warp.warp(source, grid)[0] - expected).max() <= 2


@needs_real
@pytest.mark.parametrize("tile_px", [64, 256, 512])
def test_a_block_of_tiles_equals_its_tiles_one_by_one(tile_px: int) -> None:
    source, tiles = naip_source(), naip_tiles(18)
    block = PixelGrid.around(tiles, tile_px=tile_px)
    together = warp.warp(source, block)
    assert len(tiles) > 3
    for tile in tiles:
        alone = warp.warp(source, PixelGrid.around([tile], tile_px=tile_px))
        assert np.array_equal(together[(slice(None), *block.window(tile))], alone)


def square(values: NDArray[np.float32], *, pixel_m: float, at: tuple[float, float]) -> SceneRaster:
    west, north = at
    return SceneRaster(
        values=values, transform=(pixel_m, 0.0, west, 0.0, -pixel_m, north), crs="EPSG:3857"
    )


def test_nodata_does_not_bleed_into_its_neighbours() -> None:
    grid = PixelGrid.around([TileXYZ(4, 4, 4)])
    west, _, _, north = grid.bounds_3857
    values = np.full((1, 64, 64), 100.0, np.float32)
    values[:, :, 32:] = np.nan
    warped = warp.warp(square(values, pixel_m=4 * grid.pixel_m, at=(west, north)), grid)
    seen = np.isfinite(warped[0])
    assert np.all(warped[0][seen] == 100)
    assert abs(seen.mean() - 0.5) < 0.01


def test_classes_are_never_mixed() -> None:
    grid = PixelGrid.around([TileXYZ(4, 4, 4)])
    west, _, _, north = grid.bounds_3857
    classes = np.random.default_rng(0).choice([4, 8, 9], (1, 40, 40)).astype(np.float32)
    source = square(classes, pixel_m=6.4 * grid.pixel_m, at=(west, north))
    warped = warp.warp(source, grid, categorical=True)
    assert set(np.unique(warped)) == {4, 8, 9}


def test_power_becomes_decibel_once_and_only_after_the_warp() -> None:
    power = np.array([[[1.0, 0.1, 0.01, 0.0]]], np.float32)
    decibel = radiometry.convert_units(power, "power", "dB")
    assert decibel.ravel() == pytest.approx([0.0, -10.0, -20.0, -100.0], abs=1e-4)
    assert radiometry.convert_units(power, "dB", "dB") is power
    with pytest.raises(GridError, match="no conversion"):
        radiometry.convert_units(power, "display", "dB")


def test_power_is_averaged_in_power() -> None:
    """Half 1.0, half 0.01: the mean power is 0.505, -2.97 dB; the mean of the dB would be -10."""
    grid = PixelGrid.around([TileXYZ(4, 4, 4)], tile_px=16)
    west, _, _, north = grid.bounds_3857
    stripes = np.tile(np.array([1.0, 0.01], np.float32), (1, 32, 16))
    warped = warp.warp(square(stripes, pixel_m=grid.pixel_m / 2, at=(west, north)), grid)
    assert radiometry.convert_units(warped, "power", "dB") == pytest.approx(
        10 * np.log10(0.505), abs=0.01
    )


@given(st.floats(-60, 30))
def test_the_brightest_radar_pixels_do_not_wrap_to_nodata(decibel: float) -> None:
    stored = radiometry.quantise(np.full((1, 1, 1), decibel, np.float32), VV).item()
    assert 1 <= stored <= 255
    back = VV.offset[0] + VV.scale[0] * stored
    assert back == pytest.approx(min(max(decibel, -25.0), 0.0), abs=VV.scale[0] / 2 + 1e-4)


def test_only_missing_pixels_are_stored_as_nodata() -> None:
    values = np.array([[[np.nan, -99.0, -25.0, 0.0, 9.0]]], np.float32)
    assert radiometry.quantise(values, VV).tolist() == [[[0, 1, 1, 255, 255]]]


def test_a_mosaic_takes_the_first_valid_pixel() -> None:
    layers = [[np.nan, 1.0, np.nan], [2.0, 2.0, np.nan], [3.0, 3.0, 3.0]]
    mosaic = radiometry.mosaic(np.array([[layer]], np.float32) for layer in layers)
    assert mosaic.tolist() == [[[2.0, 1.0, 3.0]]]
