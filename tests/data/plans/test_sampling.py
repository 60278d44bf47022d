"""A variant's target: reached exactly, by lot, whatever clouds cost and whoever failed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mercantile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.builds.build import build
from salibi_data.builds.run_log import RunLog
from salibi_data.builds.status import BuildReport, status
from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import load_variant
from salibi_data.inspection.verify import verify
from salibi_data.plans import sampling, splits
from salibi_data.plans.draft import Draft
from salibi_data.plans.picks import CellSelection
from salibi_data.plans.plan import Plan
from salibi_data.plans.planner import plan
from salibi_data.store.open import open_store
from salibi_data.store.tiles import Tiles
from tests.support.data.samples import tree
from tests.support.services.servers import RangeServer, StacServer, serve

IMAGES = ("sar", "lores", "hires", "hires_4x")


class Api:
    """The small sample catalog behind a STAC API, its files behind a server of their own."""

    def __init__(self, catalog: Path, folder: Path, files: RangeServer, url: str) -> None:
        self.folder, self.files = folder, files
        self.toml = str(folder / "api.toml")
        Path(self.toml).write_text(
            f'extends = "sample"\nname = "api"\nkind = "api"\nurl = "{url}/"\n'
        )
        quads = [json.loads(path.read_text())["bbox"] for path in catalog.glob("naip/*/*.json")]
        west, south = (min(box[axis] for box in quads) for axis in (0, 1))
        east, north = (max(box[axis] for box in quads) for axis in (2, 3))
        self.parents = list(mercantile.tiles(west, south, east, north, zooms=15))

    def variant(self, name: str, target: int) -> str:
        """A variant of zoom 17 that aims at so many cloudless samples in the sample's area."""
        regions = "".join(
            f'[[region]]\nname = "r{n}"\ntile = "15/{tile.x}/{tile.y}"\nreason = "there"\n'
            for n, tile in enumerate(self.parents)
        )
        path = self.folder / f"{name}.toml"
        path.write_text(
            f'extends = "micro"\nname = "{name}"\nbase_zoom = 17\ntarget_samples = {target}\n'
            f"[quality]\nmax_cloud_fraction = 0.0\n{regions}"
        )
        return str(path)


