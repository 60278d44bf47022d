"""Searching and choosing: from a variant and a catalog to a plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from salibi_data import splits
from salibi_data.catalog import Catalog, load_catalog
from salibi_data.errors import SelectionError
from salibi_data.grid import Bounds, TileXYZ, hilbert_sorted, tiles_within
from salibi_data.plans import Plan
from salibi_data.search import Interval, Scene, parse_dates, resolve, search
from salibi_data.select import Choice, choose
from salibi_data.variant import Variant, check_fit, load_variant, used_assets

SEARCH_CELL_ZOOM: Final = 9
"""Candidates are searched for by parent cell at this zoom: about 60 km, a few pages of items."""

Progress = Callable[[int, int], None]


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
