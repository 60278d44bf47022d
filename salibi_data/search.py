"""Scenes of a catalog: a STAC API through pystac-client, or a static catalog on disk.

Hrefs are kept UNSIGNED, so that a plan holds no token, and relative to the catalog's folder where
it is local, so that a store does not depend on where that was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from salibi_data.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from salibi_data.catalog import Catalog, Sensor
    from salibi_data.grid import Bounds

Interval = tuple[datetime, datetime]
"""Closed interval of times, UTC."""

SEARCH_TIMEOUT_S: Final = 60
SEARCH_RETRIES: Final = 4
_SIGNATURES: Final = frozenset(
    {
        *("sig", "signature", "token", "access_token", "api_key", "awsaccesskeyid"),
        *("x-amz-signature", "x-amz-security-token", "x-amz-credential", "x-goog-signature"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One STAC item, as far as it is needed."""

    id: str
    sensor: str
    acquired_utc: datetime
    footprint: Mapping[str, Any]
    """GeoJSON geometry, longitude and latitude in degrees: where the scene has data."""
    hrefs: Mapping[str, str]
    """Asset key to unsigned href."""
    properties: Mapping[str, Any]
    """Those that choosing and reading need."""

    def group(self, sensor: Sensor) -> tuple[str, ...]:
        """What all scenes of one sample share: a year, a pass."""
        return tuple(str(self.properties.get(name)) for name in sensor.group_by)


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


def resolve(catalog: Catalog, *, progress: Callable[[int, int], None] | None = None) -> Catalog:
    """``catalog``, or the static one it stands for: the sample is drawn on its first use."""
    if catalog.kind != "sample":
        return catalog
    from salibi_data.sample import write_sample_catalog

    folder = sample_folder()
    write_sample_catalog(folder, progress=progress)
    return replace(catalog, kind="static", url=str(folder / "catalog.json"))


