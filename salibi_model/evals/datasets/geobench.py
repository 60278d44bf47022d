"""Reads the tasks of GEO-Bench v1 from their files (Lacoste et al. 2023, arXiv 2306.03831).

A task's folder holds a file ``<sample>.hdf5`` per sample with a data set per band, partitions of
the samples into splits, statistics of the bands, and pickles with the labels and class names, which
:mod:`salibi_model.evals.datasets.safe_pickle` reads without running them.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Float64, Int64

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.redaction import first_line
from salibi_model.data.input_names import describe_odd
from salibi_model.evals.datasets.geobench_samples import (
    DOWNLOAD_AGAIN,
    read_image,
    read_label,
    read_shape,
)
from salibi_model.evals.datasets.geobench_tasks import (
    CLASSIFICATION_FOLDER,
    GEOBENCH_TASKS,
    SEGMENTATION_FOLDER,
    BandSource,
    GeoBenchSpec,
)
from salibi_model.evals.datasets.labelled import SPLITS, Indices, LabelledImages, Split
from salibi_model.evals.datasets.safe_pickle import Inert, unpickle_inert
from salibi_model.evals.options import DEFAULT_PARTITION

_SPECS_NAME: Final = "task_specs.pkl"
_STATS_NAME: Final = "band_stats.json"
_PARTITION_SUFFIX: Final = "_partition.json"
_FILE_SPLITS: Final[Mapping[Split, str]] = {"train": "train", "validation": "valid", "test": "test"}
"""Names of the splits in a partition's file."""


def is_task(folder: Path) -> bool:
    """Whether a folder is that of a GEO-Bench task."""
    return (folder / _SPECS_NAME).is_file() or any(folder.glob(f"*{_PARTITION_SUFFIX}"))


def task_folders(folder: Path) -> list[Path]:
    """Return the folders of the tasks in ``$GEO_BENCH_DIR`` or in one of its two benchmarks, sorted."""
    benchmarks = (CLASSIFICATION_FOLDER, SEGMENTATION_FOLDER)
    parents = [folder / name for name in benchmarks]
    if folder.name in benchmarks:
        parents = [folder]
    return [
        task
        for parent in parents
        if parent.is_dir()
        for task in sorted(parent.iterdir())
        if task.is_dir() and is_task(task)
    ]


