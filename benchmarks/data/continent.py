"""Predict hours and money of builds up to a continent, and check the prediction on small builds.

Claim: the duration of a build follows, within 20 %, from the files opened, the megabytes read, the
pixels warped and the samples made, with unit costs from one small build. Calibrated on some samples
far apart at zoom 17 and a few at zoom 15. Predicted and then measured: a dense area at zoom 17,
several times as large; and zoom 16, which the calibration does not contain, from a server that
waits before each answer. Then the figures of `salibi-data forecast` for several numbers of workers.

One worker builds, because a second one would share this machine's cores with the server. The
sources are the offline sample's COGs, served over HTTP by another process.

Run: python -m benchmarks.data.continent [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

from benchmarks._lib import side_by_side
from benchmarks._lib.machine import describe
from salibi_data.builds.build import build
from salibi_data.builds.run_log import RunLog
from salibi_data.catalog.providers import Catalog, load_catalog
from salibi_data.catalog.variants import Variant, load_variant
from salibi_data.forecasts.conus import continental_workload
from salibi_data.forecasts.costs import BuildConditions, UnitCosts, Workload, build_cost
from salibi_data.forecasts.regions import forecast
from salibi_data.plans.estimate import Tally
from salibi_data.plans.picks import CellSelection, SceneChoice
from salibi_data.plans.plan import BLOCK_ZOOM_OFFSET
from salibi_data.plans.planner import plan
from salibi_data.store.tiles import Tiles
from salibi_data.synthetic import write_sample_catalog
from tests.support.data import samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from salibi_data.plans.plan import Plan

LATENCY_S = 0.03
NO_LIMIT = 1e12
CREWS = ((8, 16), (64, 16), (64, 256), (512, 2048))
"""Workers, and requests in flight by all of them together: 16 unless a user raises it."""


def serve_forever(folder: Path, latency_s: float, ready: Connection) -> None:
    """Serve the folder until the other end of ``ready`` sends something."""
    from tests.support.services.servers import RangeServer, serve

    with serve(RangeServer(folder, latency_s=latency_s)) as server:
        ready.send(server.url)
        ready.recv()


@contextmanager
def served(folder: Path, latency_s: float) -> Iterator[Catalog]:
    """Give the sample catalog of a folder, whose rasters come from a server with this latency."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (folder, latency_s, theirs)
    server = context.Process(target=serve_forever, args=arguments, daemon=True)
    server.start()
    url = ours.recv()
    yield load_catalog(samples.served(url, folder, folder.with_name(f"by-{latency_s:g}")))
    ours.send("done")
    server.join()


def work_of(store_plan: Plan, choices: Sequence[SceneChoice], *, num_samples: int = 0) -> Workload:
    """Count the work of making some of a plan's samples from the scenes that the plan chose."""
    sets: dict[str, list[Any]] = {}
    codes: dict[str, Any] = {}
    for name in store_plan.variant.sensors:
        numbers: dict[tuple[str, ...], int] = {}
        sets[name], codes[name] = [], []
        for choice in choices:
            ids = tuple(scene.id for scene in choice.scenes[name])
            if ids not in numbers:
                numbers[ids] = len(numbers)
                sets[name].append(choice.scenes[name])
            codes[name].append(numbers[ids])
    x, y = np.array([choice.tile[:2] for choice in choices]).T
    tally = Tally(store_plan.variant, store_plan.catalog)
    tally.add(
        CellSelection(
            tiles=Tiles(zoom=store_plan.variant.base_zoom, x=x, y=y),
            sets=sets,
            code={name: np.array(code) for name, code in codes.items()},
            cloud_fraction=np.full(len(choices), np.nan, np.float32),
            lost={},
        )
    )
    return Workload(
        num_read=len(choices),
        num_samples=num_samples,
        num_files=tally.num_files.total(),
        num_warped_px=tally.num_warped_px.total(),
        source_bytes=tally.num_bytes.total(),
        source_requests=tally.num_requests.total(),
        store_bytes=0,
    )


