"""Files that can be read and yet not be placed: a failure of their blocks, never of the build."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from salibi_data.builds.build import build
from salibi_data.pixels import warp
from salibi_data.sources.georeference import SceneRaster
from salibi_data.store.errors import ReadError
from salibi_data.store.open import open_store
from salibi_data.store.tiles import PixelGrid
from tests.support.data import cogs, samples

if TYPE_CHECKING:
    from pathlib import Path

ENGINEERING = 'LOCAL_CS["a building site",UNIT["metre",1]]'
"""Well-known text of a plane that lies nowhere on Earth."""


def placed_nowhere(path: Path) -> None:
    with rasterio.open(path) as dataset:
        profile, values = dataset.profile, dataset.read()
    path.unlink()
    profile |= {"driver": "GTiff", "crs": CRS.from_wkt(ENGINEERING)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
    with rasterio.open(path) as dataset:
        assert dataset.crs is not None
        assert not dataset.crs.is_projected


def test_a_crs_that_lies_nowhere_fails_its_blocks_and_no_others(
    few_store: Path, sample_catalog: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample_catalog, tmp_path / "catalog")
    toml = samples.catalog_toml(tmp_path / "catalog", tmp_path / "sample-test.toml")
    quad = max((tmp_path / "catalog").rglob("m_*.tif"))
    placed_nowhere(quad)
    report = build(tmp_path / "out.zarr", **samples.FEW, catalog=toml)
    assert report.failures
    for failure in report.failures:
        assert failure.kind == "unusable"
        assert quad.name in failure.reason
        assert "asset 'image' of" in failure.reason
        assert "cannot be used" in failure.reason
    some, every = (open_store(path)[0] for path in (tmp_path / "out.zarr", few_store))
    rows = [every["tile"][:].tolist().index(tile) for tile in some["tile"][:].tolist()]
    assert 0 < len(rows) < every["tile"].shape[0]
    assert np.array_equal(some["hires"][:], every["hires"][:][rows])


def test_reading_names_the_asset_and_the_scene(tmp_path: Path) -> None:
    path = cogs.write_cog(tmp_path / "a.tif", pixels=512)
    placed_nowhere(path)
    with pytest.raises(
        ReadError, match=r"asset 'image' of scene-1 at .*a\.tif cannot be"
    ) as caught:
        cogs.read(str(path))
    assert caught.value.kind == "unusable"


@pytest.mark.parametrize("categorical", [False, True])
@pytest.mark.parametrize("crs", [ENGINEERING, "nonsense"])
def test_warping_names_the_asset_and_the_scene(crs: str, categorical: bool) -> None:
    source = SceneRaster(
        values=np.ones((1, 8, 8), dtype=np.float32),
        crs=crs,
        where="asset 'x' of scene-1",
        transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    )
    with pytest.raises(ReadError, match=r"asset 'x' of scene-1 cannot be used: ") as caught:
        warp.warp(source, PixelGrid.around(cogs.TILES), categorical=categorical)
    assert caught.value.kind == "unusable"
