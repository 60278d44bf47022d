"""The exported page: the same files as the server gives, whole within a limit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.store.errors import UsageError
from salibi_data.store.render_rgb import as_rgb
from salibi_data.viewer.export import STAMP, estimate_image_bytes, export
from salibi_data.viewer.samples import SAMPLES_PER_FILE, ViewedSamples, spread_rows
from salibi_data.viewer.site import Site
from tests.support.data import samples as commands
from tests.support.services.viewed import COUNT, serving


@given(count=st.integers(1, 2000), limit=st.none() | st.integers(1, 2500))
def test_a_limit_keeps_runs_all_over_the_store(count, limit):
    rows = spread_rows(count, limit)
    assert len(rows) <= (limit or count)
    assert np.all(np.diff(rows) > 0)
    assert rows[0] >= 0
    assert rows[-1] < count
    if limit is None or limit >= count:
        assert len(rows) == count
    elif count >= 2 * limit:
        assert len(rows) == limit
        assert len(np.flatnonzero(np.diff(rows) > 1)) < -(-limit // SAMPLES_PER_FILE)


def test_a_limited_page_is_whole_for_its_samples(store):
    site = Site(ViewedSamples(store, limit=70), as_rgb)
    assert len(site.samples) == 70
    records = [record for n in range(site.samples.num_files) for record in site.samples.records(n)]
    tiles = np.array([[record["x"], record["y"]] for record in records])
    assert np.array_equal(tiles, np.stack([site.samples.x, site.samples.y], axis=1))
    assert [record["row"] for record in records] == site.samples.rows.tolist()
    assert all(site.get(path) is not None for path in list(site.paths())[::7])
    hidden_row = np.setdiff1d(np.arange(COUNT), site.samples.rows)[0]
    z, x, y = zarr.open_group(store, mode="r")["tile"][int(hidden_row)]
    assert site.get(f"tiles/lores/{z}/{x}/{y}.webp") is None


def test_an_export_is_what_the_server_gives(store, tmp_path):
    site = Site(ViewedSamples(store, limit=20), as_rgb, quality=80)
    steps = []
    summary = export(site, tmp_path / "page", progress=lambda *step: steps.append(step))
    files = commands.tree(tmp_path / "page")
    del files[STAMP]
    assert set(files) == set(site.paths())
    assert summary.num_files == summary.num_written == len(files)
    assert steps[-1] == (len(files), len(files))
    with serving(site) as ask:
        for name in files:
            assert ask(f"/{name}")[2] == (tmp_path / "page" / name).read_bytes()
    num_image_bytes = sum(file.stat().st_size for file in (tmp_path / "page/tiles").rglob("*.webp"))
    assert estimate_image_bytes(site) == pytest.approx(num_image_bytes, rel=0.3)


def test_an_export_goes_on_where_it_was(store, tmp_path):
    site = Site(ViewedSamples(store, limit=12), as_rgb, quality=80)
    folder = tmp_path / "page"

    def kill(done, _total):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(site, folder, progress=kill)
    assert not (folder / "index.html").exists()
    (folder / "tiles/lores").mkdir(parents=True, exist_ok=True)
    (folder / "tiles/lores/.1.webp.0.partial").write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    summary = export(site, folder)
    assert 0 < summary.num_written < summary.num_files
    assert not list(folder.rglob("*.partial"))
    for path, time in times.items():
        assert path.suffix == ".partial" or path.stat().st_mtime_ns == time
    export(site, tmp_path / "once")
    assert commands.tree(folder) == commands.tree(tmp_path / "once")
    assert export(site, folder).num_written == 0
    with pytest.raises(UsageError, match="another store, or with other options"):
        export(Site(ViewedSamples(store, limit=13), as_rgb, quality=80), folder)


def test_a_folder_of_something_else_is_left_alone(site, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        export(site, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_command_exports_and_reports(store, tmp_path):
    page = tmp_path / "page"
    arguments = ("view", str(store), "--export", str(page), "--limit", "3", "--quality", "50")
    process = commands.run(*arguments, "--json")
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["samples"] == 3
    assert report["files"] == report["written"] == len(commands.tree(page)) - 1
    assert "about" in process.stderr
    process_again = commands.run(*arguments)
    assert "python -m http.server" in process_again.stdout
