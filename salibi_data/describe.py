"""What is in a store: figures, and samples to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data import geoparquet
from salibi_data.schema import SAMPLES_NAME, SPLITS, StoreAttributes
from salibi_data.verifying import open_store

if TYPE_CHECKING:
    from numpy.typing import NDArray


def info(store: str | Path) -> dict[str, Any]:
    """Counts, grid, modalities, statistics, splits, size, sources and licences of a store.

    Raises:
        StoreError: no store is there.
        SchemaError: the attributes are damaged or of a newer schema.
    """
    folder = Path(store)
    group, attributes = open_store(folder)
    split, gsd_m = group["split"][:], group["gsd_m"][:]
    table, _ = geoparquet.read(folder / SAMPLES_NAME)
    return {
        "store": str(folder),
        "variant": attributes.variant,
        "catalog": attributes.catalog,
        "schema_version": attributes.schema_version,
        "software_version": attributes.software_version,
        "plan_digest": attributes.plan_digest,
        "samples": len(split),
        "splits": {name: int((split == code).sum()) for name, code in SPLITS.items()},
        "base_zoom": attributes.base_zoom,
        "gsd_m": [float(gsd_m.min()), float(gsd_m.max())],
        "acquired": {sensor: _dates(table, sensor) for sensor in attributes.sensors},
        "scenes": {sensor: _num_scenes(table, sensor) for sensor in attributes.sensors},
        "scenes_shared_by_splits": {
            sensor: _num_shared_scenes(table, sensor) for sensor in attributes.sensors
        },
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "modalities": attributes.to_dict()["modalities"],
    }


def _dates(table: Any, sensor: str) -> list[str]:
    days = sorted(time.date().isoformat() for time in table[f"{sensor}_acquired"].to_pylist())
    return [days[0], days[-1]]


def _num_scenes(table: Any, sensor: str) -> int:
    return len({item for items in table[f"{sensor}_items"].to_pylist() for item in items})


def _num_shared_scenes(table: Any, sensor: str) -> int:
    """Scenes that samples of more than one split are made from."""
    splits: dict[str, set[int]] = {}
    codes = table["split"].to_pylist()
    for items, code in zip(table[f"{sensor}_items"].to_pylist(), codes, strict=True):
        for item in items:
            splits.setdefault(item, set()).add(code)
    return sum(len(found) > 1 for found in splits.values())


def figure_rows(
    store: str | Path, *, num_samples: int = 4
) -> tuple[StoreAttributes, dict[str, dict[str, NDArray[np.uint8]]]]:
    """Samples spread evenly over the store.

    Returns:
        The store's attributes; and by tile (``zoom/column/row``) each modality's image as
        stored, (bands, rows, columns).

    Raises:
        StoreError: no store is there.
        SchemaError: the attributes are damaged or of a newer schema.
    """
    group, attributes = open_store(store)
    count = group["tile"].shape[0]
    shares = (np.arange(min(num_samples, count)) + 0.5) / min(num_samples, count)
    rows = {}
    for position in (shares * count).astype(int).tolist():
        tile = "/".join(str(value) for value in group["tile"][position].tolist())
        rows[tile] = {name: group[name][position] for name in attributes.modalities}
    return attributes, rows
