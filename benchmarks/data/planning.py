"""Plan a million tiles at zoom 17 from a catalog on disk: seconds, and memory at two sizes.

Writes a static STAC catalog of items without rasters: NAIP quads of two years that overlap their
neighbours, Sentinel-2 granules every few days, Sentinel-1 passes. Prints the time and the peak
memory of planning all of it, and of planning a quarter, each in a process of its own.

    python -m benchmarks.data.planning [--quick] [--tiles 1000000]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mercantile

from benchmarks._lib import machine
from benchmarks._lib.side_by_side import by_form, parser

WEST, NORTH, ZOOM = -98.0, 42.0, 17
QUAD_DEG, OVERLAP_DEG = 0.0625, 0.004
START = datetime(2021, 6, 1, 17, tzinfo=UTC)


def area(tiles: int) -> tuple[float, float, float, float]:
    """Give the bounds of a square of about ``tiles`` tiles (west, south, east, north)."""
    edge = math.isqrt(tiles)
    first = mercantile.tile(WEST, NORTH, ZOOM)
    last = mercantile.bounds(first.x + edge - 1, first.y + edge - 1, ZOOM)
    corner = mercantile.bounds(*first)
    return corner.west, last.south, last.east, corner.north


def write_catalog(folder: Path, bounds: tuple[float, float, float, float]) -> int:
    """Write ``catalog.json`` and its items; give their number."""
    items = [*naip(bounds), *sentinel_2(bounds), *sentinel_1(bounds)]
    write_items(folder, items)
    return len(items)


def write_items(folder: Path, items: list[dict[str, Any]]) -> None:
    """Write a static catalog of the items, and ``bench.toml``, which describes it."""
    links = []
    for item in items:
        path = folder / item["collection"] / f"{item['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{item['collection']}/{path.name}"})
    head = {"type": "Catalog", "stac_version": "1.0.0", "id": "bench", "description": "bench"}
    (folder / "catalog.json").write_text(json.dumps({**head, "links": links}))
    (folder / "bench.toml").write_text(
        'extends = "sample"\nname = "bench"\nkind = "static"\nurl = "catalog.json"\n'
    )


def item(collection: str, name: str, when: datetime, box: Any, **properties: Any) -> dict[str, Any]:
    """Make a STAC item with the assets that the catalog's description names."""
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    keys = {"naip": ["image"], "sentinel-1-rtc": ["vv", "vh"], "sentinel-2-l2a": ["visual", "SCL"]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(box),
        "properties": {"datetime": when.isoformat(), **properties},
        "links": [],
        "assets": {key: {"href": f"./{name}-{key}.tif"} for key in keys[collection]},
    }


