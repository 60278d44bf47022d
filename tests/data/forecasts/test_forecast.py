"""What a build takes: work counted on the grid, hours and money that follow from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.variants import load_variant
from salibi_data.forecasts.conus import continental_workload, land
from salibi_data.forecasts.costs import BuildConditions, UnitCosts, Workload, build_cost
from salibi_data.forecasts.regions import AVAILABLE_SHARE, forecast
from salibi_data.plans import splits
from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import tile_bounds
from tests.support.data.samples import run

CATALOG = load_catalog("planetary-computer")
WORK = Workload(
    num_read=1_000,
    num_samples=850,
    num_files=4_000,
    num_warped_px=500_000_000,
    source_bytes=10_000_000_000,
    source_requests=20_000,
    store_bytes=2_000_000_000,
    read_usd=3.0,
)


def test_hours_are_the_sum_of_what_a_worker_does() -> None:
    costs = UnitCosts(
        round_trips_per_file=2.0,
        s_per_file=0.1,
        s_per_mb=0.01,
        s_per_warped_mpx=0.1,
        s_per_sample=1.0,
        s_per_stored_sample=2.0,
    )
    alone = BuildConditions(workers=1, latency_s=0.5, read_bytes_per_s=1e7, parallel=1_000)
    # Two round trips a file, bytes, files, megabytes, pixels, samples, and samples into shards.
    seconds = 4_000 * 2 * 0.5 + 1_000 + 400 + 100 + 50 + 1_000 + 1_700
    cost = build_cost(WORK, alone, costs)
    assert cost.hours == pytest.approx(seconds / 3600)
    assert cost.limited_by == "workers"
    assert cost.usd == pytest.approx(seconds / 3600 * 0.05 + 3)
    assert cost.store_usd_per_month == pytest.approx(2 * 0.023)


def test_more_workers_help_until_they_share_a_limit() -> None:
    few = build_cost(WORK, BuildConditions(workers=2, parallel=16))
    more = build_cost(WORK, BuildConditions(workers=4, parallel=16))
    assert few.hours == pytest.approx(2 * more.hours)
    assert few.usd == pytest.approx(more.usd)
    crowd = build_cost(WORK, BuildConditions(workers=10_000, parallel=16))
    assert crowd.limited_by == "requests in flight"
    in_flight_s = 20_000 * 0.05 + 10_000_000_000 / 8e6
    assert crowd.hours * 3600 > in_flight_s / 16
    assert crowd.usd > few.usd
    freed = build_cost(WORK, BuildConditions(workers=10_000, parallel=100_000))
    assert freed.limited_by == "requests per second"
    narrow = BuildConditions(workers=10_000, parallel=100_000, host_bytes_per_s=1e8)
    assert build_cost(WORK, narrow).limited_by == "the host's bandwidth"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": 0}, "workers is 0; expected a number above 0"),
        ({"latency_s": -1.0}, "latency_s is -1.0; expected a number at least 0"),
        ({"usd_per_worker_hour": float("nan")}, "usd_per_worker_hour is nan"),
        ({"read_bytes_per_s": float("inf")}, "read_bytes_per_s is inf"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(BuildConditions(), **changes)  # type: ignore[arg-type]


def test_the_continent_is_land_and_as_large_as_the_census_says() -> None:
    outline = land()
    for inside in ((-104.99, 39.74), (-73.97, 40.78), (-80.2, 25.8), (-77.02, 38.90)):
        assert shapely.contains_xy(outline, *inside)
    for outside in ((-87.0, 43.5), (-123.1, 49.3), (-149.9, 61.2), (-66.1, 18.4), (-80.0, 31.0)):
        assert not shapely.contains_xy(outline, *outside)
    # On the cylinder of equal area; land alone has 7.66 million square kilometres, all water 8.08.
    sines = shapely.transform(
        outline, lambda xy: np.stack([np.radians(xy[:, 0]), np.sin(np.radians(xy[:, 1]))], axis=1)
    )
    assert 7.66e6 < shapely.area(sines) * 6371.0**2 < 8.08e6


def test_the_continents_tiles_are_those_of_a_plain_count() -> None:
    variant = replace(load_variant("full"), base_zoom=12, regions=())
    west, south, east, north = land().bounds
    workload = continental_workload(variant, CATALOG)
    columns = np.arange(int((west + 180) / 360 * 4096), int((east + 180) / 360 * 4096) + 1)
    x, y = (axis.ravel() for axis in np.meshgrid(columns, np.arange(1300, 1800)))
    bounds = tile_bounds(12, x, y)
    lon, lat = bounds[:, ::2].mean(axis=1), bounds[:, 1::2].mean(axis=1)
    assert lat.min() < south
    assert lat.max() > north
    on_land = shapely.contains_xy(land(), lon, lat)
    usable = splits.outside_guard(variant, x[on_land], y[on_land]).sum()
    assert workload.num_read == pytest.approx(usable * AVAILABLE_SHARE, rel=0.01)


def test_the_continent_is_sixteen_times_as_large_two_zooms_deeper() -> None:
    coarse = continental_workload(replace(load_variant("micro"), base_zoom=15), CATALOG)
    fine = continental_workload(load_variant("micro"), CATALOG)
    assert fine.num_read == pytest.approx(16 * coarse.num_read, rel=0.02)
    # The ground is the same; smaller blocks read more beyond their edges.
    assert coarse.source_bytes < fine.source_bytes < 4 * coarse.source_bytes


def test_requester_pays_is_counted() -> None:
    naip_pays = load_catalog("earth-search")
    recipe = load_variant("full")
    aerial = tuple(row for row in recipe.modalities if row.sensor == "naip")
    only = replace(recipe, modalities=aerial, alignment=None)
    work = continental_workload(only, naip_pays)
    assert work.read_usd == pytest.approx(work.source_bytes / 1e9 * 0.09, rel=0.1)
    assert build_cost(work, BuildConditions()).read_usd == work.read_usd


def test_variants_of_the_same_regions_share_what_is_counted() -> None:
    small, full = (forecast(load_variant(name), CATALOG) for name in ("small", "full"))
    assert small is not None
    assert full is not None
    assert small.regions is full.regions
    assert small.workload.num_read < full.workload.num_read


def test_the_command_gives_hours_and_money_under_the_conditions_asked_for() -> None:
    done = run("forecast", "micro", "--workers", "4", "--usd-per-worker-hour", "2", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    expected = forecast(load_variant("micro"), CATALOG)
    assert expected is not None
    cost = build_cost(expected.workload, BuildConditions(workers=4, usd_per_worker_hour=2.0))
    assert row["source_requests"] == expected.workload.source_requests
    assert row["hours"] == pytest.approx(cost.hours, abs=0.01)
    assert row["usd"] == pytest.approx(8 * cost.hours, abs=0.01)


def test_the_command_reckons_the_continent() -> None:
    done = run("forecast", "--json")
    names = [row["dataset"] for row in json.loads(done.stdout)]
    assert names == ["small", "full", "micro", *(f"continental U.S., zoom {z}" for z in (15, 17))]


def test_the_command_says_what_is_assumed() -> None:
    done = run("forecast", "micro")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "limited by" in text
    assert "Assumed: 8 workers of a core each, 50 ms to an answer" in text


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.toml"
    nowhere.write_text('extends = "micro"\nname = "nowhere"\nregion = []\n')
    for arguments, words in {
        (str(nowhere),): "nothing to forecast",
        ("--latency-ms", "-1"): "expected a number at least 0",
        ("nothing-like-it",): "nothing-like-it",
    }.items():
        done = run("forecast", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
