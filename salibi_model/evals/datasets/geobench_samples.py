"""Reads one sample of GEO-Bench v1: an HDF5 file with a data set per band, and its label."""

import ast
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from jaxtyping import Float32, Int64, Shaped

from salibi_data.store.errors import StoreError
from salibi_data.store.redaction import first_line
from salibi_model.evals.datasets.geobench_tasks import BandSource, GeoBenchSpec
from salibi_model.evals.datasets.safe_pickle import PickledArray, unpickle_inert

DOWNLOAD_AGAIN: Final = "Download the task again."

_DATE: Final = re.compile(r"_\d{4}-\d{2}-\d{2}.*$")
"""Date that forestnet, cashew and cattle append to a band's name."""

_LABEL: Final = BandSource(name="label")
_NUM_AXES: Final = (2, 3)
_MAX_VALUES: Final = 1 << 28
"""Largest number of values of one band; that of GEO-Bench v1 is 400 x 400 x 369."""
_NUM_AXES_WITH_PLANES: Final = 3


def read_image(
    path: Path, spec: GeoBenchSpec, sources: Sequence[BandSource]
) -> Float32[np.ndarray, "bands rows cols"]:
    """Read bands of a sample onto the grid of the task's first band.

    Returns:
        Values of the file, or dB where the source says so; NaN where there is no measurement.

    Raises:
        StoreError: the file is damaged, lacks a band, or holds no measurement in any of them.
    """
    with _open_bands(path) as datasets:
        grid = _grid(datasets, spec, path)
        planes = [_plane(_find(datasets, each, path), each, grid, path) for each in sources]
    image = np.stack(planes)
    if np.isnan(image).all():
        raise StoreError(f"{path} holds no measurement: every value is NaN. {DOWNLOAD_AGAIN}")
    return image


def read_shape(path: Path, spec: GeoBenchSpec) -> tuple[int, int]:
    """Read (rows, columns) of a sample's grid.

    Raises:
        StoreError: the file is damaged, or lacks the band.
    """
    with _open_bands(path) as datasets:
        return _grid(datasets, spec, path)


def read_label(path: Path, spec: GeoBenchSpec) -> Int64[np.ndarray, " *shape"]:
    """Read a sample's label.

    Returns:
        A class number; for ``multilabel`` 0 and 1, (classes,); for ``segmentation`` a class number
        per pixel, (rows, cols).

    Raises:
        StoreError: the file is damaged, or the label is none of the task's classes.
    """
    if spec.kind == "segmentation":
        with _open_bands(path) as datasets:
            shape = _grid(datasets, spec, path)
            label = np.squeeze(_find(datasets, _LABEL, path)[()])
        return _checked(label, shape, spec.num_classes, path)
    content = unpickle_inert(_description(path), f"the description in {path}")
    value = content.get(_LABEL.name) if isinstance(content, dict) else None
    try:
        label = np.asarray(value.values if isinstance(value, PickledArray) else value)
    except ValueError as error:  # rows of several lengths
        raise StoreError(f"the label of {path} is no array. {DOWNLOAD_AGAIN}") from error
    if spec.kind == "multilabel":
        return _checked(label, (spec.num_classes,), 2, path)
    return _checked(label, (), spec.num_classes, path)


@contextmanager
def _open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file; its errors within the block become a StoreError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    # h5py raises RuntimeError and KeyError, too, where a file's inner tables are damaged.
    except (OSError, RuntimeError, KeyError) as error:
        raise StoreError(f"{path} cannot be read: {first_line(error)}. {DOWNLOAD_AGAIN}") from error


@contextmanager
def _open_bands(path: Path) -> Iterator[dict[str, h5py.Dataset]]:
    """Open a file, and give its data sets by their names without dates."""
    with _open_file(path) as file:
        datasets: dict[str, h5py.Dataset] = {}
        for name, dataset in file.items():
            undated = _DATE.sub("", name)
            if undated in datasets:
                raise StoreError(
                    f"{path} holds {undated!r} at several dates; a sample of GEO-Bench v1 has one. "
                    f"{DOWNLOAD_AGAIN}"
                )
            datasets[undated] = dataset
        yield datasets


