"""Orders the samples of an epoch, from one store or from several by weight. Pure functions.

The order depends on the seed and the epoch: not on batches, processes or threads.

An epoch's order is a permutation of all samples, across all shards, and takes eight bytes per
sample. A chunk of a store is one sample, so that a sample read on its own costs no more than one
read in a run. ``benchmarks/model/scattered.py`` has the figures.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from salibi_data.store.errors import UsageError

_CYCLE_STREAM = 1
"""Number that keeps the permutations of a store apart from those of an epoch."""


def epoch_order(
    counts: Sequence[int],
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    quotas: Sequence[int] = (),
) -> Int64[np.ndarray, " samples"]:
    """Return the samples of an epoch, in order, numbered through all stores.

    Without ``quotas`` each sample occurs once. With them store s adds ``quotas[s]`` samples to
    each epoch, from permutations of its own that continue from one epoch to the next: no sample
    is repeated before all of its store have occurred.

    Args:
        counts: number of samples of each store.
        seed: random seed of the order.
        epoch: number of the epoch, from 0.
        shuffle: whether the order is random; otherwise it is that of the stores, one after the
            other.
        quotas: samples of each store per epoch, from :func:`quotas`.
    """
    if quotas:
        starts = np.cumsum([0, *counts[:-1]])
        rows = np.concatenate(
            [
                start + _store_rows(count, quota, (seed, store), epoch, shuffle=shuffle)
                for store, (start, count, quota) in enumerate(
                    zip(starts, counts, quotas, strict=True)
                )
            ]
        )
    else:
        rows = np.arange(sum(counts))
    if shuffle:
        rows = rows[np.random.default_rng((seed, epoch)).permutation(len(rows))]
    return rows.astype(np.int64)


def quotas(counts: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Return the number of samples that each store adds to an epoch, which has as many as all stores.

    Shares follow the weights, whatever they sum to; what rounding down leaves over goes to the
    largest remainders (Hamilton's method).

    Args:
        counts: number of samples of each store.
        weights: one number above 0 per store.

    Raises:
        UsageError: the weights do not fit, a store without samples, or one whose weight is
            too small for a single sample of an epoch.
    """
    if len(weights) != len(counts):
        raise UsageError(
            f"there are {len(weights)} weights for {len(counts)} stores; give one for each."
        )
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(
            f"the weights of stores are {', '.join(map(str, weights))}; expected numbers above 0."
        )
    total = sum(counts)
    shares = np.array(weights) / sum(weights) * total
    counts_drawn = np.floor(shares).astype(int)
    largest = np.argsort(counts_drawn - shares, kind="stable")[: total - counts_drawn.sum()]
    counts_drawn[largest] += 1
    for number, (count, quota) in enumerate(zip(counts, counts_drawn, strict=True), start=1):
        if not count:
            raise UsageError(f"store {number} has a weight but no samples; leave it out.")
        if not quota:
            raise UsageError(
                f"the weight {weights[number - 1]:g} of store {number} gives it no sample in an epoch "
                f"of {total}; raise it, or leave the store out."
            )
    return tuple(counts_drawn.tolist())


def _store_rows(
    count: int, quota: int, seed: tuple[int, ...], epoch: int, *, shuffle: bool
) -> Int64[np.ndarray, " quota"]:
    """Return an epoch's part of a store's endless sequence of permutations."""
    first, last = epoch * quota, (epoch + 1) * quota
    cycles = range(first // count, -(-last // count))
    sequence = np.concatenate(
        [
            np.random.default_rng((*seed, cycle, _CYCLE_STREAM)).permutation(count)
            if shuffle
            else np.arange(count)
            for cycle in cycles
        ]
    )
    offset = first - cycles[0] * count
    return sequence[offset : offset + quota].astype(np.int64)
