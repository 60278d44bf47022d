"""Search a catalog for scenes: a STAC API through pystac-client, or items on disk.

The planner searches once per parent cell and collection. Answers of an API may be cached on disk, so
that a stopped plan continues without repeating its searches.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.catalog.item_checks import distinct_scenes, scenes_asked_for
from salibi_data.catalog.outlines import outline_of
from salibi_data.catalog.scenes import Scene, newest_processing, scene_from_item
from salibi_data.catalog.static_items import Item, read_items
from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.tiles import boxes_on_globe

if TYPE_CHECKING:
    from shapely import STRtree

    from salibi_data.catalog.dates import Interval
    from salibi_data.catalog.paging import ItemApi
    from salibi_data.catalog.providers import Catalog, Sensor
    from salibi_data.store.progress import Progress
    from salibi_data.store.tiles import Bounds

MAX_NAMED_ITEMS: Final = 5
"""Number of items that a message names; a whole collection may lack an asset."""

_CACHE_FORMAT: Final = 2
"""Part of the key of cached answers; greater where scenes are made of items by other rules."""


def resolve_catalog(catalog: Catalog, *, progress: Progress | None = None) -> Catalog:
    """Replace the sample catalog by a static one, which is drawn on first use; keep all others.

    Args:
        catalog: any catalog.
        progress: function called with (scenes written, scenes in all).
    """
    if catalog.kind != "sample":
        return catalog
    from salibi_data.synthetic import write_sample_catalog

    folder = sample_folder()
    write_sample_catalog(folder, progress=progress)
    return replace(catalog, kind="static", url=str(folder / "catalog.json"))


def sample_folder() -> Path:
    """Return the sample catalog's folder, in ``$SALIBI_CACHE`` or the user's cache folder."""
    import platformdirs

    from salibi_data.synthetic.catalog_writer import GENERATOR_VERSION
    from salibi_data.synthetic.frame import COLUMNS, ROWS

    cache = os.environ.get("SALIBI_CACHE")
    folder = Path(cache) if cache else platformdirs.user_cache_path("salibi")
    # Versions of this software may draw different samples, so each version has its own folder.
    return folder / f"sample-v{GENERATOR_VERSION}-{COLUMNS}x{ROWS}"


def search(
    catalog: Catalog,
    sensor_name: str,
    bounds_lonlat: Bounds,
    dates: Interval | None,
    *,
    max_items: int | None = None,
) -> list[Scene]:
    """Find scenes of one sensor that touch the bounds within the dates.

    Scenes without a geometry, without a required or a grouping property, or superseded by a
    newer processing of the same acquisition are left out.

    Args:
        catalog: provider of the scenes.
        sensor_name: sensor of the catalog.
        bounds_lonlat: (west, south, east, north) in degrees.
        dates: closed interval of acquisition times, see :func:`~salibi_data.catalog.dates.parse_dates`;
            None for all times.
        max_items: number of items after which an API's search ends; None for all.

    Returns:
        Scenes in order of (acquisition time, id).

    Raises:
        UsageError: the catalog has no such sensor.
        CatalogError: the catalog cannot be reached, ends early, or is damaged.

    Example:
        >>> provider = salibi_data.load_catalog(catalog)
        >>> scenes = salibi_data.search(provider, "sentinel-2", (-180, -85, 180, 85), None)
        >>> len(scenes) > 0
        True
    """
    intervals = None if dates is None else [dates]
    return CatalogSearch(catalog).find(sensor_name, bounds_lonlat, intervals, max_items)


@dataclass(frozen=True, kw_only=True)
class _LocalScenes:
    """Scenes of one sensor on disk, with an index of their footprints."""

    scenes: tuple[Scene, ...]
    footprints: STRtree
    """Index of the footprints, in the order of ``scenes``."""


@dataclass
class CatalogSearch:
    """Searches of one catalog: items on disk are read once, answers of an API may be cached."""

    catalog: Catalog
    cache_folder: Path | None = None
    """Folder for answers of an API; None caches nothing."""
    required_assets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Asset keys by sensor that a scene must have to be of use."""
    lacking_assets: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Required assets that scenes lack, which are therefore left out; by sensor and scene id."""
    _local_scenes: dict[str, _LocalScenes] = field(default_factory=dict, repr=False)
    """Scenes on disk by sensor, read on first use."""
    _api: ItemApi | None = field(default=None, repr=False)
    """The API, opened on first use."""

    def find(
        self,
        sensor_name: str,
        bounds_lonlat: Bounds,
        intervals: Sequence[Interval] | None,
        max_items: int | None = None,
    ) -> list[Scene]:
        """Find scenes as :func:`search` does, within any of several intervals.

        Args:
            sensor_name: sensor of the catalog.
            bounds_lonlat: (west, south, east, north) in degrees.
            intervals: closed intervals of acquisition times; None for all times.
            max_items: number of items after which an API's search ends; None for all.

        Raises:
            UsageError: the catalog has no such sensor.
            CatalogError: the catalog cannot be reached, ends early, or is damaged.
        """
        sensor = self.catalog.sensors.get(sensor_name)
        if sensor is None:
            raise UsageError(
                f"catalog {self.catalog.name!r} has no sensor {sensor_name!r}; it has "
                f"{', '.join(self.catalog.sensors)}. Choose another catalog, or a variant without it."
            )
        # APIs differ in what they make of a box across 180 degrees, or of longitudes beyond.
        boxes = boxes_on_globe(bounds_lonlat)
        if self.catalog.kind == "static":
            scenes = self._find_local(sensor, boxes, intervals)
        else:
            scenes = []
            searches = product(boxes, [None] if intervals is None else intervals)
            for box, interval in searches:
                scenes += self._find_remote(sensor, box, interval, max_items)
        # A scene without a required file would fail in every build; another one may not.
        required = set(self.required_assets.get(sensor_name, ()))
        self.lacking_assets |= {
            (sensor_name, scene.id): tuple(sorted(required - set(scene.hrefs)))
            for scene in scenes
            if not required <= set(scene.hrefs)
        }
        unique = distinct_scenes(scene for scene in scenes if required <= set(scene.hrefs))
        ordered = sorted(unique, key=lambda scene: (scene.acquired_utc, scene.id))
        return newest_processing(sensor, ordered)

    def lacking_warnings(self) -> list[str]:
        """Messages about the items that were left out because they lack assets, one per sensor."""
        messages = []
        for sensor in sorted({sensor for sensor, _ in self.lacking_assets}):
            lacking = {
                scene_id: assets
                for (name, scene_id), assets in sorted(self.lacking_assets.items())
                if name == sensor
            }
            names = ", ".join(list(lacking)[:MAX_NAMED_ITEMS])
            num_more = len(lacking) - MAX_NAMED_ITEMS
            more = f" and {num_more} more" if num_more > 0 else ""
            assets = ", ".join(sorted({asset for each in lacking.values() for asset in each}))
            messages.append(f"{sensor} items left out, which lack asset {assets}: {names}{more}")
        return messages

    def scenes_on_disk(self, sensor: Sensor) -> tuple[Scene, ...]:
        """Return all scenes of one sensor of a catalog on disk."""
        return self._load_local(sensor).scenes

    def _load_local(self, sensor: Sensor) -> _LocalScenes:
        if sensor.name not in self._local_scenes:
            import shapely

            items = read_items(Path(self.catalog.url), sensor.collection)
            scenes = tuple(distinct_scenes(_usable_scenes(sensor, items)))
            tree = shapely.STRtree([outline_of(scene.footprint) for scene in scenes])
            self._local_scenes[sensor.name] = _LocalScenes(scenes=scenes, footprints=tree)
        return self._local_scenes[sensor.name]

    def _find_local(
        self, sensor: Sensor, boxes: Sequence[Bounds], intervals: Sequence[Interval] | None
    ) -> list[Scene]:
        from shapely import box

        local = self._load_local(sensor)
        areas = [box(*bounds) for bounds in boxes]
        indices = np.unique(local.footprints.query(areas, "intersects")[1])
        scenes = [local.scenes[i] for i in indices]
        if intervals is None:
            return scenes
        return [s for s in scenes if any(a <= s.acquired_utc <= b for a, b in intervals)]

    def _find_remote(
        self, sensor: Sensor, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> list[Scene]:
        """Return the API's answer, or the cached one."""
        cache_file = None
        if self.cache_folder is not None:
            dates = None if interval is None else [time.isoformat() for time in interval]
            # The sensor's rules decide which items become scenes, so they belong to the key.
            query = [_CACHE_FORMAT, self.catalog.url, repr(sensor), list(bounds), dates, max_items]
            digest = hashlib.sha256(json.dumps(query).encode()).hexdigest()[:24]
            cache_file = self.cache_folder / f"{digest}.json"
            if cache_file.is_file():
                cached = json.loads(cache_file.read_text())
                return [Scene.from_dict(sensor.name, scene) for scene in cached]
        api = self._open_api()
        found = api.find(sensor.collection, bounds, interval, max_items)
        items = ((one.item, one.page_url) for one in found)
        scenes = distinct_scenes(scenes_asked_for(sensor, items, bounds, interval))
        if cache_file is not None:
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(cache_file) as partial:
                partial.write_text(
                    json.dumps([scene.to_dict(with_shapes=True) for scene in scenes])
                )
        return scenes

    def _open_api(self) -> ItemApi:
        if self._api is None:
            from salibi_data.catalog.paging import ItemApi

            catalog = self.catalog
            self._api = ItemApi(catalog.name, catalog.url, catalog.search_method)
        return self._api


def _usable_scenes(sensor: Sensor, items: Iterable[Item]) -> tuple[Scene, ...]:
    scenes = (scene_from_item(sensor, item) for item in items)
    return tuple(scene for scene in scenes if scene is not None)
