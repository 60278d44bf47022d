"""Finished stores as sources of other stores: opened once, then read run by run.

They lie on this machine or in a bucket. A store at a path may be replaced by another one at any
moment. Whatever is read here is therefore held to the manifest that the store had when it was
opened, before anything is made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.assembly.writer import check_sizes
from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError
from salibi_data.store.open import StoreFiles
from salibi_data.store.schema import INDEX_ARRAYS, SAMPLES_NAME, StoreAttributes
from salibi_data.store.storage import is_url, parallel_map, translate_errors
from salibi_data.store.tiles import tile_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray


CONNECTIONS: Final = 8
"""Runs of samples of a store in a bucket that are fetched at a time."""


@dataclass(frozen=True, kw_only=True)
class SourceStore:
    """A finished store, without its images."""

    files: StoreFiles
    manifest_sha256: str
    """Of its manifest, which has the checksum of every file: equal ones are equal stores."""
    attributes: StoreAttributes
    index: Mapping[str, NDArray[Any]]
    """Arrays of :data:`~salibi_data.store.schema.INDEX_ARRAYS`."""
    about: Mapping[str, Any]
    """What its table says of the variant, the catalog, the scenes, and where it came from."""
    table_file: Path | IO[bytes]
    """The table's path, or its content where it does not lie on this machine."""

    @classmethod
    def open(cls, location: str | Path) -> SourceStore:
        """Open the store at a path or URL, or the newest release of the dataset there.

        Raises:
            StoreError: no finished store is there, it cannot be reached, a file of it is missing,
                or it is being replaced at this moment.
            StoreError: its attributes are damaged or of a newer schema.
        """
        files = StoreFiles.at(location if is_url(location) else Path(location).resolve())
        group, attributes = files.open()
        found = _manifest_sha256(files)
        if files.folder is not None:
            check_sizes(files.folder)
        with translate_errors(files.where, "read"):
            index = {name: group[name][:] for name in INDEX_ARRAYS}
        table_file = files.samples_file()
        with geoparquet.open_table(table_file, where=_table_of(files)) as (file, about):
            num_rows = file.metadata.num_rows
        stored = cls(
            files=files,
            manifest_sha256=found,
            attributes=attributes,
            index=index,
            about=about,
            table_file=table_file,
        )
        if {len(array) for array in index.values()} != {num_rows}:
            raise StoreError(
                f"{files.where} has arrays and a table of different lengths; see `salibi-data verify`."
            )
        stored.check_unchanged()
        return stored

    @property
    def where(self) -> str:
        """The path or URL, for messages; never written to what is made from it."""
        return self.files.where

    def __len__(self) -> int:
        return len(self.index["split"])

    @property
    def tile_ids(self) -> NDArray[np.int64]:
        """PMTiles id of each sample, ascending, (N,)."""
        tile = self.index["tile"]
        return tile_ids(self.attributes.base_zoom, tile[:, 1], tile[:, 2])

    def columns_of(self, sensors: Sequence[str]) -> list[int]:
        """Columns of ``acquired`` and ``valid_fraction`` that belong to some sensors."""
        return [self.attributes.sensors.index(sensor) for sensor in sensors]

    def columns_beyond(self, attributes: StoreAttributes) -> list[str]:
        """Columns of the table on sensors and modalities that a store with these lacks."""
        sensors = set(self.attributes.sensors) - set(attributes.sensors)
        modalities = set(self.attributes.modalities) - set(attributes.modalities)
        starts = tuple(f"{sensor}_" for sensor in sensors)
        kept = tuple(f"{sensor}_" for sensor in attributes.sensors)
        ends = tuple(f"_days_after_{sensor}" for sensor in sensors)
        enlargements = {f"{modality}_enlargement" for modality in modalities}
        return [
            name
            for name in self.table_schema().names
            if (name.startswith(starts) and not name.startswith(kept))
            or name.endswith(ends)
            or name in enlargements
        ]

    def check_unchanged(self) -> None:
        """Whether the store is still the one that was opened.

        Raises:
            StoreError: it is not.
        """
        _check_unchanged(self.files, self.manifest_sha256)

    def table(self, columns: list[str]) -> Any:
        """Some columns of the table, a row per sample; only those that there are."""
        return geoparquet.read(self.table_file, columns, where=_table_of(self.files))[0]

    def table_schema(self) -> Any:
        """Names and types of the table's columns (pyarrow)."""
        with geoparquet.open_table(self.table_file, where=_table_of(self.files)) as (file, _):
            return file.schema_arrow.remove_metadata()

    def rows(self) -> RowReader:
        """A reader of the table that goes through it once."""
        return RowReader(self.table_file, where=_table_of(self.files))


