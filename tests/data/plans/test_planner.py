"""Plans: where candidates lie, what is asked of a catalog, what a plan says and costs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mercantile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.warp
import shapely
from rasterio.windows import from_bounds
from shapely.geometry import box, mapping, shape

from salibi_data.builds.build import build
from salibi_data.builds.run_log import RunLog
from salibi_data.catalog.providers import load_catalog
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.errors import CatalogError, PlanError, SelectionError, UsageError
from tests.support.data import samples
from tests.support.paths import ROOT
from tests.support.services.servers import RangeServer, StacServer, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def outline_of(made: Plan) -> tuple[float, ...]:
    bounds = [mercantile.bounds(*choice.tile) for choice in made.choices()]
    west, south = min(b.west for b in bounds), min(b.south for b in bounds)
    east, north = max(b.east for b in bounds), max(b.north for b in bounds)
    return west, south, east, north


@pytest.fixture(scope="module")
def whole(sample_toml: str) -> Plan:
    return plan("micro", catalog=sample_toml)


def test_a_plan_is_geoparquet_with_every_sample_in_hilbert_order(whole: Plan) -> None:
    table = pq.read_table(whole.path)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    outlines = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    assert geo["columns"]["geometry"]["bbox"] == shapely.total_bounds(outlines).tolist()
    for choice, outline in zip(whole.choices(), outlines, strict=True):
        assert outline.bounds == pytest.approx(tuple(mercantile.bounds(*choice.tile)), abs=1e-9)
    assert np.all(np.diff(table["tile_id"].to_numpy()) > 0)


def test_a_plan_says_how_far_apart_the_sensors_saw_and_how_much_is_enlarged(whole: Plan) -> None:
    table = whole.table()
    for row, choice in zip(table.to_pylist(), whole.choices(), strict=True):
        naip, s2, s1 = (
            choice.scenes[name][0].acquired_utc for name in ("naip", "sentinel-2", "sentinel-1")
        )
        days = (s2 - naip).total_seconds() / 86_400, (s1 - s2).total_seconds() / 86_400
        assert row["sentinel-2_days_after_naip"] == pytest.approx(days[0], abs=1e-5)
        assert row["sentinel-1_days_after_sentinel-2"] == pytest.approx(days[1], abs=1e-5)
        assert row["lores_enlargement"] == pytest.approx(10 / row["gsd_m"], rel=1e-5)
        assert row["hires_4x_enlargement"] == pytest.approx(0.6 / (row["gsd_m"] / 2), rel=1e-5)


@pytest.mark.parametrize("kind", ["geojson", "parquet"])
def test_an_outline_keeps_exactly_the_tiles_within(
    whole: Plan, sample_toml: str, tmp_path: Path, kind: str
) -> None:
    west, south, east, north = outline_of(whole)
    triangle = shapely.Polygon([(west, south), (east, south), (west, north)])
    path = tmp_path / f"area.{kind}"
    if kind == "geojson":
        features = [{"type": "Feature", "properties": {}, "geometry": mapping(triangle)}]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    else:
        from salibi_data.store.geoparquet import write_rows

        with write_rows(path, dict) as add_rows:
            add_rows({}, np.array([triangle], dtype=object))
    made = plan("micro", catalog=sample_toml, aoi=path)
    expected = [
        choice.tile
        for choice in whole.choices()
        if triangle.covers(box(*mercantile.bounds(*choice.tile)))
    ]
    assert [choice.tile for choice in made.choices()] == expected
    assert 0 < len(expected) < whole.num_samples
    assert made.digest != whole.digest


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no area can be read"),
        ("not json", "neither GeoJSON nor GeoParquet"),
        ('{"type": "Point", "coordinates": [1, 2]}', "no polygon"),
        (
            json.dumps(mapping(box(400_000, 5_000_000, 410_000, 5_010_000))),
            "not longitude and latitude",
        ),
    ],
)
def test_a_senseless_outline_is_a_usage_error(
    sample_toml: str, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "area.geojson"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=said):
        plan("micro", catalog=sample_toml, aoi=path)


def test_a_box_as_large_as_a_continent_is_refused_before_any_search() -> None:
    with pytest.raises(UsageError, match=r"more than .* cells of zoom 9; give a smaller --bbox"):
        plan("micro", catalog="planetary-computer", bounds_lonlat=(-170.0, -60.0, 170.0, 70.0))


def cloudy_share(catalog: Path, choice: Any) -> float:
    """Of a tile, by its scene's own classes at their own pixels, nothing warped."""
    bounds = mercantile.bounds(*choice.tile)
    (scene,) = choice.scenes["sentinel-2"]
    with rasterio.open(catalog / scene.hrefs["SCL"]) as dataset:
        edges = rasterio.warp.transform_bounds("OGC:CRS84", dataset.crs, *bounds)
        classes = dataset.read(1, window=from_bounds(*edges, dataset.transform).round())
    return float(np.isin(classes, [0, 1, 3, 8, 9, 10]).mean())


