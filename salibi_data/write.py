"""The store: whole shards in Hilbert order, then the index arrays, the table, and the manifest.

A shard is a run of samples, the same run for every modality, written once by one worker. The
manifest with every file's checksum comes last: a folder without it is not a finished store.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data import __version__
from salibi_data.parts import read_part
from salibi_data.schema import (
    ATTRIBUTES_KEY,
    INDEX_ARRAYS,
    MANIFEST_NAME,
    NODATA,
    SAMPLES_NAME,
    SPLITS,
    StoreAttributes,
)
from salibi_data.table import acquired_columns, rows_of, write_samples
from salibi_data.whole import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.blocks import Samples
    from salibi_data.plans import Plan
    from salibi_data.variant import Variant

SAMPLES_PER_SHARD: Final = 64
"""About 50 MB of high resolution pixels before compression."""

ZSTD_LEVEL: Final = 3
_HASH_BLOCK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Row:
    """Where one sample of the store comes from."""

    position: int
    """In the plan."""
    part: str
    """File name of its block's part."""
    index: int
    """Row within the part."""
    split: int
    valid_fraction: tuple[float, ...]
    cloud_fraction: float
    alignment: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The samples of a store, in order."""

    rows: tuple[Row, ...]

    @property
    def num_shards(self) -> int:
        """Shards of every modality."""
        return -(-len(self.rows) // SAMPLES_PER_SHARD)

    def shard(self, number: int) -> tuple[Row, ...]:
        """The rows of one shard."""
        return self.rows[number * SAMPLES_PER_SHARD : (number + 1) * SAMPLES_PER_SHARD]

    @property
    def digest(self) -> str:
        """Changes whenever any sample does."""
        content = [[row.position, row.part, row.index] for row in self.rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def layout_of(parts: Iterable[tuple[int, str, Samples]], split: NDArray[np.uint8]) -> Layout:
    """The store's rows: every sample of every part, in the plan's order.

    Args:
        parts: of each block its start in the plan, its part's file name, and its index.
        split: code of every planned sample.
    """
    rows = [
        Row(
            position=start + position,
            part=name,
            index=index,
            split=int(split[start + position]),
            valid_fraction=tuple(samples.valid_fraction[index].tolist()),
            cloud_fraction=float(samples.cloud_fraction[index]),
            alignment={key: float(found[index]) for key, found in samples.alignment.items()},
        )
        for start, name, samples in parts
        for index, position in enumerate(samples.positions)
    ]
    return Layout(rows=tuple(sorted(rows, key=lambda row: row.position)))


def create_arrays(folder: Path, plan: Plan, num_samples: int) -> None:
    """Make the group and its empty image arrays."""
    import zarr

    group = zarr.create_group(folder, zarr_format=3, overwrite=True)
    for recipe in plan.variant.modalities:
        modality = plan.variant.modality(recipe, plan.catalog)
        shape = (len(recipe.bands), recipe.tile_px, recipe.tile_px)
        array = group.create_array(
            recipe.name,
            shape=(num_samples, *shape),
            chunks=(1, *shape),
            shards=(SAMPLES_PER_SHARD, *shape),
            dtype="uint8",
            compressors=_codecs(),
            fill_value=NODATA,
            dimension_names=modality.dims,
        )
        array.attrs.update({"bands": list(recipe.bands), "units": recipe.units})


def write_shard(
    folder: Path, parts_folder: Path, variant: Variant, rows: Sequence[Row], number: int
) -> dict[str, list[list[int]]]:
    """Write one shard of every modality.

    Args:
        folder: the group.
        parts_folder: where the parts are.
        variant: says what modalities there are.
        rows: the shard's rows, from :meth:`Layout.shard`.
        number: of the shard.

    Returns:
        Per modality a histogram of the valid training pixels: (bands, 256) counts, integers so
        that the statistics do not depend on the order in which shards are done.
    """
    import zarr

    parts = {name: read_part(parts_folder / name, variant) for name in {r.part for r in rows}}
    training = np.array([row.split == SPLITS["train"] for row in rows])
    group = zarr.open_group(folder, mode="r+")
    start = number * SAMPLES_PER_SHARD
    histograms = {}
    # An all-zero chunk is written like any other: "no data" is not "never written".
    with zarr.config.set({"array.write_empty_chunks": True}):
        for recipe in variant.modalities:
            images = np.stack([parts[row.part].images[recipe.name][row.index] for row in rows])
            # Zarr renames a whole file into place, so a killed worker leaves no half of a shard.
            array: Any = group[recipe.name]
            array[start : start + len(rows)] = images
            histograms[recipe.name] = _histogram(images[training])
    return histograms


def finish(
    folder: Path, plan: Plan, layout: Layout, histograms: Mapping[str, NDArray[np.int64]]
) -> None:
    """Write what describes the samples, and the manifest last; may be begun again at any point."""
    import zarr
    from zarr.errors import ZarrUserWarning

    _forget_earlier_finish(folder)
    _write_index_arrays(folder, plan, layout)
    attributes = _attributes(plan, histograms)
    zarr.open_group(folder, mode="r+").attrs.update({ATTRIBUTES_KEY: attributes.to_dict()})
    with warnings.catch_warnings():
        # One request opens the store, and no reader lists the folder to find the two files that
        # are not Zarr's. That Zarr v3 has not standardised this yet is known and harmless.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(folder)
    write_samples(folder / SAMPLES_NAME, plan, layout)
    write_manifest(folder)


def _forget_earlier_finish(folder: Path) -> None:
    """Take back what a finish that was stopped may have written; the images stay."""
    for left_over in (folder / MANIFEST_NAME, folder / SAMPLES_NAME, *folder.rglob("*.partial")):
        left_over.unlink(missing_ok=True)
    for name in INDEX_ARRAYS:
        shutil.rmtree(folder / name, ignore_errors=True)
    metadata = folder / "zarr.json"
    group = json.loads(metadata.read_text())
    group.pop("consolidated_metadata", None)
    with whole(metadata) as partial:
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
        if path.is_file() and path != folder / MANIFEST_NAME and path.suffix != ".partial"
    }
    with whole(folder / MANIFEST_NAME) as partial:
        partial.write_text(json.dumps({"files": files}, indent=1, sort_keys=True) + "\n")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


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


def _attributes(plan: Plan, histograms: Mapping[str, NDArray[np.int64]]) -> StoreAttributes:
    modalities = {
        recipe.name: plan.variant.modality(recipe, plan.catalog).with_statistics(
            *statistics(histograms[recipe.name])
        )
        for recipe in plan.variant.modalities
    }
    return StoreAttributes(
        variant=plan.variant.name,
        catalog=plan.catalog.name,
        base_zoom=plan.variant.base_zoom,
        sensors=plan.variant.sensors,
        modalities=modalities,
        plan_digest=plan.digest,
        software_version=__version__,
    )


def _write_index_arrays(folder: Path, plan: Plan, layout: Layout) -> None:
    import zarr

    table = rows_of(plan, layout, ["z", "x", "y", "gsd_m", *acquired_columns(plan)])
    values: dict[str, Any] = {
        "tile": np.stack([table[name].to_numpy() for name in "zxy"], axis=1),
        "gsd_m": table["gsd_m"].to_numpy(),
        "acquired": np.stack(
            [table[name].to_numpy().astype("datetime64[s]") for name in acquired_columns(plan)],
            axis=1,
        ).astype(np.int64),
        "valid_fraction": [row.valid_fraction for row in layout.rows],
        "cloud_fraction": [row.cloud_fraction for row in layout.rows],
        "split": [row.split for row in layout.rows],
    }
    group = zarr.open_group(folder, mode="r+")
    for name, (dtype, dims) in INDEX_ARRAYS.items():
        array = np.asarray(values[name], dtype=dtype)
        group.create_array(
            name,
            data=array,
            chunks=array.shape,
            compressors=_codecs(),
            dimension_names=dims,
        )