class GeoBenchTask(LabelledImages):
    """One task of GEO-Bench v1, in one of its partitions.

    Values are those of the files, whose units differ by task: digital numbers, reflectance, 0..1.
    So2Sat's ``vv`` and ``vh``, linear intensities after a Lee filter, are converted to dB; zero
    power is NaN. NeonTree's canopy height and hyperspectral bands, ten times coarser, are repeated
    on the grid of its photograph. Classes named "no data" are classes of the benchmark, and stay.
    """

    def __init__(self, folder: str | Path, *, partition: str = DEFAULT_PARTITION) -> None:
        """Open a task.

        Args:
            folder: the task's folder.
            partition: ``default``, or ``0.01x_train`` to ``1.00x_train`` with that share of the
                training samples.

        Raises:
            UsageError: there is no such folder or partition.
            StoreError: the folder is not of a known task, incomplete, or damaged.
        """
        self.path = Path(folder)
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is no folder; give that of a GEO-Bench task.")
        specs = self._read_specs()
        self._spec = self._recognise(specs)
        self.name = self._spec.name
        self.task = self._spec.kind
        self.classes = _class_names(self._spec, specs)
        self.bands = tuple(self._spec.bands)
        self.gsd_m = float(self._spec.gsd_m)
        self._stats = _read_json(self.path / _STATS_NAME)
        self._splits = self._read_partition(partition)
        self._samples = [name for split in SPLITS for name in self._splits[split]]
        self._check_samples()
        # Size and time of files: a data set with corrected labels must have another digest.
        files = [self._file(number).stat() for number in range(len(self._samples))]
        stamps = [(file.st_size, file.st_mtime_ns) for file in files]
        identity = [self.name, self.classes, self._splits, self._stats, stamps]
        self._shape: tuple[int, ...] | None = None
        self.digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def split_indices(self, split: Split) -> Int64[np.ndarray, " images"]:
        """Return the numbers of the images of a split."""
        before = sum(len(self._splits[each]) for each in SPLITS[: SPLITS.index(split)])
        return np.arange(before, before + len(self._splits[split]), dtype=np.int64)

    def read(
        self, indices: Indices, bands: Sequence[str]
    ) -> Float32[np.ndarray, "images bands rows cols"]:
        """Read images; see :meth:`LabelledImages.read`."""
        self.check_bands(bands)
        sources = [self._spec.bands[band] for band in bands]
        images = [read_image(self._file(k), self._spec, sources) for k in indices]
        for image in images:
            # Of the first image read: a later batch of another size would be resampled to it.
            self._shape = self._shape or image.shape[-2:]
            if image.shape[-2:] != self._shape:
                raise self._odd_sizes()
        return self._stack(images)

    def labels(self, indices: Indices) -> Int64[np.ndarray, " images *shape"]:
        """Read labels; see :meth:`LabelledImages.labels`."""
        return self._stack([read_label(self._file(k), self._spec) for k in indices])

    def statistics(
        self, bands: Sequence[str]
    ) -> tuple[Float64[np.ndarray, " bands"], Float64[np.ndarray, " bands"]]:
        """Return mean and standard deviation of bands, from ``band_stats.json``.

        Bands that are converted to dB, or that the file lacks, are measured on training images. The
        hyperspectral bands of NeonTree share one pair, as in the file.
        """
        self.check_bands(bands)
        statistics = {band: self._file_statistics(self._spec.bands[band]) for band in bands}
        unknown = [band for band, pair in statistics.items() if pair is None]
        if unknown:
            measured = np.stack(super().statistics(unknown), axis=1)
            statistics.update(zip(unknown, measured.tolist(), strict=True))
        mean, std = np.array([statistics[band] for band in bands], dtype=np.float64).T
        return mean, std

    def _file_statistics(self, source: BandSource) -> tuple[float, float] | None:
        """Return mean and deviation of a band by ``band_stats.json``; ``None`` if unknown."""
        if source.to_decibel or source.name not in self._stats:
            return None
        try:
            mean, std = (float(self._stats[source.name][key]) for key in ("mean", "std"))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(
                f"{self.path / _STATS_NAME} has no mean and std of {source.name!r}. {DOWNLOAD_AGAIN}"
            ) from error
        if not (np.isfinite(mean) and np.isfinite(std) and std >= 0):
            raise StoreError(
                f"{self.path / _STATS_NAME} says mean {mean}, std {std} of {source.name!r}. {DOWNLOAD_AGAIN}"
            )
        return mean, std or 1.0

    def _read_specs(self) -> Inert:
        """Read the pickled description of the task."""
        path = self.path / _SPECS_NAME
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read: {first_line(error)}. {DOWNLOAD_AGAIN}"
            ) from error
        specs = unpickle_inert(raw, str(path))
        if not isinstance(specs, Inert):
            raise StoreError(f"{path} holds no task, but {type(specs).__name__}. {DOWNLOAD_AGAIN}")
        return specs

    def _recognise(self, specs: Inert) -> GeoBenchSpec:
        """Identify the task by its folder's name, or by its description if the folder was renamed."""
        for name in (self.path.name, specs.attribute("dataset_name")):
            if isinstance(name, str) and name in GEOBENCH_TASKS:
                return GEOBENCH_TASKS[name]
        raise StoreError(
            f"{self.path} is none of the twelve tasks of GEO-Bench v1: neither its name nor its "
            f"{_SPECS_NAME} says which of {', '.join(GEOBENCH_TASKS)} it is."
        )

    def _read_partition(self, partition: str) -> dict[Split, list[str]]:
        names = sorted(
            path.name.removesuffix(_PARTITION_SUFFIX)
            for path in self.path.glob(f"*{_PARTITION_SUFFIX}")
        )
        if partition not in names:
            raise UsageError(
                f"{self.path} has no partition {partition!r}; it has {', '.join(names) or 'none'}."
            )
        path = self.path / f"{partition}{_PARTITION_SUFFIX}"
        content = _read_json(path)
        splits: dict[Split, list[str]] = {}
        for split, key in _FILE_SPLITS.items():
            samples = content.get(key)
            if not isinstance(samples, list) or not all(isinstance(each, str) for each in samples):
                raise StoreError(f"{path} has no list of samples {key!r}. {DOWNLOAD_AGAIN}")
            splits[split] = samples
        return splits

    def _check_samples(self) -> None:
        """Refuse a partition that names samples twice, or whose files are incomplete."""
        if len(set(self._samples)) != len(self._samples):
            raise StoreError(
                f"a partition of {self.path} names samples twice: training and test would share "
                f"them. {DOWNLOAD_AGAIN}"
            )
        available = {path.stem for path in self.path.glob("*.hdf5")}
        missing = [name for name in self._samples if name not in available]
        if missing:
            raise StoreError(
                f"{self.path} lacks {len(missing)} of the {len(self._samples)} samples of its "
                f"partition, such as {missing[0]}.hdf5; finish the download, or ask for a smaller "
                "partition."
            )

    def _file(self, index: int | np.integer) -> Path:
        return self.path / f"{self._samples[int(index)]}.hdf5"

    def _stack(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if not arrays:
            raise StoreError(
                f"{self.path} has no images in a split of the partition; take another partition."
            )
        if len({array.shape for array in arrays}) > 1:
            raise self._odd_sizes()
        return np.stack(arrays)

    def _odd_sizes(self) -> StoreError:
        """An error that names the samples of another size than most, of all there are."""
        names: dict[str, list[str]] = defaultdict(list)
        for number in range(len(self._samples)):
            path = self._file(number)
            with suppress(StoreError):
                names["{} x {} px".format(*read_shape(path, self._spec))].append(path.name)
        return StoreError(
            f"images of {self.path} differ in size: {describe_odd(names)}. {DOWNLOAD_AGAIN}"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {first_line(error)}. {DOWNLOAD_AGAIN}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no table. {DOWNLOAD_AGAIN}")
    return content


def _class_names(spec: GeoBenchSpec, specs: Inert) -> tuple[str, ...]:
    """Return the names in the description if their number is right; else the known ones."""
    # Segmentation has no class names in the description; the converter's are used.
    label_type = specs.attribute("label_type")
    if isinstance(label_type, Inert):
        # The benchmark's two label classes spell it differently.
        names = label_type.attribute("_class_names") or label_type.attribute("class_name")
        if isinstance(names, list | tuple) and len(names) == spec.num_classes:
            return tuple(str(name) for name in names)
    return spec.classes or tuple(f"class {k}" for k in range(spec.num_classes))
