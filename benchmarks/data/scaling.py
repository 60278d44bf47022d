"""Measure how cost grows with size, for planning, building, loading and attention.

Claim: the cost of all but attention grows linearly at most; that of attention is quadratic. Seconds
and peak memory of every size are measured in a process of its own. The exponent is the slope of a
straight line through the points of the upper decade, on logarithmic axes; slopes between neighbours
are printed, too. The tasks fit a small machine:

- planning: a static catalog written by `planning.py` that covers the area; zoom 17.
- building: one modality of one drawn scene, zoom 17, from disk, one worker, to the finished store.
- loading: opening a store and reading all its training samples once, shuffled, in batches of 64;
  one modality, cache off. Shards are links to one file, so that the disk's speed does not count.
- attention: forward and backward with the bias from ground distance, 6 heads of 64, float32, one
  thread; computing the bias is included.

Run: python -m benchmarks.data.scaling [--quick | --smallest] [--report FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._lib import side_by_side
from benchmarks._lib.machine import describe
from benchmarks.data import planning

KINDS = {"planning": "tiles", "building": "samples", "loading": "samples", "attention": "tokens"}
SIZES = {
    "full": {
        "planning": (1_000, 10_000, 100_000, 1_000_000),
        "building": (10, 100, 1_000, 10_000),
        "loading": (1_000, 10_000, 100_000),
        "attention": (256, 512, 1024, 2048, 4096),
    },
    "quick": {
        "planning": (1_000, 10_000, 100_000),
        "building": (10, 100, 600),
        "loading": (1_000, 3_000, 10_000),
        "attention": (256, 512, 1024, 2048),
    },
    "smallest": {
        "planning": (100, 400),
        "building": (4, 8),
        "loading": (192, 384),
        "attention": (64, 128),
    },
}
LIMIT = {"planning": 1.1, "building": 1.1, "loading": 1.1, "attention": 2.1}
"""Greatest exponent allowed; the excess over 1 or 2 allows for noise of the clock."""

NOTES = """Small sizes are start-up: imports, and dates and passes that a catalog has however small an
area is. Peaks include what is drawn to be measured, as the scene of building. Planning stops at a
million tiles: ten million take minutes, and forty thousand files of items that are written first."""

SPARE = 1.5
"""Tiles searched per sample built: the guard between splits takes a quarter."""
SCENE_PX, SCENE_PIXEL_M, UTM = 4096, 10.0, "EPSG:32614"
VARIANT = """
extends = "micro"
name = "light"
summary = "one modality"
[[selection]]
sensor = "sentinel-2"
rank = ["cloud"]
[[modality]]
name = "lores"
sensor = "sentinel-2"
product = "visual"
bands = ["red", "green", "blue"]
units = "display"
"""


def measure_planning(size: int, folder: Path) -> float:
    """Give the seconds to plan ``size`` tiles."""
    from salibi_data import plan

    planning.write_catalog(folder, planning.area(size))
    return seconds(
        lambda: plan(
            "micro",
            catalog=str(folder / "bench.toml"),
            output=folder / "plan.parquet",
            bounds_lonlat=planning.area(size),
        )
    )


def measure_building(size: int, folder: Path) -> float:
    """Give the seconds to build ``size`` samples from an existing plan and scene."""
    from salibi_data import build, plan

    bounds = planning.area(math.ceil(size * SPARE) + 16)
    write_scene(folder, bounds)
    variant = folder / "light.toml"
    variant.write_text(VARIANT)
    scene_plan = plan(
        str(variant), catalog=str(folder / "bench.toml"), bounds_lonlat=bounds, limit=size
    )
    if scene_plan.num_samples != size:
        raise SystemExit(f"the plan has {scene_plan.num_samples} samples; {size} were requested")
    return seconds(lambda: build(folder / "light.zarr", plan=scene_plan))


def write_scene(folder: Path, bounds: tuple[float, float, float, float]) -> None:
    """Write a Sentinel-2 scene over the bounds: smooth hills with some noise, no cloud."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.warp import transform_bounds

    west, _, _, north = transform_bounds("EPSG:4326", UTM, *bounds)
    transform = from_origin(west - 3000, north + 3000, SCENE_PIXEL_M, SCENE_PIXEL_M)
    rows, columns = np.mgrid[:SCENE_PX, :SCENE_PX]
    noise = np.random.default_rng(0).integers(0, 12, rows.shape)
    hills = (100 + 60 * np.sin(rows / 90) * np.cos(columns / 70) + noise).astype(np.uint8)
    profile = {"driver": "COG", "dtype": "uint8", "crs": UTM, "transform": transform}
    size = {"width": SCENE_PX, "height": SCENE_PX, "blocksize": 512, "compress": "deflate"}
    images = {"visual": [hills, hills // 2 + 40, 250 - hills], "SCL": [np.full_like(hills, 4)]}
    for asset, bands in images.items():
        path = folder / "sentinel-2-l2a" / f"scene-{asset}.tif"
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", count=len(bands), **profile, **size) as file:
            for number, band in enumerate(bands, start=1):
                file.write(band, number)
    edge_m = SCENE_PX * SCENE_PIXEL_M
    corners = (west - 3000, north + 3000 - edge_m, west - 3000 + edge_m, north + 3000)
    left, bottom, right, top = transform_bounds(UTM, "EPSG:4326", *corners)
    inside = (left + 0.02, bottom + 0.02, right - 0.02, top - 0.02)
    about = {"s2:datatake_id": "take", "s2:mgrs_tile": "T14", "eo:cloud_cover": 0.0}
    newest = {"s2:generation_time": planning.START.isoformat(), "s2:processing_baseline": "05.00"}
    item = planning.item("sentinel-2-l2a", "scene", planning.START, inside, **about, **newest)
    planning.write_items(folder, [item])


def measure_loading(size: int, folder: Path) -> float:
    """Give the seconds to open a store of ``size`` samples and read its training split once."""
    from salibi_model.data.loader import DataLoader
    from salibi_model.data.store import SampleStore
    from tests.support.data.many_samples import write_many

    path = write_many(folder / "many.zarr", num_samples=size, modalities=("lores",))

    def epoch() -> None:
        store = SampleStore(path)
        batches = DataLoader([store], modalities=["lores"], batch_size=64, cache_bytes=0)
        for _ in islice(batches, batches.steps_per_epoch):
            pass

    return seconds(epoch)


def measure_attention(size: int, folder: Path) -> float:
    """Give the median seconds of a forward and backward pass over ``size`` tokens."""
    import torch

    from salibi_model.nn.alibi import patch_centres
    from salibi_model.nn.attention import GroundBias, attend

    del folder
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = 2 ** (int(math.log2(size)) // 2)
    centres = patch_centres((rows, size // rows), 1.0)[None]
    inputs = [torch.randn(1, 6, size, 64, requires_grad=True) for _ in "qkv"]

    def step() -> None:
        bias = GroundBias(query_xy=centres, key_xy=centres, num_heads=6)
        attend(*inputs, bias).sum().backward()

    step()
    return float(np.median([seconds(step) for _ in range(5)]))


MEASURES: dict[str, Callable[[int, Path], float]] = {
    "planning": measure_planning,
    "building": measure_building,
    "loading": measure_loading,
    "attention": measure_attention,
}


def seconds(way: Callable[[], object]) -> float:
    """Give the wall seconds of one call."""
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def measured(kind: str, size: int) -> dict[str, Any]:
    """Measure one size in this process: seconds, and peak memory in bytes."""
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        taken_s = MEASURES[kind](size, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"size": size, "seconds": taken_s, "peak_bytes": peak}


def exponent(points: list[dict[str, Any]]) -> float:
    """Fit the slope of log seconds over log size in the upper decade."""
    upper = [p for p in points if p["size"] * 10 >= points[-1]["size"]]
    size, seconds_taken = (np.log([p[key] for p in upper]) for key in ("size", "seconds"))
    return float(np.polyfit(size, seconds_taken, 1)[0])


def slopes(points: list[dict[str, Any]]) -> list[float]:
    """Give the slope between each point and the next, on logarithmic axes."""
    return [
        math.log(b["seconds"] / a["seconds"]) / math.log(b["size"] / a["size"])
        for a, b in pairwise(points)
    ]


def lines(points_by_kind: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Format the report: every point, and the exponents beside their limits."""
    rows = [
        [
            kind,
            f"{p['size']:,} {KINDS[kind]}",
            f"{p['seconds']:.3g}",
            f"{p['peak_bytes'] / 1e6:,.0f}",
        ]
        for kind, points in points_by_kind.items()
        for p in points
    ]
    exponents = [
        [
            kind,
            f"{exponent(points):.2f}",
            ", ".join(f"{slope:.2f}" for slope in slopes(points)),
            f"{LIMIT[kind]:.1f}",
            "yes" if exponent(points) <= LIMIT[kind] else "NO",
        ]
        for kind, points in points_by_kind.items()
    ]
    return [
        "",
        describe("numpy", "zarr", "rasterio", "torch"),
        *side_by_side.table(["", "size", "seconds", "peak MB"], rows),
        *side_by_side.table(["", "exponent", "between neighbours", "at most", "met"], exponents),
        NOTES,
    ]


def draw(points_by_kind: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw seconds against size on logarithmic axes, beside a line of the claimed slope."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (kind, points) in zip(
        figure.subplots(1, len(points_by_kind)), points_by_kind.items(), strict=True
    ):
        size, seconds_taken = (
            np.array([p[key] for p in points], float) for key in ("size", "seconds")
        )
        slope = 2 if kind == "attention" else 1
        guide = seconds_taken[-1] * (size / size[-1]) ** slope
        axes.loglog(size, guide, "--", color="grey", linewidth=1, label=f"slope {slope}")
        axes.loglog(
            size, seconds_taken, "o-", color="#1e6091", label=f"{exponent(points):.2f} measured"
        )
        axes.set(title=kind, xlabel=KINDS[kind])
        axes.set_xticks(size, [f"{int(tick):,}" for tick in size], fontsize=8)
        axes.minorticks_off()
        axes.grid(which="major", linewidth=0.4, alpha=0.6)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("seconds")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure the missing sizes, print exponents, draw."""
    parser = side_by_side.parser(__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the points")
    parser.add_argument("--only", choices=KINDS, help="measure no other kind")
    parser.add_argument(
        "--figures", type=Path, help="JSON file of the points; those in it are not measured again"
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        kind, size = arguments.measure
        print(json.dumps(measured(kind, int(size))))
        return
    sizes = side_by_side.by_form(arguments, **SIZES)
    figures_file = arguments.figures
    points_by_kind: dict[str, Any] = (
        json.loads(figures_file.read_text()) if figures_file and figures_file.exists() else {}
    )
    for kind in KINDS:
        if kind in points_by_kind or arguments.only not in (None, kind):
            continue
        points_by_kind[kind] = [
            measured(kind, size)
            if arguments.smallest  # starting eight processes would take longer than all the rest
            else side_by_side.in_own_process(__spec__.name, "--measure", kind, str(size))
            for size in sizes[kind]
        ]
        if figures_file:
            figures_file.write_text(json.dumps(points_by_kind))
    points_by_kind = {kind: points_by_kind[kind] for kind in KINDS if kind in points_by_kind}
    side_by_side.report(arguments.report, "Growth", lines(points_by_kind))
    if arguments.plot:
        draw(points_by_kind, arguments.plot)


if __name__ == "__main__":
    main()
