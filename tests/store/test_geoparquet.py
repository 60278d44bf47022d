"""Tables with a geometry: what geopandas reads, and how rows are grouped."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from salibi_data.store import geoparquet
from salibi_data.store.errors import PlanError, UsageError


def squares(first: int, count: int) -> tuple[dict, np.ndarray]:
    """Rows with a square of one degree each, from west to east."""
    west = np.arange(first, first + count, dtype=np.float64)
    return {"number": pa.array(west.astype(np.int64))}, shapely.box(west, 10, west + 1, 11)


def test_rows_are_read_back_by_us_and_by_geopandas(tmp_path):
    path = tmp_path / "table.parquet"
    with geoparquet.write_rows(path, lambda: {"kind": "squares"}) as add_rows:
        add_rows(*squares(0, 2))
        add_rows(*squares(2, 3))
        assert not path.exists()
    table, metadata = geoparquet.read(path, ["number"])
    assert table["number"].to_pylist() == [0, 1, 2, 3, 4]
    assert metadata == {"kind": "squares"}
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert tuple(frame.total_bounds) == (0, 10, 5, 11)
    assert json.loads(pq.read_metadata(path).metadata[b"geo"])["columns"]["geometry"] == {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "bbox": [0.0, 10.0, 5.0, 11.0],
    }


def test_row_groups_have_one_size_however_rows_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(geoparquet, "ROWS_PER_GROUP", 4)
    contents = []
    for sizes in ((10,), (1, 6, 3), (4, 4, 2)):
        path = tmp_path / "table.parquet"
        with geoparquet.write_rows(path, dict) as add_rows:
            for size, first in zip(sizes, np.cumsum((0, *sizes)), strict=False):
                add_rows(*squares(int(first), size))
        file = pq.read_metadata(path)
        assert [file.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 2]
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_a_covering_lets_readers_skip_rows(tmp_path):
    path = tmp_path / "table.parquet"
    header = {
        "geo": geoparquet.geo_metadata(["Polygon"], (0, 10, 5, 11), covering="bbox"),
        "ours": "{}",
    }
    with geoparquet.write_groups(path, header) as add_rows:
        for first in (0, 3):
            columns, outlines = squares(first, 2)
            corners = [pa.array(edge) for edge in shapely.bounds(outlines).T]
            box = pa.StructArray.from_arrays(corners, names=geoparquet.BOX_CORNERS)
            add_rows({**columns, "bbox": box}, outlines)
    assert pq.read_metadata(path).num_row_groups == 2
    assert pq.read_schema(path).metadata[b"ours"] == b"{}"
    assert geopandas.read_parquet(path, bbox=(3.5, 10, 9, 11))["number"].tolist() == [3, 4]


def test_a_block_that_fails_leaves_no_file(tmp_path):
    path = tmp_path / "table.parquet"
    with pytest.raises(pa.ArrowInvalid), geoparquet.write_rows(path, dict) as add_rows:
        add_rows({"number": pa.array([1, 2])}, squares(0, 1)[1])
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no file at"):
        geoparquet.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(PlanError, match="is damaged or not a table of ours"):
        geoparquet.read(tmp_path / "text.parquet")
    pq.write_table(pa.table({"number": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(PlanError, match="is damaged or not a table of ours"):
        geoparquet.read(tmp_path / "foreign.parquet")
