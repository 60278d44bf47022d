"""GeoParquet 1.1 with pyarrow: one geometry column in longitude and latitude (OGC:CRS84).

Source: GeoParquet specification 1.1.0. QGIS, DuckDB and geopandas open what is written here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from salibi_data.store.errors import PlanError, UsageError
from salibi_data.store.filesystem import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

ROWS_PER_GROUP: Final = 8192
"""Rows of a row group: few enough to read it for some samples, many enough to scan a million fast."""

BOX_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
"""Fields of a covering's column: west, south, east, north of each row's geometry."""


class AddRows(Protocol):
    """Adds rows to a table that is being written."""

    def __call__(self, columns: Mapping[str, Any], outlines: NDArray[np.object_], /) -> None:
        """Add rows.

        Args:
            columns: pyarrow arrays of equal length, by name.
            outlines: shapely polygons in longitude and latitude, one per row; None: not known.
        """


def geo_metadata(
    geometry_types: Sequence[str],
    bbox: Sequence[float] | None,
    *,
    covering: str | None = None,
) -> str:
    """Metadata of the key ``geo``, as JSON.

    Args:
        geometry_types: types in the column ``geometry``; none: not known.
        bbox: west, south, east, north of all rows; None: not known.
        covering: name of the column with each row's :data:`BOX_CORNERS`; None: there is none.
    """
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": list(geometry_types)}
    if covering is not None:
        column["covering"] = {"bbox": {corner: [covering, corner] for corner in BOX_CORNERS}}
    if bbox is not None:
        column["bbox"] = list(bbox)
    content = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return json.dumps(content)


@contextmanager
def write_rows(path: Path, metadata: Callable[[], Mapping[str, Any]]) -> Iterator[AddRows]:
    """Write a table of polygons, in row groups of :data:`ROWS_PER_GROUP`.

    Yields a function that adds rows. The file appears whole when the block ends well.

    Args:
        path: file to write.
        metadata: called at the end for the JSON content of the file's key ``salibi``.
    """
    with write_atomically(path) as partial:
        rows = _Groups(partial)
        yield rows.add
        rows.close(metadata())


@contextmanager
def write_groups(path: Path, header: Mapping[str, str]) -> Iterator[AddRows]:
    """Write a table whose metadata are known before its rows.

    Yields a function that adds rows, at most :data:`ROWS_PER_GROUP`, as a row group of their own. The
    file appears whole when the block ends well.

    Args:
        path: file to write.
        header: metadata of the file by key, ``geo`` among them (:func:`geo_metadata`).
    """
    with write_atomically(path) as partial:
        file = _File(partial, header)
        yield lambda columns, outlines: file.write(_table(columns, outlines))
        file.close()


def _table(columns: Mapping[str, Any], outlines: NDArray[np.object_]) -> pa.Table:
    import pyarrow as pa
    import shapely

    geometry = pa.array(shapely.to_wkb(outlines), pa.binary())
    return pa.table({**columns, "geometry": geometry})


class _File:
    """A Parquet file that is opened with its first rows, which tell the schema."""

    def __init__(self, path: Path, header: Mapping[str, str] | None = None) -> None:
        self._path, self._header = path, header
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            schema = (
                table.schema if self._header is None else table.schema.with_metadata(self._header)
            )
            # Where Arrow's own schema is stored, pyarrow reads metadata from there alone, so that
            # metadata added on closing would not be found.
            self._writer = pq.ParquetWriter(
                self._path, schema, compression="zstd", store_schema=self._header is not None
            )
        self._writer.write_table(table, row_group_size=ROWS_PER_GROUP)

    def close(self, metadata: Mapping[str, str] | None = None) -> None:
        if metadata is not None:
            self._writer.add_key_value_metadata(metadata)
        self._writer.close()


class _Groups:
    """Rows on their way to a file, in row groups of one size however they are added."""

    def __init__(self, path: Path) -> None:
        self._file = _File(path)
        self._waiting: list[pa.Table] = []
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def add(self, columns: Mapping[str, Any], outlines: NDArray[np.object_], /) -> None:
        import shapely

        west, south, east, north = shapely.total_bounds(outlines)
        self._bounds[:2] = np.fmin(self._bounds[:2], (west, south))
        self._bounds[2:] = np.fmax(self._bounds[2:], (east, north))
        self._waiting.append(_table(columns, outlines))
        if sum(len(table) for table in self._waiting) >= ROWS_PER_GROUP:
            self._flush(all_of_them=False)

    def _flush(self, *, all_of_them: bool) -> None:
        import pyarrow as pa

        table = pa.concat_tables(self._waiting)
        count = len(table) if all_of_them else len(table) // ROWS_PER_GROUP * ROWS_PER_GROUP
        self._file.write(table.slice(0, count))
        self._waiting = [table.slice(count)] if count < len(table) else []

    def close(self, metadata: Mapping[str, Any]) -> None:
        if self._waiting:
            self._flush(all_of_them=True)
        self._file.close(
            {
                "geo": geo_metadata(["Polygon"], self._bounds.tolist()),
                "salibi": json.dumps(metadata, sort_keys=True),
            }
        )


def read(
    source: Path | IO[bytes], columns: list[str] | None = None, *, where: str = ""
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table, or some of its columns, and the metadata that :func:`write_rows` wrote.

    Args:
        source: a file, or the content of one.
        columns: names; default all.
        where: name of the source in messages; default its path.

    Raises:
        UsageError: there is no such file.
        PlanError: it is damaged, or was not written by this software.
    """
    with open_table(source, where=where) as (file, metadata):
        return file.read(columns=columns), metadata


@contextmanager
def open_table(
    source: Path | IO[bytes], *, where: str = ""
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a table (``pyarrow.parquet.ParquetFile``) and its metadata; raises as :func:`read`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(source, Path) and not source.is_file():
        raise UsageError(f"no file at {source}; check the path.")
    try:
        # Mapped memory would crash the process where the file is cut short meanwhile.
        with pq.ParquetFile(source, memory_map=False) as file:
            yield file, json.loads(file.metadata.metadata[b"salibi"])
    except (pa.ArrowException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise PlanError(f"{where or source} is damaged or not a table of ours: {error}.") from error
