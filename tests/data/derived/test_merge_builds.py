"""Builds that are merged, against the build of both; and the documented commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from salibi_cli.data import app as data
from salibi_data.builds.build import build
from salibi_data.derived.merge import MergeReport, merge
from salibi_data.derived.selection import Selection
from salibi_data.derived.subset import subset
from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.store import geoparquet
from salibi_data.store.schema import SAMPLES_NAME
from salibi_data.store.tiles import tile_bounds
from tests.support.data.samples import tree
from tests.support.paths import ROOT


def test_parts_of_a_build_merge_into_what_they_are_parts_of(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    parts = [
        subset(micro_store, tmp_path / f"{name}.zarr", Selection(splits=names)).store
        for name, names in (("train", ("train",)), ("rest", ("validation", "test")))
    ]
    made = merge(parts, tmp_path / "x.zarr")
    assert_same_samples(made, micro_store)
    compared = verify(made.store, against_source=3, catalog=sample_toml).against_source
    assert compared is not None
    assert compared["samples"] == 3


def test_the_pages_commands_work(
    micro_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, names in (("train", ("small", "iowa", "all")), ("test", ("ohio", "new"))):
        part = subset(micro_store, f"{split}.zarr", Selection(splits=(split,))).store
        for name in names:
            Path("data").mkdir(exist_ok=True)
            Path(f"data/{name}.zarr").symlink_to(part.resolve())
    page = (ROOT / "docs/growing.md").read_text()
    blocks = re.findall(r"^```\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [line[:2] for line in lines if line[0] != "mv"] == [
        ["salibi-data", name] for name in ("subset", "subset", "merge", "merge", "verify")
    ]
    for program, *rest in lines:
        if program == "mv":
            Path(rest[0]).rename(rest[1])
            continue
        done = CliRunner().invoke(data.app, rest)
        assert done.exit_code == 0, (rest, done.output, done.exception)
    tiles = held_tiles("data/all.zarr")
    assert tiles == held_tiles("data/both.zarr")
    assert tiles == sorted(held_tiles("train.zarr") + held_tiles("test.zarr"))


def held_tiles(store: str) -> list[list[int]]:
    """Tiles of a store, sorted."""
    group: Any = zarr.open_group(store, mode="r")
    return sorted(group["tile"][:].tolist())


@pytest.mark.slow
def test_builds_merged_are_the_build_of_both(
    micro_store: Path, sample_toml: str, tmp_path: Path
) -> None:
    """Their splits follow from each tile alone, and the guard knows tiles that are not there."""
    tile = zarr.open_group(micro_store, mode="r")["tile"][:]  # type: ignore[index]
    bounds = tile_bounds(int(tile[0, 0]), tile[:, 1], tile[:, 2])
    west, south = bounds[:, :2].min(axis=0)
    east, north = bounds[:, 2:].max(axis=0)
    middle = np.unique(bounds[:, 0])[len(np.unique(bounds[:, 0])) // 2]
    halves = [(west, south, middle, north), (middle, south, east, north)]
    parts = []
    for number, box in enumerate(halves):
        parts.append(tmp_path / f"{number}.zarr")
        build(parts[-1], variant="micro", catalog=sample_toml, bounds_lonlat=box)
    assert_same_samples(merge(parts, tmp_path / "x.zarr"), micro_store)


def assert_same_samples(made: MergeReport, store: Path) -> None:
    """All arrays, statistics and rows are those of a store; only the origin is told otherwise."""
    verify(made.store)
    names = [path.name for path in store.iterdir() if path.is_dir()]
    for name in names:
        assert tree(made.store / name) == tree(store / name)
    ours, theirs = (info(path)["modalities"] for path in (made.store, store))
    assert ours == theirs
    ours, theirs = (geoparquet.read(path / SAMPLES_NAME)[0] for path in (made.store, store))
    assert ours.to_pylist() == theirs.to_pylist()
    assert len(geopandas.read_parquet(made.store / SAMPLES_NAME)) == made.num_samples
