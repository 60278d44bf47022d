"""Stores as a data set of torch, and how a store shows itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from salibi_data.store.errors import UsageError
from salibi_model.data.dataset import StoreDataset
from salibi_model.data.store import SampleStore
from tests.support.model.stores import write_store


def test_a_sample_is_that_of_the_store(small_store):
    store, dataset = SampleStore(small_store), StoreDataset(small_store)
    assert isinstance(dataset, torch.utils.data.Dataset)
    assert len(dataset) == 10
    for row in (0, 7, -1):
        expected = store[row % 10]
        sample = dataset[row]
        assert list(sample) == list(expected)
        for name, value in expected.items():
            assert np.array_equal(sample[name].numpy(), value)
            assert sample[name].numpy().dtype == value.dtype


@pytest.mark.parametrize("num_workers", [0, 2])
def test_torch_loads_it(small_store, num_workers):
    dataset = StoreDataset(small_store, modalities=["sar", "hires_4x"], split="validation")
    loader = DataLoader(dataset, batch_size=4, num_workers=num_workers)
    batches = list(loader)
    assert [len(batch["tile"]) for batch in batches] == [4, 2]
    store = SampleStore(small_store)
    indices = store.split_indices("validation")
    for name in ("sar", "hires_4x", "gsd_m", "acquired", "split"):
        values = torch.cat([batch[name] for batch in batches]).numpy()
        assert np.array_equal(values, store.read(name, indices))


def test_torch_shuffles_it_and_takes_parts(small_store):
    dataset = Subset(StoreDataset(small_store, modalities=["sar"]), [5, 3])
    assert len(next(iter(DataLoader(dataset, batch_size=2, shuffle=True)))["sar"]) == 2


def test_stores_follow_each_other_and_a_missing_modality_is_nodata(small_store, tmp_path):
    optical = write_store(
        tmp_path / "optical.zarr", num_samples=3, validation=0, modalities=["lores"], seed=4
    )
    dataset = StoreDataset([SampleStore(small_store), optical], modalities=["sar", "lores"])
    assert len(dataset) == 13
    sample = dataset[11]
    assert sample["sar"].shape == (2, 256, 256)
    assert not sample["sar"].any()
    assert np.array_equal(sample["lores"].numpy(), SampleStore(optical)[1]["lores"])
    assert dataset[9]["sar"].any()


def test_iteration_ends(small_store):
    dataset = StoreDataset(small_store, modalities=[], split="validation")
    assert [sample["tile"].tolist()[1] for sample in dataset] == list(range(5010, 5016))
    with pytest.raises(IndexError, match="has 6 samples; there is no 6"):
        dataset[6]


def test_what_is_not_there_is_named(small_store):
    with pytest.raises(UsageError, match="no store has a modality 'thermal'"):
        StoreDataset(small_store, modalities=["thermal"])
    with pytest.raises(UsageError, match="no split 'valid'"):
        StoreDataset(small_store, split="valid")
    with pytest.raises(UsageError, match="no store was given"):
        StoreDataset([])


def test_a_store_shows_what_it_holds(small_store):
    assert repr(SampleStore(small_store)).splitlines() == [
        f"SampleStore('{small_store}'): 16 samples (10 train, 6 validation)",
        "  sar: (2, 256, 256), vv vh, 3.7 m",
        "  lores: (3, 256, 256), red green blue, 3.7 m",
        "  hires: (3, 256, 256), red green blue, 3.7 m",
        "  hires_4x: (3, 512, 512), red green blue, 1.85 m",
    ]
