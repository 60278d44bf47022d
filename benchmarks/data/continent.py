"""Hours and money of builds up to a continent's, and whether such a prediction can be trusted.

Claim: what a build takes follows from the files that are opened, the megabytes that are read,
the pixels that are warped and the samples that are made, by unit costs from one small build, within 20 %. Calibrated on some
samples far apart at zoom 17 and a few at zoom 15; predicted and then measured: a dense area at
zoom 17, several times as large; zoom 16, which the calibration has not seen, from a server that
waits before each answer. Then `salibi-data forecast`, for several numbers of workers.

One worker builds: a second one would share this machine's cores with the server. The sources are
the offline sample's COGs, served by HTTP in a process of its own.

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
"""Workers, and requests that all of them may have in flight: 16 unless a user raises it."""


def serve_forever(folder: Path, latency_s: float, ready: Connection) -> None:
    """Serve the folder until this process is ended."""
    from tests.support.services.servers import RangeServer, serve

    with serve(RangeServer(folder, latency_s=latency_s)) as server:
        ready.send(server.url)
        ready.recv()


@contextmanager
def served(folder: Path, latency_s: float) -> Iterator[Catalog]:
    """The sample catalog in a folder, with rasters that come from a server."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (folder, latency_s, theirs)
    server = context.Process(target=serve_forever, args=arguments, daemon=True)
    server.start()
    url = ours.recv()
    yield load_catalog(samples.served(url, folder, folder.with_name(f"by-{latency_s:g}")))
    ours.send("done")
    server.join()