def timed_build(store_plan: Plan, store: Path) -> tuple[float, list[float], int]:
    """Build; give the total seconds, those of each block in the plan's order, and the samples stored."""
    started_s = time.perf_counter()
    report = build(store, plan=store_plan)
    total_s = time.perf_counter() - started_s
    log = RunLog.path_of(store).read_text().splitlines()
    blocks = [entry for entry in map(json.loads, log) if entry["event"] == "block"]
    return total_s, [entry["seconds"] for entry in blocks], report.num_samples


def calibrated(near: Sequence[Plan], far: Sequence[Plan], folder: Path) -> UnitCosts:
    """Fit non-negative unit costs to the seconds of every block of the near plans.

    The same samples from the slow server give the number of round trips per file.
    """
    work, block_seconds, outside_blocks_s, num_stored = [], [], 0.0, 0
    for number, store_plan in enumerate(near):
        total_s, blocks_s, num_samples = timed_build(store_plan, folder / f"near-{number}.zarr")
        runs = groupby(
            store_plan.choices(),
            key=lambda c: (c.tile.x >> BLOCK_ZOOM_OFFSET, c.tile.y >> BLOCK_ZOOM_OFFSET),
        )
        work += [work_of(store_plan, list(run)) for _, run in runs]
        block_seconds += blocks_s
        outside_blocks_s, num_stored = (
            outside_blocks_s + total_s - sum(blocks_s),
            num_stored + num_samples,
        )
    far_s = 0.0
    for number, store_plan in enumerate(far):
        far_s += sum(timed_build(store_plan, folder / f"far-{number}.zarr")[1])
    waits_s = LATENCY_S * sum(w.num_files for w in work)
    units = np.array(
        [[w.num_files, w.source_bytes / 1e6, w.num_warped_px / 1e6, w.num_read] for w in work],
        float,
    )
    # The longer a block takes, the more its seconds scatter.
    weight = 1 / np.sqrt(np.array(block_seconds))
    unit_seconds, _ = nnls(units * weight[:, None], np.array(block_seconds) * weight)
    file_s, mb_s, mpx_s, sample_s = unit_seconds.tolist()
    return UnitCosts(
        round_trips_per_file=max(0.0, far_s - sum(block_seconds)) / waits_s,
        s_per_file=file_s,
        s_per_mb=mb_s,
        s_per_warped_mpx=mpx_s,
        s_per_sample=sample_s,
        s_per_stored_sample=outside_blocks_s / num_stored,
    )


def main() -> None:
    """Calibrate, predict, measure; then predict up to the continent."""
    arguments = side_by_side.parser(__doc__).parse_args()
    columns, rows = side_by_side.by_form(arguments, full=(5, 3), quick=(3, 2), smallest=(2, 1))
    scattered = side_by_side.by_form(arguments, full=48, quick=24, smallest=6)
    begin = BuildConditions(workers=1, latency_s=0.0, read_bytes_per_s=NO_LIMIT)
    far = replace(begin, latency_s=LATENCY_S)
    # No guard between splits: in an area this small it would remove nearly all samples.
    no_target = {"regions": (), "target_samples": None, "test_share": 0.0, "validation_share": 0.0}
    micro = replace(load_variant("micro"), **no_target)
    at = {zoom: replace(micro, name=f"zoom-{zoom}", base_zoom=zoom) for zoom in (15, 16, 17)}
    checked = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, source = Path(scratch), Path(scratch) / "catalog"
        write_sample_catalog(source, columns=columns, rows=rows)
        with served(source, 0.0) as near_by, served(source, LATENCY_S) as far_off:
            small, waiting = (
                [plan(at[17], catalog=catalog, limit=scattered), plan(at[15], catalog=catalog)]
                for catalog in (near_by, far_off)
            )
            timed_build(plan(at[17], catalog=near_by, limit=1), folder / "first.zarr")  # warms up
            costs = calibrated(small, waiting, folder)
            for what, store_plan, conditions in (
                ("zoom 17, dense", plan(at[17], catalog=near_by), begin),
                (f"zoom 16, {LATENCY_S * 1e3:g} ms away", plan(at[16], catalog=far_off), far),
            ):
                total_s, _, num_samples = timed_build(store_plan, folder / f"{len(checked)}.zarr")
                work = work_of(store_plan, list(store_plan.choices()), num_samples=num_samples)
                predicted_s = build_cost(work, conditions, costs).hours * 3600
                checked.append((what, work, predicted_s, total_s))
    side_by_side.report(
        arguments.report,
        "Toward a continent",
        [
            "",
            describe("zarr", "rasterio", "numpy"),
            *unit_lines(costs, sum(store_plan.num_samples for store_plan in small)),
            *prediction_lines(checked),
            *continent_lines(),
        ],
    )


