"""Blocks of parent tiles, their shares, and the guard between them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import load_variant
from salibi_data.plans.picks import CellSelection
from salibi_data.plans.splits import (
    SceneClusters,
    assign,
    leakage,
    num_leaking_neighbours,
    outside_guard,
)
from salibi_data.store.schema import SPLITS
from salibi_data.store.tiles import Tiles

MICRO = load_variant("micro")


def area(left: int, top: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(left, left + width), np.arange(top, top + height))
    return x.ravel(), y.ravel()


@given(st.integers(0, 2**17 - 33), st.integers(0, 2**17 - 33))
def test_no_two_touching_tiles_are_in_different_splits(left: int, top: int) -> None:
    x, y = area(left, top, 32, 32)
    keep = outside_guard(MICRO, x, y)
    assert num_leaking_neighbours(x[keep], y[keep], assign(MICRO, x[keep], y[keep])) == 0


@settings(deadline=None)  # other work on the machine may take its time
@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_the_guard_is_what_it_says_tile_by_tile(offset: int, seed: int) -> None:
    """Scattered tiles, and those at the edges of the world, whose neighbours are over them."""
    variant, last = replace(MICRO, split_zoom_offset=offset), 2**17 - 1
    x, y = np.random.default_rng(seed).integers(0, last + 1, (2, 200))
    x[:6], y[:6] = [0, 0, last, last, 0, 5], [0, last, 0, last, 7, 0]
    around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    codes = np.stack([assign(variant, x + dx, y + dy) for dx, dy in around])
    assert np.array_equal(outside_guard(variant, x, y), (codes <= codes[4]).all(axis=0))
    assert len(outside_guard(variant, x[:0], y[:0])) == 0


def test_without_the_guard_they_would_be() -> None:
    x, y = area(31000, 48000, 32, 32)
    assert num_leaking_neighbours(x, y, assign(MICRO, x, y)) > 0


@given(st.integers(0, 2**17 - 65), st.integers(0, 2**17 - 65))
def test_a_compact_area_has_nearly_the_shares_asked_for(left: int, top: int) -> None:
    codes = assign(MICRO, *area(left & ~3, top & ~3, 64, 64))
    shares = [float((codes == SPLITS[name]).mean()) for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.75, 0.15, 0.1], abs=0.06)


def test_whole_blocks_share_a_split() -> None:
    x, y = area(31000, 48000, 40, 40)
    codes = assign(MICRO, x, y)
    blocks = {}
    for column, row, code in zip((x >> 2).tolist(), (y >> 2).tolist(), codes.tolist(), strict=True):
        blocks.setdefault((column, row), set()).add(code)
    assert all(len(block_splits) == 1 for block_splits in blocks.values())
    assert set().union(*blocks.values()) == {
        SPLITS[name] for name in ("train", "validation", "test")
    }


def test_test_tiles_are_never_given_up() -> None:
    x, y = area(31000, 48000, 64, 64)
    lost = assign(MICRO, x, y)[~outside_guard(MICRO, x, y)]
    assert SPLITS["test"] not in lost
    assert SPLITS["train"] in lost


def picks_of(regions: list[tuple[int, int, int, str]]) -> list[CellSelection]:
    """Squares of tiles (left, top, edge), each made from one scene."""
    selected = []
    for left, top, edge, name in regions:
        x, y = area(left, top, edge, edge)
        scene = Scene(
            id=name,
            sensor="naip",
            acquired_utc=datetime(2022, 7, 1, tzinfo=UTC),
            footprint={},
            hrefs={},
            properties={},
        )
        selected.append(
            CellSelection(
                tiles=Tiles(zoom=17, x=x.astype(np.int64), y=y.astype(np.int64)),
                sets={"naip": [(scene,)]},
                code={"naip": np.zeros(len(x), np.int64)},
                cloud_fraction=np.zeros(len(x), np.float32),
                lost={},
            )
        )
    return selected


@given(st.data())
def test_clusters_share_neither_a_scene_nor_an_edge(data: st.DataObject) -> None:
    squares = [
        (
            31_000 + 8 * data.draw(st.integers(0, 12)),
            48_000 + 8 * data.draw(st.integers(0, 12)),
            data.draw(st.sampled_from([4, 8])),
            data.draw(st.sampled_from("abcdef")),
        )
        for _ in range(data.draw(st.integers(1, 10)))
    ]
    cells = picks_of(squares)
    # Enough clusters far away, so that no split is without one.
    cells += picks_of([(40_000 + 100 * k, 48_000, 4, f"far-{k}") for k in range(20)])
    clusters = SceneClusters(MICRO)
    for picks in cells:
        clusters.add(picks)
    codes = clusters.assign()
    of_scene: dict[str, set[int]] = {}
    x, y, split = [], [], []
    for picks in cells:
        assigned = clusters.split(codes, picks.tiles.x, picks.tiles.y)
        of_scene.setdefault(picks.sets["naip"][0][0].id, set()).update(assigned.tolist())
        x, y, split = [*x, *picks.tiles.x], [*y, *picks.tiles.y], [*split, *assigned]
    assert all(len(assigned) == 1 for assigned in of_scene.values())
    assert num_leaking_neighbours(np.array(x), np.array(y), np.array(split)) == 0


def test_many_regions_far_apart_get_the_shares_asked_for() -> None:
    cells = picks_of([(31_000 + 100 * k, 48_000, 8, f"scene-{k}") for k in range(40)])
    clusters = SceneClusters(MICRO)
    for picks in cells:
        clusters.add(picks)
    codes = np.array(list(clusters.assign().values()))
    shares = [float((codes == SPLITS[name]).mean()) for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.75, 0.15, 0.1], abs=0.03)


def test_the_leakage_report_counts_what_is_shared() -> None:
    split = np.array([0, 0, 1, 1, 2], dtype=np.uint8)
    items = {"naip": [["a"], ["a", "b"], ["b"], ["c"], ["c", "d"]]}
    assert leakage(split, items) == {
        "naip": {
            "scenes": 4,
            "scenes_in_several_splits": 2,  # b in training and validation, c in the other two
            "held_out_samples_sharing_a_training_scene": 1 / 3,
        }
    }
