"""The plan: which tiles become samples, from which scenes, in which order. Made once, then fixed.

A plan is a GeoParquet file with a row per sample, and the scenes, the variant and the catalog it
was made with in its metadata; a build needs nothing else and never searches. Equal content,
equal digest, equal dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data import geoparquet, splits
from salibi_data.catalog import Catalog, catalog_from_dict
from salibi_data.errors import PlanError
from salibi_data.grid import TileXYZ, ground_gsd_m, tile_ids
from salibi_data.search import Scene
from salibi_data.select import Choice, tile_polygon
from salibi_data.variant import Variant, variant_from_dict

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PLAN_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Samples in the order of the store, with everything a build needs."""

    variant: Variant
    catalog: Catalog
    choices: tuple[Choice, ...]
    lost: Mapping[str, int]
    """Candidate tiles left out, by reason."""
    request: Mapping[str, Any]
    """What was asked for: an equal request need not be searched again."""

    @cached_property
    def split(self) -> NDArray[np.uint8]:
        """Split code per sample, shape (N,)."""
        return splits.assign(self.variant, *self.columns_rows())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides the dataset's bytes; a local catalog's place does not count."""
        content = self._metadata()
        content["catalog"].pop("url")
        content.pop("lost")
        for key in ("summary", "region", "target_samples"):
            content["variant"].pop(key)
        content["samples"] = [
            [*choice.tile, {name: [s.id for s in used] for name, used in choice.scenes.items()}]
            for choice in self.choices
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def scenes(self) -> dict[str, dict[str, Scene]]:
        """Every scene used: sensor, then id."""
        used: dict[str, dict[str, Scene]] = {name: {} for name in self.variant.sensors}
        for choice in self.choices:
            for sensor, scenes in choice.scenes.items():
                used[sensor].update((scene.id, scene) for scene in scenes)
        return used

    def write(self, path: Path) -> None:
        """Write the plan as GeoParquet; it appears whole or not at all."""
        outlines = [tile_polygon(choice.tile) for choice in self.choices]
        geoparquet.write(path, sample_columns(self), outlines, metadata=self._metadata())

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan that :meth:`write` wrote.

        Raises:
            PlanError: no plan there, or one of a newer version.
        """
        table, metadata = geoparquet.read(path)
        if metadata.get("plan_version") != PLAN_VERSION:
            raise PlanError(
                f"{path} has plan version {metadata.get('plan_version')}; expected {PLAN_VERSION}. "
                "Plan again with `salibi-data plan`."
            )
        variant = variant_from_dict(metadata["variant"], where=str(path))
        catalog = catalog_from_dict(metadata["catalog"], where=str(path), folder=path.parent)
        scenes = {
            sensor: {row["id"]: _scene_from_dict(sensor, row) for row in rows}
            for sensor, rows in metadata["scenes"].items()
        }
        choices = tuple(
            Choice(
                tile=TileXYZ(row["x"], row["y"], row["z"]),
                scenes={
                    name: tuple(scenes[name][id_] for id_ in row[f"{name}_items"])
                    for name in variant.sensors
                },
            )
            for row in table.drop_columns("geometry").to_pylist()
        )
        return cls(
            variant=variant,
            catalog=catalog,
            choices=choices,
            lost=metadata["lost"],
            request=metadata["request"],
        )

    def _metadata(self) -> dict[str, Any]:
        return {
            "plan_version": PLAN_VERSION,
            "variant": self.variant.to_dict(),
            "catalog": self.catalog.to_dict(),
            "scenes": {
                sensor: [_scene_to_dict(scene) for _, scene in sorted(used.items())]
                for sensor, used in self.scenes().items()
            },
            "lost": dict(self.lost),
            "request": dict(self.request),
        }

    def columns_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tile columns and rows of the samples, each of shape (N,)."""
        tiles = [choice.tile for choice in self.choices]
        return np.array([t.x for t in tiles], np.int64), np.array([t.y for t in tiles], np.int64)


def sample_columns(plan: Plan) -> dict[str, Any]:
    """Columns that a person reads in the plan and in ``samples.parquet`` (pyarrow arrays)."""
    import pyarrow as pa

    tiles = [choice.tile for choice in plan.choices]
    columns: dict[str, Any] = {
        name: pa.array([getattr(tile, name) for tile in tiles], pa.int32()) for name in "zxy"
    }
    x, y = plan.columns_rows()
    columns["tile_id"] = pa.array(tile_ids(plan.variant.base_zoom, x, y))
    columns["gsd_m"] = pa.array([ground_gsd_m(tile) for tile in tiles], pa.float32())
    columns["split"] = pa.array(plan.split)
    for sensor in plan.variant.sensors:
        used = [choice.scenes[sensor] for choice in plan.choices]
        columns[f"{sensor}_items"] = pa.array([[s.id for s in scenes] for scenes in used])
        columns[f"{sensor}_acquired"] = pa.array(
            [scenes[0].acquired_utc for scenes in used], pa.timestamp("us", tz="UTC")
        )
    return columns


def _scene_to_dict(scene: Scene) -> dict[str, Any]:
    return {
        "id": scene.id,
        "acquired": scene.acquired_utc.isoformat(),
        "footprint": scene.footprint,
        "hrefs": dict(scene.hrefs),
        "properties": dict(scene.properties),
    }


def _scene_from_dict(sensor: str, row: Mapping[str, Any]) -> Scene:
    return Scene(
        id=row["id"],
        sensor=sensor,
        acquired_utc=datetime.fromisoformat(row["acquired"]),
        footprint=row["footprint"],
        hrefs=row["hrefs"],
        properties=row["properties"],
    )
