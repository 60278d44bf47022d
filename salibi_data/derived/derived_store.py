"""Stores made of samples of others: their arrays, their table, and what they say of their origin."""

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
"""Another one whenever the same sources and options give other bytes."""

_PER_SENSOR: Final = ("acquired", "valid_fraction")


@dataclass(frozen=True, kw_only=True)
class DerivedStore:
    """Samples of some stores, in the order of a new one."""

    sources: tuple[SourceStore, ...]
    source: NDArray[np.int64]
    """Which of them each sample is from, (N,)."""
    row: NDArray[np.int64]
    """Its position there, (N,)."""
    split: NDArray[np.uint8]
    attributes: StoreAttributes
    """What the new store says of itself, but for statistics and digest."""
    asked: Mapping[str, Any]
    """What was done, and with which options, as JSON."""
    variant: Mapping[str, Any]
    """Fields in which its variant differs from the first source's."""
    connections: int = CONNECTIONS
    """Runs of a source in a bucket that are fetched at a time."""

    @cached_property
    def origin(self) -> Provenance:
        """Where the samples come from."""
        return Provenance.of(self.asked, self.sources)

    def contents(self) -> StoreContents:
        """What to put together; see :func:`salibi_data.assembly.shards.make_store`."""
        said = {"rules": RULES_VERSION, **self.origin.to_dict()}
        plan_digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        modalities = {
            name: modality.with_statistics((), ())
            for name, modality in self.attributes.modalities.items()
        }
        made_by = f"{plan_digest} {__version__}"  # no shard of another version is gone on with
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
        """One index array of the new store."""
        if name == "split":
            return self.split
        found = []
        for number, stored in enumerate(self.sources):
            array = stored.index[name]
            if name in _PER_SENSOR:
                array = array[:, stored.columns_of(self.attributes.sensors)]
            found.append(array[self.row[self.source == number]])
        gathered = np.concatenate(found)
        return gathered[self._from_grouped]

    @cached_property
    def _from_grouped(self) -> NDArray[np.int64]:
        """Where each sample is when those of the first source come first, and so on, (N,)."""
        places: NDArray[np.int64] = np.argsort(np.argsort(self.source, kind="stable"))
        return places

    def _shard(self, number: int) -> SourceShard:
        run = slice(number * SAMPLES_PER_SHARD, (number + 1) * SAMPLES_PER_SHARD)
        names = tuple(self.attributes.modalities)
        source, row = self.source[run], self.row[run]
        return select_images(self.sources, source, row, names, connections=self.connections)

    def _write_samples(self, path: Path, plan_digest: str) -> None:
        """Write the table, a row group at a time; the file appears whole or not at all."""
        from shapely import from_wkb

        readers = [stored.rows() for stored in self.sources]
        sensors = self.attributes.sensors
        used: dict[str, set[str]] = {sensor: set() for sensor in sensors}

        def about() -> dict[str, Any]:
            said = table_metadata(self.sources, self.attributes, used, self.variant)
            return {**said, "plan_digest": plan_digest, "made_from": self.origin.to_dict()}

        with geoparquet.write_rows(path, about) as add_rows:
            for start in range(0, len(self.split), geoparquet.ROWS_PER_GROUP):
                table = self._rows(readers, slice(start, start + geoparquet.ROWS_PER_GROUP))
                for sensor in sensors:
                    used[sensor].update(_items(table, sensor))
                outlines = from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
                columns = {name: table[name] for name in table.column_names if name != "geometry"}
                add_rows(columns, outlines)
            for stored in self.sources:
                stored.check_unchanged()

    def _rows(self, readers: Sequence[RowReader], run: slice) -> Any:
        """Some rows of the new table."""
        import pyarrow as pa

        source, row = self.source[run], self.row[run]
        tables = [
            _fitted(readers[number].take(row[source == number]), self._schema)
            for number in np.unique(source).tolist()
        ]
        grouped = np.argsort(np.argsort(source, kind="stable"))
        table = pa.concat_tables(tables).take(grouped)
        at = table.column_names.index("split")
        return table.set_column(at, "split", pa.array(self.split[run], pa.uint8()))

    @cached_property
    def _schema(self) -> Any:
        """Columns of all sources, less those of what the new store lacks.

        Raises:
            UsageError: a column is numbers in one store and text in another.
        """
        import pyarrow as pa

        schemas = [stored.table_schema() for stored in self.sources]
        try:
            schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise UsageError(
                f"the tables of these stores cannot be joined: {error}. Build them with one "
                "version of this software."
            ) from error
        gone = {name for stored in self.sources for name in stored.columns_beyond(self.attributes)}
        return pa.schema([field for field in schema if field.name not in gone])


def select_images(
    sources: Sequence[SourceStore],
    source: NDArray[np.int64],
    row: NDArray[np.int64],
    modalities: tuple[str, ...],
    *,
    connections: int = CONNECTIONS,
) -> SourceShard:
    """The images of some samples, of which each is a row of one of the sources; not read yet."""
    pieces = []
    for number in np.unique(source).tolist():
        places = np.flatnonzero(source == number)
        pieces.append(
            ShardSlice(
                files=sources[number].files,
                manifest_sha256=sources[number].manifest_sha256,
                rows=row[places],
                places=places,
            )
        )
    return SourceShard(pieces=tuple(pieces), modalities=modalities, connections=connections)


def check_output_path(output: Path, sources: Sequence[SourceStore]) -> None:
    """Refuse an output that lies in a source, or a source in it.

    Raises:
        UsageError: one does.
    """
    place = output.resolve()
    for stored in sources:
        folder = stored.files.folder
        if folder is None:
            continue
        if place.is_relative_to(folder) or folder.is_relative_to(place):
            raise UsageError(
                f"{output} cannot be made from {folder}: one is the other, or lies in it. Choose "
                "another path for the output."
            )


def _fitted(table: Any, schema: Any) -> Any:
    """The table with the columns of a schema; those it lacks are null."""
    import pyarrow as pa

    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _items(table: Any, sensor: str) -> list[str]:
    """Ids of the scenes that a sensor's images of some samples are from, where they are known."""
    import pyarrow.compute as pc

    name = f"{sensor}_items"
    if name not in table.column_names:
        return []
    return [item for item in pc.list_flatten(table[name]).unique().to_pylist() if item is not None]
