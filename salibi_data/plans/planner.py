"""Makes a plan from a variant and a catalog: searches and selects scenes cell by cell."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salibi_data.catalog.dates import Interval, parse_dates
from salibi_data.catalog.outlines import outline_of
from salibi_data.catalog.providers import Catalog, load_catalog, with_grd
from salibi_data.catalog.search import CatalogSearch, resolve_catalog
from salibi_data.catalog.variants import Variant, check_fit, load_variant, used_assets
from salibi_data.plans import splits
from salibi_data.plans.areas.area import Area, bounds_of
from salibi_data.plans.areas.files import read_outline
from salibi_data.plans.cloud_scores import CellClouds
from salibi_data.plans.draft import Draft
from salibi_data.plans.options import PlanOptions, Scope
from salibi_data.plans.plan import Plan
from salibi_data.plans.scene_selection import choose
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.filesystem import ScratchFolder

if TYPE_CHECKING:
    from salibi_data.catalog.scenes import Scene
    from salibi_data.plans.picks import CellSelection
    from salibi_data.store.progress import Progress
    from salibi_data.store.tiles import Bounds, Tiles


def plan(
    variant: str | Variant,
    *,
    catalog: str | Catalog = PlanOptions.catalog,
    bounds_lonlat: Bounds | None = PlanOptions.bounds_lonlat,
    aoi: str | Path | None = PlanOptions.aoi,
    dates: str | None = PlanOptions.dates,
    limit: int | None = PlanOptions.limit,
    max_cloud: float | None = PlanOptions.max_cloud,
    allow_grd: bool = PlanOptions.allow_grd,
    max_bytes: int | None = PlanOptions.max_bytes,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Search a catalog and choose the scenes of every sample.

    A call that was stopped continues when repeated with the same ``output``: search results are
    kept until the plan is written.

    Args:
        variant: name, path of a TOML file, or a :class:`~salibi_data.catalog.variants.Variant`.
        catalog: name, path of a TOML file, or a :class:`~salibi_data.catalog.providers.Catalog`.
        bounds_lonlat: (west, south, east, north) in degrees; candidates lie wholly within. West > east
            crosses 180 degrees, and so does a box from 170 to 190.
        aoi: GeoJSON or GeoParquet file of an outline; candidates lie wholly within.
        dates: ``A/B``; limits every sensor.
        limit: maximum number of samples, drawn evenly and reproducibly from all possible ones.
        max_cloud: maximum share of clouds, 0..1, scored per tile while planning.
        allow_grd: Sentinel-1 GRD may stand in for RTC where a catalog has nothing else.
        max_bytes: limit on the bytes that the plan is expected to read from the sources.
        output: GeoParquet file to write; without one the file is removed with the object.
        progress: called with (cells done, cells in all).

    Without an area and a limit, the plan covers the variant's regions and draws its target number
    of samples and a reserve for those that clouds cost; for a catalog on disk, it covers the catalog.

    Raises:
        UsageError: unknown variant or catalog, malformed dates, or more than ``max_bytes``.
        CatalogError: the catalog cannot be reached or read.
        SelectionError: no tile is left.

    Example:
        >>> planned = salibi_data.plan("micro", catalog=catalog, limit=4)
        >>> planned.num_samples, planned.variant.name
        (4, 'micro')
    """
    scope = Scope(
        bounds_lonlat=bounds_lonlat,
        aoi=aoi,
        dates=dates,
        limit=limit,
        max_cloud=max_cloud,
        allow_grd=allow_grd,
    )
    recipe, provider = load_inputs(variant, catalog, scope)
    plan_request = request(recipe, provider, scope)
    provider = resolve_catalog(provider, progress=progress)
    keeper = None if output is not None else ScratchFolder("salibi-plan-")
    path = Path(output or "") if keeper is None else keeper.path / "plan.parquet"
    # Beside the plan, not in a scratch folder: a plan that was stopped finds them again.
    searches = path.with_name(f".{path.name}.searches")
    needed = {name: used_assets(recipe, provider, name) for name in recipe.sensors}
    finder = CatalogSearch(provider, searches, needed)
    interval = parse_dates(dates) if dates is not None else None
    area = _area(recipe, finder, scope)
    with ScratchFolder("salibi-draft-") as scratch, _removed_when_done(searches):
        draft = Draft(
            scratch.path / "draft.arrow",
            recipe,
            provider,
            limit=scope.limit,
            target=_target(recipe, provider, scope),
        )
        counts: Counter[str] = Counter()
        cells = area.cells(recipe.base_zoom)
        for number, cell in enumerate(cells, start=1):
            tiles = area.candidates(recipe.base_zoom, cell)
            counts["tiles"] += len(tiles)
            usable = _guarded(recipe, tiles)
            draft.lost["guard"] += len(tiles) - len(usable)
            if len(usable):
                find = _CellFinder(finder, usable, interval, counts)
                draft.add(_select(usable, find, recipe, provider, scope))
            if progress is not None:
                progress(number, len(cells))
        if draft.num_samples == 0:
            reason = _nothing_left(recipe, provider, counts, draft.lost)
            raise SelectionError(". ".join((*finder.lacking_warnings(), reason)))
        draft.write(
            path,
            request=plan_request,
            max_bytes=max_bytes,
            warnings=finder.lacking_warnings(),
        )
    return Plan.read(path, keeper=keeper)


@contextmanager
def _removed_when_done(searches: Path) -> Iterator[None]:
    """Remove search results when a plan is made or cannot be made; keep them when it is stopped."""
    try:
        yield
    # These would fail again with the same answers; after other errors they are worth keeping.
    except (SelectionError, UsageError):
        shutil.rmtree(searches, ignore_errors=True)
        raise
    shutil.rmtree(searches, ignore_errors=True)


