"""The order of samples: each once, or by weight in cycles; the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.store.errors import UsageError
from salibi_model.data.sampler import epoch_order, quotas

counts_of_stores = st.lists(st.integers(1, 40), min_size=1, max_size=4)
seeds = st.integers(0, 2**31 - 1)


@st.composite
def mixes(draw):
    counts = draw(counts_of_stores)
    size = len(counts)
    return counts, draw(st.lists(st.floats(0.2, 5), min_size=size, max_size=size))


@given(counts_of_stores, seeds, st.integers(0, 5))
def test_an_epoch_has_each_sample_once(counts, seed, epoch):
    order = epoch_order(counts, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(sum(counts)))
    assert order.tolist() == epoch_order(counts, seed=seed, epoch=epoch).tolist()


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {
        tuple(epoch_order([50], seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9
    assert epoch_order([3, 2], seed=0, epoch=4, shuffle=False).tolist() == [0, 1, 2, 3, 4]


def test_a_shuffle_goes_across_all_shards():
    """Halves of an epoch each have about half of every run of 64 samples."""
    order = epoch_order([6400], seed=0, epoch=0)
    first = Counter((order[:3200] // 64).tolist())
    assert len(first) == 100
    assert all(15 < count < 50 for count in first.values())


@given(mixes())
def test_quotas_fill_an_epoch_and_follow_the_weights(mix):
    counts, weights = mix
    try:
        given_out = quotas(counts, weights)
    except UsageError:
        assert min(weights) / sum(weights) * sum(counts) < 1
        return
    assert sum(given_out) == sum(counts)
    for quota, weight in zip(given_out, weights, strict=True):
        assert abs(quota - weight / sum(weights) * sum(counts)) < 1
    assert quotas(counts, [10 * weight for weight in weights]) == pytest.approx(given_out, abs=1)


@given(mixes(), seeds, st.integers(1, 6))
def test_a_store_is_exhausted_before_any_of_its_samples_comes_again(mix, seed, num_epochs):
    counts, weights = mix
    try:
        chosen = quotas(counts, weights)
    except UsageError:
        return
    drawn = Counter()
    for epoch in range(num_epochs):
        order = epoch_order(counts, seed=seed, epoch=epoch, quotas=chosen)
        assert len(order) == sum(counts)
        drawn.update(order.tolist())
        start = 0
        for count, quota in zip(counts, chosen, strict=True):
            times = [drawn[row] for row in range(start, start + count)]
            assert sum(times) == (epoch + 1) * quota
            assert max(times) - min(times) <= 1
            start += count


def test_weights_mix_the_stores_throughout():
    chosen = quotas([900, 100], [1.0, 1.0])
    assert chosen == (500, 500)
    order = epoch_order([900, 100], seed=0, epoch=0, quotas=chosen)
    share = (order.reshape(10, 100) >= 900).mean(axis=1)
    assert ((share > 0.3) & (share < 0.7)).all()
    assert np.bincount(order[order >= 900] - 900).tolist() == [5] * 100


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "1 weights for 2 stores"),
        ([1.0, 0.0], "expected numbers above 0"),
        ([1.0, float("nan")], "expected numbers above 0"),
        ([1.0, float("inf")], "expected numbers above 0"),
        ([1.0, 1e-6], "gives it no sample"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(UsageError, match=message):
        quotas([5, 5], weights)
    with pytest.raises(UsageError, match="no samples; leave it out"):
        quotas([5, 0], [1.0, 1.0])
