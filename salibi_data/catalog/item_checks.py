"""Checks of what an API answers: items that were asked for, and hrefs that are addresses.

APIs ignore filters that they do not know, gateways lose them, and items hold paths of the machine
that made them. An item that was not asked for is never used, and never means a file of this machine.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from salibi_data.catalog.dates import acquired_interval
from salibi_data.catalog.outlines import outline_of
from salibi_data.catalog.scenes import Scene, scene_from_item
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from salibi_data.catalog.dates import Interval
    from salibi_data.catalog.providers import Sensor
    from salibi_data.store.tiles import Bounds

log = logging.getLogger(__name__)

Item = Mapping[str, Any]
"""Parsed JSON of a STAC item."""

_REMOTE_SCHEMES: Final = frozenset({"http", "https", "s3", "gs", "az", "abfs", "abfss"})
"""Schemes of addresses that do not depend on the machine that reads them."""

_URL_CHARACTERS: Final = "!#$%&'()*+,/:;=?@[]~"
"""Characters that stay as they are; ``%`` because the rest may be encoded already."""


@dataclass
class _LeftOut:
    """Items and hrefs that are not used, by reason, with the first of each by name."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, name[:100])

    def report(self, collection: str) -> None:
        """Name what is left out in one line of the log."""
        texts = (
            f"{num} {reason} (first: {self.first[reason]})" for reason, num in self.counts.items()
        )
        if self.counts:
            log.warning("items of %s that are not used: %s", collection, "; ".join(texts))


def scenes_asked_for(
    sensor: Sensor,
    items: Iterable[tuple[Any, str]],
    bounds: Bounds,
    interval: Interval | None,
) -> list[Scene]:
    """Create the scenes of an API's items, without those that were not asked for.

    What is left out is counted, and named in one line of the log. Items whose box meets the bounds
    but whose footprint does not, or whose range of times meets the interval but whose own time does
    not, are left out in silence: they are right by the rules of the API.

    Args:
        sensor: sensor of the scenes.
        items: items of any content, each with the address of its page.
        bounds: (west, south, east, north) in degrees that were asked for.
        interval: closed interval of times that was asked for; None for all times.
    """
    import shapely

    scenes, left_out = [], _LeftOut()
    wanted = shapely.box(*bounds)
    for stated, page_url in items:
        item, name = stated, repr(stated)
        if isinstance(stated, Mapping):
            name = str(stated.get("id"))
            if is_of_other_collection(stated, sensor.collection):
                left_out.add("of another collection", f"{name} of {stated_collection(stated)}")
                continue
            if stated.get("geometry") is None:
                left_out.add("without a geometry", name)
                continue
            item = _with_remote_hrefs(sensor, stated, page_url, left_out)
        scene = scene_from_item(sensor, item)
        if scene is None:
            continue
        if not _overlaps(item["properties"], interval):
            left_out.add("outside the dates", name)
        elif interval is None or interval[0] <= scene.acquired_utc <= interval[1]:
            footprint = outline_of(scene.footprint)
            if shapely.intersects(footprint, wanted):
                scenes.append(scene)
            elif not shapely.intersects(shapely.envelope(footprint), wanted):
                left_out.add("outside the bounds", name)
    left_out.report(sensor.collection)
    return scenes


def distinct_scenes(scenes: Iterable[Scene]) -> list[Scene]:
    """Return each scene once. One that is stated in several ways is named in the log.

    Of several contents the last in the order of their text is used: whichever it is, it does not
    depend on the order of the answers.
    """
    by_id: dict[str, Scene] = {}
    differing = []
    for scene in scenes:
        known = by_id.setdefault(scene.id, scene)
        if known == scene:
            continue
        differing.append(scene.id)
        by_id[scene.id] = max(known, scene, key=_text)
    if differing:
        log.warning(
            "%d items of one id differ in content, such as %s; one of each is used",
            *(len(set(differing)), differing[0]),
        )
    return list(by_id.values())


def _text(scene: Scene) -> str:
    return json.dumps(scene.to_dict(), sort_keys=True, default=str)


