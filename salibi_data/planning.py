"""The plan: which tiles become samples, from which scenes, in which order. Made once, then fixed.

A plan is a GeoParquet file with a row per sample, and the scenes, the variant and the catalog it
was made with in its metadata; a build needs nothing else and never searches. Equal content,
equal digest, equal dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data import geoparquet, splits
from salibi_data.catalog import (
    Catalog,
    Variant,
    catalog_from_dict,
    load_catalog,
    load_variant,
    variant_from_dict,
)
from salibi_data.errors import PlanError, SelectionError, UsageError
from salibi_data.grid import (
    Bounds,
    TileXYZ,
    ground_gsd_m,
    hilbert_sorted,
    tile_ids,
    tiles_within,
)
from salibi_data.search import Interval, Scene, parse_dates, resolve, search
from salibi_data.select import Choice, choose, tile_polygon

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAN_VERSION: Final = 1
SEARCH_CELL_ZOOM: Final = 9
"""Candidates are searched for by parent cell at this zoom: about 60 km, a few pages of items."""

Progress = Callable[[int, int], None]


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


def plan(
    variant: str | Variant,
    *,
    catalog: str | Catalog = "planetary-computer",
    bounds_lonlat: Bounds | None = None,
    dates: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Search a catalog and choose the scenes of every sample.

    Args:
        variant: name, path of a TOML file, or a :class:`~salibi_data.catalog.Variant`.
        catalog: name, path of a TOML file, or a :class:`~salibi_data.catalog.Catalog`.
        bounds_lonlat: (west, south, east, north) in degrees; candidates lie wholly within. By
            default the variant's regions; for a catalog on disk, all that it covers.
        dates: ``A/B``; limits every sensor.
        limit: at most so many samples, drawn evenly and reproducibly from all that can be made.
        progress: called with (searches done, searches in all).

    Raises:
        UsageError: unknown variant or catalog, malformed dates.
        CatalogError: the catalog cannot be reached or read.
        SelectionError: no tile is left.
    """
    variant = load_variant(variant) if isinstance(variant, str) else variant
    catalog = load_catalog(catalog) if isinstance(catalog, str) else catalog
    check_fit(variant, catalog)
    asked = request(variant, catalog, bounds_lonlat=bounds_lonlat, dates=dates, limit=limit)
    catalog = resolve(catalog, progress=progress)
    tiles = _candidates(variant, catalog, bounds_lonlat)
    guarded = _guarded(variant, tiles)
    interval = parse_dates(dates) if dates is not None else None
    scenes = _search_cells(variant, catalog, guarded, interval, progress)
    choices, lost = choose(guarded, scenes, variant, catalog)
    lost.update(guard=len(tiles) - len(guarded))
    if not choices:
        raise SelectionError(_nothing_left(variant, catalog, len(tiles), lost, scenes))
    return Plan(
        variant=variant,
        catalog=catalog,
        choices=tuple(_limited(choices, limit)),
        lost={reason: count for reason, count in sorted(lost.items()) if count},
        request=asked,
    )


def request(
    variant: Variant,
    catalog: Catalog,
    *,
    bounds_lonlat: Bounds | None,
    dates: str | None,
    limit: int | None,
) -> dict[str, Any]:
    """What a plan is asked for, in a form that can be compared; a catalog's place does not count."""
    provider = {**catalog.to_dict(), "url": "", "kind": ""}
    recipe = json.dumps([variant.to_dict(), provider], sort_keys=True).encode()
    return {
        "variant": variant.name,
        "catalog": catalog.name,
        "recipe_sha256": hashlib.sha256(recipe).hexdigest(),
        "bounds_lonlat": list(bounds_lonlat) if bounds_lonlat is not None else None,
        "dates": dates,
        "limit": limit,
    }


def check_fit(variant: Variant, catalog: Catalog) -> None:
    """Every modality's sensor, product and bands are in the catalog.

    Raises:
        UsageError: one is not.
    """
    for recipe in variant.modalities:
        sensor = catalog.sensors.get(recipe.sensor)
        product = sensor.products.get(recipe.product) if sensor else None
        unknown = set(recipe.bands) - set(product.bands) if product else set(recipe.bands)
        if unknown:
            raise UsageError(
                f"catalog {catalog.name!r} cannot give modality {recipe.name!r} of variant "
                f"{variant.name!r}: it has no {recipe.sensor} {recipe.product} with bands "
                f"{', '.join(sorted(unknown))}. Choose another catalog or variant."
            )


def used_assets(variant: Variant, catalog: Catalog, sensor_name: str) -> tuple[str, ...]:
    """Asset keys of a sensor that a build opens, the cloud mask's last."""
    sensor = catalog.sensors[sensor_name]
    recipes = [recipe for recipe in variant.modalities if recipe.sensor == sensor_name]
    assets = [
        sensor.products[recipe.product].bands[band].asset
        for recipe in recipes
        for band in recipe.bands
    ]
    if sensor.clouds is not None:
        assets.append(sensor.clouds.asset)
    return tuple(dict.fromkeys(assets))


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


