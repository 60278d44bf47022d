"""Pulling a part of what was published: samples that match, a choice of modalities, as a store.

Only the index, the table, and the images that are wanted are fetched. The part is put together as
any store is (:mod:`salibi_data.assembling`): run again, it goes on shard by shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data import __version__, geoparquet
from salibi_data.assembling import Contents, make_store
from salibi_data.buckets import explained, place
from salibi_data.errors import StoreError
from salibi_data.schema import INDEX_ARRAYS
from salibi_data.store_files import StoreFiles
from salibi_data.uploads import together
from salibi_data.write import SAMPLES_PER_SHARD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.schema import Release, StoreAttributes
    from salibi_data.selection import Selection

_PER_SENSOR: Final = ("acquired", "valid_fraction")


@dataclass(frozen=True, kw_only=True)
class PulledPart:
    """What pulling a part did."""

    store: Path
    num_samples: int
    num_there: int
    """Samples of the release that it is a part of."""
    was_complete: bool
    """Whether it was there already."""


@dataclass(frozen=True, kw_only=True)
class RemoteShard:
    """The images of one shard, out of a store that lies elsewhere."""

    where: str
    release: Release | None
    rows: NDArray[np.int64]
    """Positions in that store, ascending."""
    modalities: tuple[str, ...]
    at_once: int
    """Runs of samples that are read at a time."""

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """Per modality (n, bands, size, size).

        Raises:
            StoreError: a shard is missing or damaged, or cannot be read.
        """
        files = StoreFiles(where=self.where, storage=place(self.where), release=self.release)
        group = files.group()
        edges = [0, *(np.flatnonzero(np.diff(self.rows) != 1) + 1).tolist(), len(self.rows)]
        # Slices only: an index array makes zarr decode whole shards to pick samples from them.
        runs = [
            (name, slice(int(self.rows[start]), int(self.rows[stop - 1]) + 1))
            for name in self.modalities
            for start, stop in pairwise(edges)
        ]
        _check_shards_are_there(files, group, runs)
        read = list(together(partial(_read_run, files, group), runs, workers=self.at_once))
        return {
            name: np.concatenate(
                [images for (of, _), images in zip(runs, read, strict=True) if of == name]
            )
            for name in self.modalities
        }


def pull_part(
    url: str | Path,
    store: str | Path,
    selection: Selection,
    *,
    workers: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> PulledPart:
    """Fetch the samples that match of the newest release of a dataset; run again, it goes on.

    Splits stay as they are; statistics are those of the part's own training pixels.

    Args:
        url: address of a published dataset, or of a store.
        store: path of the store to be.
        selection: what to fetch.
        workers: runs of samples that are fetched at a time.
        progress: called with (shards done, shards in all).

    Raises:
        SelectionError: no sample matches.
        UsageError: the store lacks what is asked for.
        StoreError: nothing is at ``url``, it cannot be reached, or is damaged; something else is
            at ``store``.
    """
    files = StoreFiles.at(url)
    group, attributes = files.open()
    with explained(files.where, "read"):
        index = {name: group[name][:] for name in INDEX_ARRAYS}
    table, about = files.samples()
    rows = selection.rows(attributes, index, table)
    part = _Part(
        files=files,
        rows=rows,
        attributes=attributes,
        narrowed=selection.narrowed(attributes),
        asked={
            "how": "pull",
            "manifest_sha256": hashlib.sha256(files.manifest_content()).hexdigest(),
            "selection": selection.to_dict(),
        },
    )
    contents = part.contents(index, table, about, at_once=workers)
    new = make_store(store, contents, progress=progress)
    return PulledPart(
        store=Path(store),
        num_samples=len(rows),
        num_there=len(index["split"]),
        was_complete=not new,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some samples of a store that lies elsewhere."""

    files: StoreFiles
    rows: NDArray[np.int64]
    attributes: StoreAttributes
    """Of the store."""
    narrowed: StoreAttributes
    """With the modalities and sensors of the part alone."""
    asked: Mapping[str, Any]

    def contents(
        self, index: Mapping[str, NDArray[Any]], table: Any, about: dict[str, Any], *, at_once: int
    ) -> Contents:
        """What to put together."""
        digest = hashlib.sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()
        columns = [self.attributes.sensors.index(sensor) for sensor in self.narrowed.sensors]
        arrays = {name: array[self.rows] for name, array in index.items()}
        arrays |= {name: arrays[name][:, columns] for name in _PER_SENSOR}
        return Contents(
            attributes=replace(
                self.narrowed,
                modalities={
                    name: modality.with_statistics((), ())
                    for name, modality in self.narrowed.modalities.items()
                },
                plan_digest=digest,
                software_version=__version__,
            ),
            index=arrays,
            shard=lambda number: self._shard(number, at_once),
            write_samples=lambda path: self._write_samples(path, table, about, digest),
            digest=hashlib.sha256(f"{digest} {__version__}".encode()).hexdigest()[:24],
        )

    def _shard(self, number: int, at_once: int) -> RemoteShard:
        start = number * SAMPLES_PER_SHARD
        return RemoteShard(
            where=self.files.where,
            release=self.files.release,
            rows=self.rows[start : start + SAMPLES_PER_SHARD],
            modalities=tuple(self.narrowed.modalities),
            at_once=at_once,
        )

    def _write_samples(self, path: Path, table: Any, about: dict[str, Any], digest: str) -> None:
        from shapely import from_wkb

        taken = table.take(self.rows)
        columns = {name: taken[name] for name in taken.column_names if self._keeps(name)}
        outlines = from_wkb(columns.pop("geometry").to_numpy(zero_copy_only=False))
        said = {**about, **self._about(about), "plan_digest": digest, "made_from": self.asked}
        with geoparquet.writing(path, lambda: said) as add_rows:
            add_rows(columns, outlines)

    def _about(self, about: dict[str, Any]) -> dict[str, Any]:
        """What the table says of the variant and the scenes, of the part's modalities alone."""
        said: dict[str, Any] = {}
        if "variant" in about:
            rows = about["variant"]["modality"]
            kept = [row for row in rows if row["name"] in self.narrowed.modalities]
            said["variant"] = {**about["variant"], "modality": kept}
        if "scenes" in about:
            said["scenes"] = {
                sensor: scenes
                for sensor, scenes in about["scenes"].items()
                if sensor in self.narrowed.sensors
            }
        return said

    def _keeps(self, column: str) -> bool:
        """Whether a column is about what the part has."""
        gone = set(self.attributes.sensors) - set(self.narrowed.sensors)
        without = set(self.attributes.modalities) - set(self.narrowed.modalities)
        starts = tuple(f"{sensor}_" for sensor in gone)
        ends = tuple(f"_days_after_{sensor}" for sensor in gone)
        enlargements = {f"{name}_enlargement" for name in without}
        return not (column.startswith(starts) or column.endswith(ends) or column in enlargements)


def _check_shards_are_there(files: StoreFiles, group: Any, runs: list[tuple[str, slice]]) -> None:
    """Zarr takes a shard that is missing for one of nodata."""
    import obstore

    for name in sorted({_file(group, name, row) for name, run in runs for row in _span(run)}):
        with explained(f"{name} of {files.where}", "read"):
            obstore.head(files.storage, files.key(name))


def _span(run: slice) -> range:
    return range(run.start, run.stop)


def _file(group: Any, name: str, row: int) -> str:
    return f"{name}/c/{row // group[name].shards[0]}/0/0/0"


def _read_run(files: StoreFiles, group: Any, run: tuple[str, slice]) -> NDArray[np.uint8]:
    name, rows = run
    with explained(f"{name} of {files.where}", "read", then="Run the same command again."):
        try:
            return np.asarray(group[name][rows])
        except (ValueError, RuntimeError, LookupError) as error:
            # Each codec raises errors of its own; all chunks have checksums.
            raise StoreError(
                f"array {name} of {files.where} is damaged; `salibi-data verify` tells more. "
                "It has to be published again."
            ) from error
