"""Labelled images, whatever files they lie in: what an evaluation asks of them.

GEO-Bench v1 tasks are read by :mod:`salibi_model.evals.datasets.geobench`, class-per-folder images by
:mod:`salibi_model.evals.datasets.class_folders`; :func:`open_labelled` tells which it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import redact
from salibi_model.evals.datasets.geobench_tasks import Kind

Split = Literal["train", "validation", "test"]
Indices = Sequence[int] | NDArray[np.integer]

SPLITS: Final[tuple[Split, ...]] = get_args(Split)

MEASURED_IMAGES: Final = 2000
"""Training images at most that statistics are measured on, spread evenly over all of them."""

_BATCH_IMAGES: Final = 32


class LabelledImages(ABC):
    """Images with labels, in three splits that share none.

    Images are numbered from 0 over all splits. Everything is read when it is asked for, and only
    the bands that are.
    """

    name: str
    """The task's or the data set's."""
    task: Kind
    classes: tuple[str, ...]
    """What label k means. Classes that stand for missing labels count as the source counts them."""
    bands: tuple[str, ...]
    """Common lower-case names where known (``red``, ``nir``, ``vv``); else the file's own."""
    gsd_m: float
    """Ground that a pixel of :meth:`read` covers, metres along its edge."""
    digest: str
    """SHA-256 of what tells this data set and its split from others; pixels are not read for it."""

    @abstractmethod
    def split_indices(self, split: Split) -> Int64[np.ndarray, " images"]:
        """Numbers of the images of a split."""

    @abstractmethod
    def read(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images.

        Args:
            indices: their numbers, one at least.
            bands: in the order wanted.

        Returns:
            Values in the source's units, radar power in dB; NaN where there is no measurement.

        Raises:
            UsageError: there is no such band.
            StoreError: a file is missing or damaged, or an image holds no measurement at all.
        """

    @abstractmethod
    def labels(self, indices: Indices) -> Int64[np.ndarray, " images *shape"]:
        """Read labels.

        Returns:
            (images,) of class numbers; (images, classes) of 0 and 1 for ``multilabel``; (images,
            rows, cols) for ``segmentation``, with -1 where there is no label.

        Raises:
            StoreError: a file is missing or damaged, or a label is none of the classes.
        """

    def statistics(
        self, bands: Sequence[str]
    ) -> tuple[Float64[np.ndarray, " bands"], Float64[np.ndarray, " bands"]]:
        """Mean and standard deviation of each band over the training images, in :meth:`read`'s units.

        Measured over the valid pixels of at most :data:`MEASURED_IMAGES` images. A band that never
        changes has deviation 1, so that it can be divided by.

        Raises:
            UsageError, StoreError: as :meth:`read`; or a band has no measurement in any of them.
        """
        train = self.split_indices("train")
        places = np.linspace(0, len(train) - 1, min(len(train), MEASURED_IMAGES)).round()
        chosen = train[places.astype(np.int64)]
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
        # Rounding can bring the variance of a constant band to a hair below zero.
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return mean, np.where(std > 0, std, 1.0)

    def check_classes(self, split: Split) -> None:
        """Refuse a split whose images all have the same label: there is nothing to tell apart.

        Labels are read until two differ, the last image's and the first's before the others'. An
        empty split passes.

        Raises:
            UsageError: naming the label.
            StoreError: as :meth:`labels`.
        """
        indices = self.split_indices(split)
        if not len(indices):
            return
        # Partitions are often in the order of their classes.
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
        """Refuse bands that there are not.

        Raises:
            UsageError: naming those there are.
        """
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise UsageError(
                f"{self.name} has no band {', '.join(map(repr, missing))}; it has "
                f"{_listed(self.bands)}."
            )


def open_labelled(
    path: str | Path,
    *,
    gsd_m: float | None = None,
    partition: str = "default",
    seed: int = 0,
    bands: tuple[str, ...] | None = None,
) -> LabelledImages:
    """Open one labelled data set.

    Args:
        path: folder of a GEO-Bench v1 task, or of class-per-folder images.
        gsd_m: metres per pixel, for images without a georeference; where they have one, it is
            taken instead of theirs.
        partition: GEO-Bench's partition: ``default``, ``0.01x_train`` to ``1.00x_train``.
        seed: of the split of images that come without one.
        bands: names of the images' bands, where the files do not tell.

    Raises:
        UsageError: there is nothing of the kind there, it is several tasks, or an option does
            not go with it.
        StoreError: it is incomplete or damaged.
    """
    from salibi_model.evals.datasets.class_folders import ClassFolders
    from salibi_model.evals.datasets.geobench import GeoBenchTask, is_task, task_folders

    if "://" in str(path):
        raise UsageError(
            f"{redact(str(path))} is an address; labelled images are read from folders: copy them first."
        )
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder; give that of a GEO-Bench v1 task, or one with a folder of "
            "images per class."
        )
    if is_task(folder):
        if gsd_m is not None or bands is not None:
            raise UsageError(
                f"{folder} is a GEO-Bench task, whose GSD and bands are known; leave gsd_m and "
                "the names of bands away."
            )
        return GeoBenchTask(folder, partition=partition)
    if tasks := task_folders(folder):
        raise UsageError(
            f"{folder} holds {len(tasks)} GEO-Bench tasks; give one of them, such as {tasks[0]}."
        )
    if partition != "default":
        raise UsageError(
            f"partition {partition!r} was asked for, but {folder} is no GEO-Bench task, and only "
            "those have partitions; leave it away."
        )
    return ClassFolders(folder, gsd_m=gsd_m, seed=seed, bands=bands)


def open_all(
    path: str | Path,
    *,
    gsd_m: float | None = None,
    partition: str = "default",
    seed: int = 0,
    bands: tuple[str, ...] | None = None,
) -> list[LabelledImages]:
    """Open every labelled data set of a folder: a GEO-Bench root's tasks, or the one there is.

    Args:
        path: as for :func:`open_labelled`; or ``$GEO_BENCH_DIR``, or one of its benchmarks.
        gsd_m: as there.
        partition: as there.
        seed: as there.
        bands: as there.

    Raises:
        UsageError, StoreError: as there.
    """
    from salibi_model.evals.datasets.geobench import is_task, task_folders

    folder = Path(path)
    tasks = [] if is_task(folder) else task_folders(folder)
    return [
        open_labelled(each, gsd_m=gsd_m, partition=partition, seed=seed, bands=bands)
        for each in tasks or [folder]
    ]


def _listed(names: Sequence[str]) -> str:
    """All names, or the first and last of many."""
    most = 20
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most // 2])} ... {names[-1]} ({len(names)} in all)"
