"""Does a store hold what it promises? Checksums, schema, grid, splits, every sample, its zooms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.plans.splits import leakage
from salibi_data.store.errors import VerificationError
from salibi_data.store.open import Entry, StoreFiles
from salibi_data.store.schema import (
    INDEX_ARRAYS,
    MANIFEST_NAME,
    NODATA,
    SAMPLES_NAME,
    SPLITS,
    UNKNOWN_TIME,
    StoreAttributes,
)
from salibi_data.store.storage import is_url
from salibi_data.store.tiles import ground_gsd_m, tile_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]

MAX_SHIFTED_SHARE: Final = 0.1
"""Share of the samples whose images of one sensor at two zooms may fit better when shifted."""
_SHOWN: Final = 5
_REMEDY: Final = {
    False: "Remove it, and build or pull it again.",
    True: "Publish it again from a store that verifies: what is damaged is sent once more.",
}


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, and what was found wrong."""

    num_samples: int
    num_files: int
    checks: tuple[str, ...]
    against_source: Mapping[str, float] | None = None
    """Samples read again, and the largest and mean difference in stored steps."""


def open_store(store: str | Path) -> tuple[Any, StoreAttributes]:
    """The Zarr group and its attributes, of a store or of the newest release at an address.

    Raises:
        StoreError: no folder, no Zarr group, not a finished store, or it cannot be reached.
        StoreError: not ours, damaged, or of a newer schema.
    """
    return StoreFiles.at(store).open()


