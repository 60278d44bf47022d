"""Writing the sample catalog: its area, the same bytes, killed runs, refusals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import mercantile
import pytest

from salibi_data.store.errors import UsageError
from salibi_data.synthetic import catalog_writer, parallel
from salibi_data.synthetic.frame import EPSG, area_bounds_lonlat, make_frame
from salibi_data.synthetic.staging import staging_folder
from tests.support.data.sample_items import NUM_ITEMS
from tests.support.data.samples import COLUMNS, ROWS


@pytest.fixture
def catalog(sample_catalog: Path) -> Path:
    """The catalog all tests share."""
    return sample_catalog


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# The area


def test_bounds_are_a_run_of_whole_tiles():
    west, south, east, north = catalog_writer.SAMPLE_BOUNDS_LONLAT
    first, last = mercantile.bounds(7967, 12161, 15), mercantile.bounds(7973, 12166, 15)
    assert (west, north) == pytest.approx((first.west, first.north), abs=1e-12)
    assert (east, south) == pytest.approx((last.east, last.south), abs=1e-12)
    inside = list(mercantile.tiles(west + 1e-9, south + 1e-9, east - 1e-9, north - 1e-9, 17))
    assert len(inside) == 672


def test_area_lies_in_the_named_mgrs_square():
    frame = make_frame()
    assert EPSG == 32615
    assert 500_000 < frame.origin_e < frame.origin_e + frame.width_m < 600_000  # column W
    assert 4_600_000 < frame.origin_n < frame.origin_n + frame.height_m < 4_700_000  # row G


def test_import_is_light():
    program = (
        "import sys, salibi_data.synthetic; print([m for m in ('rasterio', 'shapely', 'numpy', "
        "'mercantile') if m in sys.modules and m != 'numpy'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


# Writing


def test_summary(catalog: Path):
    summary = catalog_writer.write_sample_catalog(catalog, columns=COLUMNS, rows=ROWS)
    assert not summary.is_new
    assert dict(summary.num_items) == NUM_ITEMS
    assert summary.bounds_lonlat == area_bounds_lonlat(COLUMNS, ROWS)
    assert summary.num_bytes == sum(p.stat().st_size for p in catalog.rglob("*") if p.is_file())


@pytest.mark.slow
def test_same_bytes_whatever_the_number_of_processes(catalog: Path, tmp_path: Path):
    steps: list[tuple[int, int]] = []
    catalog_writer.write_sample_catalog(
        tmp_path / "again",
        columns=COLUMNS,
        rows=ROWS,
        processes=1,
        progress=lambda *step: steps.append(step),
    )
    assert digests(catalog) == digests(tmp_path / "again")
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1] == len(set(steps))


def test_existing_catalog_is_left_alone(catalog: Path):
    before = {path: path.stat().st_mtime_ns for path in catalog.rglob("*")}
    catalog_writer.write_sample_catalog(catalog, columns=COLUMNS, rows=ROWS)
    assert {path: path.stat().st_mtime_ns for path in catalog.rglob("*")} == before


def test_other_seed_is_refused(catalog: Path):
    with pytest.raises(UsageError, match="new folder"):
        catalog_writer.write_sample_catalog(catalog, seed=7, columns=COLUMNS, rows=ROWS)


@pytest.mark.parametrize("name", ["notes.txt", "catalog.json"])
def test_foreign_folder_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_text("[]")
    with pytest.raises(UsageError, match="other files"):
        catalog_writer.write_sample_catalog(tmp_path)
    assert (tmp_path / name).read_text() == "[]"


def test_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        catalog_writer.write_sample_catalog(tmp_path / "file")


@pytest.mark.parametrize(("columns", "rows"), [(0, 1), (1, 0), (8, 6), (7, 7)])
def test_impossible_size_is_refused(tmp_path: Path, columns: int, rows: int):
    with pytest.raises(UsageError, match="columns"):
        catalog_writer.write_sample_catalog(tmp_path / "new", columns=columns, rows=rows)
    assert not list(tmp_path.iterdir())


def test_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("stopped")

    monkeypatch.setattr(parallel, "render_scenes", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        catalog_writer.write_sample_catalog(tmp_path / "catalog", columns=1, rows=1)
    assert not list(tmp_path.iterdir())


def fake_render(staging: Path, *_args: Any, **_kwargs: Any) -> list[dict[str, Any]]:
    """Instead of minutes of rendering: leave what is in the folder, return no items."""
    assert not list(staging.iterdir())
    return []


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    leftover = tmp_path / ".catalog.partial"
    (leftover / "naip").mkdir(parents=True)
    (leftover / "naip" / "half.tif").write_bytes(b"II*")
    monkeypatch.setattr(parallel, "render_scenes", fake_render)
    monkeypatch.setattr(catalog_writer, "_write_stac", lambda *_args: None)
    catalog_writer.write_sample_catalog(tmp_path / "catalog", columns=1, rows=1)
    assert [path.name for path in tmp_path.iterdir()] == ["catalog"]


def test_living_run_is_not_disturbed(tmp_path: Path):
    with staging_folder(tmp_path / "catalog") as staging:
        (staging / "file").write_text("mine")
        with pytest.raises(UsageError, match="another run"):
            catalog_writer.write_sample_catalog(tmp_path / "catalog", columns=1, rows=1)
        assert (staging / "file").read_text() == "mine"


def test_killed_run_leaves_no_catalog_and_no_helpers(tmp_path: Path):
    """SIGKILL in mid rendering: no folder of the catalog's name; the helpers end as well."""
    program = (
        "import sys, pathlib\n"
        "from salibi_data.synthetic import write_sample_catalog\n"
        "if __name__ == '__main__':\n"
        "    write_sample_catalog(pathlib.Path(sys.argv[1]), columns=1, rows=1,\n"
        "        progress=lambda done, total: print(done, flush=True))\n"
    )
    script, target = tmp_path / "run.py", tmp_path / "catalog"
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, str(script), str(target)], stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        while int(running.stdout.readline()) == 0:
            pass
        running.kill()
        # Helpers inherit the pipe: it ends when the last of them does.
        running.stdout.read()
    assert not target.exists()
    assert (tmp_path / ".catalog.partial").is_dir()
