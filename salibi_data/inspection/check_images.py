"""Checks of the images of a store: checksums, nodata shares, and zooms of one sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.schema import NODATA, StoreAttributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from salibi_data.store.open import ManifestEntry, StoreFiles
    from salibi_data.store.progress import Progress


MAX_SHIFTED_SHARE: Final = 0.1
"""Share of the samples whose images of one sensor at two zooms may fit better when shifted."""


def image_shards(
    manifest: Mapping[str, ManifestEntry], attributes: StoreAttributes
) -> frozenset[str]:
    """Shards of images: too large to be read twice, so they are checked when they are decoded."""
    of_images = tuple(f"{name}/c/" for name in attributes.modalities)
    return frozenset(name for name in manifest if name.startswith(of_images))


def check_images(
    files: StoreFiles,
    manifest: Mapping[str, ManifestEntry],
    attributes: StoreAttributes,
    progress: Progress | None,
) -> Iterator[str]:
    """Read every sample of every modality; compare the nodata share, and zooms of one sensor.

    A shard is read once, as a whole: for its checksum, and for the images in it.
    """
    from salibi_data.inspection.prefetch import HeldFiles

    held = HeldFiles(files.zarr_storage())
    group = files.group(held)
    valid = group["valid_fraction"][:]
    count = len(valid)
    shifted = dict.fromkeys(_same_sensor(attributes), 0)
    step = next(iter(group[name].shards[0] for name in attributes.modalities))
    left = set(image_shards(manifest, attributes))
    for number, start in enumerate(range(0, count, step)):
        run = slice(start, min(start + step, count))
        shards = [f"{name}/c/{number}/0/0/0" for name in attributes.modalities]
        left -= set(shards)
        if damaged := held.take(files, {name: manifest.get(name) for name in shards}):
            yield from damaged
            continue
        images = {name: group[name][run] for name in attributes.modalities}
        for name, modality in attributes.modalities.items():
            observed = (images[name] != NODATA).all(axis=1).mean(axis=(1, 2))
            promised = valid[run, attributes.sensors.index(modality.sensor)]
            if np.any(observed < promised - 1e-6):
                yield f"{name} lacks pixels that valid_fraction promises, in samples {run}"
        for pair in shifted:
            shifted[pair] += sum(
                _fits_better_shifted(images[pair[0]][i], images[pair[1]][i])
                for i in range(run.stop - run.start)
            )
        if progress is not None:
            progress(run.stop, count)
    for name in sorted(left):
        yield f"file {name} holds no sample"
    for (base, finer), number in shifted.items():
        if number > MAX_SHIFTED_SHARE * count:
            yield f"{base} and {finer} do not line up in {number} of {count} samples"


def _same_sensor(attributes: StoreAttributes) -> list[tuple[str, str]]:
    """Pairs (coarser, finer) of the same sensor and bands: one scene at two scales."""
    names = attributes.modalities
    return [
        (a, b)
        for a, base in names.items()
        for b, finer in names.items()
        if base.sensor == finer.sensor
        and base.bands == finer.bands
        and finer.size_px > base.size_px
        and finer.size_px % base.size_px == 0
    ]


def _fits_better_shifted(base: NDArray[np.uint8], finer: NDArray[np.uint8]) -> bool:
    """Whether the finer image, shrunk, matches the base better one pixel aside than in place."""
    bands, size, _ = base.shape
    k = finer.shape[1] // size
    shrunk = finer.reshape(bands, size, k, size, k).mean(axis=(2, 4), dtype=np.float32)
    inner = shrunk[:, 1:-1, 1:-1]

    def misfit(dy: int, dx: int) -> float:
        moved = base[:, 1 + dy : size - 1 + dy, 1 + dx : size - 1 + dx]
        return float(np.abs(moved - inner).mean())

    moves = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return min(misfit(*move) for move in moves) < misfit(0, 0)
