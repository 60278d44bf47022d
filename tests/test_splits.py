"""Blocks of parent tiles, their shares, and the guard between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.schema import SPLITS
from salibi_data.splits import assign, guarded
from salibi_data.variant import load_variant
from salibi_data.verifying import num_leaking_neighbours

MICRO = load_variant("micro")


def area(left: int, top: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(left, left + width), np.arange(top, top + height))
    return x.ravel(), y.ravel()


@given(st.integers(0, 2**17 - 33), st.integers(0, 2**17 - 33))
def test_no_two_touching_tiles_are_in_different_splits(left: int, top: int) -> None:
    x, y = area(left, top, 32, 32)
    keep = guarded(MICRO, x, y)
    assert num_leaking_neighbours(x[keep], y[keep], assign(MICRO, x[keep], y[keep])) == 0


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
    assert all(len(found) == 1 for found in blocks.values())
    assert set().union(*blocks.values()) == set(SPLITS.values())


def test_test_tiles_are_never_given_up() -> None:
    x, y = area(31000, 48000, 64, 64)
    lost = assign(MICRO, x, y)[~guarded(MICRO, x, y)]
    assert SPLITS["test"] not in lost
    assert SPLITS["train"] in lost
