"""Scenes: STAC items as far as choosing and reading need them, and which items can be used.

Hrefs are kept UNSIGNED, so that a plan holds no token, and relative to the catalog's folder where
it is local, so that a store does not depend on where that was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import numpy as np

if TYPE_CHECKING:
    from salibi_data.catalog.providers import Sensor

log = logging.getLogger(__name__)

NODATA_MARGIN_PERCENT: Final = 5.0
"""Points by which the shares of nodata of two processings of the same ground may differ: a newer
baseline moves the edges of the swath by some pixels, which is far less."""

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

    def to_dict(self) -> dict[str, Any]:
        """JSON form, which :meth:`from_dict` reads back; the sensor is kept beside it."""
        return {
            "id": self.id,
            "acquired": self.acquired_utc.isoformat(),
            "footprint": self.footprint,
            "hrefs": dict(self.hrefs),
            "properties": dict(self.properties),
        }

    @classmethod
    def from_dict(cls, sensor: str, content: Mapping[str, Any]) -> Scene:
        """The scene that :meth:`to_dict` described."""
        return cls(
            id=content["id"],
            sensor=sensor,
            acquired_utc=datetime.fromisoformat(content["acquired"]),
            footprint=content["footprint"],
            hrefs=content["hrefs"],
            properties=content["properties"],
        )


def from_item(sensor: Sensor, item: Mapping[str, Any]) -> Scene | None:
    """The scene of a STAC item, or None where it cannot be used.

    Args:
        sensor: says what an item must have.
        item: with ``id``, ``geometry``, ``properties`` and ``assets``.

    Returns:
        None for an item without a geometry, without a grouping property, with other values
        than the sensor requires, or that is no STAC item at all: providers have a few of those
        among millions, and the log names them.
    """
    from shapely.errors import ShapelyError

    try:
        return _scene(sensor, item)
    except (LookupError, TypeError, ValueError, AttributeError, ShapelyError) as error:
        name = item.get("id") if isinstance(item, Mapping) else item
        log.warning("item %s cannot be used: %r", str(name)[:100], error)
        return None


def _scene(sensor: Sensor, item: Mapping[str, Any]) -> Scene | None:
    properties, geometry = item["properties"], item["geometry"]
    grouped = all(properties.get(name) is not None for name in sensor.group_by)
    if geometry is None or not grouped or not _meets(sensor.require, properties):
        return None
    if not isinstance(item["id"], str):
        raise TypeError(f"id is {item['id']!r}")
    _check_polygon(geometry)
    kept, assets = {*sensor.used_properties, "sat:orbit_state"}, set(sensor.assets)
    hrefs = {key: asset["href"] for key, asset in item["assets"].items() if key in assets and asset}
    return Scene(
        id=item["id"],
        sensor=sensor.name,
        acquired_utc=_utc(properties),
        footprint=geometry,
        hrefs={key: unsigned(href) for key, href in sorted(hrefs.items()) if href},
        properties={key: properties[key] for key in sorted(kept) if key in properties},
    )


def _check_polygon(geometry: Mapping[str, Any]) -> None:
    import shapely
    from shapely.geometry import shape

    outline = shapely.make_valid(shape(geometry))
    if not (outline.area > 0 and np.isfinite(outline.bounds).all()):
        raise ValueError("its geometry covers nothing")


def newest_processing(sensor: Sensor, scenes: Sequence[Scene]) -> list[Scene]:
    """``scenes`` without those superseded by a newer processing of the same acquisition.

    One whose share of nodata differs by more than :data:`NODATA_MARGIN_PERCENT` shows other ground:
    the other datastrip of a tile that two share. Then both are kept.
    """
    rule = sensor.latest
    if rule is None:
        return list(scenes)
    newest: dict[tuple[Any, ...], list[Scene]] = {}

    def age(scene: Scene) -> tuple[bool, str, str]:
        made = scene.properties.get(rule.by)
        return made is not None, str(made), scene.id

    for scene in sorted(scenes, key=age, reverse=True):
        key = tuple(scene.properties.get(name) for name in rule.of)
        if None in key:  # a provider without the property: nothing to compare by
            key = (scene.id,)
        newer = newest.setdefault(key, [])
        if not any(_same_ground(sensor, scene, other) for other in newer):
            newer.append(scene)
    kept = {scene.id for group in newest.values() for scene in group}
    return [scene for scene in scenes if scene.id in kept]


def _same_ground(sensor: Sensor, one: Scene, other: Scene) -> bool:
    """Whether two processings hold about the same share of nodata, as far as they tell."""
    if sensor.nodata_cover is None:
        return True
    share, other_share = (scene.properties.get(sensor.nodata_cover) for scene in (one, other))
    if share is None or other_share is None:
        return True
    return abs(float(share) - float(other_share)) <= NODATA_MARGIN_PERCENT


def unsigned(href: str) -> str:
    """``href`` without its query if that carries a signature or token."""
    parts = urlsplit(href)
    signed = any(key.lower() in _SIGNATURES for key, _ in parse_qsl(parts.query))
    return urlunsplit(parts._replace(query="")) if signed else href


def _utc(properties: Mapping[str, Any]) -> datetime:
    text = properties.get("datetime") or properties["start_datetime"]
    time = datetime.fromisoformat(str(text))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _meets(require: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    for name, wanted in require.items():
        value = properties.get(name)
        if isinstance(wanted, list | tuple):
            if not set(wanted) <= set(value or ()):
                return False
        elif value != wanted:
            return False
    return True
