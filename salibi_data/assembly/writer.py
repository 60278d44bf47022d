"""The store: whole shards in Hilbert order, then the index arrays, the table, and the manifest.

A shard is a run of samples, the same run for every modality, written once by one worker. The
manifest with every file's checksum comes last: a folder without it is not a finished store.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import StoreError
from salibi_data.store.filesystem import (
    file_sha256,
    is_partial,
    remove_partials,
    write_atomically,
)
from salibi_data.store.open import parse_manifest
from salibi_data.store.schema import (
    ATTRIBUTES_KEY,
    INDEX_ARRAYS,
    MANIFEST_NAME,
    NODATA,
    SAMPLES_NAME,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.schema import Modality, StoreAttributes

SAMPLES_PER_SHARD: Final = 64
"""About 50 MB of high resolution pixels before compression."""

ZSTD_LEVEL: Final = 3


def create_arrays(folder: Path, modalities: Iterable[Modality], num_samples: int) -> None:
    """Make the group and its empty image arrays."""
    import zarr

    group = zarr.create_group(folder, zarr_format=3, overwrite=True)
    for modality in modalities:
        shape = (len(modality.bands), modality.size_px, modality.size_px)
        array = group.create_array(
            modality.name,
            shape=(num_samples, *shape),
            chunks=(1, *shape),
            shards=(SAMPLES_PER_SHARD, *shape),
            dtype="uint8",
            compressors=_codecs(),
            fill_value=NODATA,
            dimension_names=modality.dims,
        )
        array.attrs.update({"bands": list(modality.bands), "units": modality.units})


def write_shard(
    folder: Path,
    number: int,
    images: Mapping[str, NDArray[np.uint8]],
    training: NDArray[np.bool_],
) -> dict[str, list[list[int]]]:
    """Write one shard of every modality.

    Args:
        folder: the group.
        number: of the shard.
        images: per modality (n, bands, size, size): all samples of the shard.
        training: (n,), which of them are in the training split.

    Returns:
        Per modality a histogram of the valid training pixels: (bands, 256) counts, integers so
        that the statistics do not depend on the order in which shards are done.
    """
    import zarr

    group = zarr.open_group(folder, mode="r+")
    start = number * SAMPLES_PER_SHARD
    # An all-zero chunk is written like any other: "no data" is not "never written".
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, pixels in images.items():
            # Zarr renames a whole file into place, so a killed worker leaves no half of a shard.
            array: Any = group[name]
            array[start : start + len(pixels)] = pixels
    return {name: _histogram(pixels[training]) for name, pixels in images.items()}


def finish(
    folder: Path,
    attributes: StoreAttributes,
    index: Mapping[str, NDArray[Any]],
    write_samples: Callable[[Path], None],
) -> None:
    """Write what describes the samples, and the manifest last; may be begun again at any point.

    Args:
        folder: the group, with all shards of its images.
        attributes: with the statistics.
        index: arrays of :data:`~salibi_data.store.schema.INDEX_ARRAYS`.
        write_samples: writes the table of the samples to the path it is given.
    """
    import zarr
    from zarr.errors import ZarrUserWarning

    _forget_earlier_finish(folder)
    _write_index_arrays(folder, index)
    zarr.open_group(folder, mode="r+").attrs.update({ATTRIBUTES_KEY: attributes.to_dict()})
    with warnings.catch_warnings():
        # One request opens the store, and no reader lists the folder to find the two files that
        # are not Zarr's. That Zarr v3 has not standardised this yet is known and harmless.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(folder)
    write_samples(folder / SAMPLES_NAME)
    write_manifest(folder)


def _forget_earlier_finish(folder: Path) -> None:
    """Take back what a finish that was stopped may have written; the images stay."""
    remove_partials(folder)
    for name in (MANIFEST_NAME, SAMPLES_NAME):
        (folder / name).unlink(missing_ok=True)
    for name in INDEX_ARRAYS:
        shutil.rmtree(folder / name, ignore_errors=True)
    metadata = folder / "zarr.json"
    group = json.loads(metadata.read_text())
    group.pop("consolidated_metadata", None)
    with write_atomically(metadata) as partial:
        partial.write_text(json.dumps({**group, "attributes": {}}))


def write_manifest(folder: Path) -> None:
    """Size and SHA-256 of every file of the store; appears whole or not at all."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        # A worker of a build that was killed may be late with a shard that is there already.
        if path.is_file() and path != folder / MANIFEST_NAME and not is_partial(path)
    }
    with write_atomically(folder / MANIFEST_NAME) as partial:
        partial.write_text(json.dumps({"files": files}, indent=1, sort_keys=True) + "\n")


def check_sizes(folder: Path) -> None:
    """Every file that a finished store's manifest lists is there, in its size.

    Zarr takes a shard that is missing for one of nodata, so this is asked before reading.

    Raises:
        StoreError: one is not, or the manifest is damaged.
    """
    manifest = folder / MANIFEST_NAME
    for name, entry in parse_manifest(manifest.read_bytes(), where=str(manifest)).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry.bytes:
            raise StoreError(
                f"{folder} is finished, but its file {name} is missing or cut short; remove the "
                "store and build it again."
            )


def statistics(histogram: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per band of the values counted in (bands, 256); 0 is nodata.

    A band without any valid pixel has mean 0 and standard deviation 1.
    """
    means, deviations = [], []
    for counts in histogram.tolist():
        valid = {value: count for value, count in enumerate(counts) if value != NODATA}
        total = sum(valid.values())
        if total == 0:
            means.append(0.0)
            deviations.append(1.0)
            continue
        # Python integers: exact however many pixels there are.
        mean = sum(value * count for value, count in valid.items()) / total
        square = sum(value * value * count for value, count in valid.items()) / total
        means.append(mean)
        deviations.append(max(square - mean * mean, 0.0) ** 0.5 or 1.0)
    return tuple(means), tuple(deviations)


def swap_in(finished: Path, store: Path) -> None:
    """Put a finished store in its place, by renames: a reader never sees half of one."""
    retired = store.with_name(f".{store.name}.{os.getpid()}.old")
    if store.exists():
        store.replace(retired)
    finished.replace(store)
    shutil.rmtree(retired, ignore_errors=True)


def _codecs() -> list[Any]:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return [ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()]


def _histogram(images: NDArray[np.uint8]) -> list[list[int]]:
    bands = images.shape[1]
    return [np.bincount(images[:, b].ravel(), minlength=256).tolist() for b in range(bands)]


def _write_index_arrays(folder: Path, index: Mapping[str, NDArray[Any]]) -> None:
    import zarr

    group = zarr.open_group(folder, mode="r+")
    for name, (dtype, dims) in INDEX_ARRAYS.items():
        array = np.asarray(index[name], dtype=dtype)
        group.create_array(
            name,
            data=array,
            chunks=array.shape,
            compressors=_codecs(),
            dimension_names=dims,
        )
