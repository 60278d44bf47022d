"""GeoParquet 1.1 with pyarrow: one geometry column in longitude and latitude, a bounding box.

Source: GeoParquet specification 1.1.0. QGIS, DuckDB and geopandas open what is written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store.errors import PlanError, UsageError
from salibi_data.store.filesystem import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

ROWS_PER_GROUP: Final = 8192
"""Small enough to be read for a few samples, large enough for a million in a second."""


@contextmanager
def writing(path: Path, metadata: Callable[[], Mapping[str, Any]]) -> Iterator[Any]:
    """Give a function that adds rows; the file appears whole when the block ends well.

    The function takes columns (name to pyarrow array) and outlines (shapely polygons in longitude
    and latitude, one per row). Rows are held back only until a row group is full.

    Args:
        path: where to.
        metadata: called at the end for the JSON content kept under the file's key ``salibi``.
    """
    with write_atomically(path) as partial:
        rows = _Rows(partial)
        yield rows.add
        rows.close(metadata())


class _Rows:
    """Rows on their way to a file, in row groups of one size however they came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def add(self, columns: Mapping[str, Any], outlines: NDArray[np.object_]) -> None:
        import pyarrow as pa
        import shapely

        west, south, east, north = shapely.total_bounds(outlines)
        self._bounds[:2] = np.fmin(self._bounds[:2], (west, south))
        self._bounds[2:] = np.fmax(self._bounds[2:], (east, north))
        geometry = pa.array(shapely.to_wkb(outlines), pa.binary())
        self._waiting.append(pa.table({**columns, "geometry": geometry}))
        if sum(len(table) for table in self._waiting) >= ROWS_PER_GROUP:
            self._flush(all_of_them=False)

    def _flush(self, *, all_of_them: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", store_schema=False
            )
        whole_groups = len(table) if all_of_them else len(table) // ROWS_PER_GROUP * ROWS_PER_GROUP
        self._writer.write_table(table.slice(0, whole_groups), row_group_size=ROWS_PER_GROUP)
        self._waiting = [table.slice(whole_groups)] if whole_groups < len(table) else []

    def close(self, metadata: Mapping[str, Any]) -> None:
        if self._waiting:
            self._flush(all_of_them=True)
        geometry = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "bbox": self._bounds.tolist(),
        }
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
        self._writer.add_key_value_metadata(
            {"geo": json.dumps(geo), "salibi": json.dumps(metadata, sort_keys=True)}
        )
        self._writer.close()


def read(
    source: Path | IO[bytes], columns: list[str] | None = None, *, where: str = ""
) -> tuple[pa.Table, dict[str, Any]]:
    """The table, or some columns of it, and our metadata.

    Args:
        source: a file, or the content of one.
        columns: names; default all.
        where: what to call the source in messages; default its path.

    Raises:
        UsageError: there is no such file.
        PlanError: it is damaged, or was not written by this software.
    """
    with opened(source, where=where) as (file, metadata):
        return file.read(columns=columns), metadata


@contextmanager
def opened(source: Path | IO[bytes], *, where: str = "") -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file (``pyarrow.parquet.ParquetFile``) and our metadata; raises as :func:`read`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(source, Path) and not source.is_file():
        raise UsageError(f"no file at {source}; check the path.")
    try:
        with pq.ParquetFile(source, memory_map=False) as file:
            yield file, json.loads(file.metadata.metadata[b"salibi"])
    except (pa.ArrowException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise PlanError(f"{where or source} is damaged or not a table of ours: {error}.") from error
