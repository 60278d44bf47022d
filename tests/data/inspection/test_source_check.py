"""Samples of a store compared with their sources; measures of quality beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from salibi_data.builds.build import build
from salibi_data.inspection.verify import verify
from salibi_data.plans.planner import plan
from salibi_data.store.errors import ReadError, SelectionError, UsageError, VerificationError
from salibi_data.store.open import open_store
from tests.support.data import samples

UPDATE = {"IGNORE_COG_LAYOUT_BREAK": "YES"}


def test_samples_equal_their_sources(micro_store: Path, sample_toml: str) -> None:
    verification = verify(micro_store, against_source=5, catalog=sample_toml)
    assert verification.against_source == {
        "samples": 5,
        "max_difference": 0,
        "mean_difference": 0.0,
    }
    assert verify(micro_store).against_source is None


@pytest.fixture
def moved(sample_catalog: Path, tmp_path: Path) -> tuple[Path, str]:
    """A copy of the catalog that may be changed."""
    folder = tmp_path / "catalog"
    shutil.copytree(sample_catalog, folder)
    return folder, samples.catalog_toml(folder, tmp_path / "sample-test.toml")


def test_a_source_that_is_another_now_is_noticed(
    micro_store: Path, moved: tuple[Path, str]
) -> None:
    folder, toml = moved
    items = pq.read_table(micro_store / "samples.parquet", columns=["naip_items"])["naip_items"]
    scenes = plan("micro", catalog=toml).scenes["naip"]
    for item_id in items[len(items) // 2].as_py():
        path = folder / scenes[item_id].hrefs["image"]
        with rasterio.open(path, "r+", **UPDATE) as dataset:
            red = dataset.read(1)
            dataset.write(np.where(red > 128, red - 3, red + 3).astype(np.uint8), 1)
    with pytest.raises(VerificationError, match=r"hires of tile 17/\S+ differs from its source"):
        verify(micro_store, against_source=1, catalog=toml)


def test_a_source_that_is_gone_is_a_read_error(micro_store: Path, moved: tuple[Path, str]) -> None:
    folder, toml = moved
    shutil.rmtree(folder / "naip")
    with pytest.raises((ReadError, UsageError), match="naip"):
        verify(micro_store, against_source=1, catalog=toml)


def test_a_catalog_that_is_not_known_by_name_must_be_named(micro_store: Path) -> None:
    with pytest.raises(UsageError, match="--catalog"):
        verify(micro_store, against_source=1)


def test_every_sample_has_its_measures_of_quality(micro_store: Path) -> None:
    table = pq.read_table(micro_store / "samples.parquet")
    shift_m, peak = table["alignment_shift_m"].to_numpy(), table["alignment_peak"].to_numpy()
    assert np.all((peak >= 0) & (peak <= 1))
    # Both sensors look at one landscape: where the measure is to be trusted they lie on each other,
    # to a fraction of Sentinel-2's 10 m pixel.
    trusted = peak > 0.5
    assert trusted.mean() > 0.5
    assert np.median(shift_m[trusted]) < 3
    east_m, north_m = (table[f"alignment_{axis}_m"].to_numpy() for axis in ("east", "north"))
    assert shift_m == pytest.approx(np.hypot(east_m, north_m), nan_ok=True, abs=1e-4)


def test_a_sensor_that_lies_aside_is_measured(moved: tuple[Path, str], tmp_path: Path) -> None:
    """Every Sentinel-2 file moved 20 m to the east and 10 m to the south."""
    folder, toml = moved
    for path in folder.glob("sentinel-2-l2a/**/*.tif"):
        with rasterio.open(path, "r+", **UPDATE) as dataset:
            a, b, c, d, e, f = tuple(dataset.transform)[:6]
            dataset.transform = rasterio.Affine(a, b, c + 20, d, e, f - 10)
    build(tmp_path / "x.zarr", variant="micro", catalog=toml, limit=24)
    table = pq.read_table(tmp_path / "x.zarr" / "samples.parquet")
    trusted = table["alignment_peak"].to_numpy() > 0.5
    assert trusted.sum() >= 5
    assert np.median(table["alignment_east_m"].to_numpy()[trusted]) == pytest.approx(20, abs=2)
    assert np.median(table["alignment_north_m"].to_numpy()[trusted]) == pytest.approx(-10, abs=2)


def test_splits_by_scenes_leave_a_compact_area_in_one(sample_toml: str, tmp_path: Path) -> None:
    toml = tmp_path / "apart.toml"
    toml.write_text('extends = "micro"\nname = "apart"\n[split]\nsplit_by = "scenes"\n')
    with pytest.raises(SelectionError, match=r"1 clusters .* validation and test"):
        plan(str(toml), catalog=sample_toml)
    toml.write_text(toml.read_text() + "validation_share = 0.0\ntest_share = 0.0\n")
    made = plan(str(toml), catalog=sample_toml)
    assert set(made.table(["split"])["split"].to_pylist()) == {0}
    assert "guard" not in made.lost  # nothing touches another split


def test_the_index_and_the_table_agree(micro_store: Path) -> None:
    group, _ = open_store(micro_store)
    table = pq.read_table(micro_store / "samples.parquet")
    assert table["cloud_fraction"].to_numpy() == pytest.approx(group["cloud_fraction"][:])
    assert table["gsd_m"].to_numpy() == pytest.approx(group["gsd_m"][:])
