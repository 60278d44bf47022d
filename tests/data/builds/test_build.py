"""Builds: the same bytes from any number of workers, broken sources, filters, refusals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from salibi_data.builds.build import build
from salibi_data.builds.status import status
from salibi_data.inspection.verify import verify
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.errors import SelectionError, StoreError, UsageError
from salibi_data.store.open import open_store
from salibi_data.store.schema import SPLITS
from salibi_data.store.tiles import tile_bounds
from tests.support.data import samples
from tests.support.data.samples import FEW, tree


def test_a_store_verifies(micro_store: Path) -> None:
    verification = verify(micro_store)
    assert verification.num_samples > 40
    assert not micro_store.with_name("micro.zarr.building").exists()


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    build(tmp_path / "two.zarr", variant="micro", catalog=sample_toml, workers=2)
    assert tree(tmp_path / "two.zarr") == tree(micro_store)


def test_a_plan_built_later_gives_the_same_bytes(
    few_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    plan(**FEW, catalog=sample_toml).write(tmp_path / "plan.parquet")
    build(tmp_path / "planned.zarr", plan=tmp_path / "plan.parquet")
    assert tree(tmp_path / "planned.zarr") == tree(few_store)


def test_where_the_catalog_lies_does_not_change_a_byte(
    few_store: Path, sample_catalog: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample_catalog, tmp_path / "moved")
    moved = samples.catalog_toml(tmp_path / "moved", tmp_path / "sample-test.toml")
    build(tmp_path / "moved.zarr", **FEW, catalog=moved)
    assert tree(tmp_path / "moved.zarr") == tree(few_store)
    assert str(sample_catalog).encode() not in b"".join(
        path.read_bytes() for path in few_store.rglob("*.*") if path.is_file()
    )


@pytest.fixture
def broken_catalog(sample_catalog: Path, tmp_path: Path) -> tuple[str, Path, bytes]:
    """A copy of the catalog with one NAIP quad cut short; the file, and its true content."""
    folder = tmp_path / "catalog"
    shutil.copytree(sample_catalog, folder)
    toml = samples.catalog_toml(folder, tmp_path / "sample-test.toml")
    used = plan(**FEW, catalog=toml).scenes["naip"]
    quad = folder / min(scene.hrefs["image"] for scene in used.values())
    content = quad.read_bytes()
    quad.write_bytes(content[: len(content) // 3])
    return toml, quad, content


def test_a_truncated_file_is_a_failure_never_nodata(
    few_store: Path, broken_catalog: tuple[str, Path, bytes], tmp_path: Path
) -> None:
    toml, quad, content = broken_catalog
    store = tmp_path / "micro.zarr"
    arguments = [
        "build",
        "--variant",
        "micro",
        "--limit",
        "24",
        "--catalog",
        toml,
        "-o",
        str(store),
    ]
    failed = samples.run(*arguments)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "blocks could not be made" in failed.stderr
    assert quad.name in failed.stderr
    # Those that could be made are there, whole, and equal to the ones of the unbroken catalog.
    verify(store)
    some, every = (open_store(path)[0] for path in (store, few_store))
    rows = [every["tile"][:].tolist().index(tile) for tile in some["tile"][:].tolist()]
    assert 0 < len(rows) < every["tile"].shape[0]
    assert np.array_equal(some["hires"][:], every["hires"][:][rows])
    assert set(status(store)["failures_by_kind"]) == {"damaged"}

    quad.write_bytes(content)
    again = samples.run(*arguments)
    assert again.returncode == 0, again.stderr
    assert tree(store) == tree(few_store)
    assert not status(store)["failures"]


def test_a_missing_file_is_a_failure(
    broken_catalog: tuple[str, Path, bytes], tmp_path: Path
) -> None:
    toml, quad, _ = broken_catalog
    quad.unlink()
    report = build(tmp_path / "out.zarr", **FEW, catalog=toml)
    assert report.failures
    assert all(quad.name in failure.reason for failure in report.failures)
    assert {failure.kind for failure in report.failures} == {"missing"}


def test_limit_takes_an_even_reproducible_sample(sample_toml: str, tmp_path: Path) -> None:
    few, more = (plan("micro", catalog=sample_toml, limit=limit) for limit in (5, 12))
    assert (few.num_samples, more.num_samples) == (5, 12)
    assert {c.tile for c in few.choices()} < {c.tile for c in more.choices()}


def test_a_plan_file_reads_back_as_it_was(sample_toml: str, tmp_path: Path) -> None:
    made = plan("micro", catalog=sample_toml)
    made.write(str(tmp_path / "plan.parquet"))
    read = Plan.read(str(tmp_path / "plan.parquet"))
    assert read.path == tmp_path / "plan.parquet"
    assert read.digest == made.digest
    assert list(read.choices()) == list(made.choices())
    assert read.request == made.request


def test_filters_that_drop_everything_say_so(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    group = open_store(micro_store)[0]
    _, x, y = group["tile"][int(np.argmax(group["cloud_fraction"][:]))].tolist()
    west, south, east, north = tile_bounds(17, [x], [y])[0].tolist()
    strict = tmp_path / "strict.toml"
    strict.write_text('extends = "micro"\nname = "strict"\n[quality]\nmax_cloud_fraction = 0.0\n')
    cloudy = (west, south, east, north)
    with pytest.raises(SelectionError, match="all 1 planned samples were dropped"):
        build(tmp_path / "no.zarr", variant=str(strict), catalog=sample_toml, bounds_lonlat=cloudy)
    assert not (tmp_path / "no.zarr").exists()


def test_cloudy_tiles_are_dropped_and_counted(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    cloudy = open_store(micro_store)[0]["cloud_fraction"][:]
    assert cloudy.max() <= 0.1
    clear = tmp_path / "clear.toml"
    clear.write_text('extends = "micro"\nname = "clear"\n[quality]\nmax_cloud_fraction = 0.0\n')
    report = build(tmp_path / "clear.zarr", variant=str(clear), catalog=sample_toml)
    kept = open_store(tmp_path / "clear.zarr")[0]
    assert kept["cloud_fraction"][:].max() == 0
    assert report.num_samples == (cloudy == 0).sum()
    assert report.dropped["clouds"] > 0


def test_samples_of_different_splits_never_touch(micro_store: Path) -> None:
    group, _ = open_store(micro_store)
    tile, split = group["tile"][:].astype(int), group["split"][:]
    assert {SPLITS["train"]} < set(split.tolist())
    for a in range(len(tile)):
        distance_tiles = np.abs(tile[:, 1:] - tile[a, 1:]).max(axis=1)
        assert np.all(split[distance_tiles <= 1] == split[a])


def test_a_variant_that_the_catalog_cannot_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sentinel-1-rtc"):
        build(tmp_path / "x.zarr", variant="micro", catalog="earth-search")
    assert not list(tmp_path.iterdir())


def test_a_plan_of_another_request_has_another_digest(sample_toml: str) -> None:
    dated = plan("micro", catalog=sample_toml, limit=2, dates="2000-01-01/2040-01-01")
    assert dated.digest != plan("micro", catalog=sample_toml, limit=2).digest


def test_units_that_cannot_be_made_are_refused_before_any_work(
    sample_toml: str, tmp_path: Path
) -> None:
    toml = tmp_path / "odd.toml"
    toml.write_text(
        'extends = "micro"\nname = "odd"\n[[modality]]\nname = "sar"\nsensor = "sentinel-1"\n'
        'product = "rtc"\nbands = ["vv"]\nunits = "reflectance"\nrange = [[0.0, 1.0]]\n'
    )
    with pytest.raises(UsageError, match=r"wants reflectance .* is in power"):
        plan(str(toml), catalog=sample_toml)


def test_workers_of_another_version_are_refused(
    sample_toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salibi_data.builds.block_task.__version__", "0.0.1")
    with pytest.raises(StoreError, match=r"a worker runs salibi 0\.0\.1"):
        build(tmp_path / "x.zarr", variant="micro", catalog=sample_toml, limit=2)


SCRIPT = """
import salibi_data
salibi_data.build({store!r}, variant="micro", catalog={catalog!r}, limit=4, workers=2)
"""


def test_a_script_without_a_main_guard_is_told_so(sample_toml: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(store=str(tmp_path / "x.zarr"), catalog=sample_toml))
    done = subprocess.run(
        [sys.executable, str(script)],
        env=samples.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert not (tmp_path / "x.zarr").exists()


def test_nothing_but_false_counts_as_not_given(sample_toml: str, tmp_path: Path) -> None:
    made = plan("micro", catalog=sample_toml, limit=2)
    with pytest.raises(UsageError, match="a plan fixes variant"):
        build(tmp_path / "x.zarr", plan=made, max_cloud=0.0)
