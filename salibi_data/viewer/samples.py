"""Reads the samples that a page shows: columns to filter by, images, and records of the table."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError
from salibi_data.store.open import StoreFiles
from salibi_data.store.redaction import name_only, redact
from salibi_data.store.schema import SPLITS
from salibi_data.store.storage import is_url
from salibi_data.store.tiles import tile_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

SAMPLES_PER_FILE: Final = 64
"""Number of samples whose records share a file of the page. The page fetches a whole file to show
one sample, and an export should not have too many files."""

_SHIFT: Final = "alignment_shift_m"
_DAY_S: Final = 86_400
_ALIGNMENT_BYTES: Final = 4
_MAX_DAYS: Final = np.iinfo(np.uint16).max


class ViewedSamples:
    """Samples of a store that the page shows, in the store's order.

    Args:
        store: path or URL of the Zarr group, or of a published dataset: its newest release.
        limit: largest number of samples to show: runs of neighbours, spread evenly over the store.

    Raises:
        StoreError: there is no store, it has no sample, or its attributes are damaged or of a newer
            schema.
        UsageError: the store has no table of samples.
    """

    def __init__(self, store: str | Path, *, limit: int | None = None) -> None:
        files = StoreFiles.at(store)
        self.group, self.attributes = files.open()
        self.digest = hashlib.sha256(files.manifest_content()).hexdigest()
        """SHA-256 of the manifest, in hexadecimal."""
        self.rows = spread_rows(self.group["tile"].shape[0], limit)
        """Rows of the samples in the store, shape (num_samples,)."""
        if len(self.rows) == 0:
            raise StoreError(f"{files.where} has no sample; there is nothing to look at.")
        self.name = name_only(files.where) if is_url(store) else Path(store).resolve().name
        """Last part of the store's path or URL."""
        self._table_file = files.samples_file()
        self.x, self.y = self.group["tile"][:][self.rows, 1:].T.astype(np.int64)
        """Columns and rows of the tiles at the base zoom, each of shape (num_samples,)."""
        self.columns = self._columns()
        """Columns to filter by, each of shape (num_samples,); see :meth:`_columns`."""
        self._table_lock = threading.Lock()
        self._row_group = lru_cache(maxsize=4)(self._read_row_group)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """West, south, east, north of all tiles, in degrees (EPSG:4326)."""
        edges = tile_bounds(self.attributes.base_zoom, self.x, self.y)
        lowest, highest = edges.min(axis=0), edges.max(axis=0)
        return float(lowest[0]), float(lowest[1]), float(highest[2]), float(highest[3])

    @property
    def num_files(self) -> int:
        """Number of files of records; see :meth:`records`."""
        return -(-len(self) // SAMPLES_PER_FILE)

    def positions_in_tile(self, zoom: int, x: int, y: int) -> NDArray[np.int64]:
        """Return the positions of the samples within a tile of the base zoom or a lower zoom."""
        levels = self.attributes.base_zoom - zoom
        return np.flatnonzero((self.x >> levels == x) & (self.y >> levels == y))

    def images(self, modality: str, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the stored images at ``positions``, shape (len(positions), bands, rows, columns)."""
        array = self.group[modality]
        # Read runs of neighbours: for an array of indices, zarr would decode whole shards.
        runs = [array[first:last] for first, last in _runs(self.rows[positions])]
        return np.concatenate(runs)

    def records(self, number: int) -> list[dict[str, Any]]:
        """Return the rows of ``samples.parquet`` for the samples of one file, as JSON content."""
        rows = self.rows[number * SAMPLES_PER_FILE : (number + 1) * SAMPLES_PER_FILE]
        groups = rows // geoparquet.ROWS_PER_GROUP
        records: list[dict[str, Any]] = []
        for group in np.unique(groups).tolist():
            rows_in_group = rows[groups == group] - group * geoparquet.ROWS_PER_GROUP
            records += self._row_group(group).take(rows_in_group).to_pylist()
        return [
            {"row": row, **{name: _json_value(value) for name, value in record.items()}}
            for row, record in zip(rows.tolist(), records, strict=True)
        ]

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return tile, cloud share, shift in metres (NaN: unknown), day (0: unknown) and split.

        Days count from 1970-01-01.
        """
        clouds, acquired = (
            self.group[name][:][self.rows] for name in ("cloud_fraction", "acquired")
        )
        days = np.clip(acquired // _DAY_S, 0, _MAX_DAYS).astype(np.uint16)
        return {
            "x": self.x.astype(np.uint32),
            "y": self.y.astype(np.uint32),
            "cloud": clouds.astype(np.float32),
            "shift": self._shift_m(),
            **{f"day {sensor}": days[:, s] for s, sensor in enumerate(self.attributes.sensors)},
            "split": self.group["split"][:][self.rows].astype(np.uint8),
        }

    def _shift_m(self) -> NDArray[np.float32]:
        with geoparquet.open_table(self._table_file) as (file, _):
            if _SHIFT not in file.schema_arrow.names:
                return np.full(len(self), np.nan, np.float32)
            # Not `to_numpy`: where pandas is installed it imports it, which takes half a second.
            values = file.read(columns=[_SHIFT])[_SHIFT].to_pylist()
        return np.array(values, np.float32)[self.rows]

    def _read_row_group(self, number: int) -> pa.Table:
        with self._table_lock, geoparquet.open_table(self._table_file) as (file, _):
            names = [name for name in file.schema_arrow.names if name != "geometry"]
            return file.read_row_group(number, columns=names)


def spread_rows(num_samples: int, limit: int | None) -> NDArray[np.int64]:
    """Choose at most ``limit`` of ``num_samples`` rows: runs of neighbours, evenly spread."""
    rows = np.arange(num_samples)
    if limit is None or limit >= num_samples:
        return rows
    num_runs = -(-limit // SAMPLES_PER_FILE)
    starts = np.linspace(0, num_samples, num_runs, endpoint=False).astype(np.int64)
    runs = starts[:, None] + np.arange(SAMPLES_PER_FILE)
    chosen: NDArray[np.int64] = np.unique(runs[runs < num_samples])[:limit]
    return chosen


def encode_columns(columns: dict[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """Encode columns for the page's typed arrays.

    Returns:
        Name, type and byte offset of every column, and the little-endian values of one column
        after the other.
    """
    layout, body = [], bytearray()
    for name, values in columns.items():
        layout.append({"name": name, "type": values.dtype.name, "offset": len(body)})
        body += values.astype(values.dtype.newbyteorder("<")).tobytes()
        # JavaScript refuses a typed array whose offset is no multiple of its item size.
        body += bytes(-len(body) % _ALIGNMENT_BYTES)
    return layout, bytes(body)


def split_names() -> list[str]:
    """Return the names of the splits in the order of their codes."""
    return sorted(SPLITS, key=lambda name: SPLITS[name])


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (first, last + 1) of each run of consecutive rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for start, stop in pairwise([0, *breaks.tolist(), len(rows)]):
        yield int(rows[start]), int(rows[stop - 1]) + 1


def _json_value(value: Any) -> Any:
    """Return a value of the table as JSON content; addresses lose what may be secret."""
    if isinstance(value, list):
        return [_json_value(entry) for entry in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return redact(value) if isinstance(value, str) else value


def as_json(content: Any) -> bytes:
    """Encode JSON content without spaces; NaN and infinity are errors."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
