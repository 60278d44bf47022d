"""Describes the content of a store: counts, times, quality, size, modalities."""

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
    """Describe a store as JSON content.

    Args:
        store: path or URL of the Zarr group, or of a published dataset: its newest release.

    Returns:
        Number of samples by split, base zoom, range of the ground sampling distance in metres,
        first and last day of each sensor, leakage between splits, quartiles of the quality
        measures, size in bytes, and every modality with its statistics, source and licence.

    Raises:
        StoreError: no store is there, or its attributes are damaged or of a newer schema.
        PlanError: the samples' table is damaged.

    Example:
        >>> facts = salibi_data.info(store_path)
        >>> facts["variant"], facts["base_zoom"], sorted(facts["modalities"])
        ('micro', 17, ['hires', 'hires_4x', 'lores', 'sar'])
    """
    files = StoreFiles.at(store)
    group, attributes = files.open()
    split, gsd_m = group["split"][:], group["gsd_m"][:]
    table, metadata = files.samples()
    return {
        "store": files.where,
        "variant": attributes.variant,
        "catalog": attributes.catalog,
        "schema_version": attributes.schema_version,
        "software_version": attributes.software_version,
        "plan_digest": attributes.plan_digest,
        "notes": list(attributes.notes),
        "made_from": metadata.get("made_from"),
        "samples": len(split),
        "splits": _split_counts(split),
        "base_zoom": attributes.base_zoom,
        "gsd_m": [float(gsd_m.min()), float(gsd_m.max())],
        "acquired": {sensor: _date_range(table, sensor) for sensor in attributes.sensors},
        "leakage": leakage(split, {s: table[f"{s}_items"].to_pylist() for s in attributes.sensors}),
        "quality": {name: _quartiles(table[name].to_numpy()) for name in _quality_columns(table)},
        "bytes": sum(files.sizes().values()),
        "modalities": attributes.to_dict()["modalities"],
    }


def _split_counts(split: NDArray[np.uint8]) -> dict[str, int]:
    """Return the number of samples by split; the guard, which few stores have, only if not 0."""
    counts = {name: int((split == code).sum()) for name, code in SPLITS.items()}
    return {name: count for name, count in counts.items() if count or name != "guard"}


def _date_range(table: Any, sensor: str) -> list[str]:
    """Return the first and last known day of a sensor, or nothing if none is known."""
    times = table[f"{sensor}_acquired"].drop_null().to_pylist()
    days = sorted(time.date().isoformat() for time in times)
    return [days[0], days[-1]] if days else []


def _quality_columns(table: Any) -> list[str]:
    """Return the names of the columns that measure the quality of samples."""
    suffixes = ("_enlargement", "_fraction", "_shift_m", "_peak")
    return [
        name for name in table.column_names if name.endswith(suffixes) or "_days_after_" in name
    ]


def _quartiles(values: NDArray[np.float32]) -> list[float | None]:
    """Return the quartiles of the finite values; three times None if there is none."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return [None, None, None]
    return [round(float(value), 4) for value in np.quantile(finite, (0.25, 0.5, 0.75))]
