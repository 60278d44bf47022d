"""Batches of a loader, taken and compared."""

from __future__ import annotations

from itertools import islice

import torch


def take(batches, count):
    reader = iter(batches)
    taken_batches = list(islice(reader, count))
    reader.close()
    return taken_batches


def same(a, b):
    return a.seeds == b.seeds and all(torch.equal(a.images[n], b.images[n]) for n in a.images)
