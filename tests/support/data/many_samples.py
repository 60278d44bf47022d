"""Stores of as many samples as one likes, cheap to write: the images of one shard, over and over."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import zarr

from salibi_data.store import geoparquet
from salibi_data.store.schema import (
    ATTRIBUTES_KEY,
    INDEX_ARRAYS,
    MANIFEST_NAME,
    SAMPLES_NAME,
    StoreAttributes,
)
from salibi_data.store.tiles import ground_gsd_m, hilbert_order, tile_outlines
from tests.support.model import stores

ZOOM = 15
SENSORS = ("sentinel-1", "sentinel-2", "naip")
TOWN = (16, 8)
"""Tiles of one cluster, columns and rows."""
UNITED_STATES = (5400, 11500, 9900, 13400)
"""Columns and rows of zoom 15: left, top, right, bottom."""
PER_SHARD = 64
DIFFERENT = 4
"""Different samples in the shard."""
HREF = "https://tiles.example/{}.tif?sig=secret"
"""A store has no signed addresses; a page would not show them either."""


def write_many(
    path: Path, *, num_samples: int, modalities: Sequence[str] = stores.ALL, seed: int = 0
) -> Path:
    """Write a store of clusters all over the United States; give back ``path``."""
    rng = np.random.default_rng(seed)
    x, y = _tiles(rng, num_samples)
    attributes = StoreAttributes(
        variant="many",
        catalog="tests",
        base_zoom=ZOOM,
        sensors=SENSORS,
        modalities={name: stores.describe(name) for name in modalities},
        plan_digest=f"{seed:064x}",
        software_version="0.1.0",
    )
    group = zarr.open_group(path, mode="w")
    group.attrs[ATTRIBUTES_KEY] = attributes.to_dict()
    columns = _index(rng, x, y)
    for name, values in columns.items():
        dtype, dims = INDEX_ARRAYS[name]
        array = group.create_array(
            name, shape=values.shape, dtype=dtype, chunks=values.shape, dimension_names=dims
        )
        array[:] = values
    _write_images(path, group, attributes, num_samples)
    _write_table(path / SAMPLES_NAME, rng, columns)
    (path / MANIFEST_NAME).write_text(json.dumps({"files": {}}))
    return path


def _tiles(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    width, height = TOWN
    num_towns = -(-count * 5 // (4 * width * height))  # some will overlap
    left, top, right, bottom = UNITED_STATES
    corners = np.stack(
        [rng.integers(left, right, num_towns), rng.integers(top, bottom, num_towns)], axis=1
    )
    inside = np.stack(np.divmod(np.arange(width * height), height), axis=1)
    tiles = np.unique((corners[:, None] + inside).reshape(-1, 2), axis=0)
    tiles = tiles[hilbert_order(ZOOM, *tiles.T)][:count]
    assert len(tiles) == count
    return tiles[:, 0], tiles[:, 1]


def _index(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    count = len(x)
    cloud = np.clip(rng.exponential(0.05, count), 0, 1)
    cloud[rng.random(count) < 0.02] = np.nan
    seen = 1_500_000_000 + (rng.random((count, len(SENSORS))) * 2e8).astype(np.int64)
    blocks = (x >> 2) * 7919 + (y >> 2) * 104_729
    share = blocks * 2_654_435_761 % 2**32 / 2**32
    return {
        "tile": np.stack([np.full(count, ZOOM), x, y], axis=1),
        "gsd_m": ground_gsd_m(ZOOM, y),
        "acquired": seen,
        "valid_fraction": np.ones((count, len(SENSORS))),
        "cloud_fraction": cloud,
        "split": (share > 0.8).astype(np.uint8) + (share > 0.9),
    }


def _write_images(
    path: Path, group: zarr.Group, attributes: StoreAttributes, num_samples: int
) -> None:
    """One shard of each modality, and links to it for all others."""
    rng = np.random.default_rng(1)
    drawn = [stores.landscape(rng) for _ in range(DIFFERENT)]
    for name, modality in attributes.modalities.items():
        images = np.stack([sample[name] for sample in drawn])
        array = group.create_array(
            name,
            shape=(num_samples, *images.shape[1:]),
            dtype="uint8",
            chunks=(1, *images.shape[1:]),
            shards=(PER_SHARD, *images.shape[1:]),
            dimension_names=modality.dims,
        )
        array[:PER_SHARD] = images[np.arange(min(PER_SHARD, num_samples)) % DIFFERENT]
        first = path / name / "c/0/0/0/0"
        for number in range(1, -(-num_samples // PER_SHARD)):
            link = path / name / f"c/{number}/0/0/0"
            link.parent.mkdir(parents=True)
            os.link(first, link)


def _write_table(path: Path, rng: np.random.Generator, columns: dict[str, np.ndarray]) -> None:
    z, x, y = columns["tile"].T
    count = len(x)
    shift = rng.gamma(2, 1.5, count)
    shift[rng.random(count) < 0.05] = np.nan
    table = {
        "z": pa.array(z),
        "x": pa.array(x),
        "y": pa.array(y),
        "gsd_m": pa.array(columns["gsd_m"], pa.float32()),
        "split": pa.array(columns["split"]),
        "cloud_fraction": pa.array(columns["cloud_fraction"], pa.float32()),
        "alignment_shift_m": pa.array(shift, pa.float32()),
    }
    for number, sensor in enumerate(SENSORS):
        seconds = columns["acquired"][:, number]
        table[f"{sensor}_acquired"] = pa.array(seconds, pa.timestamp("s", "UTC"))
        scenes = [f"{sensor}-{i // 1000}" for i in range(count)]
        table[f"{sensor}_items"] = pa.array([[scene] for scene in scenes])
        table[f"{sensor}_hrefs"] = pa.array([[HREF.format(scene)] for scene in scenes])
    with geoparquet.write_rows(path, dict) as add_rows:
        add_rows(table, tile_outlines(ZOOM, x, y))
