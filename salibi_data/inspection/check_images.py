"""Checks a store's images: checksums, shares of nodata, and the alignment of one sensor's zooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.schema import NODATA, StoreAttributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from salibi_data.store.manifest import ManifestEntry
    from salibi_data.store.open import StoreFiles
    from salibi_data.store.progress import Progress


MAX_SHIFTED_SHARE: Final = 0.1
"""Largest share of samples in which shifting one of a sensor's two zooms may improve the fit. It is
not 0, because smooth or noisy ground can fit better by chance."""


def image_shards(
    manifest: Mapping[str, ManifestEntry], attributes: StoreAttributes
) -> frozenset[str]:
    """Return the names of the shards of images.

    They are too large to be read twice, so :func:`check_images` also checks their checksums.
    """
    prefixes = tuple(f"{name}/c/" for name in attributes.modalities)
    return frozenset(name for name in manifest if name.startswith(prefixes))


def check_images(
    files: StoreFiles,
    manifest: Mapping[str, ManifestEntry],
    attributes: StoreAttributes,
    progress: Progress | None,
) -> Iterator[str]:
    """Read every image once, by whole shards, and yield every problem.

    The checks are the checksum of the shard, the share of valid pixels against ``valid_fraction``,
    and whether images of one sensor at two zooms line up.

    Args:
        files: store to check.
        manifest: entries of its manifest.
        attributes: attributes of the store.
        progress: called with (samples read, samples in total).

    Raises:
        StoreError: a file cannot be read.
    """
    from salibi_data.inspection.prefetch import PrefetchedStorage

    storage = PrefetchedStorage(files.zarr_storage())
    group = files.group(storage)
    valid_fraction = group["valid_fraction"][:]
    num_samples = len(valid_fraction)
    num_shifted = dict.fromkeys(_zoom_pairs(attributes), 0)
    samples_per_shard = next(iter(group[name].shards[0] for name in attributes.modalities))
    unread_shards = set(image_shards(manifest, attributes))
    for number, start in enumerate(range(0, num_samples, samples_per_shard)):
        rows = slice(start, min(start + samples_per_shard, num_samples))
        shards = [f"{name}/c/{number}/0/0/0" for name in attributes.modalities]
        unread_shards -= set(shards)
        if problems := storage.prefetch(files, {name: manifest.get(name) for name in shards}):
            yield from problems
            continue
        images = {name: group[name][rows] for name in attributes.modalities}
        for name, modality in attributes.modalities.items():
            observed = (images[name] != NODATA).all(axis=1).mean(axis=(1, 2))
            stated = valid_fraction[rows, attributes.sensors.index(modality.sensor)]
            if np.any(observed < stated - 1e-6):
                yield f"{name} lacks pixels that valid_fraction promises, in samples {rows}"
        for coarse, fine in num_shifted:
            num_shifted[coarse, fine] += sum(
                _fits_better_shifted(images[coarse][i], images[fine][i])
                for i in range(rows.stop - rows.start)
            )
        if progress is not None:
            progress(rows.stop, num_samples)
    for name in sorted(unread_shards):
        yield f"file {name} holds no sample"
    for (coarse, fine), number in num_shifted.items():
        if number > MAX_SHIFTED_SHARE * num_samples:
            yield f"{coarse} and {fine} do not line up in {number} of {num_samples} samples"


def _zoom_pairs(attributes: StoreAttributes) -> list[tuple[str, str]]:
    """Return pairs (coarse, fine) of modalities that show one sensor's bands at two zooms."""
    modalities = attributes.modalities
    return [
        (coarse_name, fine_name)
        for coarse_name, coarse in modalities.items()
        for fine_name, fine in modalities.items()
        if coarse.sensor == fine.sensor
        and coarse.bands == fine.bands
        and fine.size_px > coarse.size_px
        and fine.size_px % coarse.size_px == 0
    ]


def _fits_better_shifted(coarse: NDArray[np.uint8], fine: NDArray[np.uint8]) -> bool:
    """Return whether the averaged fine image fits the coarse one better when moved by a pixel.

    Both have shape (bands, rows, columns).
    """
    bands, size, _ = coarse.shape
    factor = fine.shape[1] // size
    averaged = fine.reshape(bands, size, factor, size, factor)
    inner = averaged.mean(axis=(2, 4), dtype=np.float32)[:, 1:-1, 1:-1]

    def difference(dy: int, dx: int) -> float:
        moved = coarse[:, 1 + dy : size - 1 + dy, 1 + dx : size - 1 + dx]
        return float(np.abs(moved - inner).mean())

    moves = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return min(difference(*move) for move in moves) < difference(0, 0)
