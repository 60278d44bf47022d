"""Real physical values through a whole build: what comes back out of the store is what was measured.

The store is decoded by the formula of its own attributes, ``offset + scale * value``; the truth is
rasterio's warp of the source file, made here, and the sensor's own formula.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine

from salibi_data import build
from salibi_data.store.open import open_store
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data import real_catalogs
from tests.support.data.oracle import warped
from tests.support.data.real_catalogs import needs_real

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

pytestmark = needs_real


def decoded(path: Path, array: str) -> tuple[list[TileXYZ], Floats, Floats, Floats]:
    """Tiles, physical values (N, bands, 256, 256), and each band's (low, step)."""
    group, attributes = open_store(path)
    modality = attributes.modalities[array]
    step, offset = np.array(modality.scale), np.array(modality.offset)
    values = offset[:, None, None] + step[:, None, None] * group[array][:].astype(np.float64)
    assert group[array][:].min() > 0  # no nodata
    return [TileXYZ(x, y, z) for z, x, y in group["tile"][:].tolist()], values, offset + step, step


@pytest.fixture(scope="module")
def opera_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opera")
    local = real_catalogs.opera(folder)
    build(folder / "out.zarr", variant=local.variant, catalog=local.catalog)
    return folder / "out.zarr"


def burst_files(band: str) -> list[Path]:
    return sorted(real_catalogs.OPERA.glob(f"*_{band}.tif"))


def test_operas_files_are_linear_power() -> None:
    """No gamma0 is negative, most are far below 1, and in dB they are what land looks like."""
    for band, expected_db in (("VV", -8.7), ("VH", -15.5)):
        for path in burst_files(band):
            with rasterio.open(path) as dataset:
                power = dataset.read(1)
                assert dataset.crs.is_projected
            assert power.min() > 0
            assert 10 * np.log10(np.median(power)) == pytest.approx(expected_db, abs=1.5)


def test_real_radar_keeps_its_decibels(opera_store: Path) -> None:
    """Both bursts, both polarisations, every pixel: within one step of 0.1 dB."""
    tiles, values, low, step = decoded(opera_store, "sar")
    used = set()
    for tile, sample in zip(tiles, values, strict=True):
        for band, name in enumerate(("VV", "VH")):
            bursts = [(path, warped(path, [1], tile)[0]) for path in burst_files(name)]
            path, power = next((p, a) for p, a in bursts if np.isfinite(a).all())
            used.add(path.name)
            truth = np.clip(10 * np.log10(power), low[band], low[band] + 254 * step[band])
            assert np.abs(sample[band] - truth).max() <= step[band]
            inside = np.abs(truth - (low[band] + 127 * step[band])) < 126 * step[band]
            assert inside.mean() > 0.9
            # Unbiased: the mean is better than a pixel.
            differences = (sample[band] - truth)[inside]
            assert abs(differences.mean()) < 0.05 * step[band]
    assert len(used) == 4
    assert len(tiles) >= 4


def test_power_is_warped_before_the_logarithm_is_taken(opera_store: Path) -> None:
    """Interpolated dB lie below interpolated power; the store must hold the latter."""
    tiles, values, low, _ = decoded(opera_store, "sar")
    nearer_to_power, nearer_to_decibel = 0, 0
    for tile, sample in zip(tiles, values, strict=True):
        for path in burst_files("VV"):
            power = warped(path, [1], tile)[0]
            if not np.isfinite(power).all():
                continue
            truth, wrong = 10 * np.log10(power), warped_decibel(path, tile)
            telling = (np.abs(truth - wrong) > 0.5) & (np.maximum(truth, wrong) < low[0] + 25)
            assert telling.any()
            right = np.abs(sample[0] - truth) < np.abs(sample[0] - wrong)
            nearer_to_power += int(right[telling].sum())
            nearer_to_decibel += int((~right)[telling].sum())
    assert nearer_to_power > 100 * nearer_to_decibel


def warped_decibel(path: Path, tile: TileXYZ) -> Floats:
    """The mistake: bilinear between logarithms."""
    from rasterio.warp import reproject

    grid = PixelGrid.around([tile])
    target = np.full(grid.shape, np.nan, np.float32)
    with rasterio.open(path) as dataset:
        reproject(
            10 * np.log10(dataset.read(1)),
            target,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=Affine(*grid.transform),
            dst_crs="EPSG:3857",
            resampling=Resampling.bilinear,
        )
    return target.astype(np.float64)


@pytest.fixture(scope="module")
def punjab_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("punjab")
    local = real_catalogs.punjab(folder)
    ten = folder / "ten.toml"
    ten.write_text(real_catalogs.PUNJAB_TEN_BANDS)
    build(folder / "out.zarr", variant=str(ten), catalog=local.catalog)
    return folder / "out.zarr"


def test_real_reflectance_keeps_its_values_in_ten_bands(punjab_store: Path) -> None:
    """10 m and 20 m bands: within one step of 0.0012 to 0.0024, and no offset at baseline 02.14."""
    tiles, values, low, step = decoded(punjab_store, "s2")
    folder = next((real_catalogs.PUNJAB / "s2_l2a").iterdir())
    assert len(tiles) >= 4
    for tile, sample in zip(tiles, values, strict=True):
        for band, name in enumerate(real_catalogs.PUNJAB_ASSETS):
            truth = warped(folder / f"{name}.tif", [1], tile)[0] * 1e-4
            clipped = np.clip(truth, low[band], low[band] + 254 * step[band])
            assert np.abs(sample[band] - clipped).max() <= step[band]
            assert (truth == clipped).mean() > 0.99


def test_the_spectrum_of_real_fields_is_that_of_plants(punjab_store: Path) -> None:
    """NDVI from the store equals NDVI from the files, to what two rounded numbers allow."""
    tiles, values, _, _ = decoded(punjab_store, "s2")
    folder = next((real_catalogs.PUNJAB / "s2_l2a").iterdir())
    names = list(real_catalogs.PUNJAB_ASSETS)
    for tile, sample in zip(tiles, values, strict=True):
        red, nir = sample[names.index("B4")], sample[names.index("B8")]
        true_red, true_nir = (warped(folder / f"{name}.tif", [1], tile)[0] for name in ("B4", "B8"))
        truth = (true_nir - true_red) / (true_nir + true_red)
        assert np.abs((nir - red) / (nir + red) - truth).max() < 0.015
        assert 0 < truth.mean() < 0.9
