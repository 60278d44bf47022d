"""Parts of what was published and merges with it, held to the store it was published from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.derived.merge import merge
from salibi_data.derived.selection import Selection
from salibi_data.derived.subset import subset
from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.store import geoparquet
from salibi_data.store.errors import SelectionError, StoreError
from salibi_data.store.open import open_store
from salibi_data.store.schema import SPLITS
from salibi_data.store.storage import open_storage
from tests.support.data import samples
from tests.support.services.buckets import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.services.buckets import S3

pytest.importorskip("moto.server", reason="moto's server is not installed")

URL = "s3://datasets/micro"


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as running:
        running.make("datasets")
        yield running


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch, micro_store: Path) -> S3:
    server.environment(monkeypatch)
    publish(micro_store, URL)
    return server


def test_a_part_holds_the_same_images_of_the_samples_that_match(
    s3: S3, micro_store: Path, tmp_path: Path
) -> None:
    wanted = Selection(splits=("train",), modalities=("sar", "lores"))
    done = subset(URL, tmp_path / "part.zarr", wanted)
    here, _ = open_store(micro_store)
    rows = np.flatnonzero(here["split"][:] == SPLITS["train"])
    assert (done.num_samples, done.num_in_source) == (len(rows), here["tile"].shape[0])
    part, attributes = open_store(tmp_path / "part.zarr")
    assert tuple(attributes.modalities) == ("sar", "lores")
    assert attributes.sensors == ("sentinel-1", "sentinel-2")
    for name in ("sar", "lores", "tile", "gsd_m", "split", "cloud_fraction"):
        assert np.array_equal(part[name][:], here[name][:][rows])
    for name in ("acquired", "valid_fraction"):
        assert np.array_equal(part[name][:], here[name][:][rows][:, :2])
    # The training samples are all there, so their statistics are the same.
    modalities = info(tmp_path / "part.zarr")["modalities"]
    assert {name: info(micro_store)["modalities"][name] for name in modalities} == modalities
    assert not any("naip" in name for name in info(tmp_path / "part.zarr")["quality"])
    table, about = geoparquet.read(tmp_path / "part.zarr/samples.parquet")
    whole, _ = geoparquet.read(micro_store / "samples.parquet")
    assert table.equals(whole.take(rows).select(table.column_names))
    assert about["made_from"]["selection"] == wanted.to_dict()
    verify(tmp_path / "part.zarr")


def test_pulling_it_again_does_nothing_and_another_part_is_refused(s3: S3, tmp_path: Path) -> None:
    wanted = Selection(limit=3, modalities=("sar",))
    subset(URL, tmp_path / "part.zarr", wanted)
    before = samples.tree(tmp_path / "part.zarr")
    assert subset(URL, tmp_path / "part.zarr", wanted, connections=1).was_complete
    with pytest.raises(StoreError, match="holds something else"):
        subset(URL, tmp_path / "part.zarr", Selection(limit=4, modalities=("sar",)))
    assert samples.tree(tmp_path / "part.zarr") == before


def test_from_a_folder_it_is_the_same_part(s3: S3, micro_store: Path, tmp_path: Path) -> None:
    wanted = Selection(limit=3, modalities=("lores",))
    subset(URL, tmp_path / "bucket.zarr", wanted)
    subset(micro_store, tmp_path / "folder.zarr", wanted)
    assert samples.tree(tmp_path / "bucket.zarr") == samples.tree(tmp_path / "folder.zarr")


def test_a_shard_that_is_missing_is_an_error_and_no_nodata(
    s3: S3, micro_store: Path, tmp_path: Path
) -> None:
    release = publish(micro_store, URL).release
    open_storage(URL).delete(f"{release.store}/sar/c/0/0/0/0")
    with pytest.raises(
        StoreError, match=r"s3://datasets/micro is damaged: its file sar/c/0/0/0/0 is missing"
    ):
        subset(URL, tmp_path / "part.zarr", Selection(limit=90, modalities=("sar",)))
    assert not (tmp_path / "part.zarr").exists()
    publish(micro_store, URL)
    subset(URL, tmp_path / "part.zarr", Selection(limit=90, modalities=("sar",)))


def test_damaged_images_are_told(s3: S3, micro_store: Path, tmp_path: Path) -> None:
    release = publish(micro_store, URL).release
    name = f"{release.store}/sar/c/0/0/0/0"
    content = bytearray((micro_store / "sar/c/0/0/0/0").read_bytes())
    content[1000] ^= 1
    open_storage(URL).put(name, bytes(content))
    try:
        with pytest.raises(StoreError, match=r"s3://datasets/micro cannot be read: .*checksum"):
            subset(URL, tmp_path / "part.zarr", Selection(limit=90, modalities=("sar",)))
    finally:
        open_storage(URL).put(name, (micro_store / "sar/c/0/0/0/0").read_bytes())


def test_nothing_that_matches(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"none of .* samples matches"):
        subset(URL, tmp_path / "part.zarr", Selection(bounds_lonlat=(0, 0, 1, 1)))
    assert not (tmp_path / "part.zarr").exists()


def test_the_command_pulls_a_part(micro_store: Path, tmp_path: Path) -> None:
    done = samples.run(
        *("pull", str(micro_store), str(tmp_path / "part.zarr")),
        *("--split", "train", "--modalities", "sar", "--limit", "2", "--max-cloud", "1", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 2
    wrong = samples.run("pull", str(micro_store), str(tmp_path / "x.zarr"), "--split", "trian")
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


def test_stores_in_a_bucket_are_merged_as_those_on_a_disk(
    s3: S3, micro_store: Path, tmp_path: Path
) -> None:
    radar = Selection(modalities=("sar",))
    subset(micro_store, tmp_path / "few.zarr", Selection(modalities=("sar",), limit=20))
    subset(micro_store, tmp_path / "radar.zarr", radar)
    publish(tmp_path / "radar.zarr", "s3://datasets/radar")
    remote = merge(
        [tmp_path / "few.zarr", "s3://datasets/radar"], tmp_path / "there.zarr", workers=2
    )
    here = merge([tmp_path / "few.zarr", tmp_path / "radar.zarr"], tmp_path / "here.zarr")
    assert (remote.num_duplicates, remote.num_differing) == (20, 0)
    assert remote.num_samples == here.num_samples
    assert samples.tree(tmp_path / "there.zarr") == samples.tree(tmp_path / "here.zarr")


def test_no_address_is_written_to_what_is_made(s3: S3, tmp_path: Path) -> None:
    subset(URL, tmp_path / "part.zarr", Selection(limit=2, modalities=("sar",)))
    for path in (tmp_path / "part.zarr").rglob("*"):
        assert path.is_dir() or b"s3://" not in path.read_bytes()