def _description(path: Path) -> bytes:
    """Return the pickle in a file's attributes, which hold it as the text of a bytes literal."""
    with _open_file(path) as file:
        text = file.attrs.get("pickle")
    try:
        raw = ast.literal_eval(text) if isinstance(text, str) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raw = None
    if not isinstance(raw, bytes):
        raise StoreError(f"{path} has no description of its label. {DOWNLOAD_AGAIN}")
    return raw


def _find(datasets: Mapping[str, h5py.Dataset], source: BandSource, path: Path) -> h5py.Dataset:
    if source.name not in datasets:
        raise StoreError(
            f"{path} has no band {source.name!r}; it has {', '.join(datasets)}. {DOWNLOAD_AGAIN}"
        )
    _check_band(datasets[source.name], source.name, path)
    return datasets[source.name]


def _check_band(band: Any, name: str, path: Path) -> None:
    """Refuse what is no image: a group, a dangling link, text, or too few axes."""
    shape = getattr(band, "shape", None) or ()
    kind = getattr(getattr(band, "dtype", None), "kind", "")
    pixels = math.prod(shape)
    fits = kind in set("biuf") and len(shape) in _NUM_AXES and 0 < pixels <= _MAX_VALUES
    if not fits:
        raise StoreError(
            f"{path}: {name!r} is no image of real numbers (shape {shape}, kind {kind or 'none'!r}). "
            f"{DOWNLOAD_AGAIN}"
        )


def _grid(datasets: Mapping[str, h5py.Dataset], spec: GeoBenchSpec, path: Path) -> tuple[int, int]:
    """Return rows and columns of the task's first band."""
    rows, cols = _find(datasets, next(iter(spec.bands.values())), path).shape[:2]
    return int(rows), int(cols)


def _plane(
    dataset: h5py.Dataset, source: BandSource, grid: tuple[int, int], path: Path
) -> Float32[np.ndarray, "rows cols"]:
    """Read one band onto a grid, in the units of :func:`read_image`."""
    if source.plane is not None and source.plane >= dataset.shape[-1]:
        raise StoreError(
            f"{path}: {source.name!r} holds {dataset.shape[-1]} bands; need {source.plane + 1}. "
            f"{DOWNLOAD_AGAIN}"
        )
    # NeonTree's canopy height has a last axis of length 1.
    where = (..., source.plane or 0) if dataset.ndim == _NUM_AXES_WITH_PLANES else ()
    values = np.asarray(dataset[where], dtype=np.float32)
    if source.to_decibel:
        # Zero power is no measurement: it has no logarithm.
        values = 10 * np.log10(np.where(values > 0, values, np.float32(np.nan)))
    values = np.where(np.isfinite(values), values, np.float32(np.nan))
    factor = grid[0] // values.shape[0]
    # Repeated, not interpolated, so that every value is one that was measured.
    values = values.repeat(factor, axis=0).repeat(factor, axis=1)
    if values.shape != grid:
        raise StoreError(
            f"{path}: {source.name!r} has {dataset.shape[:2]} pixels, no whole part of the "
            f"image's {grid}. {DOWNLOAD_AGAIN}"
        )
    return values


def _checked(
    label: Shaped[np.ndarray, "*actual"], shape: tuple[int, ...], num_values: int, path: Path
) -> Int64[np.ndarray, " *shape"]:
    """Refuse labels of another shape, or that are not whole numbers below ``num_values``."""
    is_number = label.dtype.kind in "biuf" and label.size > 0
    if not is_number or label.shape != shape or not np.isin(label, range(num_values)).all():
        content = f"{label.min()} to {label.max()}" if is_number else "no numbers"
        raise StoreError(
            f"the label of {path} should hold whole numbers from 0 to {num_values - 1}, shape "
            f"{shape}; it holds {content}, shape {label.shape}. {DOWNLOAD_AGAIN}"
        )
    return label.astype(np.int64)
