"""Small synthetic stores, written with plain zarr after ``salibi_data.store.schema``.

Each sample is a landscape of its own (fields of six land covers, hills, a road) that all sensors
see: what one image shows, the others show in their own way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr

from salibi_data.store.schema import (
    ATTRIBUTES_KEY,
    INDEX_ARRAYS,
    SPLITS,
    TILE_PX,
    Modality,
    StoreAttributes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE_ZOOM = 15
FINE_PX = 2 * TILE_PX
ALL = ("sar", "lores", "hires", "hires_4x")
SENSORS = {"sar": "sentinel-1", "lores": "sentinel-2", "hires": "naip", "hires_4x": "naip"}

COLOURS = np.array(
    [(30, 60, 90), (45, 90, 40), (110, 130, 60), (170, 150, 110), (150, 150, 150), (90, 70, 50)],
    np.float32,
)
"""Red, green, blue of water, forest, crops, bare soil, town, scrub."""
BACKSCATTER = np.array(
    [(30, 20), (130, 120), (110, 80), (80, 50), (190, 130), (120, 95)], np.float32
)
"""VV and VH of the same, in stored values."""
ROUGHNESS = np.array([2, 18, 8, 5, 30, 12], np.float32)
"""Deviation of the high-resolution texture of the same."""


def landscape(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One sample's images, per modality (C, H, W) uint8 without nodata."""
    weights = rng.dirichlet(np.full(len(COLOURS), 0.6))
    cover = _fields(rng, weights)
    light = _smooth(rng, 5) * 12
    season = rng.normal(0, 10, 3)[:, None, None]
    ground = COLOURS[cover].transpose(2, 0, 1) + season + light
    road = abs(_smooth(rng, 3)) < 0.03
    ground[:, road] = 200
    texture = rng.normal(0, 1, (FINE_PX, FINE_PX)) * ROUGHNESS[cover]
    fine = _byte(ground * 1.1 + texture)
    coarse = _halve(ground) + rng.normal(0, 4, (3, TILE_PX, TILE_PX))
    echo = _halve(BACKSCATTER[cover].transpose(2, 0, 1) + 2 * light + season[:2])
    speckle = rng.gamma(16, 1 / 16, (2, TILE_PX, TILE_PX))
    return {
        "sar": _byte(echo * speckle),
        "lores": _byte(coarse),
        "hires": _byte(_halve(fine.astype(np.float32))),
        "hires_4x": fine,
    }


def write_store(
    path: Path,
    *,
    num_samples: int = 24,
    modalities: Sequence[str] = ALL,
    validation: int = 6,
    test: int = 0,
    nodata_samples: int = 2,
    samples_per_shard: int = 8,
    seed: int = 0,
) -> Path:
    """Write a store of synthetic landscapes; give back ``path``.

    Args:
        path: the group's folder.
        num_samples: samples of all splits together.
        modalities: which of sar, lores, hires, hires_4x it holds.
        validation: samples of the validation split (the last ones before those of the test).
        test: samples of the test split (the last ones).
        nodata_samples: so many of the first samples have a corner without observation.
        samples_per_shard: length of a shard; a chunk is one sample.
        seed: of everything.
    """
    samples = [_sample(seed, i, hole=i < nodata_samples) for i in range(num_samples)]
    images = {name: np.stack([sample[name] for sample in samples]) for name in modalities}
    split = np.full(num_samples, SPLITS["train"], np.uint8)
    split[num_samples - validation - test : num_samples - test] = SPLITS["validation"]
    split[num_samples - test :] = SPLITS["test"]
    described = {name: describe(name, images[name][split == 0]) for name in modalities}
    attributes = StoreAttributes(
        variant="synthetic",
        catalog="tests",
        base_zoom=BASE_ZOOM,
        sensors=("sentinel-1", "sentinel-2", "naip"),
        modalities=described,
        plan_digest=f"{seed:064x}",
        software_version="0.1.0",
    )
    group = zarr.open_group(path, mode="w")
    group.attrs[ATTRIBUTES_KEY] = attributes.to_dict()
    for name, values in images.items():
        array = group.create_array(
            name,
            shape=values.shape,
            dtype="uint8",
            chunks=(1, *values.shape[1:]),
            shards=(samples_per_shard, *values.shape[1:]),
            dimension_names=described[name].dims,
        )
        array[:] = values
    for name, values in _index(split).items():
        dtype, dims = INDEX_ARRAYS[name]
        array = group.create_array(
            name, shape=values.shape, dtype=dtype, chunks=values.shape, dimension_names=dims
        )
        array[:] = values
    return path