def sample_folder() -> Path:
    """Where the sample catalog is kept: ``$SALIBI_CACHE``, or the user's cache folder."""
    import platformdirs

    from salibi_data.sample.frame import COLUMNS, ROWS
    from salibi_data.sample.writer import GENERATOR_VERSION

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
        CatalogError: the catalog cannot be reached or is damaged.
    """
    sensor = catalog.sensors.get(sensor_name)
    if sensor is None:
        raise UsageError(
            f"catalog {catalog.name!r} has no sensor {sensor_name!r}; it has "
            f"{', '.join(catalog.sensors)}. Choose another catalog, or a variant without it."
        )
    found = _search_api if catalog.kind == "api" else _search_static
    items = found(catalog, sensor, bounds_lonlat, dates, max_items)
    scenes = [_scene(sensor, item) for item in items if _usable(sensor, item)]
    ordered = sorted(scenes, key=lambda scene: (scene.acquired_utc, scene.id))
    return _latest_only(sensor, ordered)


def unsigned(href: str) -> str:
    """``href`` without its query if that carries a signature or token."""
    parts = urlsplit(href)
    signed = any(key.lower() in _SIGNATURES for key, _ in parse_qsl(parts.query))
    return urlunsplit(parts._replace(query="")) if signed else href


def _search_api(
    catalog: Catalog, sensor: Sensor, bounds: Bounds, dates: Interval | None, max_items: int | None
) -> Iterator[dict[str, Any]]:
    import requests
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    # pystac-client retries no POST by default and has no timeout.
    retries = Retry(
        SEARCH_RETRIES,
        connect=2,
        backoff_factor=0.5,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
    )
    try:
        stac_io = StacApiIO(timeout=SEARCH_TIMEOUT_S, max_retries=retries)
        client = Client.open(catalog.url, stac_io=stac_io)
        query = client.search(
            method="POST",
            collections=[sensor.collection],
            bbox=bounds,
            datetime=dates,
            limit=min(250, max_items or 250),
            max_items=max_items,
        )
        for item in query.items_as_dicts():
            hrefs = {key: asset["href"] for key, asset in item["assets"].items()}
            yield {**item, "hrefs": hrefs}
    except (APIError, requests.RequestException) as error:
        raise CatalogError(
            f"catalog {catalog.name!r} at {catalog.url} cannot be searched for "
            f"{sensor.collection}: {_reason(error)}. Check the address and the network, and run again."
        ) from error


def _search_static(
    catalog: Catalog, sensor: Sensor, bounds: Bounds, dates: Interval | None, max_items: int | None
) -> Iterator[dict[str, Any]]:
    import pystac
    from shapely import box
    from shapely.geometry import shape

    area = box(*bounds)
    root = Path(catalog.url).parent
    try:
        items = list(pystac.Catalog.from_file(catalog.url).get_items(recursive=True))
    except (OSError, ValueError, KeyError, pystac.STACError, pystac.STACTypeError) as error:
        raise CatalogError(
            f"catalog {catalog.name!r} at {catalog.url} cannot be read: {_reason(error)}. "
            "Expected a static STAC catalog; check the path, or write it again."
        ) from error
    del max_items  # all items were read already
    for item in items:
        if item.collection_id != sensor.collection or item.geometry is None:
            continue
        if dates and item.datetime and not dates[0] <= item.datetime <= dates[1]:
            continue
        if shape(item.geometry).intersects(area):
            hrefs = {
                key: _relative(asset.get_absolute_href() or asset.href, root)
                for key, asset in item.assets.items()
            }
            yield {
                "id": item.id,
                "geometry": item.geometry,
                "properties": item.properties,
                "hrefs": hrefs,
            }


def _relative(href: str, root: Path) -> str:
    path = Path(href)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else href


def _scene(sensor: Sensor, item: Mapping[str, Any]) -> Scene:
    properties = item["properties"]
    kept = {*sensor.group_by, "sat:orbit_state", "gsd"}
    kept.update(filter(None, (sensor.cloud_cover,)))
    if sensor.latest is not None:
        kept.update((*sensor.latest.of, sensor.latest.by))
    for product in sensor.products.values():
        if product.offset_from is not None:
            kept.add(product.offset_from.property)
    assets = {band.asset for product in sensor.products.values() for band in product.bands.values()}
    if sensor.clouds is not None:
        assets.add(sensor.clouds.asset)
    return Scene(
        id=item["id"],
        sensor=sensor.name,
        acquired_utc=_utc(properties),
        footprint=item["geometry"],
        hrefs={k: unsigned(href) for k, href in sorted(item["hrefs"].items()) if k in assets},
        properties={key: properties[key] for key in sorted(kept) if key in properties},
    )


def _utc(properties: Mapping[str, Any]) -> datetime:
    text = properties.get("datetime") or properties["start_datetime"]
    time = datetime.fromisoformat(str(text))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _usable(sensor: Sensor, item: Mapping[str, Any]) -> bool:
    """Whether an item can be chosen at all."""
    properties = item["properties"]
    grouped = all(properties.get(name) is not None for name in sensor.group_by)
    return item["geometry"] is not None and grouped and _meets(sensor.require, properties)


def _meets(require: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    for name, wanted in require.items():
        value = properties.get(name)
        if isinstance(wanted, list | tuple):
            if not set(wanted) <= set(value or ()):
                return False
        elif value != wanted:
            return False
    return True


def _latest_only(sensor: Sensor, scenes: list[Scene]) -> list[Scene]:
    rule = sensor.latest
    if rule is None:
        return scenes
    newest: dict[tuple[str, ...], Scene] = {}
    for scene in scenes:
        key = tuple(str(scene.properties.get(name)) for name in rule.of)
        if "None" in key:  # a provider without the property: nothing to compare by
            key = (scene.id,)
        age = (str(scene.properties.get(rule.by)), scene.id)
        if key not in newest or age > (str(newest[key].properties.get(rule.by)), newest[key].id):
            newest[key] = scene
    kept = {scene.id for scene in newest.values()}
    return [scene for scene in scenes if scene.id in kept]


def _reason(error: Exception) -> str:
    """The innermost cause in one line, without query strings: they may carry tokens."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split("?", 1)[0][:200]
