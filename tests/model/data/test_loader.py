"""Batches: one order for all ranks, aligned turns, and a position to go back to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.data.loader import DataLoader, rotate_and_flip
from salibi_model.data.store import SampleStore
from tests.support.model.batches import same, take

NAMES = ("sar", "lores", "hires_4x")


@pytest.fixture
def store(small_store):
    return SampleStore(small_store)


def test_a_batch_has_stored_values_of_every_modality(store):
    (batch,) = take(
        DataLoader([store], batch_size=4, modalities=NAMES, shuffle=False, augment=False), 1
    )
    assert {name: tuple(image.shape) for name, image in batch.images.items()} == {
        "sar": (4, 2, 256, 256),
        "lores": (4, 3, 256, 256),
        "hires_4x": (4, 3, 512, 512),
    }
    assert batch.images["sar"].dtype == torch.uint8
    assert np.array_equal(batch.images["lores"].numpy(), store.read("lores", range(4)))


def test_an_epoch_has_each_sample_once_in_an_order_of_its_own(store):
    options = {"batch_size": 5, "modalities": ["sar"], "augment": False, "seed": 3}
    batches = DataLoader([store], **options)
    assert batches.steps_per_epoch == 2
    first, second = take(batches, 4)[:2], take(DataLoader([store], **options), 4)[2:]
    every = store.read("sar", range(10))
    orders = []
    for epoch in (first, second):
        images = np.concatenate([batch.images["sar"].numpy() for batch in epoch])
        orders.append([next(i for i in range(10) if (every[i] == image).all()) for image in images])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]


def test_modalities_are_turned_alike(store):
    """The image ``hires`` is the mean of 2x2 pixels of hires_4x, before and after the turn."""
    names = ("hires", "hires_4x")
    for batch in take(DataLoader([store], batch_size=10, modalities=names, seed=1), 2):
        fine = batch.images["hires_4x"].float()
        halved = torch.nn.functional.avg_pool2d(fine, 2)
        assert (halved - batch.images["hires"].float()).abs().max() <= 0.5


def test_all_eight_positions_occur():
    image = np.arange(1, 5, dtype=np.uint8).reshape(1, 2, 2)
    turned = [rotate_and_flip(image, seed) for seed in range(64)]
    assert len({tuple(row.flatten()) for row in turned}) == 8


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_ranks_share_the_batches_of_one_process(store, cache_bytes):
    options = {"batch_size": 4, "modalities": NAMES, "cache_bytes": cache_bytes}
    whole = take(DataLoader([store], **options), 3)
    parts = [take(DataLoader([store], **options, rank=rank, world_size=2), 3) for rank in (0, 1)]
    for i, batch in enumerate(whole):
        assert batch.seeds == parts[0][i].seeds + parts[1][i].seeds
        for name in NAMES:
            joined = torch.cat([part[i].images[name] for part in parts])
            assert torch.equal(joined, batch.images[name])


@pytest.mark.parametrize("after", [1, 2, 3])
def test_resumed_batches_equal_those_never_stopped(store, after):
    options = {"batch_size": 4, "modalities": ["sar"], "seed": 5}
    expected = take(DataLoader([store], **options), 5)
    stopped = DataLoader([store], **options)
    take(stopped, after)
    resumed = DataLoader([store], **options)
    resumed.load_state_dict(stopped.state_dict())
    for a, b in zip(take(resumed, 5 - after), expected[after:], strict=True):
        assert same(a, b)


def test_cached_and_uncached_batches_are_the_same(store):
    options = {"batch_size": 5, "modalities": NAMES, "seed": 2}
    cached, read = (take(DataLoader([store], **options, cache_bytes=c), 3) for c in (1 << 30, 0))
    assert all(map(same, cached, read))


def test_sizes_that_do_not_fit_are_refused(store):
    with pytest.raises(UsageError, match="10 samples, fewer than one batch of 32"):
        DataLoader([store], batch_size=32)
    with pytest.raises(UsageError, match="does not divide among 4"):
        DataLoader([store], batch_size=6, world_size=4)