def naip(bounds: tuple[float, float, float, float]) -> list[dict[str, Any]]:
    """Make NAIP quarter quads of 2019 and 2021 that cover the bounds."""
    west, south, east, north = bounds
    columns = math.ceil((east - west) / QUAD_DEG)
    rows = math.ceil((north - south) / QUAD_DEG)
    items = []
    for year in (2019, 2021):
        for column in range(columns):
            for row in range(rows):
                left, top = west + column * QUAD_DEG, north - row * QUAD_DEG
                box = (
                    left - OVERLAP_DEG,
                    top - QUAD_DEG - OVERLAP_DEG,
                    left + QUAD_DEG + OVERLAP_DEG,
                    top + OVERLAP_DEG,
                )
                # A year's flights take weeks, so neighbours have different dates.
                when = START.replace(year=year) + timedelta(days=(column // 8) * 3)
                name = f"n{year}-{column}-{row}"
                items.append(item("naip", name, when, box, **{"naip:year": str(year), "gsd": 0.6}))
    return items


def sentinel_2(bounds: tuple[float, float, float, float]) -> list[dict[str, Any]]:
    """Make granules of one degree that overlap by a tenth, every five days of two summers."""
    west, south, east, north = bounds
    items = []
    for day in range(-60, 100, 5):
        for year in (2019, 2021):
            when = START.replace(year=year) + timedelta(days=day)
            for column in range(math.ceil((east - west) / 0.9)):
                for row in range(math.ceil((north - south) / 0.9)):
                    left, top = west + column * 0.9 - 0.05, north - row * 0.9 + 0.05
                    items.append(
                        item(
                            "sentinel-2-l2a",
                            f"s2-{year}-{day}-{column}-{row}",
                            when,
                            (left, top - 1.0, left + 1.0, top),
                            **{
                                "s2:datatake_id": f"take-{year}-{day}",
                                "eo:cloud_cover": float((day * 7 + column * 13 + row * 29) % 100),
                                "s2:mgrs_tile": f"T{column}{row}",
                                "s2:generation_time": when.isoformat(),
                                "s2:processing_baseline": "05.00",
                            },
                        )
                    )
    return items


def sentinel_1(bounds: tuple[float, float, float, float]) -> list[dict[str, Any]]:
    """Make passes over the whole area every six days of two summers, in frames of 1.5 degrees."""
    west, south, east, north = bounds
    items = []
    for orbit, day in enumerate(range(-70, 110, 6)):
        for year in (2019, 2021):
            for row in range(math.ceil((north - south) / 1.4)):
                top = north - row * 1.4 + 0.05
                items.append(
                    item(
                        "sentinel-1-rtc",
                        f"s1-{year}-{orbit}-{row}",
                        START.replace(year=year) + timedelta(days=day, seconds=25 * row),
                        (west - 0.5, top - 1.5, east + 0.5, top),
                        **{
                            "sat:absolute_orbit": year * 100 + orbit,
                            "sat:orbit_state": "descending",
                            "sar:instrument_mode": "IW",
                            "sar:polarizations": ["VV", "VH"],
                        },
                    )
                )
    return items


def plan_all(folder: Path, bounds: str) -> None:
    """Plan in this process; print samples, seconds and peak memory."""
    from salibi_data import plan

    started_s = time.perf_counter()
    edges = tuple(float(part) for part in bounds.split(","))
    area_plan = plan(
        "micro",
        catalog=str(folder / "bench.toml"),
        output=folder / "plan.parquet",
        bounds_lonlat=edges,
    )
    seconds = time.perf_counter() - started_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lost = sum(area_plan.lost.values())
    figures = {"samples": area_plan.num_samples, "tiles": area_plan.num_samples + lost}
    print(json.dumps({**figures, "seconds": seconds, "peak_bytes": peak}))


def main() -> None:
    """Write the catalog, plan a quarter and all of it, print both."""
    argument_parser = parser(__doc__)
    argument_parser.add_argument("--tiles", type=int)
    argument_parser.add_argument("--json", action="store_true")
    argument_parser.add_argument("--plan", nargs=2, help=argparse.SUPPRESS)
    arguments = argument_parser.parse_args()
    if arguments.plan:
        plan_all(Path(arguments.plan[0]), arguments.plan[1])
        return
    tiles = arguments.tiles or by_form(arguments, full=1_000_000, quick=100_000, smallest=1_000)
    with tempfile.TemporaryDirectory() as folder:
        items = write_catalog(Path(folder), area(tiles))
        figures = {"items": items}
        for share in (4, 1):
            bounds = ",".join(str(edge) for edge in area(tiles // share))
            command = [sys.executable, "-m", __spec__.name, "--plan", folder, f" {bounds}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures["all" if share == 1 else "quarter"] = json.loads(done.stdout)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(machine.describe("shapely", "pystac", "pyarrow"))
    for name in ("quarter", "all"):
        run = figures[name]
        print(
            f"{name}: {run['tiles']:,} tiles, {run['samples']:,} samples, "
            f"{run['seconds']:.1f} s, peak {run['peak_bytes'] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
