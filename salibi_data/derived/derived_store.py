"""Content of a store made from samples of other stores: arrays, table and provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.assembly.shards import StoreContents
from salibi_data.assembly.writer import SAMPLES_PER_SHARD
from salibi_data.derived.provenance import Provenance, notes_of_sources, table_metadata
from salibi_data.derived.source_store import (
    CONNECTIONS,
    RowReader,
    ShardSlice,
    SourceShard,
    SourceStore,
)
from salibi_data.store import __version__, geoparquet
from salibi_data.store.errors import UsageError
from salibi_data.store.schema import INDEX_ARRAYS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.schema import StoreAttributes

RULES_VERSION: Final = 1
"""Version of the rules; to be raised when the same sources and options give other bytes."""

_PER_SENSOR: Final = ("acquired", "valid_fraction")
"""Index arrays with a column per sensor."""


@dataclass(frozen=True, kw_only=True)
class DerivedStore:
    """Samples of some stores, in the order of a new one."""

    sources: tuple[SourceStore, ...]
    """Stores that the samples come from."""
    source: NDArray[np.int64]
    """Number of the store of each sample, shape (N,)."""
    row: NDArray[np.int64]
    """Row of each sample in its store, shape (N,)."""
    split: NDArray[np.uint8]
    """Split code of each sample in the new store, shape (N,)."""
    attributes: StoreAttributes
    """Attributes of the new store, without statistics and digest."""
    operation: Mapping[str, Any]
    """Operation that makes the store, with its options, as JSON."""
    variant: Mapping[str, Any]
    """Fields in which the new store's variant differs from the first source's."""
    connections: int = CONNECTIONS
    """Runs of samples of a remote store that are fetched in parallel."""

    @cached_property
    def provenance(self) -> Provenance:
        """Operation and sources of the new store."""
        return Provenance.of(self.operation, self.sources)

    def contents(self) -> StoreContents:
        """Return the content for :func:`salibi_data.assembly.shards.make_store`."""
        description = {"rules": RULES_VERSION, **self.provenance.to_dict()}
        plan_digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        modalities = {
            name: modality.with_statistics((), ())
            for name, modality in self.attributes.modalities.items()
        }
        # With the version, so that no run continues with shards of another version's.
        made_by = f"{plan_digest} {__version__}"
        return StoreContents(
            attributes=replace(
                self.attributes,
                modalities=modalities,
                plan_digest=plan_digest,
                software_version=__version__,
                notes=notes_of_sources(self.attributes.notes),
            ),
            index={name: self._index(name) for name in INDEX_ARRAYS},
            shard=self._shard,
            write_samples=lambda path: self._write_samples(path, plan_digest),
            digest=hashlib.sha256(made_by.encode()).hexdigest()[:24],
        )

    def _index(self, name: str) -> NDArray[Any]:
        """Return one index array of the new store."""
        if name == "split":
            return self.split
        parts = []
        for number, stored in enumerate(self.sources):
            array = stored.index[name]
            if name in _PER_SENSOR:
                array = array[:, stored.columns_of(self.attributes.sensors)]
            parts.append(array[self.row[self.source == number]])
        grouped = np.concatenate(parts)
        return grouped[self._grouped_positions]

    @cached_property
    def _grouped_positions(self) -> NDArray[np.int64]:
        """Position of each sample when the samples are grouped by source, shape (N,)."""
        # The second argsort inverts the permutation of the first.
        positions: NDArray[np.int64] = np.argsort(np.argsort(self.source, kind="stable"))
        return positions

    def _shard(self, number: int) -> SourceShard:
        run = slice(number * SAMPLES_PER_SHARD, (number + 1) * SAMPLES_PER_SHARD)
        names = tuple(self.attributes.modalities)
        source, row = self.source[run], self.row[run]
        return select_images(self.sources, source, row, names, connections=self.connections)

    def _write_samples(self, path: Path, plan_digest: str) -> None:
        """Write the table atomically, one row group at a time."""
        from shapely import from_wkb

        readers = [stored.rows() for stored in self.sources]
        sensors = self.attributes.sensors
        used: dict[str, set[str]] = {sensor: set() for sensor in sensors}

        def metadata() -> dict[str, Any]:
            content = table_metadata(self.sources, self.attributes, used, self.variant)
            return {**content, "plan_digest": plan_digest, "made_from": self.provenance.to_dict()}

        with geoparquet.write_rows(path, metadata) as add_rows:
            for start in range(0, len(self.split), geoparquet.ROWS_PER_GROUP):
                table = self._rows(readers, slice(start, start + geoparquet.ROWS_PER_GROUP))
                for sensor in sensors:
                    used[sensor].update(_scene_ids(table, sensor))
                outlines = from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
                columns = {name: table[name] for name in table.column_names if name != "geometry"}
                add_rows(columns, outlines)
            for stored in self.sources:
                stored.check_unchanged()

    def _rows(self, readers: Sequence[RowReader], run: slice) -> Any:
        """Return a run of rows of the new table."""
        import pyarrow as pa

        source, row = self.source[run], self.row[run]
        tables = [
            _fit_schema(readers[number].take(row[source == number]), self._schema)
            for number in np.unique(source).tolist()
        ]
        grouped = np.argsort(np.argsort(source, kind="stable"))
        table = pa.concat_tables(tables).take(grouped)
        column = table.column_names.index("split")
        return table.set_column(column, "split", pa.array(self.split[run], pa.uint8()))

    @cached_property
    def _schema(self) -> Any:
        """Columns of all sources, without those of sensors and modalities that the new store lacks.

        Raises:
            UsageError: a column is numbers in one store and text in another.
        """
        import pyarrow as pa

        schemas = [stored.table_schema() for stored in self.sources]
        try:
            # Permissive: a column without any value in one store has the type null there.
            schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise UsageError(
                f"the tables of these stores cannot be joined: {error}. Build them with one "
                "version of this software."
            ) from error
        unwanted = {
            name for stored in self.sources for name in stored.columns_beyond(self.attributes)
        }
        return pa.schema([field for field in schema if field.name not in unwanted])


def select_images(
    sources: Sequence[SourceStore],
    source: NDArray[np.int64],
    row: NDArray[np.int64],
    modalities: tuple[str, ...],
    *,
    connections: int = CONNECTIONS,
) -> SourceShard:
    """Describe the images of some samples, for reading them later.

    Args:
        sources: the stores.
        source: number of the store of each sample, shape (n,).
        row: row of each sample in its store, shape (n,).
        modalities: names of the arrays to read.
        connections: runs of samples of a remote store to fetch in parallel.
    """
    slices = []
    for number in np.unique(source).tolist():
        positions = np.flatnonzero(source == number)
        slices.append(
            ShardSlice(
                files=sources[number].files,
                manifest_sha256=sources[number].manifest_sha256,
                rows=row[positions],
                positions=positions,
            )
        )
    return SourceShard(slices=tuple(slices), modalities=modalities, connections=connections)


def check_output_path(output: Path, sources: Sequence[SourceStore]) -> None:
    """Check that the output and the sources are not inside each other.

    Raises:
        UsageError: one is the other, or lies in it.
    """
    path = output.resolve()
    for stored in sources:
        folder = stored.files.folder
        if folder is None:
            continue
        if path.is_relative_to(folder) or folder.is_relative_to(path):
            raise UsageError(
                f"{output} cannot be made from {folder}: one is the other, or lies in it. Choose "
                "another path for the output."
            )


def _fit_schema(table: Any, schema: Any) -> Any:
    """Return a table with the columns of a schema; missing ones are null."""
    import pyarrow as pa

    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _scene_ids(table: Any, sensor: str) -> list[str]:
    """Return the ids of the scenes of a sensor in some rows, as far as they are known."""
    import pyarrow.compute as pc

    name = f"{sensor}_items"
    if name not in table.column_names:
        return []
    return [item for item in pc.list_flatten(table[name]).unique().to_pylist() if item is not None]