def test_clouds_are_scored_over_the_tile_when_asked(
    whole: Plan, sample_toml: str, sample_catalog: Path
) -> None:
    clear = plan("micro", catalog=sample_toml, max_cloud=0.05)
    shares = [cloudy_share(sample_catalog, choice) for choice in clear.choices()]
    planned = clear.table(["planned_cloud_fraction"])["planned_cloud_fraction"].to_numpy()
    assert planned.max() <= 0.05
    # Nearest pixels on a turned grid are not the same pixels; edges of clouds may fall otherwise.
    assert np.abs(planned - shares).max() < 0.1
    # Tiles that are cloudy under the scene that `eo:cloud_cover` prefers get another, or are left.
    first_choice = {choice.tile: choice for choice in whole.choices()}
    cloudy = {t for t, c in first_choice.items() if cloudy_share(sample_catalog, c) > 0.2}
    assert cloudy
    rescued = {choice.tile for choice in clear.choices()} & cloudy
    assert len(rescued) + clear.lost.get("clouds", 0) >= len(cloudy)
    for choice in clear.choices():
        if choice.tile in rescued:
            assert choice.scenes["sentinel-2"] != first_choice[choice.tile].scenes["sentinel-2"]


def test_more_than_the_budget_is_refused_and_nothing_is_written(
    whole: Plan, sample_toml: str, tmp_path: Path
) -> None:
    expected = whole.expected["source_bytes"]
    made = plan("micro", catalog=sample_toml, max_bytes=expected, output=tmp_path / "fits.parquet")
    assert made.expected == whole.expected
    with pytest.raises(UsageError, match="--max-bytes"):
        plan("micro", catalog=sample_toml, max_bytes=expected - 1, output=tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="--max-bytes"):
        build(tmp_path / "x.zarr", plan=tmp_path / "fits.parquet", max_bytes=expected - 1)
    assert not (tmp_path / "x.parquet").exists()
    assert not (tmp_path / "x.zarr").exists()


def test_only_requesters_pay(whole: Plan) -> None:
    from salibi_data.plans.estimate import Tally
    from salibi_data.plans.picks import CellSelection
    from salibi_data.store.tiles import Tiles

    assert whole.expected["usd"] == 0
    earth_search = load_catalog("earth-search")
    naip = replace(whole.variant, modalities=whole.variant.modalities[2:])
    assert naip.sensors == ("naip",)
    choices = list(whole.choices())
    x, y = (np.array([c.tile[axis] for c in choices], dtype=np.int64) for axis in (0, 1))
    tally = Tally(naip, earth_search)
    for position, choice in enumerate(choices):
        tally.add(
            CellSelection(
                tiles=Tiles(zoom=17, x=x[[position]], y=y[[position]]),
                sets={"naip": [choice.scenes["naip"]]},
                code={"naip": np.zeros(1, dtype=np.int64)},
                cloud_fraction=np.zeros(1, dtype=np.float32),
                lost={},
            )
        )
    summary, prices = tally.summary(), earth_search.prices
    expected = summary["source_bytes"] / 1e9 * prices.usd_per_gb
    expected += summary["source_requests"] / 1e3 * prices.usd_per_1000_requests
    assert summary["usd"] == pytest.approx(expected, abs=0.005)
    assert summary["usd"] > 0


def test_what_a_plan_expects_is_near_what_a_build_reads(
    sample_catalog: Path, tmp_path: Path
) -> None:
    with serve(RangeServer(sample_catalog)) as server:
        toml = samples.served(server.url, sample_catalog, tmp_path / "served")
        made = plan("micro", catalog=toml, output=tmp_path / "plan.parquet")
        build(tmp_path / "x.zarr", plan=made.path)
        num_requests = len(server.log)
    lines = RunLog.path_of(tmp_path / "x.zarr").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    blocks = [line for line in log if line["event"] == "block"]
    num_bytes = sum(line["num_bytes"] for line in blocks)
    assert sum(line["num_requests"] for line in blocks) == num_requests
    assert 0.4 < made.expected["source_bytes"] / num_bytes < 2.5
    assert 0.4 < made.expected["source_requests"] / num_requests < 2.5


def api_items(catalog: Path, url: str) -> list[dict[str, Any]]:
    items = []
    for path in sorted(catalog.glob("*/*/*.json")):
        item = json.loads(path.read_text())
        if item["type"] == "Feature":
            for key, asset in item["assets"].items():
                asset["href"] = f"{url}/{item['id']}/{key}.tif?se=1&sig=SECRET"
            items.append(item)
    return items


def api_toml(server: StacServer, at: Path) -> str:
    at.write_text(f'extends = "sample"\nname = "api"\nkind = "api"\nurl = "{server.url}/"\n')
    return str(at)


