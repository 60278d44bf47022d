"""Stores as one store: each tile once, nothing leaks, and the same as if built together."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.derived.merge import merge
from salibi_data.derived.overlaps import KEEP
from salibi_data.derived.selection import Selection
from salibi_data.derived.subset import subset
from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.store import geoparquet
from salibi_data.store.errors import SelectionError, StoreError, UsageError
from salibi_data.store.schema import SAMPLES_NAME, SPLITS, UNKNOWN_TIME
from salibi_data.store.tiles import tile_bounds
from tests.support.data.drawn_stores import Sample, draw_store
from tests.support.data.samples import command, environment, run, tree

LEFT, TOP = 5000, 12_000


LATER = 1_700_000_000


def row_of(count: int, *, start: int = 0, **fields: Any) -> list[Sample]:
    """Samples side by side."""
    return [Sample(x=LEFT + start + n, y=TOP, **fields) for n in range(count)]


def held(store: Path) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Colour, time and split by tile."""
    group: Any = zarr.open_group(store, mode="r")
    rows = zip(
        group["tile"][:, 1:].tolist(),
        group["lores"][:, 0, 0, 0].tolist(),
        group["acquired"][:, 0].tolist(),
        group["split"][:].tolist(),
        strict=True,
    )
    return {tuple(tile): (colour, at, split) for tile, colour, at, split in rows}


