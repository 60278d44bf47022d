"""Read finished stores as sources of other stores: their index, table, and runs of images.

The stores are on this machine or in a bucket. A store may be replaced by another one at any moment, so
after each read the manifest must equal the one at opening before anything that was read is used.
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
"""Runs of samples of a remote store that are fetched in parallel."""


@dataclass(frozen=True, kw_only=True)
class SourceStore:
    """A finished store, without its images."""

    files: StoreFiles
    """Access to the files."""
    manifest_sha256: str
    """SHA-256 of the manifest, which identifies the store: it contains every file's checksum."""
    attributes: StoreAttributes
    """Attributes of the store."""
    index: Mapping[str, NDArray[Any]]
    """Arrays of :data:`~salibi_data.store.schema.INDEX_ARRAYS` by name."""
    metadata: Mapping[str, Any]
    """Metadata of the table: the variant, the catalog, the scenes and the provenance."""
    table_file: Path | IO[bytes]
    """Path of the table, or its content where it is not on this machine."""

    @classmethod
    def open(cls, location: str | Path) -> SourceStore:
        """Open the store at a path or URL, or the newest release of the dataset there.

        Raises:
            StoreError: no finished store is there, it cannot be reached, a file is missing, it is
                being replaced at this moment, or its attributes are damaged or of a newer schema.
        """
        files = StoreFiles.at(location if is_url(location) else Path(location).resolve())
        group, attributes = files.open()
        # Before all other reads; `check_unchanged` at the end shows whether they are of one store.
        manifest_sha256 = _manifest_sha256(files)
        if files.folder is not None:
            check_sizes(files.folder)
        with translate_errors(files.where, "read"):
            index = {name: group[name][:] for name in INDEX_ARRAYS}
        table_file = files.samples_file()
        with geoparquet.open_table(table_file, where=_table_name(files)) as (file, metadata):
            num_rows = file.metadata.num_rows
        stored = cls(
            files=files,
            manifest_sha256=manifest_sha256,
            attributes=attributes,
            index=index,
            metadata=metadata,
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
        """Path or URL, for messages; never written to a store that is made from it."""
        return self.files.where

    def __len__(self) -> int:
        return len(self.index["split"])

    @property
    def tile_ids(self) -> NDArray[np.int64]:
        """PMTiles id of each sample, ascending, shape (N,)."""
        tile = self.index["tile"]
        return tile_ids(self.attributes.base_zoom, tile[:, 1], tile[:, 2])

    def columns_of(self, sensors: Sequence[str]) -> list[int]:
        """Return the columns of ``acquired`` and ``valid_fraction`` for some sensors."""
        return [self.attributes.sensors.index(sensor) for sensor in sensors]

    def columns_beyond(self, attributes: StoreAttributes) -> list[str]:
        """Return the table's columns on sensors and modalities that other attributes lack."""
        sensors = set(self.attributes.sensors) - set(attributes.sensors)
        modalities = set(self.attributes.modalities) - set(attributes.modalities)
        starts = tuple(f"{sensor}_" for sensor in sensors)
        used_starts = tuple(f"{sensor}_" for sensor in attributes.sensors)
        ends = tuple(f"_days_after_{sensor}" for sensor in sensors)
        enlargements = {f"{modality}_enlargement" for modality in modalities}
        return [
            name
            for name in self.table_schema().names
            if (name.startswith(starts) and not name.startswith(used_starts))
            or name.endswith(ends)
            or name in enlargements
        ]

    def check_unchanged(self) -> None:
        """Check that the store is still the one that was opened.

        Raises:
            StoreError: it was replaced or cannot be reached.
        """
        _check_unchanged(self.files, self.manifest_sha256)

    def table(self, columns: list[str]) -> Any:
        """Return columns of the table as a pyarrow table, a row per sample; missing ones are skipped."""
        return geoparquet.read(self.table_file, columns, where=_table_name(self.files))[0]

    def table_schema(self) -> Any:
        """Return the names and types of the table's columns, a pyarrow schema."""
        with geoparquet.open_table(self.table_file, where=_table_name(self.files)) as (file, _):
            return file.schema_arrow.remove_metadata()

    def rows(self) -> RowReader:
        """Return a reader that passes through the table once."""
        return RowReader(self.table_file, where=_table_name(self.files))


class RowReader:
    """Reads rows of a store's table in ascending order, with one row group in memory at a time."""

    def __init__(self, source: Path | IO[bytes], *, where: str) -> None:
        self._source, self._where = source, where
        with geoparquet.open_table(source, where=where) as (file, _):
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._cached_group: tuple[int, Any] = (-1, None)

    def take(self, rows: NDArray[np.int64]) -> Any:
        """Return the rows at some ascending positions, at least one, as a pyarrow table."""
        import pyarrow as pa

        group_of = np.searchsorted(self._starts, rows, side="right") - 1
        return pa.concat_tables(
            self._group(number).take(rows[group_of == number] - self._starts[number])
            for number in np.unique(group_of).tolist()
        )

    def _group(self, number: int) -> Any:
        if self._cached_group[0] != number:
            with geoparquet.open_table(self._source, where=self._where) as (file, _):
                self._cached_group = (number, file.read_row_group(number))
        return self._cached_group[1]


@dataclass(frozen=True, kw_only=True)
class ShardSlice:
    """Samples of one store that become part of a shard."""

    files: StoreFiles
    """Access to the store's files."""
    manifest_sha256: str
    """SHA-256 of the store's manifest at opening."""
    rows: NDArray[np.int64]
    """Rows of the samples in the store, ascending, shape (n,)."""
    positions: NDArray[np.int64]
    """Positions of the samples in the shard, shape (n,)."""

    def runs(self) -> Iterator[slice]:
        """Yield runs of consecutive rows."""
        edges = [0, *(np.flatnonzero(np.diff(self.rows) != 1) + 1).tolist(), len(self.rows)]
        for start, stop in pairwise(edges):
            yield slice(int(self.rows[start]), int(self.rows[stop - 1]) + 1)


@dataclass(frozen=True, kw_only=True)
class SourceShard:
    """Source of the images of one shard: slices of finished stores."""

    slices: tuple[ShardSlice, ...]
    """Slices whose positions together are 0..n-1, each once."""
    modalities: tuple[str, ...]
    """Names of the arrays to read."""
    connections: int
    """Runs of samples of a remote store that are fetched in parallel."""

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """Return the images by modality, shape (n, bands, size, size).

        Raises:
            StoreError: a store is damaged, lacks a shard, was replaced while it was read, or can
                no longer be reached.
        """
        num_samples = sum(len(shard_slice.rows) for shard_slice in self.slices)
        images: dict[str, NDArray[np.uint8]] = {}
        for shard_slice in self.slices:
            own_images = _read_checked(shard_slice, self.modalities, self.connections)
            for name, pixels in own_images.items():
                if name not in images:
                    images[name] = np.empty((num_samples, *pixels.shape[1:]), np.uint8)
                images[name][shard_slice.positions] = pixels
        return images


def _read_checked(
    shard_slice: ShardSlice, modalities: tuple[str, ...], connections: int
) -> dict[str, NDArray[np.uint8]]:
    """Read the images of one store's samples, in the order of rows, and check the manifest after."""
    files = shard_slice.files
    try:
        with translate_errors(files.where, "read", advice="Run the same command again."):
            images = _read(shard_slice, modalities, connections if files.folder is None else 1)
    except StoreError:
        _check_unchanged(files, shard_slice.manifest_sha256)
        raise
    # Codecs and kinds of storage raise various built-in exceptions on damaged files.
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        _check_unchanged(files, shard_slice.manifest_sha256)
        raise StoreError(
            f"{files.where} cannot be read: {error}. `salibi-data verify` shows what is damaged; "
            "build, pull or publish it again."
        ) from error
    _check_unchanged(files, shard_slice.manifest_sha256)
    return images


def _read(
    shard_slice: ShardSlice, modalities: tuple[str, ...], connections: int
) -> dict[str, NDArray[np.uint8]]:
    from salibi_data.store.zarr_storage import ShardStorage

    files = shard_slice.files
    group = files.group(ShardStorage(files.zarr_storage(), files.where))

    # Only slices: with index arrays zarr would decode whole shards.
    def read(run: tuple[str, slice]) -> NDArray[np.uint8]:
        name, rows = run
        return np.asarray(group[name][rows])

    runs = [(name, rows) for name in modalities for rows in shard_slice.runs()]
    arrays = list(parallel_map(read, runs, workers=connections))
    return {
        name: np.concatenate(
            [pixels for (run_name, _), pixels in zip(runs, arrays, strict=True) if run_name == name]
        )
        for name in modalities
    }


def _check_unchanged(files: StoreFiles, manifest_sha256: str) -> None:
    """Check that a store still has the manifest that it had when it was opened.

    Raises:
        StoreError: it has another one, or none, or cannot be reached.
    """
    if files.folder is not None and not files.folder.is_dir():
        current = ""
    else:
        current = _manifest_sha256(files)
    if current != manifest_sha256:
        raise StoreError(
            f"{files.where} was replaced while it was read. Run the same command again."
        )


def _manifest_sha256(files: StoreFiles) -> str:
    return hashlib.sha256(files.manifest_content()).hexdigest()


def _table_name(files: StoreFiles) -> str:
    return f"{SAMPLES_NAME} of {files.where}"
