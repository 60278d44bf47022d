"""Search a catalog for scenes: a STAC API through pystac-client, or items on disk.

The planner searches once per parent cell and collection. Answers of an API may be cached on disk, so
that a stopped plan continues without repeating its searches.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.catalog.scenes import Scene, newest_processing, scene_from_item
from salibi_data.catalog.static_items import Item, read_items
from salibi_data.store.errors import CatalogError, UsageError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.redaction import redacted_line

if TYPE_CHECKING:
    from pystac_client import Client
    from shapely import STRtree

    from salibi_data.catalog.dates import Interval
    from salibi_data.catalog.providers import Catalog, Sensor
    from salibi_data.store.progress import Progress
    from salibi_data.store.tiles import Bounds

SEARCH_TIMEOUT_S: Final = 60
"""Seconds for one request."""
SEARCH_RETRIES: Final = 5
"""Further attempts for one request."""
SEARCH_BACKOFF_S: Final = 0.5
"""First wait between attempts for one request; it doubles with every further one."""
PAUSES_S: Final = (1.0, 2.0)
"""Pauses after which a whole failed search is repeated."""
PATIENT_PAUSES_S: Final = (1.0, 5.0, 30.0, 120.0, 300.0)
"""Pauses of an API that has answered before."""
PAGE_ITEMS: Final = 250
"""Items per page that an API is asked for."""


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
    _local_scenes: dict[str, _LocalScenes] = field(default_factory=dict, repr=False)
    """Scenes on disk by sensor, read on first use."""
    _client: Client | None = field(default=None, repr=False)
    """Client of the API, opened on first use."""
    _has_answered: bool = field(default=False, repr=False)
    """Whether the API has answered a search before."""

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
        if self.catalog.kind == "static":
            scenes = self._find_local(sensor, bounds_lonlat, intervals)
        else:
            scenes = []
            for interval in [None] if intervals is None else intervals:
                answer = self._find_remote(sensor, bounds_lonlat, interval, max_items)
                # Radar items state a range of times beside their datetime, and APIs compare that: a
                # scene that began before midnight would belong to two days.
                scenes += [scene for scene in answer if _is_within(scene, interval)]
        # A scene without a required file would fail in every build; another one may not.
        required = set(self.required_assets.get(sensor_name, ()))
        unique = {scene.id: scene for scene in scenes if required <= set(scene.hrefs)}
        ordered = sorted(unique.values(), key=lambda scene: (scene.acquired_utc, scene.id))
        return newest_processing(sensor, ordered)

    def scenes_on_disk(self, sensor: Sensor) -> tuple[Scene, ...]:
        """Return all scenes of one sensor of a catalog on disk."""
        return self._load_local(sensor).scenes

    def _load_local(self, sensor: Sensor) -> _LocalScenes:
        if sensor.name not in self._local_scenes:
            import shapely
            from shapely.geometry import shape

            items = read_items(Path(self.catalog.url), sensor.collection)
            scenes = _usable_scenes(sensor, items)
            tree = shapely.STRtree([shape(scene.footprint) for scene in scenes])
            self._local_scenes[sensor.name] = _LocalScenes(scenes=scenes, footprints=tree)
        return self._local_scenes[sensor.name]

    def _find_local(
        self, sensor: Sensor, bounds: Bounds, intervals: Sequence[Interval] | None
    ) -> list[Scene]:
        from shapely import box

        local = self._load_local(sensor)
        indices = np.sort(local.footprints.query(box(*bounds), "intersects"))
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
            query = [self.catalog.url, repr(sensor), list(bounds), dates, max_items]
            digest = hashlib.sha256(json.dumps(query).encode()).hexdigest()[:24]
            cache_file = self.cache_folder / f"{digest}.json"
            if cache_file.is_file():
                cached = json.loads(cache_file.read_text())
                return [Scene.from_dict(sensor.name, scene) for scene in cached]
        scenes = _usable_scenes(sensor, self._items(sensor, bounds, interval, max_items))
        if cache_file is not None:
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(cache_file) as partial:
                partial.write_text(
                    json.dumps([scene.to_dict(with_shapes=True) for scene in scenes])
                )
        return list(scenes)

    def _items(
        self, sensor: Sensor, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> list[Item]:
        """Return the items of all pages of a search; repeat it where an answer fails or is cut short."""
        import pystac
        import requests
        from pystac_client.exceptions import APIError

        # An API that has answered before is waited for; one that never has may be misspelt.
        pauses_s = PATIENT_PAUSES_S if self._has_answered else PAUSES_S
        damaged = (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            pystac.STACError,
            pystac.STACTypeError,
        )
        for pause_s in (*pauses_s, None):
            try:
                items = list(self._pages(sensor, bounds, interval, max_items))
            except (APIError, requests.RequestException, *damaged) as error:
                if pause_s is None:
                    raise CatalogError(
                        f"catalog {self.catalog.name!r} at {self.catalog.url} cannot be searched "
                        f"for {sensor.collection}: {redacted_line(error)}. Check the address and the "
                        "network, and run again; what was found is kept."
                    ) from error
                time.sleep(pause_s * random.uniform(0.5, 1.5))
            else:
                break
        self._has_answered = True
        return items

    def _pages(
        self, sensor: Sensor, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> Iterator[Item]:
        """Yield items page by page.

        Raises:
            APIError: there are fewer items than the API itself has stated.
        """
        from pystac_client.exceptions import APIError

        query = self._open_client().search(
            method=self.catalog.search_method,
            collections=[sensor.collection],
            bbox=bounds,
            datetime=interval,
            limit=min(PAGE_ITEMS, max_items or PAGE_ITEMS),
            max_items=max_items,
        )
        num_items, num_stated = 0, 0
        for page in query.pages_as_dicts():
            # `numberMatched` is OGC API Features; older servers state it in the context extension.
            context = page.get("context") or {}
            num_stated = max(num_stated, page.get("numberMatched") or context.get("matched") or 0)
            num_items += len(page["features"])
            yield from page["features"]
        if max_items is None and num_items < num_stated:
            raise APIError(f"paging ended after {num_items} of {num_stated} items")

    def _open_client(self) -> Client:
        if self._client is None:
            from pystac_client import Client
            from pystac_client.stac_api_io import StacApiIO
            from urllib3 import Retry

            # pystac-client retries no POST by default and has no time-out.
            retries = Retry(
                SEARCH_RETRIES,
                connect=2,
                backoff_factor=SEARCH_BACKOFF_S,
                backoff_jitter=2 * SEARCH_BACKOFF_S,
                status_forcelist=[429, 500, 502, 503, 504],
                allowed_methods=None,
            )
            stac_io = StacApiIO(timeout=SEARCH_TIMEOUT_S, max_retries=retries)
            self._client = Client.open(self.catalog.url, stac_io=stac_io)
        return self._client


def _usable_scenes(sensor: Sensor, items: Iterable[Item]) -> tuple[Scene, ...]:
    scenes = (scene_from_item(sensor, item) for item in items)
    return tuple(scene for scene in scenes if scene is not None)


def _is_within(scene: Scene, interval: Interval | None) -> bool:
    return interval is None or interval[0] <= scene.acquired_utc <= interval[1]