@pytest.fixture(scope="module")
def api(sample_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with ExitStack() as stack:
        files = stack.enter_context(serve(RangeServer(sample_catalog)))
        items = []
        for path in sorted(sample_catalog.glob("*/*/*.json")):
            item = json.loads(path.read_text())
            if item["type"] != "Feature":
                continue
            for asset in item["assets"].values():
                file = (path.parent / asset["href"]).resolve()
                asset["href"] = f"{files.url}/{file.relative_to(sample_catalog.resolve())}"
            items.append(item)
        server = stack.enter_context(serve(StacServer(items)))
        yield Api(sample_catalog, tmp_path_factory.mktemp("api"), files, server.url)


@pytest.fixture(scope="module")
def everything(api: Api) -> tuple[Path, BuildReport]:
    """All that passes: a target beyond what is there."""
    store = api.folder / "everything.zarr"
    return store, build(store, variant=api.variant("everything", 1000), catalog=api.toml)


def tiles_of(store: Path) -> list[tuple[int, ...]]:
    return [tuple(tile) for tile in open_store(store)[0]["tile"][:].tolist()]


def by_lot(tiles: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return sorted(
        tiles, key=lambda tile: int(sampling.sampling_hash(tile[0], [tile[1]], [tile[2]])[0])
    )


def test_too_few_samples_are_a_store_and_a_warning(everything: Any) -> None:
    store, report = everything
    assert 20 < report.num_samples < 60
    assert report.dropped["clouds"] > 0
    (warning,) = report.warnings
    assert f"{report.num_samples} samples, {1000 - report.num_samples} fewer" in warning
    assert "wider --dates" in warning
    assert verify(store).num_samples == report.num_samples


@pytest.mark.parametrize("target", [9, 20])
def test_a_store_has_exactly_the_survivors_drawn_first(
    api: Api, everything: Any, tmp_path: Path, target: int
) -> None:
    made = plan(api.variant(f"t{target}", target), catalog=api.toml)
    assert (made.num_wanted, made.num_samples) == (target, sampling.num_planned(target))
    store = tmp_path / "x.zarr"
    report = build(store, plan=made)
    assert (report.num_samples, report.warnings) == (target, ())
    expected = by_lot(tiles_of(everything[0]))[:target]
    assert tiles_of(store) == [tile for tile in tiles_of(everything[0]) if tile in expected]
    whole_group, group = open_store(everything[0])[0], open_store(store)[0]
    rows = [tiles_of(everything[0]).index(tile) for tile in tiles_of(store)]
    for name in (*IMAGES, "split", "valid_fraction", "acquired"):
        assert np.array_equal(group[name][:], whole_group[name][:][rows]), name
    # No further round was read than the one in which the target was reached.
    last = expected[-1]
    planned = [(c.tile.z, c.tile.x, c.tile.y) for c in made.choices()]
    reached = made.rounds[planned.index(last)]
    log = [json.loads(line) for line in RunLog.path_of(store).read_text().splitlines()]
    read = sum(line["samples"] for line in log if line["event"] == "block")
    assert read == np.count_nonzero(made.rounds <= reached) < made.num_samples


def test_what_failed_is_made_up_for_and_then_takes_its_place(api: Api, tmp_path: Path) -> None:
    variant = api.variant("calm", 12)
    build(tmp_path / "calm.zarr", variant=variant, catalog=api.toml)
    made = plan(variant, catalog=api.toml)
    first = next(c for c, number in zip(made.choices(), made.rounds, strict=True) if number == 0)
    quad = first.scenes["naip"][0].hrefs["image"].removeprefix(f"{api.files.url}/")
    api.files.gone.add(quad)
    failed = build(tmp_path / "x.zarr", variant=variant, catalog=api.toml)
    assert failed.failures
    assert failed.num_samples == 12 or failed.warnings
    progress = status(tmp_path / "x.zarr")
    assert progress["target_samples"] == 12
    assert progress["planned_samples"] > 12
    api.files.gone.clear()
    again = build(tmp_path / "x.zarr", variant=variant, catalog=api.toml, workers=2)
    assert again.failures == ()
    assert tree(tmp_path / "x.zarr") == tree(tmp_path / "calm.zarr")


def test_what_narrows_a_plan_leaves_no_target(api: Api, sample_toml: str, tmp_path: Path) -> None:
    variant = api.variant("narrow", 12)
    assert plan(variant, catalog=api.toml, limit=30).target_samples is None
    assert plan(variant, catalog=api.toml, limit=30).num_samples == 30
    corners = np.array([mercantile.bounds(tile) for tile in api.parents])
    box = (*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist())
    boxed = plan(variant, catalog=api.toml, bounds_lonlat=box)
    assert boxed.target_samples is None
    on_disk = plan(variant, catalog=sample_toml)
    assert on_disk.target_samples is None
    assert on_disk.num_samples > sampling.num_planned(12)


def test_the_target_decides_the_digest(api: Api) -> None:
    few, more = (plan(api.variant("same", target), catalog=api.toml) for target in (998, 999))
    assert [c.tile for c in few.choices()] == [c.tile for c in more.choices()]
    assert replace(few, request=more.request).digest != more.digest


SMALL, FULL = load_variant("small"), load_variant("full")


def scene_of(sensor: str) -> Scene:
    return Scene(
        id=f"a {sensor} scene",
        sensor=sensor,
        acquired_utc=datetime(2022, 6, 1, tzinfo=UTC),
        footprint={"type": "Polygon", "coordinates": []},
        hrefs={},
        properties={"gsd": 0.6},
    )


def drafted(target: int, available: np.ndarray, folder: Path) -> Plan:
    """The plan of a variant like small or full when just some tiles of a block can be made."""
    variant = replace(FULL, target_samples=target)
    left, top, edge = 61 << 7, 95 << 7, available.shape[0]
    x, y = (column.ravel()[available.ravel()] for column in np.mgrid[:edge, :edge])
    ids = np.argsort(splits.tile_ids(15, x + left, y + top))
    tiles = Tiles(zoom=15, x=(x + left)[ids], y=(y + top)[ids])
    usable = tiles.take(splits.outside_guard(variant, tiles.x, tiles.y))
    draft = Draft(folder / "draft", variant, load_catalog("planetary-computer"), target=target)
    draft.add(
        CellSelection(
            tiles=usable,
            sets={name: [(scene_of(name),)] for name in variant.sensors},
            code={name: np.zeros(len(usable), np.int64) for name in variant.sensors},
            cloud_fraction=np.full(len(usable), np.nan, np.float32),
            lost={},
        )
    )
    path = folder / f"{target}.parquet"
    draft.write(path, request={}, max_bytes=None)
    return Plan.read(path)


@given(seed=st.integers(0, 2**32 - 1), small=st.integers(1, 40), more=st.integers(0, 200))
@settings(max_examples=15, deadline=None)
def test_small_is_a_subset_of_full(seed: int, small: int, more: int) -> None:
    """Whatever a catalog has, whatever clouds cost: the plans' rows, and the stores'."""
    own = {name: getattr(FULL, name) for name in ("name", "summary", "target_samples")}
    assert replace(SMALL, **own) == FULL
    rng = np.random.default_rng(seed)
    available = rng.random((32, 32)) < rng.uniform(0.1, 1)
    cloudy = rng.random((32, 32)) < rng.uniform(0, 0.6)
    planned, kept = [], []
    with TemporaryDirectory() as folder:
        for target in (small, small + more):
            made = drafted(target, available, Path(folder))
            table = made.table(["x", "y", "split"]).to_pylist()
            rows = [(row["x"], row["y"], row["split"]) for row in table]
            passed = [
                (rank, row)
                for rank, row in zip(made.ranks, rows, strict=True)
                if not cloudy[row[0] % 32, row[1] % 32]
            ]
            planned.append(set(rows))
            kept.append({row for _, row in sorted(passed)[:target]})
    assert planned[0] <= planned[1]
    assert kept[0] <= kept[1]


@given(target=st.integers(1, 10**6), ranks=st.lists(st.integers(0, 2 * 10**6), min_size=1))
def test_rounds_follow_the_lots(target: int, ranks: list[int]) -> None:
    order = np.sort(np.array(ranks))
    rounds = sampling.rounds_of(order, target)
    assert np.array_equal(rounds == 0, order < target)
    assert np.all(np.diff(rounds) >= 0)
    assert sampling.rounds_of(order, None).max() == 0
    assert target < sampling.expected_reads(target)
    assert sampling.expected_reads(target) * sampling.SURVIVING_SHARE >= target


def test_a_lot_is_of_one_tile_alone() -> None:
    x, y = (column.ravel() for column in np.mgrid[7000:7300, 12000:12300])
    drawn = sampling.sampling_hash(15, x, y)
    assert len(np.unique(drawn)) == len(drawn)
    assert np.array_equal(sampling.sampling_hash(15, x[5:9], y[5:9]), drawn[5:9])
    # Even: each quarter of the range has its share, within four deviations.
    quarters = np.bincount((drawn >> np.uint64(62)).astype(int), minlength=4)
    assert np.abs(quarters - len(drawn) / 4).max() < 4 * (len(drawn) * 3 / 16) ** 0.5
