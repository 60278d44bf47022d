"""Searching a catalog: a STAC API through pystac-client, or items on disk.

One search per parent cell and collection, remembered on disk while a plan is made: a plan that was
stopped is made again without asking for what was found already.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.catalog.scenes import Scene, from_item, newest_processing
from salibi_data.catalog.static_items import Item, items_of
from salibi_data.store.errors import CatalogError, UsageError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.redaction import redacted_line

if TYPE_CHECKING:
    from salibi_data.catalog.providers import Catalog, Sensor
    from salibi_data.store.progress import Progress
    from salibi_data.store.tiles import Bounds

Interval = tuple[datetime, datetime]
"""Closed interval of times, UTC."""

SEARCH_TIMEOUT_S: Final = 60
SEARCH_RETRIES: Final = 5
SEARCH_BACKOFF_S: Final = 0.5
"""Of one request."""
PAUSES_S: Final = (1.0, 2.0)
"""After them a whole search is tried again."""
PATIENT_PAUSES_S: Final = (1.0, 5.0, 30.0, 120.0, 300.0)
"""The same, once the catalog has answered."""
PAGE_ITEMS: Final = 250


def parse_dates(text: str) -> Interval:
    """``A/B`` with ISO dates or times; a date alone means its whole day, UTC.

    Raises:
        UsageError: not two dates, or the first is after the second.
    """
    try:
        first, last = (datetime.fromisoformat(part) for part in text.split("/"))
    except ValueError as error:
        raise UsageError(f"dates {text!r} are not A/B, such as 2021-05-01/2022-09-30.") from error
    if ":" not in text.split("/")[1]:
        last += timedelta(days=1, microseconds=-1)
    first, last = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in (first, last))
    if first > last:
        raise UsageError(f"dates {text!r} end before they begin; give the earlier one first.")
    return first, last


def resolve(catalog: Catalog, *, progress: Progress | None = None) -> Catalog:
    """``catalog``, or the static one it stands for: the sample is drawn on its first use."""
    if catalog.kind != "sample":
        return catalog
    from salibi_data.synthetic import write_sample_catalog

    folder = sample_folder()
    write_sample_catalog(folder, progress=progress)
    return replace(catalog, kind="static", url=str(folder / "catalog.json"))


def sample_folder() -> Path:
    """Where the sample catalog is kept: ``$SALIBI_CACHE``, or the user's cache folder."""
    import platformdirs

    from salibi_data.synthetic.catalog_writer import GENERATOR_VERSION
    from salibi_data.synthetic.frame import COLUMNS, ROWS

    cache = os.environ.get("SALIBI_CACHE")
    folder = Path(cache) if cache else platformdirs.user_cache_path("salibi")
    # Another version of this software may draw another sample; each has a folder of its own.
    return folder / f"sample-v{GENERATOR_VERSION}-{COLUMNS}x{ROWS}"


def search(
    catalog: Catalog,
    sensor_name: str,
    bounds_lonlat: Bounds,
    dates: Interval | None,
    *,
    max_items: int | None = None,
) -> list[Scene]:
    """Scenes of one sensor that touch the bounds within the dates, in order of (datetime, id).

    Scenes without a geometry, without a required or a grouping property, or superseded by a
    newer processing of the same acquisition are left out. ``max_items`` ends the search early.

    Raises:
        UsageError: the catalog has no such sensor.
        CatalogError: the catalog cannot be reached, ends in the middle, or is damaged.
    """
    finder = Finder(catalog)
    return finder.find(sensor_name, bounds_lonlat, None if dates is None else [dates], max_items)


@dataclass(frozen=True, kw_only=True)
class _Local:
    """Scenes on disk with an index of their footprints."""

    scenes: tuple[Scene, ...]
    footprints: Any
    """shapely STRtree, in the order of ``scenes``."""


