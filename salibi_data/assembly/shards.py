"""From images in any place to a finished store: shards, statistics, index, table, manifest.

Used by whatever makes a store: a build from its parts, a subset or a merge from other stores, an
import from archives. All work is done in a folder beside the store, shard by shard; whenever it is
killed, doing it again finds the shards that are whole and makes the rest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from salibi_data.assembly import writer as write
from salibi_data.assembly.executor import Crew, Lost, check_main_module, crew
from salibi_data.assembly.workspace import Workshop, write_note
from salibi_data.store.errors import StoreError
from salibi_data.store.schema import MANIFEST_NAME, NODATA, SPLITS, StoreAttributes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.progress import Progress


class ShardSource(Protocol):
    """Where the images of one shard come from; it is pickled and sent to whoever writes them."""

    def read(self) -> Mapping[str, NDArray[np.uint8]]:
        """Per modality (n, bands, size, size), in the order of the store."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a store will hold but its statistics, which follow from the images."""

    attributes: StoreAttributes
    index: Mapping[str, NDArray[Any]]
    """Arrays of :data:`~salibi_data.store.schema.INDEX_ARRAYS`, a row per sample. ``valid_fraction`` may
    be left out: it is counted from the images then."""
    shard: Callable[[int], ShardSource]
    """Of each shard, by number: where its images come from."""
    write_samples: Callable[[Path], None]
    """Writes the table of the samples to the path it is given, in the group with its index arrays."""
    digest: str
    """Another one whenever any sample is: shards made for another digest are not used."""

    @property
    def num_shards(self) -> int:
        """Shards of every modality."""
        return -(-len(self.index["split"]) // write.SAMPLES_PER_SHARD)

    def training(self, number: int) -> NDArray[np.bool_]:
        """Which samples of a shard are in the training split, (n,)."""
        start = number * write.SAMPLES_PER_SHARD
        split = self.index["split"][start : start + write.SAMPLES_PER_SHARD]
        return np.asarray(split == SPLITS["train"])


def make_store(
    store: str | Path, contents: Contents, *, workers: int = 1, progress: Progress | None = None
) -> bool:
    """Make the store at a path, or go on with one that was stopped.

    Args:
        store: path of the Zarr group to make.
        contents: what it shall hold; its attributes' ``plan_digest`` tells it from other stores.
        workers: processes that read and write; the bytes do not depend on their number.
        progress: called as shards are done.

    Returns:
        Whether there was anything to do: False where this very store is there already.

    Raises:
        StoreError: something else is at the path, or another process is at work on it.
    """
    store = Path(store)
    workshop = Workshop.of(store)
    check_main_module()
    store.parent.mkdir(parents=True, exist_ok=True)
    if _is_there(store, contents):
        return False
    if workshop.plan.exists():
        raise StoreError(
            f"{workshop.folder} holds an unfinished build; nothing was changed. Finish it by "
            "running it again, choose another path, or remove the folder."
        )
    with workshop.locked(), crew(workers, None) as team:
        if _is_there(store, contents):  # another process may have ended meanwhile
            workshop.clear(store)
            return False
        write.swap_in(assemble(contents, workshop.folder, team, progress), store)
        workshop.clear(store)
    return True


def assemble(
    contents: Contents, folder: Path, team: Crew, progress: Progress | None = None
) -> Path:
    """Write all of a store below ``folder``, as far as it is not there already.

    Returns:
        Path of the finished group, to be put in its place by :func:`write.swap_in`.

    Raises:
        StoreError: the workers that tried to write a shard died.
    """
    place = folder / f"store-{contents.digest}"
    histogram, valid = _write_shards(
        contents, place, team, progress or (lambda _done, _total: None)
    )
    modalities = {
        name: modality.with_statistics(*write.statistics(histogram[name]))
        for name, modality in contents.attributes.modalities.items()
    }
    attributes = replace(contents.attributes, modalities=modalities)
    index = {"valid_fraction": _least_by_sensor(valid, attributes), **contents.index}
    write.finish(place / "zarr", attributes, index, contents.write_samples)
    return place / "zarr"


def _least_by_sensor(
    valid: Mapping[str, NDArray[np.float64]], attributes: StoreAttributes
) -> NDArray[np.float64]:
    """The least of what each sensor's modalities have, (N, S)."""
    columns = [
        np.min(
            [valid[m.name] for m in attributes.modalities.values() if m.sensor == sensor], axis=0
        )
        for sensor in attributes.sensors
    ]
    return np.stack(columns, axis=1)


def _write_shards(
    contents: Contents, place: Path, team: Crew, report: Progress
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.float64]]]:
    """Write the shards that are not written yet.

    Returns:
        Per modality the valid training pixels of all shards by value, (bands, 256); and of each
        sample the share of pixels that are observed in every band, (N,).
    """
    notes, group = place / "shards", place / "zarr"
    if not (notes.is_dir() and (group / "zarr.json").is_file()):
        shutil.rmtree(place, ignore_errors=True)
        num_samples = len(contents.index["split"])
        write.create_arrays(group, contents.attributes.modalities.values(), num_samples)
        notes.mkdir()
    paths = [notes / f"{number:06d}.json" for number in range(contents.num_shards)]
    waiting = [number for number, path in enumerate(paths) if not path.exists()]
    tasks = (
        (n, _write_shard, (place, contents.shard(n), contents.training(n), n)) for n in waiting
    )
    done = contents.num_shards - len(waiting)
    report(done, contents.num_shards)
    for number, result in team.run(tasks):
        if isinstance(result, Lost):
            raise StoreError(
                f"shard {number} could not be written: {result.reason}. Run the same command "
                "again, with fewer --workers if memory is short."
            )
        done += 1
        report(done, contents.num_shards)
    return _counted(paths, list(contents.attributes.modalities))


def _counted(
    notes: Sequence[Path], names: Sequence[str]
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.float64]]]:
    """Sums and rows of what all shards' notes say, note by note."""
    histogram = {name: np.zeros((), np.int64) for name in names}
    valid: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for note in notes:
        said = json.loads(note.read_text())
        for name in names:
            histogram[name] = histogram[name] + np.array(said["histogram"][name], np.int64)
            valid[name].append(np.array(said["valid_fraction"][name], np.float64))
    return histogram, {name: np.concatenate(shares) for name, shares in valid.items()}


def _write_shard(
    place: Path, source: ShardSource, training: NDArray[np.bool_], number: int
) -> None:
    images = source.read()
    counted = {
        "histogram": write.write_shard(place / "zarr", number, images, training),
        "valid_fraction": {
            name: (pixels != NODATA).all(axis=1).mean(axis=(1, 2)).tolist()
            for name, pixels in images.items()
        },
    }
    write_note(place / "shards" / f"{number:06d}.json", counted)


def _is_there(store: Path, contents: Contents) -> bool:
    """Whether the store is finished; an error if something else is at its path."""
    if not store.exists():
        return False
    wanted = contents.attributes.plan_digest
    try:
        group = json.loads((store / "zarr.json").read_text())
        found = StoreAttributes.from_dict(group["attributes"], where=str(store)).plan_digest
    except (OSError, ValueError, KeyError, TypeError):
        found = ""
    if found != wanted or not (store / MANIFEST_NAME).is_file():
        raise StoreError(
            f"{store} exists and holds something else; nothing was changed. Choose another path, "
            "or remove it."
        )
    return True
