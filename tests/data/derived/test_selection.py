"""Which samples a selection takes, against plain loops."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from salibi_data.derived.selection import Selection
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.schema import UNKNOWN_TIME, StoreAttributes
from salibi_data.store.tiles import tile_bounds
from tests.support.model.stores import describe

ZOOM = 15
ATTRIBUTES = StoreAttributes(
    variant="synthetic",
    catalog="tests",
    base_zoom=ZOOM,
    sensors=("sentinel-1", "sentinel-2", "naip"),
    modalities={name: describe(name) for name in ("sar", "lores", "hires")},
    plan_digest="0" * 64,
    software_version="0.1.0",
)
SQUARE = np.array([(5000 + i % 8, 12_000 + i // 8) for i in range(64)])


def arrays(count: int = len(SQUARE), **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        "tile": np.column_stack([np.full(count, ZOOM), SQUARE[:count]]).astype(np.int32),
        "split": rng.integers(0, 3, count).astype(np.uint8),
        "acquired": 1_600_000_000 + rng.integers(0, 10**7, (count, 3)),
        "cloud_fraction": rng.uniform(0, 1, count).astype(np.float32),
        **changed,
    }


def table(shifts_m: Any) -> pa.Table:
    return pa.table({"alignment_shift_m": pa.array(shifts_m, pa.float32())})


def bounds_of(x: int, y: int, columns: int, rows: int) -> tuple[float, float, float, float]:
    west, _, _, north = tile_bounds(ZOOM, [x], [y])[0].tolist()
    _, south, east, _ = tile_bounds(ZOOM, [x + columns - 1], [y + rows - 1])[0].tolist()
    return west, south, east, north


def test_nothing_asked_for_takes_all() -> None:
    assert Selection().rows(ATTRIBUTES, arrays()).tolist() == list(range(64))
    assert Selection().to_dict() == {}


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(["train", "validation", "test"]), min_size=1),
    st.floats(0, 1, width=32),
    st.floats(0, 9, width=32),
)
def test_every_test_must_pass(splits: set[str], max_cloud: float, max_shift_m: float) -> None:
    shifts_m = np.random.default_rng(1).uniform(0, 9, 64).astype(np.float32)
    held = arrays()
    codes = {("train", "validation", "test").index(name) for name in splits}
    expected = [
        i
        for i in range(64)
        if held["split"][i] in codes
        and held["cloud_fraction"][i] <= max_cloud
        and shifts_m[i] <= max_shift_m
    ]
    chosen = Selection(splits=tuple(splits), max_cloud=max_cloud, max_shift_m=max_shift_m)
    if expected:
        assert chosen.rows(ATTRIBUTES, held, table(shifts_m)).tolist() == expected
    else:
        with pytest.raises(SelectionError, match="none of 64 samples matches"):
            chosen.rows(ATTRIBUTES, held, table(shifts_m))


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(0, 7), st.integers(1, 8), st.integers(1, 8))
def test_tiles_lie_wholly_within_a_box(left: int, top: int, columns: int, rows: int) -> None:
    chosen = Selection(bounds_lonlat=bounds_of(5000 + left, 12_000 + top, columns, rows))
    inside = [
        i
        for i, (x, y) in enumerate(SQUARE.tolist())
        if 0 <= x - 5000 - left < columns and 0 <= y - 12_000 - top < rows
    ]
    assert chosen.rows(ATTRIBUTES, arrays()).tolist() == inside


def test_an_outline_narrows_a_box(tmp_path: Path) -> None:
    west, south, east, north = bounds_of(5002, 12_002, 2, 2)
    edge = 1e-7
    (tmp_path / "aoi.geojson").write_text(
        json.dumps(mapping(box(west - edge, south - edge, east + edge, north + edge)))
    )
    alone = Selection(aoi=tmp_path / "aoi.geojson")
    assert SQUARE[alone.rows(ATTRIBUTES, arrays())].tolist() == [
        [5002, 12_002],
        [5003, 12_002],
        [5002, 12_003],
        [5003, 12_003],
    ]
    both = Selection(aoi=str(tmp_path / "aoi.geojson"), bounds_lonlat=bounds_of(5000, 12_000, 8, 3))
    assert SQUARE[both.rows(ATTRIBUTES, arrays())].tolist() == [[5002, 12_002], [5003, 12_002]]
    assert set(both.to_dict()) == {"aoi_sha256", "bounds_lonlat"}


def test_dates_hold_for_every_sensor_of_the_modalities() -> None:
    may, june, july = (int(datetime(2021, m, 15, tzinfo=UTC).timestamp()) for m in (5, 6, 7))
    seen = np.array([[may, may, june], [may, may, july], [may, UNKNOWN_TIME, may]])
    held = arrays(3, acquired=seen)
    dates = "2021-05-15/2021-06-15"
    assert Selection(dates=dates).rows(ATTRIBUTES, held).tolist() == [0]
    two = Selection(dates=dates, modalities=("lores", "sar"))
    assert two.rows(ATTRIBUTES, held).tolist() == [0, 1]
    radar = Selection(dates=dates, modalities=("sar",))
    assert radar.rows(ATTRIBUTES, held).tolist() == [0, 1, 2]


def test_what_was_not_measured_does_not_match() -> None:
    held = arrays(3, cloud_fraction=np.array([np.nan, 0.0, 0.3], np.float32))
    assert Selection(max_cloud=1.0).rows(ATTRIBUTES, held).tolist() == [1, 2]
    samples_table = table([0.5, None, float("nan")])
    assert Selection(max_shift_m=1.0).rows(ATTRIBUTES, held, samples_table).tolist() == [0]
    assert Selection(max_shift_m=float("inf")).rows(ATTRIBUTES, held, samples_table).tolist() == [0]
    with pytest.raises(UsageError, match="was not measured"):
        Selection(max_shift_m=1.0).rows(ATTRIBUTES, held, pa.table({"x": [1, 2, 3]}))


def test_a_limit_takes_an_even_sample_that_a_larger_one_contains() -> None:
    few, more = (set(Selection(limit=n).rows(ATTRIBUTES, arrays()).tolist()) for n in (5, 20))
    assert (len(few), len(more)) == (5, 20)
    assert few < more
    # It depends on the tiles alone, not on where they lie in a store.
    later = arrays()
    later["tile"] = later["tile"][::-1]
    again = Selection(limit=5).rows(ATTRIBUTES, later)
    assert {63 - row for row in again.tolist()} == few
    assert len(Selection(limit=99).rows(ATTRIBUTES, arrays())) == 64


def test_modalities_keep_the_stores_order_and_their_sensors() -> None:
    restricted = Selection(modalities=("hires", "sar")).restrict(ATTRIBUTES)
    assert list(restricted.modalities) == ["sar", "hires"]
    assert restricted.sensors == ("sentinel-1", "naip")
    asked = {Selection(modalities=m) for m in (("sar", "hires"), ("hires", "sar"))}
    assert len({json.dumps(selection.to_dict()) for selection in asked}) == 1
    with pytest.raises(UsageError, match=r"hires_9x.*has sar, lores, hires"):
        Selection(modalities=("hires_9x",)).restrict(ATTRIBUTES)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"splits": ("trian",)}, r"splits\[0\] is 'trian'; expected one of train, validation"),
        ({"max_cloud": 1.5}, "max_cloud is 1.5; expected a finite number from 0 to 1"),
        ({"max_cloud": float("nan")}, "max_cloud is nan; expected a finite number"),
        ({"max_shift_m": -1.0}, "max_shift_m is -1.0; expected a finite number of 0 or more"),
        ({"limit": 0}, "limit is 0; expected a whole number of 1 or more"),
        ({"dates": "2021"}, "not A/B"),
        ({"bounds_lonlat": (0.0, 10.0, 1.0, 5.0)}, "south < north"),
    ],
)
def test_senseless_selections_are_refused_at_once(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Selection(**asked)
