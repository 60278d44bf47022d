"""A part of a store is a store: its samples unchanged, its statistics its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import zarr

from salibi_data.builds.build import build
from salibi_data.derived.selection import Selection
from salibi_data.derived.subset import subset
from salibi_data.imports.pmtiles.importer import import_pmtiles
from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.store import geoparquet
from salibi_data.store.errors import SalibiError, SelectionError, StoreError, UsageError
from salibi_data.store.schema import SAMPLES_NAME, SPLITS, UNKNOWN_TIME
from tests.support.data.released_archives import flat_release, square, write_archive
from tests.support.data.samples import command, environment, run, tree
from tests.support.model.stores import write_store


def group(store: Path) -> Any:
    return zarr.open_group(store, mode="r")


@pytest.fixture(scope="module")
def flat_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """196 samples of flat colours in four shards, whose dates nobody knows."""
    folder = tmp_path_factory.mktemp("flat")
    lores = write_archive(folder / "lores", flat_release(square(14)).lores)
    import_pmtiles(folder / "flat.zarr", lores=lores)
    return folder / "flat.zarr"


def test_all_of_a_store_is_that_store(micro_store: Path, tmp_path: Path) -> None:
    made = subset(micro_store, tmp_path / "x.zarr")
    old, new = group(micro_store), group(made.store)
    assert made.num_samples == made.num_in_source == old["tile"].shape[0]
    for name in old.array_keys():
        assert np.array_equal(new[name][:], old[name][:], equal_nan=name == "cloud_fraction")
    table, again = (
        geoparquet.read(path / SAMPLES_NAME)[0].to_pylist() for path in (micro_store, made.store)
    )
    assert table == again
    ours, theirs = (info(path)["modalities"] for path in (micro_store, made.store))
    assert ours == theirs
    verify(made.store)


def test_what_matches_is_taken_in_order_with_its_split(micro_store: Path, tmp_path: Path) -> None:
    made = subset(
        micro_store,
        tmp_path / "x.zarr",
        Selection(splits=("train",), limit=7, modalities=("lores", "sar")),
    )
    old, new = group(micro_store), group(made.store)
    tiles = {tuple(tile): at for at, tile in enumerate(old["tile"][:].tolist())}
    rows = [tiles[tuple(tile)] for tile in new["tile"][:].tolist()]
    assert len(rows) == 7
    assert rows == sorted(rows)
    assert set(new["split"][:].tolist()) == {SPLITS["train"]}
    assert {name for name in new.array_keys() if new[name].ndim == 4} == {"sar", "lores"}
    for name in ("sar", "lores"):
        pixels = old[name][:][rows]
        assert np.array_equal(new[name][:], pixels)
        means = [band[band > 0].mean() for band in pixels.swapaxes(0, 1)]
        assert info(made.store)["modalities"][name]["mean"] == pytest.approx(means)
    assert np.array_equal(new["acquired"][:], old["acquired"][:][rows][:, :2])
    columns = geopandas.read_parquet(made.store / SAMPLES_NAME).columns
    assert not [name for name in columns if "naip" in name or "hires" in name]
    verify(made.store)


def test_the_table_says_where_it_is_from(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    made = subset(micro_store, tmp_path / "x.zarr", Selection(limit=5))
    again = subset(made.store, tmp_path / "y.zarr", Selection(limit=2))
    origin = info(again.store)["made_from"]
    assert origin["selection"] == {"limit": 2}
    (parent,) = origin["sources"]
    assert parent["samples"] == 5
    assert parent["plan_digest"] == info(made.store)["plan_digest"]
    (first,) = parent["made_from"]["sources"]
    assert first["request"]["variant"] == "micro"
    about = geoparquet.read(again.store / SAMPLES_NAME)[1]
    assert str(tmp_path) not in json.dumps(about["made_from"])
    kept = geoparquet.read(again.store / SAMPLES_NAME)[0]
    for sensor, scenes in about["scenes"].items():
        used = {item for items in kept[f"{sensor}_items"].to_pylist() for item in items}
        assert {scene["id"] for scene in scenes} == used
    compared = verify(again.store, against_source=2, catalog=sample_toml).against_source
    assert compared is not None
    assert compared["samples"] == 2
    assert len(geopandas.read_parquet(again.store / SAMPLES_NAME)) == 2


def test_unknown_dates_stay_unknown(flat_store: Path, tmp_path: Path) -> None:
    made = subset(flat_store, tmp_path / "x.zarr", Selection(limit=9))
    assert (group(made.store)["acquired"][:] == UNKNOWN_TIME).all()
    assert geoparquet.read(made.store / SAMPLES_NAME)[0]["sentinel-2_acquired"].null_count == 9
    verify(made.store)
    assert all(note.startswith("Of its sources: ") for note in info(made.store)["notes"])
    again = subset(made.store, tmp_path / "again.zarr", Selection(limit=2))
    assert info(again.store)["notes"] == info(made.store)["notes"] != []
    with pytest.raises(UsageError, match="has no record of its samples' scenes"):
        verify(made.store, against_source=1)
    with pytest.raises(SelectionError, match=r"196 samples matches.* 0 after dates"):
        subset(flat_store, tmp_path / "y.zarr", Selection(dates="2000-01-01/2030-01-01"))


def test_held_out_samples_alone_have_no_statistics_to_divide_by(
    flat_store: Path, tmp_path: Path
) -> None:
    made = subset(flat_store, tmp_path / "x.zarr", Selection(splits=("test",)))
    assert made.splits["test"] == made.num_samples > 0
    lores = info(made.store)["modalities"]["lores"]
    assert (lores["mean"], lores["std"]) == ([0.0] * 3, [1.0] * 3)
    verify(made.store)


def test_nothing_that_matches_is_an_error_and_leaves_nothing(
    micro_store: Path, tmp_path: Path
) -> None:
    done = run("subset", str(micro_store), "-o", str(tmp_path / "x.zarr"), "--bbox", "0,0,1,1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: none of ")
    assert "0 after area" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "x.zarr", ".."])
def test_an_output_in_the_store_or_around_it_is_refused(small_copy: Path, place: str) -> None:
    before = tree(small_copy)
    with pytest.raises(UsageError, match="one is the other, or lies in it"):
        subset(small_copy, small_copy / place)
    assert tree(small_copy) == before


@pytest.fixture
def small_copy(flat_store: Path, tmp_path: Path) -> Path:
    """A store that may be damaged."""
    copy = tmp_path / "copies" / "flat.zarr"
    shutil.copytree(flat_store, copy)
    return copy


def test_something_else_at_the_output_stays(flat_store: Path, tmp_path: Path) -> None:
    subset(flat_store, tmp_path / "x.zarr", Selection(limit=3))
    before = tree(tmp_path)
    with pytest.raises(StoreError, match="holds something else"):
        subset(flat_store, tmp_path / "x.zarr", Selection(limit=4))
    assert subset(flat_store, tmp_path / "x.zarr", Selection(limit=3)).was_complete
    assert tree(tmp_path) == before


def test_a_build_does_not_take_a_part_for_its_own(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    made = subset(micro_store, tmp_path / "x.zarr", Selection(limit=3))
    before = tree(tmp_path)
    with pytest.raises(StoreError, match="holds another dataset"):
        build(made.store, variant="micro", catalog=sample_toml)
    assert tree(tmp_path) == before


def test_a_missing_shard_is_an_error_never_nodata(small_copy: Path, tmp_path: Path) -> None:
    shard = next(path for path in (small_copy / "lores" / "c").rglob("*") if path.is_file())
    shard.unlink()
    with pytest.raises(StoreError, match="missing or cut short"):
        subset(small_copy, tmp_path / "x.zarr")


def test_a_shard_lost_or_damaged_while_it_is_read_is_an_error(
    small_copy: Path, tmp_path: Path
) -> None:
    shards = sorted(path for path in (small_copy / "lores" / "c").rglob("*") if path.is_file())
    content = shards[-1].read_bytes()

    def lose(done: int, _total: int) -> None:
        if done == 1:
            shards[-1].unlink()

    with pytest.raises(StoreError, match="is missing"):
        subset(small_copy, tmp_path / "x.zarr", progress=lose)
    flipped = bytearray(content)
    flipped[40] ^= 1
    shards[-1].write_bytes(flipped)
    with pytest.raises(StoreError, match="cannot be read"):
        subset(small_copy, tmp_path / "x.zarr")
    shards[-1].write_bytes(content)
    subset(small_copy, tmp_path / "x.zarr")
    verify(tmp_path / "x.zarr")


def test_a_store_replaced_while_it_is_read_is_an_error(small_copy: Path, tmp_path: Path) -> None:
    def replace(done: int, _total: int) -> None:
        if done == 1:
            (small_copy / "manifest.json").write_text('{"files": {}}')

    with pytest.raises(StoreError, match="was replaced while it was read"):
        subset(small_copy, tmp_path / "x.zarr", progress=replace)
    assert not (tmp_path / "x.zarr").exists()


def test_killed_and_run_again_by_others_equals_never_killed(
    flat_store: Path, tmp_path: Path
) -> None:
    wanted = Selection(splits=("train", "guard"))
    subset(flat_store, tmp_path / "whole.zarr", wanted)
    store = tmp_path / "x.zarr"
    arguments = command("subset", str(flat_store), "-o", str(store), "--split", "guard,train")
    process = subprocess.Popen(arguments, env=environment())
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("x.zarr.building/store-*/shards/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    subset(flat_store, store, wanted, workers=2)
    assert tree(store) == tree(tmp_path / "whole.zarr")
    assert not (tmp_path / "x.zarr.building").exists()


def test_the_command_reports_json(micro_store: Path, tmp_path: Path) -> None:
    done = run(
        *("subset", str(micro_store), "-o", str(tmp_path / "x.zarr"), "--limit", "4", "--json"),
        *("--max-cloud", "1", "--modalities", "sar,lores"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == 4
    assert sum(report["splits"].values()) == 4
    verify(tmp_path / "x.zarr")
    wrong = run("subset", str(micro_store), "-o", str(tmp_path / "y.zarr"), "--split", "tests")
    assert wrong.returncode == 2
    assert "splits[0] is 'tests'; expected one of train" in wrong.stderr


def test_a_store_without_a_manifest_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", num_samples=4, validation=1)
    with pytest.raises(SalibiError, match="the store is not complete"):
        subset(tmp_path / "s.zarr", tmp_path / "x.zarr")