def verify(
    store: str | Path,
    *,
    against_source: int = 0,
    catalog: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a store against its manifest, the schema, the grid, itself, and its sources.

    Args:
        store: path or URL of the Zarr group, or of a published dataset: its newest release.
        against_source: so many samples are read again from their sources and compared.
        catalog: name or TOML file that says where the sources are; default the store's own.
        progress: called with (samples read, samples in all).

    Returns:
        What was checked.

    Raises:
        StoreError: no store is there.
        StoreError: the attributes are damaged or of a newer schema.
        VerificationError: something is wrong; the message lists what.
        ReadError: a source cannot be read.
    """
    files = StoreFiles.at(store)
    group, attributes = files.open()
    manifest = files.manifest()
    problems = [*_check_files(files, manifest, but=_images(manifest, attributes))]
    if not problems:  # damaged files would only be reported again
        problems += _check_arrays(group, attributes)
    if not problems:
        problems += _check_index(group, attributes)
        problems += _check_table(files, group, attributes)
        problems += _check_images(files, manifest, attributes, progress)
    checks = ["checksums", "arrays", "grid", "splits", "table", "every image", "zooms"]
    compared = None
    if against_source and not problems:
        from salibi_data.inspection.source_check import compare_with_sources

        found = compare_with_sources(
            files, group, attributes, against_source, catalog=catalog, progress=progress
        )
        problems += found.problems
        checks.append(f"{found.num_samples} samples against their sources")
        compared = {
            "samples": found.num_samples,
            "max_difference": found.max_difference,
            "mean_difference": found.mean_difference,
        }
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise VerificationError(
            f"{files.where} does not hold what it promises: {shown}{more}. {_REMEDY[is_url(store)]}"
        )
    return Verification(
        num_samples=int(group["tile"].shape[0]),
        num_files=len(manifest),
        checks=tuple(checks),
        against_source=compared,
    )


def _images(manifest: Mapping[str, Entry], attributes: StoreAttributes) -> frozenset[str]:
    """Shards of images: too large to be read twice, so they are checked when they are decoded."""
    of_images = tuple(f"{name}/c/" for name in attributes.modalities)
    return frozenset(name for name in manifest if name.startswith(of_images))


def _check_files(
    files: StoreFiles, manifest: Mapping[str, Entry], *, but: frozenset[str]
) -> Iterator[str]:
    """Which files there are, their sizes, and checksums of all ``but`` some; the cards, too."""
    present = {name: size for name, size in files.sizes().items() if not name.endswith(".partial")}
    for name in sorted(set(present) - set(manifest) - {MANIFEST_NAME}):
        yield f"file {name} is not in the manifest"
    for name, entry in manifest.items():
        if name not in present:
            yield f"file {name} is missing"
        elif present[name] != entry.bytes or (
            name not in but and files.sha256(name, entry.bytes) != entry.sha256
        ):
            yield f"file {name} differs from its checksum"
    for name in files.damaged_cards():
        yield f"file {name} beside the store differs from its checksum"


def _check_arrays(group: Any, attributes: StoreAttributes) -> Iterator[str]:
    count = group["tile"].shape[0] if "tile" in group else 0
    if count == 0:
        yield "there is no sample"
    expected: dict[str, tuple[str, tuple[str, ...]]] = dict(INDEX_ARRAYS)
    for name, modality in attributes.modalities.items():
        expected[name] = "uint8", modality.dims
    for name, (dtype, dims) in expected.items():
        if name not in group:
            yield f"array {name} is missing"
            continue
        array = group[name]
        if str(array.dtype) != dtype or array.metadata.dimension_names != dims:
            yield f"array {name} is {array.dtype} {array.metadata.dimension_names}, not {dtype} {dims}"
        if array.shape[0] != count:
            yield f"array {name} has {array.shape[0]} samples, not {count}"
    for name, modality in attributes.modalities.items():
        shape = (len(modality.bands), modality.size_px, modality.size_px)
        if name in group and group[name].shape[1:] != shape:
            yield f"array {name} holds {group[name].shape[1:]} per sample, not {shape}"


def _check_index(group: Any, attributes: StoreAttributes) -> Iterator[str]:
    tile, split = group["tile"][:], group["split"][:]
    zoom, x, y = tile[:, 0], tile[:, 1].astype(np.int64), tile[:, 2].astype(np.int64)
    if np.any(zoom != attributes.base_zoom):
        yield f"a tile is not at the base zoom {attributes.base_zoom}"
        return
    if np.any(np.diff(tile_ids(attributes.base_zoom, x, y)) <= 0):
        yield "samples are not in Hilbert order, each tile once"
    if not np.allclose(group["gsd_m"][:], ground_gsd_m(attributes.base_zoom, y), rtol=1e-6):
        yield "gsd_m differs from the tiles' ground resolution"
    if np.any(split > max(SPLITS.values())):
        yield "a split code is unknown"
    leaks = num_leaking_neighbours(x, y, split)
    if leaks:
        yield f"{leaks} pairs of neighbouring tiles are in different splits"


def num_leaking_neighbours(
    x: NDArray[np.int64], y: NDArray[np.int64], split: NDArray[np.uint8]
) -> int:
    """Pairs of tiles that touch, corners included, and are in different splits, the guard aside."""
    used = split != SPLITS["guard"]
    tiles = zip(x[used].tolist(), y[used].tolist(), strict=True)
    codes = dict(zip(tiles, split[used].tolist(), strict=True))
    forward = [(1, 0), (0, 1), (1, 1), (1, -1)]
    return sum(
        codes.get((column + dx, row + dy), code) != code
        for (column, row), code in codes.items()
        for dx, dy in forward
    )


def _check_table(files: StoreFiles, group: Any, attributes: StoreAttributes) -> Iterator[str]:
    table, about = files.samples()
    if about.get("variant", {}).get("split_by") == "scenes":
        items = {s: table[f"{s}_items"].to_pylist() for s in attributes.sensors}
        for sensor, shared in leakage(group["split"][:], items).items():
            if shared["scenes_in_several_splits"]:
                yield f"{shared['scenes_in_several_splits']} {sensor} scenes are in several splits"
    tile = np.stack([table[name].to_numpy() for name in "zxy"], axis=1)
    if not np.array_equal(tile, group["tile"][:]):
        yield f"{SAMPLES_NAME} lists other tiles than the array tile"
    elif not np.array_equal(table["split"].to_numpy(), group["split"][:]):
        yield f"{SAMPLES_NAME} lists other splits than the array split"
    for column, sensor in enumerate(attributes.sensors):
        times = [
            UNKNOWN_TIME if time is None else int(time.timestamp())
            for time in table[f"{sensor}_acquired"].to_pylist()
        ]
        if times != group["acquired"][:, column].tolist():
            yield f"{SAMPLES_NAME} lists other {sensor} times than the array acquired"


def _check_images(
    files: StoreFiles,
    manifest: Mapping[str, Entry],
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
    left = set(_images(manifest, attributes))
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