def describe(name: str, images: np.ndarray | None = None) -> Modality:
    """The modality called ``name``, with the statistics of ``images`` (N, C, H, W) if given."""
    fine = name == "hires_4x"
    num_bands = 2 if name == "sar" else 3
    mean = (120.0,) * num_bands
    std = (50.0,) * num_bands
    if images is not None:
        valid = np.ma.masked_equal(images, 0)
        mean = tuple(float(value) for value in valid.mean(axis=(0, 2, 3)))
        std = tuple(float(value) for value in valid.std(axis=(0, 2, 3)))
    return Modality(
        name=name,
        sensor=SENSORS[name],
        zoom=BASE_ZOOM + fine,
        gsd_ratio=0.5 if fine else 1.0,
        size_px=FINE_PX if fine else TILE_PX,
        bands=("vv", "vh") if name == "sar" else ("red", "green", "blue"),
        units="dB" if name == "sar" else "display",
        scale=(0.15,) * num_bands if name == "sar" else (1.0,) * num_bands,
        offset=(-30.0,) * num_bands if name == "sar" else (0.0,) * num_bands,
        mean=mean,
        std=std,
    )


def _sample(seed: int, number: int, *, hole: bool) -> dict[str, np.ndarray]:
    images = landscape(np.random.default_rng((seed, number)))
    if hole:
        for image in images.values():
            image[:, : image.shape[1] // 4, : image.shape[2] // 4] = 0
    return images


def _index(split: np.ndarray) -> dict[str, np.ndarray]:
    count = len(split)
    numbers = np.arange(count)
    return {
        "tile": np.stack([np.full(count, BASE_ZOOM), 5000 + numbers, 12000 + numbers], axis=1),
        "gsd_m": np.full(count, 3.7),
        "acquired": np.tile(1_600_000_000 + numbers[:, None], (1, 3)),
        "valid_fraction": np.ones((count, 3)),
        "cloud_fraction": np.zeros(count),
        "split": split,
    }


def _fields(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """Land cover (512, 512): the nearest of some random sites decides, with uneven borders."""
    sites = rng.uniform(0, FINE_PX, (int(rng.integers(6, 20)), 2)).astype(np.float32)
    kinds = rng.choice(len(weights), len(sites), p=weights)
    y, x = np.mgrid[0:FINE_PX, 0:FINE_PX].astype(np.float32)
    y, x = y + 25 * _smooth(rng, 8), x + 25 * _smooth(rng, 8)
    nearest = np.full((FINE_PX, FINE_PX), np.inf, np.float32)
    cover = np.zeros((FINE_PX, FINE_PX), np.int64)
    for (site_y, site_x), kind in zip(sites, kinds, strict=True):
        distance = (y - site_y) ** 2 + (x - site_x) ** 2
        cover[distance < nearest] = kind
        nearest = np.minimum(distance, nearest)
    return cover


def _smooth(rng: np.random.Generator, knots: int) -> np.ndarray:
    """A random field (512, 512) of deviation about 1, linear between ``knots`` x ``knots``."""
    values = rng.normal(0, 1, (knots, knots)).astype(np.float32)
    at = np.linspace(0, knots - 1, FINE_PX, dtype=np.float32)
    low = np.minimum(at.astype(int), knots - 2)
    share = at - low
    rows = values[low] * (1 - share)[:, None] + values[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def _halve(image: np.ndarray) -> np.ndarray:
    """Mean of each 2x2 pixels."""
    bands, height, width = image.shape
    return image.reshape(bands, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def _byte(image: np.ndarray) -> np.ndarray:
    """Round to the valid stored values 1..255."""
    return np.clip(np.rint(image), 1, 255).astype(np.uint8)
