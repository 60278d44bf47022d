"""Checks a store's arrays and its samples' table: shapes, grid, order, splits, times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.plans.splits import leakage, num_leaking_neighbours
from salibi_data.store.schema import (
    INDEX_ARRAYS,
    SAMPLES_NAME,
    SPLITS,
    UNKNOWN_TIME,
    StoreAttributes,
)
from salibi_data.store.tiles import ground_gsd_m, tile_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from salibi_data.store.open import StoreFiles


def check_arrays(group: Any, attributes: StoreAttributes) -> Iterator[str]:
    """Yield each array that is missing, or has a wrong type, shape or dimension names."""
    num_samples = group["tile"].shape[0] if "tile" in group else 0
    if num_samples == 0:
        yield "there is no sample"
    expected: dict[str, tuple[str, tuple[str, ...]]] = dict(INDEX_ARRAYS)
    for name, modality in attributes.modalities.items():
        expected[name] = "uint8", modality.dims
    for name, (dtype, dims) in expected.items():
        if name not in group:
            yield f"array {name} is missing"
            continue
        array = group[name]
        if str(array.dtype) != dtype or array.metadata.dimension_names != dims:
            yield f"array {name} is {array.dtype} {array.metadata.dimension_names}, not {dtype} {dims}"
        if array.shape[0] != num_samples:
            yield f"array {name} has {array.shape[0]} samples, not {num_samples}"
    for name, modality in attributes.modalities.items():
        shape = (len(modality.bands), modality.size_px, modality.size_px)
        if name in group and group[name].shape[1:] != shape:
            yield f"array {name} holds {group[name].shape[1:]} per sample, not {shape}"


def check_index(group: Any, attributes: StoreAttributes) -> Iterator[str]:
    """Yield each error of the index arrays: zooms, order, ground resolution, splits."""
    tile, split = group["tile"][:], group["split"][:]
    zoom, x, y = tile[:, 0], tile[:, 1].astype(np.int64), tile[:, 2].astype(np.int64)
    if np.any(zoom != attributes.base_zoom):
        yield f"a tile is not at the base zoom {attributes.base_zoom}"
        # The following checks use the base zoom.
        return
    if np.any(np.diff(tile_ids(attributes.base_zoom, x, y)) <= 0):
        yield "samples are not in Hilbert order, each tile once"
    if not np.allclose(group["gsd_m"][:], ground_gsd_m(attributes.base_zoom, y), rtol=1e-6):
        yield "gsd_m differs from the tiles' ground resolution"
    if np.any(split > max(SPLITS.values())):
        yield "a split code is unknown"
    num_leaks = num_leaking_neighbours(x, y, split)
    if num_leaks:
        yield f"{num_leaks} pairs of neighbouring tiles are in different splits"


def check_table(files: StoreFiles, group: Any, attributes: StoreAttributes) -> Iterator[str]:
    """Yield where ``samples.parquet`` and the index arrays differ, and scenes in several splits.

    Raises:
        StoreError: the table cannot be read.
        PlanError: the table is damaged, or was not written by this software.
    """
    table, metadata = files.samples()
    if metadata.get("variant", {}).get("split_by") == "scenes":
        items = {s: table[f"{s}_items"].to_pylist() for s in attributes.sensors}
        for sensor, counts in leakage(group["split"][:], items).items():
            if counts["scenes_in_several_splits"]:
                yield f"{counts['scenes_in_several_splits']} {sensor} scenes are in several splits"
    tile = np.stack([table[name].to_numpy() for name in "zxy"], axis=1)
    if not np.array_equal(tile, group["tile"][:]):
        yield f"{SAMPLES_NAME} lists other tiles than the array tile"
    elif not np.array_equal(table["split"].to_numpy(), group["split"][:]):
        yield f"{SAMPLES_NAME} lists other splits than the array split"
    for column, sensor in enumerate(attributes.sensors):
        times = [
            UNKNOWN_TIME if time is None else int(time.timestamp())
            for time in table[f"{sensor}_acquired"].to_pylist()
        ]
        if times != group["acquired"][:, column].tolist():
            yield f"{SAMPLES_NAME} lists other {sensor} times than the array acquired"
