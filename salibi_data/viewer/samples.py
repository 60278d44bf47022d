"""The samples a page shows: columns to filter by, and all that is known of each."""

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
from salibi_data.store.open import open_store
from salibi_data.store.redaction import bare
from salibi_data.store.schema import MANIFEST_NAME, SAMPLES_NAME, SPLITS
from salibi_data.store.tiles import tile_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

SAMPLES_PER_FILE: Final = 64
"""Samples described together: small enough to fetch for one, large enough to keep files few."""

_SHIFT: Final = "alignment_shift_m"
_DAY_S: Final = 86_400
_ALIGNED_BYTES: Final = 4
_MAX_DAYS: Final = np.iinfo(np.uint16).max


class Samples:
    """The samples of a store that are shown, in the store's order."""

    def __init__(self, store: str | Path, *, limit: int | None = None) -> None:
        """Open the store and read its index.

        Args:
            store: path of the Zarr group.
            limit: show at most so many: whole runs of neighbours, spread evenly over the store.

        Raises:
            StoreError: no store is there, or it has no sample.
            StoreError: the attributes are damaged or of a newer schema.
            UsageError: it has no table of samples.
        """
        self.folder = Path(store)
        self.group, self.attributes = open_store(self.folder)
        self.digest = hashlib.sha256((self.folder / MANIFEST_NAME).read_bytes()).hexdigest()
        self.rows = spread(self.group["tile"].shape[0], limit)
        """Rows of the store, shape (N,)."""
        if len(self.rows) == 0:
            raise StoreError(f"{self.folder} has no sample; there is nothing to look at.")
        self.x, self.y = self.group["tile"][:][self.rows, 1:].T.astype(np.int64)
        """Columns and rows of the tiles at the base zoom, each of shape (N,)."""
        self.columns = self._columns()
        """What is filtered by, each of shape (N,); see :meth:`_columns`."""
        self._reading = threading.Lock()
        self._row_group = lru_cache(maxsize=4)(self._read_row_group)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) in degrees around all tiles."""
        edges = tile_bounds(self.attributes.base_zoom, self.x, self.y)
        low, high = edges.min(axis=0), edges.max(axis=0)
        return float(low[0]), float(low[1]), float(high[2]), float(high[3])

    @property
    def num_files(self) -> int:
        """Files that :meth:`described` gives the content of."""
        return -(-len(self) // SAMPLES_PER_FILE)

    def within(self, zoom: int, x: int, y: int) -> NDArray[np.int64]:
        """Positions of the samples that tile ``zoom/x/y`` holds, at the base zoom or below it."""
        levels = self.attributes.base_zoom - zoom
        return np.flatnonzero((self.x >> levels == x) & (self.y >> levels == y))

    def images(self, modality: str, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Stored images of the samples at ``positions``, shape (len, bands, rows, columns)."""
        array = self.group[modality]
        # Neighbours are runs of the store; an index array would make zarr decode whole shards.
        runs = [array[first:last] for first, last in _runs(self.rows[positions])]
        return np.concatenate(runs)

    def described(self, number: int) -> list[dict[str, Any]]:
        """All that ``samples.parquet`` says of the samples of one file, as JSON holds it."""
        here = self.rows[number * SAMPLES_PER_FILE : (number + 1) * SAMPLES_PER_FILE]
        groups = here // geoparquet.ROWS_PER_GROUP
        found: list[dict[str, Any]] = []
        for group in np.unique(groups).tolist():
            within = here[groups == group] - group * geoparquet.ROWS_PER_GROUP
            found += self._row_group(group).take(within).to_pylist()
        return [
            {"row": row, **{name: _plain(value) for name, value in sample.items()}}
            for row, sample in zip(here.tolist(), found, strict=True)
        ]

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Tile, cloudy share, metres of shift (NaN: unknown), days since 1970 (0: unknown), split."""
        take = {name: self.group[name][:][self.rows] for name in ("cloud_fraction", "acquired")}
        days = np.clip(take["acquired"] // _DAY_S, 0, _MAX_DAYS).astype(np.uint16)
        return {
            "x": self.x.astype(np.uint32),
            "y": self.y.astype(np.uint32),
            "cloud": take["cloud_fraction"].astype(np.float32),
            "shift": self._shift_m(),
            **{f"day {sensor}": days[:, s] for s, sensor in enumerate(self.attributes.sensors)},
            "split": self.group["split"][:][self.rows].astype(np.uint8),
        }

    def _shift_m(self) -> NDArray[np.float32]:
        with geoparquet.opened(self.folder / SAMPLES_NAME) as (file, _):
            if _SHIFT not in file.schema_arrow.names:
                return np.full(len(self), np.nan, np.float32)
            # Not `to_numpy`: it imports pandas where that is installed, for half a second.
            values = file.read(columns=[_SHIFT])[_SHIFT].to_pylist()
        return np.array(values, np.float32)[self.rows]

    def _read_row_group(self, number: int) -> pa.Table:
        with self._reading, geoparquet.opened(self.folder / SAMPLES_NAME) as (file, _):
            names = [name for name in file.schema_arrow.names if name != "geometry"]
            return file.read_row_group(number, columns=names)


def spread(num_samples: int, limit: int | None) -> NDArray[np.int64]:
    """Rows of at most ``limit`` of ``num_samples``: runs of neighbours, evenly over all of them."""
    rows = np.arange(num_samples)
    if limit is None or limit >= num_samples:
        return rows
    num_runs = -(-limit // SAMPLES_PER_FILE)
    starts = np.linspace(0, num_samples, num_runs, endpoint=False).astype(np.int64)
    runs = starts[:, None] + np.arange(SAMPLES_PER_FILE)
    kept: NDArray[np.int64] = np.unique(runs[runs < num_samples])[:limit]
    return kept


def encoded(columns: dict[str, NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """Columns one after the other as a page's typed arrays take them, and where each one lies.

    Little-endian, each beginning at a multiple of four bytes.
    """
    places, body = [], bytearray()
    for name, values in columns.items():
        place = {"name": name, "type": values.dtype.name, "offset": len(body)}
        places.append(place)
        body += values.astype(values.dtype.newbyteorder("<")).tobytes()
        body += bytes(-len(body) % _ALIGNED_BYTES)
    return places, bytes(body)


def split_names() -> list[str]:
    """Names of the splits by their codes."""
    return sorted(SPLITS, key=lambda name: SPLITS[name])


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of each run of consecutive rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for start, stop in pairwise([0, *breaks.tolist(), len(rows)]):
        yield int(rows[start]), int(rows[stop - 1]) + 1


def _plain(value: Any) -> Any:
    """A value of the table as JSON has it; addresses without what may be secret."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return bare(value) if isinstance(value, str) else value


def as_json(content: Any) -> bytes:
    """JSON without spaces, of finite numbers."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