def work_of(made: Plan, choices: Sequence[SceneChoice], *, num_samples: int = 0) -> Workload:
    """What making some of a plan's samples takes, by the scenes that the plan has chosen."""
    sets: dict[str, list[Any]] = {}
    codes: dict[str, Any] = {}
    for name in made.variant.sensors:
        numbers: dict[tuple[str, ...], int] = {}
        sets[name], codes[name] = [], []
        for choice in choices:
            ids = tuple(scene.id for scene in choice.scenes[name])
            if ids not in numbers:
                numbers[ids] = len(numbers)
                sets[name].append(choice.scenes[name])
            codes[name].append(numbers[ids])
    x, y = np.array([choice.tile[:2] for choice in choices]).T
    tally = Tally(made.variant, made.catalog)
    tally.add(
        CellSelection(
            tiles=Tiles(zoom=made.variant.base_zoom, x=x, y=y),
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


def timed_build(made: Plan, store: Path) -> tuple[float, list[float], int]:
    """Build; give its seconds, those of each block in the plan's order, and the samples kept."""
    begun_s = time.perf_counter()
    report = build(store, plan=made)
    whole_s = time.perf_counter() - begun_s
    log = RunLog.path_of(store).read_text().splitlines()
    blocks = [entry for entry in map(json.loads, log) if entry["event"] == "block"]
    return whole_s, [entry["seconds"] for entry in blocks], report.num_samples


def calibrated(near: Sequence[Plan], far: Sequence[Plan], folder: Path) -> UnitCosts:
    """Unit costs that fit the seconds of every block of the near plans best; none is negative.

    The same samples from the server that waits tell how often an answer is waited for.
    """
    work, taken, beside_s, kept = [], [], 0.0, 0
    for number, made in enumerate(near):
        whole_s, blocks_s, num_samples = timed_build(made, folder / f"near-{number}.zarr")
        runs = groupby(
            made.choices(),
            key=lambda c: (c.tile.x >> BLOCK_ZOOM_OFFSET, c.tile.y >> BLOCK_ZOOM_OFFSET),
        )
        work += [work_of(made, list(run)) for _, run in runs]
        taken += blocks_s
        beside_s, kept = beside_s + whole_s - sum(blocks_s), kept + num_samples
    far_s = 0.0
    for number, made in enumerate(far):
        far_s += sum(timed_build(made, folder / f"far-{number}.zarr")[1])
    waits_s = LATENCY_S * sum(w.num_files for w in work)
    units = np.array(
        [[w.num_files, w.source_bytes / 1e6, w.num_warped_px / 1e6, w.num_read] for w in work],
        float,
    )
    # The longer a block takes, the more its seconds scatter.
    weight = 1 / np.sqrt(np.array(taken))
    fitted, _ = nnls(units * weight[:, None], np.array(taken) * weight)
    file_s, mb_s, mpx_s, sample_s = fitted.tolist()
    return UnitCosts(
        round_trips_per_file=max(0.0, far_s - sum(taken)) / waits_s,
        s_per_file=file_s,
        s_per_mb=mb_s,
        s_per_warped_mpx=mpx_s,
        s_per_sample=sample_s,
        s_per_stored_sample=beside_s / kept,
    )


def main() -> None:
    """Calibrate, predict, measure; then reckon up to the continent."""
    arguments = side_by_side.parser(__doc__).parse_args()
    columns, rows = side_by_side.by_form(arguments, full=(5, 3), quick=(3, 2), smallest=(2, 1))
    scattered = side_by_side.by_form(arguments, full=48, quick=24, smallest=6)
    begin = BuildConditions(workers=1, latency_s=0.0, read_bytes_per_s=NO_LIMIT)
    far = replace(begin, latency_s=LATENCY_S)
    # No guard between splits: in so small an area it would leave next to nothing.
    whole = {"regions": (), "target_samples": None, "test_share": 0.0, "validation_share": 0.0}
    micro = replace(load_variant("micro"), **whole)
    at = {zoom: replace(micro, name=f"zoom-{zoom}", base_zoom=zoom) for zoom in (15, 16, 17)}
    checked = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, source = Path(scratch), Path(scratch) / "catalog"
        write_sample_catalog(source, columns=columns, rows=rows)
        with served(source, 0.0) as near_by, served(source, LATENCY_S) as far_off:
            small, waiting = (
                [plan(at[17], catalog=place, limit=scattered), plan(at[15], catalog=place)]
                for place in (near_by, far_off)
            )
            timed_build(plan(at[17], catalog=near_by, limit=1), folder / "first.zarr")  # warms up
            costs = calibrated(small, waiting, folder)
            for what, made, conditions in (
                ("zoom 17, dense", plan(at[17], catalog=near_by), begin),
                (f"zoom 16, {LATENCY_S * 1e3:g} ms away", plan(at[16], catalog=far_off), far),
            ):
                whole_s, _, num_samples = timed_build(made, folder / f"{len(checked)}.zarr")
                work = work_of(made, list(made.choices()), num_samples=num_samples)
                predicted_s = build_cost(work, conditions, costs).hours * 3600
                checked.append((what, work, predicted_s, whole_s))
    side_by_side.report(
        arguments.report,
        "Toward a continent",
        [
            "",
            describe("zarr", "rasterio", "numpy"),
            *unit_lines(costs, sum(made.num_samples for made in small)),
            *prediction_lines(checked),
            *continent_lines(),
        ],
    )


def unit_lines(costs: UnitCosts, num_samples: int) -> list[str]:
    """What was measured, beside what the software reckons with."""
    kept = UnitCosts()
    rows = [
        [word, f"{getattr(costs, name) * 1e3:.1f}", f"{getattr(kept, name) * 1e3:.1f}"]
        for name, word in {
            "s_per_file": "a file opened",
            "s_per_mb": "a megabyte read",
            "s_per_warped_mpx": "a million values warped",
            "s_per_sample": "a sample made",
            "s_per_stored_sample": "a sample put into its shard",
        }.items()
    ]
    trips = f"{costs.round_trips_per_file:.1f} ({kept.round_trips_per_file:.1f})"
    return [
        "",
        f"Answers waited for, per file opened, and in salibi_data/forecasts/costs.py: {trips}.",
        f"Milliseconds of one worker, from {num_samples} samples:",
        *side_by_side.table(["", "measured", "in salibi_data/forecasts/costs.py"], rows),
    ]


def prediction_lines(checked: Sequence[tuple[str, Workload, float, float]]) -> list[str]:
    """Predicted and measured seconds of the builds that were not calibrated on."""
    rows = [
        [
            what,
            f"{work.num_read}",
            f"{work.source_bytes / 1e6 / work.num_read:.1f}",
            f"{predicted_s:.1f}",
            f"{whole_s:.1f}",
            f"{predicted_s / whole_s - 1:+.0%}",
        ]
        for what, work, predicted_s, whole_s in checked
    ]
    head = ["build", "samples", "MB read per sample", "predicted, s", "measured, s", "off by"]
    return ["Predicted, then measured; the target is within 20 %:", *side_by_side.table(head, rows)]


def continent_lines() -> list[str]:
    """Hours and dollars by the number of workers."""
    catalog = load_catalog("planetary-computer")
    jobs = {name: regional(load_variant(name), catalog) for name in ("small", "full", "micro")}
    for name in ("full", "micro"):
        variant = load_variant(name)
        where = f"continental U.S., zoom {variant.base_zoom}"
        jobs[where] = continental_workload(variant, catalog)
    rows = []
    for what, work in jobs.items():
        for workers, parallel in CREWS:
            found = build_cost(work, BuildConditions(workers=workers, parallel=parallel))
            rows.append(
                [
                    what,
                    f"{workers}",
                    f"{parallel}",
                    f"{found.hours:,.1f}",
                    found.limited_by,
                    f"{work.source_requests:,}",
                    f"{work.source_bytes / 1e12:,.2f}",
                    f"{found.usd:,.0f}",
                ]
            )
    head = ["", "workers", "in flight", "hours", "limited by", "requests", "TB read", "US dollars"]
    return [
        "With the unit costs of salibi_data/forecasts/costs.py:",
        *side_by_side.table(head, rows),
    ]


def regional(variant: Variant, catalog: Catalog) -> Workload:
    """What a variant's own regions take."""
    expected = forecast(variant, catalog)
    if expected is None:
        raise SystemExit(f"{variant.name} has no regions")
    return expected.workload


if __name__ == "__main__":
    main()
