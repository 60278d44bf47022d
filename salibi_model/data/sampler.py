"""In which order samples are taken, from one store or from several by weight. Pure functions.

Everything is a function of the seed and the epoch: not of batches, processes or threads.

An epoch's order is a permutation of all samples, across all shards. It costs eight bytes per
sample, whatever their images take: a chunk of a store is one sample, so that a sample read on its
own costs no more than one read in a run. ``benchmarks/model/scattered.py`` has the figures.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from salibi_data.store.errors import UsageError

_CYCLES = 1
"""Keeps the permutations of a store apart from those of an epoch."""


def epoch_order(
    counts: Sequence[int],
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    quotas: Sequence[int] = (),
) -> Int64[np.ndarray, " samples"]:
    """Give the samples of an epoch, in order, numbered through all stores.

    Without ``quotas`` each sample occurs once. With them store s gives ``quotas[s]`` samples to
    each epoch, from permutations of its own that go on from one epoch to the next: no sample comes
    again before all of its store have been.

    Args:
        counts: samples of each store.
        seed: of the order.
        epoch: 0, 1, ..
        shuffle: whether there is an order; otherwise they come as stored, store after store.
        quotas: samples of each store per epoch, from :func:`quotas`.
    """
    if quotas:
        starts = np.cumsum([0, *counts[:-1]])
        rows = np.concatenate(
            [
                start + _drawn(count, quota, (seed, store), epoch, shuffle=shuffle)
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
    """Give the samples that each store adds to an epoch of as many samples as there are in all.

    Shares follow the weights, whatever they sum to; what is left over after rounding down goes to
    the largest remainders.

    Args:
        counts: samples of each store.
        weights: one per store, above 0.

    Raises:
        UsageError: weights that do not fit, a store without samples, or one whose weight is
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
    given = np.floor(shares).astype(int)
    largest = np.argsort(given - shares, kind="stable")[: total - given.sum()]
    given[largest] += 1
    for number, (count, quota) in enumerate(zip(counts, given, strict=True), start=1):
        if not count:
            raise UsageError(f"store {number} has a weight but no samples; leave it out.")
        if not quota:
            raise UsageError(
                f"the weight {weights[number - 1]:g} of store {number} gives it no sample in an epoch "
                f"of {total}; raise it, or leave the store out."
            )
    return tuple(given.tolist())


def _drawn(
    count: int, quota: int, seed: tuple[int, ...], epoch: int, *, shuffle: bool
) -> Int64[np.ndarray, " quota"]:
    """Cut an epoch's part from a store's endless row of permutations."""
    first, last = epoch * quota, (epoch + 1) * quota
    cycles = range(first // count, -(-last // count))
    row = np.concatenate(
        [
            np.random.default_rng((*seed, cycle, _CYCLES)).permutation(count)
            if shuffle
            else np.arange(count)
            for cycle in cycles
        ]
    )
    offset = first - cycles[0] * count
    return row[offset : offset + quota].astype(np.int64)
