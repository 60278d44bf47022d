"""Searching and choosing: from a variant and a catalog to a plan, one cell at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from salibi_data.catalog.dates import Interval, parse_dates
from salibi_data.catalog.providers import Catalog, load_catalog, with_grd
from salibi_data.catalog.search import CatalogSearch, resolve_catalog
from salibi_data.catalog.variants import Variant, check_fit, load_variant, used_assets
from salibi_data.plans import areas, splits
from salibi_data.plans.cloud_scores import CellClouds
from salibi_data.plans.draft import Draft
from salibi_data.plans.plan import Plan
from salibi_data.plans.scene_selection import choose
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.filesystem import ScratchFolder

if TYPE_CHECKING:
    from salibi_data.catalog.scenes import Scene
    from salibi_data.plans.picks import CellSelection
    from salibi_data.store.progress import Progress
    from salibi_data.store.tiles import Bounds, Tiles


class Scope(TypedDict, total=False):
    """What narrows a plan; keywords of :func:`plan` and of :func:`salibi_data.build`."""

    bounds_lonlat: Bounds | None
    """(west, south, east, north) in degrees; candidates lie wholly within."""
    aoi: str | Path | None
    """GeoJSON or GeoParquet file of an outline; candidates lie wholly within."""
    dates: str | None
    """``A/B``; limits every sensor."""
    limit: int | None
    """At most so many samples, drawn evenly and reproducibly from all that can be made."""
    max_cloud: float | None
    """Clouds are scored per tile while planning, and this share (0..1) is the most allowed."""
    allow_grd: bool
    """Sentinel-1 GRD may stand in for RTC where a catalog has nothing else."""


def plan(
    variant: str | Variant,
    *,
    catalog: str | Catalog = "planetary-computer",
    max_bytes: int | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
    **scope: Unpack[Scope],
) -> Plan:
    """Search a catalog and choose the scenes of every sample.

    Stopped and called again with the same ``output``, it does not ask the catalog again for what
    was found.

    Args:
        variant: name, path of a TOML file, or a :class:`~salibi_data.catalog.variants.Variant`.
        catalog: name, path of a TOML file, or a :class:`~salibi_data.catalog.providers.Catalog`.
        max_bytes: refuse a plan that is expected to read more from the sources.
        output: GeoParquet file to write; without one the plan goes with the object.
        progress: called with (cells done, cells in all).
        **scope: what narrows it, see :class:`Scope`. By default the variant's regions, of which
            as many samples are drawn as it aims at, and a reserve for those that clouds cost; for
            a catalog on disk, all that it covers.

    Raises:
        UsageError: unknown variant or catalog, malformed dates, or more than ``max_bytes``.
        CatalogError: the catalog cannot be reached or read.
        SelectionError: no tile is left.

    Example:
        >>> planned = salibi_data.plan("micro", catalog=catalog, limit=4)
        >>> planned.num_samples, planned.variant.name
        (4, 'micro')
    """
    recipe, provider = fitted(variant, catalog, scope)
    asked = request(recipe, provider, scope)
    provider = resolve_catalog(provider, progress=progress)
    keeper = None if output is not None else ScratchFolder("salibi-plan-")
    path = Path(output or "") if keeper is None else keeper.path / "plan.parquet"
    searches = path.with_name(f".{path.name}.searches")
    needed = {name: used_assets(recipe, provider, name) for name in recipe.sensors}
    finder = CatalogSearch(provider, searches, needed)
    dates = scope.get("dates")
    interval = parse_dates(dates) if dates is not None else None
    area = _area(recipe, finder, scope)
    with ScratchFolder("salibi-draft-") as scratch, _forgetting(searches):
        counted = {"limit": scope.get("limit"), "target": _target(recipe, provider, scope)}
        draft = Draft(scratch.path / "draft.arrow", recipe, provider, **counted)
        counts: Counter[str] = Counter()
        cells = area.cells(recipe.base_zoom)
        for number, cell in enumerate(cells, start=1):
            tiles = area.candidates(recipe.base_zoom, cell)
            counts["tiles"] += len(tiles)
            usable = _guarded(recipe, tiles)
            draft.lost["guard"] += len(tiles) - len(usable)
            if len(usable):
                find = _CellFinder(finder, usable, interval, counts)
                draft.add(_chosen(usable, find, recipe, provider, scope))
            if progress is not None:
                progress(number, len(cells))
        if draft.num_samples == 0:
            raise SelectionError(_nothing_left(recipe, provider, counts, draft.lost))
        draft.write(path, request=asked, max_bytes=max_bytes)
    return Plan.read(path, keeper=keeper)


@contextmanager
def _forgetting(searches: Path) -> Iterator[None]:
    """Remove what was found once a plan is made, or cannot be; keep it where one was stopped."""
    try:
        yield
    except (SelectionError, UsageError):
        shutil.rmtree(searches, ignore_errors=True)
        raise
    shutil.rmtree(searches, ignore_errors=True)


def fitted(variant: str | Variant, catalog: str | Catalog, scope: Scope) -> tuple[Variant, Catalog]:
    """The variant and the catalog, with what the scope changes in them.

    Raises:
        UsageError: one is unknown, or the catalog cannot give what the variant needs.
        TypeError: the scope has unknown keywords.
    """
    unknown = set(scope) - set(Scope.__annotations__)
    if unknown:
        raise TypeError(
            f"unknown keywords {', '.join(sorted(unknown))}; a plan is narrowed by "
            f"{', '.join(Scope.__annotations__)}."
        )
    recipe = load_variant(variant) if isinstance(variant, str) else variant
    provider = load_catalog(catalog) if isinstance(catalog, str) else catalog
    if (max_cloud := scope.get("max_cloud")) is not None:
        if not 0 <= max_cloud <= 1:
            raise UsageError(f"max_cloud is {max_cloud}; expected a share of a tile, 0..1.")
        recipe = replace(recipe, max_cloud_fraction=max_cloud)
    if scope.get("allow_grd"):
        provider = with_grd(provider)
    check_fit(recipe, provider)
    return recipe, provider


def request(variant: Variant, catalog: Catalog, scope: Scope) -> dict[str, Any]:
    """What a plan is asked for, in a form that can be compared; a catalog's place does not count."""
    provider = {**catalog.to_dict(), "url": "", "kind": "", "search_method": ""}
    recipe = json.dumps([variant.to_dict(), provider], sort_keys=True).encode()
    aoi, bounds_lonlat = scope.get("aoi"), scope.get("bounds_lonlat")
    outline = None if aoi is None else areas.read_outline(Path(aoi))
    return {
        "variant": variant.name,
        "catalog": catalog.name,
        "recipe_sha256": hashlib.sha256(recipe).hexdigest(),
        "bounds_lonlat": None if bounds_lonlat is None else list(bounds_lonlat),
        "aoi_sha256": None if outline is None else hashlib.sha256(outline.wkb).hexdigest(),
        "dates": scope.get("dates"),
        "limit": scope.get("limit"),
        "max_cloud": scope.get("max_cloud"),
    }