samples_of_a_store = st.lists(
    st.builds(
        Sample,
        x=st.integers(LEFT, LEFT + 3),
        y=st.integers(TOP, TOP + 2),
        colour=st.integers(1, 255),
        acquired=st.sampled_from([UNKNOWN_TIME, 10**9, LATER]),
        cloud_fraction=st.sampled_from([float("nan"), 0.0, 0.5]),
        split=st.sampled_from([0] * 10 + [1, 3]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda sample: (sample.x, sample.y),
)


def wanted(sample: Sample, keep: str) -> float:
    """The larger, the sooner it is kept."""
    if keep == "newest":
        return sample.acquired
    if keep == "clearest":
        return -9.0 if np.isnan(sample.cloud_fraction) else -sample.cloud_fraction
    return 0


@settings(max_examples=15, deadline=None)
@given(
    stores=st.lists(samples_of_a_store, min_size=2, max_size=3),
    keep=st.sampled_from(KEEP),
    resplit=st.booleans(),
)
def test_a_merged_store_verifies_and_has_what_a_plain_loop_picks(
    tmp_path_factory: pytest.TempPathFactory, stores: list[list[Sample]], keep: Any, resplit: bool
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    paths = [draw_store(folder / f"{n}.zarr", samples) for n, samples in enumerate(stores)]
    try:
        made = merge(paths, folder / "x.zarr", keep=keep, resplit=resplit)
    except SelectionError:
        assert not resplit
        assert not (folder / "x.zarr").exists()
        return
    verify(made.store)
    best: dict[tuple[int, int], Sample] = {}
    for sample in (sample for samples in stores for sample in samples):
        tile = sample.x, sample.y
        if tile not in best or wanted(sample, keep) > wanted(best[tile], keep):
            best[tile] = sample
    contents = held(made.store)
    assert {tile: kept[:2] for tile, kept in contents.items()} == {
        tile: (sample.colour, sample.acquired) for tile, sample in best.items()
    }
    if not resplit:
        assert all(contents[tile][2] == sample.split for tile, sample in best.items())
    assert made.num_samples + made.num_duplicates == sum(made.num_in_sources)


def test_duplicates_are_counted_and_those_that_differ_told_apart(tmp_path: Path) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(6))
    other = [*row_of(1), *row_of(2, start=1, colour=7), *row_of(4, start=3, acquired=LATER)]
    second = draw_store(tmp_path / "b.zarr", other)
    done = run("merge", str(first), str(second), "-o", str(tmp_path / "x.zarr"), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == 7
    assert report["samples_in_sources"] == [6, 7]
    assert report["duplicates"] == 6
    assert report["duplicates_of_same_dates"] == 3
    assert report["duplicates_of_same_dates_that_differ"] == 2
    again = run("merge", str(first), str(second), "-o", str(tmp_path / "x.zarr"))
    assert "7 samples are already in" in again.stdout
    assert "6 samples left out, as another store has their tile (first kept)" in again.stderr


def test_a_store_twice_is_that_store(tmp_path: Path) -> None:
    store = draw_store(tmp_path / "a.zarr", row_of(5))
    made = merge([store, store], tmp_path / "x.zarr")
    assert (made.num_duplicates, made.num_same_dates, made.num_differing) == (5, 5, 0)
    assert held(made.store) == held(store)
    verify(made.store)


def test_a_release_in_a_folder_is_a_source_like_any_store(tmp_path: Path) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(3))
    second = draw_store(tmp_path / "b.zarr", row_of(3, start=3))
    publish(first, str(tmp_path / "released"))
    merge([first, second], tmp_path / "x.zarr")
    merge([tmp_path / "released", second], tmp_path / "y.zarr")
    assert tree(tmp_path / "x.zarr") == tree(tmp_path / "y.zarr")


def test_appending_in_steps_holds_what_merging_at_once_does(tmp_path: Path) -> None:
    parts = [
        draw_store(tmp_path / f"{n}.zarr", row_of(70, start=60 * n, colour=n + 1)) for n in range(3)
    ]
    two = merge(parts[:2], tmp_path / "two.zarr").store
    three = merge([two, parts[2]], tmp_path / "three.zarr").store
    once = merge(parts, tmp_path / "once.zarr").store
    assert held(three) == held(once)
    for file in ("lores/c", "tile", "acquired", "split"):
        assert tree(three / file) == tree(once / file)
    assert info(three)["modalities"] == info(once)["modalities"]
    names = [
        source.get("made_from", {}).get("how") for source in info(three)["made_from"]["sources"]
    ]
    assert names == ["merge", None]


def test_tables_of_many_row_groups_are_joined_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = [(LEFT + n % 5, TOP + n // 5) for n in range(25)]
    samples = [Sample(x=x, y=y, scene=f"{x}/{y}") for x, y in tiles]
    monkeypatch.setattr(geoparquet, "ROWS_PER_GROUP", 4)
    parts = [
        draw_store(tmp_path / "a.zarr", samples[::3]),
        draw_store(tmp_path / "b.zarr", samples[1::3] + samples[:1]),
        draw_store(tmp_path / "c.zarr", samples[2::3]),
    ]
    made = merge(parts, tmp_path / "x.zarr")
    verify(made.store)
    rows = geoparquet.read(made.store / SAMPLES_NAME)[0].to_pylist()
    assert len(rows) == 25
    assert all(row["sentinel-2_items"] == [f"{row['x']}/{row['y']}"] for row in rows)
    outlines = geopandas.read_parquet(made.store / SAMPLES_NAME).geometry
    expected = [tile_bounds(15, [row["x"]], [row["y"]])[0] for row in rows]
    assert np.allclose(outlines.bounds.to_numpy(), expected)


def test_columns_that_a_store_lacks_are_null(micro_store: Path, tmp_path: Path) -> None:
    part = subset(micro_store, tmp_path / "s.zarr", Selection(limit=2, modalities=("lores",))).store
    group: Any = zarr.open_group(part, mode="r")
    taken = group["tile"][0]
    zoom, meaning = int(taken[0]), info(part)["modalities"]["lores"]
    drawn = draw_store(
        tmp_path / "a.zarr",
        [Sample(x=1, y=1)],
        zoom=zoom,
        meaning={
            name: tuple(value) if isinstance(value, list) else value
            for name, value in meaning.items()
            if name not in ("mean", "std")
        },
    )
    made = merge([part, drawn], tmp_path / "x.zarr")
    verify(made.store)
    table = geoparquet.read(made.store / SAMPLES_NAME)[0]
    own = geoparquet.read(part / SAMPLES_NAME)[0]
    assert table.column_names == own.column_names
    assert table["sentinel-2_hrefs"].null_count == 1
    known = [row for row in table.to_pylist() if row["x"] != 1]
    assert known == own.to_pylist()
    with pytest.raises(UsageError, match="does not say what its images are from"):
        verify(made.store, against_source=1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"meaning": {"units": "reflectance"}}, "units of lores is display in .* and reflectance"),
        ({"meaning": {"scale": (2.0,) * 3}}, "scale of lores"),
        ({"meaning": {"bands": ("a", "b", "c")}}, "bands of lores"),
        ({"meaning": {"nodata": 9}}, "nodata of lores"),
    ],
)
def test_stores_of_another_meaning_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(2))
    second = draw_store(tmp_path / "b.zarr", row_of(2, start=2), **changed)
    with pytest.raises(UsageError, match=message):
        merge([first, second], tmp_path / "x.zarr")


