"""What is in a store, in figures and in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data import geoparquet
from salibi_data.schema import NODATA, SAMPLES_NAME, SPLITS, Modality, StoreAttributes
from salibi_data.verifying import open_store

if TYPE_CHECKING:
    from numpy.typing import NDArray


_RGB: Final = (0, 1, 2)
_STRETCH_STD: Final = 2.5


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


def figure_rows(store: str | Path, *, num_samples: int = 4) -> list[tuple[str, Mapping[str, Any]]]:
    """Samples spread evenly over the store, each modality as an RGB picture.

    Returns:
        Per sample a label and, per modality, uint8 (rows, columns, 3) at its own size.
    """
    group, attributes = open_store(store)
    count = group["tile"].shape[0]
    num_samples = max(1, min(num_samples, count))
    positions = np.unique(np.linspace(0, count - 1, num_samples + 2).astype(int)[1:-1])
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for position in positions.tolist() or [0]:
        zoom, x, y = group["tile"][position].tolist()
        pictures = {
            name: picture(group[name][position], modality)
            for name, modality in attributes.modalities.items()
        }
        rows.append((f"{zoom}/{x}/{y}", pictures))
    return rows


def titles(attributes: StoreAttributes) -> dict[str, str]:
    """Column titles: the modality, its sensor, zoom and size."""
    return {
        name: f"{name}: {m.sensor}, zoom {m.zoom}, {m.size_px} px"
        for name, m in attributes.modalities.items()
    }


def picture(image: NDArray[np.uint8], modality: Modality) -> NDArray[np.uint8]:
    """One image as RGB.

    Two SAR bands become the composite VV, VH, VV, each stretched over its mean and 2.5 standard
    deviations; other images show their first three bands, or the first in grey.

    Args:
        image: (bands, rows, columns) as stored.
        modality: its description.

    Returns:
        uint8 (rows, columns, 3).
    """
    if modality.bands == ("vv", "vh") and modality.units == "dB":
        return _sar_composite(image, modality)
    bands = image[list(_RGB)] if len(image) >= len(_RGB) else image[[0, 0, 0]]
    return np.ascontiguousarray(np.moveaxis(bands, 0, -1))


def _sar_composite(image: NDArray[np.uint8], modality: Modality) -> NDArray[np.uint8]:
    mean = np.array(modality.mean, np.float32)[:, None, None]
    std = np.array(modality.std, np.float32)[:, None, None]
    stretched = np.clip(0.5 + (image - mean) / (2 * _STRETCH_STD * std), 0, 1)
    rgb = np.round(255 * np.moveaxis(stretched[[0, 1, 0]], 0, -1)).astype(np.uint8)
    rgb[(image == NODATA).any(axis=0)] = 0
    return rgb
