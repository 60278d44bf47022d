"""Scenes: the parts of STAC items that choosing and reading need, and the rules for usable items.

Hrefs stay UNSIGNED, so that a plan contains no token. Those of a local catalog stay relative to its
folder, so that a store does not depend on where that was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import numpy as np

from salibi_data.catalog.declared import declared_bands, declared_shapes

if TYPE_CHECKING:
    from salibi_data.catalog.declared import DeclaredBand
    from salibi_data.catalog.providers import Sensor

log = logging.getLogger(__name__)

NODATA_MARGIN_PERCENT: Final = 5.0
"""Maximum difference between the nodata shares of two processings of the same ground, in percentage
points. A newer baseline moves the edges of the swath by some pixels, which is far less."""

_SIGNATURE_KEYS: Final = frozenset(
    {
        *("sig", "signature", "token", "access_token", "api_key", "awsaccesskeyid"),
        *("x-amz-signature", "x-amz-security-token", "x-amz-credential", "x-goog-signature"),
    }
)
"""Keys of a query string, in lower case, that mark a signed URL."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One STAC item, reduced to what this software uses."""

    id: str
    """Identifier of the item in its collection."""
    sensor: str
    """Name of the sensor in the catalog."""
    acquired_utc: datetime
    """Time of acquisition."""
    footprint: Mapping[str, Any]
    """GeoJSON geometry of the area with data, longitude and latitude in degrees."""
    hrefs: Mapping[str, str]
    """Unsigned hrefs by asset key."""
    properties: Mapping[str, Any]
    """Item properties that choosing and reading need."""
    declared: Mapping[str, Sequence[DeclaredBand]] = field(default_factory=dict)
    """Scale, offset and nodata of files by asset, where the catalog's TOML leaves them to the item;
    see :func:`~salibi_data.catalog.declared.declared_bands`."""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(rows, columns) of images by asset, where the item declares them."""

    def group(self, sensor: Sensor) -> tuple[str, ...]:
        """Return the values that all scenes of one sample must share: a year, a pass."""
        return tuple(str(self.properties.get(name)) for name in sensor.group_by)

    def to_dict(self, *, with_shapes: bool = False) -> dict[str, Any]:
        """Convert to JSON, without the sensor; :meth:`from_dict` is the inverse.

        Args:
            with_shapes: whether to include the shapes. They show whether a file is the item's, and
                change no pixel of one that is, so stores and digests do without them.
        """
        content: dict[str, Any] = {
            "id": self.id,
            "acquired": self.acquired_utc.isoformat(),
            "footprint": self.footprint,
            "hrefs": dict(self.hrefs),
            "properties": dict(self.properties),
        }
        if self.declared:
            content["declared"] = {
                asset: [dict(band) for band in bands] for asset, bands in self.declared.items()
            }
        if with_shapes and self.shapes:
            content["shapes"] = {asset: list(shape) for asset, shape in self.shapes.items()}
        return content

    @classmethod
    def from_dict(cls, sensor: str, content: Mapping[str, Any]) -> Scene:
        """Create the scene of a sensor from what :meth:`to_dict` returned."""
        return cls(
            id=content["id"],
            sensor=sensor,
            acquired_utc=datetime.fromisoformat(content["acquired"]),
            footprint=content["footprint"],
            hrefs=content["hrefs"],
            properties=content["properties"],
            declared=content.get("declared", {}),
            shapes={
                asset: (rows, columns)
                for asset, (rows, columns) in content.get("shapes", {}).items()
            },
        )


def scene_from_item(sensor: Sensor, item: Mapping[str, Any]) -> Scene | None:
    """Create a scene from a STAC item, or return None where the item cannot be used.

    Args:
        sensor: sensor of the item, with its rules for properties and assets.
        item: mapping with ``id``, ``geometry``, ``properties`` and ``assets``.

    Returns:
        None for an item without a geometry, without a grouping property, with other values
        than the sensor requires, or that is no valid STAC item: providers have a few of those
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
    # The direction of flight goes to the table of samples, whether or not scenes are chosen by it.
    names, assets = {*sensor.used_properties, "sat:orbit_state"}, set(sensor.assets)
    hrefs = {key: asset["href"] for key, asset in item["assets"].items() if key in assets and asset}
    return Scene(
        id=item["id"],
        sensor=sensor.name,
        acquired_utc=_utc(properties),
        footprint=geometry,
        hrefs={key: strip_signature(href) for key, href in sorted(hrefs.items()) if href},
        properties={key: properties[key] for key in sorted(names) if key in properties},
        declared=declared_bands(sensor, item["assets"]),
        shapes=declared_shapes(sensor, item),
    )


def _check_polygon(geometry: Mapping[str, Any]) -> None:
    import shapely
    from shapely.geometry import shape

    # Some providers' footprints cross themselves, which alone makes no item unusable.
    outline = shapely.make_valid(shape(geometry))
    if not (outline.area > 0 and np.isfinite(outline.bounds).all()):
        raise ValueError("its geometry has no area")


def newest_processing(sensor: Sensor, scenes: Sequence[Scene]) -> list[Scene]:
    """Remove the scenes superseded by a newer processing of the same acquisition.

    Two processings whose shares of nodata differ by more than :data:`NODATA_MARGIN_PERCENT` show
    different ground, namely the two datastrips that meet in a tile. Then both stay.

    Args:
        sensor: sensor of the scenes; without a ``latest`` rule all stay.
        scenes: scenes in any order, which the result keeps.
    """
    rule = sensor.latest
    if rule is None:
        return list(scenes)
    newest: dict[tuple[Any, ...], list[Scene]] = {}

    def age(scene: Scene) -> tuple[bool, str, str]:
        processed = scene.properties.get(rule.by)
        return processed is not None, str(processed), scene.id

    for scene in sorted(scenes, key=age, reverse=True):
        key = tuple(scene.properties.get(name) for name in rule.of)
        if None in key:  # this provider lacks a property, so items cannot be compared
            key = (scene.id,)
        newer = newest.setdefault(key, [])
        if not any(_same_ground(sensor, scene, other) for other in newer):
            newer.append(scene)
    newest_ids = {scene.id for group in newest.values() for scene in group}
    return [scene for scene in scenes if scene.id in newest_ids]


def _same_ground(sensor: Sensor, scene: Scene, other: Scene) -> bool:
    """Return whether two processings state about the same share of nodata, or do not state it."""
    if sensor.nodata_cover is None:
        return True
    share, other_share = (scene.properties.get(sensor.nodata_cover) for scene in (scene, other))
    if share is None or other_share is None:
        return True
    return abs(float(share) - float(other_share)) <= NODATA_MARGIN_PERCENT


def strip_signature(href: str) -> str:
    """Remove the query of an href if it contains a signature or token."""
    parts = urlsplit(href)
    is_signed = any(key.lower() in _SIGNATURE_KEYS for key, _ in parse_qsl(parts.query))
    return urlunsplit(parts._replace(query="")) if is_signed else href


def _utc(properties: Mapping[str, Any]) -> datetime:
    # STAC allows a null `datetime` where the start and end of the acquisition are stated.
    text = properties.get("datetime") or properties["start_datetime"]
    time = datetime.fromisoformat(str(text))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _meets(require: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    for name, required in require.items():
        value = properties.get(name)
        if isinstance(required, list | tuple):
            if not set(required) <= set(value or ()):
                return False
        elif value != required:
            return False
    return True
