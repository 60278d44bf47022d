"""Scenes: the parts of STAC items that choosing and reading need, and the rules for usable items.

Hrefs stay UNSIGNED, so that a plan contains no token. Those of a local catalog stay relative to its
folder, so that a store does not depend on where that was.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from salibi_data.catalog.dates import parse_time
from salibi_data.catalog.items.declared import declared_bands, declared_shapes
from salibi_data.catalog.outlines import mended_footprint

if TYPE_CHECKING:
    from salibi_data.catalog.items.declared import DeclaredBand
    from salibi_data.catalog.providers import Sensor

log = logging.getLogger(__name__)

NODATA_MARGIN_PERCENT: Final = 5.0
"""Maximum difference between the nodata shares of two processings of the same ground, in percentage
points. A newer baseline moves the edges of the swath by some pixels, which is far less."""

_MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading an item raises that is no valid STAC."""

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
    """GeoJSON geometry of the area with data, longitude and latitude in degrees; read it by
    :func:`~salibi_data.catalog.outlines.outline_of`, since plans of older versions hold it unmended."""
    hrefs: Mapping[str, str]
    """Unsigned hrefs by asset key."""
    properties: Mapping[str, Any]
    """Item properties that choosing and reading need."""
    declared: Mapping[str, Sequence[DeclaredBand]] = field(default_factory=dict)
    """Scale, offset and nodata of files by asset, where the catalog's TOML leaves them to the item;
    see :func:`~salibi_data.catalog.items.declared.declared_bands`."""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(rows, columns) of images by asset, where the item declares them."""

    def group(self, sensor: Sensor) -> tuple[str, ...]:
        """Return the values that all scenes of one sample must share: a year, a pass."""
        return tuple(_group_text(self.properties.get(name)) for name in sensor.group_by)

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
    except (*_MALFORMED, ShapelyError) as error:
        name = item.get("id") if isinstance(item, Mapping) else item
        log.warning("item %s cannot be used: %r", str(name)[:100], error)
        return None


def _scene(sensor: Sensor, item: Mapping[str, Any]) -> Scene | None:
    properties, geometry = item["properties"], item["geometry"]
    grouped = all(_is_stated(properties.get(name)) for name in sensor.group_by)
    if geometry is None or not grouped or not _meets(sensor.require, properties):
        return None
    if not isinstance(item["id"], str) or not item["id"]:
        raise TypeError(f"id is {item['id']!r}")
    footprint = mended_footprint(geometry)
    # The direction of flight goes to the table of samples, whether or not scenes are chosen by it.
    names, assets = {*sensor.used_properties, "sat:orbit_state"}, set(sensor.assets)
    hrefs = {key: asset["href"] for key, asset in item["assets"].items() if key in assets and asset}
    return Scene(
        id=item["id"],
        sensor=sensor.name,
        acquired_utc=_utc(properties),
        footprint=footprint,
        hrefs={key: strip_signature(href) for key, href in sorted(hrefs.items()) if href},
        properties=_known_properties(sensor, {n: properties[n] for n in names if n in properties}),
        declared=declared_bands(sensor, item["assets"]),
        shapes=declared_shapes(sensor, item),
    )


def _known_properties(sensor: Sensor, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties in order of name, without the numbers that are none."""
    percentages = {sensor.cloud_cover, sensor.nodata_cover}
    sizes_m = {product.gsd_from for product in sensor.products.values()}
    known = {}
    for name, value in sorted(properties.items()):
        if name in sensor.group_by:
            known[name] = value
        elif name in percentages or name in sizes_m:
            number = known_percent(value) if name in percentages else known_number(value, above=0)
            if number is not None:
                # Integers stay integers, so that plans stay the same to the byte.
                known[name] = value if isinstance(value, int) else number
        elif name == "sat:orbit_state":
            if isinstance(value, str):
                known[name] = value
        elif value is None or _is_stated(value):
            known[name] = value
    return known


def known_number(value: Any, *, above: float = -math.inf) -> float | None:
    """Return a finite number above a bound, also from text such as ``12.5``; None: unknown.

    Catalogs write null, NaN, infinities, words and negative numbers where a value was not computed.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > above else None


def known_percent(value: Any) -> float | None:
    """Return a number from 0 to 100; None: unknown, see :func:`known_number`."""
    number = known_number(value)
    return number if number is not None and 0 <= number <= 100 else None  # noqa: PLR2004


def _is_stated(value: Any) -> bool:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return False
    return str(value).strip() != ""


def _group_text(value: Any) -> str:
    # One catalog writes the year 2021 as a number, as 2021.0 and as text.
    return re.sub(r"^(\d+)\.0+$", r"\1", str(value).strip())


def order_key(value: Any) -> tuple[int, tuple[float, ...], str]:
    """Return a key that orders values of any type: unknown < text < numbers, versions < times.

    Versions (``05.10``) are compared part by part, equal times are equal however they are written.
    """
    if not _is_stated(value):
        return 0, (), ""
    if (number := known_number(value)) is not None and not isinstance(value, str):
        return 2, (number,), ""
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)*", text, re.ASCII):
        return 2, tuple(float(part) for part in text.split(".")), ""
    try:
        return 3, (parse_time(text).timestamp(),), ""
    except ValueError:
        return 1, (), text


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

    def age(scene: Scene) -> tuple[Any, str]:
        return order_key(scene.properties.get(rule.by)), scene.id

    for scene in sorted(scenes, key=age, reverse=True):
        stated = [scene.properties.get(name) for name in rule.of]
        key: tuple[Any, ...] = tuple(order_key(value) for value in stated)
        if not all(_is_stated(value) for value in stated):  # items that cannot be compared
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
    share, other_share = (
        known_percent(scene.properties.get(sensor.nodata_cover)) for scene in (scene, other)
    )
    if share is None or other_share is None:
        return True
    return abs(share - other_share) <= NODATA_MARGIN_PERCENT


def strip_signature(href: str) -> str:
    """Remove the query of an href if it contains a signature or token, and a user with a password.

    What stays is published with the store. ``abfs://container@account`` is no user.
    """
    parts = urlsplit(href)
    user, _, host = parts.netloc.rpartition("@")
    if user and (":" in user or parts.scheme in ("http", "https")):
        parts = parts._replace(netloc=host)
        href = urlunsplit(parts)
    is_signed = any(key.lower() in _SIGNATURE_KEYS for key, _ in parse_qsl(parts.query))
    return urlunsplit(parts._replace(query="")) if is_signed else href


def _utc(properties: Mapping[str, Any]) -> datetime:
    # STAC allows a null `datetime` where the start and end of the acquisition are stated.
    return parse_time(properties.get("datetime") or properties["start_datetime"])


def _meets(require: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    for name, required in require.items():
        value = properties.get(name)
        if isinstance(required, list | tuple):
            if not set(required) <= set(value or ()):
                return False
        elif value != required:
            return False
    return True
