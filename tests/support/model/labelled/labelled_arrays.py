"""Labelled images in memory, for exact checks of what is made of them."""

from __future__ import annotations

import hashlib

import numpy as np

from salibi_model.evals.datasets.labelled import SPLITS, LabelledImages


class LabelledArrays(LabelledImages):
    """Images and labels given as arrays; the splits follow each other."""

    def __init__(
        self,
        images,
        labels,
        *,
        counts,
        task="classification",
        bands=("red", "green", "blue"),
        **properties,
    ):
        """``counts``: images of train, validation and test."""
        self.images = np.asarray(images, np.float32)
        self.values = np.asarray(labels, np.int64)
        self.task = task
        self.bands = tuple(bands)
        num_classes = properties.get("num_classes", int(self.values.max()) + 1)
        if task == "multilabel":
            num_classes = self.values.shape[1]
        self.classes = tuple(f"class {number}" for number in range(num_classes))
        self.name = properties.get("name", "arrays")
        self.gsd_m = properties.get("gsd_m", 10.0)
        self.digest = hashlib.sha256(self.images.tobytes() + self.values.tobytes()).hexdigest()
        ends = np.cumsum(counts)
        starts = ends - np.array(counts)
        self._splits = dict(zip(SPLITS, map(np.arange, starts, ends), strict=True))
        self.reads = 0

    def split_indices(self, split):
        return self._splits[split]

    def read(self, indices, bands):
        self.reads += len(indices)
        chosen = [self.bands.index(band) for band in bands]
        return self.images[np.asarray(indices)][:, chosen]

    def labels(self, indices):
        return self.values[np.asarray(indices)]


def coloured(
    num_train=40, num_valid=12, num_test=20, *, num_classes=4, px=32, seed=0, **properties
):
    """Images of a colour per class, with noise: what any probe can tell."""
    rng = np.random.default_rng(seed)
    count = num_train + num_valid + num_test
    labels = np.arange(count) % num_classes
    colours = rng.uniform(0.2, 0.8, (num_classes, 3))
    images = colours[labels][:, :, None, None] + rng.normal(0, 0.02, (count, 3, px, px))
    return LabelledArrays(images, labels, counts=(num_train, num_valid, num_test), **properties)


def painted(num_train=24, num_valid=2, num_test=8, *, px=48, seed=0, **properties):
    """Images whose left part is of one colour, the right of another; a row is not labelled."""
    rng = np.random.default_rng(seed)
    count = num_train + num_valid + num_test
    labels = np.zeros((count, px, px), np.int64)
    for image in labels:
        image[:, 16 * rng.integers(1, px // 16) :] = 1
    images = rng.normal(0, 0.05, (count, 3, px, px)) + 0.3 + 0.4 * labels[:, None]
    labels[:, 0] = -1
    return LabelledArrays(
        images, labels, counts=(num_train, num_valid, num_test), task="segmentation", **properties
    )
