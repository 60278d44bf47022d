"""What is in a store: figures, and samples to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.plans.splits import leakage
from salibi_data.store.open import StoreFiles
from salibi_data.store.schema import SPLITS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def info(store: str | Path) -> dict[str, Any]:
    """Counts, grid, modalities, statistics, splits, size, sources and licences of a store.

    Args:
        store: path or URL of a store, or of a published dataset: its newest release.

    Raises:
        StoreError: no store is there, or its attributes are damaged or of a newer schema.

    Example:
        >>> facts = salibi_data.info(store_path)
        >>> facts["variant"], facts["base_zoom"], sorted(facts["modalities"])
        ('micro', 17, ['hires', 'hires_4x', 'lores', 'sar'])
    """
    files = StoreFiles.at(store)
    group, attributes = files.open()
    split, gsd_m = group["split"][:], group["gsd_m"][:]
    table, about = files.samples()
    return {
        "store": files.where,
        "variant": attributes.variant,
        "catalog": attributes.catalog,
        "schema_version": attributes.schema_version,
        "software_version": attributes.software_version,
        "plan_digest": attributes.plan_digest,
        "notes": list(attributes.notes),
        "made_from": about.get("made_from"),
        "samples": len(split),
        "splits": _counts(split),
        "base_zoom": attributes.base_zoom,
        "gsd_m": [float(gsd_m.min()), float(gsd_m.max())],
        "acquired": {sensor: _dates(table, sensor) for sensor in attributes.sensors},
        "leakage": leakage(split, {s: table[f"{s}_items"].to_pylist() for s in attributes.sensors}),
        "quality": {name: _quartiles(table[name].to_numpy()) for name in _measures(table)},
        "bytes": sum(files.sizes().values()),
        "modalities": attributes.to_dict()["modalities"],
    }


def _counts(split: NDArray[np.uint8]) -> dict[str, int]:
    """Samples of each split; the guard's where there is one, as few stores have it."""
    counts = {name: int((split == code).sum()) for name, code in SPLITS.items()}
    return {name: count for name, count in counts.items() if count or name != "guard"}


def _dates(table: Any, sensor: str) -> list[str]:
    """The first and the last day of those that are known."""
    times = table[f"{sensor}_acquired"].drop_null().to_pylist()
    days = sorted(time.date().isoformat() for time in times)
    return [days[0], days[-1]] if days else []


def _measures(table: Any) -> list[str]:
    """Columns that say how good samples are."""
    ends = ("_enlargement", "_fraction", "_shift_m", "_peak")
    return [name for name in table.column_names if name.endswith(ends) or "_days_after_" in name]


def _quartiles(values: NDArray[np.float32]) -> list[float | None]:
    """Quarter, half and three quarters of the samples lie below; None where nothing was measured."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return [None, None, None]
    return [round(float(value), 4) for value in np.quantile(known, (0.25, 0.5, 0.75))]