def test_a_plan_that_was_stopped_asks_only_for_what_it_lacks(
    whole: Plan, sample_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salibi_data.catalog.paging.PATIENT_PAUSES_S", (0.01,))
    monkeypatch.setenv("SALIBI_SEARCH_BACKOFF_S", "0.01")
    area = outline_of(whole)
    output = tmp_path / "plan.parquet"
    with serve(StacServer(api_items(sample_catalog, "https://example.com"))) as server:
        toml = api_toml(server, tmp_path / "api.toml")
        plan("micro", catalog=toml, bounds_lonlat=area, output=tmp_path / "calm.parquet")
        calm = server.requests
        server.fail_from = server.requests + calm // 2
        with pytest.raises(CatalogError, match="cannot be searched"):
            plan("micro", catalog=toml, bounds_lonlat=area, output=output)
        assert not output.exists()
        server.fail_from = None
        before = server.requests
        made = plan("micro", catalog=toml, bounds_lonlat=area, output=output)
        assert 0 < server.requests - before < calm
    assert made.digest == Plan.read(tmp_path / "calm.parquet").digest
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "api.toml",
        "calm.parquet",
        "plan.parquet",
    ]
    assert b"SECRET" not in output.read_bytes()


def test_sentinel_2_is_asked_for_only_near_naips_dates(
    whole: Plan, sample_catalog: Path, tmp_path: Path
) -> None:
    with serve(StacServer(api_items(sample_catalog, "https://example.com"))) as server:
        toml = api_toml(server, tmp_path / "api.toml")
        plan("micro", catalog=toml, bounds_lonlat=outline_of(whole))
    asked = {body["collections"][0]: body for body in server.asked}
    assert "datetime" not in asked["naip"]
    naip = {choice.scenes["naip"][0].acquired_utc for choice in whole.choices()}
    for body in server.asked:
        if body["collections"] == ["sentinel-2-l2a"]:
            first, last = (np.datetime64(part[:19]) for part in body["datetime"].split("/"))
            near = [when for when in naip if first <= np.datetime64(when.isoformat()[:19]) <= last]
            assert near
            assert last - first <= np.timedelta64(
                2 * 60 * 86_400 + int((max(near) - min(near)).total_seconds()) + 2, "s"
            )


def test_footprints_bound_the_default_area_of_a_catalog_on_disk(
    whole: Plan, sample_catalog: Path
) -> None:
    quads = [
        shape(json.loads(path.read_text())["geometry"])
        for path in sample_catalog.glob("naip/*/*.json")
    ]
    union = shapely.union_all(quads)
    tiles = whole.num_samples + sum(whole.lost.values())
    assert tiles == sum(
        union.intersects(box(*mercantile.bounds(tile)))
        for tile in mercantile.tiles(*union.bounds, zooms=17)
        if box(*union.bounds).buffer(1e-9).covers(box(*mercantile.bounds(tile)))
    )


def edited(whole: Plan, at: Path, edit: Callable[[pa.Table], pa.Table]) -> Path:
    """A plan after somebody changed its rows and kept its metadata."""
    table = pq.read_table(whole.path)
    pq.write_table(edit(table).replace_schema_metadata(table.schema.metadata), at)
    return at


EDITS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no rows": lambda table: table.slice(0, 0),
    "twice": lambda table: pa.concat_tables([table.slice(0, 3), table.slice(2)]),
    "shuffled": lambda table: table.take([*range(5, 9), *range(5)]),
    "a column less": lambda table: table.drop_columns(["naip_items"]),
    "another zoom": lambda table: with_column(table, "z", pa.array([18] * len(table), pa.int32())),
    "a split of its own": lambda table: with_column(
        table, "split", pa.array([9] * len(table), pa.uint8())
    ),
    "unknown scenes": lambda table: with_column(
        table, "naip_items", pa.array([["x"]] * len(table))
    ),
    "no x": lambda table: with_column(table, "x", pa.array([None] * len(table), pa.int32())),
    "x in words": lambda table: with_column(table, "x", pa.array(["a"] * len(table))),
}


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize("name", EDITS)
def test_a_plan_that_was_edited_wrongly_is_one_clear_error(
    whole: Plan, tmp_path: Path, name: str
) -> None:
    with pytest.raises(PlanError):
        Plan.read(edited(whole, tmp_path / "edited.parquet", EDITS[name]))


def test_a_plan_may_be_thinned_out(whole: Plan, tmp_path: Path) -> None:
    half = edited(whole, tmp_path / "half.parquet", lambda table: table.take([*range(0, 60, 2)]))
    assert Plan.read(half).num_samples == 30


def test_searches_that_came_to_nothing_are_not_kept(
    whole: Plan, sample_catalog: Path, tmp_path: Path
) -> None:
    with serve(StacServer([])) as server:
        toml = api_toml(server, tmp_path / "api.toml")
        with pytest.raises(SelectionError, match="0 naip"):
            plan("micro", catalog=toml, bounds_lonlat=outline_of(whole), output=tmp_path / "p")
    assert [path.name for path in tmp_path.iterdir()] == ["api.toml"]


@pytest.mark.slow
def test_a_million_tiles_take_less_than_a_minute_and_a_gigabyte() -> None:
    command = [sys.executable, "-m", "benchmarks.data.planning", "--tiles", "1000000", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    figures = json.loads(done.stdout)
    assert figures["all"]["tiles"] >= 1_000_000
    assert figures["all"]["seconds"] < 60
    assert figures["all"]["peak_bytes"] < 1e9
    # Four times the tiles, and nowhere near four times the memory.
    assert figures["all"]["peak_bytes"] < 1.5 * figures["quarter"]["peak_bytes"]