def load_inputs(
    variant: str | Variant, catalog: str | Catalog, scope: Scope
) -> tuple[Variant, Catalog]:
    """Load the variant and the catalog, and apply what the scope changes in them.

    Raises:
        UsageError: one is unknown, or the catalog cannot give what the variant needs.
    """
    recipe = load_variant(variant) if isinstance(variant, str) else variant
    provider = load_catalog(catalog) if isinstance(catalog, str) else catalog
    if scope.max_cloud is not None:
        recipe = replace(recipe, max_cloud_fraction=scope.max_cloud)
    if scope.allow_grd:
        provider = with_grd(provider)
    check_fit(recipe, provider)
    return recipe, provider


def request(variant: Variant, catalog: Catalog, scope: Scope) -> dict[str, Any]:
    """Describe what a plan is made for, as JSON that can be compared, without the catalog's address."""
    # Copies of a catalog at other addresses give equal plans, and so equal digests.
    provider = {**catalog.to_dict(), "url": "", "kind": "", "search_method": ""}
    recipe = json.dumps([variant.to_dict(), provider], sort_keys=True).encode()
    aoi, bounds_lonlat = scope.aoi, scope.bounds_lonlat
    outline = None if aoi is None else read_outline(Path(aoi))
    return {
        "variant": variant.name,
        "catalog": catalog.name,
        "recipe_sha256": hashlib.sha256(recipe).hexdigest(),
        "bounds_lonlat": None if bounds_lonlat is None else list(bounds_lonlat),
        "aoi_sha256": None if outline is None else hashlib.sha256(outline.wkb).hexdigest(),
        "dates": scope.dates,
        "limit": scope.limit,
        "max_cloud": scope.max_cloud,
    }


@dataclass(frozen=True)
class _CellFinder:
    """Searches one cell, and counts the scenes found."""

    finder: CatalogSearch
    tiles: Tiles
    dates: Interval | None
    counts: Counter[str]

    def __call__(self, sensor: str, intervals: Sequence[Interval] | None) -> list[Scene]:
        if self.dates is not None:
            first, last = self.dates
            wanted = [self.dates] if intervals is None else intervals
            clipped = [(max(start, first), min(end, last)) for start, end in wanted]
            intervals = [(start, end) for start, end in clipped if start <= end]
        scenes = self.finder.find(sensor, bounds_of(self.tiles), intervals)
        self.counts[sensor] += len(scenes)
        return scenes


def _select(
    tiles: Tiles, find: _CellFinder, variant: Variant, catalog: Catalog, scope: Scope
) -> CellSelection:
    cloudiness = None
    if scope.max_cloud is not None:
        cloudiness = CellClouds(catalog, tiles, find.finder.cache_folder)
    return choose(tiles, find, variant, catalog, cloudiness=cloudiness)


def _target(variant: Variant, catalog: Catalog, scope: Scope) -> int | None:
    """Target number of samples where the variant's regions are planned as a whole, else None."""
    narrowed = any(getattr(scope, name) is not None for name in ("limit", "bounds_lonlat", "aoi"))
    return None if narrowed or catalog.kind == "static" else variant.target_samples


def _area(variant: Variant, finder: CatalogSearch, scope: Scope) -> Area:
    boxes: tuple[Bounds, ...] = ()
    if (bounds_lonlat := scope.bounds_lonlat) is not None:
        boxes = (bounds_lonlat,)
    if (aoi := scope.aoi) is not None:
        outline = read_outline(Path(aoi))
        return Area(boxes=boxes or (outline.bounds,), outline=outline)
    if not boxes and finder.catalog.kind == "static":
        return _covered(variant, finder)
    regions = tuple(region.bounds_lonlat for region in variant.regions)
    area = Area(boxes=boxes or regions)
    if not area.cells(variant.base_zoom):
        raise SelectionError(
            f"no tile of zoom {variant.base_zoom} lies wholly within {area.boxes}; "
            "give a larger --bbox (west,south,east,north in degrees)."
        )
    return area


def _covered(variant: Variant, finder: CatalogSearch) -> Area:
    """Area of a catalog on disk: what the first sensor in order of selection covers."""
    import shapely

    first = next(rule.sensor for rule in variant.selection if rule.sensor in variant.sensors)
    sensor = finder.catalog.sensors[first]
    footprints = [outline_of(scene.footprint) for scene in finder.scenes_on_disk(sensor)]
    if not footprints:
        raise SelectionError(
            f"catalog {finder.catalog.name!r} has no item of {sensor.collection} that can be used; "
            "check that it holds the collection under that name."
        )
    outline = shapely.union_all(footprints)
    return Area(boxes=(outline.bounds,), outline=outline, touching=True)


def _guarded(variant: Variant, tiles: Tiles) -> Tiles:
    if variant.split_by != "blocks":
        return tiles
    return tiles.take(splits.outside_guard(variant, tiles.x, tiles.y))


def _nothing_left(
    variant: Variant, catalog: Catalog, counts: Counter[str], lost: Mapping[str, int]
) -> str:
    if counts["tiles"] == 0:
        return (
            f"no tile of zoom {variant.base_zoom} lies wholly within the area asked for; give a "
            "larger --bbox or --aoi, or a variant of a higher zoom."
        )
    scenes = ", ".join(f"{counts.get(sensor, 0)} {sensor}" for sensor in variant.sensors)
    reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(lost.items()) if count)
    return (
        f"none of {counts['tiles']} candidate tiles of zoom {variant.base_zoom} can be made from "
        f"catalog {catalog.name!r}: scenes found are {scenes}; tiles lost are {reasons}. "
        "Choose another --bbox or wider --dates."
    )