def is_of_other_collection(item: Any, collection: str) -> bool:
    """Return whether an item states another collection; one that states none is believed."""
    stated = stated_collection(item)
    return stated is not None and stated != collection


def stated_collection(item: Any) -> str | None:
    """Return the id of an item's collection, by its field or its link; None where it has neither."""
    if not isinstance(item, Mapping):
        return None
    if item.get("collection") is not None:
        return str(item["collection"])
    for link in _links(item, "collection"):
        # Of an API only: a file of a static catalog may have any name.
        _, found, name = urlsplit(link).path.rstrip("/").rpartition("/collections/")
        if found and "/" not in name:
            return unquote(name)
    return None


def remote_href(href: Any, base: str | None) -> str | None:
    """Return the absolute address that an href of a remote item means.

    Args:
        href: href of an asset; relative ones may be percent-encoded.
        base: address of the item; None where it has none.

    Returns:
        None for what is no address at a server: a path of a machine, a file URL, a name of GDAL's
        virtual file systems, or a relative href without a base.
    """
    if not isinstance(href, str) or not href.strip():
        return None
    text = href.strip()
    try:
        parts = urlsplit(text)
        if parts.scheme:
            rest = text[len(parts.scheme) :]  # the scheme in lower case, as `parts` has it
            return f"{parts.scheme}{rest}" if is_address(text) else None
        # Backslashes separate folders on Windows only, and stand in no URL.
        if base is None or "\\" in text or text.startswith(("/vsi", "~")):
            return None
        # `urljoin` knows the rules for http only, and they are the same for all.
        scheme, _, place = base.partition("://")
        joined = urljoin(f"http://{place}", text).removeprefix("http")
        return f"{scheme}{quote(joined, safe=_URL_CHARACTERS) if 'http' in scheme else joined}"
    except ValueError:  # brackets that are no IPv6 address
        return None


def is_address(href: str) -> bool:
    """Return whether an href is an absolute address at a server."""
    try:
        parts = urlsplit(href)
    except ValueError:  # brackets that are no IPv6 address
        return False
    return parts.scheme in _REMOTE_SCHEMES and bool(parts.netloc)


def item_address(item: Item, page_url: str) -> str | None:
    """Return the address to which hrefs of an API's item are relative.

    It is the item's own link; without one, the address of the page (RFC 3986, 5.1.3).

    Returns:
        None where the item's own link is no address at a server.
    """
    own = next(iter(_links(item, "self")), None)
    return page_url if own is None else remote_href(own, page_url)


def _with_remote_hrefs(
    sensor: Sensor, item: Item, page_url: str, left_out: _LeftOut
) -> dict[str, Any]:
    """Return an item with absolute hrefs, without the assets of the sensor that have none."""
    assets = item.get("assets")
    if not isinstance(assets, Mapping):
        return dict(item)
    base = item_address(item, page_url)
    resolved = {}
    for key, asset in assets.items():
        if key not in sensor.assets or not isinstance(asset, Mapping) or not asset.get("href"):
            resolved[key] = asset
            continue
        href = remote_href(asset["href"], base)
        if href is None:
            name = f"{asset['href']!r} of {item.get('id')}"
            left_out.add("with an href that is no address at a server", redact(name))
        else:
            resolved[key] = {**asset, "href": href}
    return {**item, "assets": resolved}


def _links(item: Item, rel: str) -> list[str]:
    links = item.get("links")
    if not isinstance(links, Sequence) or isinstance(links, str):
        return []
    return [
        link["href"]
        for link in links
        if isinstance(link, Mapping)
        and link.get("rel") == rel
        and isinstance(link.get("href"), str)
    ]


def _overlaps(properties: Mapping[str, Any], interval: Interval | None) -> bool:
    if interval is None:
        return True
    try:
        first, last = acquired_interval(properties)
    except (TypeError, ValueError, LookupError):
        return True  # an end that is malformed; the time of the scene decides
    return first <= interval[1] and interval[0] <= last
