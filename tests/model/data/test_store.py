"""Reading stores: samples, splits, pooled statistics, and errors in one line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.data.loader import DataLoader
from salibi_model.data.modalities import shared_modalities
from salibi_model.data.store import SampleStore
from tests.support.model.stores import write_store


def test_samples_have_every_modality_and_index_array(small_store):
    store = SampleStore(small_store)
    assert len(store) == 16
    sample = store[3]
    assert sample["sar"].shape == (2, 256, 256)
    assert sample["hires_4x"].shape == (3, 512, 512)
    assert sample["tile"].tolist() == [15, 5003, 12003]
    assert store.attributes.base_zoom == 15
    group = zarr.open_group(small_store, mode="r")
    assert np.array_equal(sample["lores"], group["lores"][3])
    assert np.array_equal(store[-1]["sar"], store[15]["sar"])


def test_iteration_ends(small_store):
    with pytest.raises(IndexError, match="16 samples"):
        SampleStore(small_store)[16]


def test_a_file_url_is_the_same_store(small_store):
    store = SampleStore(f"file://{small_store}")
    assert np.array_equal(store[0]["lores"], SampleStore(small_store)[0]["lores"])


@pytest.mark.parametrize("indices", [[4, 5, 6], [9, 2, 15], []])
def test_read_keeps_the_order_asked_for(small_store, indices):
    group = zarr.open_group(small_store, mode="r")
    expected = np.asarray(group["sar"][:])[indices]
    assert np.array_equal(SampleStore(small_store).read("sar", indices), expected)


def test_splits(small_store):
    store = SampleStore(small_store)
    assert store.split_indices("train").tolist() == list(range(10))
    assert store.split_indices("validation").tolist() == list(range(10, 16))
    assert store.split_indices("test").tolist() == []
    with pytest.raises(UsageError, match="train, validation, test"):
        store.split_indices("valid")


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no Zarr group is there"):
        SampleStore(tmp_path)
    with pytest.raises(StoreError, match="no Zarr group is there"):
        SampleStore(tmp_path / "absent")
    zarr.open_group(tmp_path / "plain.zarr", mode="w")
    with pytest.raises(StoreError, match="not a Salibi store"):
        SampleStore(tmp_path / "plain.zarr")


def test_a_newer_schema_is_refused(tmp_path):
    path = write_store(tmp_path / "new.zarr", num_samples=1, validation=0, modalities=["sar"])
    group = zarr.open_group(path, mode="r+")
    group.attrs["salibi"] = {**group.attrs["salibi"], "schema_version": 99}
    with pytest.raises(StoreError, match=r"schema version 99.*Upgrade"):
        SampleStore(path)


def test_a_missing_array_is_named(tmp_path):
    path = write_store(tmp_path / "cut.zarr", num_samples=1, validation=0, modalities=["sar"])
    del zarr.open_group(path, mode="r+")["sar"]
    with pytest.raises(StoreError, match="no array 'sar'"):
        SampleStore(path)


def test_statistics_of_two_stores_are_pooled(tmp_path):
    paths = [
        write_store(
            tmp_path / f"{i}.zarr",
            num_samples=count,
            validation=0,
            modalities=["sar"],
            seed=i,
            nodata_samples=0,
        )
        for i, count in enumerate((2, 4))
    ]
    stores = [SampleStore(path) for path in paths]
    (pooled,) = shared_modalities(stores, ["sar"])
    pixels = np.concatenate([store.read("sar", range(len(store))) for store in stores])
    np.testing.assert_allclose(pooled.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(pooled.std, pixels.std(axis=(0, 2, 3)), rtol=1e-6)


def test_stores_that_disagree_are_refused(tmp_path, small_store):
    path = write_store(tmp_path / "dB.zarr", num_samples=2, validation=0, modalities=["sar"])
    group = zarr.open_group(path, mode="r+")
    attributes = group.attrs["salibi"]
    attributes["modalities"]["sar"]["scale"] = [0.2, 0.2]
    group.attrs["salibi"] = attributes
    stores = [SampleStore(small_store), SampleStore(path)]
    with pytest.raises(UsageError, match="disagree on 'sar'"):
        shared_modalities(stores, ["sar"])
    with pytest.raises(UsageError, match="no modality 'lores'"):
        shared_modalities(stores, ["lores"])


@pytest.mark.parametrize(
    ("file", "kept", "message"),
    [
        ("lores/c/1/0/0/0", 0.5, r"array 'lores' cannot be read .*`salibi-data verify`"),
        ("lores/c/1/0/0/0", 0.0, r"array 'lores' cannot be read .*`salibi-data verify`"),
        ("gsd_m/c/0", 0.5, r"array 'gsd_m' cannot be read .*`salibi-data verify`"),
        ("split/c/0", 0.5, r"array 'split' cannot be read .*`salibi-data verify`"),
        ("lores/zarr.json", 0.5, r"array 'lores' cannot be read .*`salibi-data verify`"),
        ("zarr.json", 0.5, r"cut\.zarr cannot be read .*`salibi-data verify`"),
    ],
)
def test_a_truncated_file_is_explained(small_store, tmp_path, file, kept, message):
    """The store, the array, and what tells more; by each way of reading."""
    path = shutil.copytree(small_store, tmp_path / "cut.zarr")
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[: int(kept * len(content))])
    reads = (
        lambda store: store[12],
        lambda store: store.read(file.split("/")[0], [3, 12]),
        lambda store: next(iter(DataLoader([store], split="validation", batch_size=2))),
    )
    for read in reads[: 2 if file.startswith("gsd_m") else 3]:
        with pytest.raises(StoreError, match=message) as caught:
            read(SampleStore(path))
        assert "cut.zarr" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_whole_of_a_damaged_store_is_read(small_store, tmp_path):
    path = shutil.copytree(small_store, tmp_path / "cut.zarr")
    (path / "lores/c/1/0/0/0").write_bytes(b"")
    store = SampleStore(path)
    assert np.array_equal(store.read("lores", [3]), SampleStore(small_store).read("lores", [3]))


@pytest.mark.parametrize("index", [16, -1])
def test_reading_a_sample_that_is_not_there_is_no_damage(small_store, index):
    with pytest.raises(IndexError, match=f"16 samples; there is no {index}"):
        SampleStore(small_store).read("sar", [0, index])


def test_a_resolution_of_nothing_is_explained(tmp_path):
    path = write_store(tmp_path / "zero.zarr", num_samples=1, validation=0, modalities=["sar"])
    group = zarr.open_group(path, mode="r+")
    attributes = group.attrs["salibi"]
    attributes["modalities"]["sar"]["gsd_ratio"] = 0.0
    group.attrs["salibi"] = attributes
    with pytest.raises(StoreError, match="damaged attributes"):
        SampleStore(path)


def test_a_file_url_may_have_escapes(small_store, tmp_path):
    path = shutil.copytree(small_store, tmp_path / "with space.zarr")
    store = SampleStore(f"file://{tmp_path}/with%20space.zarr")
    assert np.array_equal(store.read("sar", [1]), SampleStore(path).read("sar", [1]))


def test_an_index_array_of_zeros_need_not_be_written(small_store):
    """Zarr leaves out chunks that are all fill value; only shards of images must be there."""
    assert not (small_store / "cloud_fraction/c").exists()
    assert not SampleStore(small_store).read("cloud_fraction", range(16)).any()


def test_a_missing_shard_is_an_error(small_store, tmp_path):
    path = shutil.copytree(small_store, tmp_path / "gone.zarr")
    (path / "hires/c/1/0/0/0").unlink()
    store = SampleStore(path)
    assert store.read("hires", [7]).any()
    with pytest.raises(
        StoreError, match=r"gone\.zarr is damaged: its file hires/c/1/0/0/0 is missing"
    ):
        store[8]
