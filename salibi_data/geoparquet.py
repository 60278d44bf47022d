"""GeoParquet 1.1 with pyarrow: one geometry column in longitude and latitude, a bounding box.

Source: GeoParquet specification 1.1.0. QGIS, DuckDB and geopandas open what is written here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from salibi_data.errors import PlanError, UsageError
from salibi_data.whole import whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa


def write(
    path: Path,
    columns: Mapping[str, Any],
    outlines: Sequence[Any],
    *,
    metadata: Mapping[str, Any],
) -> None:
    """Write a table and its outlines; the file appears whole or not at all.

    Args:
        path: where to.
        columns: name to pyarrow array.
        outlines: shapely polygons in longitude and latitude, one per row.
        metadata: JSON content kept under the file's key ``salibi``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    west, south, east, north = shapely.total_bounds(list(outlines)).tolist()
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "bbox": [west, south, east, north],
            }
        },
    }
    table = pa.table({**columns, "geometry": pa.array(shapely.to_wkb(list(outlines)), pa.binary())})
    table = table.replace_schema_metadata(
        {"geo": json.dumps(geo), "salibi": json.dumps(metadata, sort_keys=True)}
    )
    with whole(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table and our metadata.

    Raises:
        UsageError: there is no such file.
        PlanError: it is damaged, or was not written by this software.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UsageError(f"no file at {path}; check the path.")
    try:
        table = pq.read_table(path, memory_map=False)
        return table, json.loads(table.schema.metadata[b"salibi"])
    except (pa.ArrowException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise PlanError(f"{path} is damaged or not a table of ours: {error}.") from error
