"""Real STAC items of ``SALIBI_REAL``, and shifted copies of them: enough to fill many pages."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
import shapely

from tests.support.data.real_catalogs import REAL

Item = dict[str, Any]

TIMES = ("datetime", "start_datetime", "end_datetime")
STEP = timedelta(hours=5, minutes=17, seconds=23)
"""Copies are spread over time by multiples of it, so that they fall on all hours of the day."""


def real_items() -> list[Item]:
    """Items that the Planetary Computer and Earth Search have answered with; each id once."""
    items = [*_json_items(), *_recorded_items(), *_parquet_items()]
    return list({(item["collection"], item["id"]): item for item in items}.values())


def sample_items(catalog: Path) -> list[Item]:
    """Items of a static catalog on disk, with absolute hrefs and no links."""
    items = []
    for item in pystac.Catalog.from_file(str(catalog / "catalog.json")).get_items(recursive=True):
        item.make_asset_hrefs_absolute()
        items.append({**item.to_dict(include_self_link=False), "links": []})
    return items


def copies(items: Sequence[Item], count: int, seed: int) -> Iterator[Item]:
    """``count`` items like the given ones, elsewhere, at other times, by other names.

    Three in twenty have a twin that is reprocessed or unfit, as happens with the providers.
    """
    chance = random.Random(seed)
    for number in range(count):
        source = items[number % len(items)]
        item = copy.deepcopy(source)
        item["id"] = f"{source['id']}-copy-{number:05d}"
        item["links"] = []
        # The originals keep all they say of their assets; thousands of copies would only be slower.
        item["assets"] = {key: {"href": asset["href"]} for key, asset in source["assets"].items()}
        _move(item, chance.uniform(-3, 3), chance.uniform(-3, 3))
        _delay(item, STEP * chance.randrange(1, 2000))
        yield item
        if chance.random() < 0.15:
            yield _flawed(item, chance)


def _move(item: Item, east_deg: float, north_deg: float) -> None:
    geometry = shapely.geometry.shape(item["geometry"])
    west, south, east, north = geometry.bounds
    # Within the plane on which the API compares: beyond its edges the answer is a matter of taste.
    east_deg = min(max(east_deg, -180 - west), 180 - east)
    north_deg = min(max(north_deg, -89 - south), 89 - north)
    moved = shapely.transform(geometry, lambda xy: xy + np.array([east_deg, north_deg]))
    item["geometry"] = shapely.geometry.mapping(moved)
    item["bbox"] = list(moved.bounds)


def _delay(item: Item, by: timedelta) -> None:
    properties = item["properties"]
    for name in TIMES:
        if properties.get(name):
            later = datetime.fromisoformat(properties[name]) + by
            properties[name] = later.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _flawed(item: Item, chance: random.Random) -> Item:
    """A second item at the same place and time: reprocessed, without a group, in another mode."""
    twin = copy.deepcopy(item)
    twin["id"] += "-twin"
    properties = twin["properties"]
    if item["collection"].startswith("sentinel-2"):
        properties["s2:generation_time"] = f"20{chance.randrange(18, 30)}-03-04T05:06:07.000000Z"
    elif item["collection"] == "naip":
        properties.pop("naip:year", None)
    elif chance.random() < 0.5:
        properties["sar:polarizations"] = ["VV"]
    else:
        properties["sar:instrument_mode"] = "EW"
    return twin


def _json_items() -> Iterator[Item]:
    for path in sorted((REAL / "stac").glob("*.json")):
        content = json.loads(path.read_text())
        items = content if isinstance(content, list) else content.get("features", [])
        yield from (item for item in items if item.get("type") == "Feature")


def _recorded_items() -> Iterator[Item]:
    """Items in recorded answers of a search for NAIP."""
    import yaml

    for path in sorted((REAL / "stac").glob("*.yaml")):
        for exchange in yaml.safe_load(path.read_text())["interactions"]:
            yield from json.loads(exchange["response"]["body"]["string"])["features"]


def _parquet_items() -> Iterator[Item]:
    """Items of stac-geoparquet: properties are columns, the geometry is well-known binary."""
    outside = {"type", "stac_version", "stac_extensions", "id", "links", "assets", "collection"}
    for path in sorted((REAL / "stac").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            geometry = shapely.from_wkb(row.pop("geometry"))
            del row["bbox"]
            item = {name: row.pop(name) for name in outside}
            item["assets"] = _without_nulls(item["assets"])
            item["links"] = []
            row["datetime"] = row["datetime"].astimezone(UTC).isoformat().replace("+00:00", "Z")
            item["properties"] = _without_nulls(row)
            item["geometry"] = shapely.geometry.mapping(geometry)
            item["bbox"] = list(geometry.bounds)
            yield item


def _without_nulls(value: Any) -> Any:
    """Remove the nulls that Parquet adds."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value