class RowReader:
    """Rows of a store's table in ascending order; one row group is in memory at a time."""

    def __init__(self, source: Path | IO[bytes], *, where: str) -> None:
        self._source, self._where = source, where
        with geoparquet.open_table(source, where=where) as (file, _):
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._held: tuple[int, Any] = (-1, None)

    def take(self, rows: NDArray[np.int64]) -> Any:
        """The rows at some ascending positions, at least one, as a pyarrow table."""
        import pyarrow as pa

        group_of = np.searchsorted(self._starts, rows, side="right") - 1
        return pa.concat_tables(
            self._group(number).take(rows[group_of == number] - self._starts[number])
            for number in np.unique(group_of).tolist()
        )

    def _group(self, number: int) -> Any:
        if self._held[0] != number:
            with geoparquet.open_table(self._source, where=self._where) as (file, _):
                self._held = (number, file.read_row_group(number))
        return self._held[1]


@dataclass(frozen=True, kw_only=True)
class ShardSlice:
    """Samples of one store, and where they go in a shard."""

    files: StoreFiles
    manifest_sha256: str
    rows: NDArray[np.int64]
    """Positions in the store, ascending."""
    places: NDArray[np.int64]
    """Position of each in the shard."""

    def runs(self) -> Iterator[slice]:
        """Rows that follow each other, a slice per run."""
        edges = [0, *(np.flatnonzero(np.diff(self.rows) != 1) + 1).tolist(), len(self.rows)]
        for start, stop in pairwise(edges):
            yield slice(int(self.rows[start]), int(self.rows[stop - 1]) + 1)


@dataclass(frozen=True, kw_only=True)
class SourceShard:
    """The images of one shard, out of stores that are finished."""

    pieces: tuple[ShardSlice, ...]
    """Their places together are 0..n-1, each once."""
    modalities: tuple[str, ...]
    connections: int
    """Runs of a store in a bucket that are fetched at a time."""

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """Per modality (n, bands, size, size).

        Raises:
            StoreError: a store is damaged, lacks a shard, was replaced while it was read, or can
                no longer be reached.
        """
        count = sum(len(piece.rows) for piece in self.pieces)
        images: dict[str, NDArray[np.uint8]] = {}
        for piece in self.pieces:
            for name, found in _images(piece, self.modalities, self.connections).items():
                if name not in images:
                    images[name] = np.empty((count, *found.shape[1:]), np.uint8)
                images[name][piece.places] = found
        return images


def _images(
    piece: ShardSlice, modalities: tuple[str, ...], connections: int
) -> dict[str, NDArray[np.uint8]]:
    """The images of one store's samples, in the order of their rows."""
    files = piece.files
    try:
        with translate_errors(files.where, "read", advice="Run the same command again."):
            images = _read(piece, modalities, connections if files.folder is None else 1)
    except StoreError:
        _check_unchanged(files, piece.manifest_sha256)
        raise
    # Each codec, and each kind of storage, raises errors of its own.
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        _check_unchanged(files, piece.manifest_sha256)
        raise StoreError(
            f"{files.where} cannot be read: {error}. `salibi-data verify` tells what is damaged; "
            "build, pull or publish it again."
        ) from error
    _check_unchanged(files, piece.manifest_sha256)
    return images


def _read(
    piece: ShardSlice, modalities: tuple[str, ...], connections: int
) -> dict[str, NDArray[np.uint8]]:
    from salibi_data.store.zarr_storage import ShardStorage

    files = piece.files
    group = files.group(ShardStorage(files.zarr_storage(), files.where))

    # Slices only: an index array makes zarr decode whole shards to pick samples from them.
    def read(run: tuple[str, slice]) -> NDArray[np.uint8]:
        name, rows = run
        return np.asarray(group[name][rows])

    runs = [(name, rows) for name in modalities for rows in piece.runs()]
    found = list(parallel_map(read, runs, workers=connections))
    return {
        name: np.concatenate(
            [images for (of, _), images in zip(runs, found, strict=True) if of == name]
        )
        for name in modalities
    }


def _check_unchanged(files: StoreFiles, manifest_sha256: str) -> None:
    """Whether a store still has the manifest it was opened with.

    Raises:
        StoreError: it has another one, or none, or cannot be reached.
    """
    if files.folder is not None and not files.folder.is_dir():
        found = ""
    else:
        found = _manifest_sha256(files)
    if found != manifest_sha256:
        raise StoreError(
            f"{files.where} was replaced while it was read. Run the same command again."
        )


def _manifest_sha256(files: StoreFiles) -> str:
    return hashlib.sha256(files.manifest_content()).hexdigest()


def _table_of(files: StoreFiles) -> str:
    return f"{SAMPLES_NAME} of {files.where}"