@dataclass(frozen=True)
class _CellFinder:
    """Searches one cell, and counts what it finds."""

    finder: CatalogSearch
    tiles: Tiles
    dates: Interval | None
    counts: Counter[str]

    def __call__(self, sensor: str, intervals: Sequence[Interval] | None) -> list[Scene]:
        if self.dates is not None:
            first, last = self.dates
            around = [self.dates] if intervals is None else intervals
            cut = [(max(a, first), min(b, last)) for a, b in around]
            intervals = [(a, b) for a, b in cut if a <= b]
        found = self.finder.find(sensor, areas.bounds_of(self.tiles), intervals)
        self.counts[sensor] += len(found)
        return found


def _chosen(
    tiles: Tiles, find: _CellFinder, variant: Variant, catalog: Catalog, scope: Scope
) -> CellSelection:
    scored = None
    if scope.get("max_cloud") is not None:
        scored = CellClouds(catalog, tiles, find.finder.cache_folder)
    return choose(tiles, find, variant, catalog, cloudiness=scored)


def _target(variant: Variant, catalog: Catalog, scope: Scope) -> int | None:
    """The variant's target where its regions are planned as a whole; else there is none to reach."""
    narrowed = any(scope.get(name) is not None for name in ("limit", "bounds_lonlat", "aoi"))
    return None if narrowed or catalog.kind == "static" else variant.target_samples


def _area(variant: Variant, finder: CatalogSearch, scope: Scope) -> areas.Area:
    boxes: tuple[Bounds, ...] = ()
    if (bounds_lonlat := scope.get("bounds_lonlat")) is not None:
        boxes = (bounds_lonlat,)
    if (aoi := scope.get("aoi")) is not None:
        outline = areas.read_outline(Path(aoi))
        return areas.Area(boxes=boxes or (outline.bounds,), outline=outline)
    if not boxes and finder.catalog.kind == "static":
        return _covered(variant, finder)
    regions = tuple(region.bounds_lonlat for region in variant.regions)
    area = areas.Area(boxes=boxes or regions)
    if not area.cells(variant.base_zoom):
        raise SelectionError(
            f"no tile of zoom {variant.base_zoom} lies wholly within {area.boxes}; "
            "give a larger --bbox (west,south,east,north in degrees)."
        )
    return area


def _covered(variant: Variant, finder: CatalogSearch) -> areas.Area:
    """A catalog on disk is its own region: all that its first chosen sensor covers."""
    import shapely
    from shapely.geometry import shape

    first = next(rule.sensor for rule in variant.selection if rule.sensor in variant.sensors)
    sensor = finder.catalog.sensors[first]
    footprints = [shape(scene.footprint) for scene in finder.scenes_on_disk(sensor)]
    if not footprints:
        raise SelectionError(
            f"catalog {finder.catalog.name!r} has no item of {sensor.collection} that can be used; "
            "check that it holds the collection under that name."
        )
    outline = shapely.union_all([shapely.make_valid(footprint) for footprint in footprints])
    return areas.Area(boxes=(outline.bounds,), outline=outline, touching=True)


def _guarded(variant: Variant, tiles: Tiles) -> Tiles:
    if variant.split_by != "blocks":
        return tiles
    return tiles.take(splits.guarded(variant, tiles.x, tiles.y))


def _nothing_left(
    variant: Variant, catalog: Catalog, counts: Counter[str], lost: Mapping[str, int]
) -> str:
    if counts["tiles"] == 0:
        return (
            f"no tile of zoom {variant.base_zoom} lies wholly within the area asked for; give a "
            "larger --bbox or --aoi, or a variant of a higher zoom."
        )
    found = ", ".join(f"{counts.get(sensor, 0)} {sensor}" for sensor in variant.sensors)
    reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(lost.items()) if count)
    return (
        f"none of {counts['tiles']} candidate tiles of zoom {variant.base_zoom} can be made from "
        f"catalog {catalog.name!r}: scenes found are {found}; tiles lost are {reasons}. "
        "Choose another --bbox or wider --dates."
    )