def _candidates(variant: Variant, catalog: Catalog, bounds_lonlat: Bounds | None) -> list[TileXYZ]:
    if bounds_lonlat is not None:
        areas = [bounds_lonlat]
    elif catalog.kind == "static":
        # A catalog on disk is its own region: all that its first chosen sensor covers.
        areas = [_extent(search(catalog, _first_sensor(variant), (-180, -90, 180, 90), None))]
    else:
        areas = [_region_bounds(region.tile) for region in variant.regions]
    tiles = {tile for area in areas for tile in tiles_within(area, variant.base_zoom)}
    if not tiles:
        raise SelectionError(
            f"no tile of zoom {variant.base_zoom} lies wholly within {areas}; "
            "give a larger --bbox (west,south,east,north in degrees)."
        )
    return hilbert_sorted(tiles)


def _first_sensor(variant: Variant) -> str:
    return next(rule.sensor for rule in variant.selection if rule.sensor in variant.sensors)


def _extent(scenes: Sequence[Scene]) -> Bounds:
    import shapely
    from shapely.geometry import shape

    if not scenes:
        return (0.0, 0.0, 1e-9, 1e-9)
    west, south, east, north = shapely.total_bounds([shape(scene.footprint) for scene in scenes])
    return float(west), float(south), float(east), float(north)


def _region_bounds(tile: str) -> Bounds:
    import mercantile

    zoom, x, y = (int(part) for part in tile.split("/"))
    west, south, east, north = mercantile.bounds(x, y, zoom)
    return west, south, east, north


def _guarded(variant: Variant, tiles: Sequence[TileXYZ]) -> list[TileXYZ]:
    x, y = np.array([t.x for t in tiles], np.int64), np.array([t.y for t in tiles], np.int64)
    usable = splits.guarded(variant, x, y)
    return [tile for tile, keep in zip(tiles, usable.tolist(), strict=True) if keep]


def _search_cells(
    variant: Variant,
    catalog: Catalog,
    tiles: Sequence[TileXYZ],
    dates: Interval | None,
    progress: Progress | None,
) -> dict[str, list[Scene]]:
    """One search per parent cell and sensor, each scene once."""
    cells = _cells(variant.base_zoom, tiles)
    assets = {name: used_assets(variant, catalog, name) for name in variant.sensors}
    found: dict[str, dict[str, Scene]] = {sensor: {} for sensor in variant.sensors}
    searches = [(sensor, bounds) for bounds in cells for sensor in variant.sensors]
    for done, (sensor, bounds) in enumerate(searches, start=1):
        for scene in search(catalog, sensor, bounds, dates):
            if set(assets[sensor]) <= set(scene.hrefs):
                hrefs = {name: scene.hrefs[name] for name in assets[sensor]}
                found[sensor][scene.id] = replace(scene, hrefs=hrefs)
        if progress is not None:
            progress(done, len(searches))
    return {
        sensor: sorted(scenes.values(), key=lambda scene: (scene.acquired_utc, scene.id))
        for sensor, scenes in found.items()
    }


def _cells(base_zoom: int, tiles: Sequence[TileXYZ]) -> list[Bounds]:
    """Bounds of the candidates in each parent cell, in degrees."""
    import mercantile

    shift = max(0, base_zoom - SEARCH_CELL_ZOOM)
    members: dict[tuple[int, int], list[TileXYZ]] = {}
    for tile in tiles:
        members.setdefault((tile.x >> shift, tile.y >> shift), []).append(tile)
    cells = []
    for _, inside in sorted(members.items()):
        corners = [mercantile.bounds(tile) for tile in inside]
        cells.append(
            (
                min(c.west for c in corners),
                min(c.south for c in corners),
                max(c.east for c in corners),
                max(c.north for c in corners),
            )
        )
    return cells


def _limited(choices: Sequence[Choice], limit: int | None) -> list[Choice]:
    """At most ``limit`` choices: those whose tiles' hashes are least, so that more keeps fewer."""
    if limit is None or limit >= len(choices):
        return list(choices)
    by_hash = sorted(
        choices, key=lambda choice: hashlib.sha256(repr(choice.tile).encode()).digest()
    )
    kept = {choice.tile for choice in by_hash[:limit]}
    return [choice for choice in choices if choice.tile in kept]


def _nothing_left(
    variant: Variant,
    catalog: Catalog,
    num_tiles: int,
    lost: Mapping[str, int],
    scenes: Mapping[str, Sequence[Scene]],
) -> str:
    counts = ", ".join(f"{len(found)} {sensor}" for sensor, found in scenes.items())
    reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(lost.items()) if count)
    return (
        f"none of {num_tiles} candidate tiles of zoom {variant.base_zoom} can be made from catalog "
        f"{catalog.name!r}: scenes found are {counts}; tiles lost are {reasons}. "
        "Choose another --bbox or wider --dates."
    )


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
