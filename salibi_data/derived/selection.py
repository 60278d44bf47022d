"""Select samples and modalities of a store, for a subset or a part of a download.

A selection reads index arrays and columns of the table, never images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.dates import parse_dates
from salibi_data.derived.options import SelectionOptions
from salibi_data.plans.areas.area import Area
from salibi_data.plans.areas.files import read_outline
from salibi_data.plans.sampling import sampling_hash
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.schema import SPLITS, UNKNOWN_TIME
from salibi_data.store.tiles import Tiles, spans_within

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from salibi_data.store.schema import StoreAttributes

SHIFT_COLUMN: Final = "alignment_shift_m"
"""Column of the table with the measured misalignment."""


@dataclass(frozen=True, kw_only=True)
class Selection(SelectionOptions):
    """Selection of samples and modalities of a store; options left out do not restrict it.

    A sample with an unknown value does not match an option on that value: without a date, without
    a cloud fraction or without a measured misalignment.

    Example:
        >>> salibi_data.Selection(splits=("train",), limit=100)
        Selection(splits=('train',), limit=100)
    """

    def __repr__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        texts = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        return f"Selection({', '.join(texts)})"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dates is not None:
            parse_dates(self.dates)
        if self.bounds_lonlat is not None:
            spans_within(self.bounds_lonlat, 0)

    @property
    def columns(self) -> list[str]:
        """Columns of ``samples.parquet`` that :meth:`rows` reads."""
        return [SHIFT_COLUMN] if self.max_shift_m is not None else []

    def rows(
        self, attributes: StoreAttributes, arrays: Mapping[str, Any], table: Any = None
    ) -> NDArray[np.int64]:
        """Return the rows of the samples that match, ascending, shape (M,) with M > 0.

        Args:
            attributes: attributes of the store.
            arrays: index arrays by name, of NumPy or Zarr; the Zarr group is such a mapping.
            table: pyarrow table with :attr:`columns`, a row per sample; needed only if there are any.

        Raises:
            SelectionError: no sample matches.
            UsageError: the store lacks a modality or a measure that the selection names, or the
                file of the area cannot be read.
        """
        tile = np.asarray(arrays["tile"][:]).astype(np.int64)
        tiles = Tiles(zoom=attributes.base_zoom, x=tile[:, 1], y=tile[:, 2])
        matches = np.ones(len(tiles), dtype=bool)
        remaining = {}
        for test, passes in self._tests(attributes, arrays, table, tiles):
            matches &= passes
            remaining[test] = int(matches.sum())
        if not matches.any():
            counts = ", ".join(f"{count} after {name}" for name, count in remaining.items())
            raise SelectionError(
                f"none of {len(tiles)} samples matches: of these there are {counts}. Ask for less."
            )
        rows: NDArray[np.int64] = np.flatnonzero(matches)
        if self.limit is None or self.limit >= len(rows):
            return rows
        # A hash of the tile, not a random number: the same tiles in another store of them.
        hashes = sampling_hash(tiles.zoom, tiles.x[rows], tiles.y[rows])
        return np.sort(rows[np.argsort(hashes)[: self.limit]])

    def _tests(
        self, attributes: StoreAttributes, arrays: Mapping[str, Any], table: Any, tiles: Tiles
    ) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield the name of each test, and which samples pass it, shape (N,)."""
        sensors = self.restrict(attributes).sensors
        if self.splits is not None:
            yield "split", np.isin(arrays["split"][:], [SPLITS[name] for name in self.splits])
        if self._area is not None:
            yield "area", self._area.holds(tiles)
        if self.dates is not None:
            columns = [attributes.sensors.index(name) for name in sensors]
            yield "dates", self._acquired_within(arrays["acquired"][:][:, columns])
        # NaN means "not measured"; comparing with it is false, so such samples do not pass.
        if self.max_cloud is not None:
            yield "clouds", arrays["cloud_fraction"][:] <= np.float32(self.max_cloud)
        if self.max_shift_m is not None:
            yield "shift", _shifts_m(table) <= np.float32(self.max_shift_m)

    def restrict(self, attributes: StoreAttributes) -> StoreAttributes:
        """Return a store's attributes with only the selected modalities and their sensors.

        Raises:
            UsageError: the store lacks a modality.
        """
        if self.modalities is None:
            return attributes
        if not self.modalities or set(self.modalities) - set(attributes.modalities):
            raise UsageError(
                f"modalities {', '.join(self.modalities) or 'none'} were asked for, and the store "
                f"has {', '.join(attributes.modalities)}; choose from these."
            )
        modalities = {n: m for n, m in attributes.modalities.items() if n in self.modalities}
        used = {modality.sensor for modality in modalities.values()}
        sensors = tuple(name for name in attributes.sensors if name in used)
        return replace(attributes, modalities=modalities, sensors=sensors)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON; equal results select the same samples of the same store."""
        content: dict[str, Any] = {
            "splits": sorted(set(self.splits)) if self.splits else None,
            "bounds_lonlat": list(self.bounds_lonlat) if self.bounds_lonlat else None,
            "aoi_sha256": self._outline and hashlib.sha256(self._outline.wkb).hexdigest(),
            "dates": self.dates,
            "max_cloud": self.max_cloud,
            "max_shift_m": self.max_shift_m,
            "limit": self.limit,
            "modalities": sorted(set(self.modalities)) if self.modalities else None,
        }
        return {key: value for key, value in content.items() if value is not None}

    @cached_property
    def _outline(self) -> Any:
        """Geometry of the area's file, read once; None without a file."""
        return None if self.aoi is None else read_outline(Path(self.aoi))

    @property
    def _area(self) -> Any:
        if self._outline is None and self.bounds_lonlat is None:
            return None
        box = self.bounds_lonlat or self._outline.bounds
        return Area(boxes=(box,), outline=self._outline)

    def _acquired_within(self, acquired_s: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each sample whether all its times are known and within the dates, shape (N,)."""
        first, last = parse_dates(self.dates or "")
        within = (acquired_s >= first.timestamp()) & (acquired_s <= last.timestamp())
        known = acquired_s != UNKNOWN_TIME
        every: NDArray[np.bool_] = (within & known).all(axis=1)
        return every


def _shifts_m(table: Any) -> NDArray[np.float32]:
    """Return the measured shift of each sample, NaN where there is none, shape (N,)."""
    if table is None or SHIFT_COLUMN not in table.column_names:
        raise UsageError(
            "the alignment of this store's samples was not measured; leave the largest shift out."
        )
    shifts_m: NDArray[np.float32] = table[SHIFT_COLUMN].to_numpy().astype(np.float32)
    return shifts_m
