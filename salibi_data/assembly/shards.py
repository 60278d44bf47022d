"""Assemble a store shard by shard: images, statistics, index arrays, table, manifest.

All makers of stores use it: builds from parts, subsets and merges from other stores, imports from
archives. The work is done in a folder beside the store. After a kill at any moment, a second run finds
the finished shards and writes the others.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from salibi_data.assembly import writer
from salibi_data.assembly.executor import Executor, WorkerDied, check_main_module, open_executor
from salibi_data.assembly.workspace import BuildWorkspace, write_json
from salibi_data.store.errors import StoreError
from salibi_data.store.schema import MANIFEST_NAME, NODATA, SPLITS, StoreAttributes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.progress import Progress


class ShardSource(Protocol):
    """Source of the images of one shard; pickled and sent to the worker that writes the shard."""

    def read(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return the images by modality, shape (n, bands, size, size), in the order of the store."""


@dataclass(frozen=True, kw_only=True)
class StoreContents:
    """Content of a store except its statistics, which are computed from the images."""

    attributes: StoreAttributes
    """Attributes without statistics."""
    index: Mapping[str, NDArray[Any]]
    """Arrays of :data:`~salibi_data.store.schema.INDEX_ARRAYS`, a row per sample. ``valid_fraction`` may
    be missing; it is computed from the images then."""
    shard: Callable[[int], ShardSource]
    """Function from the number of a shard to the source of its images."""
    write_samples: Callable[[Path], None]
    """Function that writes the table of the samples to a path in the group with the index arrays."""
    digest: str
    """Hash that differs whenever a sample differs; shards with another digest are not used."""

    @property
    def num_shards(self) -> int:
        """Number of shards of each modality."""
        return -(-len(self.index["split"]) // writer.SAMPLES_PER_SHARD)

    def training_mask(self, number: int) -> NDArray[np.bool_]:
        """Return which samples of a shard are in the training split, shape (n,)."""
        start = number * writer.SAMPLES_PER_SHARD
        split = self.index["split"][start : start + writer.SAMPLES_PER_SHARD]
        return np.asarray(split == SPLITS["train"])


def make_store(
    store: str | Path,
    contents: StoreContents,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> bool:
    """Make the store at a path, or continue an interrupted run.

    Args:
        store: path of the Zarr group to make.
        contents: content of the store; the ``plan_digest`` of its attributes identifies it.
        workers: processes that read and write; the bytes do not depend on their number.
        progress: function called with (shards done, shards in all).

    Returns:
        Whether there was anything to do: False where exactly this store exists already.

    Raises:
        StoreError: something else is at the path, or another process is making the store.
    """
    store = Path(store)
    workspace = BuildWorkspace.of(store)
    check_main_module()
    store.parent.mkdir(parents=True, exist_ok=True)
    if _is_finished(store, contents):
        return False
    if workspace.plan.exists():
        raise StoreError(
            f"{workspace.folder} holds an unfinished build; nothing was changed. Finish it by "
            "running it again, choose another path, or remove the folder."
        )
    with workspace.lock(), open_executor(workers, None) as executor:
        if _is_finished(store, contents):  # another process may have finished it meanwhile
            workspace.remove(store)
            return False
        writer.replace_store(assemble(contents, workspace.folder, executor, progress), store)
        workspace.remove(store)
    return True


def assemble(
    contents: StoreContents, folder: Path, executor: Executor, progress: Progress | None = None
) -> Path:
    """Write a store in a temporary folder, except the shards that are already there.

    Args:
        contents: content of the store.
        folder: parent of the temporary folder.
        executor: runs the tasks that write shards.
        progress: function called with (shards done, shards in all).

    Returns:
        Path of the finished group, for :func:`salibi_data.assembly.writer.replace_store`.

    Raises:
        StoreError: the workers that tried to write a shard died.
    """
    temporary = folder / f"store-{contents.digest}"
    histogram, valid = _write_shards(
        contents, temporary, executor, progress or (lambda _done, _total: None)
    )
    modalities = {
        name: modality.with_statistics(*writer.statistics(histogram[name]))
        for name, modality in contents.attributes.modalities.items()
    }
    attributes = replace(contents.attributes, modalities=modalities)
    index = {"valid_fraction": _valid_by_sensor(valid, attributes), **contents.index}
    writer.finish_store(temporary / "zarr", attributes, index, contents.write_samples)
    return temporary / "zarr"


def _valid_by_sensor(
    valid: Mapping[str, NDArray[np.float64]], attributes: StoreAttributes
) -> NDArray[np.float64]:
    """Return the least valid fraction of each sensor's modalities, shape (N, sensors)."""
    columns = [
        np.min(
            [valid[m.name] for m in attributes.modalities.values() if m.sensor == sensor], axis=0
        )
        for sensor in attributes.sensors
    ]
    return np.stack(columns, axis=1)


def _write_shards(
    contents: StoreContents, folder: Path, executor: Executor, progress: Progress
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.float64]]]:
    """Write the missing shards.

    Returns:
        By modality: the histogram of all training pixels, shape (bands, 256), and each sample's
        share of pixels that are observed in every band, shape (N,).
    """
    counts, group = folder / "shards", folder / "zarr"
    if not (counts.is_dir() and (group / "zarr.json").is_file()):
        # ``counts`` is made last: without it, the arrays may be incomplete.
        shutil.rmtree(folder, ignore_errors=True)
        num_samples = len(contents.index["split"])
        writer.create_arrays(group, contents.attributes.modalities.values(), num_samples)
        counts.mkdir()
    paths = [counts / f"{number:06d}.json" for number in range(contents.num_shards)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    tasks = (
        (n, _write_shard, (folder, contents.shard(n), contents.training_mask(n), n))
        for n in missing
    )
    done = contents.num_shards - len(missing)
    progress(done, contents.num_shards)
    for number, result in executor.run(tasks):
        if isinstance(result, WorkerDied):
            raise StoreError(
                f"shard {number} could not be written: {result.reason}. Run the same command "
                "again, with fewer --workers if memory is short."
            )
        done += 1
        progress(done, contents.num_shards)
    return _sum_counts(paths, list(contents.attributes.modalities))


def _sum_counts(
    paths: Sequence[Path], names: Sequence[str]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.float64]]]:
    """Add up the histograms of all shards, and join their valid fractions."""
    histogram = {name: np.zeros((), np.int64) for name in names}
    valid: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for path in paths:
        counts = json.loads(path.read_text())
        for name in names:
            histogram[name] = histogram[name] + np.array(counts["histogram"][name], np.int64)
            valid[name].append(np.array(counts["valid_fraction"][name], np.float64))
    return histogram, {name: np.concatenate(shares) for name, shares in valid.items()}


def _write_shard(
    folder: Path, source: ShardSource, training: NDArray[np.bool_], number: int
) -> None:
    images = source.read()
    counts = {
        "histogram": writer.write_shard(folder / "zarr", number, images, training),
        "valid_fraction": {
            name: (pixels != NODATA).all(axis=1).mean(axis=(1, 2)).tolist()
            for name, pixels in images.items()
        },
    }
    # The counts are written after the shard: their file marks it as complete.
    write_json(folder / "shards" / f"{number:06d}.json", counts)


def _is_finished(store: Path, contents: StoreContents) -> bool:
    """Return whether the store is finished.

    Raises:
        StoreError: something else is at its path.
    """
    if not store.exists():
        return False
    try:
        group = json.loads((store / "zarr.json").read_text())
        digest = StoreAttributes.from_dict(group["attributes"], where=str(store)).plan_digest
    except (OSError, ValueError, KeyError, TypeError):
        digest = ""
    if digest != contents.attributes.plan_digest or not (store / MANIFEST_NAME).is_file():
        raise StoreError(
            f"{store} exists and holds something else; nothing was changed. Choose another path, "
            "or remove it."
        )
    return True