def unit_lines(costs: UnitCosts, num_samples: int) -> list[str]:
    """Format the measured unit costs beside those that the software assumes."""
    assumed = UnitCosts()
    rows = [
        [word, f"{getattr(costs, name) * 1e3:.1f}", f"{getattr(assumed, name) * 1e3:.1f}"]
        for name, word in {
            "s_per_file": "a file opened",
            "s_per_mb": "a megabyte read",
            "s_per_warped_mpx": "a million values warped",
            "s_per_sample": "a sample made",
            "s_per_stored_sample": "a sample put into its shard",
        }.items()
    ]
    trips = f"{costs.round_trips_per_file:.1f} ({assumed.round_trips_per_file:.1f})"
    return [
        "",
        f"Answers waited for, per file opened, and in salibi_data/forecasts/costs.py: {trips}.",
        f"Milliseconds of one worker, from {num_samples} samples:",
        *side_by_side.table(["", "measured", "in salibi_data/forecasts/costs.py"], rows),
    ]


def prediction_lines(checked: Sequence[tuple[str, Workload, float, float]]) -> list[str]:
    """Format predicted and measured seconds of the builds outside the calibration."""
    rows = [
        [
            what,
            f"{work.num_read}",
            f"{work.source_bytes / 1e6 / work.num_read:.1f}",
            f"{predicted_s:.1f}",
            f"{total_s:.1f}",
            f"{predicted_s / total_s - 1:+.0%}",
        ]
        for what, work, predicted_s, total_s in checked
    ]
    head = ["build", "samples", "MB read per sample", "predicted, s", "measured, s", "off by"]
    return ["Predicted, then measured; the target is within 20 %:", *side_by_side.table(head, rows)]


def continent_lines() -> list[str]:
    """Format hours and dollars by the number of workers."""
    catalog = load_catalog("planetary-computer")
    jobs = {name: regional(load_variant(name), catalog) for name in ("small", "full", "micro")}
    for name in ("full", "micro"):
        variant = load_variant(name)
        where = f"continental U.S., zoom {variant.base_zoom}"
        jobs[where] = continental_workload(variant, catalog)
    rows = []
    for what, work in jobs.items():
        for workers, parallel in CREWS:
            cost = build_cost(work, BuildConditions(workers=workers, parallel=parallel))
            rows.append(
                [
                    what,
                    f"{workers}",
                    f"{parallel}",
                    f"{cost.hours:,.1f}",
                    cost.limited_by,
                    f"{work.source_requests:,}",
                    f"{work.source_bytes / 1e12:,.2f}",
                    f"{cost.usd:,.0f}",
                ]
            )
    head = ["", "workers", "in flight", "hours", "limited by", "requests", "TB read", "US dollars"]
    return [
        "With the unit costs of salibi_data/forecasts/costs.py:",
        *side_by_side.table(head, rows),
    ]


def regional(variant: Variant, catalog: Catalog) -> Workload:
    """Predict the work of a variant's own regions."""
    expected = forecast(variant, catalog)
    if expected is None:
        raise SystemExit(f"{variant.name} has no regions")
    return expected.workload


if __name__ == "__main__":
    main()
