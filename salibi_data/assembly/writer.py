"""Write the files of a store: shards of images, then index arrays, table and manifest.

A shard holds consecutive samples, the same ones for every modality, and is written once by one worker.
The manifest with every file's checksum comes last: a folder without it is not a finished store.
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
from salibi_data.store.manifest import parse_manifest
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
"""Samples of one shard: about 50 MB of high resolution pixels before compression."""

ZSTD_LEVEL: Final = 3
"""Compression level of images and index arrays."""


def create_arrays(folder: Path, modalities: Iterable[Modality], num_samples: int) -> None:
    """Create the Zarr group and its empty image arrays.

    Args:
        folder: path of the group; an existing one is overwritten.
        modalities: modalities, an array each.
        num_samples: samples of the store.
    """
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
        folder: path of the group.
        number: number of the shard.
        images: all samples of the shard by modality, shape (n, bands, size, size).
        training: which samples are in the training split, shape (n,).

    Returns:
        Histograms of the training pixels by modality, (bands, 256) counts. They are integers, so
        that the statistics do not depend on the order in which shards are written.
    """
    import zarr

    group = zarr.open_group(folder, mode="r+")
    start = number * SAMPLES_PER_SHARD
    # Zarr omits chunks of zeros by default, but "no data" must differ from "never written".
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name, pixels in images.items():
            # Zarr writes a file under another name and renames it, so a kill leaves no half shard.
            array: Any = group[name]
            array[start : start + len(pixels)] = pixels
    return {name: _histogram(pixels[training]) for name, pixels in images.items()}


def finish_store(
    folder: Path,
    attributes: StoreAttributes,
    index: Mapping[str, NDArray[Any]],
    write_samples: Callable[[Path], None],
) -> None:
    """Write index arrays, attributes, table and manifest; may be repeated after a kill at any point.

    Args:
        folder: path of the group, with all shards of its images.
        attributes: attributes of the store, with statistics.
        index: arrays of :data:`~salibi_data.store.schema.INDEX_ARRAYS`.
        write_samples: function that writes the table of the samples to a path.
    """
    import zarr
    from zarr.errors import ZarrUserWarning

    _undo_finish(folder)
    _write_index_arrays(folder, index)
    zarr.open_group(folder, mode="r+").attrs.update({ATTRIBUTES_KEY: attributes.to_dict()})
    with warnings.catch_warnings():
        # With consolidated metadata one request opens a store. Zarr v3 has not standardised it yet
        # and warns; the two files that are not Zarr's are never found by listing, so that is harmless.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(folder)
    write_samples(folder / SAMPLES_NAME)
    write_manifest(folder)


def _undo_finish(folder: Path) -> None:
    """Remove what an earlier, interrupted :func:`finish_store` may have written; images stay."""
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
    """Write the size and SHA-256 of every file of the store, atomically."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        # A worker of a killed build may still be writing a shard that exists already.
        if path.is_file() and path != folder / MANIFEST_NAME and not is_partial(path)
    }
    with write_atomically(folder / MANIFEST_NAME) as partial:
        partial.write_text(json.dumps({"files": files}, indent=1, sort_keys=True) + "\n")


def check_sizes(folder: Path) -> None:
    """Check that every file in a finished store's manifest exists and has its size.

    Zarr reads a missing shard as nodata, so this must be checked before reading.

    Raises:
        StoreError: a file is missing or has another size, or the manifest is damaged.
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
    """Compute mean and standard deviation of each band.

    Args:
        histogram: counts of pixel values, shape (bands, 256); 0 is nodata and does not count.

    Returns:
        (means, deviations); a band without any valid pixel has mean 0 and deviation 1.
    """
    means, deviations = [], []
    for counts in histogram.tolist():
        valid = {value: count for value, count in enumerate(counts) if value != NODATA}
        total = sum(valid.values())
        if total == 0:
            means.append(0.0)
            deviations.append(1.0)
            continue
        # Python integers are exact for any number of pixels.
        mean = sum(value * count for value, count in valid.items()) / total
        square = sum(value * value * count for value, count in valid.items()) / total
        means.append(mean)
        deviations.append(max(square - mean * mean, 0.0) ** 0.5 or 1.0)
    return tuple(means), tuple(deviations)


def replace_store(finished: Path, store: Path) -> None:
    """Move a finished store to its path by renames, so that readers never see half of one."""
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