@dataclass(frozen=True)
class Finder:
    """Searches of one catalog: local items are read once, an API's answers kept in a folder."""

    catalog: Catalog
    kept_in: Path | None = None
    """Folder for answers of an API; None keeps nothing."""
    needed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Per sensor the assets without which a scene is of no use."""
    _opened: dict[str, Any] = field(default_factory=dict, repr=False)

    def find(
        self,
        sensor_name: str,
        bounds_lonlat: Bounds,
        intervals: Sequence[Interval] | None,
        max_items: int | None = None,
    ) -> list[Scene]:
        """As :func:`search`, for scenes within any of ``intervals``."""
        sensor = self.catalog.sensors.get(sensor_name)
        if sensor is None:
            raise UsageError(
                f"catalog {self.catalog.name!r} has no sensor {sensor_name!r}; it has "
                f"{', '.join(self.catalog.sensors)}. Choose another catalog, or a variant without it."
            )
        if self.catalog.kind == "static":
            found = self._find_local(sensor, bounds_lonlat, intervals)
        else:
            found = []
            for interval in [None] if intervals is None else intervals:
                scenes = self._find_remote(sensor, bounds_lonlat, interval, max_items)
                # An API compares the range that radar items state beside their datetime: a scene
                # that began before midnight would belong to two days.
                found += [scene for scene in scenes if _within(scene, interval)]
        # A scene without a file that is needed would fail every time; another one may do.
        needed = set(self.needed.get(sensor_name, ()))
        unique = {scene.id: scene for scene in found if needed <= set(scene.hrefs)}
        ordered = sorted(unique.values(), key=lambda scene: (scene.acquired_utc, scene.id))
        return newest_processing(sensor, ordered)

    def scenes_on_disk(self, sensor: Sensor) -> tuple[Scene, ...]:
        """All scenes of one sensor of a catalog on disk."""
        return self._local(sensor).scenes

    def _local(self, sensor: Sensor) -> _Local:
        if sensor.name not in self._opened:
            import shapely
            from shapely.geometry import shape

            items = items_of(Path(self.catalog.url), sensor.collection)
            made = (from_item(sensor, item) for item in items)
            scenes = tuple(scene for scene in made if scene is not None)
            tree = shapely.STRtree([shape(scene.footprint) for scene in scenes])
            self._opened[sensor.name] = _Local(scenes=scenes, footprints=tree)
        local: _Local = self._opened[sensor.name]
        return local

    def _find_local(
        self, sensor: Sensor, bounds: Bounds, intervals: Sequence[Interval] | None
    ) -> list[Scene]:
        from shapely import box

        local = self._local(sensor)
        found = [
            local.scenes[i] for i in np.sort(local.footprints.query(box(*bounds), "intersects"))
        ]
        if intervals is None:
            return found
        return [s for s in found if any(a <= s.acquired_utc <= b for a, b in intervals)]

    def _find_remote(
        self, sensor: Sensor, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> list[Scene]:
        """The API's answer, or what was kept of it."""
        answer = None
        if self.kept_in is not None:
            dates = None if interval is None else [time.isoformat() for time in interval]
            # The sensor's rules decide what is kept of an item, so they are part of the question.
            asked = [self.catalog.url, repr(sensor), list(bounds), dates, max_items]
            digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
            answer = self.kept_in / f"{digest}.json"
            if answer.is_file():
                kept = json.loads(answer.read_text())
                return [Scene.from_dict(sensor.name, scene) for scene in kept]
        items = self._items(sensor, bounds, interval, max_items)
        made = (from_item(sensor, item) for item in items)
        scenes = [scene for scene in made if scene is not None]
        if answer is not None:
            answer.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(answer) as partial:
                partial.write_text(json.dumps([scene.to_dict() for scene in scenes]))
        return scenes

    def _items(
        self, sensor: Sensor, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> list[Item]:
        """All pages of a search, asked for again where an answer is cut short or no answer."""
        import pystac
        import requests
        from pystac_client.exceptions import APIError

        # A catalog that has answered before is waited for; one that never did may be misspelt.
        pauses_s = PATIENT_PAUSES_S if "answered" in self._opened else PAUSES_S
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
                found = list(self._pages(sensor, bounds, interval, max_items))
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
        self._opened["answered"] = True
        return found

    def _pages(
        self, sensor: Sensor, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> Iterator[Item]:
        """Items page by page; an error where there are fewer than the API itself says."""
        from pystac_client.exceptions import APIError

        query = self._client().search(
            method=self.catalog.search_method,
            collections=[sensor.collection],
            bbox=bounds,
            datetime=interval,
            limit=min(PAGE_ITEMS, max_items or PAGE_ITEMS),
            max_items=max_items,
        )
        count, promised = 0, 0
        for page in query.pages_as_dicts():
            context = page.get("context") or {}
            promised = max(promised, page.get("numberMatched") or context.get("matched") or 0)
            count += len(page["features"])
            yield from page["features"]
        if max_items is None and count < promised:
            raise APIError(f"paging ended after {count} of {promised} items")

    def _client(self) -> Any:
        """The API's client, opened once."""
        if "client" not in self._opened:
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
            self._opened["client"] = Client.open(self.catalog.url, stac_io=stac_io)
        return self._opened["client"]


def _within(scene: Scene, interval: Interval | None) -> bool:
    return interval is None or interval[0] <= scene.acquired_utc <= interval[1]
