"""Defines the interface that evaluations use to read labelled images.

GEO-Bench v1 tasks implement it in :mod:`salibi_model.evals.datasets.geobench`, class-per-folder
images in :mod:`salibi_model.evals.datasets.class_folders`;
:func:`salibi_model.evals.datasets.open.open_labelled` opens either.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.evals.datasets.geobench_tasks import Kind

Split = Literal["train", "validation", "test"]
Indices = Sequence[int] | NDArray[np.integer]

SPLITS: Final[tuple[Split, ...]] = get_args(Split)

MEASURED_IMAGES: Final = 2000
"""Largest number of training images that statistics are measured on, spread evenly over all."""

_BATCH_IMAGES: Final = 32


class LabelledImages(ABC):
    """Images with labels, in three splits that share none.

    Images are numbered from 0 over all splits. Images, bands and labels are read on demand.
    """

    name: str
    """Name of the task or data set."""
    task: Kind
    """Kind of the labels: ``classification``, ``multilabel`` or ``segmentation``."""
    classes: tuple[str, ...]
    """Names of the classes; label k is ``classes[k]``. A class for missing labels counts as the source
    counts it."""
    bands: tuple[str, ...]
    """Common lower-case names where known (``red``, ``nir``, ``vv``); else the file's own."""
    units: str | None = None
    """Units of the files' values, where the user names them, as in :mod:`salibi_model.models.units`."""
    states_units: bool = True
    """Whether the data set itself says what its values are, so that nobody has to."""
    gsd_m: float
    """Edge of a pixel of :meth:`read` on the ground, in metres."""
    digest: str
    """SHA-256 of what identifies this data set and its split: names, files' sizes and times, not
    pixels."""

    @abstractmethod
    def split_indices(self, split: Split) -> Int64[np.ndarray, " images"]:
        """Return the numbers of the images of a split."""

    @abstractmethod
    def read(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images.

        Args:
            indices: numbers of the images, one at least.
            bands: names of the bands, in the order wanted.

        Returns:
            Values in the source's units, radar power in dB; NaN where there is no measurement.

        Raises:
            UsageError: there is no such band.
            StoreError: a file is missing or damaged, or an image holds no measurement at all.
        """

    def unconverted(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images in the units of their files; see :meth:`read`."""
        return self.read(indices, bands)

    @abstractmethod
    def labels(self, indices: Indices) -> Int64[np.ndarray, " images *shape"]:
        """Read labels.

        Args:
            indices: numbers of the images.

        Returns:
            Class numbers (images,); for ``multilabel`` 0 or 1 (images, classes); for
            ``segmentation`` class numbers (images, rows, cols), -1 where there is no label.

        Raises:
            StoreError: a file is missing or damaged, or a label is none of the classes.
        """

    def statistics(
        self, bands: Sequence[str]
    ) -> tuple[Float64[np.ndarray, " bands"], Float64[np.ndarray, " bands"]]:
        """Return mean and standard deviation of bands over the training images, in :meth:`read`'s units.

        Measured over the valid pixels of at most :data:`MEASURED_IMAGES` images. A constant band
        has deviation 1, so that it can be divided by.

        Raises:
            UsageError, StoreError: as :meth:`read`; or a band has no measurement in any of them.
        """
        train = self.split_indices("train")
        positions = np.linspace(0, len(train) - 1, min(len(train), MEASURED_IMAGES)).round()
        chosen = train[positions.astype(np.int64)]
        count, total, squares = np.zeros((3, len(bands)))
        for start in range(0, len(chosen), _BATCH_IMAGES):
            values = self.read(chosen[start : start + _BATCH_IMAGES], bands).astype(np.float64)
            count += np.isfinite(values).sum((0, 2, 3))
            total += np.nansum(values, (0, 2, 3))
            squares += np.nansum(values**2, (0, 2, 3))
        if not count.all():
            empty = bands[int(np.argmin(count))]
            raise StoreError(f"{self.name}: no training image has a measurement in {empty!r}.")
        mean = total / count
        # Rounding can make the variance of a constant band slightly negative.
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return mean, np.where(std > 0, std, 1.0)

    def check_classes(self, split: Split) -> None:
        """Refuse a split whose images all have the same label.

        Labels are read until two differ. An empty split passes.

        Raises:
            UsageError: all labels are the same; the message names it.
            StoreError: as :meth:`labels`.
        """
        indices = self.split_indices(split)
        if not len(indices):
            return
        # Partitions are often sorted by class: the last image first is compared with the first ones.
        indices = np.roll(indices, 1)
        only = self.labels(indices[:1])[0]
        for start in range(0, len(indices), _BATCH_IMAGES):
            if (self.labels(indices[start : start + _BATCH_IMAGES]) != only).any():
                return
        numbers = [int(only)] if only.ndim == 0 else np.flatnonzero(only)
        names = ", ".join(self.classes[number] for number in numbers) or "none"
        raise UsageError(
            f"all {len(indices)} {split} images of {self.name} have the same label ({names}); "
            "expected two classes or more. Take another partition, or other images."
        )

    def check_bands(self, bands: Iterable[str]) -> None:
        """Refuse bands that the data does not have.

        Raises:
            UsageError: a band is missing; the message names those there are.
        """
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise UsageError(
                f"{self.name} has no band {', '.join(map(repr, missing))}; it has "
                f"{_listed(self.bands)}."
            )


def _listed(names: Sequence[str]) -> str:
    """Join all names, or the first and last of many."""
    max_names = 20
    if len(names) <= max_names:
        return ", ".join(names)
    return f"{', '.join(names[: max_names // 2])} ... {names[-1]} ({len(names)} in all)"