def test_stores_with_other_modalities_are_told_how_to_agree(
    micro_store: Path, tmp_path: Path
) -> None:
    radar = subset(
        micro_store, tmp_path / "r.zarr", Selection(limit=2, modalities=("sar", "lores"))
    ).store
    with pytest.raises(UsageError, match="--modalities sar,lores"):
        merge([micro_store, radar], tmp_path / "x.zarr")


def test_variants_and_licences_are_all_named(tmp_path: Path) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(2), meaning={"licence": "CC0"})
    second = draw_store(
        tmp_path / "b.zarr",
        row_of(2, start=2),
        variant="other",
        catalog="elsewhere",
        meaning={"licence": "CC-BY"},
    )
    facts = info(merge([first, second], tmp_path / "x.zarr").store)
    assert (facts["variant"], facts["catalog"]) == ("merged", "tests, elsewhere")
    assert facts["modalities"]["lores"]["licence"] == "CC0; CC-BY"
    assert [source["variant"] for source in facts["made_from"]["sources"]] == ["drawn", "other"]


@pytest.mark.parametrize(("start", "message"), [(2, "1 pairs of neighb"), (1, "1 tiles in diff")])
def test_splits_in_conflict_are_refused_or_made_anew(
    tmp_path: Path, start: int, message: str
) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(2))
    second = draw_store(tmp_path / "b.zarr", row_of(2, start=start, split=SPLITS["test"]))
    with pytest.raises(SelectionError, match=message):
        merge([first, second], tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()
    verify(merge([first, second], tmp_path / "x.zarr", resplit=True).store)


def test_a_scene_in_several_splits_is_refused_where_stores_are_split_by_scenes(
    tmp_path: Path,
) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(2), split_by="scenes")
    far = row_of(2, start=90, split=SPLITS["test"])
    second = draw_store(tmp_path / "b.zarr", far, split_by="scenes")
    with pytest.raises(SelectionError, match="1 sentinel-2 scenes would be in several splits"):
        merge([first, second], tmp_path / "x.zarr")
    others = [replace(sample, scene="S2B") for sample in far]
    third = draw_store(tmp_path / "c.zarr", others, split_by="scenes")
    made = merge([first, third], tmp_path / "x.zarr")
    verify(made.store)
    about = geoparquet.read(made.store / SAMPLES_NAME)[1]
    assert about["variant"]["split_by"] == "scenes"


def test_what_cannot_be_merged_is_a_usage_error(tmp_path: Path) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(2))
    second = draw_store(tmp_path / "b.zarr", row_of(2, start=2))
    with pytest.raises(UsageError, match="two stores or more"):
        merge([first], tmp_path / "x.zarr")
    with pytest.raises(UsageError, match="keep is 'best'"):
        merge([first, second], tmp_path / "x.zarr", keep="best")  # type: ignore[arg-type]
    for output in (second, first / "x.zarr"):
        with pytest.raises(UsageError, match="one is the other, or lies in it"):
            merge([first, second], output)
    (tmp_path / "link.zarr").symlink_to(second)
    with pytest.raises(UsageError, match="one is the other, or lies in it"):
        merge([first, second], tmp_path / "link.zarr")


def test_a_missing_shard_is_an_error_never_nodata(tmp_path: Path) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(2))
    second = draw_store(tmp_path / "b.zarr", row_of(2, start=2))
    next(path for path in (second / "lores" / "c").rglob("*") if path.is_file()).unlink()
    with pytest.raises(StoreError, match=re.escape(str(second))):
        merge([first, second], tmp_path / "x.zarr")


def test_killed_and_run_again_by_others_equals_never_killed(tmp_path: Path) -> None:
    first = draw_store(tmp_path / "a.zarr", row_of(140))
    second = draw_store(tmp_path / "b.zarr", row_of(140, start=120))
    merge([first, second], tmp_path / "whole.zarr")
    store = tmp_path / "x.zarr"
    process = subprocess.Popen(
        command("merge", str(first), str(second), "-o", str(store)), env=environment()
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("x.zarr.building/store-*/shards/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    merge([first, second], store, workers=2)
    assert tree(store) == tree(tmp_path / "whole.zarr")
    assert not (tmp_path / "x.zarr.building").exists()
