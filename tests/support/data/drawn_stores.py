"""Stores of flat images at any tiles, with any dates, clouds and splits: made in moments."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from salibi_data.assembly.shards import StoreContents, make_store
from salibi_data.assembly.writer import SAMPLES_PER_SHARD
from salibi_data.store import geoparquet
from salibi_data.store.schema import UNKNOWN_TIME, StoreAttributes
from salibi_data.store.tiles import ground_gsd_m, tile_ids, tile_outlines
from tests.support.model.stores import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ZOOM = 15


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Content of one tile."""

    x: int
    y: int
    colour: int = 100
    acquired: int = 1_600_000_000
    cloud_fraction: float = 0.0
    split: int = 0
    scene: str = "S2A"


@dataclass(frozen=True)
class _Flat:
    """Images of one colour each."""

    colours: tuple[int, ...]

    def read(self) -> dict[str, NDArray[np.uint8]]:
        flat = np.array(self.colours, np.uint8)[:, None, None, None]
        return {"lores": np.broadcast_to(flat, (len(flat), 3, 256, 256))}


def draw_store(path: Path, samples: Sequence[Sample], **changed: Any) -> Path:
    """Write a store of low-resolution images; give back ``path``.

    Args:
        path: the group's folder.
        samples: in any order, each tile once.
        changed: other attributes of the store; its ``zoom``; ``split_by`` of its variant,
            ``meaning`` of its modality.
    """
    zoom = changed.pop("zoom", ZOOM)
    ids = tile_ids(zoom, [s.x for s in samples], [s.y for s in samples])
    samples = [samples[at] for at in np.argsort(ids)]
    split_by, meaning = changed.pop("split_by", None), changed.pop("meaning", {})
    lores = replace(describe("lores"), **meaning)
    about_store = {
        "variant": "drawn",
        "catalog": "tests",
        "base_zoom": zoom,
        "sensors": ("sentinel-2",),
        "software_version": "0.1.0",
        **changed,
    }
    about = {"variant": {"split_by": split_by, "modality": []}} if split_by else {}
    content = json.dumps([[vars(s) for s in samples], repr(about_store), repr(meaning), about])
    digest = hashlib.sha256(content.encode()).hexdigest()
    x, y = (np.array([getattr(s, name) for s in samples]) for name in "xy")

    def shard(number: int) -> _Flat:
        start = number * SAMPLES_PER_SHARD
        return _Flat(tuple(s.colour for s in samples[start : start + SAMPLES_PER_SHARD]))

    contents = StoreContents(
        attributes=StoreAttributes(**about_store, plan_digest=digest, modalities={"lores": lores}),
        index={
            "tile": np.stack([np.full(len(x), zoom), x, y], axis=1),
            "gsd_m": ground_gsd_m(zoom, y),
            "acquired": np.array([[s.acquired] for s in samples]),
            "cloud_fraction": np.array([s.cloud_fraction for s in samples]),
            "split": np.array([s.split for s in samples]),
        },
        shard=shard,
        write_samples=lambda at: _write_table(at, samples, zoom, about),
        digest=digest[:24],
    )
    make_store(path, contents)
    return path


def _write_table(
    path: Path,
    samples: Sequence[Sample],
    zoom: int,
    about: Mapping[str, Any],
) -> None:
    x, y = (np.array([getattr(s, name) for s in samples]) for name in "xy")
    times = [None if s.acquired == UNKNOWN_TIME else s.acquired * 10**6 for s in samples]
    columns = {
        "z": pa.array(np.full(len(x), zoom)),
        "x": pa.array(x),
        "y": pa.array(y),
        "split": pa.array([s.split for s in samples], pa.uint8()),
        "sentinel-2_items": pa.array([[s.scene] for s in samples]),
        "sentinel-2_acquired": pa.array(times, pa.timestamp("us", tz="UTC")),
    }
    with geoparquet.write_rows(path, lambda: about) as add_rows:
        add_rows(columns, tile_outlines(zoom, x, y))
